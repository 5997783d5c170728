//! A coordinator that is killed under a thousand agents: all of them must be back within 60 seconds, and none may be
//! taken for lost.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dunlin_api::{Client, CreateJoinToken, NodeState};
use dunlin_harness::{Fleet, SimulatedAgents};

use crate::report::Report;

/// How many agents there are.
const AGENTS: u32 = 1_000;
/// Within which time all must be back.
const PROMISED: Duration = Duration::from_secs(60);

/// Kills the coordinator so often, under a thousand agents.
pub async fn crowd(rounds: u64, _: u64) -> anyhow::Result<Report> {
    crowd_of(AGENTS, rounds).await
}

/// The same under so many.
pub async fn crowd_of(agents: u32, rounds: u64) -> anyhow::Result<Report> {
    let mut fleet = Fleet::start(0).await?;
    let mut report = Report::default();
    let wish = CreateJoinToken { uses: Some(agents), ..CreateJoinToken::default() };
    let token = fleet.client().create_join_token(&wish).await?.token;
    let joining = Instant::now();
    let crowd = SimulatedAgents::start(agents.into(), fleet.fleet_address(), &token).await?;
    until_back(fleet.client(), &crowd, joining).await?;
    report.recovered(&format!("{agents} agents join, until all are heard"), joining.elapsed());
    for _ in 0..rounds {
        let killed = Instant::now();
        fleet.coordinator().kill().await?;
        fleet.coordinator().start(&[]).await?;
        until_back(fleet.client(), &crowd, killed).await?;
        report.fault(&format!("kills of the coordinator of {agents} agents"));
        report.recovered("coordinator killed, until all agents are heard again", killed.elapsed());
    }
    Ok(report)
}

/// Waits until each was heard since then; fails if one of them was taken for lost.
async fn until_back(client: &Client, crowd: &SimulatedAgents, since: Instant) -> anyhow::Result<()> {
    loop {
        let nodes = client.nodes().await.context("could not list the nodes")?.nodes;
        let lost = nodes.iter().find(|node| node.state == NodeState::Lost);
        ensure!(lost.is_none(), "{:?} after the kill a node is taken for lost: {lost:?}", since.elapsed());
        let age = u64::try_from(since.elapsed().as_millis())?;
        let heard = nodes.iter().filter(|node| node.last_seen_ms_ago.is_some_and(|ago| ago < age)).count();
        if heard == crowd.count() && crowd.welcomed_since(since) == crowd.count() {
            return Ok(());
        }
        ensure!(
            since.elapsed() < PROMISED,
            "{PROMISED:?} after the kill {heard} of {} agents are heard, and {} were welcomed",
            crowd.count(),
            crowd.welcomed_since(since)
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
