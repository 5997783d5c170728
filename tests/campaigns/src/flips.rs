//! One bit that a disk has turned over, in any file of a coordinator or of an agent (T5).
//!
//! Each round takes a folder as it was left, by a process that was killed or that ended in order, turns one bit over and
//! starts the process. A coordinator tells what it told before, or refuses to start and says in which file the harm is;
//! it never tells anything else. An agent serves again by itself, unless the harm is in what makes it this node.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use dunlin_api::{Client, ClientConfig, ItemsQuery, RunState, RunsQuery, StartRun};
use dunlin_harness::{Fleet, Process};
use dunlin_model::{AppSpec, NamespaceSpec, Quota};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::chance::Chance;
use crate::faults::no_panic;
use crate::kills::{app, job};
use crate::report::Report;
use crate::traffic::until_answered;

/// How many namespaces and how many revisions the store has, so that its file has more than a few pages.
const NAMESPACES: u32 = 60;
const REVISIONS: u32 = 12;
/// How many runs, and how many items each.
const RUNS: u32 = 3;
const ITEMS: u32 = 50;
/// The files with the key of an agent, and with that of a coordinator.
const KEYS: [&str; 2] = ["identity.pem", "authority.pem"];
/// What a process writes anew at each start, and what nobody reads.
const NOT_KEPT: [&str; 3] = ["process.log", "ready.json", "lock"];

/// Turns so many bits over.
pub async fn flips(rounds: u64, seed: u64) -> anyhow::Result<Report> {
    let mut scene = Scene::begin().await?;
    let mut chance = Chance::new(seed);
    // Rounds have nothing to do with each other, so all that is wrong is told at once.
    let mut wrong = Vec::new();
    for round in 1..=rounds {
        let done = match chance.below(2) {
            0 => scene.coordinator(&mut chance).await,
            _ => scene.agent(&mut chance).await,
        };
        if let Err(error) = done {
            wrong.push(format!("round {round}: {error:#}"));
        }
    }
    ensure!(wrong.is_empty(), "seed {seed}, {} of {rounds} rounds: {}", wrong.len(), wrong.join("\n"));
    Ok(scene.report)
}

/// A fleet that goes on, and folders as they were left.
struct Scene {
    fleet: Fleet,
    /// A coordinator's folder after `kill -9`, and after an end in order, and what it tells.
    coordinators: [PathBuf; 2],
    told: Value,
    /// The agent's folder after `kill -9`.
    agent: PathBuf,
    folder: TempDir,
    report: Report,
}

impl Scene {
    async fn begin() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let mut fleet = Fleet::start(1).await?;
        fill(&mut fleet).await?;
        until_answered(fleet.ingress(0), Instant::now()).await?;
        let told = tell(fleet.client()).await?;

        // What it has logged says nothing of what it will.
        let copy = |from: &Path, to: &Path| {
            copy(from, to)?;
            anyhow::Ok(std::fs::remove_file(to.join("process.log"))?)
        };
        let coordinators = ["killed", "ended"].map(|name| folder.path().join(name));
        let state = fleet.state().to_owned();
        fleet.coordinator().kill().await?;
        copy(&state, &coordinators[0])?;
        fleet.coordinator().start(&[]).await?;
        fleet.coordinator().end().await?;
        copy(&state, &coordinators[1])?;
        fleet.coordinator().start(&[]).await?;

        let agent = folder.path().join("agent");
        fleet.agent(0).kill().await?;
        copy(fleet.agent(0).folder(), &agent)?;
        let report = Report::default();
        Ok(Self { fleet, coordinators, told, agent, folder, report })
    }

    async fn coordinator(&mut self, chance: &mut Chance) -> anyhow::Result<()> {
        let left = &self.coordinators[chance.place(2)];
        let state = self.folder.path().join("coordinator");
        let _of_a_round_that_failed = std::fs::remove_dir_all(&state);
        copy(left, &state)?;
        let flipped = flip(&state, chance)?;
        let shown = state.display().to_string();
        let arguments = ["coordinator", "--state", &shown, "--fleet", "127.0.0.1:0", "--api", "127.0.0.1:0"];
        let mut process = Process::new(state.clone(), arguments.map(str::to_owned).to_vec());
        let outcome = match process.start(&[]).await {
            Ok(()) => {
                let client = client_of(left, process.address("api"))?;
                match tell(&client).await {
                    Ok(told) if told == self.told => "all is there",
                    Ok(told) => bail!("{flipped}: {} was there, {told} is told", self.told),
                    Err(error) if is_about_identity(&flipped) => {
                        ensure!(!format!("{error:#}").is_empty(), "no reason");
                        "clients are refused"
                    }
                    Err(error) => bail!("{flipped}: it started and answers {error:#}"),
                }
            }
            Err(error) => refusal(&flipped, &state, &error)?,
        };
        process.gone().await?;
        no_panic(&process.log()).with_context(|| flipped.to_string())?;
        self.count("coordinator", &flipped, outcome);
        Ok(std::fs::remove_dir_all(state)?)
    }

    async fn agent(&mut self, chance: &mut Chance) -> anyhow::Result<()> {
        self.fleet.agent(0).gone().await?;
        let state = self.fleet.agent(0).folder().to_owned();
        std::fs::remove_dir_all(&state)?;
        copy(&self.agent, &state)?;
        let flipped = flip(&state, chance)?;
        let process = self.fleet.agent(0);
        let started = process.start(&[]).await;
        let log = process.log();
        let outcome = match started {
            Ok(()) => {
                let answered = until_answered(self.fleet.ingress(0), Instant::now()).await;
                answered.with_context(|| format!("{flipped}\n{}", self.fleet.agent(0).log()))?;
                "it serves"
            }
            Err(error) if is_about_identity(&flipped) => refusal(&flipped, &state, &error)?,
            Err(error) => bail!("{flipped}: the agent does not start: {error:#}"),
        };
        self.fleet.agent(0).gone().await?;
        no_panic(&log).with_context(|| flipped.to_string())?;
        self.count("agent", &flipped, outcome);
        Ok(())
    }

    fn count(&mut self, whom: &str, flipped: &Flipped, outcome: &str) {
        // Digests and numbers say nothing.
        let is_name = |part: &&str| part.len() < 20 && !part.contains(|letter: char| letter.is_ascii_digit());
        let kind: Vec<&str> = flipped.file.iter().filter_map(|part| part.to_str()).filter(is_name).collect();
        self.report.fault(&format!("{whom}, {}: {outcome}", kind.join("/")));
    }
}

/// Which bit of which file was turned over.
struct Flipped {
    /// Below the state folder.
    file: PathBuf,
    byte: usize,
    bit: u64,
}

impl std::fmt::Display for Flipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bit {} of byte {} of {}", self.bit, self.byte, self.file.display())
    }
}

/// Turns one bit over: of the store's file now and then, which is where most would be lost, or of the file with a key, of which
/// few bits can be wrong and still be read; else of any file.
fn flip(state: &Path, chance: &mut Chance) -> anyhow::Result<Flipped> {
    let mut files = files_below(state)?;
    files.retain(|path| {
        let is_kept = path.file_name().is_some_and(|name| NOT_KEPT.iter().all(|other| name != *other));
        is_kept && path.metadata().is_ok_and(|found| found.len() > 0)
    });
    files.sort();
    let any = chance.place(files.len());
    let store = files.iter().position(|path| path.ends_with("store.redb")).filter(|_| chance.below(5) < 2);
    let has_key = |path: &PathBuf| KEYS.iter().any(|name| path.ends_with(name));
    let key = files.iter().position(has_key).filter(|_| chance.below(5) < 2);
    let path = files.get(store.or(key).unwrap_or(any)).context("a state has files")?;
    let mut bytes = std::fs::read(path)?;
    let (byte, bit) = (chance.place(bytes.len()), chance.below(8));
    bytes[byte] ^= 1 << bit;
    std::fs::write(path, bytes)?;
    Ok(Flipped { file: path.strip_prefix(state)?.to_owned(), byte, bit })
}

/// What a process says that does not start must name the file, and must be no panic.
fn refusal(flipped: &Flipped, state: &Path, error: &anyhow::Error) -> anyhow::Result<&'static str> {
    let said = format!("{error:#}");
    let parts = [Some(flipped.file.as_path()), flipped.file.parent()].into_iter().flatten();
    let named = parts
        .filter(|part| !part.as_os_str().is_empty())
        .any(|part| said.contains(&state.join(part).display().to_string()));
    ensure!(named, "{flipped}: it does not start, and does not say where the harm is: {said}");
    Ok("it says where the harm is, and does not start")
}

/// Whether the file is of those by which a process is who it is: nothing can be put in their place.
fn is_about_identity(flipped: &Flipped) -> bool {
    let names = ["identity", "ca", "authority", "keys", "admin.token", "ca.pem"];
    flipped.file.iter().any(|part| names.iter().any(|name| part == *name))
}

/// Gives a fleet something to keep.
async fn fill(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.deploy(&app()).await?;
    let client = fleet.client();
    let mut spec = job(client).await?;
    for number in 0..NAMESPACES {
        let quota = Quota { items: Some(number), ..Quota::default() };
        let namespace = NamespaceSpec { quota, ..NamespaceSpec::default() };
        client.set_namespace(&format!("space-{number}").parse()?, &namespace).await?;
    }
    for number in 0..REVISIONS {
        for workload in spec.workloads.values_mut() {
            workload.environment.insert("NUMBER".to_owned(), number.to_string());
        }
        client.deploy(&spec).await?;
    }
    for _ in 0..RUNS {
        run(client, &spec).await?;
    }
    fleet.until_running("default/campaign").await;
    Ok(())
}

async fn run(client: &Client, spec: &AppSpec) -> anyhow::Result<()> {
    let job = spec.workloads.keys().next().context("the app has a job")?;
    let wish = StartRun { items: Some(ITEMS), ..StartRun::default() };
    let run = client.start_run(&spec.name, job, &wish).await?.run;
    while client.run(run).await?.state != RunState::Completed {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Returns what a coordinator tells of what it keeps, less what changes by itself.
async fn tell(client: &Client) -> anyhow::Result<Value> {
    let mut apps = Vec::new();
    for app in client.apps().await?.apps {
        let revisions = client.revisions(&app.name).await?;
        apps.push(json!({ "app": app.name, "revision": app.revision, "revisions": revisions }));
    }
    let mut runs = Vec::new();
    for run in client.runs(&RunsQuery::default()).await?.runs {
        let items = client.run_items(run.run, &ItemsQuery::default()).await?;
        runs.push(json!({ "run": run, "items": items }));
    }
    let namespaces = client.namespaces().await?;
    let namespaces: Vec<Value> =
        namespaces.namespaces.iter().map(|found| json!([found.namespace, found.spec])).collect();
    Ok(json!({ "apps": apps, "runs": runs, "namespaces": namespaces }))
}

/// Returns a client of the coordinator at `api`, with the token and the certificate in a folder.
pub(crate) fn client_of(folder: &Path, api: SocketAddr) -> anyhow::Result<Client> {
    Ok(Client::new(ClientConfig {
        url: format!("https://{api}"),
        token: std::fs::read_to_string(folder.join("admin.token"))?.trim().to_owned(),
        authority_pem: std::fs::read_to_string(folder.join("ca.pem"))?,
    })?)
}

fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Copies a folder's files and folders, with who may read them.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let status = std::process::Command::new("cp").arg("-a").args([from, to]).status()?;
    ensure!(status.success(), "could not copy {}", from.display());
    Ok(())
}
