//! Networks that are cut: three coordinators, three members of etcd and two nodes on hosts of their own, of which one
//! does not hear another any more (T6).
//!
//! A ledger writes and clients ask at both nodes all the time. While a way is cut a write must be acknowledged again,
//! which 15 seconds are promised for (P16); what was acknowledged must be there; a service that runs on a node answers
//! there whatever is cut (P2); and of a singleton no two run at a time (P6). When the way is mended all must be as before.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dunlin_api::NodeState;
use dunlin_guest_artifacts::{HELLO, HOSTILE_HTTP};
use dunlin_harness::{App, Coordinators, Network, Places};
use nix::sys::signal::Signal;

use crate::chance::Chance;
use crate::kills::job;
use crate::ledger::Ledger;
use crate::report::Report;
use crate::singleton::Singleton;
use crate::tails::tails;
use crate::traffic::Traffic;

/// The hosts of the coordinators, of the members of etcd, and of the nodes.
const COORDINATORS: [u8; 3] = [0, 1, 2];
const ETCD: [u8; 3] = [3, 4, 5];
const NODES: [u8; 2] = [6, 7];
/// How many hosts there are.
const HOSTS: u8 = 8;
/// How long a way stays cut after all is well without it: from a moment to longer than a node's lease.
const CUT: Duration = Duration::from_secs(14);
/// A node is lost no more often than this: one that is lost three times within ten minutes is set aside, and where all are
/// nothing new runs.
const BETWEEN_LOSSES: Duration = Duration::from_secs(320);
/// How long a node is cut off otherwise: shorter than its lease, with the time until a write is acknowledged.
const SHORT_CUT: Duration = Duration::from_secs(3);
/// How long it may take until it is well again, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Cuts so many ways, each time others as chance has it. The process must have a network of its own.
pub async fn partitions(rounds: u64, seed: u64) -> anyhow::Result<Report> {
    let mut scene = Scene::begin().await?;
    let mut chance = Chance::new(seed);
    for round in 1..=rounds {
        let done = scene.round(&mut chance).await;
        done.with_context(|| format!("seed {seed}, round {round}: {}\n{}", scene.told, scene.logs()))?;
    }
    scene.end().await
}

/// The fleet, and who watches it.
struct Scene {
    network: Network,
    /// The ways that are cut: from where to where.
    cut: BTreeSet<(u8, u8)>,
    fleet: Coordinators,
    ledger: Ledger,
    traffic: Vec<Traffic>,
    singleton: Singleton,
    report: Report,
    /// When a node was cut off for so long that it may have been lost.
    lost: Option<Instant>,
    /// What this round does.
    told: String,
}

/// What does not get through between two hosts.
#[derive(Clone, Copy, PartialEq)]
enum Lost {
    All,
    /// What the first sends to the second.
    There,
    /// What the second sends to the first.
    Back,
}

impl Scene {
    async fn begin() -> anyhow::Result<Self> {
        let network = Network::start(HOSTS).await?;
        let places = |hosts: &[u8]| hosts.iter().map(|host| network.place(*host)).collect::<Result<_, _>>();
        let places =
            Places { etcd: places(&ETCD)?, coordinators: places(&COORDINATORS)?, agents: places(&NODES)? };
        let fleet =
            Coordinators::start_in(&places, None).await?.context("there is no etcd on this machine")?;
        Self::around(network, fleet).await
    }

    async fn around(network: Network, mut fleet: Coordinators) -> anyhow::Result<Self> {
        fleet.deploy(&everywhere()).await?;
        fleet.deploy(&single()).await?;
        let client = fleet.client()?;
        let spec = job(&client).await?;
        let ingresses = [0, 1].map(|node| fleet.agent(node).address("ingress"));
        let traffic = ingresses.map(Traffic::start);
        for traffic in &traffic {
            traffic.may_fail();
            traffic.until_answered(Instant::now()).await?;
        }
        let ledger = Ledger::start(&client, spec);
        let singleton = Singleton::watch(ingresses.to_vec());
        let (traffic, told) = (traffic.into(), String::new());
        let mut scene = Self {
            network,
            cut: BTreeSet::new(),
            fleet,
            ledger,
            traffic,
            singleton,
            report: Report::default(),
            lost: None,
            told,
        };
        scene.until_as_before(Instant::now()).await?;
        scene.report = Report::default();
        Ok(scene)
    }

    /// One fault, and what must hold during it and after it.
    async fn round(&mut self, chance: &mut Chance) -> anyhow::Result<()> {
        let first = self.fleet.in_charge(None).await;
        let (host, agent) = (COORDINATORS[first], chance.one_of(&NODES));
        let member = chance.one_of(&ETCD);
        let lost = chance.one_of(&[Lost::All, Lost::There, Lost::Back]);
        let stay = chance.shorter_than(CUT);
        let of_nodes = self.shortened(stay);
        let others = |host: u8| (0..HOSTS).filter(|other| *other != host).collect::<Vec<_>>();
        match chance.below(10) {
            0 => self.cut("coordinator in charge alone", &[host], &others(host), Lost::All, stay).await?,
            1 | 2 => self.cut("coordinator in charge cut from etcd", &[host], &ETCD, lost, stay).await?,
            3 => self.cut("coordinator in charge cut from nodes", &[host], &NODES, lost, of_nodes).await?,
            4 => self.cut("node cut from coordinators", &[agent], &COORDINATORS, lost, of_nodes).await?,
            5 => self.cut("nodes cut from each other", &NODES[..1], &NODES[1..], lost, stay).await?,
            6 => self.cut("member of etcd alone", &[member], &others(member), lost, stay).await?,
            7 => {
                let few = [host, member, agent];
                let many: Vec<u8> = (0..HOSTS).filter(|other| !few.contains(other)).collect();
                self.cut("minority with the coordinator in charge", &few, &many, Lost::All, of_nodes).await?;
            }
            8 => self.flap(&[host], &ETCD, chance).await?,
            _ => self.pause(first, &[host], &ETCD).await?,
        }
        let mended = Instant::now();
        self.mend().await?;
        self.until_as_before(mended).await
    }

    /// Returns for how long a node may be cut off.
    fn shortened(&mut self, stay: Duration) -> Duration {
        if stay <= SHORT_CUT || self.lost.is_some_and(|lost| lost.elapsed() < BETWEEN_LOSSES) {
            return stay.min(SHORT_CUT);
        }
        self.lost = Some(Instant::now());
        stay
    }

    /// Cuts the ways between some hosts and others, and leaves it so for a while after a write was acknowledged again.
    async fn cut(
        &mut self,
        kind: &str,
        some: &[u8],
        others: &[u8],
        lost: Lost,
        stay: Duration,
    ) -> anyhow::Result<()> {
        let way = match lost {
            Lost::All => "",
            Lost::There => ", which others do not hear",
            Lost::Back => ", which does not hear others",
        };
        self.told = format!("{kind}{way}: {some:?} and {others:?}, for {stay:?} after all was well");
        self.drop_between(some, others, lost).await?;
        // What is acknowledged while the ways are cut one after the other does not count.
        let since = Instant::now();
        self.until_acknowledged((kind, way), since).await?;
        tokio::time::sleep(stay).await;
        Ok(())
    }

    /// Cuts and mends a way again and again.
    async fn flap(&mut self, some: &[u8], others: &[u8], chance: &mut Chance) -> anyhow::Result<()> {
        let kind = "coordinator in charge cut from etcd now and then";
        self.told = kind.to_owned();
        // Of the last cut: as long as they come again, there need be no other one in charge.
        let mut since = Instant::now();
        for _ in 0..6 {
            self.drop_between(some, others, Lost::All).await?;
            since = Instant::now();
            tokio::time::sleep(chance.shorter_than(Duration::from_secs(3))).await;
            self.mend().await?;
            tokio::time::sleep(chance.shorter_than(Duration::from_secs(1))).await;
        }
        self.until_acknowledged((kind, ""), since).await
    }

    /// Pauses the one in charge, cuts it from etcd meanwhile, and lets it wake like that.
    async fn pause(&mut self, index: usize, some: &[u8], others: &[u8]) -> anyhow::Result<()> {
        let kind = "coordinator in charge paused, and cut from etcd when it wakes";
        self.told = kind.to_owned();
        let since = Instant::now();
        self.fleet.coordinator(index).signal(Signal::SIGSTOP)?;
        self.drop_between(some, others, Lost::All).await?;
        self.fleet.in_charge(Some(index)).await;
        self.fleet.coordinator(index).signal(Signal::SIGCONT)?;
        self.until_acknowledged((kind, ""), since).await
    }

    /// Waits until a write is acknowledged again, and compares what is there with what was acknowledged.
    async fn until_acknowledged(&mut self, (kind, way): (&str, &str), since: Instant) -> anyhow::Result<()> {
        while self.ledger.last().is_none_or(|last| last < since) {
            ensure!(since.elapsed() < PATIENCE, "no write was acknowledged for {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.report.fault(&format!("{kind}{way}"));
        self.report.recovered(&format!("{kind}, until a write is acknowledged"), since.elapsed());
        self.ledger.check(&self.fleet.client()?).await?;
        self.watch()
    }

    /// Waits until all nodes are heard of, all runs that shall run, and the singleton answers at both nodes.
    async fn until_as_before(&mut self, since: Instant) -> anyhow::Result<()> {
        let client = self.fleet.client()?;
        loop {
            self.watch()?;
            let seen = match (client.nodes().await, client.apps().await) {
                (Ok(nodes), Ok(apps)) => {
                    let all_alive = nodes.nodes.iter().all(|node| node.state == NodeState::Alive);
                    let all_run = apps.apps.iter().flat_map(|app| &app.workloads).all(|workload| {
                        workload.running == workload.desired
                            && workload.allocations.len() == workload.desired as usize
                    });
                    if all_alive && all_run && self.singleton.answered_everywhere(since) {
                        break;
                    }
                    format!("{nodes:?}\n{apps:?}\n{:?}", self.singleton.seen())
                }
                (Err(error), _) | (_, Err(error)) => error.to_string(),
            };
            ensure!(since.elapsed() < PATIENCE, "{PATIENCE:?} after the ways were mended: {seen}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.report.recovered("all ways mended, until all is as before", since.elapsed());
        self.ledger.check(&client).await
    }

    fn watch(&self) -> anyhow::Result<()> {
        self.singleton.check()?;
        self.traffic.iter().try_for_each(Traffic::check)
    }

    async fn drop_between(&mut self, some: &[u8], others: &[u8], lost: Lost) -> anyhow::Result<()> {
        for one in some {
            for other in others {
                if lost != Lost::Back {
                    self.network.cut(*one, *other).await?;
                    self.cut.insert((*one, *other));
                }
                if lost != Lost::There {
                    self.network.cut(*other, *one).await?;
                    self.cut.insert((*other, *one));
                }
            }
        }
        Ok(())
    }

    async fn mend(&mut self) -> anyhow::Result<()> {
        while let Some((from, to)) = self.cut.pop_first() {
            self.network.mend(from, to).await?;
        }
        Ok(())
    }

    fn logs(&self) -> String {
        let coordinators =
            (0..COORDINATORS.len()).map(|index| ("coordinator", index, self.fleet.log_of(index)));
        let nodes = (0..NODES.len()).map(|index| ("node", index, self.fleet.log_of_agent(index)));
        tails(coordinators.chain(nodes).map(|(what, index, log)| (format!("{what} {}", index + 1), log)))
    }

    async fn end(self) -> anyhow::Result<Report> {
        let Self { fleet, ledger, traffic, singleton, mut report, .. } = self;
        report.found = ledger.end(&fleet.client()?).await?;
        report
            .found
            .insert("answers of a singleton, no two of which ran,".to_owned(), singleton.end().await?);
        for traffic in traffic {
            report.answered += traffic.end().await?;
        }
        Ok(report)
    }
}

fn everywhere() -> App {
    let manifest = r#"
        [app]
        name = "everywhere"

        [service.each]
        component = "hello.wasm"
        everywhere = true
        routes = [{ path = "/" }]
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
    "#;
    App::new(manifest, &[("hello.wasm", HELLO)])
}

/// In a namespace of its own: a singleton that does not stop in time takes its worker with it, whoever else is in there.
fn single() -> App {
    let manifest = r#"
        [app]
        name = "single"
        namespace = "apart"

        [service.one]
        component = "guest.wasm"
        routes = [{ host = "one.localhost" }]
        on_partition = "singleton"
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
    "#;
    App::new(manifest, &[("guest.wasm", HOSTILE_HTTP)])
}
