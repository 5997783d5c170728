//! Values that only who has the key can read, as they lie on a disk.
//!
//! Coordinator and agent seal with it what must not be read from a stolen disk or a copied backup: each with a key of
//! its own, which it derives from one that it has anyway.

mod key;

pub use key::{SealingKey, UnsealError};
