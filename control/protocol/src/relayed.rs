//! Packets that a node sends to another one through somebody whom both reach.
//!
//! They travel on one stream in each direction, one after the other: the length of the packet (two bytes, big-endian),
//! the length of a name (one byte), the name, the packet. To whom it goes is named on its way to the relay, and from
//! whom it comes on its way from there; the relay takes the second from who has sent it. What a packet holds is
//! encrypted between the two nodes: a relay can lose it, but neither read nor forge it.

use dunlin_model::NodeId;

use crate::FrameError;

/// The most bytes of one packet.
pub const MAX_PACKET: usize = 1500;
/// The bytes before the name.
const HEAD: usize = 3;

/// One packet and the node to which it goes, or from which it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relayed<'a> {
    /// The other node.
    pub node: NodeId,
    /// What is for it, or from it.
    pub packet: &'a [u8],
}

impl<'a> Relayed<'a> {
    /// Returns the bytes of it.
    ///
    /// # Errors
    ///
    /// The packet has more than [`MAX_PACKET`] bytes.
    pub fn encode(node: &NodeId, packet: &[u8]) -> Result<Vec<u8>, FrameError> {
        let too_long = || FrameError::PacketTooLong { observed: packet.len() as u64 };
        let length = u16::try_from(packet.len()).map_err(|_| too_long())?;
        if packet.len() > MAX_PACKET {
            return Err(too_long());
        }
        let name = node.0.as_str().as_bytes();
        let name_length = u8::try_from(name.len())
            .map_err(|_| FrameError::Malformed { reason: "the name of a node is too long".to_owned() })?;
        let mut bytes = Vec::with_capacity(HEAD + name.len() + packet.len());
        bytes.extend(length.to_be_bytes());
        bytes.push(name_length);
        bytes.extend(name);
        bytes.extend(packet);
        Ok(bytes)
    }

    /// Returns the first packet in `bytes` and how many of them it takes; nothing if it is not all there.
    ///
    /// # Errors
    ///
    /// It is longer than allowed, or the name is none.
    pub fn decode(bytes: &'a [u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some((&[high, low, name_length], rest)) = bytes.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > MAX_PACKET {
            return Err(FrameError::PacketTooLong { observed: length as u64 });
        }
        let Some((name, rest)) = rest.split_at_checked(name_length.into()) else { return Ok(None) };
        let Some(packet) = rest.get(..length) else { return Ok(None) };
        let malformed = |reason: String| FrameError::Malformed { reason };
        let name = str::from_utf8(name).map_err(|_| malformed("a name that is no text".to_owned()))?;
        let node = name.parse().map_err(|error| malformed(format!("a name that is none: {error}")))?;
        Ok(Some((Self { node, packet }, HEAD + name.len() + length)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_encoded_is_decoded_and_what_follows_is_left() {
        let node: NodeId = "attic".parse().unwrap();
        let mut bytes = Relayed::encode(&node, b"hello").unwrap();
        assert_eq!(bytes, b"\x00\x05\x05attichello");
        bytes.extend(Relayed::encode(&node, b"").unwrap());
        let (first, taken) = Relayed::decode(&bytes).unwrap().unwrap();
        assert_eq!((first, taken), (Relayed { node: node.clone(), packet: b"hello" }, 13));
        let (second, taken) = Relayed::decode(&bytes[taken..]).unwrap().unwrap();
        assert_eq!((second.packet, taken), (&b""[..], 8));
    }

    #[test]
    fn what_is_not_all_there_is_waited_for() {
        let bytes = Relayed::encode(&"attic".parse().unwrap(), b"hello").unwrap();
        for end in 0..bytes.len() {
            assert_eq!(Relayed::decode(&bytes[..end]).unwrap(), None, "{end}");
        }
    }

    #[test]
    fn a_packet_that_is_too_long_is_refused_on_both_sides() {
        let node: NodeId = "attic".parse().unwrap();
        assert!(Relayed::encode(&node, &[0; MAX_PACKET]).is_ok());
        for length in [MAX_PACKET + 1, usize::from(u16::MAX) + 1] {
            let error = Relayed::encode(&node, &vec![0; length]).unwrap_err();
            assert!(error.to_string().starts_with("a packet may have 1500 bytes"), "{error}");
        }
        let error = Relayed::decode(b"\xff\xff\x05attic").unwrap_err();
        assert!(matches!(error, FrameError::PacketTooLong { observed: 65535 }), "{error}");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _any = Relayed::decode(&bytes);
        }
    }
}
