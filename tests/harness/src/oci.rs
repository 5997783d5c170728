//! A real registry of OCI artifacts, on loopback, that lets in who knows its password.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use dunlin_oci::Credentials;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::etcd::free_addresses;
use crate::toolchain::toolchain;
use crate::{PATIENCE, Place, http};

/// Who may use it, and with what.
const USER: &str = "ann";
const PASSWORD: &str = "secret";
/// What the registry keeps of that, by bcrypt.
const KEPT: &str = "ann:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
/// The same as Docker's config file has it: `ann:secret` in base 64.
const ENCODED: &str = "YW5uOnNlY3JldA==";

/// A registry.
pub struct OciRegistry {
    folder: TempDir,
    address: SocketAddr,
    child: Child,
}

impl OciRegistry {
    /// Starts one; nothing, with a word to whoever watches, where there is none on this machine.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let Some(program) = toolchain("docker-registry") else {
            #[expect(
                clippy::print_stderr,
                reason = "who runs the tests must see that something was left out"
            )]
            {
                eprintln!(
                    "skipped: there is no docker-registry on this machine; `cargo x setup` says how to get it"
                );
            }
            return Ok(None);
        };
        let folder = tempfile::Builder::new().prefix("dunlin-oci-").tempdir()?;
        let address = *free_addresses(&[Place::here()])?.first().context("one address was asked for")?;
        let path = folder.path();
        let (data, passwords) = (path.join("data"), path.join("htpasswd"));
        let config = serde_json::json!({
            "version": "0.1",
            "log": { "level": "error" },
            "storage": { "filesystem": { "rootdirectory": data } },
            "http": { "addr": address.to_string(), "secret": "of-tests" },
            "auth": { "htpasswd": { "realm": "tests", "path": passwords } },
        });
        std::fs::write(&passwords, KEPT)?;
        // What is JSON is YAML as well.
        std::fs::write(path.join("config.yml"), config.to_string())?;
        std::fs::create_dir(path.join("docker"))?;
        let auths = serde_json::json!({ "auths": { address.to_string(): { "auth": ENCODED } } });
        std::fs::write(path.join("docker/config.json"), auths.to_string())?;
        let log = std::fs::File::create(path.join("log"))?;
        let child = Command::new(program)
            .arg("serve")
            .arg(path.join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("could not start docker-registry")?;
        let mut registry = Self { folder, address, child };
        registry.wait().await?;
        Ok(Some(registry))
    }

    async fn wait(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let url = format!("http://{}/v2/", self.address);
        while http().get(&url).timeout(Duration::from_secs(2)).send().await.is_err() {
            if self.child.try_wait()?.is_some() || started.elapsed() > PATIENCE {
                let said = std::fs::read_to_string(self.folder.path().join("log"))?;
                bail!("docker-registry does not answer:\n{said}");
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Ok(())
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The folder with a config file of Docker that has the password, as `DOCKER_CONFIG` names it.
    pub fn docker_config(&self) -> PathBuf {
        self.folder.path().join("docker")
    }

    /// Returns the password.
    pub fn credentials() -> Credentials {
        Credentials { user: USER.to_owned(), password: PASSWORD.to_owned() }
    }

    /// Returns what it gives to others who ask for it by HTTP: a path below `/v2/`.
    pub async fn get(&self, path: &str) -> anyhow::Result<reqwest::Response> {
        let url = format!("http://{}/v2/{path}", self.address);
        let request = http().get(url).basic_auth(USER, Some(PASSWORD));
        let request = request.header("accept", "application/vnd.oci.image.manifest.v1+json");
        Ok(request.send().await?.error_for_status()?)
    }
}
