//! `wasi:config`: the values that the manifest gives, and no others.

use std::collections::BTreeMap;
use std::sync::Arc;

use wasmtime::component::HasData;

use crate::guest::Guest;

mod bindings {
    wasmtime::component::bindgen!({ path: "../../wit/wasi-config", world: "imports", imports: { default: tracing } });
}

pub(crate) use bindings::wasi::config::store::add_to_linker;
use bindings::wasi::config::store::{Error, Host};

/// The values of one allocation.
#[derive(Clone)]
pub(crate) struct Config(Arc<BTreeMap<String, String>>);

impl Config {
    pub(crate) fn new(values: BTreeMap<String, String>) -> Self {
        Self(Arc::new(values))
    }
}

impl HasData for Config {
    type Data<'a> = &'a mut Guest;
}

impl Host for Guest {
    fn get(&mut self, key: String) -> Result<Option<String>, Error> {
        Ok(self.granted().config.0.get(&key).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, Error> {
        let values = self.granted().config.0.iter();
        Ok(values.map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}
