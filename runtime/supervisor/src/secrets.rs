//! The secrets which allocations of this node are granted: which values they are to have, and which are here.
//!
//! An allocation is started when the value that is meant is here. Where that cannot be had, one that it had before is
//! better than none: without its coordinator a node serves with what it knows.

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
    /// Until when it is not tried again, and why not, if the value that is meant did not come.
    failed: Option<(Timestamp, String)>,
    backoff: Backoff,
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
            let must_wait = secret.failed.as_ref().is_some_and(|(until, _)| *until > now);
            if secret.fetching != Some(wanted) && !must_wait {
                secret.fetching = Some(wanted);
                missing.push((id.clone(), wanted));
            }
        }
        missing
    }

    /// Notes that a value has come.
    pub(crate) fn fetched(&mut self, id: SecretId, version: SecretVersion) {
        // One that was forgotten meanwhile, or of which a later value is meant, is not waited for.
        let Some(secret) = self.known.get_mut(&id).filter(|secret| secret.fetching == Some(version)) else {
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
        (reason, present): (String, Option<SecretVersion>),
        now: Timestamp,
        config: &Config,
    ) {
        let Some(secret) = self.known.get_mut(id).filter(|secret| secret.fetching == Some(version)) else {
            return;
        };
        secret.fetching = None;
        secret.present = present;
        secret.failed = Some((secret.backoff.failed(now, config), reason));
    }

    /// Tells whether an allocation can be started with what is here.
    pub(crate) fn are_ready(&self, allocation: &AssignedAllocation) -> bool {
        allocation.secrets().all(|id| {
            let Some(secret) = self.known.get(&id).filter(|secret| secret.wanted.is_some()) else {
                return false;
            };
            secret.present.is_some() && (secret.present == secret.wanted || secret.failed.is_some())
        })
    }

    /// Returns why an allocation cannot be started, if it is for want of a secret.
    pub(crate) fn obstacle(&self, allocation: &AssignedAllocation) -> Option<String> {
        allocation.secrets().find_map(|id| {
            let secret = self.known.get(&id)?;
            match (secret.wanted, secret.present, &secret.failed) {
                (None, ..) => Some(format!("its secret `{id}` is not set")),
                (Some(_), None, Some((_, reason))) => {
                    Some(format!("its secret `{id}` could not be fetched: {reason}"))
                }
                _ => None,
            }
        })
    }

    /// Returns the moments at which something may be tried again.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Timestamp> {
        let failed = self.known.values().filter(|secret| secret.present != secret.wanted);
        failed.filter_map(|secret| secret.failed.as_ref().map(|(until, _)| *until))
    }
}
