//! Join tokens: what an operator carries from the coordinator to a new machine.
//!
//! `rlj1_<id>_<secret>_<authority>_<checksum>`. The id is public and may stand in logs. The secret proves the machine
//! to the coordinator, the hash of the authority's key proves the coordinator to the machine, before the secret is
//! sent. The checksum tells a typing error from a wrong token, without asking anyone.

use std::fmt;
use std::str::FromStr;

use base32::Alphabet;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

const PREFIX: &str = "rlj1";
const ALPHABET: Alphabet = Alphabet::Rfc4648Lower { padding: false };
const ID_LENGTH: usize = 10;

/// A token with which one machine may join. It does not show its secret in `Debug`, only in `Display`.
#[derive(Clone)]
pub struct JoinToken {
    id: String,
    secret: [u8; 32],
    authority: [u8; 32],
}

/// Why a text is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenError {
    /// It is something else.
    #[error("this is not a join token: one begins with `rlj1_`")]
    WrongPrefix,
    /// It was one, once.
    #[error("the join token has a typing error or is cut off: its checksum does not fit")]
    WrongChecksum,
    /// Its checksum fits, its parts do not.
    #[error("the join token was not made by this version of Dunlin: its parts have other lengths")]
    WrongParts,
}

impl JoinToken {
    /// Returns a new token for the fleet whose authority's key has this hash.
    ///
    /// # Panics
    ///
    /// If the operating system gives no random bytes.
    pub fn create(authority: [u8; 32]) -> Self {
        let mut secret = [0; 32];
        let mut id = [0; ID_LENGTH];
        getrandom::fill(&mut secret).expect("the operating system gives random bytes");
        getrandom::fill(&mut id).expect("the operating system gives random bytes");
        let mut id = base32::encode(ALPHABET, &id);
        id.truncate(ID_LENGTH);
        Self { id, secret, authority }
    }

    /// Returns the public part.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns what the coordinator keeps instead of the secret.
    pub fn secret_hash(&self) -> [u8; 32] {
        hash_secret(&self.secret)
    }

    /// Returns the hash of the key of the fleet's authority.
    pub fn authority(&self) -> &[u8; 32] {
        &self.authority
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

/// Returns what the coordinator keeps instead of a secret. It has 256 random bits, so one SHA-256 is enough.
pub fn hash_secret(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}

/// Tells whether `secret` is the one with this hash, in a time that does not depend on it.
pub fn is_secret(secret: &[u8], hash: &[u8; 32]) -> bool {
    hash_secret(secret).ct_eq(hash).into()
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = base32::encode(ALPHABET, &self.secret);
        let authority = base32::encode(ALPHABET, &self.authority);
        let text = format!("{PREFIX}_{}_{secret}_{authority}", self.id);
        write!(f, "{text}_{:08x}", crc32fast::hash(text.as_bytes()))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("id", &self.id).finish_non_exhaustive()
    }
}

impl FromStr for JoinToken {
    type Err = JoinTokenError;

    fn from_str(text: &str) -> Result<Self, JoinTokenError> {
        let text = text.trim();
        if !text.starts_with("rlj1_") {
            return Err(JoinTokenError::WrongPrefix);
        }
        let (checked, checksum) = text.rsplit_once('_').ok_or(JoinTokenError::WrongChecksum)?;
        if checksum != format!("{:08x}", crc32fast::hash(checked.as_bytes())) {
            return Err(JoinTokenError::WrongChecksum);
        }
        let parts: Vec<&str> = checked.split('_').collect();
        let [_, id, secret, authority] = parts.as_slice() else {
            return Err(JoinTokenError::WrongParts);
        };
        if id.len() != ID_LENGTH || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(JoinTokenError::WrongParts);
        }
        let hash = |part: &str| {
            base32::decode(ALPHABET, part)
                .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
                .ok_or(JoinTokenError::WrongParts)
        };
        Ok(Self { id: (*id).to_owned(), secret: hash(secret)?, authority: hash(authority)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_what_it_prints() {
        let token = JoinToken::create([7; 32]);
        let read: JoinToken = format!(" {token}\n").parse().unwrap();
        assert_eq!(read.id(), token.id());
        assert_eq!(read.secret_hash(), token.secret_hash());
        assert_eq!(read.authority(), &[7; 32]);
        assert!(is_secret(read.secret(), &token.secret_hash()));
        assert!(!is_secret(b"another", &token.secret_hash()));
        assert_ne!(JoinToken::create([7; 32]).secret(), token.secret());
    }

    #[test]
    fn one_character_off_is_told_as_a_typing_error() {
        let text = JoinToken::create([7; 32]).to_string();
        for at in PREFIX.len() + 1..text.len() {
            for other in ["x", "7", "_", "", "aa"] {
                if text[at..=at] == *other {
                    continue;
                }
                let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
                let error = wrong.parse::<JoinToken>().unwrap_err();
                assert_eq!(error, JoinTokenError::WrongChecksum, "{other:?} at {at}");
            }
        }
        for cut in PREFIX.len() + 1..text.len() {
            assert_eq!(text[..cut].parse::<JoinToken>().unwrap_err(), JoinTokenError::WrongChecksum);
        }
    }

    #[test]
    fn what_is_no_token_is_told_as_such() {
        for text in ["", "rlj1", "hello", "rlu1_abc", "rlj2_a_b_c_d", "ä"] {
            assert_eq!(text.parse::<JoinToken>().unwrap_err(), JoinTokenError::WrongPrefix, "{text:?}");
        }
        let text = "rlj1_short_a_b";
        let text = format!("{text}_{:08x}", crc32fast::hash(text.as_bytes()));
        assert_eq!(text.parse::<JoinToken>().unwrap_err(), JoinTokenError::WrongParts);
    }

    #[test]
    fn debug_does_not_show_the_secret() {
        let token = JoinToken::create([7; 32]);
        assert_eq!(format!("{token:?}"), format!("JoinToken {{ id: {:?}, .. }}", token.id()));
    }
}
