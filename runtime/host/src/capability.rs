//! What one allocation is granted, opened: the part of a worker's rights that its guests see.
//!
//! [`Access`] is what a worker has at all; [`Granted`] is what of it one allocation's manifest asks for. Each file
//! below is one capability.

mod config;
mod files;
mod folders;
mod outbound;
mod outbound_http;
mod quota;
mod scratch;
mod sockets;

pub use self::config::Secrets;
pub(crate) use self::config::{Config, add_to_linker as add_config_to_linker};
pub(crate) use self::files::{Files, FilesView};
pub use self::folders::OfferedFolder;
pub(crate) use self::folders::Opened;
pub use self::outbound::{ConnectFailure, Connecting, Connector, Resolving, Using, Wanted};
pub(crate) use self::outbound_http::OutboundHttp;
pub use self::outbound_http::{Answering, CallBody, Callee, Calling, call_body};
pub(crate) use self::sockets::{Names, SocketsView, is_open_socket};

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::component::Linker;
use wasmtime_wasi::p2::bindings::{filesystem, sockets as wasi_sockets};

use dunlin_model::{AllocationId, AssignedAllocation, Limits, Name, SecretName, SecretValue};

use self::folders::Folders;
use self::outbound::{GrantedOutbound, Outbound, Tls};
use self::scratch::ScratchBase;
use self::sockets::Sockets;
use crate::guest::Guest;

/// Puts counted files in place of wasmtime's own.
pub(crate) fn add_files_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    filesystem::preopens::add_to_linker::<Guest, Files>(linker, Guest::files)?;
    filesystem::types::add_to_linker::<Guest, Files>(linker, Guest::files)
}

/// Puts sockets which somebody else connects in place of wasmtime's own. What is about UDP stays, and is refused.
pub(crate) fn add_sockets_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasi_sockets::tcp::add_to_linker::<Guest, Sockets>(linker, Guest::sockets)?;
    wasi_sockets::tcp_create_socket::add_to_linker::<Guest, Sockets>(linker, Guest::sockets)?;
    wasi_sockets::ip_name_lookup::add_to_linker::<Guest, Sockets>(linker, Guest::sockets)
}

/// What a worker can give its guests, if they are granted it.
pub struct Access {
    /// By whom connections are made.
    connector: Option<Arc<dyn Connector>>,
    tls: Arc<Tls>,
    folders: Folders,
    scratch: Option<PathBuf>,
    /// Of each allocation that was given some.
    secrets: Mutex<BTreeMap<AllocationId, Secrets>>,
}

/// Why an allocation cannot have what it is granted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// The node's operator does not offer the folder.
    #[error(
        "this node offers no folder `{folder}`; its operator can, by `[folders.{folder}]` in the node's config"
    )]
    NotOffered {
        /// Which.
        folder: Name,
    },
    /// The folder is offered for reading only.
    #[error("this node offers the folder `{folder}` for reading only; grant it without `writable = true`")]
    NotWritable {
        /// Which.
        folder: Name,
    },
    /// The folder is offered and cannot be used.
    #[error("the folder `{folder}` of this node cannot be used: {reason}")]
    Unusable {
        /// Which.
        folder: Name,
        /// Why not.
        reason: String,
    },
    /// This host has no place for scratch folders.
    #[error("this node has no place for scratch folders")]
    NoScratch,
}

impl Access {
    /// Returns access to nothing: no connections, no folders, no scratch.
    pub fn none() -> Self {
        let (tls, folders, secrets) = Default::default();
        Self { connector: None, tls, folders, scratch: None, secrets }
    }

    /// Has connections made by `connector`. `authorities` are certificates in PEM whose servers are trusted in
    /// addition to those of the public.
    #[must_use]
    pub fn connector(mut self, connector: Arc<dyn Connector>, authorities: Vec<u8>) -> Self {
        self.connector = Some(connector);
        self.tls = Arc::new(Tls::new(authorities));
        self
    }

    /// Offers `folders`.
    #[must_use]
    pub fn folders(mut self, folders: BTreeMap<Name, OfferedFolder>) -> Self {
        self.folders = Folders::new(folders);
        self
    }

    /// Puts scratch folders below `base`, which is this worker's alone.
    #[must_use]
    pub fn scratch(mut self, base: PathBuf) -> Self {
        self.scratch = Some(base);
        self
    }

    /// Lets the instances of an allocation that is about to be loaded see these secrets.
    pub fn give_secrets(&self, allocation: AllocationId, values: BTreeMap<SecretName, SecretValue>) {
        let secrets = Secrets::default();
        secrets.set(values);
        self.secrets().insert(allocation, secrets);
    }

    /// Lets the instances of an allocation that was loaded see these secrets from now on, those that run as well.
    pub fn change_secrets(&self, allocation: AllocationId, values: BTreeMap<SecretName, SecretValue>) {
        if let Some(secrets) = self.secrets().get(&allocation) {
            secrets.set(values);
        }
    }

    /// Returns the secrets of an allocation that ends, to be wiped when nothing of it runs any more.
    pub fn take_secrets(&self, allocation: AllocationId) -> Secrets {
        self.secrets().remove(&allocation).unwrap_or_default()
    }

    fn config(&self, allocation: &AssignedAllocation) -> Config {
        let capabilities = &allocation.spec.capabilities;
        let secrets = self.secrets().get(&allocation.id).cloned().unwrap_or_default();
        Config::new(capabilities.config.clone(), capabilities.secrets.clone(), secrets)
    }

    fn secrets(&self) -> MutexGuard<'_, BTreeMap<AllocationId, Secrets>> {
        self.secrets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens what `allocation` is granted.
    pub fn grant(&self, allocation: &AssignedAllocation, limits: &Limits) -> Result<Granted, NotGranted> {
        let capabilities = &allocation.spec.capabilities;
        let outbound = match &self.connector {
            Some(connector) if !capabilities.outbound_http.is_empty() || !capabilities.sockets.is_empty() => {
                let granted = GrantedOutbound {
                    workload: allocation.workload.clone(),
                    capabilities: capabilities.clone(),
                    connector: Arc::clone(connector),
                    tls: Arc::clone(&self.tls),
                };
                Outbound::granted(allocation.id, limits, granted)
            }
            _ => Outbound::denied(allocation.id, limits),
        };
        let scratch = match (&capabilities.scratch, &self.scratch) {
            (None, _) => None,
            (Some(_), None) => return Err(NotGranted::NoScratch),
            (Some(path), Some(base)) => {
                Some(ScratchBase::new(path.clone(), base, allocation.id, limits.scratch))
            }
        };
        Ok(Granted {
            outbound: Arc::new(outbound),
            config: self.config(allocation),
            folders: self.folders.open(&capabilities.folders)?,
            scratch,
        })
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::none()
    }
}

/// What one allocation is granted. Its instances share it.
pub struct Granted {
    pub(crate) outbound: Arc<Outbound>,
    pub(crate) config: Config,
    pub(crate) folders: Vec<Opened>,
    pub(crate) scratch: Option<ScratchBase>,
}

impl Granted {
    /// Returns how often its limits were hit in what goes on beside the instances themselves.
    pub fn limit_hits(&self) -> BTreeMap<&'static str, u64> {
        let mut hits = self.outbound.hits.all();
        let refused = self.scratch.as_ref().map_or(0, ScratchBase::refused);
        if refused > 0 {
            hits.insert("scratch", refused);
        }
        hits
    }
}
