//! On which nodes a condition holds, how it is printed, and what is said of a wrong one.

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
    for value in ["", "new", "6.1.2.3", "6..1", "06.1", "6.1-", "6.1_2", "-1", "99999999999999999999", "ä"] {
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
    for text in [format!("{long} = a"), format!("a = {long}"), format!("a in ({long})"), format!("!{long}")] {
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
    let operand = text.prop_map(|text| Operand { version: version(&text).expect("it is a version"), text });
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
