//! Messages of a kind which this version does not know: a receiver skips them instead of hanging up.
//!
//! serde alone cannot tell such a message from a malformed one. So a message that does not decode is asked for its
//! kind, and the type is asked whether it has it: it gets the kind with nothing in it, and either takes it, finds its
//! fields missing, or says that there is no such variant. No list of kinds has to be kept up to date for this.
//!
//! A message of a known kind which holds an unknown variant further inside is malformed.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::{FrameError, decode};

/// Returns the message in a frame's body, or `None` if `M` is an enum that has no variant of the message's kind.
pub fn decode_known<M: DeserializeOwned>(body: &[u8]) -> Result<Option<M>, FrameError> {
    match decode(body) {
        Ok(message) => Ok(Some(message)),
        Err(error) => match decode::<Kind>(body) {
            Ok(Kind(kind)) if !is_variant::<M>(&kind) => Ok(None),
            _ => Err(error),
        },
    }
}

/// The kind of a message, and that the rest of it is well-formed CBOR.
struct Kind(String);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KindVisitor;

        impl<'de> Visitor<'de> for KindVisitor {
            type Value = Kind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a kind, alone or as the only key of a map")
            }

            fn visit_str<E: de::Error>(self, kind: &str) -> Result<Kind, E> {
                Ok(Kind(kind.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Kind, A::Error> {
                let Some((kind, IgnoredAny)) = map.next_entry()? else {
                    return Err(de::Error::custom("the map is empty"));
                };
                match map.next_entry::<IgnoredAny, IgnoredAny>()? {
                    None => Ok(Kind(kind)),
                    Some(_) => Err(de::Error::custom("the map has a second key")),
                }
            }
        }

        deserializer.deserialize_any(KindVisitor)
    }
}

/// Tells whether `M` has a variant of this name, or is no enum.
fn is_variant<M: DeserializeOwned>(kind: &str) -> bool {
    !matches!(M::deserialize(StrDeserializer::<ProbeError>::new(kind)), Err(ProbeError::UnknownVariant))
}

#[derive(Debug)]
enum ProbeError {
    UnknownVariant,
    Other,
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kind alone is no message")
    }
}

impl std::error::Error for ProbeError {}

impl de::Error for ProbeError {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::Other
    }

    fn unknown_variant(_: &str, _: &'static [&'static str]) -> Self {
        Self::UnknownVariant
    }
}
