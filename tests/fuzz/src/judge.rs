//! What must hold of every answer of admission, whatever the bytes were.

use dunlin_admission::{Admitted, Refusal, admit, is_provided, is_provided_to_wasi_03, needed_features};
use dunlin_model::Feature;

/// The codes that a refusal may have: those of the documentation.
const CODES: [&str; 8] = [
    "invalid_wasm",
    "precompiled_not_accepted",
    "core_module",
    "too_large",
    "too_complex",
    "missing_imports",
    "missing_export",
    "feature_off",
];

/// The longest message: twenty names of 120 escaped characters, with their reasons.
const MAX_MESSAGE: usize = 40 << 10;

/// Asks admission and checks its answer.
pub(crate) fn judge(bytes: &[u8]) -> Result<Admitted, Refusal> {
    let answer = admit(bytes);
    match &answer {
        Ok(admitted) => {
            assert!(!admitted.worlds.is_empty(), "admitted, but nothing can start it");
            let wasi03 = admitted.needs(Feature::Wasi03);
            let is_there = |name: &String| is_provided(name) || wasi03 && is_provided_to_wasi_03(name);
            assert!(admitted.imports.iter().all(is_there), "{:?}", admitted.imports);
            assert_eq!(admitted.features, needed_features(bytes));
            assert_eq!(admitted.size.0, bytes.len() as u64);
            assert!(bytes.len() <= 64 << 20 && !bytes.starts_with(b"\x7fELF"));
        }
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(CODES.contains(&refusal.code()), "{} is no code for {text}", refusal.code());
            assert!(text.len() <= MAX_MESSAGE, "a message of {} bytes", text.len());
            assert!(text.chars().all(|letter| !letter.is_control()), "not printable: {text:?}");
            assert!(!text.contains("the validator gave up"), "the validator panicked");
        }
    }
    answer
}
