//! Configuration: what `[service.NAME.capabilities.config]` of the manifest gives, and the secrets that it grants.
//!
//! ```
//! use dunlin_guest::{Result, test::Host};
//!
//! #[derive(serde::Deserialize)]
//! struct Config {
//!     greeting: String,
//!     #[serde(default)]
//!     retries: u32,
//! }
//!
//! fn greeting() -> Result<String> {
//!     let config: Config = dunlin_guest::config()?;
//!     Ok(format!("{} ({} retries)", config.greeting, config.retries))
//! }
//!
//! assert_eq!(Host::new().config("greeting", "ahoy").within(greeting)?, "ahoy (0 retries)");
//! let error = Host::new().config("greeting", "ahoy").config("retries", "many").within(greeting).unwrap_err();
//! assert_eq!(
//!     error.to_string(),
//!     "configuration: `retries` is `many` and should be a whole number from 0 to 4294967295: \
//!      write `retries = \"1\"` under `capabilities.config` in dunlin.toml",
//! );
//! # Ok::<(), dunlin_guest::Error>(())
//! ```

mod deserialize;
mod error;

use serde::de::DeserializeOwned;

pub use error::ConfigError;

use crate::platform;
use deserialize::Source;

/// Returns the whole configuration as a `T`, mostly a struct with one field for each key.
///
/// A field can be a text, a truth (`"true"`, `"false"`), a number, an enum of words, or whatever reads itself from a
/// text; an `Option` or a `default` may be missing. Secrets are found by the names of fields, too.
///
/// # Errors
///
/// If a key is missing or its value is not of the field's type. The message says what to write into `dunlin.toml`; the
/// value of a secret is not in it.
pub fn config<T: DeserializeOwned>() -> Result<T, ConfigError> {
    let values = platform::config_values().map_err(ConfigError::unreadable)?;
    let source = Source::new(values);
    T::deserialize(&source).map_err(|error| match error.missing() {
        // The first pass cannot know of what type a missing value should be; the second gives it and sees.
        Some(key) => match T::deserialize(&source.with_blank(key)) {
            Err(told @ ConfigError::Missing { .. }) => told,
            _ => error,
        },
        None => source.without_secrets(error),
    })
}

/// Returns the value of one key or secret, if there is one.
///
/// # Errors
///
/// If the host cannot read it.
pub fn get(key: &str) -> Result<Option<String>, ConfigError> {
    platform::config_value(key).map_err(ConfigError::unreadable)
}

#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests;
