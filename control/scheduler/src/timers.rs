//! Who is to be looked at when, soonest first.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::Timestamp;

/// Who is to be looked at when: each at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Timers<K> {
    due: BTreeMap<K, Timestamp>,
    order: BTreeSet<(Timestamp, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { due: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Timers<K> {
    /// Has `key` looked at then, and not at another moment.
    pub(crate) fn set(&mut self, key: &K, at: Timestamp) {
        if let Some(before) = self.due.insert(key.clone(), at) {
            self.order.remove(&(before, key.clone()));
        }
        self.order.insert((at, key.clone()));
    }

    /// Has `key` looked at then, unless it is before.
    pub(crate) fn set_at_latest(&mut self, key: &K, at: Timestamp) {
        if self.due.get(key).is_none_or(|due| *due > at) {
            self.set(key, at);
        }
    }

    /// Has `key` looked at no more.
    pub(crate) fn clear(&mut self, key: &K) {
        if let Some(before) = self.due.remove(key) {
            self.order.remove(&(before, key.clone()));
        }
    }

    /// Tells whether `key` is to be looked at.
    pub(crate) fn has(&self, key: &K) -> bool {
        self.due.contains_key(key)
    }

    /// Returns the first moment at which somebody is to be looked at.
    pub(crate) fn first(&self) -> Option<Timestamp> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes out who is to be looked at now, one after the other.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<K> {
        if self.first()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.due.remove(&key);
        Some(key)
    }
}
