//! Bytes by name in an object store that several coordinators share: S3 and what speaks its language, or a folder that
//! all of them see.
//!
//! Its calls block, as those of the disk do; they must not be made within an asynchronous task.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::client::{ClientOptions, HttpClient, HttpConnector};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Name;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, RetryConfig, WriteMultipart};
use tokio::runtime::Runtime;

/// How long a connection may take to be made, and how long nothing may come.
const TIME: Duration = Duration::from_secs(10);
/// How long a call is tried again before it fails.
const RETRY: Duration = Duration::from_secs(15);
/// What is larger is put in parts of this size.
const PART: usize = 8 << 20;

/// Why an object store could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// It is not said in a way that is understood.
    #[error("`{url}` is no object store: it is s3://BUCKET[/PREFIX] or file:///FOLDER")]
    Url {
        /// What was said.
        url: String,
    },
    /// It cannot be had, or refuses.
    #[error("the object store {url} failed")]
    Store {
        /// Which.
        url: String,
        /// Why.
        #[source]
        source: Box<object_store::Error>,
    },
    /// What is to be put could not be read, or what was got not be written.
    #[error("could not pass bytes on")]
    Io(#[from] io::Error),
    /// The client could not be made.
    #[error("could not set up the client of the object store: {0}")]
    Setup(String),
}

impl ObjectsError {
    /// Tells whether there is nothing under the name.
    fn is_missing(&self) -> bool {
        matches!(self, Self::Store { source, .. } if matches!(**source, object_store::Error::NotFound { .. }))
    }
}

/// An object store, or a part of one.
pub struct Objects {
    url: String,
    prefix: Name,
    store: Arc<dyn ObjectStore>,
    /// Present until it is dropped.
    runtime: Option<Runtime>,
}

impl fmt::Debug for Objects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Objects").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // Not waited for: whoever drops it may be a task, which must not block.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Objects {
    /// Opens `s3://BUCKET[/PREFIX]`, with what the environment says of it in `AWS_ENDPOINT_URL`, `AWS_REGION`,
    /// `AWS_ACCESS_KEY_ID` and the like, or `file:///FOLDER`.
    pub fn open(url: &str) -> Result<Self, ObjectsError> {
        let wrong = || ObjectsError::Url { url: url.to_owned() };
        let failed = |source| ObjectsError::Store { url: url.to_owned(), source: Box::new(source) };
        let setup = |error: &dyn fmt::Display| ObjectsError::Setup(error.to_string());
        let (store, prefix): (Arc<dyn ObjectStore>, _) = if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(wrong());
            }
            let retry = RetryConfig { retry_timeout: RETRY, ..RetryConfig::default() };
            let store = AmazonS3Builder::from_env()
                .with_bucket_name(bucket)
                .with_http_connector(Connector)
                .with_retry(retry)
                .build()
                .map_err(failed)?;
            (Arc::new(store), prefix)
        } else if let Some(folder) = url.strip_prefix("file://").filter(|folder| folder.starts_with('/')) {
            std::fs::create_dir_all(folder)?;
            (Arc::new(LocalFileSystem::new_with_prefix(folder).map_err(failed)?.with_fsync(true)), "")
        } else {
            return Err(wrong());
        };
        let prefix = Name::parse(prefix.trim_end_matches('/')).map_err(|_| wrong())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("objects")
            .enable_all()
            .build()
            .map_err(|error| setup(&error))?;
        Ok(Self { url: url.to_owned(), prefix, store, runtime: Some(runtime) })
    }

    /// Tells whether there is something under this name.
    pub(crate) fn contains(&self, name: &str) -> Result<bool, ObjectsError> {
        match self.run(self.store.head(&self.name(name))) {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Puts `length` bytes under a name, whole or not at all.
    pub(crate) fn put(&self, name: &str, mut bytes: impl Read, length: u64) -> Result<(), ObjectsError> {
        let name = self.name(name);
        if length <= PART as u64 {
            let mut whole = Vec::new();
            bytes.read_to_end(&mut whole)?;
            return self.run(self.store.put(&name, PutPayload::from(whole))).map(drop);
        }
        let mut writing =
            WriteMultipart::new_with_chunk_size(self.run(self.store.put_multipart(&name))?, PART);
        let mut piece = vec![0; PART];
        loop {
            let count = bytes.read(&mut piece)?;
            if count == 0 {
                return self.run(writing.finish()).map(drop);
            }
            // One part travels while the next is read.
            self.run(writing.wait_for_capacity(1))?;
            // Within the runtime, since it begins a task there.
            self.run(async {
                writing.write(&piece[..count]);
                Ok(())
            })?;
        }
    }

    /// Hands the bytes under a name to `take`, piece by piece; says no if there are none.
    pub(crate) fn get(
        &self,
        name: &str,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<bool, ObjectsError> {
        let mut pieces = match self.run(self.store.get(&self.name(name))) {
            Ok(found) => found.into_stream(),
            Err(error) if error.is_missing() => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        while let Some(piece) = self.run(pieces.try_next())? {
            take(&piece)?;
        }
        Ok(true)
    }

    /// Returns the names that begin with `folder`, without it.
    pub(crate) fn all(&self, folder: &str) -> Result<BTreeSet<String>, ObjectsError> {
        let found = self.run(self.store.list(Some(&self.name(folder))).try_collect::<Vec<_>>())?;
        Ok(found.into_iter().filter_map(|found| found.location.filename().map(str::to_owned)).collect())
    }

    /// Deletes what is under a name, if there is something.
    pub(crate) fn remove(&self, name: &str) -> Result<(), ObjectsError> {
        match self.run(self.store.delete(&self.name(name))) {
            Err(error) if error.is_missing() => Ok(()),
            other => other,
        }
    }

    fn name(&self, name: &str) -> Name {
        name.split('/').fold(self.prefix.clone(), |name, part| name.join(part))
    }

    fn run<T>(&self, call: impl Future<Output = object_store::Result<T>>) -> Result<T, ObjectsError> {
        let runtime = self.runtime.as_ref().expect("the runtime is there until it is dropped");
        runtime.block_on(call).map_err(|source| {
            let url = self.url.clone();
            ObjectsError::Store { url, source: Box::new(source) }
        })
    }
}

/// Makes HTTP clients that do TLS as all of Dunlin does. They believe the authorities that Mozilla does.
#[derive(Debug)]
struct Connector;

impl HttpConnector for Connector {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| object_store::Error::Generic {
            store: "S3",
            source,
        };
        let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(TIME)
            .read_timeout(TIME)
            .build();
        Ok(HttpClient::new(client.map_err(|error| failed(error.into()))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_had_back_from_a_folder_that_all_see() {
        let folder = tempfile::tempdir().unwrap();
        let objects = Objects::open(&format!("file://{}", folder.path().join("shared").display())).unwrap();
        let large: Vec<u8> = (0..PART * 2 + 5).map(|index| u8::try_from(index % 251).unwrap()).collect();
        assert!(!objects.contains("components/a").unwrap());
        objects.put("components/a", &b"hello"[..], 5).unwrap();
        objects.put("components/b", &*large, large.len() as u64).unwrap();
        let get = |name: &str| {
            let mut bytes = Vec::new();
            let found = objects.get(name, |piece| std::io::Write::write_all(&mut bytes, piece)).unwrap();
            found.then_some(bytes)
        };
        assert_eq!(get("components/a").unwrap(), b"hello");
        assert!(get("components/b").unwrap() == large);
        assert_eq!(get("components/c"), None);
        assert_eq!(objects.all("components").unwrap(), ["a".to_owned(), "b".to_owned()].into());
        assert_eq!(objects.all("inputs").unwrap(), BTreeSet::new());
        objects.remove("components/a").unwrap();
        objects.remove("components/a").unwrap();
        assert!(!objects.contains("components/a").unwrap());
    }

    #[test]
    fn other_urls_are_refused() {
        for url in ["", "s3://", "s3:///x", "file://folder", "https://bucket", "/folder", "s3://b/x//y"] {
            assert!(matches!(Objects::open(url), Err(ObjectsError::Url { .. })), "{url}");
        }
    }
}
