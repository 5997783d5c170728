//! `dunlin migrate-store`: a coordinator's state into etcd, or back from there.

use std::path::PathBuf;

use clap::Args;
use dunlin_coordinator::{Migrated, migrate_from_etcd, migrate_to_etcd};
use serde::Serialize;

use crate::commands::shared::SharedArgs;
use crate::error::CommandError;
use crate::output::Output;

const CANNOT: &str = "cannot migrate the store";

/// Move a coordinator's state into etcd, where several coordinators share it, or back from there.
///
/// No coordinator may run meanwhile; services go on. What it was moved from is kept, and not used any more.
#[derive(Debug, Args)]
#[command(
    before_help = "Example: dunlin migrate-store --state coordinator --store etcd://10.0.0.1:2379 --components s3://dunlin"
)]
pub(crate) struct MigrateStoreArgs {
    /// The state folder of the coordinator.
    #[arg(long, env = "DUNLIN_STATE", value_name = "DIR")]
    state: PathBuf,
    #[command(flatten)]
    shared: SharedArgs,
    /// From etcd into the state folder, which must hold no store.
    #[arg(long)]
    back: bool,
}

/// What was moved, for programs.
#[derive(Serialize)]
struct Told {
    records: u64,
    components_and_inputs: u64,
}

pub(crate) fn migrate_store(args: MigrateStoreArgs, output: &Output) -> Result<(), CommandError> {
    let MigrateStoreArgs { state, shared, back } = args;
    let (Some(location), Some(components)) = (shared.location(CANNOT)?, &shared.components) else {
        return Err(CommandError::usage(CANNOT)
            .because("it is not said where etcd is, and where components are that coordinators share")
            .help("give `--store etcd://...` and `--components s3://...`"));
    };
    let moved = if back {
        migrate_from_etcd(location, components, &state)
    } else {
        migrate_to_etcd(&state, location, components)
    };
    let Migrated { records, blobs } = moved.map_err(|error| {
        CommandError::failed(CANNOT)
            .caused_by(error.as_ref())
            .help("nothing was taken away from where it was; mend the cause and try again")
    })?;
    let told = Told { records, components_and_inputs: blobs };
    let place = state.display();
    output.note(&if back {
        format!("start it with `dunlin coordinator --state {place}`; what is left of it in etcd can be deleted")
    } else {
        format!("start coordinators with the same `--store` and `--components`; the former store is kept in {place}")
    });
    output.result(&told, || format!("{records} records, {blobs} components and inputs\n"))
}
