//! Every limit that binds an instance, hit by a guest written for it: what it is told, that it is counted, and that all
//! is as it was afterwards. The limits table of the book names these tests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod by_time;
mod held;
mod host_calls;
mod messages;
mod support;
mod time;
