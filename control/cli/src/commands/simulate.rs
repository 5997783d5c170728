//! `dunlin simulate`: what would come of a loss, a deploy or more load.
//!
//! On a copy of the fleet that is at work, which its coordinator makes; or, with `--fleet`, on one that is written in a
//! file ([`written`]), for which nobody is asked.

mod written;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use dunlin_api::{FleetSnapshot, Scale, Simulate};
use dunlin_model::{AppSpec, DurationMs, Forecast, NodeId, WorkloadName};

use super::deploy::build;
use super::forecast;
use super::plan::with_needs;
use crate::args::Global;
use crate::error::CommandError;
use crate::names;
use crate::output::Output;

/// Show what would come of a loss, a deploy or more load, on a copy of the fleet or on one that is written down.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin simulate --lose-zone b --load x2")]
pub(crate) struct SimulateArgs {
    /// Let all nodes with this label `zone` fall silent; may be repeated.
    #[arg(long, value_name = "ZONE")]
    pub(crate) lose_zone: Vec<String>,
    /// Let a node fall silent; may be repeated.
    #[arg(long, value_name = "NODE")]
    pub(crate) lose_node: Vec<NodeId>,
    /// Drain a node; may be repeated.
    #[arg(long, value_name = "NODE")]
    pub(crate) drain_node: Vec<NodeId>,
    /// Deploy an app: its folder, or its manifest; may be repeated.
    #[arg(long, value_name = "PATH")]
    pub(crate) deploy: Vec<PathBuf>,
    /// With `--deploy`, take the components as they are; do not run `[build] command`.
    #[arg(long, requires = "deploy")]
    pub(crate) no_build: bool,
    /// Give a service another number of allocations: `shop/cart=5`; may be repeated.
    #[arg(long, value_name = "WORKLOAD=N")]
    pub(crate) scale: Vec<Scaled>,
    /// Give each service so many times its allocations: `x2`, `x1.5`.
    #[arg(long, value_name = "xN")]
    pub(crate) load: Option<Load>,
    /// How far to look ahead at most, in the fleet's time.
    #[arg(long, default_value = "1h", value_name = "TIME")]
    pub(crate) within: DurationMs,
    /// Look at the fleet which this file describes, and ask no coordinator: TOML, or JSON as `--snapshot-out` writes
    /// it.
    #[arg(long, value_name = "FILE", conflicts_with = "snapshot_out")]
    pub(crate) fleet: Option<PathBuf>,
    /// Write the fleet as it is to this file, as JSON. It holds the variables of all guests.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot_out: Option<PathBuf>,
}

/// A service and how many allocations it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scaled {
    workload: String,
    allocations: u32,
}

impl FromStr for Scaled {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.rsplit_once('=').and_then(|(workload, number)| {
            Some(Self { workload: workload.to_owned(), allocations: number.parse().ok()? })
        });
        parsed.ok_or_else(|| "write a workload and a number: `shop/cart=5`".to_owned())
    }
}

/// So many times as much, in per cent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Load(u32);

impl FromStr for Load {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write how many times as much, up to x100: `x2`, `x1.5`".to_owned();
        let number = text.strip_prefix('x').ok_or_else(wrong)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !is_digits(whole) || !is_digits(part) || part.len() > 2 {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let hundredths: u32 = format!("{part:0<2}").parse().map_err(|_| wrong())?;
        let percent = whole.checked_mul(100).and_then(|percent| percent.checked_add(hundredths));
        percent.filter(|percent| (1..=10_000).contains(percent)).map(Self).ok_or_else(wrong)
    }
}

pub(crate) async fn run(global: &Global, args: SimulateArgs, output: &Output) -> Result<(), CommandError> {
    let told = match &args.fleet {
        Some(file) => {
            let fleet = written::read(file, output)?;
            let workloads: Vec<WorkloadName> = fleet.apps.iter().flat_map(|app| of_app(&app.spec)).collect();
            let mut specs = Vec::new();
            for path in &args.deploy {
                specs.push(written::app(path, global.namespace.as_ref(), output)?);
            }
            let wish = wish(global, &args, specs, &workloads)?;
            dunlin_coordinator::simulate_written(&fleet, wish).map_err(|error| {
                CommandError::failed("cannot simulate")
                    .caused_by(&error)
                    .help(format!("{} says which nodes and apps there are", file.display()))
            })?
        }
        None => match live(global, &args, output).await? {
            Some(told) => told,
            None => return Ok(()),
        },
    };
    output.result(&told, || shown(&told))
}

/// Asks the coordinator; nothing comes of it if the fleet was only to be written down.
async fn live(
    global: &Global,
    args: &SimulateArgs,
    output: &Output,
) -> Result<Option<Forecast>, CommandError> {
    let client = crate::client::connect(global)?;
    let cannot = |error| CommandError::client("cannot simulate", &error);
    if let Some(path) = &args.snapshot_out {
        let fleet = client.snapshot().await.map_err(cannot)?;
        write(path, &fleet)?;
        output.note(&format!("the fleet is written to {}", path.display()));
        if is_nothing(args) {
            return Ok(None);
        }
    }
    let mut specs = Vec::new();
    for path in &args.deploy {
        specs.push(with_needs(build(path, !args.no_build, global.namespace.as_ref(), output).await?));
    }
    let apps = client.apps().await.map_err(cannot)?.apps;
    let wish = wish(global, args, specs, &names::of_apps(&apps))?;
    client.simulate(&wish).await.map(Some).map_err(cannot)
}

fn is_nothing(args: &SimulateArgs) -> bool {
    let SimulateArgs { lose_zone, lose_node, drain_node, deploy, scale, load, .. } = args;
    lose_zone.is_empty()
        && lose_node.is_empty()
        && drain_node.is_empty()
        && deploy.is_empty()
        && scale.is_empty()
        && load.is_none()
}

fn of_app(spec: &AppSpec) -> impl Iterator<Item = WorkloadName> {
    spec.workloads.keys().map(|workload| spec.name.workload(workload))
}

/// Returns what is to be looked at; `workloads` are those there are.
fn wish(
    global: &Global,
    args: &SimulateArgs,
    deploy: Vec<AppSpec>,
    workloads: &[WorkloadName],
) -> Result<Simulate, CommandError> {
    // What is deployed meanwhile may be scaled too.
    let all: Vec<WorkloadName> = workloads.iter().cloned().chain(deploy.iter().flat_map(of_app)).collect();
    let mut scale = Vec::new();
    for Scaled { workload, allocations } in &args.scale {
        let workload = names::workload(workload, global.namespace.as_ref(), &all)?;
        scale.push(Scale { workload, allocations: *allocations });
    }
    Ok(Simulate {
        lose_nodes: args.lose_node.clone(),
        lose_zones: args.lose_zone.clone(),
        drain_nodes: args.drain_node.clone(),
        deploy,
        scale,
        load_percent: args.load.map(|load| load.0),
        within_ms: Some(args.within),
    })
}

/// Writes a fleet to a file that only its owner can read, whole or not at all.
fn write(path: &Path, fleet: &FleetSnapshot) -> Result<(), CommandError> {
    let cannot = |error: &dyn std::error::Error| {
        CommandError::failed(format!("cannot write the fleet to {}", path.display()))
            .caused_by(error)
            .help("give another file: `--snapshot-out FILE`")
    };
    let json = serde_json::to_vec_pretty(fleet).map_err(|error| cannot(&error))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| cannot(&error))?;
    file.write_all(&json).map_err(|error| cannot(&error))?;
    file.persist(path).map(drop).map_err(|error| cannot(&error.error))
}

fn shown(told: &Forecast) -> String {
    if told.moments.is_empty() && told.workloads.is_empty() {
        return format!("nothing would change{}\n", forecast::others(told));
    }
    [forecast::moments(told), "\n".to_owned(), forecast::workloads(told), forecast::end(told)].concat()
}

#[cfg(test)]
mod tests {
    use dunlin_model::{Moment, MomentKind, WorkloadForecast};
    use expect_test::expect;

    use super::*;

    #[test]
    fn how_many_times_as_much_is_read_exactly() {
        let read = |text: &str| text.parse::<Load>().map(|load| load.0).ok();
        for (text, percent) in [("x2", 200), ("x1.5", 150), ("x0.25", 25), ("x100", 10_000), ("x1.05", 105)] {
            assert_eq!(read(text), Some(percent), "{text}");
        }
        for text in ["2", "x", "x0", "x-1", "x1.555", "x100.01", "x1.", "x.5", "x99999999999"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_workload_and_a_number_are_read() {
        let read = |text: &str| text.parse::<Scaled>().ok();
        assert_eq!(read("shop/cart=5"), Some(Scaled { workload: "shop/cart".to_owned(), allocations: 5 }));
        for text in ["shop/cart", "shop/cart=", "shop/cart=-1", "shop/cart=many"] {
            assert_eq!(read(text), None, "{text}");
        }
    }

    #[test]
    fn a_forecast_is_told_in_order_of_time_and_then_by_workload() {
        let moment = |after, kind, text: &str| Moment {
            after_ms: DurationMs(after),
            kind,
            text: text.to_owned(),
            workload: None,
            node: None,
        };
        let told = Forecast {
            took_ms: DurationMs(12_500),
            moments: vec![
                moment(10_000, MomentKind::NodeLost, "n1 is lost: it was silent for 10s"),
                moment(12_500, MomentKind::Serves, "a9 of `default/shop/cart` serves on n2"),
            ],
            workloads: vec![WorkloadForecast {
                workload: "default/shop/cart".parse().unwrap(),
                desired_before: 2,
                serving_before: 2,
                desired: 2,
                serving: 1,
                fewest: 0,
                down_ms: DurationMs(2_500),
                down_since_ms: None,
                whole_after_ms: None,
                waiting: Some("needs 64MiB; the freest of 1 node has 0B".to_owned()),
                allocations: Vec::new(),
                more: 0,
                kept: 1,
                started: 0,
                moved: 0,
                replaced: 0,
                ended: 0,
                lost: 1,
            }],
            untouched: 3,
            held_zones: vec!["b".to_owned()],
            ..Forecast::default()
        };
        let nothing = Forecast { untouched: 4, ..Forecast::default() };
        expect![[r#"
            AFTER  WHAT HAPPENS
            10.0s  n1 is lost: it was silent for 10s
            12.5s  a9 of `default/shop/cart` serves on n2

            WORKLOAD           SERVE       FEWEST  DOWN      WHOLE AFTER  KEPT  STARTED  MOVED  REPLACED  ENDED  LOST
            default/shop/cart  2/2 -> 1/2  0       for 2.5s               1     0        0      0         0      1
            `default/shop/cart` is not whole: needs 64MiB; the freest of 1 node has 0B
            the zone `b` is held: nothing of it is replaced until somebody says so
            nothing changes any more after 12.5s; 3 other workloads are as before

            nothing would change; 4 other workloads are as before
        "#]].assert_eq(&format!("{}\n{}", shown(&told), shown(&nothing)));
    }
}
