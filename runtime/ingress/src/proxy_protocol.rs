//! The `PROXY` protocol, versions 1 and 2: what a load balancer that passes bytes on says first of the client for which
//! it does.
//!
//! It is read from balancers that an operator names, and from nobody else: it says who the client is, and anybody could
//! write it. From those it must come, since what came without could be a client's own.

use std::io;
use std::net::SocketAddr;

use ppp::{HeaderResult, PartialResult as _, v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// How each header of version 2 begins; one of version 1 is not shorter.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const NO_HEADER: &str = "what it sends first is no header of the PROXY protocol";
/// The bytes of a header of version 2 before what it says, the last two of which are the length of that.
const FIXED: usize = 16;
/// The most bytes of a header of version 1, as its specification says.
const MAX_TEXT: usize = 107;
/// The most bytes of a header of version 2 that are read: addresses take 36, and what else balancers add is not used.
const MAX_BINARY: usize = 2048;

/// Reads the header at the beginning of `stream` and no byte more. Returns the client that it names; nothing if the
/// balancer speaks for itself, as when it looks whether somebody is there.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    // Who looks whether somebody is there says nothing at all.
    let mut header = vec![stream.read_u8().await?];
    read_to(stream, &mut header, SIGNATURE.len()).await.map_err(|_| refused(NO_HEADER))?;
    if header == SIGNATURE {
        read_to(stream, &mut header, FIXED).await?;
        let length = FIXED + usize::from(u16::from_be_bytes([header[14], header[15]]));
        if length > MAX_BINARY {
            return Err(refused(&format!("its header has {length} bytes, of {MAX_BINARY} that are read")));
        }
        read_to(stream, &mut header, length).await?;
    } else {
        while header.starts_with(b"PROXY") && !header.ends_with(b"\r\n") && header.len() < MAX_TEXT {
            header.push(stream.read_u8().await?);
        }
    }
    client(&header)
}

async fn read_to(
    stream: &mut (impl AsyncRead + Unpin),
    header: &mut Vec<u8>,
    length: usize,
) -> io::Result<()> {
    let read = header.len();
    header.resize(length, 0);
    stream.read_exact(&mut header[read..]).await.map(drop)
}

fn client(header: &[u8]) -> io::Result<Option<SocketAddr>> {
    let parsed = HeaderResult::parse(header);
    if !parsed.is_complete() {
        return Err(refused(NO_HEADER));
    }
    match parsed {
        HeaderResult::V1(Ok(header)) => Ok(match header.addresses {
            v1::Addresses::Tcp4(it) => Some(SocketAddr::new(it.source_address.into(), it.source_port)),
            v1::Addresses::Tcp6(it) => Some(SocketAddr::new(it.source_address.into(), it.source_port)),
            v1::Addresses::Unknown => None,
        }),
        HeaderResult::V2(Ok(header)) => Ok(match (header.command, &header.addresses) {
            (v2::Command::Local, _) => None,
            (v2::Command::Proxy, v2::Addresses::IPv4(it)) => {
                Some(SocketAddr::new(it.source_address.into(), it.source_port))
            }
            (v2::Command::Proxy, v2::Addresses::IPv6(it)) => {
                Some(SocketAddr::new(it.source_address.into(), it.source_port))
            }
            (v2::Command::Proxy, v2::Addresses::Unix(_) | v2::Addresses::Unspecified) => None,
        }),
        HeaderResult::V1(Err(error)) => Err(refused(&error.to_string())),
        HeaderResult::V2(Err(error)) => Err(refused(&error.to_string())),
    }
}

fn refused(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header of version 2 with this command and family, and these bytes.
    fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut header = SIGNATURE.to_vec();
        header.extend([0x20 | command, family]);
        header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
        header.extend(addresses);
        header
    }

    const IPV4: &[u8] = &[192, 0, 2, 7, 10, 0, 0, 1, 0x1f, 0x90, 0, 80];

    async fn read_all(header: &[u8]) -> (io::Result<Option<SocketAddr>>, Vec<u8>) {
        let sent = [header, b"GET / HTTP/1.1\r\n"].concat();
        let mut stream = &sent[..];
        let client = read(&mut stream).await;
        (client, stream.to_vec())
    }

    #[tokio::test]
    async fn the_client_is_told_and_nothing_more_is_read() {
        let mut ipv6 = [0; 36];
        ipv6[..16].copy_from_slice(&"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets());
        ipv6[32..34].copy_from_slice(&443_u16.to_be_bytes());
        let more = [IPV4, &[4, 0, 3, 1, 2, 3]].concat();
        for (header, client) in [
            (b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n".to_vec(), Some("192.0.2.7:8080")),
            (b"PROXY TCP6 2001:db8::7 ::1 443 80\r\n".to_vec(), Some("[2001:db8::7]:443")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (binary(1, 0x11, IPV4), Some("192.0.2.7:8080")),
            (binary(1, 0x11, &more), Some("192.0.2.7:8080")),
            (binary(1, 0x21, &ipv6), Some("[2001:db8::7]:443")),
            (binary(0, 0, &[]), None),
            (binary(0, 0x11, IPV4), None),
            (binary(1, 0x31, &[0; 216]), None),
        ] {
            let (told, rest) = read_all(&header).await;
            assert_eq!(told.unwrap(), client.map(|client| client.parse().unwrap()), "{header:?}");
            assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_is_refused() {
        let endless = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        for header in [
            b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.7 10.0.0.1 8080\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.700 10.0.0.1 8080 80\r\n".to_vec(),
            b"PROXY-TCP4 192.0.2.7 10.0.0.1 8080 80\r\n".to_vec(),
            endless,
            binary(1, 0x11, &IPV4[..4]),
            binary(3, 0x11, IPV4),
            binary(1, 0x11, &[0; 4000]),
        ] {
            assert!(read_all(&header).await.0.is_err(), "{header:?}");
        }
        assert!(read(&mut &SIGNATURE[..]).await.is_err(), "it ends too early");
    }
}
