//! The agent process: drives the supervisor; owns keys, link, caches and workers of one node.
//!
//! Decisions are made by `dunlin-supervisor`; here they are carried out. Guests never run in this process.

mod capacity;
mod components;
mod config;
mod driver;
mod folders;
mod inputs;
mod last_assignment;
mod link;
mod logs;
mod peers;
mod process;
mod settings;
mod workers;

pub use config::{Config, DEFAULT_INGRESS_PORT, GivenToken};
pub use process::{CannotJoin, IDENTITY_FILE, run};
pub use settings::{
    EgressSettings, Feature, Hardening, IngressSettings, Isolation, OfferedFolder, Settings, SettingsError,
};
