//! One end of a channel for messages with descriptors.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

/// The most bytes of one message. The kernel's own default for a socket's buffer is a little above.
pub const MAX_MESSAGE: usize = 128 << 10;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    // tokio has no type for sockets that keep messages apart and in order; the one for datagrams waits for them too.
    socket: UnixDatagram,
    /// Where messages come in, kept so that not each of them needs room for the longest.
    room: Mutex<Vec<u8>>,
}

/// What came over a channel.
#[derive(Debug)]
pub struct Message {
    /// The message.
    pub bytes: Vec<u8>,
    /// The descriptor that came with it, if one did and this process may still have one more.
    pub descriptor: Option<OwnedFd>,
}

impl Channel {
    /// Returns a new channel: this end, and the other end to be given to a child process. Must be called within a
    /// tokio runtime.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
            None,
        )?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Returns the channel whose one end `descriptor` is, which [`Self::pair`] of another process made. Must be
    /// called within a tokio runtime.
    pub fn new(descriptor: OwnedFd) -> io::Result<Self> {
        Ok(Self { socket: UnixDatagram::from_std(descriptor.into())?, room: Mutex::default() })
    }

    /// Sends one message, with a descriptor if there is one, and waits as long as the channel is full.
    pub async fn send(&self, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        if bytes.len() > MAX_MESSAGE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the message is too long for the channel",
            ));
        }
        let descriptors = descriptor.as_slice();
        self.socket
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty() {
                    ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
                }
                let parts = [io::IoSlice::new(bytes)];
                rustix::net::sendmsg(&self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL)?;
                Ok(())
            })
            .await
    }

    /// Returns the next message; nothing once the other end is closed. Only one task may wait for messages.
    pub async fn receive(&self) -> io::Result<Option<Message>> {
        let message = self.socket.async_io(Interest::READABLE, || {
            let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
            room.resize(MAX_MESSAGE, 0);
            let (length, descriptor) = receive(self.socket.as_fd(), &mut room)?;
            Ok(Message { bytes: room[..length].to_vec(), descriptor })
        });
        Ok(Some(message.await?).filter(|message| !message.bytes.is_empty() || message.descriptor.is_some()))
    }
}

fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [io::IoSliceMut::new(bytes)];
    let received = match rustix::net::recvmsg(socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
        Ok(received) => received,
        // The other process ended with messages of ours unread: that is an end like any other.
        Err(Errno::CONNRESET) => return Ok((0, None)),
        Err(error) => return Err(error.into()),
    };
    let mut descriptors = ancillary.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let descriptor = descriptors.next();
    if received.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message over the channel was cut"));
    }
    Ok((received.bytes, descriptor))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_socket_is_the_same_at_the_other_end() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        ours.send(b"a connection", Some(accepted.as_fd())).await.unwrap();
        drop(accepted);
        let message = theirs.receive().await.unwrap().unwrap();
        assert_eq!(message.bytes, b"a connection");
        let mut passed = TcpStream::from(message.descriptor.unwrap());
        passed.write_all(b"hello").unwrap();
        let mut heard = [0; 5];
        client.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"hello");
    }

    #[tokio::test]
    async fn messages_keep_their_order_and_bounds_and_end_with_the_other_end() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        let sender = tokio::spawn(async move {
            for length in [1, MAX_MESSAGE, 7, MAX_MESSAGE, MAX_MESSAGE] {
                ours.send(&vec![7; length], None).await.unwrap();
            }
            let error = ours.send(&vec![7; MAX_MESSAGE + 1], None).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        });
        for length in [1, MAX_MESSAGE, 7, MAX_MESSAGE, MAX_MESSAGE] {
            let message = theirs.receive().await.unwrap().unwrap();
            assert_eq!(message.bytes.len(), length);
            assert!(message.descriptor.is_none());
        }
        sender.await.unwrap();
        assert!(theirs.receive().await.unwrap().is_none());
    }
}
