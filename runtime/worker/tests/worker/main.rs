//! A worker from outside: frames and requests in, messages and responses out, with real guests.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod items;
mod loading;
mod processes;
mod serving;
mod support;
mod traps;
