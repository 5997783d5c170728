//! How serde reads a configuration: a map from keys to texts, where each text becomes what its field wants.

use std::cell::RefCell;
use std::fmt::Display;
use std::str::FromStr;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::error::{ConfigError, Expected};
use crate::platform;

/// The values of a configuration. They are few, and a list of them takes less code than a map.
#[derive(Clone)]
pub(super) struct Source {
    values: Vec<(String, Value)>,
    /// The secrets that were read, with their names: no error may quote them.
    secrets: RefCell<Vec<(String, String)>>,
}

#[derive(Clone)]
enum Value {
    Text(String),
    Secret(String),
    /// There is none, and it should be said what it should be.
    Blank,
}

impl Source {
    pub(super) fn new(values: Vec<(String, String)>) -> Self {
        let values = values.into_iter().map(|(key, value)| (key, Value::Text(value))).collect();
        Self { values, secrets: RefCell::default() }
    }

    /// Returns it with a value for `key` that nothing can be made of.
    pub(super) fn with_blank(&self, key: &str) -> Self {
        let mut source = self.clone();
        source.values.push((key.to_owned(), Value::Blank));
        source
    }

    /// Returns the error of a type as a whole, which knows of no key, without what it quotes of a secret.
    pub(super) fn without_secrets(&self, error: ConfigError) -> ConfigError {
        let secrets = self.secrets.borrow();
        match secrets.iter().find(|(_, value)| error.quotes(value)) {
            Some((name, _)) => ConfigError::UnfitSecret { key: name.clone() },
            None => error,
        }
    }

    fn read<'de, V: Visitor<'de>>(&self, fields: &[&str], visitor: V) -> Result<V::Value, ConfigError> {
        let mut values = self.values.clone();
        for field in fields {
            // A secret is not among all values: it must be asked for by its name.
            if values.iter().all(|(key, _)| key != field)
                && let Some(value) = platform::config_value(field).map_err(ConfigError::unreadable)?
            {
                self.secrets.borrow_mut().push(((*field).to_owned(), value.clone()));
                values.push(((*field).to_owned(), Value::Secret(value)));
            }
        }
        visitor.visit_map(Entries { left: values.into_iter(), next: None })
    }
}

impl<'de> Deserializer<'de> for &Source {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        self.read(&[], visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        self.read(fields, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

struct Entries {
    left: std::vec::IntoIter<(String, Value)>,
    next: Option<(String, Value)>,
}

impl<'de> MapAccess<'de> for Entries {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        self.next = self.left.next();
        let Some((key, _)) = &self.next else { return Ok(None) };
        let key: StrDeserializer<'_, ConfigError> = key.as_str().into_deserializer();
        seed.deserialize(key).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, ConfigError> {
        let Some((key, value)) = self.next.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        let is_secret = matches!(value, Value::Secret(_));
        seed.deserialize(Entry { key: &key, value }).map_err(|error| match error {
            // What the type says may quote the value.
            ConfigError::Refused { .. } if is_secret => ConfigError::UnfitSecret { key },
            error => error.about(&key),
        })
    }
}

/// One value, which knows the key it belongs to.
struct Entry<'a> {
    key: &'a str,
    value: Value,
}

impl Entry<'_> {
    /// Returns the text, or says that there is none.
    fn text(self, what: &str, example: &str) -> Result<String, ConfigError> {
        match self.value {
            Value::Text(text) | Value::Secret(text) => Ok(text),
            Value::Blank => {
                let expected = Some(Expected { what: what.to_owned(), example: example.to_owned() });
                Err(ConfigError::Missing { key: self.key.to_owned(), expected })
            }
        }
    }

    fn parse<T: FromStr>(self, what: impl Display, example: &str) -> Result<T, ConfigError> {
        let what = what.to_string();
        let (key, is_secret) = (self.key, matches!(self.value, Value::Secret(_)));
        let text = self.text(&what, example)?;
        text.trim().parse().map_err(|_| ConfigError::Unfit {
            key: key.to_owned(),
            value: (!is_secret).then_some(text),
            expected: Expected { what, example: example.to_owned() },
        })
    }
}

macro_rules! whole_numbers {
    ($($deserialize:ident $visit:ident $number:ident),*) => {
        $(
            fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
                let what = format_args!("a whole number from {} to {}", $number::MIN, $number::MAX);
                visitor.$visit(self.parse::<$number>(what, "1")?)
            }
        )*
    };
}

impl<'de> Deserializer<'de> for Entry<'_> {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_string(self.text("a text", "…")?)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_bool(self.parse("`true` or `false`", "true")?)
    }

    whole_numbers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16,
        deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_f32(self.parse("a number", "0.5")?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_f64(self.parse("a number", "0.5")?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_char(self.parse("a single character", "x")?)
    }

    /// A key that is there has a value, whatever it is.
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let what = format!("one of `{}`", variants.join("`, `"));
        let example = variants.first().copied().unwrap_or_default();
        let (key, is_secret) = (self.key, matches!(self.value, Value::Secret(_)));
        let text = self.text(&what, example)?;
        if variants.contains(&text.as_str()) {
            let variant: StrDeserializer<'_, ConfigError> = text.as_str().into_deserializer();
            return visitor.visit_enum(variant);
        }
        let expected = Expected { what, example: example.to_owned() };
        Err(ConfigError::Unfit { key: key.to_owned(), value: (!is_secret).then_some(text), expected })
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        i128 u128 str string bytes byte_buf unit unit_struct seq tuple tuple_struct map struct identifier
    }
}
