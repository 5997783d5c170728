//! Passes open sockets, and files in memory, between an agent and its workers.
//!
//! A worker can open no socket of its own; what it may use, its agent opens and passes on, each descriptor with a
//! short message that says what it is for. Messages are kept apart by the kernel: one send is one receive.
//!
//! Not here: what the messages mean (`control/protocol`), and who may have what (`runtime/agent`).

mod channel;
mod memory;

pub use channel::{Channel, MAX_MESSAGE, Message};
pub use memory::file_in_memory;
