//! One process of a fleet under test: started from the real program, ready when it says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::process::{Child, Command};

use crate::PATIENCE;

/// Returns the path of the `dunlin` program that belongs to the running test.
///
/// # Panics
///
/// When it has not been built; `cargo x test` builds it first.
pub fn program() -> PathBuf {
    // Another one, for who wants to see whether what is wrong with it is found.
    if let Some(path) = std::env::var_os("DUNLIN_TEST_PROGRAM") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a running test has a file");
    let candidates = test.ancestors().skip(1).take(2).map(|folder| folder.join("dunlin"));
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .expect("no `dunlin` beside the tests; run them by `cargo x test`")
}

#[derive(Deserialize)]
struct Ready {
    process: u32,
    #[serde(flatten)]
    addresses: BTreeMap<String, serde_json::Value>,
}

/// One coordinator or agent.
pub struct Process {
    /// What it is started through, and that one's arguments; nothing if it is started by itself.
    through: Vec<String>,
    arguments: Vec<String>,
    folder: PathBuf,
    child: Option<Child>,
    addresses: BTreeMap<String, serde_json::Value>,
}

impl Process {
    /// Returns a process which is not yet started and keeps its state in `folder`.
    pub fn new(folder: PathBuf, arguments: Vec<String>) -> Self {
        Self { through: Vec::new(), arguments, folder, child: None, addresses: BTreeMap::new() }
    }

    /// Has it started through another program from the next start on: one that becomes it, such as `nsenter`, or lets it
    /// keep its process id, such as `strace -D`.
    pub fn start_through(&mut self, words: Vec<String>) {
        self.through = words;
    }

    /// Its state folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Returns an address which it said it listens on.
    pub fn address(&self, key: &str) -> SocketAddr {
        let text = self.addresses.get(key).and_then(|value| value.as_str()).unwrap_or_default();
        text.parse().unwrap_or_else(|_| panic!("the process says no address `{key}`: {:?}", self.addresses))
    }

    /// Replaces the value that follows `flag` in its arguments, for the next start.
    pub fn set_argument(&mut self, flag: &str, value: String) {
        let place = self.arguments.iter().position(|argument| argument == flag);
        if let Some(slot) = place.and_then(|place| self.arguments.get_mut(place + 1)) {
            *slot = value;
        }
    }

    /// Adds arguments for the next start.
    pub fn add_arguments(&mut self, more: &[&str]) {
        self.arguments.extend(more.iter().map(|&argument| argument.to_owned()));
    }

    /// Takes arguments away for the next start.
    pub fn remove_arguments(&mut self, less: &[&str]) {
        self.arguments.retain(|argument| !less.contains(&argument.as_str()));
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self, environment: &[(&str, &str)]) -> anyhow::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let _before = std::fs::remove_file(self.ready_file());
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let program = program().display().to_string();
        let mut words = self.through.iter().chain([&program]);
        let mut command = Command::new(words.next().unwrap_or(&program));
        command.args(words).args(&self.arguments).arg("--end-with-stdin").envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().context("could not start the process")?);
        let started = Instant::now();
        loop {
            let ready = std::fs::read(self.ready_file()).ok();
            let ready = ready.and_then(|bytes| serde_json::from_slice::<Ready>(&bytes).ok());
            if let Some(ready) = ready.filter(|ready| Some(ready.process) == self.id()) {
                self.addresses = ready.addresses;
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().context("it was just started")?.try_wait()? {
                bail!("the process ended with {status} before it was ready:\n{}", self.log());
            }
            if started.elapsed() > PATIENCE {
                bail!("the process was not ready within {PATIENCE:?}:\n{}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.id().context("the process does not run")?;
        kill(Pid::from_raw(id.try_into()?), signal)?;
        Ok(())
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("the process does not run")?;
        child.kill().await?;
        Ok(())
    }

    /// Kills it unless it has ended by itself, as one that is about to may do at any moment.
    pub async fn gone(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        let _has_ended = child.start_kill();
        child.wait().await?;
        Ok(())
    }

    /// Asks it to end and waits until it is gone.
    pub async fn end(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        let mut child = self.child.take().context("the process does not run")?;
        drop(child.stdin.take());
        let status = tokio::time::timeout(PATIENCE, child.wait()).await;
        Ok(status.context("the process does not end when it is asked to")??)
    }

    /// Returns everything it has logged.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log_file()).unwrap_or_default()).into_owned()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.join("process.log")
    }

    fn ready_file(&self) -> PathBuf {
        self.folder.join("ready.json")
    }
}

/// Tells whether a process still runs, rather than waiting to be reaped.
///
/// Its first thread may have ended while others have not; until the last one has, it holds its files and its ports.
pub fn is_running(process: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    threads.into_iter().any(|thread| {
        let status = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        status.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
    })
}

/// Returns the processes that `process` has started and that are not yet awaited.
pub fn children(process: u32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}
