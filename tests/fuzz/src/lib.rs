//! Fuzz targets: functions from any bytes to nothing, which panic where a promise is broken.
//!
//! Each target has a folder of seeds in `corpus/`. The test of this crate runs them all, and some mutations of each;
//! the program runs one target for as long as one likes, and by coverage if it is built with the feature `guided`.
//! What is found goes into the corpus as a file, so that it is tried for ever after.
//!
//! Not here: tests of what well-formed input does; those are in the crates that do it.

mod cache;
mod components;
mod host_calls;
mod ingress;
mod judge;
mod modules;
mod mutate;
mod raw;
mod targets;

pub use mutate::Mutator;
pub use targets::{TARGETS, Target, corpus, target};
