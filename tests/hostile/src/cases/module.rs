//! Group 5: components that are well-formed and mean harm.

use arbitrary::Unstructured;
use wasm_encoder::RawSection;
use wasm_smith::{Config, Module};

use super::{item, refused};
use crate::case::{Case, Component};
use crate::expected::{ANY, MISTYPED, NOT_STARTED, TRAPPED};
use crate::wat::{component, framed, logging, reallocating};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = complexity();
    cases.extend(interfaces());
    cases.extend(pointers());
    cases.extend((0..20_u8).map(random));
    cases
}

fn in_module(body: &str) -> Component {
    component(&format!("(component (core module {body}))"))
}

/// Components in components, so deep that no text can say it.
fn nested(depth: usize) -> Component {
    let mut bytes = wasm_encoder::Component::new().finish();
    for _ in 0..depth {
        let mut around = wasm_encoder::Component::new();
        around.section(&RawSection { id: 4, data: &bytes });
        bytes = around.finish();
    }
    Component { made: "bytes", bytes }
}

#[expect(clippy::too_many_lines, reason = "a table of cases reads best in one piece")]
fn complexity() -> Vec<Case> {
    const COMPLEX: &[&str] = &["too_complex"];
    const INVALID: &[&str] = &["invalid_wasm"];
    let chain: String = (1..20_000).map(|number| format!("(type (list {}))", number - 1)).collect();
    let cases: Vec<String> = (0..1_001).map(|number| format!("(case \"c{number}\" u32)")).collect();
    let doubled: String =
        (1..40).map(|number| format!("(type (tuple {} {}))", number - 1, number - 1)).collect();
    vec![
        refused(50, "60,000 empty functions", in_module(&"(func)".repeat(60_000)), COMPLEX),
        refused(
            50,
            "a function with 60,000 locals",
            in_module(&format!("(func (local {}))", "i64 ".repeat(60_000))),
            INVALID,
        ),
        refused(
            51,
            "20,000 types, each a list of the one before",
            component(&format!("(component (type (list u8)) {chain})")),
            COMPLEX,
        ),
        refused(51, "components nested 200 deep", nested(200), COMPLEX),
        refused(
            51,
            "a type that doubles 40 times",
            component(&format!("(component (type (tuple u8 u8)) {doubled})")),
            &["invalid_wasm", "too_complex"],
        ),
        refused(
            51,
            "a variant of 1,001 cases, exported",
            component(&format!(
                "(component (type $v (variant {})) (export \"v\" (type $v)))",
                cases.concat()
            )),
            &["missing_export", "invalid_wasm"],
        ),
        refused(
            51,
            "a function with 1,001 parameters",
            in_module(&format!("(func (param {}))", "i32 ".repeat(1_001))),
            INVALID,
        ),
        refused(56, "300,000 globals", in_module(&"(global i32 (i32.const 0))".repeat(300_000)), COMPLEX),
        refused(
            56,
            "100,000 data segments",
            in_module(&format!("(memory 1) {}", "(data \"\")".repeat(100_000))),
            COMPLEX,
        ),
        refused(
            56,
            "5,000 imports",
            in_module(
                &(0..5_000).map(|number| format!("(import \"\" \"{number}\" (func))")).collect::<String>(),
            ),
            COMPLEX,
        ),
        refused(50, "exceptions", in_module("(tag)"), &["feature_off"]),
        refused(
            50,
            "garbage collection",
            in_module("(type (struct (field i32)))"),
            &["feature_off", "invalid_wasm"],
        ),
        refused(
            50,
            "typed function references",
            in_module("(type $t (func)) (func (param (ref $t)))"),
            &["feature_off", "invalid_wasm"],
        ),
        refused(
            50,
            "128-bit arithmetic",
            in_module(
                "(func (param i64 i64 i64 i64) (result i64 i64) (i64.add128 (local.get 0) (local.get 1) (local.get 2) (local.get 3)))",
            ),
            &["feature_off", "invalid_wasm"],
        ),
        item(
            50,
            "a br_table of 50,000 targets",
            crate::wat::running("", &format!("(block (br_table {} (i32.const 49999)))", "0 ".repeat(50_000))),
            ANY,
        ),
        item(
            50,
            "blocks nested 5,000 deep",
            crate::wat::running("", &format!("{}{}", "(block ".repeat(5_000), ")".repeat(5_000))),
            ANY,
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table of cases reads best in one piece")]
fn interfaces() -> Vec<Case> {
    const MISSING: &[&str] = &["missing_imports"];
    let import = |name: &str| component(&format!("(component (import \"{name}\" (instance)))"));
    let run = |function: &str| {
        component(&format!(
            r#"(component
            (core module $code (func (export "a") (param i32)) (func (export "b") (result i32) i32.const 0))
            (core instance $code (instantiate $code))
            {function}
            (instance $exported (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $exported)))"#
        ))
    };
    vec![
        refused(52, "an import that nobody knows", import("evil:host/escape@1.0.0"), MISSING),
        refused(52, "an import of another version", import("wasi:cli/environment@0.4.0"), MISSING),
        refused(52, "an import of what WASI 0.3 has not", import("wasi:cli/secrets@0.3.0"), MISSING),
        refused(
            52,
            "an import of WASI 0.3, and nothing to start it by",
            import("wasi:cli/environment@0.3.0"),
            &["missing_export"],
        ),
        refused(
            52,
            "an import of WASI 0.3 in what is started as of 0.2",
            component(
                r#"(component (import "wasi:cli/environment@0.3.0" (instance)) (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#,
            ),
            &["missing_export"],
        ),
        refused(
            52,
            "an import of a version that overflows",
            import("wasi:cli/environment@99999999999.0.0"),
            MISSING,
        ),
        refused(52, "key-value stores", import("wasi:keyvalue/store@0.2.0-draft"), MISSING),
        refused(52, "machine learning", import("wasi:nn/graph@0.2.0"), MISSING),
        refused(52, "no export at all", component("(component)"), &["missing_export"]),
        refused(
            52,
            "an export of another version",
            component(r#"(component (instance $i) (export "wasi:cli/run@0.9.0" (instance $i)))"#),
            &["missing_export"],
        ),
        item(
            52,
            "an import with a function of another type",
            framed(
                r#"(import "wasi:cli/environment@0.2.0" (instance (export "get-arguments" (func (param "x" u32) (result u32)))))"#,
                r#"(core module $code (func (export "run") (result i32) i32.const 0)) (core instance $code (instantiate $code))"#,
            ),
            NOT_STARTED,
        ),
        item(
            52,
            "an import with a function that is not there",
            framed(
                r#"(import "wasi:cli/environment@0.2.0" (instance (export "escape" (func))))"#,
                r#"(core module $code (func (export "run") (result i32) i32.const 0)) (core instance $code (instantiate $code))"#,
            ),
            NOT_STARTED,
        ),
        item(
            53,
            "a run that wants a parameter",
            run(r#"(func $run (param "x" u32) (canon lift (core func $code "a")))"#),
            MISTYPED,
        ),
        item(
            53,
            "a run that gives a number",
            run(r#"(func $run (result u32) (canon lift (core func $code "b")))"#),
            MISTYPED,
        ),
        item(
            53,
            "an export of run without a function",
            component(r#"(component (instance $i) (export "wasi:cli/run@0.2.0" (instance $i)))"#),
            NOT_STARTED,
        ),
        refused(
            53,
            "an async function",
            component(
                r#"(component (core module $m (func (export "f") (result i32) i32.const 0)) (core instance $i (instantiate $m)) (func $f async (result u32) (canon lift (core func $i "f"))) (export "f" (func $f)))"#,
            ),
            &["feature_off", "invalid_wasm"],
        ),
        refused(
            53,
            "an async run of WASI 0.2",
            async_run("wasi:cli/run@0.2.0", "(param i32 i32 i32) (result i32)", ""),
            &["feature_off"],
        ),
        refused(
            53,
            "a callback of another type",
            async_run("wasi:cli/run@0.3.0", "(param i64) (result i32)", ""),
            &["invalid_wasm"],
        ),
        refused(
            53,
            "an async function with a stack of its own",
            component(
                r#"(component (core module $m (func (export "f"))) (core instance $i (instantiate $m)) (func $f async (canon lift (core func $i "f") async)) (instance $e (export "run" (func $f))) (export "wasi:cli/run@0.3.0" (instance $e)))"#,
            ),
            &["feature_off", "invalid_wasm"],
        ),
        refused(
            53,
            "an error context",
            async_run(
                "wasi:cli/run@0.3.0",
                "(param i32 i32 i32) (result i32)",
                "(core func (canon error-context.drop))",
            ),
            &["feature_off", "invalid_wasm"],
        ),
    ]
}

/// A program that exports `export`, asynchronous, with a callback of the core type `callback`; and `more` beside it.
fn async_run(export: &str, callback: &str, more: &str) -> Component {
    component(&format!(
        r#"(component
        (core module $code
            (func (export "run") (result i32) i32.const 0)
            (func (export "back") {callback} i32.const 0))
        (core instance $code (instantiate $code))
        (func $run async (result (result)) (canon lift (core func $code "run") async (callback (func $code "back"))))
        {more}
        (instance $exported (export "run" (func $run)))
        (export "{export}" (instance $exported)))"#
    ))
}

fn pointers() -> Vec<Case> {
    let all = u32::MAX;
    vec![
        item(54, "a string far outside of memory", logging((0, 0), (all - 3, 64)), TRAPPED),
        item(54, "a string longer than memory", logging((0, 0), (0, 0x7fff_ffff)), TRAPPED),
        item(54, "a string with a length of 2^32 - 1", logging((0, 0), (1, all)), TRAPPED),
        item(54, "a string across the end of memory", logging((65_530, 64), (0, 0)), TRAPPED),
        item(54, "a string at the very end of memory", logging((65_536, 0), (0, 0)), &[("Completed", None)]),
        item(54, "realloc gives an odd address", reallocating("i32.const 1025"), TRAPPED),
        item(54, "realloc gives an address outside of memory", reallocating("i32.const 0x7ffffff0"), TRAPPED),
        item(54, "realloc gives 2^32 - 4", reallocating("i32.const -4"), TRAPPED),
        item(54, "realloc traps", reallocating("unreachable"), TRAPPED),
        item(54, "realloc gives the same address for everything", reallocating("i32.const 1024"), ANY),
    ]
}

/// A random program, the same for each number.
fn random(seed: u8) -> Case {
    let noise: Vec<u8> = noise(u64::from(seed) + 1).take(16 << 10).collect();
    let mut input = Unstructured::new(&noise);
    let config = Config {
        min_funcs: 3,
        export_everything: true,
        exceptions_enabled: false,
        gc_enabled: false,
        max_imports: 0,
        max_memory32_bytes: 8 << 20,
        memory64_enabled: false,
        threads_enabled: false,
        max_tags: 0,
        max_funcs: 40,
        max_instructions: 400,
        ..Config::default()
    };
    let module = Module::new(config, &mut input).expect("enough bytes for a module").to_bytes();
    let mut built = wasm_encoder::Component::new();
    built.section(&RawSection { id: 1, data: &module });
    let mut bytes = built.finish();
    // The rest of a job which instantiates it, without its header and the empty module in its place.
    let rest = wat::parse_str(
        r#"(component (core module $random)
            (core instance (instantiate $random))
            (core module $code (func (export "run") (result i32) i32.const 0))
            (core instance $code (instantiate $code))
            (func $run (result (result)) (canon lift (core func $code "run")))
            (instance $exported (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $exported)))"#,
    );
    let rest = rest.expect("a component");
    let module_length = usize::from(rest[9]);
    bytes.extend_from_slice(&rest[10 + module_length..]);
    item(55, &format!("a random program, seed {seed}"), Component { made: "wasm-smith", bytes }, ANY)
}

/// Bytes of which nothing is known but that they are always the same.
pub(super) fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    })
}
