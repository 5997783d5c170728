//! Planted bugs of the processes: mistakes that could be made in a coordinator, an agent or what they keep, to see whether
//! the campaigns find them.
//!
//! Each has a one-line hook where it would be made: `if planted(Bug::AnswerBeforeCommit)`. Without the feature `on`, which
//! only `cargo x teeth` switches on, [`planted`] is `false` at compile time and nothing of this is in a program. With it
//! the environment says which one is made: `DUNLIN_PLANTED=answer-before-commit`.

mod bugs;
mod points;

pub use bugs::{Bug, planted};
pub use points::{Point, fails, reached};
