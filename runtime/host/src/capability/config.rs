//! `wasi:config`: the values that the manifest gives, the secrets that it names, and nothing else.
//!
//! Secrets are got by their name and are not among all values: who writes those into a log does not mean them. Of the
//! values of its secrets an instance sees the latest, each time it asks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use dunlin_model::{SecretName, SecretValue};
use wasmtime::component::HasData;

use crate::guest::Guest;

mod bindings {
    wasmtime::component::bindgen!({ path: "../../wit/wasi-config", world: "imports", imports: { default: tracing } });
}

pub(crate) use bindings::wasi::config::store::add_to_linker;
use bindings::wasi::config::store::{Error, Host};

/// The values of the secrets of one allocation, which may become others while its instances run.
#[derive(Clone, Default)]
pub struct Secrets(Arc<RwLock<BTreeMap<SecretName, SecretValue>>>);

impl Secrets {
    pub(super) fn set(&self, values: BTreeMap<SecretName, SecretValue>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = values;
    }

    /// Lets nobody see any of them any more.
    pub fn wipe(&self) {
        self.set(BTreeMap::new());
    }

    fn get(&self, name: &SecretName) -> Option<String> {
        let values = self.0.read().unwrap_or_else(PoisonError::into_inner);
        values.get(name).map(|value| value.expose().to_owned())
    }
}

/// The values of one allocation.
#[derive(Clone)]
pub(crate) struct Config {
    values: Arc<BTreeMap<String, String>>,
    /// Which secrets it is granted, whatever its worker has.
    granted: Arc<BTreeSet<SecretName>>,
    secrets: Secrets,
}

impl Config {
    pub(super) fn new(
        values: BTreeMap<String, String>,
        granted: BTreeSet<SecretName>,
        secrets: Secrets,
    ) -> Self {
        Self { values: Arc::new(values), granted: Arc::new(granted), secrets }
    }

    fn get(&self, key: &str) -> Option<String> {
        if let Some(value) = self.values.get(key) {
            return Some(value.clone());
        }
        let name = key.parse().ok().filter(|name| self.granted.contains(name))?;
        self.secrets.get(&name)
    }
}

impl HasData for Config {
    type Data<'a> = &'a mut Guest;
}

impl Host for Guest {
    fn get(&mut self, key: String) -> Result<Option<String>, Error> {
        Ok(self.granted().config.get(&key))
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        let values = self.granted().config.values.iter();
        Ok(values.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> BTreeMap<SecretName, SecretValue> {
        let value = |text: &str| SecretValue::new(text.to_owned().into()).unwrap();
        pairs.iter().map(|(name, text)| (name.parse().unwrap(), value(text))).collect()
    }

    #[test]
    fn a_secret_is_found_by_its_name_if_it_is_granted_and_another_value_at_once() {
        let secrets = Secrets::default();
        let config = Config::new(
            [("COLOUR".to_owned(), "red".to_owned())].into(),
            ["URL".parse().unwrap()].into(),
            secrets.clone(),
        );
        assert_eq!(config.get("URL"), None);
        secrets.set(values(&[("URL", "one"), ("KEY", "not granted")]));
        assert_eq!(config.get("COLOUR").as_deref(), Some("red"));
        assert_eq!(config.get("URL").as_deref(), Some("one"));
        assert_eq!(config.get("KEY"), None);
        assert_eq!(config.get("no name"), None);
        secrets.set(values(&[("URL", "two")]));
        assert_eq!(config.get("URL").as_deref(), Some("two"));
    }
}
