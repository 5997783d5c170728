//! Three coordinators on three members of etcd, of which one after the other is lost, under traffic (T6, without a cut
//! network).
//!
//! A ledger writes and a client asks all the time, as with the `kills`. After each fault a write must be acknowledged
//! again, which 15 seconds are promised for (P16), and what was acknowledged must be there.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dunlin_harness::Coordinators;
use nix::sys::signal::Signal;

use crate::chance::Chance;
use crate::kills::{app, job};
use crate::ledger::Ledger;
use crate::report::Report;
use crate::tails::tails;
use crate::traffic::Traffic;

/// How many coordinators, and members of etcd, there are.
const MEMBERS: usize = 3;
/// How long a member of etcd is away at most.
const AWAY: Duration = Duration::from_secs(3);
/// How long it may take until it is well again, however busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does harm so often, each time another one as chance has it.
pub async fn coordinators(rounds: u64, seed: u64) -> anyhow::Result<Report> {
    let mut scene = Scene::begin().await?;
    let mut chance = Chance::new(seed);
    for _ in 0..rounds {
        let member = chance.place(MEMBERS);
        let done = match chance.below(10) {
            0..=3 => scene.kill_the_one_in_charge().await,
            4..=6 => scene.pause_the_one_in_charge().await,
            7 => scene.kill_a_follower().await,
            8 => scene.kill_a_member_of_etcd(member, chance.shorter_than(AWAY)).await,
            _ => scene.pause_a_member_of_etcd(member, chance.shorter_than(AWAY)).await,
        };
        done.with_context(|| format!("seed {seed}, {}", scene.logs()))?;
    }
    scene.end().await
}

/// Shows the loss of each coordinator and of each member of etcd, one after the other; `say` is told of each step.
pub async fn show_coordinators(say: impl Fn(&str)) -> anyhow::Result<Report> {
    say("three coordinators on three members of etcd, and a node with a service");
    let mut scene = Scene::begin().await?;
    for index in 0..MEMBERS {
        let is_in_charge = scene.fleet.in_charge(None).await == index;
        let what = if is_in_charge { "is in charge" } else { "follows" };
        say(&format!("coordinator {} {what}; it is killed, and started again", index + 1));
        scene.kill_coordinator(index, "coordinator killed").await?;
        let next = scene.fleet.in_charge(None).await;
        say(&format!("all that was acknowledged is there; coordinator {} is in charge", next + 1));
    }
    say("the one in charge is paused, and wakes when another one is");
    scene.pause_the_one_in_charge().await?;
    for member in 0..MEMBERS {
        say(&format!("member {} of etcd is killed; writes go on without it", member + 1));
        scene.kill_a_member_of_etcd(member, Duration::from_secs(1)).await?;
    }
    scene.end().await
}

/// The fleet, and who watches it.
struct Scene {
    fleet: Coordinators,
    ledger: Ledger,
    traffic: Traffic,
    report: Report,
}

impl Scene {
    async fn begin() -> anyhow::Result<Self> {
        let fleet = Coordinators::start(MEMBERS, 1).await?.context("there is no etcd on this machine")?;
        let mut scene = Self::around(fleet).await?;
        scene.well("the start", Instant::now()).await?;
        scene.report = Report::default();
        Ok(scene)
    }

    async fn around(mut fleet: Coordinators) -> anyhow::Result<Self> {
        fleet.deploy(&app()).await?;
        let client = fleet.client()?;
        let spec = job(&client).await?;
        let traffic = Traffic::start(fleet.agent(0).address("ingress"));
        traffic.may_fail();
        traffic.until_answered(Instant::now()).await?;
        let ledger = Ledger::start(&client, spec);
        Ok(Self { fleet, ledger, traffic, report: Report::default() })
    }

    /// Waits until a write is acknowledged again, and compares what is there with what was acknowledged.
    async fn well(&mut self, kind: &str, since: Instant) -> anyhow::Result<()> {
        while self.ledger.last().is_none_or(|last| last < since) {
            ensure!(since.elapsed() < PATIENCE, "after {kind} no write was acknowledged for {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.report.fault(kind);
        self.report.recovered(&format!("{kind}, until a write is acknowledged"), since.elapsed());
        self.traffic.check()?;
        self.ledger.check(&self.fleet.client()?).await
    }

    async fn kill_the_one_in_charge(&mut self) -> anyhow::Result<()> {
        let index = self.fleet.in_charge(None).await;
        self.kill_coordinator(index, "coordinator in charge killed").await
    }

    async fn kill_coordinator(&mut self, index: usize, kind: &str) -> anyhow::Result<()> {
        self.fleet.coordinator(index).kill().await?;
        let since = Instant::now();
        self.well(kind, since).await?;
        self.fleet.coordinator(index).start(&[]).await
    }

    async fn pause_the_one_in_charge(&mut self) -> anyhow::Result<()> {
        let index = self.fleet.in_charge(None).await;
        self.fleet.coordinator(index).signal(Signal::SIGSTOP)?;
        let since = Instant::now();
        // What it was asked before it was paused may be acknowledged a moment later.
        let other = self.fleet.in_charge(Some(index)).await;
        self.well("coordinator in charge paused", since).await?;
        self.fleet.coordinator(index).signal(Signal::SIGCONT)?;
        let address = self.fleet.coordinator(other).address("api").to_string();
        let woken = Instant::now();
        loop {
            let told = self.fleet.client_of(index)?.status().await;
            if told.is_ok_and(|status| status.in_charge.as_ref() == Some(&address)) {
                return Ok(());
            }
            ensure!(woken.elapsed() < PATIENCE, "one that was paused does not follow for {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn kill_a_follower(&mut self) -> anyhow::Result<()> {
        let index = (self.fleet.in_charge(None).await + 1) % MEMBERS;
        self.kill_coordinator(index, "following coordinator killed").await
    }

    async fn kill_a_member_of_etcd(&mut self, member: usize, away: Duration) -> anyhow::Result<()> {
        self.fleet.etcd.kill(member).await?;
        let since = Instant::now();
        self.well("member of etcd killed", since).await?;
        tokio::time::sleep(away).await;
        self.fleet.etcd.start_again(member).await
    }

    async fn pause_a_member_of_etcd(&mut self, member: usize, away: Duration) -> anyhow::Result<()> {
        self.fleet.etcd.signal(member, Signal::SIGSTOP)?;
        let since = Instant::now();
        let well = self.well("member of etcd paused", since).await;
        tokio::time::sleep(away).await;
        self.fleet.etcd.signal(member, Signal::SIGCONT)?;
        well
    }

    fn logs(&self) -> String {
        tails((0..MEMBERS).map(|index| (format!("coordinator {}", index + 1), self.fleet.log_of(index))))
    }

    async fn end(self) -> anyhow::Result<Report> {
        let Self { fleet, ledger, traffic, mut report } = self;
        report.found = ledger.end(&fleet.client()?).await?;
        report.answered = traffic.end().await?;
        Ok(report)
    }
}
