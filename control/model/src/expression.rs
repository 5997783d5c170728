//! One condition on the labels of a node, as people write it: `zone in (a, b)`.
//!
//! It has one text for all sides: manifest, API, wire and store. What is read is printed in one form, and what is
//! printed is read back as the same.
//!
//! Not here: which conditions a workload has and what they are good for (`placement`).

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use semver::Version;
use serde::{Deserialize, Serialize};

use crate::LimitHit;
use crate::check::{MAX_LABEL, is_inner_of_label, shown};

/// The most values in one list.
pub(crate) const MAX_VALUES: usize = 32;

/// One condition on the labels of a node.
///
/// | Text | It holds if |
/// | --- | --- |
/// | `zone = a` | the label is there and has this value |
/// | `zone != a` | the label has another value, or is absent |
/// | `zone in (a, b)` | the label is there and has one of these values |
/// | `zone not in (a, b)` | the label has none of these values, or is absent |
/// | `gpu` | the label is there |
/// | `!gpu` | the label is absent |
/// | `kernel >= 6.1` | the label is a version, and not before this one; also `>`, `<` and `<=` |
///
/// Versions are compared as semantic ones. They have one to three numbers, of which missing ones are 0, and perhaps a
/// pre-release after `-`, which comes before the version itself: `6.1-rc.1 < 6.1`. A label that is no version fits no
/// comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabelExpression {
    key: String,
    condition: Condition,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Condition {
    Equal(String),
    NotEqual(String),
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Present,
    Absent,
    Compared(Comparison, Operand),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Comparison {
    AtLeast,
    More,
    AtMost,
    Less,
}

impl Comparison {
    /// Those of two characters first, since the others begin like them.
    const ALL: [Self; 4] = [Self::AtLeast, Self::AtMost, Self::More, Self::Less];

    const fn sign(self) -> &'static str {
        match self {
            Self::AtLeast => ">=",
            Self::More => ">",
            Self::AtMost => "<=",
            Self::Less => "<",
        }
    }

    fn holds(self, left: &Version, right: &Version) -> bool {
        let order = left.cmp_precedence(right);
        match self {
            Self::AtLeast => order.is_ge(),
            Self::More => order.is_gt(),
            Self::AtMost => order.is_le(),
            Self::Less => order.is_lt(),
        }
    }
}

/// A version as it was written, and as it is compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Operand {
    text: String,
    version: Version,
}

/// Why a text is not a condition on labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelExpressionError {
    /// It has not the form of one.
    #[error(
        "`{text}` is no condition on labels: {reason}; write it like `zone = a`, `zone != a`, `zone in (a, b)`, \
         `zone not in (a, b)`, `gpu`, `!gpu` or `kernel >= 6.1`"
    )]
    Malformed {
        /// The text, shortened and escaped.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It compares with what is no version.
    #[error(
        "`{operand}` is no version, and only versions are more or less than others: write one to three numbers and \
         perhaps a pre-release, like `6.1` or `2.0.0-rc.1`"
    )]
    NotAVersion {
        /// What it compares with.
        operand: String,
    },
    /// A part of it is too long, or a list has too many values.
    #[error("{0}")]
    Limit(LimitHit),
}

impl LabelExpression {
    /// Returns the key of the label that it looks at.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Tells whether it holds on a node with these labels.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&self.key);
        match &self.condition {
            Condition::Equal(value) => label == Some(value),
            Condition::NotEqual(value) => label != Some(value),
            Condition::In(values) => label.is_some_and(|label| values.contains(label)),
            Condition::NotIn(values) => !label.is_some_and(|label| values.contains(label)),
            Condition::Present => label.is_some(),
            Condition::Absent => label.is_none(),
            Condition::Compared(comparison, operand) => label
                .and_then(|label| version(label))
                .is_some_and(|version| comparison.holds(&version, &operand.version)),
        }
    }
}

impl FromStr for LabelExpression {
    type Err = LabelExpressionError;

    fn from_str(text: &str) -> Result<Self, LabelExpressionError> {
        let mut rest = Rest { text, left: text.trim() };
        if rest.takes("!") {
            let key = rest.word("there is no label after `!`")?;
            rest.end()?;
            return Ok(Self { key, condition: Condition::Absent });
        }
        let key = rest.word("it does not begin with a label")?;
        let condition = rest.condition(&key)?;
        rest.end()?;
        Ok(Self { key, condition })
    }
}

impl TryFrom<String> for LabelExpression {
    type Error = LabelExpressionError;

    fn try_from(text: String) -> Result<Self, LabelExpressionError> {
        text.parse()
    }
}

impl From<LabelExpression> for String {
    fn from(expression: LabelExpression) -> Self {
        expression.to_string()
    }
}

impl fmt::Display for LabelExpression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let listed = |values: &BTreeSet<String>| values.iter().cloned().collect::<Vec<_>>().join(", ");
        match &self.condition {
            Condition::Equal(value) => write!(f, "{key} = {value}"),
            Condition::NotEqual(value) => write!(f, "{key} != {value}"),
            Condition::In(values) => write!(f, "{key} in ({})", listed(values)),
            Condition::NotIn(values) => write!(f, "{key} not in ({})", listed(values)),
            Condition::Present => write!(f, "{key}"),
            Condition::Absent => write!(f, "!{key}"),
            Condition::Compared(comparison, Operand { text, version: _ }) => {
                write!(f, "{key} {} {text}", comparison.sign())
            }
        }
    }
}

/// What is left to be read of a text.
struct Rest<'a> {
    text: &'a str,
    left: &'a str,
}

impl Rest<'_> {
    /// Takes a sign, and tells whether it was there.
    fn takes(&mut self, sign: &str) -> bool {
        let Some(left) = self.left.strip_prefix(sign) else { return false };
        self.left = left.trim_start();
        true
    }

    /// Takes a key, a value or a word between them; `reason` says what is wrong if there is none.
    fn word(&mut self, reason: &str) -> Result<String, LabelExpressionError> {
        let length = self.left.bytes().take_while(|byte| is_inner_of_label(*byte)).count();
        let (word, left) = self.left.split_at(length);
        if word.is_empty() {
            return Err(self.malformed(reason));
        }
        if length > MAX_LABEL {
            return Err(LabelExpressionError::Limit(LimitHit::new("label", MAX_LABEL, length)));
        }
        self.left = left.trim_start();
        Ok(word.to_owned())
    }

    /// Takes all that may stand after a key.
    fn condition(&mut self, key: &str) -> Result<Condition, LabelExpressionError> {
        if self.left.is_empty() {
            return Ok(Condition::Present);
        }
        if self.takes("!=") {
            return self.word("there is no value after `!=`").map(Condition::NotEqual);
        }
        if self.takes("=") {
            return self.word("there is no value after `=`").map(Condition::Equal);
        }
        if let Some(comparison) = Comparison::ALL.into_iter().find(|it| self.takes(it.sign())) {
            let text = self.word(&format!("there is no version after `{}`", comparison.sign()))?;
            let Some(version) = version(&text) else {
                return Err(LabelExpressionError::NotAVersion { operand: shown(&text) });
            };
            return Ok(Condition::Compared(comparison, Operand { text, version }));
        }
        let reason = format!("what stands after `{key}` asks nothing of it");
        match self.word(&reason)?.as_str() {
            "in" => self.list().map(Condition::In),
            "not" if self.word("there is no `in` after `not`")? == "in" => self.list().map(Condition::NotIn),
            _ => Err(self.malformed(&reason)),
        }
    }

    /// Takes a list of values: `(a, b)`.
    fn list(&mut self) -> Result<BTreeSet<String>, LabelExpressionError> {
        if !self.takes("(") {
            return Err(self.malformed("there is no `(` after `in`"));
        }
        let mut values = BTreeSet::new();
        let mut count = 0;
        loop {
            values.insert(self.word("a value is missing in the list")?);
            count += 1;
            if self.takes(")") {
                break;
            }
            if !self.takes(",") {
                return Err(self.malformed("a value of the list is not followed by `,` or `)`"));
            }
        }
        if count > MAX_VALUES {
            return Err(LabelExpressionError::Limit(LimitHit::new("values of a list", MAX_VALUES, count)));
        }
        Ok(values)
    }

    fn end(&self) -> Result<(), LabelExpressionError> {
        if self.left.is_empty() {
            return Ok(());
        }
        Err(self.malformed(&format!(
            "`{}` at its end is too much, and labels have only letters, digits, `-`, `_`, `.` and `/`",
            shown(self.left)
        )))
    }

    fn malformed(&self, reason: &str) -> LabelExpressionError {
        LabelExpressionError::Malformed { text: shown(self.text), reason: reason.to_owned() }
    }
}

/// Returns the version that a label's value is, if it is one. Missing numbers are 0.
fn version(text: &str) -> Option<Version> {
    let numbers = text.split('-').next()?;
    let pre_release = &text[numbers.len()..];
    let missing = 3usize.checked_sub(numbers.split('.').count())?;
    Version::parse(&format!("{numbers}{}{pre_release}", ".0".repeat(missing))).ok()
}
