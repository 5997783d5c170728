//! Compiled components on disk, authenticated.
//!
//! Compiled code runs with the rights of a worker, so a file is used only if its MAC, under a key that only the agent
//! and the workers of one namespace have, proves that this agent kept it, for this component, this version of the
//! compiler and this kind of processor. A file is its MAC and then the code; the bytes that are verified are the
//! bytes that are used.
//!
//! Not here: who compiles and which files are kept (`runtime/agent`), and what the code is (`runtime/engine`).

mod file;
mod key;

pub use file::{ReadError, copy, file_name, is_genuine, read, seal};
pub use key::{CodeKey, CodeKind, NotAPlatform, Platform};
