//! A core module is made into a component before it is sent, so that what an old `wasm32-wasi` compiler made runs.
//!
//! It happens here and not at the coordinator: what is stored and run has the digest that the user's own machine gave
//! it, and no other machine rewrites anybody's code.

use std::path::Path;

use bytes::Bytes;
use dunlin_admission::{Refusal, componentize, is_core_module};

use crate::error::CommandError;
use crate::output::Output;

/// Returns the component for what `path` holds: the bytes themselves, unless they are a core module. That it was
/// wrapped is said in one line.
pub(crate) fn wrapped(bytes: Bytes, path: &Path, output: &Output) -> Result<Bytes, CommandError> {
    if !is_core_module(&bytes) {
        return Ok(bytes);
    }
    let component = componentize(&bytes).map_err(|refusal| {
        CommandError::failed(format!("cannot make a component of the core module {}", path.display()))
            .caused_by(&refusal)
            .help(refusal_help(&refusal))
    })?;
    output.note(&format!(
        "wrapped the core module {} as a component, by the adapter from WASI preview 1 to WASI 0.2",
        path.display()
    ));
    Ok(component.into())
}

/// Returns what to do about a component, or a core module, that no fleet takes.
pub(crate) fn refusal_help(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::InvalidWasm { .. } => "build it again; the file may be cut short",
        Refusal::FeatureOff { .. } => "switch this feature off in your compiler",
        Refusal::TooLarge(_) => "build it optimised, and strip its debug information",
        Refusal::NotChecked { .. } => "try again in a few seconds",
        _ => {
            "build a program for WASI preview 1, or a component for WASI 0.2; the book's page on languages shows how"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Format;

    fn wrapped_or_said(bytes: &[u8]) -> Result<Bytes, String> {
        let output = Output::new(Format::Table, true);
        wrapped(Bytes::copy_from_slice(bytes), Path::new("a.wasm"), &output)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn only_core_modules_are_touched() {
        for bytes in [&b"anything"[..], b"\0asm\x0d\0\x01\0"] {
            assert_eq!(wrapped_or_said(bytes).as_deref(), Ok(bytes));
        }
    }

    #[test]
    fn a_module_that_cannot_be_wrapped_is_refused_with_what_to_do() {
        let said = wrapped_or_said(b"\0asm\x01\0\0\0").unwrap_err();
        for part in ["the core module a.wasm", "`_start`", "help: build a program for WASI preview 1"] {
            assert!(said.contains(part), "`{part}` is missing: {said}");
        }
    }
}
