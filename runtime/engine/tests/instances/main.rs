//! How long an instance lives: for one request, or for many; and what is in memory of a component that nobody asks.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod canary;
mod code;
mod reuse;
mod rig;
