//! One system call that fails, or that the process does not survive: at the n-th write, sync, rename, ... of a coordinator
//! or of an agent, by `strace` (T5). Or the same at a fault point, a moment that has a name in the program.
//!
//! A ledger writes and a client asks all the time. Each fault meets one process in the midst of that, or at its very
//! first start. Whatever it did to the process: none may panic, and started again without faults it must be there with
//! all that was acknowledged.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use dunlin_api::{Client, CreateJoinToken, NodeState};
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{Fleet, Process};
use dunlin_model::{AppName, AppSpec, Digest, Manifest};
use dunlin_planted::Point;
use tempfile::TempDir;

use crate::chance::Chance;
use crate::flips::client_of;
use crate::kills::{app, job};
use crate::ledger::Ledger;
use crate::report::Report;
use crate::tails::tails_of;
use crate::traffic::Traffic;

/// How long a process is given to come to the call that fails.
const REACH: Duration = Duration::from_secs(6);
/// How long it goes on after that, for what comes of it.
const AFTER: Duration = Duration::from_millis(150);
/// How long it may take until all is well again.
const PATIENCE: Duration = Duration::from_secs(60);

/// System calls that are alike, and how many of them there are at most until one fails, with each that it may meet.
const CALLS: [(&str, [u64; 4]); 6] = [
    ("pwrite64", [400, 0, 60, 0]),
    ("fsync,fdatasync", [120, 20, 20, 6]),
    ("rename,renameat,renameat2", [4, 8, 4, 4]),
    ("ftruncate,fallocate", [6, 0, 6, 0]),
    ("mkdir,mkdirat,unlink,unlinkat,link,linkat", [8, 8, 8, 8]),
    // Made for other reasons too: nothing but the end of the process is what a disk or a machine could do here.
    (MOMENTS, [2000, 600, 100, 100]),
];
/// The end of the process, as strace takes it.
const KILL: &str = "signal=KILL";
/// How often a fault point is tried that the process does not come to by chance.
const TRIES: u64 = 4;
/// What may happen at a fault point.
const POINT_HARMS: [&str; 3] = ["kill", "error", "sleep"];
const MOMENTS: &str = "write,writev,sendmsg,sendto,openat,close";

/// Does harm so often, each time at another call as chance has it.
pub async fn faults(rounds: u64, seed: u64) -> anyhow::Result<Report> {
    let can_trace = Command::new("strace").args(["-D", "true"]).stderr(Stdio::null()).status();
    ensure!(can_trace.is_ok_and(|status| status.success()), "there is no strace, or it may not trace here");
    harm(rounds, seed, 1, |_, chance| Fault::draw(chance)).await
}

/// Does harm so often at the fault points of the program, which has to have them: at each with each kind of harm, one after
/// the other, the first or a later time that it is reached.
pub async fn points(rounds: u64, seed: u64) -> anyhow::Result<Report> {
    ensure!(
        std::env::var_os("DUNLIN_TEST_PROGRAM").is_some(),
        "there is no program with fault points; `cargo x teeth` builds one"
    );
    let all = usize::try_from(rounds)?;
    let report = harm(rounds, seed, TRIES, |round, chance| {
        let (points, harms) = (Point::ALL.len(), POINT_HARMS.len());
        let number = usize::try_from(round - 1).unwrap_or_default();
        let point = Point::ALL[number % points];
        Fault::at(point, POINT_HARMS[(number / points) % harms], chance)
    })
    .await?;
    let reached = report.faults.iter().filter(|(kind, _)| !kind.starts_with("not reached"));
    let reached: std::collections::BTreeSet<&str> =
        reached.filter_map(|(kind, _)| kind.split(": ").nth(1)).collect();
    // Once round, a point that is never reached is one that nobody would miss.
    let missing = Point::ALL.iter().filter(|point| !reached.contains(point.name()));
    let missing: Vec<&str> = missing.map(|point| point.name()).collect();
    ensure!(all < Point::ALL.len() * POINT_HARMS.len() || missing.is_empty(), "never reached: {missing:?}");
    Ok(report)
}

/// Does harm so often, each time as `draw` says; again if the process does not come there, so often at most.
async fn harm(
    rounds: u64,
    seed: u64,
    tries: u64,
    mut draw: impl FnMut(u64, &mut Chance) -> Fault,
) -> anyhow::Result<Report> {
    let mut scene = Scene::begin().await?;
    let mut chance = Chance::new(seed);
    let mut number = 0;
    for round in 1..=rounds {
        for _ in 0..tries {
            let fault = draw(round, &mut chance);
            number += 1;
            let done = scene.round(number, &fault).await;
            let told = || format!("seed {seed}, round {round}: {fault:?}\n{}", tails_of(&scene.fleet));
            if done.with_context(told)? {
                break;
            }
        }
    }
    scene.end().await
}

/// Whom a fault meets.
#[derive(Clone, Copy, Debug)]
enum Whom {
    Coordinator,
    Agent,
    /// A coordinator that is started for the first time.
    NewCoordinator,
    /// An agent that joins a fleet.
    NewAgent,
}

#[derive(Debug)]
struct Fault {
    whom: Whom,
    place: Place,
    /// What happens there, as strace takes it, or the program itself.
    harm: &'static str,
}

/// Where a fault is met.
#[derive(Debug)]
enum Place {
    Calls {
        calls: &'static str,
        /// At which of the calls, as strace takes it.
        when: String,
    },
    Point {
        point: Point,
        /// At which time that it is reached.
        number: u64,
    },
}

impl Fault {
    fn draw(chance: &mut Chance) -> Self {
        let whom = match chance.below(10) {
            0..=3 => Whom::Coordinator,
            4..=6 => Whom::Agent,
            7 | 8 => Whom::NewCoordinator,
            _ => Whom::NewAgent,
        };
        let [coordinator, agent, new_coordinator, new_agent] = [0, 1, 2, 3];
        let column = match whom {
            Whom::Coordinator => coordinator,
            Whom::Agent => agent,
            Whom::NewCoordinator => new_coordinator,
            Whom::NewAgent => new_agent,
        };
        let possible: Vec<(&str, u64)> =
            CALLS.iter().map(|(calls, most)| (*calls, most[column])).filter(|(_, most)| *most > 0).collect();
        let (calls, most) = chance.one_of(&possible);
        // The first calls are the most various.
        let range = 1 + chance.below(most);
        let first = 1 + chance.below(range);
        let (harm, when) = match chance.below(6) {
            _ if calls == MOMENTS => (KILL, first.to_string()),
            0 | 1 => (KILL, first.to_string()),
            2 => ("error=EIO", first.to_string()),
            3 => ("error=EIO", format!("{first}+")),
            4 => ("error=ENOSPC", format!("{first}..{}", first + 8)),
            _ => ("error=ENOSPC", format!("{first}+")),
        };
        Self { whom, place: Place::Calls { calls, when }, harm }
    }

    /// Returns one at a fault point, in a process that comes there.
    fn at(point: Point, harm: &'static str, chance: &mut Chance) -> Self {
        let (whom, most) = match point {
            Point::StoreCreateRename => (Whom::NewCoordinator, 1),
            Point::StateRename => (Whom::NewCoordinator, 4),
            Point::StoreBegin | Point::StoreBeforeCommit | Point::StoreAfterCommit => (Whom::Coordinator, 20),
            Point::ApiBeforeAck | Point::ApiAfterAck | Point::AckBeforeRecord => (Whom::Coordinator, 20),
            Point::DispatchBeforeSend
            | Point::DispatchAfterSend
            | Point::TermBeforePersist
            | Point::BackupMid => (Whom::Coordinator, 1),
            Point::SnapshotWrite | Point::SnapshotRename => (Whom::Agent, 2),
            Point::AgentBeforeStart | Point::AgentAfterStart => (Whom::Agent, 3),
            Point::AgentBeforeStop
            | Point::PullMidStream
            | Point::PullBeforeVerify
            | Point::PullBeforeRename
            | Point::CompileSpawn
            | Point::CertBeforeSwap
            | Point::CertAfterSwap => (Whom::Agent, 1),
        };
        Self { whom, place: Place::Point { point, number: 1 + chance.below(most) }, harm }
    }

    /// The words that have a program meet this fault, which is noted in a file.
    fn words(&self, noted: &Path) -> Vec<String> {
        let noted = noted.display().to_string();
        let harm = self.harm;
        let (calls, when) = match &self.place {
            Place::Calls { calls, when } => (calls, when),
            Place::Point { point, number } => {
                let fault = format!("DUNLIN_FAULT={}:{harm}:{number}", point.name());
                return vec!["env".to_owned(), fault, format!("DUNLIN_FAULT_NOTED={noted}")];
            }
        };
        let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:{harm}:when={when}"));
        // The tracer stands aside, so that the process is the child of who starts it.
        let words = ["strace", "-D", "-f", "-q", "-o", &noted, "-e", &trace, "-e", &inject];
        // That it looks at no other calls makes it fast, and cannot be had with signals.
        let fast = (harm != KILL).then_some("--seccomp-bpf");
        words.into_iter().chain(fast).map(str::to_owned).collect()
    }

    fn kind(&self) -> String {
        let (whom, harm) = (self.whom, self.harm);
        let (calls, when) = match &self.place {
            Place::Calls { calls, when } => (calls, when),
            Place::Point { point, .. } => return format!("{harm} at: {}: {whom:?}", point.name()),
        };
        let calls = calls.split(',').next().unwrap_or_default();
        let lasts = if when.contains(['+', '.']) { " for long" } else { "" };
        format!("{whom:?}, {calls}: {harm}{lasts}")
    }
}

/// The fleet, and who watches it.
struct Scene {
    fleet: Fleet,
    /// Without work, for agents that join.
    yard: Fleet,
    ledger: Ledger,
    traffic: Traffic,
    /// An app of which every deploy has another component.
    growing: AppName,
    /// The last of its deploys that was acknowledged, and the last that was attempted.
    deployed: [u64; 2],
    folder: TempDir,
    report: Report,
    /// How much of each log was looked at.
    read: std::collections::BTreeMap<PathBuf, usize>,
}

impl Scene {
    async fn begin() -> anyhow::Result<Self> {
        // Certificates that are soon half over, so that renewing them is part of it.
        let fleet = Fleet::start_with(&["--node-certificates", "20s"], 1).await?;
        let yard = Fleet::start(0).await?;
        fleet.deploy(&app()).await?;
        let spec = job(fleet.client()).await?;
        let traffic = Traffic::start(fleet.ingress(0));
        traffic.may_fail();
        traffic.until_answered(Instant::now()).await?;
        let ledger = Ledger::start(fleet.client(), spec);
        Ok(Self {
            fleet,
            yard,
            ledger,
            traffic,
            growing: "default/growing".parse()?,
            deployed: [0; 2],
            folder: TempDir::new()?,
            report: Report::default(),
            read: std::collections::BTreeMap::new(),
        })
    }

    /// Tells whether harm was done.
    async fn round(&mut self, round: u64, fault: &Fault) -> anyhow::Result<bool> {
        let noted = self.folder.path().join("noted");
        let _before = std::fs::remove_file(&noted);
        let words = fault.words(&noted);
        let came = match fault.whom {
            Whom::Coordinator => self.coordinator(words, &noted, round).await?,
            Whom::Agent => self.agent(words, &noted, round).await?,
            Whom::NewCoordinator => self.new_coordinator(words, &noted, round).await?,
            Whom::NewAgent => self.new_agent(words, &noted, round).await?,
        };
        let kind = if came { fault.kind() } else { format!("not reached: {}", fault.kind()) };
        self.report.fault(&kind);
        self.traffic.check()?;
        self.none_panicked()?;
        Ok(came)
    }

    /// A coordinator that has work to do.
    async fn coordinator(&mut self, words: Vec<String>, noted: &Path, round: u64) -> anyhow::Result<bool> {
        let process = self.fleet.coordinator();
        process.kill().await?;
        process.start_through(words);
        let started = process.start(&[]).await;
        let reached = until_reached(noted);
        if started.is_ok() {
            let work = grow(self.fleet.client().clone(), self.growing.clone(), round);
            self.deployed[1] += 1;
            let (done, ()) = tokio::join!(tokio::time::timeout(REACH, work), reached);
            if let Ok(Ok(revision)) = done {
                self.deployed[0] = self.deployed[0].max(revision);
            }
        }
        let came = was_reached(noted);
        let since = Instant::now();
        let process = self.fleet.coordinator();
        process.start_through(Vec::new());
        process.gone().await?;
        // Compared before anybody writes again: what is lost is of the last moment.
        self.ledger.hold();
        process.start(&[]).await?;
        self.ledger.check(self.fleet.client()).await?;
        self.ledger.go_on();
        self.until_acknowledged(since).await?;
        self.report.recovered("coordinator started again, until a write is acknowledged", since.elapsed());
        self.check_growing(round).await?;
        Ok(came)
    }

    /// An agent that gets something new to run.
    async fn agent(&mut self, words: Vec<String>, noted: &Path, round: u64) -> anyhow::Result<bool> {
        self.traffic.may_fail();
        let process = self.fleet.agent(0);
        process.kill().await?;
        process.start_through(words);
        let started = process.start(&[]).await;
        self.deployed[1] += 1;
        let revision = grow(self.fleet.client().clone(), self.growing.clone(), round).await?;
        self.deployed[0] = revision;
        if started.is_ok() {
            until_reached(noted).await;
        }
        let came = was_reached(noted);
        let since = Instant::now();
        let process = self.fleet.agent(0);
        process.start_through(Vec::new());
        process.gone().await?;
        process.start(&[]).await?;
        self.traffic.until_answered(since).await?;
        self.report.recovered("agent started again, until a request is answered", since.elapsed());
        self.until_growing_runs(since).await?;
        Ok(came)
    }

    /// A coordinator's first start, and its second one.
    async fn new_coordinator(&self, words: Vec<String>, noted: &Path, round: u64) -> anyhow::Result<bool> {
        let folder = self.folder.path().join(format!("coordinator-{round}"));
        let state = folder.display().to_string();
        let arguments = ["coordinator", "--state", &state, "--fleet", "127.0.0.1:0", "--api", "127.0.0.1:0"];
        let mut process = Process::new(folder.clone(), arguments.map(str::to_owned).to_vec());
        process.start_through(words);
        let _may_fail = process.start(&[]).await;
        let came = settled(noted).await;
        process.start_through(Vec::new());
        process.gone().await?;
        process.start(&[]).await.context("a coordinator whose first start failed does not start")?;
        let client = client_of(&folder, process.address("api"))?;
        client.status().await.context("nobody can use the coordinator")?;
        process.kill().await?;
        no_panic(&process.log())?;
        std::fs::remove_dir_all(folder)?;
        Ok(came)
    }

    /// An agent that joins, and does so again.
    async fn new_agent(&self, words: Vec<String>, noted: &Path, round: u64) -> anyhow::Result<bool> {
        let node = format!("node-{round}");
        let folder = self.folder.path().join(&node);
        let (state, fleet) = (folder.display().to_string(), self.yard.fleet_address().to_string());
        let given = ["agent", "--state", &state, "--node", &node, "--fleet", &fleet];
        let more = ["--ingress", "127.0.0.1:0", "--endpoint", "127.0.0.1:0"];
        let capacity = ["--memory", "512MiB", "--fuel-rate", "1G/s"];
        let arguments = [&given[..], &more, &capacity].concat().into_iter().map(str::to_owned).collect();
        let token = self.yard.client().create_join_token(&CreateJoinToken::default()).await?.token;
        let environment = [("DUNLIN_JOIN_TOKEN", token.as_str())];
        let mut process = Process::new(folder.clone(), arguments);
        process.start_through(words);
        let _may_fail = process.start(&environment).await;
        let came = settled(noted).await;
        process.start_through(Vec::new());
        process.gone().await?;
        process.start(&environment).await.context("an agent whose first start failed does not start")?;
        let since = Instant::now();
        loop {
            let nodes = self.yard.client().nodes().await?.nodes;
            let found = nodes.iter().find(|found| found.node.to_string() == node);
            if found.is_some_and(|found| found.state == NodeState::Alive) {
                break;
            }
            ensure!(since.elapsed() < PATIENCE, "the node did not join: {found:?}\n{}", process.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        process.kill().await?;
        no_panic(&process.log())?;
        std::fs::remove_dir_all(folder)?;
        Ok(came)
    }

    async fn until_acknowledged(&self, since: Instant) -> anyhow::Result<()> {
        while self.ledger.last().is_none_or(|last| last < since) {
            ensure!(since.elapsed() < PATIENCE, "no write was acknowledged for {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Compares the app that grows with what was acknowledged of it, and now and then with what its node makes of it.
    async fn check_growing(&mut self, round: u64) -> anyhow::Result<()> {
        let [acknowledged, attempted] = self.deployed;
        if acknowledged == 0 {
            return Ok(());
        }
        let found = self.fleet.client().app(&self.growing).await?.revision.0;
        ensure!(
            (acknowledged..=attempted).contains(&found),
            "revision {acknowledged} of what grows was acknowledged, {attempted} attempted, {found} is there"
        );
        if round.is_multiple_of(8) {
            self.until_growing_runs(Instant::now()).await?;
        }
        Ok(())
    }

    async fn until_growing_runs(&self, since: Instant) -> anyhow::Result<()> {
        loop {
            let status = self.fleet.client().app(&self.growing).await?;
            let runs = |workload: &dunlin_api::WorkloadStatus| {
                let [allocation] = &workload.allocations[..] else { return false };
                workload.running == 1 && allocation.revision == status.revision
            };
            if status.workloads.iter().all(runs) {
                return Ok(());
            }
            ensure!(since.elapsed() < PATIENCE, "what was deployed does not run: {status:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn none_panicked(&mut self) -> anyhow::Result<()> {
        for (path, log) in self.fleet.logs().into_iter().chain(self.yard.logs()) {
            let read = self.read.entry(path).or_default();
            no_panic(log.get(*read..).unwrap_or_default())?;
            *read = log.len();
        }
        Ok(())
    }

    async fn end(self) -> anyhow::Result<Report> {
        let Self { fleet, ledger, traffic, mut report, deployed, .. } = self;
        report.found = ledger.end(fleet.client()).await?;
        report.found.insert("revisions with a component each".to_owned(), deployed[0]);
        report.answered = traffic.end().await?;
        Ok(report)
    }
}

/// Deploys an app with a component that nobody has seen before, and takes a backup; returns the app's revision.
async fn grow(client: Client, name: AppName, round: u64) -> anyhow::Result<u64> {
    let manifest = r#"
        [app]
        name = "growing"

        [service.grown]
        component = "hello.wasm"
        routes = [{ host = "grown.localhost" }]
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
    "#;
    let bytes = another(round);
    let digest = Digest::of(&bytes);
    client.upload_component(&digest, bytes, |_| {}).await?;
    let manifest = Manifest::parse(manifest).context("the campaign's own manifest is wrong")?;
    let workloads = manifest.workloads.iter().map(|(name, section)| (name.clone(), section.spec(digest)));
    let deployed = client.deploy(&AppSpec { name, workloads: workloads.collect() }).await?;
    if round.is_multiple_of(2) {
        let mut backup = client.backup().await?;
        while backup.next().await?.is_some() {}
    }
    Ok(deployed.revision.0)
}

/// A component that does what another does and has bytes of its own: a custom section with a number is added.
pub(crate) fn another(number: u64) -> Bytes {
    let mut bytes = HELLO.to_vec();
    // The section's id, its size, the size of its name, its name, and what is in it.
    bytes.extend([0, 14, 5]);
    bytes.extend(b"round");
    bytes.extend(number.to_le_bytes());
    bytes.into()
}

/// Whether strace noted that it has done harm.
fn was_reached(noted: &Path) -> bool {
    let noted = std::fs::read_to_string(noted).unwrap_or_default();
    noted.contains("INJECTED") || noted.contains("killed by SIGKILL")
}

/// Tells whether harm was done, after a moment in which the tracer may write it down.
async fn settled(noted: &Path) -> bool {
    tokio::time::sleep(AFTER).await;
    was_reached(noted)
}

/// Waits until harm was done and for what comes of it, or for as long as one is patient.
async fn until_reached(noted: &Path) {
    let since = Instant::now();
    while since.elapsed() < REACH && !was_reached(noted) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(AFTER).await;
}

pub(crate) fn no_panic(log: &str) -> anyhow::Result<()> {
    match log.lines().find(|line| line.contains("panicked")) {
        Some(line) => bail!("a process has panicked: {line}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_has_a_component_of_its_own() {
        let [first, second] = [another(1), another(2)];
        assert!(first.len() == HELLO.len() + 16 && first.starts_with(HELLO));
        assert_ne!(Digest::of(&first), Digest::of(&second));
    }
}
