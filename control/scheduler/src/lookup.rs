//! A map in which things are only looked up: nobody can go over it, so that the order of its hashes decides nothing.

#![expect(
    clippy::disallowed_types,
    reason = "what varies from run to run is the order, which is not to be had here"
)]

use std::collections::HashMap;
use std::hash::Hash;

/// What is found under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lookup<K: Eq + Hash, V>(HashMap<K, V>);

impl<K: Eq + Hash, V> Default for Lookup<K, V> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Clone + Eq + Hash, V> Lookup<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.0.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.0.get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.0.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.0.remove(key)
    }

    /// Returns what is under a key, which is copied only if there was nothing.
    pub(crate) fn or_default(&mut self, key: &K) -> &mut V
    where
        V: Default,
    {
        if !self.0.contains_key(key) {
            self.0.insert(key.clone(), V::default());
        }
        self.0.get_mut(key).expect("it was there or was just inserted")
    }
}
