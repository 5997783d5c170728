//! The bench `site`: a component that goes to all nodes of a site, whose link to the coordinator is slow, against one
//! that goes to a single node there.
//!
//! Each process is in a network namespace of its own, and the links between them are as slow as the kernel makes them.

use std::time::{Duration, Instant};

use anyhow::ensure;
use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{App, Fleet, Network, with_ballast};

use crate::report::{Report, Row, Series};
use crate::warn;

/// How many nodes the site has.
const NODES: u8 = 20;
/// How fast the link of each is, and that of the coordinator, which is what they share.
const LINK: &str = "10mbit";
/// How large the component is.
const SIZE: usize = 10 << 20;
const ROUNDS: u64 = 5;
/// How long the nodes may take, who take about ten seconds.
const PATIENCE: Duration = Duration::from_secs(300);
/// The most time for all nodes, as part of that for one.
const ALL_NODES: f64 = 1.5;

/// Measures it.
pub(crate) async fn run() -> anyhow::Result<Report> {
    let mut report = Report::begin("site")?;
    report.note(format!(
        "{NODES} nodes and a coordinator, each behind a link of {LINK} in each direction (tbf)"
    ));
    report.note("a component of 10 MiB that cannot be made smaller; each round has another one");
    let network = Network::start(NODES + 1).await?;
    let mut fleet = Fleet::start_in(&network.place(0)?).await?;
    for host in 1..=NODES {
        let which = if host == 1 { "first=yes" } else { "first=no" };
        let labels = ["--label", "site=harbour", "--label", which];
        fleet.add_agent_at(&network.place(host)?, &labels).await?;
    }
    for host in 0..=NODES {
        network.slow_down(host, LINK).await?;
    }
    let (mut one, mut all, mut carried) = (Series::default(), Series::default(), Series::default());
    for round in 0..ROUNDS {
        warn(&format!("round {} of {ROUNDS}", round + 1));
        // Not as another revision: that goes to one node after the other.
        one.push(
            deployed(&fleet, "one", r#"node_labels = { first = "yes" }"#, round * 2, 1).await?.as_secs_f64(),
        );
        let before = network.sent(0)?;
        let taken = deployed(&fleet, "all", "everywhere = true", round * 2 + 1, usize::from(NODES)).await?;
        all.push(taken.as_secs_f64());
        carried.push((network.sent(0)? - before) as f64 / SIZE as f64);
    }
    report.add([
        Row::new("to all nodes of the site: seconds until the last one has it", "s", &all)
            .against("to one of them", &one)
            .ratio_at_most(ALL_NODES),
        Row::new(
            "to all nodes of the site: bytes on the coordinator's link, per byte of the component",
            "",
            &carried,
        ),
    ]);
    report.end()
}

fn manifest(app: &str, placement: &str) -> String {
    format!(
        r#"
        [app]
        name = "{app}"

        [service.hello]
        component = "guest.wasm"
        routes = [{{ host = "{app}.localhost", path = "/" }}]
        {placement}
        limits = {{ memory = "32MiB", fuel = "100M", fuel_rate = "1M/s", deadline = "10s" }}
        "#
    )
}

/// Deploys an app, and returns how long it took from then on until so many nodes had fetched its component. It is gone again
/// afterwards.
async fn deployed(
    fleet: &Fleet,
    app: &str,
    placement: &str,
    seed: u64,
    nodes: usize,
) -> anyhow::Result<Duration> {
    let app_folder = App::new(&manifest(app, placement), &[("guest.wasm", &with_ballast(HELLO, SIZE, seed))]);
    let fetched = || {
        let logs = fleet.logs().into_iter();
        logs.map(|(_, log)| log.lines().filter(|line| line.contains("component fetched")).count())
            .sum::<usize>()
    };
    let before = fetched();
    let deploying = fleet.dunlin_in(app_folder.path(), &["deploy", "--no-wait"]).await?;
    ensure!(deploying.status.success(), "the deploy failed: {deploying:?}");
    let began = Instant::now();
    while fetched() < before + nodes {
        ensure!(began.elapsed() < PATIENCE, "the nodes have not fetched the component after {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let taken = began.elapsed();
    let deleting = fleet.dunlin(&["delete", app, "--yes"]).await?;
    ensure!(deleting.status.success(), "the delete failed: {deleting:?}");
    Ok(taken)
}
