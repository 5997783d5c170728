//! What can be wrong with a configuration, and what to write instead.

use std::fmt;

use serde::de;

/// A configuration is not what the guest expects.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigError {
    /// A key has no value and must have one.
    Missing {
        /// The key.
        key: String,
        /// What its value should be, if that is known, and an example of it.
        expected: Option<Expected>,
    },
    /// A value is of another type than the guest expects.
    Unfit {
        /// The key.
        key: String,
        /// The value; `None` if it is a secret.
        value: Option<String>,
        /// What it should be.
        expected: Expected,
    },
    /// The type that should be read has found something else wrong with a secret; what it is might quote the value.
    UnfitSecret {
        /// The name of the secret.
        key: String,
    },
    /// The type that should be read has found something else wrong.
    Refused {
        /// The key, if it is about one.
        key: Option<String>,
        /// What is wrong.
        reason: String,
    },
    /// The host cannot read it.
    Unreadable {
        /// What the host says.
        reason: String,
    },
}

/// What a value should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    /// In words: `a whole number from 0 to 255`.
    pub what: String,
    /// A value that would do.
    pub example: String,
}

impl ConfigError {
    pub(crate) fn unreadable(reason: String) -> Self {
        Self::Unreadable { reason }
    }

    /// Returns the key that has no value, if this is what is wrong.
    pub(super) fn missing(&self) -> Option<&str> {
        match self {
            Self::Missing { key, .. } => Some(key),
            Self::Unfit { .. }
            | Self::UnfitSecret { .. }
            | Self::Refused { .. }
            | Self::Unreadable { .. } => None,
        }
    }

    /// Tells whether its text has this value in it.
    pub(super) fn quotes(&self, value: &str) -> bool {
        match self {
            Self::Refused { reason, .. } => !value.is_empty() && reason.contains(value),
            Self::Missing { .. }
            | Self::Unfit { .. }
            | Self::UnfitSecret { .. }
            | Self::Unreadable { .. } => false,
        }
    }

    /// Returns it as being about this key, if it does not know of any.
    pub(super) fn about(self, about: &str) -> Self {
        match self {
            Self::Refused { key: None, reason } => Self::Refused { key: Some(about.to_owned()), reason },
            other => other,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("configuration: ")?;
        match self {
            Self::Missing { key, expected } => {
                write!(f, "`{key}` is missing")?;
                let example = match expected {
                    Some(Expected { what, example }) => {
                        write!(f, " and should be {what}")?;
                        example
                    }
                    None => "…",
                };
                write!(
                    f,
                    ": write `{key} = \"{example}\"` under `capabilities.config` in dunlin.toml, or, if it is a secret, \
                     `secrets = [\"{key}\"]` under `capabilities` and `dunlin secret set {key}`"
                )
            }
            Self::Unfit { key, value: Some(value), expected: Expected { what, example } } => write!(
                f,
                "`{key}` is `{value}` and should be {what}: write `{key} = \"{example}\"` under `capabilities.config` in \
                 dunlin.toml"
            ),
            Self::Unfit { key, value: None, expected } => write!(
                f,
                "the secret `{key}` should be {}: set it again with `dunlin secret set {key}`",
                expected.what
            ),
            Self::UnfitSecret { key } => write!(
                f,
                "the secret `{key}` is not what its field wants: set it again with `dunlin secret set {key}`"
            ),
            Self::Refused { key: Some(key), reason } => {
                write!(f, "`{key}`: {reason}; correct it under `capabilities.config` in dunlin.toml")
            }
            Self::Refused { key: None, reason } => {
                write!(f, "{reason}; correct `capabilities.config` in dunlin.toml")
            }
            Self::Unreadable { reason } => write!(f, "the host cannot read it: {reason}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self::Refused { key: None, reason: reason.to_string() }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing { key: field.to_owned(), expected: None }
    }
}
