//! Allocations as they are kept: with the name of their spec in place of it.
//!
//! A service of a thousand allocations has one spec, which is most of what each of their records says. It is kept once,
//! under the SHA-256 of its bytes, in the commit that needs it first. Records that hold the spec itself, as earlier
//! versions wrote them, are read as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::{
    AllocationId, Digest, DurationMs, NodeId, Revision, Timestamp, Work, WorkloadName, WorkloadSpec,
};
use dunlin_scheduler::{AllocationRecord, AllocationState, MakesWay, RangeSet};
use dunlin_store::{Changes, Table, Write};
use serde::{Deserialize, Serialize};

use crate::records::{RestoreError, decode};

/// What the keys of specs begin with.
const SPECS: &[u8] = b"spec/";
/// How many specs are remembered by their place in memory, so that they need not be hashed again.
const REMEMBERED: usize = 4_096;
/// How many specs are read at once.
const PAGE: usize = 256;

/// The specs that the store holds.
#[derive(Debug, Default)]
pub(crate) struct Specs {
    kept: BTreeSet<Digest>,
    /// By their place in memory, where they stay as long as they are here.
    hashed: BTreeMap<usize, (Arc<WorkloadSpec>, Digest)>,
}

/// A record as it is written.
#[derive(Serialize)]
enum Written<'a> {
    Allocation(WrittenAllocation<'a>),
}

#[derive(Serialize)]
struct WrittenAllocation<'a> {
    id: AllocationId,
    workload: &'a WorkloadName,
    revision: Revision,
    node: &'a NodeId,
    spec: Digest,
    work: &'a Work,
    #[serde(skip_serializing_if = "Option::is_none")]
    returned: Option<&'a RangeSet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    makes_way: &'a Option<Box<MakesWay>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<DurationMs>,
    state: &'a AllocationState,
    created: Timestamp,
}

/// A record as it is read.
#[derive(Deserialize)]
enum Read {
    Allocation(ReadAllocation),
}

#[derive(Deserialize)]
struct ReadAllocation {
    id: AllocationId,
    workload: WorkloadName,
    revision: Revision,
    node: NodeId,
    spec: ReadSpec,
    work: Work,
    #[serde(default)]
    returned: RangeSet,
    #[serde(default)]
    makes_way: Option<Box<MakesWay>>,
    #[serde(default)]
    lease: Option<DurationMs>,
    state: AllocationState,
    created: Timestamp,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ReadSpec {
    Named(Digest),
    Whole(Box<WorkloadSpec>),
}

impl Specs {
    /// Returns the value of an allocation's record, and adds to `writes` what it needs and the store does not hold yet.
    pub(crate) fn value(&mut self, record: &AllocationRecord, writes: &mut Vec<Write>) -> Vec<u8> {
        let written = WrittenAllocation {
            id: record.id,
            workload: &record.workload,
            revision: record.revision,
            node: &record.node,
            spec: self.name(&record.spec, writes),
            work: &record.work,
            returned: Some(&record.returned).filter(|returned| !returned.is_empty()),
            makes_way: &record.makes_way,
            lease: record.lease,
            state: &record.state,
            created: record.created,
        };
        json(&Written::Allocation(written))
    }

    fn name(&mut self, spec: &Arc<WorkloadSpec>, writes: &mut Vec<Write>) -> Digest {
        let place = Arc::as_ptr(spec).addr();
        if let Some((_, digest)) = self.hashed.get(&place) {
            return *digest;
        }
        let value = json(&**spec);
        let digest = Digest::of(&value);
        if self.kept.insert(digest) {
            writes.push(Write { table: Table::Meta, key: key(&digest), value: Some(value) });
        }
        if self.hashed.len() >= REMEMBERED {
            self.hashed.clear();
        }
        self.hashed.insert(place, (Arc::clone(spec), digest));
        digest
    }
}

/// What is read of allocations.
#[derive(Debug, Default)]
pub(crate) struct Allocations {
    /// All of them; those with the same spec share it.
    pub(crate) records: Vec<Arc<AllocationRecord>>,
    pub(crate) specs: Specs,
    /// What deletes specs that nobody needs any more.
    pub(crate) unneeded: Vec<Write>,
}

impl Allocations {
    pub(crate) fn load(store: &dyn Changes) -> Result<Self, RestoreError> {
        let mut specs: BTreeMap<Digest, Arc<WorkloadSpec>> = BTreeMap::new();
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = store.range(Table::Meta, SPECS, after.as_deref(), PAGE)?;
            let is_last = page.len() < PAGE;
            for (key, value) in page {
                specs.insert(Digest::of(&value), Arc::new(decode(Table::Meta, &value)?));
                after = Some(key);
            }
            if is_last {
                break;
            }
        }
        let mut found = Self::default();
        let mut needed = BTreeSet::new();
        for (_, value) in store.load(Table::Allocations)? {
            let Read::Allocation(read) = decode(Table::Allocations, &value)?;
            let spec = match read.spec {
                ReadSpec::Whole(spec) => Arc::new(*spec),
                ReadSpec::Named(digest) => {
                    needed.insert(digest);
                    Arc::clone(specs.get(&digest).ok_or(RestoreError::Spec { digest })?)
                }
            };
            let ReadAllocation { id, workload, revision, node, work, returned, makes_way, .. } = read;
            let (lease, state, created) = (read.lease, read.state, read.created);
            let record = AllocationRecord {
                id,
                workload,
                revision,
                node,
                spec,
                work,
                returned,
                makes_way,
                lease,
                state,
                created,
            };
            found.records.push(Arc::new(record));
        }
        let unneeded = specs.keys().filter(|digest| !needed.contains(digest));
        let deletion = |digest| Write { table: Table::Meta, key: key(digest), value: None };
        found.unneeded = unneeded.map(deletion).collect();
        found.specs.kept = needed;
        Ok(found)
    }
}

fn key(digest: &Digest) -> Vec<u8> {
    [SPECS, digest.hex().as_bytes()].concat()
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a record has only string keys and finite numbers")
}

#[cfg(test)]
mod tests {
    use dunlin_model::{Limits, ServiceSpec, WorkloadKind};
    use dunlin_scheduler::Change;
    use dunlin_store::Embedded;

    use super::*;

    fn spec(component: &[u8]) -> Arc<WorkloadSpec> {
        let service = ServiceSpec {
            allocations: 1,
            routes: Vec::new(),
            fuel_header: false,
            everywhere: false,
            rollout: Default::default(),
            health: None,
            on_partition: Default::default(),
        };
        Arc::new(WorkloadSpec {
            component: Digest::of(component),
            kind: WorkloadKind::Service(service),
            limits: Limits::default(),
            environment: BTreeMap::new(),
            node_labels: BTreeMap::new(),
            capabilities: Default::default(),
            instances: Default::default(),
            metering: Default::default(),
            coredump: false,
            signed: None,
            placement: Default::default(),
            priority: Default::default(),
        })
    }

    fn allocation(number: u64, spec: &Arc<WorkloadSpec>) -> AllocationRecord {
        AllocationRecord {
            id: AllocationId::new(number),
            workload: "default/shop/front".parse().unwrap(),
            revision: Revision(1),
            node: "node-1".parse().unwrap(),
            spec: Arc::clone(spec),
            work: Work::Serve,
            returned: RangeSet::default(),
            makes_way: None,
            lease: None,
            state: AllocationState::Placed,
            created: Timestamp(7),
        }
    }

    fn keep(store: &dyn Changes, specs: &mut Specs, record: &AllocationRecord) -> usize {
        let change = Change::Allocation(Arc::new(record.clone()));
        let writes = crate::records::writes(&[change], specs);
        store.commit(&writes).unwrap();
        writes.len()
    }

    #[test]
    fn a_spec_is_kept_once_and_goes_when_nobody_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let mut specs = Specs::default();
        let (first, second) = (spec(b"first"), spec(b"second"));
        let records =
            [allocation(1, &first), allocation(2, &first), allocation(3, &second), allocation(4, &second)];
        let written: Vec<usize> = records.iter().map(|record| keep(&store, &mut specs, record)).collect();
        assert_eq!(written, [2, 1, 2, 1]);
        // The same contents elsewhere in memory are the same spec.
        assert_eq!(keep(&store, &mut specs, &allocation(2, &spec(b"first"))), 1);

        let found = Allocations::load(&store).unwrap();
        let read: Vec<AllocationRecord> = found.records.iter().map(|record| (**record).clone()).collect();
        assert_eq!(read, records);
        assert!(Arc::ptr_eq(&found.records[0].spec, &found.records[1].spec));
        assert_eq!(found.unneeded, []);

        let gone = [3, 4].map(|id| Change::AllocationDeleted(AllocationId::new(id)));
        store.commit(&crate::records::writes(&gone, &mut specs)).unwrap();
        let found = Allocations::load(&store).unwrap();
        assert_eq!(found.unneeded.len(), 1);
        store.commit(&found.unneeded).unwrap();
        assert_eq!(store.load(Table::Meta).unwrap().len(), 1);
        // What was deleted is written again if somebody needs it again.
        let mut specs = found.specs;
        assert_eq!(keep(&store, &mut specs, &allocation(5, &second)), 2);
        assert_eq!(Allocations::load(&store).unwrap().records.len(), 3);
    }

    #[test]
    fn records_of_earlier_versions_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).unwrap();
        let record = allocation(1, &spec(b"first"));
        let value = json(&Change::Allocation(Arc::new(record.clone())));
        let key = 1_u64.to_be_bytes().to_vec();
        store.commit(&[Write { table: Table::Allocations, key, value: Some(value) }]).unwrap();
        assert_eq!(*Allocations::load(&store).unwrap().records[0], record);
    }
}
