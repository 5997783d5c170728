//! The bench `fuel-rate`: whether a busy guest gets the rate that was promised to it, and what its calls should cost.
//!
//! Guests run in this process. Those that get less than they want are told by their meters to wait; those that together
//! want more than one thread gives share it in the ratio of their rates. Then the price of a call into the host, and of
//! the bytes that it moves, is compared with what a processor burns in the same time.

use std::sync::Arc;
use std::time::Duration;

use dunlin_engine::{Item, ItemEnd, Job};
use dunlin_host::{Access, BYTES_PER_FUEL, CALL_FUEL};
use dunlin_model::{
    AssignedAllocation, Bytes, DurationMs, Fuel, FuelRate, ItemRange, JobSpec, Limits, Metering, Outcome,
    RunId, Work, WorkloadKind,
};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::engine::{Rig, Silent, allocation, processor_time};
use crate::report::{Report, Row, Series};
use crate::warn;

/// How many rounds each figure has.
const ROUNDS: usize = 3;
/// How long a busy guest is watched.
const WATCHED: DurationMs = DurationMs(10_000);
/// What guests get that all find room.
const RATES: [u64; 3] = [20_000_000, 50_000_000, 100_000_000];
/// How far what a guest gets may be from its rate.
const RATE_BOUND: f64 = 0.05;
/// How far the shares of two guests may be from the ratio of their rates.
const SHARE_BOUND: f64 = 0.10;
/// By how much the rate of one of two guests is the higher one.
const SHARE: u64 = 3;
/// How often the loop of the calibration is run for what a step takes.
const STEPS: u32 = 20_000_000;
/// How many calls are made for what one takes.
const CALLS: u32 = 500_000;
/// How many bytes a call moves for what they take.
const MOVED: u32 = 4096;

/// Measures all of it, on threads of its own.
pub(crate) async fn run() -> anyhow::Result<Report> {
    tokio::task::spawn_blocking(measure).await?
}

fn measure() -> anyhow::Result<Report> {
    let mut report = Report::begin("fuel-rate")?;
    report.note("in one process; a busy guest is one that computes for ever");
    warn("measuring what busy guests get");
    let several = threads(2)?;
    report.add(several.block_on(rates())?);
    several.shutdown_background();
    // What guests share is a thread: a worker has one for each processor.
    let one = threads(1)?;
    warn("measuring how busy guests share a thread");
    report.add(one.block_on(shares())?);
    warn("measuring what calls take");
    report.add(one.block_on(prices())?);
    one.shutdown_background();
    report.end()
}

fn threads(count: usize) -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(count).enable_all().build()
}

/// Returns a figure as rows that must not be below, nor above, what was promised.
fn within(case: &str, unit: &'static str, series: &Series, (expected, bound): (f64, f64)) -> [Row; 2] {
    [
        Row::new(format!("{case}, at least"), unit, series).at_least(expected * (1.0 - bound)),
        Row::new(format!("{case}, at most"), unit, series).at_most(expected * (1.0 + bound)),
    ]
}

async fn rates() -> anyhow::Result<Vec<Row>> {
    let rig = Rig::new()?;
    let mut series = RATES.map(|_| Series::default());
    for _ in 0..ROUNDS {
        let burned = together(&rig, &RATES).await?;
        for ((series, burned), rate) in series.iter_mut().zip(burned).zip(RATES) {
            series.push(burned / number(rate));
        }
    }
    let rows = series.iter().zip(RATES).flat_map(|(series, rate)| {
        let case = format!("busy at {}, of its rate over {WATCHED}", FuelRate(rate));
        within(&case, "", series, (1.0, RATE_BOUND))
    });
    Ok(rows.collect())
}

async fn shares() -> anyhow::Result<Vec<Row>> {
    let rig = Rig::new()?;
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let one = dunlin_engine::calibrate()?.0 / threads;
    // Together they want twice what there is, and each wants more than its share.
    let lower = one / 2;
    let mut series = Series::default();
    for _ in 0..ROUNDS {
        let burned = together(&rig, &[lower, SHARE * lower]).await?;
        series.push(burned[1] / burned[0]);
    }
    let case = format!("two busy guests on one thread with rates of 1 to {SHARE}, their shares");
    Ok(within(&case, "", &series, (number(SHARE), SHARE_BOUND)).into())
}

/// Runs a busy guest for each of these rates, all at once, and returns what each burned in a second.
async fn together(rig: &Rig, rates: &[u64]) -> anyhow::Result<Vec<f64>> {
    let component = wat_job("", "", "(loop $again (br $again))")?;
    let mut guests = JoinSet::new();
    for (index, rate) in rates.iter().enumerate() {
        let rate = FuelRate(*rate);
        let burst = Limits::burst_of(rate);
        let number = u32::try_from(index)?;
        let job = job(rig, &component, number, |limits| Limits {
            fuel_rate: rate,
            fuel_burst: burst,
            deadline: WATCHED,
            ..limits
        });
        let job = job.await?;
        guests.spawn(async move { (index, run_item(&job).await) });
    }
    let mut burned = vec![0.0; rates.len()];
    while let Some(ended) = guests.join_next().await {
        let (index, end) = ended?;
        anyhow::ensure!(
            matches!(end.outcome, Outcome::DeadlineExceeded { .. }),
            "a busy guest ended: {}",
            end.outcome
        );
        burned[index] = number(end.fuel.0) / Duration::from(end.wall).as_secs_f64();
    }
    Ok(burned)
}

/// What a call into the host takes, and a byte that it moves, in the fuel that is burned in the same time.
async fn prices() -> anyhow::Result<Vec<Row>> {
    let rig = Rig::new()?;
    let steps = job(&rig, &calibration()?, 1, |limits| limits).await?;
    let calls = job(&rig, &clock_calls()?, 2, |limits| limits).await?;
    let empty = job(&rig, &writes(0)?, 3, |limits| limits).await?;
    let full = job(&rig, &writes(MOVED)?, 4, |limits| limits).await?;
    let (mut per_call, mut per_write, mut per_byte) = Default::default();
    for _ in 0..ROUNDS {
        let (time, burned) = timed(&steps).await?;
        let step = time / burned;
        let series: [&mut Series; 2] = [&mut per_call, &mut per_write];
        for (series, job) in series.into_iter().zip([&calls, &empty]) {
            let (time, burned) = timed(job).await?;
            // What the guest's own loop takes around its calls is paid for already.
            let own = burned - number(CALL_FUEL) * f64::from(CALLS);
            series.push((time / step - own) / f64::from(CALLS));
        }
        let bytes = f64::from(CALLS) * f64::from(MOVED);
        let ((more, _), (less, _)) = (timed(&full).await?, timed(&empty).await?);
        let price: &mut Series = &mut per_byte;
        price.push(bytes / ((more - less) / step));
    }
    Ok(vec![
        Row::new(format!("reading the clock, charged {CALL_FUEL}"), "fuel", &per_call),
        Row::new(format!("writing nothing to an output, charged {CALL_FUEL}"), "fuel", &per_write),
        Row::new(format!("writing, charged 1 fuel for {BYTES_PER_FUEL} bytes"), "bytes/fuel", &per_byte),
    ])
}

/// Runs a guest to its end and returns for how many nanoseconds a processor worked, and what it burned.
async fn timed(job: &Job) -> anyhow::Result<(f64, f64)> {
    let before = processor_time()?;
    let end = run_item(job).await;
    let took = processor_time()? - before;
    anyhow::ensure!(end.outcome == Outcome::Completed, "the guest ended: {}", end.outcome);
    Ok((took.as_secs_f64() * 1e9, number(end.fuel.0)))
}

async fn run_item(job: &Job) -> ItemEnd {
    job.run_item(Item { number: 0, arguments: Vec::new(), input: None }).await
}

async fn job(
    rig: &Rig,
    component: &[u8],
    number: u32,
    limits: impl Fn(Limits) -> Limits,
) -> anyhow::Result<Job> {
    let loaded = rig.load_as(component, Metering::Fuel).await?;
    let allocated = allocation(number, Default::default())?;
    let mut spec = allocated.spec;
    let own = Arc::make_mut(&mut spec);
    own.kind = WorkloadKind::Job(JobSpec { attempts: 1, ..JobSpec::default() });
    own.limits = limits(Limits {
        fuel: Fuel(1_000_000_000_000_000),
        deadline: DurationMs(600_000),
        host_calls: 10_000_000,
        host_call_burst: 10_000_000,
        host_call_bytes: Bytes(1 << 20),
        ..own.limits
    });
    let range = ItemRange { start: 0, end: 1 };
    let work = Work::Items { run: RunId::new(1), range, attempt: 1, combine: false, inputs: false };
    let allocated = AssignedAllocation { spec, work, ..allocation(number, Default::default())? };
    Ok(Job::new(&loaded, &allocated, &"node-1".parse()?, Arc::new(Silent), &Access::none()).await?)
}

/// Returns a job: `before` of its component, `imports` of its module, and the instructions of its `run`.
fn wat_job(before: &str, imports: &str, run: &str) -> anyhow::Result<Vec<u8>> {
    let with = if imports.is_empty() { "" } else { "(with \"host\" (instance $host))" };
    Ok(wat::parse_str(format!(
        r#"(component
            {before}
            (core module $code
                {imports}
                (func (export "run") (result i32)
                    (local $i i32)
                    (local $output i32)
                    {run}
                    i32.const 0))
            (core instance $instance (instantiate $code {with}))
            (func $run (result (result)) (canon lift (core func $instance "run")))
            (instance $exported (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $exported)))"#
    ))?)
}

/// Returns instructions that do `body` for every call that is measured.
fn repeated(body: &str) -> String {
    format!(
        "(local.set $i (i32.const {CALLS}))
        (loop $again
            {body}
            (br_if $again (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
    )
}

/// Runs the loop by which a node's fuel rate is measured.
fn calibration() -> anyhow::Result<Vec<u8>> {
    let module = include_str!("../../../runtime/engine/src/calibration.wat");
    let module = module.replacen("(module", "(core module $calibration", 1);
    let before = format!("{module} (core instance $host (instantiate $calibration))");
    let imports = r#"(import "host" "run" (func $run (param i32) (result i32)))"#;
    wat_job(&before, imports, &format!("(drop (call $run (i32.const {STEPS})))"))
}

fn clock_calls() -> anyhow::Result<Vec<u8>> {
    let before = r#"
        (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock (export "now" (func (result u64)))))
        (core func $now (canon lower (func $clock "now")))
        (core instance $host (export "now" (func $now)))"#;
    let imports = r#"(import "host" "now" (func $now (result i64)))"#;
    wat_job(before, imports, &repeated("(drop (call $now))"))
}

/// Writes so many bytes to standard output, again and again.
fn writes(bytes: u32) -> anyhow::Result<Vec<u8>> {
    let before = r#"
        (import "wasi:io/error@0.2.0" (instance $error (export "error" (type (sub resource)))))
        (alias export $error "error" (type $error))
        (import "wasi:io/streams@0.2.0" (instance $streams
            (export "output-stream" (type $output (sub resource)))
            (alias outer 1 $error (type $outer))
            (export "error" (type $error (eq $outer)))
            (type $failure (variant (case "last-operation-failed" (own $error)) (case "closed")))
            (export "stream-error" (type $stream-error (eq $failure)))
            (export "[method]output-stream.blocking-write-and-flush" (func
                (param "self" (borrow $output)) (param "contents" (list u8))
                (result (result (error $stream-error)))))))
        (alias export $streams "output-stream" (type $output))
        (import "wasi:cli/stdout@0.2.0" (instance $stdout
            (alias outer 1 $output (type $outer))
            (export "output-stream" (type $output (eq $outer)))
            (export "get-stdout" (func (result (own $output))))))
        (core module $room (memory (export "memory") 1))
        (core instance $room (instantiate $room))
        (core func $get (canon lower (func $stdout "get-stdout")))
        (core func $write (canon lower
            (func $streams "[method]output-stream.blocking-write-and-flush") (memory $room "memory")))
        (core instance $host (export "get" (func $get)) (export "write" (func $write)))"#;
    let imports = r#"
        (import "host" "get" (func $get (result i32)))
        (import "host" "write" (func $write (param i32 i32 i32 i32)))"#;
    let call = format!("(call $write (local.get $output) (i32.const 64) (i32.const {bytes}) (i32.const 0))");
    wat_job(before, imports, &format!("(local.set $output (call $get)) {}", repeated(&call)))
}

/// Returns a count as a figure.
#[expect(clippy::cast_precision_loss, reason = "a figure of a bench has no more than a few digits")]
fn number(count: u64) -> f64 {
    count as f64
}
