//! Secrets: which there are, who may read them, and which value each node is to have.
//!
//! The brain has them sealed and never sees a value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::{
    AppName, AppSpec, LimitHit, MAX_SECRETS, NodeId, SecretId, SecretVersion, Timestamp, WorkloadName,
    WorkloadSpec,
};

use crate::durable::Durable;
use crate::planted::{Bug, planted};
use crate::{AllocationRecord, Answer, Change, Cluster, Rejection, SecretRecord, Step};

impl Cluster {
    /// Lets a secret have this value. Nodes that run something which reads it are told.
    pub(crate) fn set_secret(
        &mut self,
        step: &mut Step,
        id: SecretId,
        version: SecretVersion,
        sealed: Arc<[u8]>,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        let known = self.durable.secrets().get(&id);
        let created = known.map_or(now, |known| known.created);
        if known.is_none() {
            let of_namespace = self.durable.secrets().keys().filter(|other| other.namespace == id.namespace);
            let after = of_namespace.count() + 1;
            if after > MAX_SECRETS {
                let hit = LimitHit::new("secrets", MAX_SECRETS, after);
                return Err(Rejection::TooManySecrets { namespace: id.namespace, hit });
            }
        }
        let record = SecretRecord { id, version, sealed, created, updated: now };
        self.change(step, Change::Secret(Arc::new(record)), now);
        Ok(Answer::SecretSet)
    }

    /// Forgets a secret that nothing reads.
    pub(crate) fn delete_secret(
        &mut self,
        step: &mut Step,
        id: &SecretId,
        now: Timestamp,
    ) -> Result<Answer, Rejection> {
        if !self.durable.secrets().contains_key(id) {
            return Err(Rejection::UnknownSecret(id.clone()));
        }
        if let Some(workload) = self.reader(id).filter(|_| !planted(Bug::DeleteSecretInUse)) {
            return Err(Rejection::SecretInUse { secret: Box::new(id.clone()), workload });
        }
        self.change(step, Change::SecretDeleted(id.clone()), now);
        Ok(Answer::SecretDeleted)
    }

    /// Refuses a spec which is granted a secret that is not set.
    pub(crate) fn check_secrets(&self, spec: &AppSpec) -> Result<(), Rejection> {
        for (name, workload) in &spec.workloads {
            for secret in &workload.capabilities.secrets {
                let secret = SecretId { namespace: spec.name.namespace.clone(), name: secret.clone() };
                if !self.durable.secrets().contains_key(&secret) {
                    let (workload, secret) = (spec.name.workload(name), Box::new(secret));
                    return Err(Rejection::MissingSecret { workload, secret });
                }
            }
        }
        Ok(())
    }

    /// Returns the secrets that the allocations of a node are granted, each with the value that is meant.
    pub(crate) fn secrets_on(&self, node: &NodeId) -> BTreeMap<SecretId, SecretVersion> {
        let mut secrets = BTreeMap::new();
        for record in self.durable.on_node(node).filter(|record| record.is_assigned()) {
            for name in &record.spec.capabilities.secrets {
                let id = SecretId { namespace: record.workload.namespace.clone(), name: name.clone() };
                if let Some(known) = self.durable.secrets().get(&id) {
                    secrets.insert(id, known.version);
                }
            }
        }
        secrets
    }

    /// Returns a workload that reads a secret, or would again if its rollout failed.
    fn reader(&self, id: &SecretId) -> Option<WorkloadName> {
        let durable = &self.durable;
        let reads = |spec: &WorkloadSpec| spec.capabilities.secrets.contains(&id.name);
        let of_spec = |app: &AppName, spec: &AppSpec| {
            spec.workloads.iter().find(|(_, spec)| reads(spec)).map(|(name, _)| app.workload(name))
        };
        let mut apps = durable.apps().values().filter(|app| app.name.namespace == id.namespace);
        let of_apps = apps.find_map(|app| {
            let from = app.rollout.as_ref().and_then(|rollout| durable.revision(&app.name, rollout.from?));
            of_spec(&app.name, &app.spec).or_else(|| of_spec(&app.name, &from?.spec))
        });
        let of_allocations = durable.readers(id).next().map(|record| record.workload.clone());
        let runs = durable.runs().values().filter(|run| run.is_open());
        let mut runs = runs.filter(|run| run.workload.namespace == id.namespace);
        let of_run = runs.find(|run| reads(&run.spec)).map(|run| run.workload.clone());
        of_apps.or(of_allocations).or(of_run)
    }
}

impl Durable {
    /// Returns the allocations whose nodes have a secret for them. Some may be of workloads that their app does not have any
    /// more, or whose app is gone.
    pub(crate) fn readers(&self, id: &SecretId) -> impl Iterator<Item = &AllocationRecord> {
        let mut workloads: BTreeSet<WorkloadName> = self.of_namespace(&id.namespace).cloned().collect();
        let kept = self.revisions().iter().filter(|(app, _)| app.namespace == id.namespace);
        for (app, revisions) in kept {
            let names = revisions.values().flat_map(|revision| revision.spec.workloads.keys());
            workloads.extend(names.map(|name| app.workload(name)));
        }
        let of_workloads = workloads.into_iter().flat_map(|workload| self.of_workload(&workload));
        let runs = self.runs().values().filter(|run| run.is_open() && run.workload.namespace == id.namespace);
        let of_runs = runs.flat_map(|run| self.of_run(run.id));
        let draining =
            self.draining().iter().filter_map(|(_, allocation)| self.allocations().get(allocation));
        let draining = draining.map(|record| &**record).filter(|it| it.workload.namespace == id.namespace);
        let all = of_workloads.chain(of_runs).chain(draining);
        all.filter(|record| record.is_assigned() && record.spec.capabilities.secrets.contains(&id.name))
    }
}
