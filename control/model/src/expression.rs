//! One condition on the labels of a node, as people write it: `zone in (a, b)`.
//!
//! It has one text for all sides: manifest, API, wire and store. What is read is printed in one form, and what is
//! printed is read back as the same.
//!
//! Not here: which conditions a workload has and what they are good for (`placement`).

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

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    fn holds(expression: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        expression.parse::<LabelExpression>().unwrap().matches(&labels)
    }

    fn refused(text: &str, expected: Expect) {
        expected.assert_eq(&text.parse::<LabelExpression>().unwrap_err().to_string());
    }

    #[test]
    fn a_value_is_compared_as_a_whole_and_what_is_denied_holds_without_the_label() {
        for (expression, in_a, in_c, nowhere) in [
            ("zone = a", true, false, false),
            ("zone != a", false, true, true),
            ("zone in (a, b)", true, false, false),
            ("zone not in (a, b)", false, true, true),
            ("zone", true, true, false),
            ("!zone", false, false, true),
        ] {
            assert_eq!(holds(expression, &[("zone", "a"), ("disk", "c")]), in_a, "{expression} in a");
            assert_eq!(holds(expression, &[("zone", "c"), ("disk", "a")]), in_c, "{expression} in c");
            assert_eq!(holds(expression, &[("disk", "a")]), nowhere, "{expression} without a zone");
        }
    }

    #[test]
    fn versions_are_ordered_by_their_numbers_and_a_pre_release_comes_first() {
        for (expression, value, expected) in [
            ("kernel >= 6.1", "6.1", true),
            ("kernel >= 6.1", "6.1.0", true),
            ("kernel >= 6.1", "6.10", true),
            ("kernel >= 6.1", "6.0.99", false),
            ("kernel >= 6", "6.0.1", true),
            ("kernel > 6.1", "6.1", false),
            ("kernel > 6.1", "6.1.1", true),
            ("kernel < 6.1", "6.1-rc.1", true),
            ("kernel < 6.1", "6.1", false),
            ("kernel <= 6.1", "6.1.0", true),
            ("kernel <= 6.1-rc.2", "6.1.0-rc.10", false),
            ("kernel >= 6.1", "6.1-rc.1", false),
        ] {
            assert_eq!(holds(expression, &[("kernel", value)]), expected, "{expression} of {value}");
        }
    }

    #[test]
    fn what_is_no_version_fits_no_comparison() {
        for value in
            ["", "new", "6.1.2.3", "6..1", "06.1", "6.1-", "6.1_2", "-1", "99999999999999999999", "ä"]
        {
            for sign in [">=", ">", "<", "<="] {
                assert!(!holds(&format!("kernel {sign} 0"), &[("kernel", value)]), "{sign} of {value:?}");
            }
        }
        assert!(!holds("kernel >= 0", &[]));
    }

    #[test]
    fn spaces_do_not_count_and_words_are_no_less_labels() {
        for (text, printed) in [
            ("  zone=a ", "zone = a"),
            ("zone!=a", "zone != a"),
            ("zone in(b,a,b)", "zone in (a, b)"),
            ("zone\tnot  in ( a )", "zone not in (a)"),
            ("! gpu", "!gpu"),
            ("kernel>=6.1", "kernel >= 6.1"),
            ("in in (in)", "in in (in)"),
            ("not not in (not)", "not not in (not)"),
            ("feature/wasi-0.3 = on", "feature/wasi-0.3 = on"),
        ] {
            assert_eq!(text.parse::<LabelExpression>().unwrap().to_string(), printed);
        }
    }

    #[test]
    fn it_is_a_string_in_json() {
        let json = "\"zone in (a, b)\"";
        let expression: LabelExpression = serde_json::from_str(json).unwrap();
        assert_eq!(expression.key(), "zone");
        assert_eq!(serde_json::to_string(&expression).unwrap(), json);
        assert!(serde_json::from_str::<LabelExpression>("\"zone ~ a\"").is_err());
    }

    #[test]
    fn a_refusal_says_what_is_wrong_and_what_would_be_right() {
        refused(
            "",
            expect![
                "`` is no condition on labels: it does not begin with a label; write it like `zone = a`, `zone != a`, `zone in (a, b)`, `zone not in (a, b)`, `gpu`, `!gpu` or `kernel >= 6.1`"
            ],
        );
        refused(
            "kernel >= new",
            expect![
                "`new` is no version, and only versions are more or less than others: write one to three numbers and perhaps a pre-release, like `6.1` or `2.0.0-rc.1`"
            ],
        );
        for (text, part) in [
            ("= a", "it does not begin with a label"),
            ("!", "there is no label after `!`"),
            ("!!gpu", "there is no label after `!`"),
            ("!gpu = a", "`= a` at its end is too much"),
            ("zone =", "there is no value after `=`"),
            ("zone == a", "there is no value after `=`"),
            ("zone = ä", "there is no value after `=`"),
            ("zone = a b", "`b` at its end is too much"),
            ("zone = a@b", "`@b` at its end is too much"),
            ("zone != ", "there is no value after `!=`"),
            ("zone a", "what stands after `zone` asks nothing of it"),
            ("zone ~ a", "what stands after `zone` asks nothing of it"),
            ("zone IN (a)", "what stands after `zone` asks nothing of it"),
            ("zone in a", "there is no `(` after `in`"),
            ("zone in", "there is no `(` after `in`"),
            ("zone in ()", "a value is missing in the list"),
            ("zone in (a,)", "a value is missing in the list"),
            ("zone in (a b)", "not followed by `,` or `)`"),
            ("zone in (a", "not followed by `,` or `)`"),
            ("zone not (a)", "there is no `in` after `not`"),
            ("zone not at (a)", "what stands after `zone` asks nothing of it"),
            ("kernel >=", "there is no version after `>=`"),
        ] {
            let message = text.parse::<LabelExpression>().unwrap_err().to_string();
            assert!(message.contains(part), "{text:?}: {message}");
        }
    }

    #[test]
    fn a_refusal_shows_no_control_characters_and_not_all_of_a_long_text() {
        let long = format!("zone = a \u{1b}[2J{}", "x".repeat(10_000));
        let message = long.parse::<LabelExpression>().unwrap_err().to_string();
        assert!(!message.contains('\u{1b}') && message.len() < 600, "{message}");
    }

    #[test]
    fn keys_values_and_lists_have_limits() {
        let (fits, long) = ("a".repeat(MAX_LABEL), "a".repeat(MAX_LABEL + 1));
        assert!(format!("{fits} = {fits}").parse::<LabelExpression>().is_ok());
        for text in
            [format!("{long} = a"), format!("a = {long}"), format!("a in ({long})"), format!("!{long}")]
        {
            refused(&text, expect!["limit `label` is 63, observed 64"]);
        }
        let list = |count: usize| (0..count).map(|number| number.to_string()).collect::<Vec<_>>().join(",");
        assert!(format!("a in ({})", list(MAX_VALUES)).parse::<LabelExpression>().is_ok());
        refused(
            &format!("a in ({})", list(MAX_VALUES + 1)),
            expect!["limit `values of a list` is 32, observed 33"],
        );
    }

    const LABEL: &str = "[A-Za-z0-9_./-]{1,63}";

    fn condition() -> impl Strategy<Value = Condition> {
        let values = || prop::collection::btree_set(LABEL, 1..=MAX_VALUES);
        let comparison = prop::sample::select(Comparison::ALL.to_vec());
        let text = "(0|[1-9][0-9]{0,4})(\\.(0|[1-9][0-9]{0,4})){0,2}(-[a-z]{1,4}(\\.[1-9])?)?";
        let operand =
            text.prop_map(|text| Operand { version: version(&text).expect("it is a version"), text });
        prop_oneof![
            LABEL.prop_map(Condition::Equal),
            LABEL.prop_map(Condition::NotEqual),
            values().prop_map(Condition::In),
            values().prop_map(Condition::NotIn),
            Just(Condition::Present),
            Just(Condition::Absent),
            (comparison, operand).prop_map(|(comparison, operand)| Condition::Compared(comparison, operand)),
        ]
    }

    fn expression() -> impl Strategy<Value = LabelExpression> {
        let key = prop_oneof![Just("in".to_owned()), Just("not".to_owned()), LABEL];
        (key, condition()).prop_map(|(key, condition)| LabelExpression { key, condition })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_printed_is_read_back_as_the_same(expression in expression()) {
            let text = expression.to_string();
            prop_assert_eq!(text.parse::<LabelExpression>(), Ok(expression));
        }

        #[test]
        fn no_text_panics_and_what_is_read_is_printed_in_one_form(
            text in "([a-z]{0,3}|in|not|zone|6\\.1|[ \\t]|[!=<>(),]|\\PC){0,12}"
        ) {
            if let Ok(expression) = text.parse::<LabelExpression>() {
                let printed = expression.to_string();
                prop_assert_eq!(printed.parse::<LabelExpression>(), Ok(expression));
            }
        }

        #[test]
        fn a_condition_and_its_contrary_never_hold_both_nor_neither(
            value in "[ab]", listed in prop::collection::btree_set("[ab]", 1..3), label in prop::option::of("[abc]")
        ) {
            let labels: BTreeMap<_, _> = label.map(|label| ("zone".to_owned(), label)).into_iter().collect();
            let of = |condition| LabelExpression { key: "zone".to_owned(), condition }.matches(&labels);
            prop_assert_ne!(of(Condition::Equal(value.clone())), of(Condition::NotEqual(value)));
            prop_assert_ne!(of(Condition::In(listed.clone())), of(Condition::NotIn(listed)));
            prop_assert_ne!(of(Condition::Present), of(Condition::Absent));
        }

        #[test]
        fn no_label_panics_where_versions_are_compared(label in "([0-9]{1,3}|\\.|-|\\+|[a-z]|\\PC){0,8}") {
            let labels = BTreeMap::from([("kernel".to_owned(), label)]);
            let of = |text: &str| text.parse::<LabelExpression>().unwrap().matches(&labels);
            prop_assert!(!(of("kernel >= 6.1") && of("kernel < 6.1")));
        }
    }
}
