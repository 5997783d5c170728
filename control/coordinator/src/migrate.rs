//! A coordinator's state moved into etcd, or back from there. No coordinator may run meanwhile.
//!
//! Records are moved first and the fleet's secrets last: without these what is there counts as an unfinished migration,
//! which no coordinator takes for a fleet. Back from there a folder is made under another name, and gets its own when it
//! is whole.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use dunlin_model::{Bytes, MAX_PROGRAM};
use dunlin_store::{
    Changes, Components, Embedded, Etcd, EtcdLocation, Objects, Reign, Snapshot, SnapshotError, Table, Write,
};

use crate::process::{MAX_BLOB, RESERVE, private_folder};
use crate::standby::FleetSecrets;

/// So many records are committed together.
const BATCH: usize = 10_000;
/// And so many bytes of them at most, about.
const BATCH_BYTES: usize = 8 << 20;
/// What a store is called that was moved into etcd.
pub(crate) const MOVED: &str = "store.moved-to-etcd";
/// What a store is called while it is made,
const UNFINISHED: &str = "store.unfinished";
/// and when it is whole, but etcd may still hold the fleet.
const WHOLE: &str = "store.whole";
/// The folders of bytes.
const BLOBS: [(&str, Bytes); 3] = [("components", MAX_BLOB), ("inputs", MAX_BLOB), ("programs", MAX_PROGRAM)];

/// What was moved.
#[derive(Clone, Copy, Debug)]
pub struct Migrated {
    /// How many records.
    pub records: u64,
    /// How many components, inputs and programs.
    pub blobs: u64,
}

/// Moves what a state folder holds into an etcd that holds no fleet. It blocks.
pub fn migrate_to_etcd(state: &Path, location: EtcdLocation, objects: &str) -> anyhow::Result<Migrated> {
    let folder = state.join("store");
    ensure!(folder.is_dir(), "{} holds no coordinator's store", state.display());
    let moved = state.join(MOVED);
    ensure!(
        !moved.exists(),
        "{} is there already, from an earlier migration; move it away if it is not needed any more",
        moved.display()
    );
    let secrets = FleetSecrets::kept(state)?;
    let store = Embedded::open(&folder).context("could not open the coordinator's store")?;
    let objects = Arc::new(Objects::open(objects).context("could not open what coordinators share")?);
    // Made anew: what is there of an attempt that was broken off is of no use.
    remove(&state.join("copy"))?;
    let etcd = opened(location, &state.join("copy"))?;
    let known = etcd.known_fleet().context("could not look into etcd")?;
    ensure!(
        known != Some(secrets.to_json()?),
        "etcd holds this fleet already, as if a migration had ended before it put the former store aside; \
         if no coordinator has run since, rename {} to {MOVED}",
        folder.display()
    );
    ensure!(
        known.is_none() && etcd.is_empty().context("could not look into etcd")?,
        "etcd holds something under this prefix already; give another prefix, or delete what is there"
    );
    let blobs = upload(state, &objects)?;
    let reign = in_charge(&etcd)?;
    let shared = Arc::clone(&etcd).lead(Arc::clone(&reign)).context("could not write to etcd")?;
    let records = copy(&store, &shared)?;
    etcd.set_fleet(&secrets.to_json()?).context("could not put the fleet's secrets into etcd")?;
    drop(store);
    fs::rename(&folder, &moved).context("could not put the former store aside")?;
    reign.resign(&etcd);
    Ok(Migrated { records, blobs })
}

/// Moves what etcd holds into a state folder that holds no store. It blocks.
pub fn migrate_from_etcd(location: EtcdLocation, objects: &str, state: &Path) -> anyhow::Result<Migrated> {
    let (folder, unfinished, whole) = (state.join("store"), state.join(UNFINISHED), state.join(WHOLE));
    ensure!(!folder.exists(), "{} holds a store already", state.display());
    private_folder(state).with_context(|| format!("could not make {}", state.display()))?;
    let objects = Arc::new(Objects::open(objects).context("could not open what coordinators share")?);
    let etcd = opened(location, &state.join("copy"))?;
    let Some(secrets) = etcd.known_fleet().context("could not look into etcd")? else {
        // The last step of an earlier attempt is missing.
        if whole.exists() {
            fs::rename(&whole, &folder).context("could not give the store its name")?;
            return Ok(Migrated { records: 0, blobs: 0 });
        }
        bail!("etcd holds no fleet under this prefix");
    };
    // Nobody changes anything from here on.
    let reign = in_charge(&etcd)?;
    etcd.follow().context("could not read the store in etcd")?;
    FleetSecrets::from_json(&secrets)?.save(state)?;
    remove(&unfinished)?;
    remove(&whole)?;
    let store = Embedded::open(&unfinished).context("could not make the coordinator's store")?;
    let records = copy(etcd.copy(), &store)?;
    drop(store);
    let blobs = download(state, &objects)?;
    fs::rename(&unfinished, &whole).context("could not give the store its name")?;
    // From here on no coordinator begins there; if one has, it is in charge, and this fails.
    etcd.forget_fleet(&reign).context("could not take the fleet out of etcd")?;
    fs::rename(&whole, &folder).context("could not give the store its name")?;
    fs::File::open(state).and_then(|state| state.sync_all()).context("could not sync the state folder")?;
    reign.resign(&etcd);
    drop(etcd);
    remove(&state.join("copy"))?;
    Ok(Migrated { records, blobs })
}

fn opened(location: EtcdLocation, copy: &Path) -> anyhow::Result<Arc<Etcd>> {
    Ok(Arc::new(Etcd::open(location, copy).context("could not open the store in etcd")?))
}

fn in_charge(etcd: &Arc<Etcd>) -> anyhow::Result<Arc<Reign>> {
    let reign = etcd.campaign(b"{}").context("could not speak to etcd")?;
    reign.context("a coordinator runs on this etcd; stop all of them first")
}

/// Copies all records from one store to another; returns how many.
fn copy(from: &dyn Changes, to: &dyn Changes) -> anyhow::Result<u64> {
    let mut records = 0;
    from.snapshot(&mut |snapshot: &dyn Snapshot| {
        let failed = |error| SnapshotError::Write(std::io::Error::other(error));
        let (mut writes, mut bytes) = (Vec::new(), 0);
        for table in Table::ALL {
            snapshot.each(table, &mut |key, value| {
                records += 1;
                bytes += key.len() + value.len();
                writes.push(Write { table, key: key.to_vec(), value: Some(value.to_vec()) });
                if writes.len() >= BATCH || bytes >= BATCH_BYTES {
                    bytes = 0;
                    to.commit(&std::mem::take(&mut writes)).map_err(std::io::Error::other)?;
                }
                Ok(())
            })?;
        }
        to.commit(&writes).map_err(failed)
    })
    .context("could not copy the records")?;
    Ok(records)
}

/// Puts what the state folder has of components and inputs where coordinators share them; returns how many.
fn upload(state: &Path, objects: &Arc<Objects>) -> anyhow::Result<u64> {
    let mut count = 0;
    for (name, most) in BLOBS {
        let own = Components::open_folder(&state.join(name), most, RESERVE)?;
        let shared = own.clone().shared(Arc::clone(objects), name);
        for digest in own.all()? {
            shared.share(&digest).with_context(|| format!("could not share {digest}"))?;
            count += 1;
        }
    }
    Ok(count)
}

/// Fetches all that coordinators share into the state folder; returns how many.
fn download(state: &Path, objects: &Arc<Objects>) -> anyhow::Result<u64> {
    let mut count = 0;
    for (name, most) in BLOBS {
        let folder = Components::open_folder(&state.join(name), most, RESERVE)?;
        let shared = folder.shared(Arc::clone(objects), name);
        for digest in shared.all()? {
            shared.open(&digest).with_context(|| format!("could not fetch {digest}"))?;
            count += 1;
        }
    }
    Ok(count)
}

fn remove(folder: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove {}", folder.display()))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
