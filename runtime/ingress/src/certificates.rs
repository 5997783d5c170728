//! The certificates by which clients know the services behind an ingress: read from files, and again when those change.
//!
//! A file that is wrong when it changes takes nothing away: what was read before goes on, and the log says what is
//! wrong. Chain and key are two files that change one after the other, so for a moment they may not fit.

use std::collections::HashMap;
use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use std::{fs, io};

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::router::normal_host;

/// How often it is looked whether files have changed.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// So long before its end a certificate is worth a warning,
const WARN_BEFORE: Duration = Duration::from_secs(7 * 86_400);
/// and so often.
const WARN_EVERY: Duration = Duration::from_secs(86_400);

/// Where one certificate is kept, both in PEM, as a node's config file says it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// The certificate, and after it those that lead from it to an authority which clients know.
    pub chain: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} is wrong: {reason}", path.display())]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The key is not that of the certificate.
    #[error("the key in {} is not that of the certificate in {}", key.display(), chain.display())]
    Mismatch {
        /// The file of the certificate.
        chain: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

/// The certificates of an ingress, each chosen by the name that a client asks for.
#[derive(Debug)]
pub struct Certificates {
    provider: Arc<CryptoProvider>,
    chosen: RwLock<Arc<Chosen>>,
    /// What was read of each, in the order of the operator.
    read: Mutex<Vec<Read>>,
}

/// One certificate as it was read.
#[derive(Debug)]
struct Read {
    files: CertificateFiles,
    stamps: Stamps,
    /// Whether a file could not be read when it was looked at last.
    is_unread: bool,
    certificate: Arc<Certificate>,
    warned: Option<SystemTime>,
}

#[derive(Debug)]
struct Certificate {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
    end: SystemTime,
}

/// Name → certificate. Of two with the same name the first stands.
#[derive(Debug, Default)]
struct Chosen {
    names: HashMap<String, Arc<CertifiedKey>>,
    /// For whoever asks for no name, or for one that there is none for: its client will say what it got.
    first: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads certificates from these files.
    ///
    /// # Errors
    ///
    /// One of them cannot be used.
    pub fn read(files: impl IntoIterator<Item = CertificateFiles>) -> Result<Self, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let read = |files: CertificateFiles| {
            // First, so that a file which changes meanwhile is read again.
            let stamps = Stamps::of(&files);
            let certificate = Arc::new(Certificate::read(&files, &provider)?);
            Ok(Read { files, stamps, is_unread: false, certificate, warned: None })
        };
        let read = files.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let chosen = RwLock::new(Arc::new(Chosen::of(&read)));
        Ok(Self { provider, chosen, read: Mutex::new(read) })
    }

    /// Reads files again as they change, for ever.
    pub async fn keep_current(self: Arc<Self>) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            let this = Arc::clone(&self);
            // A disk can be slow, and requests do not wait for it.
            if let Err(error) = tokio::task::spawn_blocking(move || this.look(SystemTime::now())).await {
                tracing::error!(%error, "certificates were not looked at");
            }
        }
    }

    /// Reads what has changed, and warns of what ends soon.
    fn look(&self, now: SystemTime) {
        let mut read = self.lock();
        let mut is_new = false;
        for one in read.iter_mut() {
            is_new |= one.look(&self.provider);
            one.warn(now);
        }
        if is_new {
            *self.chosen.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(Chosen::of(&read));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Read>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        self.chosen.read().unwrap_or_else(PoisonError::into_inner).choose(name)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.choose(hello.server_name())
    }
}

impl Read {
    /// Reads it again if a file has changed; tells whether there is another certificate now.
    fn look(&mut self, provider: &CryptoProvider) -> bool {
        let stamps = Stamps::of(&self.files);
        if stamps == self.stamps {
            return false;
        }
        let read = Certificate::read(&self.files, provider);
        // What could not be read may be read the next time, though nothing of it is new then.
        let is_said =
            std::mem::replace(&mut self.is_unread, matches!(read, Err(CertificateError::Read { .. })));
        if !self.is_unread {
            self.stamps = stamps;
        }
        match read {
            Err(_) if is_said && self.is_unread => false,
            Ok(certificate) => {
                let names = certificate.names.join(", ");
                tracing::info!(file = %self.files.chain.display(), %names, "a new certificate is served");
                (self.certificate, self.warned) = (Arc::new(certificate), None);
                true
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a certificate has changed and cannot be used; the one before is served"
                );
                false
            }
        }
    }

    /// Says that it ends, in time and not too often.
    fn warn(&mut self, now: SystemTime) {
        let ends_soon = self.certificate.end < now + WARN_BEFORE;
        let is_said = self.warned.is_some_and(|warned| now < warned + WARN_EVERY);
        if !ends_soon || is_said {
            return;
        }
        self.warned = Some(now);
        let file = self.files.chain.display();
        match self.certificate.end.duration_since(now) {
            Ok(left) => {
                let hours = left.as_secs() / 3600;
                tracing::warn!(%file, hours, "a certificate ends soon; put a new one into its file");
            }
            Err(_) => tracing::error!(%file, "a certificate has ended; put a new one into its file"),
        }
    }
}

impl Certificate {
    fn read(files: &CertificateFiles, provider: &CryptoProvider) -> Result<Self, CertificateError> {
        let wrong = |path: &Path, reason: &str| CertificateError::Wrong {
            path: path.to_owned(),
            reason: reason.to_owned(),
        };
        let chain = CertificateDer::pem_slice_iter(&bytes(&files.chain)?)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| wrong(&files.chain, &error.to_string()))?;
        let first = chain.first().ok_or_else(|| wrong(&files.chain, "it has no certificate in PEM"))?;
        let (_, parsed) = X509Certificate::from_der(first)
            .map_err(|_| wrong(&files.chain, "its first certificate is none of X.509"))?;
        let names = names(&parsed);
        let end = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or_default();
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(end);
        let key = PrivateKeyDer::from_pem_slice(&bytes(&files.key)?)
            .map_err(|error| wrong(&files.key, &error.to_string()))?;
        let key = provider
            .key_provider
            .load_private_key(key)
            .map_err(|error| wrong(&files.key, &error.to_string()))?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            Ok(()) => {}
            Err(rustls::Error::InconsistentKeys(_)) => {
                let CertificateFiles { chain, key } = files.clone();
                return Err(CertificateError::Mismatch { chain, key });
            }
            Err(error) => return Err(wrong(&files.chain, &error.to_string())),
        }
        Ok(Self { key: Arc::new(key), names, end })
    }
}

fn bytes(path: &Path) -> Result<Vec<u8>, CertificateError> {
    fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
}

/// Returns the DNS names that a certificate is for, in lower case.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.iter().flat_map(|names| &names.value.general_names);
    let dns = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(normal_host(name).into_owned()),
        _ => None,
    });
    dns.collect()
}

impl Chosen {
    fn of(read: &[Read]) -> Self {
        let mut chosen = Self::default();
        for Read { certificate, .. } in read {
            chosen.first.get_or_insert_with(|| Arc::clone(&certificate.key));
            for name in &certificate.names {
                chosen.names.entry(name.clone()).or_insert_with(|| Arc::clone(&certificate.key));
            }
        }
        chosen
    }

    /// Returns the certificate for exactly this name, or for all names beside it, or the first one.
    fn choose(&self, name: Option<&str>) -> Option<Arc<CertifiedKey>> {
        let by_name = name.and_then(|name| {
            let name = normal_host(name);
            let beside = || self.names.get(&format!("*.{}", name.split_once('.')?.1));
            self.names.get(&*name).or_else(beside)
        });
        by_name.or(self.first.as_ref()).cloned()
    }
}

/// By what it is seen that one of two files is another one than before.
#[derive(Debug, PartialEq, Eq)]
struct Stamps([Option<[i64; 5]>; 2]);

impl Stamps {
    fn of(files: &CertificateFiles) -> Self {
        use std::os::unix::fs::MetadataExt as _;
        let stamp =
            |it: Metadata| [it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec(), it.ino().cast_signed()];
        // Links are followed: tools change where they lead.
        Self([&files.chain, &files.key].map(|path| fs::metadata(path).ok().map(stamp)))
    }
}
