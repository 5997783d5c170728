//! A coordinator and some agents.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use anyhow::Context as _;
use dunlin_api::{AppStatus, Client, ClientConfig, CreateJoinToken};
use dunlin_model::AppName;
use tempfile::TempDir;

use crate::place::Place;
use crate::process::{Process, program};
use crate::wait::eventually;

/// A coordinator and some agents, each a process of its own, on loopback.
pub struct Fleet {
    folder: TempDir,
    coordinator: Process,
    agents: Vec<Process>,
    client: Client,
}

/// An app's folder: a manifest and the components it names.
pub struct App {
    folder: TempDir,
}

impl App {
    /// Makes a folder with this manifest and these files.
    pub fn new(manifest: &str, files: &[(&str, &[u8])]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        std::fs::write(folder.path().join("dunlin.toml"), manifest)
            .expect("the temporary folder can be written");
        for (name, bytes) in files {
            let path = folder.path().join(name);
            let parent = path.parent().expect("a file in a folder has a parent");
            std::fs::create_dir_all(parent).expect("the temporary folder can be written");
            std::fs::write(path, bytes).expect("the temporary folder can be written");
        }
        Self { folder }
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

pub(crate) fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

pub(crate) fn connect(coordinator: &Process) -> anyhow::Result<Client> {
    let folder = coordinator.folder();
    let config = ClientConfig {
        url: format!("https://{}", coordinator.address("api")),
        token: std::fs::read_to_string(folder.join("admin.token"))?.trim().to_owned(),
        authority_pem: std::fs::read_to_string(folder.join("ca.pem"))?,
    };
    Ok(Client::new(config)?)
}

impl Fleet {
    /// Starts a coordinator and `nodes` agents, `node-1` and so on, each with 512 MiB for guests.
    pub async fn start(nodes: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-test-").tempdir()?;
        let path = folder.path().join("coordinator");
        Self::start_at(folder, path, &[], nodes).await
    }

    /// The same, with more arguments for the coordinator.
    pub async fn start_with(more: &[&str], nodes: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-test-").tempdir()?;
        let path = folder.path().join("coordinator");
        Self::start_at(folder, path, more, nodes).await
    }

    /// The same, with the coordinator's state in a folder of the caller's choice, for instance on a disk of its own.
    pub async fn start_with_state(path: PathBuf, nodes: usize) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-test-").tempdir()?;
        Self::start_at(folder, path, &[], nodes).await
    }

    /// The same without agents, and with the coordinator at a place.
    pub async fn start_in(place: &Place) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("dunlin-test-").tempdir()?;
        let path = folder.path().join("coordinator");
        Self::start_coordinator(folder, path, &[], place).await
    }

    async fn start_at(folder: TempDir, path: PathBuf, more: &[&str], nodes: usize) -> anyhow::Result<Self> {
        let mut fleet = Self::start_coordinator(folder, path, more, &Place::here()).await?;
        for _ in 0..nodes {
            fleet.add_agent(&[]).await?;
        }
        Ok(fleet)
    }

    async fn start_coordinator(
        folder: TempDir,
        path: PathBuf,
        more: &[&str],
        place: &Place,
    ) -> anyhow::Result<Self> {
        let (state, any_port) = (path.display().to_string(), format!("{}:0", place.address()));
        let listen = ["--fleet", &any_port, "--api", &any_port];
        let arguments =
            words(&[&["coordinator", "--state", &state, "--profile", "lan"], &listen[..], more].concat());
        let mut coordinator = Process::new(path, arguments);
        coordinator.start_through(place.enter());
        coordinator.start(&[]).await?;
        // A coordinator that is started again must be found where it was.
        coordinator.set_argument("--fleet", coordinator.address("fleet").to_string());
        coordinator.set_argument("--api", coordinator.address("api").to_string());
        let client = connect(&coordinator)?;
        Ok(Self { folder, coordinator, agents: Vec::new(), client })
    }

    /// Starts one more agent, with more arguments if wanted, and returns its index.
    pub async fn add_agent(&mut self, more: &[&str]) -> anyhow::Result<usize> {
        let token = self.client.create_join_token(&CreateJoinToken::default()).await?.token;
        self.join(&token, more, &Place::here()).await
    }

    /// Starts one more agent at a place, with more arguments.
    pub async fn add_agent_at(&mut self, place: &Place, more: &[&str]) -> anyhow::Result<usize> {
        let token = self.client.create_join_token(&CreateJoinToken::default()).await?.token;
        self.join(&token, more, place).await
    }

    /// Starts one more agent with a token of the caller's.
    pub async fn add_agent_with(&mut self, token: &str) -> anyhow::Result<usize> {
        self.join(token, &[], &Place::here()).await
    }

    async fn join(&mut self, token: &str, more: &[&str], place: &Place) -> anyhow::Result<usize> {
        let node = format!("node-{}", self.agents.len() + 1);
        let path = self.folder.path().join(&node);
        let (state, coordinator) =
            (path.display().to_string(), self.coordinator.address("fleet").to_string());
        let given = ["agent", "--state", &state, "--node", &node, "--fleet", &coordinator];
        let any_port = format!("{}:0", place.address());
        let usual = [
            ["--ingress", &any_port],
            ["--endpoint", &any_port],
            ["--memory", "512MiB"],
            ["--fuel-rate", "1G/s"],
        ];
        let usual: Vec<&str> =
            usual.iter().filter(|[name, _]| !more.contains(name)).flatten().copied().collect();
        let arguments = words(&[&given[..], &usual, more].concat());
        let mut agent = Process::new(path, arguments);
        agent.start_through(place.enter());
        agent.start(&[("DUNLIN_JOIN_TOKEN", token)]).await?;
        agent.set_argument("--ingress", agent.address("ingress").to_string());
        agent.set_argument("--endpoint", agent.address("endpoint").to_string());
        self.agents.push(agent);
        Ok(self.agents.len() - 1)
    }

    /// A client with the administrator's token.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The coordinator's state folder.
    pub fn state(&self) -> &Path {
        self.coordinator.folder()
    }

    /// Where the coordinator awaits agents.
    pub fn fleet_address(&self) -> SocketAddr {
        self.coordinator.address("fleet")
    }

    /// The coordinator's process.
    pub fn coordinator(&mut self) -> &mut Process {
        &mut self.coordinator
    }

    /// An agent's process, counted from 0.
    pub fn agent(&mut self, index: usize) -> &mut Process {
        &mut self.agents[index]
    }

    /// Where the ingress of an agent listens.
    pub fn ingress(&self, index: usize) -> SocketAddr {
        self.agents[index].address("ingress")
    }

    /// A folder of this fleet, for what a test needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `dunlin` with `arguments` against this fleet and returns what it printed.
    pub async fn dunlin(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.dunlin_in(self.folder.path(), arguments).await
    }

    /// The same, in another folder.
    pub async fn dunlin_in(&self, folder: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
        self.command(folder, arguments).output().await.context("could not run dunlin")
    }

    /// Returns the command which does that, to be given more before it is run.
    pub fn command(&self, folder: &Path, arguments: &[&str]) -> tokio::process::Command {
        let state = self.coordinator.folder();
        let mut command = tokio::process::Command::new(program());
        command
            .args(arguments)
            .current_dir(folder)
            .env("DUNLIN_COORDINATOR", format!("https://{}", self.coordinator.address("api")))
            .env("DUNLIN_TOKEN_FILE", state.join("admin.token"))
            .env("DUNLIN_CA_FILE", state.join("ca.pem"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Deploys `app` with the `dunlin` program, which must succeed.
    pub async fn deploy(&self, app: &App) -> anyhow::Result<()> {
        let output = self.dunlin(&["deploy", &app.path().display().to_string()]).await?;
        anyhow::ensure!(
            output.status.success(),
            "deploy failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Waits until every service of `app` (`namespace/app`) runs all its allocations, and returns its status.
    pub async fn until_running(&self, app: &str) -> AppStatus {
        let name: AppName = app.parse().expect("a test names apps correctly");
        eventually(&format!("{app} runs"), || async {
            let status = self.client.app(&name).await.map_err(|error| error.to_string())?;
            let settled = |status: &AppStatus| {
                status.workloads.iter().all(|workload| {
                    workload.running == workload.desired
                        && workload.allocations.len() == workload.desired as usize
                        && workload
                            .allocations
                            .iter()
                            .all(|allocation| allocation.revision == status.revision)
                })
            };
            if settled(&status) { Ok(status) } else { Err(format!("{status:?}")) }
        })
        .await
    }

    /// Kills every process that is left with SIGKILL, for tests of what a power cut leaves.
    pub async fn kill_all(&mut self) {
        for process in self.agents.iter_mut().chain([&mut self.coordinator]) {
            if process.id().is_some() {
                let _already_gone = process.kill().await;
            }
        }
    }

    /// Returns the log files of all processes, for the message of a failed test.
    pub fn logs(&self) -> Vec<(PathBuf, String)> {
        let processes = self.agents.iter().chain([&self.coordinator]);
        processes.map(|process| (process.folder().to_owned(), process.log())).collect()
    }
}
