//! How large and how intricate a component may be: one more of anything than the limits say is refused by its name.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use dunlin_admission::{admit, admit_within};
use dunlin_model::{Bytes, ComponentLimits, LimitValue};

fn times(count: u64, text: &str) -> String {
    text.repeat(usize::try_from(count).unwrap())
}

/// Returns a component with so many of what the limit `name` counts.
fn with(name: &str, count: u64) -> Vec<u8> {
    let contents = match name {
        "functions" => times(count, "(func)"),
        "types" => times(count, "(type (func))"),
        "imports" => times(count, "(import \"\" \"\" (func))"),
        "data_segments" => format!("(memory 1){}", times(count, "(data (i32.const 0) \"\")")),
        other => panic!("`{other}` is counted in another way"),
    };
    wat::parse_str(format!("(component (core module {contents}))")).unwrap()
}

#[test]
fn a_component_that_is_too_large_is_refused() {
    let refusal = admit(&vec![0; (64 << 20) + 1]).unwrap_err();
    assert!(refusal.to_string().contains("limit `component_size` is 64MiB, observed 67108865B"), "{refusal}");
    let limits = ComponentLimits { component_size: Bytes(10), ..ComponentLimits::default() };
    let refusal = admit_within(&[0; 11], &limits).unwrap_err();
    assert!(refusal.to_string().contains("limit `component_size` is 10B, observed 11B"), "{refusal}");
    assert_eq!(refusal.code(), "too_large");
    assert_eq!(admit_within(&[0; 10], &limits).unwrap_err().code(), "invalid_wasm");
}

#[test]
fn a_component_with_too_much_of_anything_is_refused() {
    let defaults = ComponentLimits::default();
    for (name, most) in defaults.values() {
        if ["component_size", "nesting"].contains(&name) {
            continue;
        }
        let LimitValue::Count(most) = most else { panic!("`{name}` is no number") };
        let component = with(name, most + 1);
        let refused = |limits: &ComponentLimits| admit_within(&component, limits).unwrap_err().to_string();
        let refusal = refused(&defaults);
        assert!(refusal.contains(&format!("limit `{name}` is {most}, observed {}", most + 1)), "{refusal}");
        // An operator who allows more is obeyed, and one who allows less.
        let mut raised = defaults;
        raised.set(name, &(most + 1).to_string()).unwrap();
        assert!(!refused(&raised).contains("limit `"), "{}", refused(&raised));
        let mut lowered = defaults;
        lowered.set(name, "3").unwrap();
        let refusal = admit_within(&with(name, 4), &lowered).unwrap_err().to_string();
        assert!(refusal.contains(&format!("limit `{name}` is 3, observed 4")), "{refusal}");
    }
}

/// Returns components in components, so deep that no text can say it.
fn nested(depth: u64) -> Vec<u8> {
    const HEAD: &[u8] = b"\0asm\x0d\0\x01\0";
    let mut bytes = HEAD.to_vec();
    for _ in 1..depth {
        let mut around = [HEAD, &[4]].concat();
        let mut length = bytes.len();
        while length >= 0x80 {
            around.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        around.push(u8::try_from(length).unwrap());
        bytes = [around, bytes].concat();
    }
    bytes
}

#[test]
fn the_largest_limits_are_no_danger_to_who_checks() {
    let most = ComponentLimits::maximum();
    // A chain of types, each made of the one before it: the validator follows it by recursion.
    let chain: String = (1..most.types).map(|index| format!("(type (list {}))", index - 1)).collect();
    let component = wat::parse_str(format!("(component (type (list u8)) {chain})")).unwrap();
    let refusal = admit_within(&component, &most).unwrap_err();
    assert!(["invalid_wasm", "missing_export"].contains(&refusal.code()), "{refusal}");
    let refusal = admit_within(&nested(most.nesting), &most).unwrap_err();
    assert!(["invalid_wasm", "missing_export"].contains(&refusal.code()), "{refusal}");
    let refusal = admit_within(&nested(most.nesting + 1), &most).unwrap_err().to_string();
    assert!(refusal.contains("limit `nesting` is 400, observed 401"), "{refusal}");
}
