//! A real server that speaks the language of S3, on loopback, with one empty bucket.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::etcd::free_addresses;
use crate::{PATIENCE, Place, http};

/// The bucket.
const BUCKET: &str = "dunlin";
/// What the server knows its only user by.
const KEY: &str = "S3RVER";

/// A server of one bucket.
pub struct S3 {
    folder: TempDir,
    address: SocketAddr,
    endpoint: String,
    _child: Child,
}

impl S3 {
    /// Starts it. `cargo x setup` installs what it needs.
    pub async fn start() -> anyhow::Result<Self> {
        let program =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/toolchains/s3/node_modules/.bin/s3rver");
        ensure!(program.is_file(), "there is no S3 server for tests; run `cargo x setup`");
        let folder = tempfile::Builder::new().prefix("dunlin-s3-").tempdir()?;
        let address = *free_addresses(&[Place::here()])?.first().context("one address was asked for")?;
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let child = Command::new(program)
            .arg("--directory")
            .arg(folder.path())
            .args(["--address", &ip, "--port", &port, "--silent", "--no-vhost-buckets"])
            .args(["--configure-bucket", BUCKET])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("could not start the S3 server")?;
        let server = Self { folder, address, endpoint: format!("http://{address}"), _child: child };
        let started = Instant::now();
        // Anything that it says means that it is there.
        while http().get(&server.endpoint).timeout(Duration::from_secs(2)).send().await.is_err() {
            if started.elapsed() > PATIENCE {
                bail!("the S3 server on {} did not answer within {PATIENCE:?}", server.address);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Ok(server)
    }

    /// Where it is, as `--components` takes it.
    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/fleets/north")
    }

    /// What a coordinator must find in its environment to use it.
    pub fn environment(&self) -> Vec<(&str, &str)> {
        vec![
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", KEY),
        ]
    }

    /// How many files it keeps.
    pub fn files(&self) -> usize {
        fn count(folder: &Path) -> usize {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
        }
        count(self.folder.path())
    }
}
