//! From a core module of WASI preview 1 to a component: what any old `wasm32-wasi` compiler makes becomes a guest.
//!
//! The standard adapter is put between the module and WASI 0.2, as `wasm-tools component new --adapt` would do it: the
//! one for commands if the module has a `_start`, else the one for reactors. The module is validated first, with the
//! features that guests may use, so that what it lacks is said in terms of the module.
//!
//! Not here: whether the result may become a guest; [`admit()`](crate::admit()) tells.

use dunlin_model::{Bytes, ComponentLimits};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
    WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wasmparser::{Encoding, Parser, Payload};
use wit_component::ComponentEncoder;

use crate::admit::{MAX_LISTED, features, validate};
use crate::provided::capability_of;
use crate::refusal::{MissingImport, Refusal, shown};
use crate::scan::invalid;

/// Tells whether `bytes` begin as a core module does: wasm, but not yet a component.
pub fn is_core_module(bytes: &[u8]) -> bool {
    /// The magic number, version 1, and layer 0; a component has layer 1.
    const HEAD: &[u8; 8] = b"\0asm\x01\0\0\0";
    bytes.starts_with(HEAD)
}

/// Makes a component of a core module that imports nothing beyond WASI preview 1.
///
/// A module which says itself what else it imports, as those of `wit-bindgen` do in their `component-type` sections,
/// may import that too.
pub fn componentize(module: &[u8]) -> Result<Vec<u8>, Refusal> {
    // Whether it may be so large here is asked of the component: whoever wraps it does not know.
    let limits = ComponentLimits::maximum();
    if let Some(hit) = limits.refuse_size(Bytes(module.len() as u64)) {
        return Err(Refusal::TooLarge(hit));
    }
    validate(module, features(), &limits)?;
    let outline = outline(module)?;
    check_imports(&outline)?;
    if !outline.has_start && !outline.says_its_world {
        return Err(Refusal::NotComponentizable {
            reason:
                "it exports no `_start`, so it is a library and not a program; build a program with a `main`"
                    .to_owned(),
        });
    }
    // Its bookkeeping asserts what the validator has already checked. Should it still hit on something, the answer
    // remains a value.
    std::panic::catch_unwind(|| wrap(module, outline.has_start))
        .unwrap_or_else(|_panic| Err("the adapter gave up".to_owned()))
        .map_err(|reason| Refusal::NotComponentizable { reason })
}

fn wrap(module: &[u8], has_start: bool) -> Result<Vec<u8>, String> {
    let adapter = if has_start {
        WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER
    } else {
        WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER
    };
    ComponentEncoder::default()
        .validate(true)
        .module(module)
        .and_then(|encoder| encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, adapter))
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| error.chain().map(|cause| shown(&cause.to_string())).collect::<Vec<_>>().join(": "))
}

/// What of a module decides how it is wrapped.
#[derive(Debug, Default)]
struct Outline {
    /// Module and name of each import.
    imports: Vec<(String, String)>,
    has_start: bool,
    says_its_world: bool,
}

fn outline(module: &[u8]) -> Result<Outline, Refusal> {
    let mut outline = Outline::default();
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(|error| invalid(&error))? {
            Payload::Version { encoding: Encoding::Component, .. } => {
                return Err(Refusal::NotComponentizable { reason: "it is a component already".to_owned() });
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports() {
                    let import = import.map_err(|error| invalid(&error))?;
                    outline.imports.push((import.module.to_owned(), import.name.to_owned()));
                }
            }
            Payload::ExportSection(section) => {
                for export in section {
                    let export = export.map_err(|error| invalid(&error))?;
                    outline.has_start |= export.name == "_start";
                }
            }
            Payload::CustomSection(section) => {
                outline.says_its_world |= section.name().starts_with("component-type");
            }
            _ => {}
        }
    }
    Ok(outline)
}

fn check_imports(outline: &Outline) -> Result<(), Refusal> {
    if outline.says_its_world {
        return Ok(());
    }
    let is_foreign = |(module, _): &&(String, String)| module != WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME;
    let foreign: Vec<_> = outline.imports.iter().filter(is_foreign).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let named = |(module, name): &&(String, String)| MissingImport {
        name: shown(&format!("{module}.{name}")),
        why: why_not(module).to_owned(),
    };
    Err(Refusal::ForeignImports {
        names: foreign.iter().take(MAX_LISTED).map(named).collect(),
        more: foreign.len().saturating_sub(MAX_LISTED),
    })
}

fn why_not(module: &str) -> &'static str {
    match module {
        "wasi_unstable" => "this is WASI preview 0; build with a compiler for wasm32-wasip1",
        "wasi" => "this is the threads proposal of WASI, which is switched off; build without threads",
        "gojs" | "go" => "this is Go for browsers; build with GOOS=wasip1 GOARCH=wasm",
        "wbg" | "__wbindgen_placeholder__" => "this is wasm-bindgen, for browsers; build for wasm32-wasip2",
        "env" => "this is an import of Emscripten or of an own host; build with a WASI toolchain",
        _ => capability_of(module),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{World, admit};

    fn module(text: &str) -> Vec<u8> {
        wat::parse_str(text).unwrap()
    }

    fn refused(text: &str) -> String {
        let refusal = componentize(&module(text)).unwrap_err();
        format!("{}: {refusal}", refusal.code())
    }

    const PRINTS: &str = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\08\00\00\00\03\00\00\00hi\n")
        (func (export "_start")
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 16)))))"#;

    #[test]
    fn a_program_of_preview_1_becomes_a_component_that_is_admitted_as_a_command() {
        let module = module(PRINTS);
        assert!(is_core_module(&module));
        let component = componentize(&module).unwrap();
        assert!(!is_core_module(&component));
        assert!(admit(&component).unwrap().is(World::Command));
    }

    #[test]
    fn the_same_module_becomes_the_same_component() {
        assert_eq!(componentize(&module(PRINTS)), componentize(&module(PRINTS)));
    }

    #[test]
    fn a_program_that_imports_nothing_becomes_a_command_too() {
        let component =
            componentize(&module("(module (memory (export \"memory\") 1) (func (export \"_start\")))"));
        assert!(admit(&component.unwrap()).unwrap().is(World::Command));
    }

    #[test]
    fn other_imports_are_named_with_what_to_do() {
        let said = refused(
            r#"(module
                (import "env" "emscripten_resize_heap" (func (param i32) (result i32)))
                (import "wasi_unstable" "proc_exit" (func (param i32)))
                (import "wasi_snapshot_preview1" "proc_exit" (func (param i32)))
                (func (export "_start")))"#,
        );
        assert!(said.starts_with("foreign_imports: "), "{said}");
        for part in ["env.emscripten_resize_heap (", "Emscripten", "wasi_unstable.proc_exit (", "preview 0"] {
            assert!(said.contains(part), "`{part}` is missing: {said}");
        }
        assert!(!said.contains("wasi_snapshot_preview1.proc_exit"), "{said}");
    }

    #[test]
    fn what_preview_1_does_not_have_is_refused() {
        let said = refused(
            r#"(module (import "wasi_snapshot_preview1" "fork" (func)) (memory (export "memory") 1)
                (func (export "_start")))"#,
        );
        assert!(said.starts_with("not_componentizable: ") && said.contains("fork"), "{said}");
    }

    #[test]
    fn a_library_is_refused() {
        let said = refused("(module (func (export \"add\")))");
        assert!(said.contains("`_start`"), "{said}");
    }

    #[test]
    fn what_is_no_valid_module_is_refused_as_such() {
        assert_eq!(componentize(b"\0asm\x01\0\0\0\x01").unwrap_err().code(), "invalid_wasm");
        assert_eq!(refused("(module (memory i64 1))").split(':').next(), Some("feature_off"));
        let component = componentize(&module(PRINTS)).unwrap();
        assert_eq!(componentize(&component).unwrap_err().code(), "not_componentizable");
    }
}
