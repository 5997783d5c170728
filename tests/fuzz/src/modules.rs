//! Core modules of wasm-smith, in a component around them.
//!
//! Half of them use only what is allowed here and are valid by construction: admission must find no fault but that
//! such a component can do nothing. The other half may use any proposal.

use arbitrary::{Arbitrary, Unstructured};
use dunlin_admission::Refusal;
use wasm_smith::{Config, Module};

use crate::judge::judge;

pub(crate) fn run(bytes: &[u8]) {
    // Too few bytes for a module say nothing.
    let _too_few = generate(bytes);
}

fn generate(bytes: &[u8]) -> arbitrary::Result<()> {
    let mut input = Unstructured::new(bytes);
    let is_allowed = bool::arbitrary(&mut input)?;
    let config = Config::arbitrary(&mut input)?;
    let config = if is_allowed { allowed(config) } else { config };
    let module = Module::new(config, &mut input)?;
    let answer = judge(&component_around(&module.to_bytes()));
    if is_allowed {
        let fault = answer.expect_err("a component without exports can do nothing");
        let is_right = match &fault {
            Refusal::MissingExport { .. } | Refusal::TooComplex(_) => true,
            // Valid as a module, but two imports of one name cannot be told apart by a component.
            Refusal::InvalidWasm { message, .. } => message.contains("duplicate import name"),
            _ => false,
        };
        assert!(is_right, "a valid module was refused: {fault}");
    }
    Ok(())
}

/// Switches off what admission does.
fn allowed(config: Config) -> Config {
    Config {
        allow_invalid_funcs: false,
        bulk_memory_enabled: true,
        custom_descriptors_enabled: false,
        custom_page_sizes_enabled: false,
        exceptions_enabled: false,
        extended_const_enabled: true,
        gc_enabled: false,
        max_memories: 1,
        min_memories: config.min_memories.min(1),
        memory64_enabled: false,
        multi_value_enabled: true,
        reference_types_enabled: true,
        relaxed_simd_enabled: true,
        saturating_float_to_int_enabled: true,
        shared_everything_threads_enabled: false,
        sign_extension_ops_enabled: true,
        simd_enabled: true,
        tail_call_enabled: true,
        threads_enabled: false,
        wide_arithmetic_enabled: false,
        max_tags: 0,
        min_tags: 0,
        ..config
    }
}

/// Returns a component which holds `module` and nothing else.
pub(crate) fn component_around(module: &[u8]) -> Vec<u8> {
    const CORE_MODULE: u8 = 1;
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    component.push(CORE_MODULE);
    write_length(&mut component, module.len());
    component.extend_from_slice(module);
    component
}

/// Appends a number in the encoding of WebAssembly.
pub(crate) fn write_length(bytes: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        bytes.push(u8::try_from(length & 0x7f).expect("seven bits fit in a byte") | 0x80);
        length >>= 7;
    }
    bytes.push(u8::try_from(length).expect("seven bits fit in a byte"));
}
