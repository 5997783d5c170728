//! The error of guests: whatever went wrong, and what could not be done because of it.
//!
//! It takes any error by `?`, as `anyhow` does. That crate would hold all that makes stack traces, which are never shown
//! in a guest: it makes a small component half as large again.

use std::error::Error as StdError;
use std::fmt::{self, Debug, Display};

/// Any error, with what could not be done because of it.
///
/// `{error}` says what could not be done, `{error:#}` also why, in one line.
pub struct Error(Box<dyn StdError + Send + Sync>);

impl Error {
    /// Returns an error that says this.
    pub fn msg(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }

    /// Returns an error that says this, of which the present one is the cause.
    #[must_use]
    pub fn context(self, what: impl Display) -> Self {
        Self(Box::new(Because { what: what.to_string(), source: self.0 }))
    }

    /// Returns the error of this type, if it is this one or one of its causes.
    pub fn downcast_ref<T: StdError + 'static>(&self) -> Option<&T> {
        self.chain().find_map(|error| error.downcast_ref())
    }

    /// Returns it, its cause, the cause of that, and so on.
    pub fn chain(&self) -> impl Iterator<Item = &(dyn StdError + 'static)> {
        let first: &(dyn StdError + 'static) = &*self.0;
        std::iter::successors(Some(first), |&error| error.source())
    }
}

impl<E: StdError + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Self {
        Self(Box::new(error))
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)?;
        if f.alternate() {
            for cause in self.chain().skip(1) {
                write!(f, ": {cause}")?;
            }
        }
        Ok(())
    }
}

/// What a test shows that unwraps it.
impl Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:#}")
    }
}

/// What could not be done, and why.
#[derive(Debug)]
struct Because {
    what: String,
    source: Box<dyn StdError + Send + Sync>,
}

impl Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for Because {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// Says of an error what could not be done because of it.
///
/// ```
/// use dunlin_guest::{Context, Result};
///
/// fn port(text: &str) -> Result<u16> {
///     text.parse().with_context(|| format!("`{text}` is no port"))
/// }
///
/// assert_eq!(format!("{:#}", port("x").unwrap_err()), "`x` is no port: invalid digit found in string");
/// ```
pub trait Context<T> {
    /// Says it.
    ///
    /// # Errors
    ///
    /// If there was one.
    fn context(self, what: impl Display) -> Result<T, Error>;

    /// Says it, made only if there is an error.
    ///
    /// # Errors
    ///
    /// If there was one.
    fn with_context<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, Error>;
}

impl<T, E: Into<Error>> Context<T> for Result<T, E> {
    fn context(self, what: impl Display) -> Result<T, Error> {
        self.map_err(|error| error.into().context(what))
    }

    fn with_context<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, Error> {
        self.map_err(|error| error.into().context(what()))
    }
}

impl<T> Context<T> for Option<T> {
    fn context(self, what: impl Display) -> Result<T, Error> {
        self.ok_or_else(|| Error::msg(what.to_string()))
    }

    fn with_context<D: Display>(self, what: impl FnOnce() -> D) -> Result<T, Error> {
        self.ok_or_else(|| Error::msg(what().to_string()))
    }
}

/// Returns from the function with an error that says this, written as for `format!`.
#[macro_export]
macro_rules! bail {
    ($($text:tt)*) => {
        return ::std::result::Result::Err($crate::Error::msg(::std::format!($($text)*)))
    };
}

/// Returns from the function with an error, as [`bail!`] does, unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($text:tt)*) => {
        if !$condition {
            $crate::bail!($($text)*);
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read() -> Result<u8, Error> {
        "x".parse::<u8>().context("no number")
    }

    #[test]
    fn it_is_told_with_its_causes_or_without() {
        let error = read().context("cannot count").unwrap_err();
        assert_eq!(error.to_string(), "cannot count");
        assert_eq!(format!("{error:#}"), "cannot count: no number: invalid digit found in string");
        assert!(error.downcast_ref::<std::num::ParseIntError>().is_some());
        assert!(error.downcast_ref::<fmt::Error>().is_none());
    }

    #[test]
    fn what_is_not_so_is_an_error() {
        fn even(number: u8) -> Result<(), Error> {
            ensure!(number.is_multiple_of(2), "{number} is odd");
            Ok(())
        }
        assert!(even(2).is_ok());
        assert_eq!(even(3).unwrap_err().to_string(), "3 is odd");
    }
}
