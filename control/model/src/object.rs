//! What is written as an object, and as nothing else.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// What is written as an object: for what serde derives, the list of an object's values would do as well, and where all
/// of them may be absent any short list of nulls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object<T>(
    /// What it is.
    pub T,
);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        object(deserializer).map(Self)
    }
}

/// Reads an object, for `deserialize_with`.
pub(crate) fn object<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Fields<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Fields(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NamespaceSpec, Quota};

    #[test]
    fn a_list_is_no_object() {
        let Object(quota) = serde_json::from_str::<Object<Quota>>(r#"{"allocations": 3}"#).unwrap();
        assert_eq!(quota.allocations, Some(3));
        let error = serde_json::from_str::<Object<Quota>>("[null, null]").unwrap_err().to_string();
        assert_eq!(error, "invalid type: sequence, expected an object at line 1 column 0");
        assert!(serde_json::from_str::<NamespaceSpec>(r#"{"quota": [null, null]}"#).is_err());
    }
}
