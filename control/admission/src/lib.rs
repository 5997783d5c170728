//! Which bytes may become a guest: pure checks of wasm components before anything compiles them.
//!
//! The coordinator asks at deploy, so that a user hears at once what is wrong; the engine asks again before it
//! compiles, since it trusts nobody. Whatever the bytes are, the answer is a value: never a panic, never a stack
//! that overflows, never more work than the size of the bytes allows.
//!
//! Not here: compiling, and what the provided interfaces do (`runtime/host`).

mod admit;
mod componentize;
mod debug_info;
mod limits;
mod producers;
mod provided;
mod refusal;
mod scan;
mod ungranted;

pub use admit::{Admitted, World, admit, admit_within, features, needed_features, wasi_03_features};
pub use componentize::{componentize, is_core_module};
pub use debug_info::{MAX_DEBUG_INFO, MAX_DEBUG_UNITS, with_bounded_debug_info};
pub use limits::MAX_PACKED;
pub use producers::producers;
pub use provided::{
    PROVIDED, PROVIDED_WASI_03, Provided, capability_of, is_provided, is_provided_to_wasi_03,
};
pub use refusal::{MissingImport, Refusal};
pub use ungranted::{Ungranted, ungranted};
