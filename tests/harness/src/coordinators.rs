//! Several coordinators on one etcd, and some agents that know all of them.

use std::path::Path;
use std::process::{Output, Stdio};

use anyhow::Context as _;
use dunlin_api::{Client, ClientConfig, CreateJoinToken};
use tempfile::TempDir;

use crate::etcd::{Etcd, free_addresses};
use crate::fleet::{App, connect, words};
use crate::place::Place;
use crate::process::{Process, program};
use crate::wait::eventually;

/// Where each process of such a fleet runs.
pub struct Places {
    /// The members of etcd.
    pub etcd: Vec<Place>,
    /// The coordinators.
    pub coordinators: Vec<Place>,
    /// The agents.
    pub agents: Vec<Place>,
}

impl Places {
    /// Returns places for three members of etcd, so many coordinators and so many agents, all here.
    fn here(coordinators: usize, agents: usize) -> Self {
        let here = |count| vec![Place::here(); count];
        Self { etcd: here(3), coordinators: here(coordinators), agents: here(agents) }
    }
}

/// A fleet that outlives the loss of a coordinator.
pub struct Coordinators {
    folder: TempDir,
    /// The etcd below.
    pub etcd: Etcd,
    members: Vec<Process>,
    agents: Vec<Process>,
}

impl Coordinators {
    /// Starts so many coordinators on an etcd of three members, and agents `node-1` and so on; nothing where there is no
    /// etcd.
    pub async fn start(coordinators: usize, nodes: usize) -> anyhow::Result<Option<Self>> {
        Self::start_in(&Places::here(coordinators, nodes), None).await
    }

    /// The same, with what the coordinators share elsewhere than in a folder.
    pub async fn start_with(
        coordinators: usize,
        nodes: usize,
        components: (&str, &[(&str, &str)]),
    ) -> anyhow::Result<Option<Self>> {
        Self::start_in(&Places::here(coordinators, nodes), Some(components)).await
    }

    /// The same, each process at its place.
    pub async fn start_in(
        places: &Places,
        components: Option<(&str, &[(&str, &str)])>,
    ) -> anyhow::Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("dunlin-test-").tempdir()?;
        // Who is not on the same machine is spoken to under certificates only.
        let is_closed = places.etcd.iter().any(|place| !place.address().is_loopback());
        let file = |name: &str| folder.path().join(name).display().to_string();
        let certificates =
            [("--etcd-ca", "ca.pem"), ("--etcd-cert", "client.pem"), ("--etcd-key", "client.key")];
        let certificates: Vec<String> =
            certificates.into_iter().flat_map(|(flag, name)| [flag.to_owned(), file(name)]).collect();
        if is_closed {
            Etcd::make_certificates(folder.path(), &places.etcd)?;
        }
        let Some(etcd) = Etcd::start_at(&places.etcd, is_closed.then_some(folder.path())).await? else {
            return Ok(None);
        };
        let shared = format!("file://{}", folder.path().join("shared").display());
        let (shared, environment) = components.unwrap_or((&shared, &[]));
        let url = etcd.url();
        let mut members = Vec::new();
        // Who is not in charge any more starts itself again, and must be found where it was.
        let apis = free_addresses(&places.coordinators)?;
        let fleets = free_addresses(&places.coordinators)?;
        for (index, place) in places.coordinators.iter().enumerate() {
            let number = index + 1;
            let [fleet, api] = [fleets[index].to_string(), apis[index].to_string()];
            let path = folder.path().join(format!("coordinator-{number}"));
            let state = path.display().to_string();
            let arguments = words(&[
                "coordinator",
                "--state",
                &state,
                "--profile",
                "lan",
                "--fleet",
                &fleet,
                "--api",
                &api,
                "--store",
                &url,
                "--components",
                shared,
            ]);
            let own = certificates.iter().filter(|_| is_closed).cloned();
            let mut member = Process::new(path, arguments.into_iter().chain(own).collect());
            member.start_through(place.enter());
            member.start(environment).await?;
            members.push(member);
        }
        let mut fleet = Self { folder, etcd, members, agents: Vec::new() };
        for place in &places.agents {
            fleet.add_agent_at(place).await?;
        }
        Ok(Some(fleet))
    }

    /// Starts one more agent.
    pub async fn add_agent(&mut self) -> anyhow::Result<()> {
        self.add_agent_at(&Place::here()).await
    }

    async fn add_agent_at(&mut self, place: &Place) -> anyhow::Result<()> {
        let any_port = format!("{}:0", place.address());
        let token = self.client()?.create_join_token(&CreateJoinToken::default()).await?.token;
        let node = format!("node-{}", self.agents.len() + 1);
        let path = self.folder.path().join(&node);
        let state = path.display().to_string();
        let coordinators: Vec<String> =
            self.members.iter().map(|member| member.address("fleet").to_string()).collect();
        let arguments = words(&[
            "agent",
            "--state",
            &state,
            "--node",
            &node,
            "--fleet",
            &coordinators.join(","),
            "--ingress",
            &any_port,
            "--endpoint",
            &any_port,
            "--memory",
            "512MiB",
            "--fuel-rate",
            "1G/s",
        ]);
        let mut agent = Process::new(path, arguments);
        agent.start_through(place.enter());
        agent.start(&[("DUNLIN_JOIN_TOKEN", &token)]).await?;
        agent.set_argument("--ingress", agent.address("ingress").to_string());
        agent.set_argument("--endpoint", agent.address("endpoint").to_string());
        self.agents.push(agent);
        Ok(())
    }

    /// Where the APIs of all coordinators are, as `--coordinator` takes it.
    pub fn urls(&self) -> String {
        let urls = self.members.iter().map(|member| format!("https://{}", member.address("api")));
        urls.collect::<Vec<_>>().join(",")
    }

    /// A client that knows all coordinators.
    pub fn client(&self) -> anyhow::Result<Client> {
        let folder = self.members.first().context("there is a coordinator")?.folder();
        Ok(Client::new(ClientConfig {
            url: self.urls(),
            token: std::fs::read_to_string(folder.join("admin.token"))?.trim().to_owned(),
            authority_pem: std::fs::read_to_string(folder.join("ca.pem"))?,
        })?)
    }

    /// A client of one coordinator, counted from 0.
    pub fn client_of(&self, index: usize) -> anyhow::Result<Client> {
        connect(&self.members[index])
    }

    /// A coordinator's process, counted from 0.
    pub fn coordinator(&mut self, index: usize) -> &mut Process {
        &mut self.members[index]
    }

    /// Everything a coordinator has logged, for the message of a failed test.
    pub fn log_of(&self, index: usize) -> String {
        self.members[index].log()
    }

    /// Everything an agent has logged, for the message of a failed test.
    pub fn log_of_agent(&self, index: usize) -> String {
        self.agents[index].log()
    }

    /// An agent's process, counted from 0.
    pub fn agent(&mut self, index: usize) -> &mut Process {
        &mut self.agents[index]
    }

    /// Waits until one of the coordinators is in charge, other than `not`, and returns which.
    pub async fn in_charge(&self, not: Option<usize>) -> usize {
        eventually("another coordinator is in charge", async || {
            let client = self.client().map_err(|error| error.to_string())?;
            let status = client.status().await.map_err(|error| error.to_string())?;
            let address = status.in_charge.unwrap_or_default();
            let found = self.members.iter().position(|member| member.address("api").to_string() == address);
            found.filter(|found| Some(*found) != not).ok_or(address)
        })
        .await
    }

    /// Runs `dunlin` with `arguments` against this fleet and returns what it printed.
    pub async fn dunlin(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let folder = self.members.first().context("there is a coordinator")?.folder();
        let mut command = tokio::process::Command::new(program());
        command
            .args(arguments)
            .current_dir(self.folder.path())
            .env("DUNLIN_COORDINATOR", self.urls())
            .env("DUNLIN_TOKEN_FILE", folder.join("admin.token"))
            .env("DUNLIN_CA_FILE", folder.join("ca.pem"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command.output().await.context("could not run dunlin")
    }

    /// Deploys `app` with the `dunlin` program, which must succeed.
    pub async fn deploy(&self, app: &App) -> anyhow::Result<()> {
        let output = self.dunlin(&["deploy", &app.path().display().to_string()]).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "deploy failed: {said}");
        Ok(())
    }

    /// A folder of this fleet, for what a test needs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}
