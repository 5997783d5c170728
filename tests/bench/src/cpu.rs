//! The bench `cpu`: guests that only compute, and what counting their steps costs.
//!
//! Each runs in this process on one thread, metered by fuel and by time with every limit on, and beside that as plain
//! wasmtime runs it, with its own fuel and with nothing. The figure is the time that a processor worked: what counts
//! epochs beside the guest is in it. All four run one after the other in every round.

use std::sync::Arc;

use dunlin_engine::{Item, Job};
use dunlin_guest_artifacts::{JSON, N_BODY, SHA256};
use dunlin_host::Access;
use dunlin_model::{
    AssignedAllocation, Bytes, DurationMs, Fuel, ItemRange, JobSpec, Limits, Metering, Outcome, RunId, Work,
    WorkloadKind,
};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, OptLevel, Store};
use wasmtime_wasi::p2::bindings::{Command, CommandPre};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::engine::{Rig, Silent, allocation, processor_time};
use crate::report::{Report, Row, Series};

/// How many rounds each figure has, after one that does not count.
const ROUNDS: usize = 9;
/// The most that fuel with all limits may cost more than wasmtime's own fuel.
const FUEL_BOUND: f64 = 1.03;
/// The most that metering by time may cost more than no metering.
const TIME_BOUND: f64 = 1.05;

const GUESTS: [(&str, &[u8]); 3] = [("sha256 of 64 MiB", SHA256), ("n-body", N_BODY), ("parsing JSON", JSON)];

/// Measures all of it, on a thread of its own.
pub(crate) async fn run() -> anyhow::Result<Report> {
    tokio::task::spawn_blocking(measure).await?
}

fn measure() -> anyhow::Result<Report> {
    let mut report = Report::begin("cpu")?;
    report.note("in one process, on one thread: the time that a processor worked for one run of a guest");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let rig = Rig::new()?;
        for (name, component) in GUESTS {
            report.add(guest(&rig, name, component).await?);
        }
        anyhow::Ok(())
    })?;
    report.end()
}

async fn guest(rig: &Rig, name: &str, component: &[u8]) -> anyhow::Result<[Row; 3]> {
    let ours = [job(rig, component, Metering::Fuel).await?, job(rig, component, Metering::Time).await?];
    let plain = [Plain::new(component, true)?, Plain::new(component, false)?];
    let (mut by_fuel, mut by_time) = (Series::default(), Series::default());
    let (mut plain_fuel, mut plain_none) = (Series::default(), Series::default());
    for round in 0..=ROUNDS {
        let figures = [
            timed(run_job(&ours[0])).await?,
            timed(plain[0].run()).await?,
            timed(run_job(&ours[1])).await?,
            timed(plain[1].run()).await?,
        ];
        if round > 0 {
            let all = [&mut by_fuel, &mut plain_fuel, &mut by_time, &mut plain_none];
            all.into_iter().zip(figures).for_each(|(series, figure)| series.push(figure));
        }
    }
    Ok([
        Row::new(format!("{name}, metered by fuel"), "ms", &by_fuel)
            .against("wasmtime with fuel", &plain_fuel)
            .ratio_at_most(FUEL_BOUND),
        Row::new(format!("{name}, metered by time"), "ms", &by_time)
            .against("wasmtime, no metering", &plain_none)
            .ratio_at_most(TIME_BOUND),
        Row::new(format!("{name}, what fuel itself costs"), "ms", &plain_fuel)
            .against("wasmtime, no metering", &plain_none),
    ])
}

async fn timed(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<f64> {
    let before = processor_time()?;
    run.await?;
    Ok((processor_time()? - before).as_secs_f64() * 1e3)
}

async fn job(rig: &Rig, component: &[u8], metering: Metering) -> anyhow::Result<Job> {
    let loaded = rig.load_as(component, metering).await?;
    let AssignedAllocation { mut spec, .. } = allocation(1, Default::default())?;
    let kind = WorkloadKind::Job(JobSpec { attempts: 1, ..JobSpec::default() });
    let limits = Limits {
        memory: Bytes(512 << 20),
        fuel: Fuel(1_000_000_000_000),
        deadline: DurationMs(600_000),
        concurrency: 1,
        ..spec.limits
    };
    let own = Arc::make_mut(&mut spec);
    (own.kind, own.limits, own.metering) = (kind, limits, metering);
    let range = ItemRange { start: 0, end: 1 };
    let work = Work::Items { run: RunId::new(1), range, attempt: 1, combine: false, inputs: false };
    let allocation = AssignedAllocation { spec, work, ..allocation(1, Default::default())? };
    Ok(Job::new(&loaded, &allocation, &"node-1".parse()?, Arc::new(Silent), &Access::none()).await?)
}

async fn run_job(job: &Job) -> anyhow::Result<()> {
    let end = job.run_item(Item { number: 0, arguments: Vec::new(), input: None }).await;
    anyhow::ensure!(end.outcome == Outcome::Completed, "the guest ended: {}", end.outcome);
    Ok(())
}

/// A guest as plain wasmtime runs it.
struct Plain {
    engine: Engine,
    command: CommandPre<Host>,
    counts_fuel: bool,
}

struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Plain {
    fn new(component: &[u8], counts_fuel: bool) -> anyhow::Result<Self> {
        let mut config = Config::new();
        config.cranelift_opt_level(OptLevel::Speed).consume_fuel(counts_fuel);
        let engine = Engine::new(&config)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        let component = Component::new(&engine, component)?;
        let command = CommandPre::new(linker.instantiate_pre(&component)?)?;
        Ok(Self { engine, command, counts_fuel })
    }

    async fn run(&self) -> anyhow::Result<()> {
        let host = Host { wasi: WasiCtx::builder().build(), table: ResourceTable::new() };
        let mut store = Store::new(&self.engine, host);
        if self.counts_fuel {
            store.set_fuel(u64::MAX)?;
        }
        let command: Command = self.command.instantiate_async(&mut store).await?;
        let ended = command.wasi_cli_run().call_run(&mut store).await?;
        ended.map_err(|()| anyhow::anyhow!("the guest failed"))
    }
}
