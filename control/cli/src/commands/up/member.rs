//! One process of a fleet started by `dunlin up`: start, wait until ready, notice its death, end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::Deserialize;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// How long a process may take until it is ready.
const READY_TIME: Duration = Duration::from_secs(60);
/// How long a process may take to end itself when it is asked to.
/// An agent lets requests end for ten seconds, and then its workers.
const END_TIME: Duration = Duration::from_secs(16);

/// What a process writes into `ready.json` once it can be used.
#[derive(Clone, Debug, Deserialize)]
struct Ready {
    process: u32,
    #[serde(flatten)]
    addresses: BTreeMap<String, serde_json::Value>,
}

/// Makes a folder that is open to this user alone, if it is not there.
pub(super) fn private_folder(path: &Path) -> anyhow::Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("could not make the folder {}", path.display()))
}

/// One process of the fleet.
pub(super) struct Member {
    /// `coordinator` or the node's name.
    pub(super) name: String,
    /// What it is started with.
    pub(super) arguments: Vec<String>,
    folder: PathBuf,
    pause: Duration,
    child: Option<Child>,
    restart_at: Option<Instant>,
    addresses: BTreeMap<String, serde_json::Value>,
}

impl Member {
    /// Returns a member which is not yet started. It keeps its state in `folder`, and is started again `pause` after
    /// an unexpected death.
    pub(super) fn new(name: &str, folder: PathBuf, pause: Duration) -> Self {
        let (name, addresses) = (name.to_owned(), BTreeMap::new());
        Self { name, folder, arguments: Vec::new(), pause, child: None, restart_at: None, addresses }
    }

    /// Its state folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its process, while it runs.
    pub(super) fn process(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Returns one of the addresses that it said it listens on.
    pub(super) fn address(&self, key: &str) -> anyhow::Result<SocketAddr> {
        let value = self.addresses.get(key).and_then(|value| value.as_str());
        let text = value.with_context(|| format!("{} did not say its `{key}` address", self.name))?;
        text.parse().with_context(|| format!("{} said a wrong `{key}` address: {text}", self.name))
    }

    /// Returns the address to ask for: the one it had before if that is free again, else any.
    pub(super) fn wanted_address(&self, key: &str, udp: bool) -> String {
        let before = self.read_ready().and_then(|ready| ready.addresses.get(key)?.as_str()?.parse().ok());
        let free = |address: &SocketAddr| {
            if udp {
                std::net::UdpSocket::bind(address).is_ok()
            } else {
                std::net::TcpListener::bind(address).is_ok()
            }
        };
        before
            .filter(free)
            .map_or_else(|| "127.0.0.1:0".to_owned(), |address: SocketAddr| address.to_string())
    }

    /// Starts the process and waits until it says that it is ready.
    pub(super) async fn start(&mut self, environment: &[(&str, String)]) -> anyhow::Result<()> {
        self.spawn(environment)?;
        let deadline = Instant::now() + READY_TIME;
        loop {
            if let Some(ready) = self.read_ready().filter(|ready| Some(ready.process) == self.process()) {
                self.addresses = ready.addresses;
                return Ok(());
            }
            let child = self.child.as_mut().expect("it was just started");
            if let Some(status) = child.try_wait()? {
                self.child = None;
                bail!("{} ended with {status} before it was ready:\n{}", self.name, self.last_words());
            }
            if Instant::now() > deadline {
                bail!("{} was not ready within {READY_TIME:?}:\n{}", self.name, self.last_words());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn spawn(&mut self, environment: &[(&str, String)]) -> anyhow::Result<()> {
        private_folder(&self.folder)?;
        // What an earlier process wrote says nothing of this one, which may even get the same number.
        let _never_written = std::fs::remove_file(self.ready_file());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        // Itself, also after the file was replaced by a newer version.
        let mut command = Command::new("/proc/self/exe");
        command.arg0("dunlin").args(&self.arguments).arg("--end-with-stdin");
        command.envs(environment.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::from(log)).kill_on_drop(true);
        // Its own group: Ctrl-C in the terminal reaches this command alone, which ends the others in order.
        command.process_group(0);
        self.child = Some(command.spawn().with_context(|| format!("could not start {}", self.name))?);
        self.restart_at = None;
        Ok(())
    }

    /// Returns what to tell the user if the process has died or was started again since the last call.
    pub(super) fn look(&mut self) -> anyhow::Result<Option<String>> {
        if let Some(child) = self.child.as_mut() {
            let Some(status) = child.try_wait()? else { return Ok(None) };
            self.child = None;
            self.restart_at = Some(Instant::now() + self.pause);
            return Ok(Some(format!(
                "{} died ({status}); it is started again in {:?}",
                self.name, self.pause
            )));
        }
        if self.restart_at.is_some_and(|moment| moment <= Instant::now()) {
            self.spawn(&[])?;
            return Ok(Some(format!("{} is started again", self.name)));
        }
        Ok(None)
    }

    /// Asks the process to end, and ends it if it does not.
    pub(super) async fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // The end of its standard input is its order to go.
        drop(child.stdin.take());
        if tokio::time::timeout(END_TIME, child.wait()).await.is_err() {
            let _already_gone = child.kill().await;
        }
    }

    fn read_ready(&self) -> Option<Ready> {
        serde_json::from_slice(&std::fs::read(self.ready_file()).ok()?).ok()
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.join("ready.json")
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("process.log")
    }

    /// Returns the last lines of its log, for an error message.
    fn last_words(&self) -> String {
        let text = std::fs::read(self.log_file()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }
}
