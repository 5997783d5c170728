//! How large and how intricate a component may be: one more of anything than the limits say is refused by its name.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use dunlin_admission::{
    MAX_COMPONENT, MAX_DATA_SEGMENTS, MAX_FUNCTIONS, MAX_IMPORTS, MAX_NESTING, MAX_TYPES, admit,
};
use dunlin_model::LimitRow;

fn times(count: u64, text: &str) -> String {
    text.repeat(usize::try_from(count).unwrap())
}

#[test]
fn a_component_that_is_too_large_is_refused() {
    let refusal = admit(&vec![0; usize::try_from(MAX_COMPONENT).unwrap() + 1]).unwrap_err();
    assert!(refusal.to_string().contains("limit `component_size` is 64MiB, observed 67108865B"), "{refusal}");
}

#[test]
fn a_component_with_too_much_of_anything_is_refused() {
    for (name, most, contents) in [
        ("functions", MAX_FUNCTIONS, times(MAX_FUNCTIONS + 1, "(func)")),
        ("types", MAX_TYPES, times(MAX_TYPES + 1, "(type (func))")),
        ("imports", MAX_IMPORTS, times(MAX_IMPORTS + 1, "(import \"\" \"\" (func))")),
        (
            "data_segments",
            MAX_DATA_SEGMENTS,
            format!("(memory 1){}", times(MAX_DATA_SEGMENTS + 1, "(data (i32.const 0) \"\")")),
        ),
    ] {
        let component = wat::parse_str(format!("(component (core module {contents}))")).unwrap();
        let refusal = admit(&component).unwrap_err().to_string();
        assert!(refusal.contains(&format!("limit `{name}` is {most}, observed {}", most + 1)), "{refusal}");
    }
}

#[test]
fn the_table_says_what_holds() {
    for (name, value) in [
        ("component_size", MAX_COMPONENT),
        ("functions", MAX_FUNCTIONS),
        ("types", MAX_TYPES),
        ("imports", MAX_IMPORTS),
        ("data_segments", MAX_DATA_SEGMENTS),
        ("nesting", MAX_NESTING),
    ] {
        assert_eq!(LimitRow::fixed(name).unwrap().number(), value, "{name}");
    }
}
