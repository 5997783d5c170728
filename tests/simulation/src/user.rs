//! What users do, what they have been told, and so count on.
//!
//! Not here: what they wish for (`wishes`).

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    AppName, AppSpec, Name, NamespaceSpec, NodeId, Revision, RunId, SecretId, SecretVersion, Timestamp,
    WorkloadKind, WorkloadName,
};
use dunlin_scheduler::{Answer, Command, TokenRecord, View};

use crate::world::{Happening, World};

/// What users have been told, and so count on.
#[derive(Debug, Default)]
pub(crate) struct User {
    apps: BTreeMap<AppName, Promised>,
    runs: BTreeMap<RunId, PromisedRun>,
    members: BTreeSet<NodeId>,
    /// The nodes of which an operator has last said that nothing new shall go there, or that it may.
    cordoned: BTreeMap<NodeId, bool>,
    namespaces: BTreeMap<Name, NamespaceSpec>,
    secrets: BTreeMap<SecretId, SecretVersion>,
    /// The number of the last upgrade.
    upgrade: u64,
}

/// What was promised of an app.
#[derive(Debug)]
struct Promised {
    revision: Revision,
    /// What was deployed last.
    spec: AppSpec,
    /// Whether the revision is that: an earlier one may have been restored.
    is_spec: bool,
}

/// What was promised of a run.
#[derive(Debug)]
struct PromisedRun {
    workload: WorkloadName,
    items: Option<u32>,
    is_cancelled: bool,
}

const TOKEN: &str = "token";

impl User {
    /// Returns the apps that they have, as they want them.
    pub(crate) fn apps(&self) -> impl Iterator<Item = &AppSpec> {
        self.apps.values().map(|app| &app.spec)
    }

    /// Returns the runs that they have started.
    pub(crate) fn runs(&self) -> impl Iterator<Item = RunId> {
        self.runs.keys().copied()
    }

    /// Notes a command that was committed, and so may have been answered.
    pub(crate) fn committed(&mut self, command: &Command, answer: &Answer) {
        match (command, answer) {
            (Command::Deploy { spec, .. }, Answer::Deployed { revision, .. }) => {
                self.apps.insert(
                    spec.name.clone(),
                    Promised { revision: *revision, spec: spec.clone(), is_spec: true },
                );
            }
            (Command::Rollback { app, .. }, Answer::Deployed { revision, .. }) => {
                if let Some(app) = self.apps.get_mut(app) {
                    (app.revision, app.is_spec) = (*revision, false);
                }
            }
            (Command::Stop(name), Answer::Stopped { revision, .. }) => {
                if let Some(app) = self.apps.get_mut(name) {
                    // A revision may have been taken back before it was stopped.
                    app.is_spec &= *revision <= app.revision.next();
                    app.revision = *revision;
                    app.spec.workloads.values_mut().for_each(|spec| match &mut spec.kind {
                        WorkloadKind::Service(service) => service.allocations = 0,
                        WorkloadKind::Job(job) => job.schedule = None,
                    });
                }
                self.cancel_runs_of(name);
            }
            (Command::Delete(name), Answer::Deleted) => {
                self.apps.remove(name);
                // Whether the runs of a deleted app are kept is not promised.
                self.runs.retain(|_, run| run.workload.app_name() != *name);
            }
            (Command::StartRun { workload, wish }, Answer::RunStarted(run)) => {
                let promised =
                    PromisedRun { workload: workload.clone(), items: wish.items, is_cancelled: false };
                self.runs.insert(*run, promised);
            }
            (Command::CancelRun(run), Answer::Cancelled) => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.is_cancelled = true;
                }
            }
            (Command::Join { node, .. }, Answer::Joined) => drop(self.members.insert(node.clone())),
            (Command::Cordon { node, .. }, Answer::Cordoned) => {
                self.cordoned.insert(node.clone(), true);
            }
            (Command::Uncordon(node), Answer::Uncordoned) => {
                self.cordoned.insert(node.clone(), false);
            }
            (Command::SetNamespace { namespace, spec }, Answer::NamespaceSet) => {
                self.namespaces.insert(namespace.clone(), spec.clone());
            }
            (Command::SetSecret { id, version, .. }, Answer::SecretSet) => {
                self.secrets.insert(id.clone(), *version);
            }
            (Command::DeleteSecret(id), Answer::SecretDeleted) => drop(self.secrets.remove(id)),
            (
                Command::StartUpgrade { .. }
                | Command::StopUpgrade
                | Command::ResumeUpgrade
                | Command::RevertUpgrade,
                Answer::Upgrade(number),
            ) => self.upgrade = *number,
            (Command::Promote(_), Answer::Promoted)
            | (Command::CreateToken(_), Answer::TokenCreated)
            | (Command::ReleaseBrake, Answer::BrakeReleased) => {}
            (command, answer) => panic!("{answer:?} does not answer {command:?}"),
        }
    }

    fn cancel_runs_of(&mut self, app: &AppName) {
        for run in self.runs.values_mut().filter(|run| run.workload.app_name() == *app) {
            run.is_cancelled = true;
        }
    }

    /// Compares what was promised with what a coordinator knows: one that has just started, or one that has just
    /// answered.
    pub(crate) fn check_nothing_is_lost(&self, view: &View) -> Result<(), String> {
        if !view.apps.keys().eq(self.apps.keys()) {
            let known: Vec<_> = view.apps.keys().collect();
            return Err(format!("the apps are {:?}, known are {known:?}", self.apps.keys()));
        }
        for (name, promised) in &self.apps {
            let app = &view.apps[name];
            let specs = app.workloads.iter().map(|(name, workload)| (name, &workload.spec));
            // What has failed since is kept as an earlier revision.
            let taken_back = app.revisions.iter().find(|kept| kept.revision == promised.revision);
            let is_spec = match taken_back {
                None => app.revision == promised.revision && specs.eq(promised.spec.workloads.iter()),
                Some(kept) => app.restores.is_some() && kept.spec == promised.spec,
            };
            if !is_spec && promised.is_spec || app.revision < promised.revision {
                return Err(format!("{name} was revision {}, known is {}", promised.revision, app.revision));
            }
        }
        for (id, promised) in &self.runs {
            let Some(run) = view.runs.get(id) else {
                // The oldest of many runs are forgotten.
                let of_job = view.runs.values().filter(|run| run.record.workload == promised.workload);
                if of_job.count() >= 100 {
                    continue;
                }
                return Err(format!("{id} is lost"));
            };
            let run = &run.record;
            let is_another = promised.items.is_some_and(|items| items != run.items);
            if run.workload != promised.workload || is_another {
                return Err(format!("{id} is another run"));
            }
            if promised.is_cancelled && run.is_open() {
                return Err(format!("{id} was cancelled and goes on"));
            }
        }
        if let Some(node) = self.members.iter().find(|node| !view.nodes.contains_key(node)) {
            return Err(format!("{node} is no member any more"));
        }
        for (node, is_cordoned) in &self.cordoned {
            if view.nodes[node].record.cordon.is_some() != *is_cordoned {
                return Err(format!("{node} should be cordoned: {is_cordoned}"));
            }
        }
        let secrets = view.secrets.values().map(|known| (&known.id, &known.version));
        if !secrets.clone().eq(self.secrets.iter()) {
            let known: Vec<_> = secrets.collect();
            return Err(format!("the secrets are {:?}, known are {known:?}", self.secrets));
        }
        let upgrade = view.upgrade.as_ref().map_or(0, |upgrade| upgrade.number);
        if upgrade != self.upgrade {
            return Err(format!("the upgrade is {upgrade}, and was {}", self.upgrade));
        }
        for (namespace, spec) in &self.namespaces {
            if view.namespaces.get(namespace).map(|known| &known.spec) != Some(spec) {
                return Err(format!("{namespace} may have something else than was answered"));
            }
        }
        Ok(())
    }
}

impl World {
    /// Makes a node a member, if it is not; tells whether it is one now.
    pub(crate) fn join(&mut self, node: &NodeId) -> Result<bool, String> {
        if self.coordinator.store.nodes.contains_key(node) {
            return Ok(true);
        }
        let token = TokenRecord {
            id: TOKEN.to_owned(),
            secret_hash: [7; 32],
            expires: Timestamp(u64::MAX),
            uses_left: 100,
            created: self.now,
            used_by: Vec::new(),
            approval: false,
        };
        // It is there already for all but the first node; then the answer is a refusal.
        let _ = self.submit(&Command::CreateToken(token))?;
        let mut key_fingerprint = [0; 32];
        let name = node.0.as_str().as_bytes();
        key_fingerprint[..name.len()].copy_from_slice(name);
        let join = Command::Join {
            token_id: TOKEN.to_owned(),
            secret_hash: [7; 32],
            node: node.clone(),
            key_fingerprint,
        };
        match self.submit(&join)? {
            None => Ok(false),
            Some(Ok(_)) => Ok(self.coordinator.cluster.is_some()),
            Some(Err(rejection)) => Err(format!("{node} cannot join: {rejection}")),
        }
    }

    pub(crate) fn user_acts(&mut self) -> Result<(), String> {
        // In a large fleet there are more users.
        let wait = self.draw(500, 15_000 / (1 + self.agents.len() as u64 / 10));
        self.plan(wait, Happening::User);
        let command = self.wish();
        let said = match self.submit(&command)? {
            None => "nothing".to_owned(),
            Some(Ok(answer)) => format!("{answer:?}"),
            Some(Err(rejection)) => rejection.to_string(),
        };
        let asked = match command {
            Command::Deploy { spec, .. } => {
                format!("deploys {} with {} workloads", spec.name, spec.workloads.len())
            }
            other => format!("wants {other:?}"),
        };
        self.note(format_args!("a user {asked}, and hears {said}"));
        Ok(())
    }
}
