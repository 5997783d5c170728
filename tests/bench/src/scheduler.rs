//! The bench `scheduler`: what the coordinator's brain costs at full size, without a network and on one thread.
//!
//! All that decides is on: labels, conditions, preferences, spread over zones, quotas, weights and priorities, and
//! every service has a route.

mod fleet;
mod packing;

use std::time::Duration;

use dunlin_model::{AppSpec, Bytes, DurationMs, FuelRate};
use dunlin_scheduler::Command;

use self::fleet::{Fleet, app, name, service, zone};
use crate::memory::Memory;
use crate::report::{Report, Row, Series};
use crate::warn;

/// The nodes of the large fleet, and of the small one that it is compared with.
const NODES: usize = 10_000;
const FEW_NODES: usize = 100;
/// Services of a thousand allocations for each ten nodes.
const NODES_PER_SERVICE: usize = 10;
const ALLOCATIONS: u32 = 1_000;
/// How often what is short is measured.
const SAMPLES: usize = 300;
/// How many workloads wait that can not be placed.
const WAITING: usize = 10_000;

/// Measures all of it.
pub(crate) async fn run() -> anyhow::Result<Report> {
    tokio::task::spawn_blocking(measure).await?
}

fn measure() -> anyhow::Result<Report> {
    let mut report = Report::begin("scheduler")?;
    report.note("one thread, no network; labels, conditions, spread, quotas, weights and priorities on");
    // First of all, while nothing that was let go of is counted as memory.
    warn("placing a million allocations");
    let (mut fleet, rows) = fill(NODES)?;
    report.add(rows);
    report.add(heartbeats(&mut fleet));
    warn("measuring changes in the large fleet");
    report.add(services_of_a_hundred(&mut fleet));
    let many = one_change(&mut fleet);
    warn("measuring a change in a small fleet");
    let few = one_change(&mut filled(FEW_NODES));
    let case = format!("one allocation more at {NODES} nodes, against {FEW_NODES} nodes, median");
    let row = Row::new(case, "µs", &series(many)).against("the small fleet", &series(few));
    report.add([row.ratio_at_most(3.0)]);
    warn("losing a zone");
    report.add(zone_loss(&mut fleet));
    warn("letting workloads wait");
    report.add(waiting(&mut fleet));
    drop(fleet);
    warn("measuring how nodes are filled");
    report.add([packing::quality()]);
    report.end()
}

fn series(value: f64) -> Series {
    std::iter::once(value).collect()
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Returns the time below which this share of `times` lies, in thousandths.
fn percentile(times: &mut [Duration], thousandths: usize) -> Duration {
    times.sort_unstable();
    let rank = (times.len() * thousandths).div_ceil(1000);
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// Returns the size of the allocations of a service: with those of all services the fleet's memory is used to four
/// fifths. What may go to few nodes is smaller, and what may go anywhere larger, so that there is room for all.
fn size(number: usize) -> (Bytes, FuelRate) {
    let memory = [64, 128, 128, 192, 256, 512][number % 6];
    let memory = match number % 4 {
        1 => memory / 2,
        3 => memory * 8 / 5,
        _ => memory,
    };
    let rate = [5, 10, 20, 20, 50, 100][number % 6] * 1_000_000;
    (Bytes(memory << 20), FuelRate(rate))
}

/// The wish that this runs.
fn deploy(spec: AppSpec) -> Command {
    Command::Deploy { spec, accept: true }
}

fn large_service(number: usize) -> Command {
    let (memory, rate) = size(number);
    deploy(app(number, service(number, ALLOCATIONS, memory, rate)))
}

/// Returns a fleet that is used to four fifths.
fn filled(nodes: usize) -> Fleet {
    filled_into(nodes, None)
}

/// Fills the large fleet, and hands all that is changed to `sink`; returns how many allocations it has.
pub(crate) fn fill_into(sink: fleet::Sink) -> u64 {
    filled_into(NODES, Some(sink)).placed
}

fn filled_into(nodes: usize, sink: Option<fleet::Sink>) -> Fleet {
    let mut fleet = Fleet::with_sink(nodes, sink);
    for number in 0..nodes / NODES_PER_SERVICE {
        fleet.submit(large_service(number));
    }
    fleet.report_all(|_| false);
    fleet
}

/// Fills a fleet and measures it.
fn fill(nodes: usize) -> anyhow::Result<(Fleet, Vec<Row>)> {
    let mut fleet = Fleet::new(nodes);
    let before = Memory::of(std::process::id())?.resident;
    (fleet.placed, fleet.steps) = (0, Vec::new());
    let mut took = Duration::ZERO;
    for number in 0..nodes / NODES_PER_SERVICE {
        took += fleet.submit(large_service(number));
    }
    let placed = fleet.placed as f64;
    let longest = fleet.steps.iter().max().copied().unwrap_or_default();
    fleet.report_all(|_| false);
    let kept = Memory::of(std::process::id())?.resident - before;
    let rows = vec![
        Row::new(
            format!("{placed} allocations on {nodes} empty nodes, placed"),
            "/s",
            &series(placed / took.as_secs_f64()),
        )
        .at_least(100_000.0),
        Row::new("longest step of that", "ms", &series(millis(longest))),
        Row::new("memory of each, the bench's own lists included", "KiB", &series(kept * 1024.0 / placed))
            .at_most(1.0),
        Row::new("share of the fleet's memory then used", "", &series(fleet.memory_used())),
    ];
    Ok((fleet, rows))
}

/// Each node says what it has said before.
fn heartbeats(fleet: &mut Fleet) -> Vec<Row> {
    // What they say first after their allocations came up is news.
    fleet.report_all(|_| false);
    fleet.pass(DurationMs(5_000));
    let nodes = fleet.nodes.clone();
    let reports: Vec<_> = nodes.iter().map(|node| fleet.told(node)).collect();
    let mut times: Vec<Duration> =
        nodes.iter().zip(reports).map(|(node, report)| fleet.observe(node, report)).collect();
    let rows = [(500, "median"), (990, "p99")].map(|(share, what)| {
        let row = Row::new(
            format!("heartbeat of a node with 100 allocations and no change, {what}"),
            "µs",
            &series(micros(percentile(&mut times, share))),
        );
        if share == 500 { row.at_most(5.0) } else { row }
    });
    rows.into()
}

fn services_of_a_hundred(fleet: &mut Fleet) -> Vec<Row> {
    let mut times = Vec::new();
    for number in 0..SAMPLES {
        let number = 100_000 + number;
        let (memory, rate) = size(number);
        times.push(fleet.submit(deploy(app(number, service(number, 100, memory, rate)))));
        fleet.submit(Command::Delete(name(number)));
        fleet.settle();
    }
    let case = "a service of 100 allocations on the used fleet";
    vec![
        Row::new(format!("{case}, median"), "ms", &series(millis(percentile(&mut times, 500)))),
        Row::new(format!("{case}, p99"), "ms", &series(millis(percentile(&mut times, 990)))).at_most(5.0),
    ]
}

/// Deploys services of one allocation; returns what one takes, in microseconds.
fn one_change(fleet: &mut Fleet) -> f64 {
    let mut times = Vec::new();
    for number in 0..SAMPLES {
        let number = 200_000 + number;
        times.push(
            fleet.submit(deploy(app(number, service(number, 1, Bytes(16 << 20), FuelRate(5_000_000))))),
        );
    }
    micros(percentile(&mut times, 500))
}

/// A zone is lost and the operator says that it will not be back: all that ran there is placed again.
fn zone_loss(fleet: &mut Fleet) -> Vec<Row> {
    let is_lost = |number: usize| zone(number) == 0;
    fleet.pass(DurationMs(20_000));
    fleet.report_all(is_lost);
    fleet.pass(DurationMs(11_000));
    (fleet.placed, fleet.steps) = (0, Vec::new());
    let lost = fleet.settle();
    let placed = lost + fleet.submit(Command::ReleaseBrake);
    let longest = fleet.steps.iter().max().copied().unwrap_or_default();
    let case = format!("loss of a zone, {} allocations placed again", fleet.placed);
    fleet.report_all(is_lost);
    vec![
        Row::new(case, "ms", &series(millis(placed))).at_most(1_000.0),
        Row::new("longest step of that", "ms", &series(millis(longest))).at_most(50.0),
    ]
}

/// Workloads wait that no node can run; then there is new room.
fn waiting(fleet: &mut Fleet) -> Vec<Row> {
    for number in 0..WAITING {
        let number = 300_000 + number;
        let mut spec = service(number, 1, Bytes(64 << 20), FuelRate(5_000_000));
        spec.placement.require.push("nowhere".parse().expect("it is a condition"));
        fleet.submit(deploy(app(number, spec)));
    }
    fleet.steps.clear();
    fleet.submit(Command::Delete(name(200_000)));
    // What was deleted drains for a moment; then its room is free.
    fleet.pass(DurationMs(6_000));
    fleet.settle();
    let longest = fleet.steps.iter().max().copied().unwrap_or_default();
    let view = fleet.cluster.view();
    let workloads = view.apps.values().flat_map(|app| app.workloads.values());
    let explained =
        workloads.filter(|workload| workload.running < workload.desired && workload.waiting.is_some());
    vec![
        Row::new(
            format!("longest step with {WAITING} workloads that wait, after new room"),
            "ms",
            &series(millis(longest)),
        )
        .at_most(50.0),
        Row::new("workloads that wait with a reason", "", &series(explained.count() as f64))
            .at_least(WAITING as f64),
    ]
}
