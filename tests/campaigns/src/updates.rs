//! What is done to a fleet on purpose, under load: new revisions, drains, new programs for agents; and agents that are killed
//! (T8). No request may fail.
//!
//! Clients keep their connections, in HTTP/1.1 and HTTP/2, with and without a body. When an agent is killed nobody asks that
//! one, and nobody anything that must not be asked twice.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use dunlin_api::CordonNode;
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{App, Fleet, Load};
use dunlin_model::{DurationMs, NodeId};
use nix::sys::signal::Signal;

use crate::report::Report;
use crate::tails::tails_of;

/// How many nodes there are. With one of them away the others have room for all.
const NODES: usize = 3;
/// How long each change may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// How many requests are answered between two changes at least.
const BETWEEN: u64 = 100;
/// How long a drain gives to what leaves.
const DRAIN: DurationMs = DurationMs(30_000);
/// How often it is looked how far it has come.
const LOOK: Duration = Duration::from_millis(20);

/// Changes a fleet so often: of each fourteen changes ten are new revisions, two are drains, one is a new program for an
/// agent, and one is the death of an agent.
pub async fn updates(rounds: u64, seed: u64) -> anyhow::Result<Report> {
    let fleet = Fleet::start(NODES).await?;
    fleet.deploy(&revision(0)?).await?;
    fleet.until_running("default/shop").await;
    let addresses: Vec<_> = (0..NODES).map(|node| fleet.ingress(node)).collect();
    let load = Load::start(&addresses);
    load.until_answered(BETWEEN).await;
    let mut scene = Scene { fleet, load, report: Report::default() };
    for round in 1..=rounds {
        let done = scene.round(round, seed).await;
        done.with_context(|| format!("seed {seed}, round {round}\n{}", tails_of(&scene.fleet)))?;
    }
    let Scene { fleet, load, mut report } = scene;
    let (answered, failures) = load.end().await;
    ensure!(failures.is_empty(), "requests failed: {failures:#?}\n{}", tails_of(&fleet));
    report.answered = answered;
    Ok(report)
}

/// An app whose component has bytes of its own for each number.
fn revision(number: u64) -> anyhow::Result<App> {
    let manifest = r#"
        [app]
        name = "shop"

        [service.hello]
        component = "guest.wasm"
        allocations = 3
        routes = [{ path = "/" }]
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "100M/s", deadline = "10s" }

        [service.hello.rollout]
        bake = "1s"
    "#;
    let component: Bytes = crate::faults::another(number);
    ensure!(component.len() > HELLO.len(), "the component has no number");
    Ok(App::new(manifest, &[("guest.wasm", &component)]))
}

struct Scene {
    fleet: Fleet,
    load: Load,
    report: Report,
}

impl Scene {
    async fn round(&mut self, round: u64, seed: u64) -> anyhow::Result<()> {
        let node = usize::try_from((round + seed) % NODES as u64)?;
        let since = Instant::now();
        let kind = match round % 14 {
            0 => {
                self.kill(node).await?;
                "an agent is killed"
            }
            7 => {
                self.start_again(node).await?;
                "an agent gets a new program"
            }
            3 | 10 => {
                self.drain(node).await?;
                "a node is drained"
            }
            _ => {
                self.roll_out(round).await?;
                "a new revision"
            }
        };
        self.report.fault(kind);
        self.report.recovered(&format!("{kind}, until that is done"), since.elapsed());
        self.load.until_answered(BETWEEN).await;
        let failures = self.load.failures();
        ensure!(failures.is_empty(), "requests failed over `{kind}`: {failures:#?}");
        Ok(())
    }

    async fn roll_out(&mut self, round: u64) -> anyhow::Result<()> {
        self.fleet.deploy(&revision(round)?).await?;
        self.until_settled().await
    }

    async fn drain(&mut self, node: usize) -> anyhow::Result<()> {
        let name = name_of(node)?;
        self.fleet.client().cordon_node(&name, &CordonNode { drain_ms: Some(DRAIN) }).await?;
        let since = Instant::now();
        loop {
            let nodes = self.fleet.client().nodes().await?.nodes;
            let found = nodes.iter().find(|found| found.node == name).context("the node is not there")?;
            if found.allocations == 0 {
                break;
            }
            ensure!(since.elapsed() < PATIENCE, "the node is not drained: {found:?}");
            tokio::time::sleep(LOOK).await;
        }
        self.fleet.client().uncordon_node(&name).await?;
        self.until_settled().await
    }

    async fn start_again(&mut self, node: usize) -> anyhow::Result<()> {
        let ready = |fleet: &mut Fleet| fleet.agent(node).log().matches("agent ready").count();
        let before = ready(&mut self.fleet);
        self.fleet.agent(node).signal(Signal::SIGHUP)?;
        let since = Instant::now();
        while ready(&mut self.fleet) == before {
            ensure!(since.elapsed() < PATIENCE, "the agent has not started again");
            tokio::time::sleep(LOOK).await;
        }
        self.until_settled().await
    }

    async fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        self.load.spare(node).await;
        self.fleet.agent(node).kill().await?;
        self.load.until_answered(BETWEEN).await;
        self.fleet.agent(node).start(&[]).await?;
        self.until_settled().await?;
        self.load.spare_nobody();
        Ok(())
    }

    /// Waits until all that is to run does, and nothing is being changed.
    async fn until_settled(&self) -> anyhow::Result<()> {
        let since = Instant::now();
        loop {
            let status = self.fleet.client().app(&"default/shop".parse()?).await?;
            let [workload] = &status.workloads[..] else { bail!("there is one workload: {status:?}") };
            let are_new = workload.allocations.iter().all(|it| it.revision == status.revision);
            if status.rollout.is_none() && workload.running == workload.desired && are_new {
                return Ok(());
            }
            ensure!(since.elapsed() < PATIENCE, "it does not settle: {status:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn name_of(node: usize) -> anyhow::Result<NodeId> {
    Ok(format!("node-{}", node + 1).parse()?)
}
