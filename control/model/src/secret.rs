//! Secrets: values of a namespace that its guests read by name, and that are shown to nobody else.
//!
//! Here are their names, which of their values is meant, and the value itself, which neither `Debug` nor `Display` shows.
//!
//! Not here: how a value is sealed (`control/sealed`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use zeroize::Zeroizing;

use crate::check::{Broken, shown};
use crate::{Bytes, LimitHit, Name, NameError};

/// The most bytes of one value.
pub const MAX_SECRET: usize = 64 << 10;
/// The most secrets of one namespace.
pub const MAX_SECRETS: usize = 256;
/// The most secrets which one workload may read: with their values they fit into one message to its worker.
pub(crate) const MAX_GRANTED: usize = 32;

/// The name of a secret in its namespace, under which guests find it in `wasi:config`: `DATABASE_URL`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(SmolStr);

impl SecretName {
    /// The most characters of one.
    pub const MAX_LENGTH: usize = 128;

    /// Returns it as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text does not name a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{name}` cannot name a secret: use 1 to {max} letters, digits, `-`, `_` and `.`, with a letter, digit or `_` at the \
     beginning, as in `DATABASE_URL`",
    max = SecretName::MAX_LENGTH
)]
pub struct SecretNameError {
    /// The text, shortened and with control characters escaped.
    pub name: String,
}

impl FromStr for SecretName {
    type Err = SecretNameError;

    fn from_str(text: &str) -> Result<Self, SecretNameError> {
        let is_first = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let is_inner = |byte: u8| is_first(&byte) || byte == b'-' || byte == b'.';
        let begins_well = text.as_bytes().first().is_some_and(is_first);
        if !begins_well || text.len() > Self::MAX_LENGTH || !text.bytes().all(is_inner) {
            return Err(SecretNameError { name: shown(text) });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for SecretName {
    type Error = SecretNameError;

    fn try_from(text: String) -> Result<Self, SecretNameError> {
        text.parse()
    }
}

impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which secret: `namespace/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretId {
    /// Whose.
    pub namespace: Name,
    /// Its name there.
    pub name: SecretName,
}

/// A text does not say which secret is meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretIdError {
    /// It has no `/`.
    #[error("`{0}` should have the form namespace/NAME")]
    NoNamespace(String),
    /// The namespace is none.
    #[error(transparent)]
    Namespace(#[from] NameError),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] SecretNameError),
}

impl FromStr for SecretId {
    type Err = SecretIdError;

    fn from_str(text: &str) -> Result<Self, SecretIdError> {
        let (namespace, name) =
            text.split_once('/').ok_or_else(|| SecretIdError::NoNamespace(shown(text)))?;
        Ok(Self { namespace: namespace.parse()?, name: name.parse()? })
    }
}

impl TryFrom<String> for SecretId {
    type Error = SecretIdError;

    fn try_from(text: String) -> Result<Self, SecretIdError> {
        text.parse()
    }
}

impl From<SecretId> for String {
    fn from(id: SecretId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Which of the values that a secret has had. It is drawn at random for each, so that a value is never taken for another
/// one: not after the secret was deleted and set again, nor by a coordinator whose store was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretVersion(pub u64);

/// A text is no version of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the version of a secret has 16 hexadecimal digits")]
pub struct SecretVersionError;

impl FromStr for SecretVersion {
    type Err = SecretVersionError;

    fn from_str(text: &str) -> Result<Self, SecretVersionError> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten();
        number.map(Self).ok_or(SecretVersionError)
    }
}

impl TryFrom<String> for SecretVersion {
    type Error = SecretVersionError;

    fn try_from(text: String) -> Result<Self, SecretVersionError> {
        text.parse()
    }
}

impl From<SecretVersion> for String {
    fn from(version: SecretVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for SecretVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a secret holds. It is not shown by `Debug`, and its memory is wiped when it is let go of.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String))]
pub struct SecretValue(Zeroizing<String>);

/// A text cannot be the value of a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretValueError {
    /// There is nothing in it.
    #[error("the value of a secret must not be empty")]
    Empty,
    /// It has a zero byte in it, which guests in C would take for its end.
    #[error("the value of a secret must not have a zero byte in it; write bytes as base64")]
    ZeroByte,
    /// It is too long.
    #[error("{0}")]
    TooLarge(LimitHit),
}

impl SecretValue {
    /// Returns this text as a value, unless it can be none.
    pub fn new(text: Zeroizing<String>) -> Result<Self, SecretValueError> {
        let value = Self(text);
        value.check()?;
        Ok(value)
    }

    /// Says why this can be no value, if that is so: one that was deserialized was not looked at.
    pub fn check(&self) -> Result<(), SecretValueError> {
        match self.0.len() {
            0 => Err(SecretValueError::Empty),
            length if length > MAX_SECRET => Err(SecretValueError::TooLarge(LimitHit::new(
                "secret_size",
                Bytes(MAX_SECRET as u64),
                Bytes(length as u64),
            ))),
            _ if self.0.contains('\0') => Err(SecretValueError::ZeroByte),
            _ => Ok(()),
        }
    }

    /// Returns the text, for who may have it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(..)")
    }
}

/// A name in `secrets` of a manifest.
pub(crate) fn secret_name(text: &str) -> Result<(), Broken> {
    text.parse::<SecretName>().map(drop).map_err(|error| Broken::new(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_stand_in_a_path_and_in_a_file_name() {
        for name in ["DATABASE_URL", "_a", "api.key-2", "0", &"a".repeat(128)] {
            assert_eq!(name.parse::<SecretName>().unwrap().as_str(), name);
        }
        for name in ["", ".", "..", "-a", "a/b", "a b", "ä", "a\0", &"a".repeat(129)] {
            assert!(name.parse::<SecretName>().is_err(), "{name:?}");
        }
    }

    #[test]
    fn ids_and_versions_are_text_and_back() {
        let id: SecretId = "shop/DATABASE_URL".parse().unwrap();
        assert_eq!(id.to_string(), "shop/DATABASE_URL");
        assert!("DATABASE_URL".parse::<SecretId>().is_err() && "Shop/A".parse::<SecretId>().is_err());
        let version = SecretVersion(0x1f);
        assert_eq!(version.to_string(), "000000000000001f");
        assert_eq!(version.to_string().parse(), Ok(version));
        for wrong in ["", "1f", "+00000000000001f", "000000000000001g"] {
            assert_eq!(wrong.parse::<SecretVersion>(), Err(SecretVersionError), "{wrong}");
        }
    }

    #[test]
    fn a_value_is_not_shown_and_has_bounds() {
        let value = |text: &str| SecretValue::new(Zeroizing::new(text.to_owned()));
        assert_eq!(format!("{:?}", value("hunter2").unwrap()), "SecretValue(..)");
        assert_eq!(value(""), Err(SecretValueError::Empty));
        assert_eq!(value("a\0b"), Err(SecretValueError::ZeroByte));
        assert!(value(&"a".repeat(MAX_SECRET)).is_ok());
        let error = value(&"a".repeat(MAX_SECRET + 1)).unwrap_err().to_string();
        assert_eq!(error, "limit `secret_size` is 64KiB, observed 65537B");
    }
}
