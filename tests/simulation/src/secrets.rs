//! Secrets in the simulation: the coordinator gives a value to a node that runs something which reads it, the node keeps it
//! on its disk, and its workers see what they were given.
//!
//! Rules: a node is told which values are meant of what its allocations read, and of nothing else; it keeps no other;
//! nothing is started without a value of each; and in the end all that run have the latest.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AllocationId, AssignedAllocation, Assignment, NodeId, SecretId, SecretVersion};
use dunlin_scheduler::Command;
use dunlin_supervisor::{Action, Event};

use crate::agent::Agent;
use crate::random::Random;
use crate::store::Store;
use crate::world::World;

/// The secrets that there may be.
const IDS: [&str; 2] = ["team-0/KEY", "team-1/KEY"];

impl World {
    /// Returns a wish that sets a secret which is not set, so that most deploys are not refused for want of one.
    pub(crate) fn first_secret(&mut self) -> Option<Command> {
        let mut ids = IDS.iter().map(|id| id.parse::<SecretId>().expect("it is one"));
        let id = ids.find(|id| !self.coordinator.store.secrets.contains_key(id))?;
        Some(self.set_secret(id))
    }

    /// Returns what somebody wants with a secret.
    pub(crate) fn secret_wish(&mut self) -> Command {
        let id = self.random.choose(&IDS).parse().expect("it is one");
        if self.random.chance(200) { Command::DeleteSecret(id) } else { self.set_secret(id) }
    }

    /// No two values ever have the same number.
    fn set_secret(&mut self, id: SecretId) -> Command {
        self.secret_values += 1;
        Command::SetSecret { id, version: SecretVersion(self.secret_values), sealed: [].into() }
    }

    /// Carries out what a supervisor wants done about secrets.
    pub(crate) fn minds_secrets(&mut self, node: &NodeId, action: Action) -> Result<(), String> {
        let agent = self.agents.get_mut(node).expect("it is a node");
        match action {
            Action::KeepSecrets { secrets } => agent.keep_secrets(secrets),
            Action::GiveSecrets { allocation } => agent.give_secrets(allocation.id, &allocation)?,
            Action::FetchSecret { secret, version } => {
                let event = self.fetch_secret(node, secret, version);
                let wait = self.draw(5, 3_000);
                self.plan_on_node(node, wait, None, event);
            }
            other => return Err(format!("{other:?} has nothing to do with secrets")),
        }
        Ok(())
    }

    /// Returns what comes of it when an agent asks for a value.
    fn fetch_secret(&mut self, node: &NodeId, secret: SecretId, version: SecretVersion) -> Event {
        let present = self.agents[node].secrets.get(&secret).copied();
        let store = &self.coordinator.store;
        let is_current = store.secrets.get(&secret).is_some_and(|known| known.version == version);
        let reads = store.allocations.values().any(|record| {
            record.node == *node
                && record.is_assigned()
                && record.workload.namespace == secret.namespace
                && record.spec.capabilities.secrets.contains(&secret.name)
        });
        let is_given = self.coordinator.cluster.is_some()
            && self.agents[node].connection.is_some()
            && is_current
            && reads
            && !self.random.chance(self.faults.fetch_fails);
        if present == Some(version) || is_given {
            return Event::SecretFetched { secret, version };
        }
        let is_alone = self.agents[node].connection.is_none();
        Event::SecretNotFetched { secret, version, present, is_alone, reason: "simulated".to_owned() }
    }

    /// What runs has the latest values.
    pub(crate) fn check_secrets_of(&self, agent: &Agent) -> Result<(), String> {
        for (id, loaded) in &agent.loaded {
            for secret in loaded.assigned.secrets() {
                let meant = self.coordinator.store.secrets.get(&secret).map(|known| known.version);
                if meant.is_none() || loaded.secrets.get(&secret).copied() != meant {
                    let has = loaded.secrets.get(&secret);
                    return Err(format!("{id} has {has:?} of {secret}, and {meant:?} is meant"));
                }
            }
        }
        Ok(())
    }
}

impl Agent {
    /// Keeps these secrets and wipes all others.
    fn keep_secrets(&mut self, granted: BTreeSet<SecretId>) {
        self.secrets.retain(|id, _| granted.contains(id));
        self.granted = granted;
    }

    /// Keeps a value that has come; false if it may not have it any more. Agents fetch one after the other, and nobody gives
    /// them a value that is not the latest: so one that was asked for earlier never takes the place of a later one.
    pub(crate) fn keep_secret(&mut self, id: &SecretId, version: SecretVersion) -> bool {
        let may = self.granted.contains(id);
        if may {
            let kept = self.secrets.entry(id.clone()).or_insert(version);
            *kept = version.max(*kept);
        }
        may
    }

    /// Returns what an allocation is given: a value of each secret that it reads.
    pub(crate) fn secrets_for(
        &self,
        assigned: &AssignedAllocation,
    ) -> Result<BTreeMap<SecretId, SecretVersion>, String> {
        let value = |id: SecretId| match self.secrets.get(&id) {
            Some(version) => Ok((id, *version)),
            None => Err(format!("{} starts {} without its secret {id}", self.node, assigned.id)),
        };
        assigned.secrets().map(value).collect()
    }

    /// Gives an allocation the values that are there now, if it was started.
    fn give_secrets(&mut self, id: AllocationId, assigned: &AssignedAllocation) -> Result<(), String> {
        let values = self.secrets_for(assigned)?;
        if let Some(loaded) = self.loaded.get_mut(&id) {
            loaded.secrets = values;
        }
        Ok(())
    }

    /// It keeps no secret that none of its allocations reads.
    pub(crate) fn check_secrets(&self) -> Result<(), String> {
        let assigned = self.disk.iter().flat_map(|saved| &saved.allocations);
        let granted: BTreeSet<SecretId> = assigned.flat_map(AssignedAllocation::secrets).collect();
        match self.secrets.keys().find(|id| !granted.contains(*id)) {
            Some(id) => Err(format!("{} keeps the secret {id}, which nothing there reads", self.node)),
            None => Ok(()),
        }
    }
}

/// A node is told of the values of what its allocations read, and of nothing else.
pub(crate) fn check_told(store: &Store, node: &NodeId, assignment: &Assignment) -> Result<(), String> {
    let granted: BTreeSet<SecretId> =
        assignment.allocations.iter().flat_map(AssignedAllocation::secrets).collect();
    for id in &granted {
        let meant = store.secrets.get(id).map(|known| known.version);
        // One that is not set is waited for; then it was deleted while something read it, which is refused.
        if meant.is_none() || assignment.secrets.get(id).copied() != meant {
            let told = assignment.secrets.get(id);
            return Err(format!("{node} is told {told:?} of {id}, and {meant:?} is meant"));
        }
    }
    match assignment.secrets.keys().find(|id| !granted.contains(*id)) {
        Some(id) => Err(format!("{node} is told of the secret {id}, which nothing there reads")),
        None => Ok(()),
    }
}

/// Lets a workload read the secret of its namespace, now and then.
pub(crate) fn any_secrets(random: &mut Random) -> dunlin_model::Capabilities {
    let secrets = random.chance(200).then(|| "KEY".parse().expect("it is a name"));
    dunlin_model::Capabilities { secrets: secrets.into_iter().collect(), ..Default::default() }
}
