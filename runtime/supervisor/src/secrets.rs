//! The secrets which allocations of this node are granted: which values they are to have, and which are here.
//!
//! An allocation is started when the value that is meant is here. Without its coordinator a node serves with what it knows:
//! then one that it had before is better than none.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{AssignedAllocation, SecretId, SecretVersion, Timestamp};

use crate::Config;
use crate::backoff::Backoff;

/// Where the secrets stand.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    known: BTreeMap<SecretId, Secret>,
    /// Which the agent was told to keep.
    kept: BTreeSet<SecretId>,
    /// Whether it may have kept others.
    is_unsure: bool,
    /// Those that have another value since this was last asked.
    changed: BTreeSet<SecretId>,
}

#[derive(Clone, Debug, Default)]
struct Secret {
    /// The value that is meant; none if it is not set.
    wanted: Option<SecretVersion>,
    /// The value that is here.
    present: Option<SecretVersion>,
    /// The value that the agent is at.
    fetching: Option<SecretVersion>,
    /// How it went, if the value that is meant did not come.
    failed: Option<Failure>,
    backoff: Backoff,
}

#[derive(Clone, Debug)]
struct Failure {
    /// Until when it is not tried again.
    until: Timestamp,
    /// Whether there was no coordinator to ask.
    is_alone: bool,
    reason: String,
}

impl Secrets {
    /// Takes which values are meant of those secrets that are `granted` here, and forgets the others.
    pub(crate) fn want(&mut self, granted: &BTreeSet<SecretId>, meant: &BTreeMap<SecretId, SecretVersion>) {
        self.known.retain(|id, _| granted.contains(id));
        for id in granted {
            let secret = self.known.entry(id.clone()).or_default();
            let wanted = meant.get(id).copied();
            if secret.wanted != wanted {
                secret.wanted = wanted;
                secret.failed = None;
                secret.backoff.reset();
            }
        }
    }

    /// Notes that there may be secrets on the node of which nothing is known here.
    pub(crate) fn doubt(&mut self) {
        self.is_unsure = true;
    }

    /// Returns the secrets that the agent is to keep, and no others, if it has not been told so.
    pub(crate) fn news_to_keep(&mut self) -> Option<BTreeSet<SecretId>> {
        let granted = self.known.keys();
        if !std::mem::take(&mut self.is_unsure) && self.kept.iter().eq(granted.clone()) {
            return None;
        }
        self.kept = granted.cloned().collect();
        Some(self.kept.clone())
    }

    /// Returns the values that are to be fetched now.
    pub(crate) fn missing(&mut self, now: Timestamp) -> Vec<(SecretId, SecretVersion)> {
        let mut missing = Vec::new();
        for (id, secret) in &mut self.known {
            let Some(wanted) = secret.wanted.filter(|wanted| secret.present != Some(*wanted)) else {
                continue;
            };
            let must_wait = secret.failed.as_ref().is_some_and(|failed| failed.until > now);
            if secret.fetching != Some(wanted) && !must_wait {
                secret.fetching = Some(wanted);
                missing.push((id.clone(), wanted));
            }
        }
        missing
    }

    /// Notes that a value has come. Who has it already is told once more: it may have been wiped and fetched again meanwhile.
    pub(crate) fn fetched(&mut self, id: SecretId, version: SecretVersion) {
        // One that was forgotten meanwhile, or of which a later value is meant, is not waited for.
        let Some(secret) = self.known.get_mut(&id).filter(|secret| secret.wanted == Some(version)) else {
            return;
        };
        secret.fetching = None;
        secret.failed = None;
        secret.backoff.reset();
        secret.present = Some(version);
        self.changed.insert(id);
    }

    /// Returns those that have another value since this was last asked.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<SecretId> {
        std::mem::take(&mut self.changed)
    }

    /// Notes that a value did not come, and which other one is here.
    pub(crate) fn failed(
        &mut self,
        id: &SecretId,
        version: SecretVersion,
        present: Option<SecretVersion>,
        (is_alone, reason): (bool, String),
        (now, config): (Timestamp, &Config),
    ) {
        let Some(secret) = self.known.get_mut(id).filter(|secret| secret.fetching == Some(version)) else {
            return;
        };
        secret.fetching = None;
        secret.present = present;
        // It is small, and a leaked one must be out of use soon after the coordinator is back.
        let until = secret.backoff.failed(now, config).min(now.plus(config.secret_wait));
        secret.failed = Some(Failure { until, is_alone, reason });
    }

    /// Tells whether an allocation can be started with what is here.
    pub(crate) fn are_ready(&self, allocation: &AssignedAllocation) -> bool {
        allocation.secrets().all(|id| {
            let Some(secret) = self.known.get(&id).filter(|secret| secret.wanted.is_some()) else {
                return false;
            };
            let is_alone = secret.failed.as_ref().is_some_and(|failed| failed.is_alone);
            secret.present.is_some() && (secret.present == secret.wanted || is_alone)
        })
    }

    /// Returns why an allocation cannot be started, if it is for want of a secret.
    pub(crate) fn obstacle(&self, allocation: &AssignedAllocation) -> Option<String> {
        allocation.secrets().find_map(|id| {
            let secret = self.known.get(&id)?;
            match (secret.wanted, secret.present, &secret.failed) {
                (None, ..) => Some(format!("its secret `{id}` is not set")),
                (Some(wanted), present, Some(failed))
                    if present.is_none() || !failed.is_alone && present != Some(wanted) =>
                {
                    Some(format!("its secret `{id}` could not be fetched: {}", failed.reason))
                }
                _ => None,
            }
        })
    }

    /// Returns the moments at which something may be tried again.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Timestamp> {
        let failed = self.known.values().filter(|secret| secret.present != secret.wanted);
        failed.filter_map(|secret| secret.failed.as_ref().map(|failed| failed.until))
    }
}
