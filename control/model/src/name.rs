//! Names that people choose: one rule for all of them.
//!
//! A name is a DNS label (RFC 1123): 1 to 63 of `a-z`, `0-9` and `-`, not beginning or ending with `-`.
//! So it can stand in a host name, a file name, a URL and a certificate without escaping.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// A DNS label: the name of a namespace, an app, a workload or a node. A short one is kept in
/// place and copies of a long one share it: a fleet has millions, and each decision compares many.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(SmolStr);

impl Name {
    /// The most characters a name may have.
    pub const MAX_LENGTH: usize = 63;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// It has no characters.
    #[error("a name must not be empty")]
    Empty,
    /// It has more characters than a DNS label may have.
    #[error("a name may have {max} characters, this one has {observed}", max = Name::MAX_LENGTH)]
    TooLong {
        /// How many characters it has.
        observed: usize,
    },
    /// It has a character outside `a-z`, `0-9`, `-`, or `-` at an end.
    #[error("`{name}` is not a name: use a-z, 0-9 and `-`, with a letter or digit at both ends")]
    Malformed {
        /// The text, shortened and with control characters escaped.
        name: String,
    },
    /// A full name has too few or too many parts.
    #[error("`{name}` should have the form {form}")]
    WrongParts {
        /// The text, shortened and with control characters escaped.
        name: String,
        /// The form it should have.
        form: &'static str,
    },
}

/// Returns text from outside made safe to be shown: escaped, and cut at 80 characters.
fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > Self::MAX_LENGTH {
            return Err(NameError::TooLong { observed: text.chars().count() });
        }
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let well_formed = text.bytes().all(is_inner) && !text.starts_with('-') && !text.ends_with('-');
        if !well_formed {
            return Err(NameError::Malformed { name: shown(text) });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The full name of an app: `namespace/app`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppName {
    /// The namespace it belongs to.
    pub namespace: Name,
    /// Its name within the namespace.
    pub app: Name,
}

impl AppName {
    /// Returns the full name of one workload of this app.
    pub fn workload(&self, workload: &Name) -> WorkloadName {
        WorkloadName { namespace: self.namespace.clone(), app: self.app.clone(), workload: workload.clone() }
    }

    /// Returns the workload that `text` means in the manifest of this app: `cart` is one of its own, `shop/cart` one of
    /// an app of its namespace.
    pub fn resolve(&self, text: &str) -> Result<WorkloadName, NameError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (namespace, app, workload) = match *parts.as_slice() {
            [workload] => (self.namespace.clone(), self.app.clone(), workload),
            [app, workload] => (self.namespace.clone(), app.parse()?, workload),
            [namespace, app, workload] => (namespace.parse()?, app.parse()?, workload),
            _ => {
                let form = "workload, app/workload or namespace/app/workload";
                return Err(NameError::WrongParts { name: shown(text), form });
            }
        };
        Ok(WorkloadName { namespace, app, workload: workload.parse()? })
    }
}

impl FromStr for AppName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::WrongParts { name: shown(text), form: "namespace/app" };
        let (namespace, app) = text.split_once('/').ok_or_else(wrong)?;
        Ok(Self { namespace: namespace.parse()?, app: app.parse()? })
    }
}

impl TryFrom<String> for AppName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<AppName> for String {
    fn from(name: AppName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for AppName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.app)
    }
}

/// The full name of a workload: `namespace/app/workload`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WorkloadName {
    /// The namespace it belongs to.
    pub namespace: Name,
    /// The app it belongs to.
    pub app: Name,
    /// Its name within the app.
    pub workload: Name,
}

impl WorkloadName {
    /// Returns the full name of the app it belongs to.
    pub fn app_name(&self) -> AppName {
        AppName { namespace: self.namespace.clone(), app: self.app.clone() }
    }
}

impl FromStr for WorkloadName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let parts: Vec<&str> = text.split('/').collect();
        let [namespace, app, workload] = parts.as_slice() else {
            return Err(NameError::WrongParts { name: shown(text), form: "namespace/app/workload" });
        };
        Ok(Self { namespace: namespace.parse()?, app: app.parse()?, workload: workload.parse()? })
    }
}

impl TryFrom<String> for WorkloadName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<WorkloadName> for String {
    fn from(name: WorkloadName) -> Self {
        name.to_string()
    }
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.app, self.workload)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dns_label_is_a_name() {
        for text in ["a", "shop", "node-1", "0", &"a".repeat(63)] {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), text);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "a/b",
            "..",
            "a\0",
            "ä",
            "а",
            "%00",
            &"a".repeat(64),
            &"ä".repeat(40),
        ] {
            assert!(text.parse::<Name>().is_err(), "{text:?} should be refused");
        }
    }

    #[test]
    fn a_short_name_means_what_is_nearest() {
        let app: AppName = "team-a/shop".parse().unwrap();
        for (text, meant) in [
            ("cart", "team-a/shop/cart"),
            ("other/cart", "team-a/other/cart"),
            ("team-b/other/cart", "team-b/other/cart"),
        ] {
            assert_eq!(app.resolve(text).unwrap().to_string(), meant);
        }
        for text in ["", "/", "a/b/c/d", "Cart", "/cart", "shop/"] {
            assert!(app.resolve(text).is_err(), "{text:?} should be refused");
        }
    }

    #[test]
    fn a_workload_has_exactly_three_parts() {
        assert_eq!("a/b/c".parse::<WorkloadName>().unwrap().to_string(), "a/b/c");
        for text in ["a", "a/b", "a/b/c/d", "a//c", "/a/b"] {
            assert!(text.parse::<WorkloadName>().is_err(), "{text:?} should be refused");
        }
    }
}
