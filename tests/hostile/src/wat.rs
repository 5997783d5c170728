//! Components written by hand: a small frame for jobs, and pieces of interfaces that they import.

use crate::case::Component;

/// Returns the component of a text.
///
/// # Panics
///
/// If the text is not one.
pub(crate) fn component(text: &str) -> Component {
    let bytes = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    Component { made: "WAT", bytes }
}

/// Returns a job whose core module has this body; the body exports `run`, which gives 0 for success.
pub(crate) fn job(body: &str) -> Component {
    framed("", &format!("(core module $code {body}) (core instance $code (instantiate $code))"))
}

/// Returns a job that does `code` and then has succeeded.
pub(crate) fn running(declared: &str, code: &str) -> Component {
    job(&format!(r#"{declared} (func (export "run") (result i32) {code} i32.const 0)"#))
}

/// Returns a job with these imports and this core instance `$code`.
pub(crate) fn framed(imports: &str, instance: &str) -> Component {
    component(&format!(
        r#"(component
            {imports}
            {instance}
            (func $run (result (result)) (canon lift (core func $code "run")))
            (instance $exported (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $exported)))"#
    ))
}

/// Returns a job whose `run` asks for its arguments, which the host puts where this `realloc` says.
pub(crate) fn reallocating(realloc: &str) -> Component {
    framed(
        r#"(import "wasi:cli/environment@0.2.0" (instance $environment
            (export "get-environment" (func (result (list (tuple string string)))))))"#,
        &format!(
            r#"(core module $memory
                (memory (export "memory") 2)
                (func $again (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc}))
            (core instance $memory (instantiate $memory))
            (core func $get (canon lower (func $environment "get-environment")
                (memory $memory "memory") (realloc (func $memory "realloc"))))
            (core module $code
                (import "host" "get" (func $get (param i32)))
                (func (export "run") (result i32) (call $get (i32.const 64)) i32.const 0))
            (core instance $code (instantiate $code
                (with "host" (instance (export "get" (func $get))))))"#
        ),
    )
}

/// Returns a job which calls `wasi:logging` with a level and two strings at these places.
pub(crate) fn logging(context: (u32, u32), message: (u32, u32)) -> Component {
    framed(
        r#"(import "wasi:logging/logging@0.1.0-draft" (instance $logging
            (type $level (enum "trace" "debug" "info" "warn" "error" "critical"))
            (export "level" (type $exported (eq $level)))
            (export "log" (func (param "level" $exported) (param "context" string) (param "message" string)))))"#,
        &format!(
            r#"(core module $memory (memory (export "memory") 1)
                (data (i32.const 0) "\ff\fe\c0\80text\00\1b[31m"))
            (core instance $memory (instantiate $memory))
            (core func $log (canon lower (func $logging "log") (memory $memory "memory")))
            (core module $code
                (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
                (func (export "run") (result i32)
                    (call $log (i32.const 2) (i32.const {}) (i32.const {}) (i32.const {}) (i32.const {}))
                    i32.const 0))
            (core instance $code (instantiate $code
                (with "host" (instance (export "log" (func $log))))))"#,
            context.0, context.1, message.0, message.1
        ),
    )
}

/// Returns a job which instantiates `count` core modules of this body beside its own.
pub(crate) fn instances(count: usize, body: &str) -> Component {
    let more: String = (0..count).map(|_| "(core instance (instantiate $piece))").collect();
    framed(
        "",
        &format!(
            r#"(core module $piece {body}) {more}
            (core module $code (func (export "run") (result i32) i32.const 0))
            (core instance $code (instantiate $code))"#
        ),
    )
}
