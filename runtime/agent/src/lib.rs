//! The agent process: drives the supervisor; owns keys, link, caches and workers of one node.
//!
//! Decisions are made by `dunlin-supervisor`; here they are carried out. Guests never run in this process.

mod authenticated;
mod begun_items;
mod capacity;
mod certificate;
mod clock;
mod compiler;
mod components;
mod config;
mod driver;
mod dumps;
mod egress;
mod folders;
mod homes;
mod inputs;
mod kept_items;
mod last_assignment;
mod link;
mod logs;
mod metrics;
mod nursery;
mod peers;
mod process;
mod programs;
mod secrets;
mod settings;
mod sockets;
mod solo;
mod traps;
mod wall;
mod workers;

pub use dunlin_protocol::{WallFinding, WallPart, WallState};

pub use config::{Config, DEFAULT_INGRESS_PORT, GivenToken};
pub use process::{CannotJoin, Ended, IDENTITY_FILE, Orders, run};
pub use programs::{Choice, Programs, check};
pub use settings::{
    EgressSettings, Hardening, IngressSettings, Isolation, NodeLimits, OfferedFolder, Settings,
    SettingsError, TlsSettings, UpgradeSettings, WorkerUids,
};
pub use sockets::{Inherited, Sockets};
pub use solo::{Solo, SoloConfig, SoloEnd, SoloError, SoloGuest, SoloStreams, SoloUse, solo_namespace};
pub use wall::{Advice, ProbeError, advice, examine};
