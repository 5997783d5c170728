//! The key, and what it seals: one byte for the form (1), 8 bytes that say by which key, 24 of a nonce drawn at random,
//! and what XChaCha20-Poly1305 makes of the value, of the same length and a tag of 16 bytes.
//!
//! The nonce is long enough to be drawn at random as often as one likes. What a value belongs to is sealed with it (as
//! "associated data"), so that one cannot be put in the place of another.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

const FORM: u8 = 1;
const KEY_ID: usize = 8;
const NONCE: usize = 24;

/// A key that seals and unseals values. Its memory is wiped when it is let go of.
#[derive(Clone)]
pub struct SealingKey {
    /// Says by which key something was sealed, and nothing of the key.
    id: [u8; KEY_ID],
    cipher: XChaCha20Poly1305,
}

/// Why a sealed value could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnsealError {
    /// It is not of the form that is written here.
    #[error("it is not a sealed value, or of a later version")]
    Malformed,
    /// It was sealed with another key.
    #[error("it was sealed with another key")]
    OtherKey,
    /// Its bytes, or what it belongs to, were changed.
    #[error("it is damaged, or was moved from where it belongs")]
    Damaged,
}

impl SealingKey {
    /// Returns the key for one purpose, which `context` names once and for all, from a secret that serves others as well.
    pub fn derived(context: &str, secret: &[u8]) -> Self {
        let key = Zeroizing::new(blake3::derive_key(context, secret));
        let id = blake3::keyed_hash(&key, b"the name of this key");
        let mut short = [0; KEY_ID];
        short.copy_from_slice(&id.as_bytes()[..KEY_ID]);
        Self { id: short, cipher: XChaCha20Poly1305::new(key.as_slice().into()) }
    }

    /// Seals a value that belongs to `owner`, which must be said again to unseal it.
    ///
    /// # Panics
    ///
    /// The system gives no random numbers.
    pub fn seal(&self, owner: &str, value: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).expect("the system gives random numbers");
        let payload = Payload { msg: value, aad: owner.as_bytes() };
        let sealed = self.cipher.encrypt(XNonce::from_slice(&nonce), payload);
        let sealed = sealed.expect("a value is far shorter than the 256 GiB that the cipher takes");
        [&[FORM], &self.id[..], &nonce, &sealed].concat()
    }

    /// Returns the value that was sealed for `owner`.
    pub fn unseal(&self, owner: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, UnsealError> {
        let rest = sealed.strip_prefix(&[FORM]).ok_or(UnsealError::Malformed)?;
        let (id, rest) = rest.split_first_chunk::<KEY_ID>().ok_or(UnsealError::Malformed)?;
        let (nonce, rest) = rest.split_first_chunk::<NONCE>().ok_or(UnsealError::Malformed)?;
        if *id != self.id {
            return Err(UnsealError::OtherKey);
        }
        let payload = Payload { msg: rest, aad: owner.as_bytes() };
        let value = self.cipher.decrypt(XNonce::from_slice(nonce), payload);
        value.map(Zeroizing::new).map_err(|_| UnsealError::Damaged)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingKey(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_is_read_again_by_who_has_the_key_and_says_whose_it_is() {
        let key = SealingKey::derived("tests", b"one");
        let sealed = key.seal("shop/KEY", b"hunter2");
        assert_eq!(key.unseal("shop/KEY", &sealed).unwrap().as_slice(), b"hunter2");
        assert_eq!(
            SealingKey::derived("tests", b"one").unseal("shop/KEY", &sealed).unwrap().as_slice(),
            b"hunter2"
        );
        assert_eq!(key.unseal("other/KEY", &sealed), Err(UnsealError::Damaged));
        for other in [SealingKey::derived("tests", b"two"), SealingKey::derived("others", b"one")] {
            assert_eq!(other.unseal("shop/KEY", &sealed), Err(UnsealError::OtherKey));
        }
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_ne!(sealed, key.seal("shop/KEY", b"hunter2"));
    }

    #[test]
    fn no_byte_can_be_changed_and_none_can_be_left_out() {
        let key = SealingKey::derived("tests", b"one");
        let sealed = key.seal("shop/KEY", b"hunter2");
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(key.unseal("shop/KEY", &changed).is_err(), "byte {index}");
            assert!(key.unseal("shop/KEY", &sealed[..index]).is_err(), "{index} bytes");
        }
    }

    #[test]
    fn a_key_is_not_shown() {
        assert_eq!(format!("{:?}", SealingKey::derived("tests", b"one")), "SealingKey(..)");
    }
}
