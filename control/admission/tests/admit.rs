//! What is admitted and what is refused, and that no bytes make the check panic or overflow its stack.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use dunlin_admission::{Refusal, World, admit, needed_features};
use dunlin_model::Feature;
use proptest::prelude::*;

const SERVICE: &str = r#"(component
    (import "wasi:cli/environment@0.2.3" (instance))
    (core module (func (export "f")))
    (instance $handler)
    (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

fn bytes(wat: &str) -> Vec<u8> {
    wat::parse_str(wat).unwrap()
}

fn refused(wat: &str) -> Refusal {
    admit(&bytes(wat)).unwrap_err()
}

#[test]
fn a_service_is_admitted_with_what_it_imports() {
    let admitted = admit(&bytes(SERVICE)).unwrap();
    assert_eq!(admitted.worlds, [World::Service]);
    assert_eq!(admitted.imports, ["wasi:cli/environment@0.2.3"]);
}

#[test]
fn what_is_no_component_is_refused_by_its_kind() {
    assert_eq!(admit(b"\x7fELF...").unwrap_err().code(), "precompiled_not_accepted");
    assert_eq!(refused("(module)").code(), "core_module");
    assert_eq!(admit(b"").unwrap_err().code(), "invalid_wasm");
    assert_eq!(refused("(component)").code(), "missing_export");
}

#[test]
fn a_missing_import_is_named_with_its_reason() {
    let refusal = refused(r#"(component (import "wasi:keyvalue/store@0.2.0-draft" (instance)))"#);
    assert_eq!(refusal.code(), "missing_imports");
    assert!(refusal.to_string().contains("wasi:keyvalue/store@0.2.0-draft (the key-value"), "{refusal}");
}

#[test]
fn parts_of_webassembly_that_are_off_are_named() {
    for (feature, module) in [
        ("memory64", "(memory i64 1)"),
        ("threads", "(memory 1 1 shared)"),
        ("multi-memory", "(memory 1) (memory 1)"),
        ("exceptions", "(tag)"),
    ] {
        let refusal = refused(&format!("(component (core module {module}))"));
        let Refusal::FeatureOff { feature: named, .. } = &refusal else { panic!("{feature}: {refusal}") };
        assert_eq!(*named, feature);
    }
}

/// A component that uses a part of WASI 0.3, and what `more` says.
fn of_wasi_03(more: &str) -> String {
    format!(
        r#"(component
            (import "wasi:cli/environment@0.2.3" (instance))
            (import "wasi:clocks/monotonic-clock@0.3.2" (instance (export "wait-for" (func async (param "how-long" u64)))))
            {more})"#
    )
}

const ASYNC_RUN: &str = r#"
    (core module $code (func (export "run") (result i32) i32.const 0) (func (export "back") (param i32 i32 i32) (result i32) i32.const 0))
    (core instance $code (instantiate $code))
    (func $run async (result (result))
        (canon lift (core func $code "run") async (callback (func $code "back"))))
    (instance $exported (export "run" (func $run)))"#;

#[test]
fn what_is_of_wasi_03_is_admitted_and_said_to_need_it() {
    let command = of_wasi_03(&format!(r#"{ASYNC_RUN} (export "wasi:cli/run@0.3.0" (instance $exported))"#));
    let admitted = admit(&bytes(&command)).unwrap();
    assert_eq!(admitted.worlds, [World::Command]);
    assert!(admitted.needs(Feature::Wasi03));
    assert_eq!(needed_features(&bytes(&command)), admitted.features);

    let service = of_wasi_03(r#"(instance $handler) (export "wasi:http/handler@0.3.1" (instance $handler))"#);
    assert_eq!(admit(&bytes(&service)).unwrap().worlds, [World::Service]);

    for of_wasi_02 in [SERVICE, "(component)"] {
        assert!(needed_features(&bytes(of_wasi_02)).is_empty(), "{of_wasi_02}");
    }
    assert!(!admit(&bytes(SERVICE)).unwrap().needs(Feature::Wasi03));
    assert!(needed_features(b"nonsense").is_empty());
}

#[test]
fn what_is_asynchronous_is_refused_in_all_others() {
    for export in ["f", "wasi:cli/run@0.2.0", "wasi:cli/run@0.9.0", "example:cli/run@0.3.0"] {
        let refusal =
            refused(&format!(r#"(component {ASYNC_RUN} (export "{export}" (instance $exported)))"#));
        assert_eq!(refusal.code(), "feature_off", "{export}: {refusal}");
    }
}

#[test]
fn what_is_of_wasi_03_is_started_by_its_exports_of_03_alone() {
    for export in ["wasi:cli/run@0.2.0", "wasi:http/incoming-handler@0.2.0", "wasi:http/handler@0.4.0"] {
        let refusal = refused(&of_wasi_03(&format!(
            r#"(instance $exported) (export "{export}" (instance $exported))"#
        )));
        assert_eq!(refusal.code(), "missing_export", "{export}");
        assert!(refusal.to_string().contains("wasi:cli/run@0.3"), "{refusal}");
    }
}

#[test]
fn what_is_of_wasi_03_gets_no_more_of_webassembly_than_it_needs() {
    for (what, wat) in [
        ("error contexts", "(core func (canon error-context.drop))"),
        ("threads", "(core func (canon thread.index))"),
        (
            "tasks with a stack of their own",
            r#"(core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func async (canon lift (core func $i "f") async))"#,
        ),
        ("memory64", "(core module (memory i64 1))"),
        ("an interface that is not there", r#"(import "wasi:tls/client@0.3.0" (instance))"#),
    ] {
        let code = refused(&of_wasi_03(wat)).code();
        assert!(["feature_off", "invalid_wasm", "missing_imports"].contains(&code), "{what}: {code}");
    }
}

#[test]
fn types_nested_without_end_are_refused_without_recursion() {
    // A component whose one type section holds instance types within instance types, unclosed: three bytes each.
    let depth = 4_000_000;
    let mut section = vec![0x01];
    for _ in 0..depth {
        section.extend([0x42, 0x01, 0x01]);
    }
    let mut component = b"\0asm\x0d\0\x01\0\x07".to_vec();
    let mut length = section.len();
    while length >= 0x80 {
        component.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
        length >>= 7;
    }
    component.push(u8::try_from(length).unwrap());
    component.extend(section);
    let Refusal::TooComplex(hit) = admit(&component).unwrap_err() else { panic!("not too complex") };
    assert_eq!((hit.limit.as_str(), hit.value), ("nesting", "100".to_owned()));
}

#[test]
fn a_long_chain_of_types_does_not_overflow_the_stack() {
    let chain = |name: &str| {
        let mut wat = format!("(type ${name}0 (list u8))");
        for number in 1..4_900 {
            wat.push_str(&format!("(type ${name}{number} (list ${name}{}))", number - 1));
        }
        wat
    };
    // Each of the two is compared with the other where the function is passed on.
    let wat = format!(
        r#"(component {} {}
            (import "f" (func $f (param "x" $a4899)))
            (component $c (import "f" (func (param "x" u8))))
            (export "g" (func $f) (func (param "x" $b4899))))"#,
        chain("a"),
        chain("b")
    );
    assert!(admit(&bytes(&wat)).is_err());
}

#[test]
fn a_component_cut_anywhere_does_not_make_it_panic() {
    let whole = bytes(SERVICE);
    for length in 0..whole.len() {
        // Cut between two sections it may still be a component, of fewer sections.
        drop(admit(&whole[..length]));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(position in 0_usize..400, flipped in 1_u8.., tail in proptest::collection::vec(any::<u8>(), 0..40)) {
        let mut component = bytes(SERVICE);
        let position = position % component.len();
        component[position] ^= flipped;
        component.extend(tail);
        drop(admit(&component));
    }
}
