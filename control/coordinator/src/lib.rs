//! The coordinator process: drives the scheduler.
//!
//! Decisions are made by `dunlin-scheduler`; here they are made durable, answered and carried out, in that order.
//! `driver` owns the one `Cluster`; everything else asks it through a channel or reads its last view.

mod api_tls;
mod backup;
mod clock;
mod config;
mod driver;
mod filler;
mod fleet;
mod gate;
mod http;
mod inputs;
mod kept;
mod logs;
mod migrate;
mod neighbours;
mod process;
mod records;
mod restore;
mod session;
mod simulate;
mod site_turns;
mod standby;
mod sweeper;
mod traps;

pub use backup::About;
pub use config::{Config, DEFAULT_API_PORT, DEFAULT_FLEET_PORT, Profile};
pub use dunlin_store::{EtcdLocation, EtcdTls, LocationError};
pub use filler::Filler;
pub use migrate::{Migrated, migrate_from_etcd, migrate_to_etcd};
pub use process::{Ended, run};
pub use restore::{RestoreBackupError, Restored, check_backup, restore_backup};
pub use simulate::{SimulateError, simulate_written};
