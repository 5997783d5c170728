//! How long an instance lives: for one request, or for many; what is in memory of a component that nobody asks; and what an
//! instance leaves that trapped.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod canary;
mod code;
mod dumps;
mod reuse;
mod rig;
