//! Jobs: one item, one fresh instance.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use dunlin_host::{Access, Capture, LogSink, Pipe, Stdin, Stdout};
use dunlin_model::{AssignedAllocation, Bytes, DurationMs, Fuel, HostCalls, NodeId, Outcome, Work};

use crate::code::{JobCode, Loaded};
use crate::engine::LoadError;
use crate::outcome::{Ending, trap_text};
use crate::sandbox::{Ended, Own, Sandbox, Usage};
use crate::wasi03;

/// One allocation of a job.
#[derive(Clone)]
pub struct Job {
    sandbox: Arc<Sandbox>,
    name: String,
    environment: Vec<(String, String)>,
    loaded: Loaded,
}

/// One item to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// Its number within the run.
    pub number: u32,
    /// The guest's arguments after its own name.
    pub arguments: Vec<String>,
    /// The file that becomes its standard input; empty if absent.
    pub input: Option<PathBuf>,
}

/// The standard streams of somebody who waits for what an instance writes.
#[derive(Debug)]
pub struct Streams {
    /// What it reads.
    pub stdin: tokio::fs::File,
    /// Where its standard output goes.
    pub stdout: Pipe,
    /// Where its standard error goes.
    pub stderr: Pipe,
}

/// What became of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ItemEnd {
    /// How it ended.
    pub outcome: Outcome,
    /// What it burned.
    pub fuel: Fuel,
    /// The most memory it held.
    pub memory: Bytes,
    /// How long it took.
    pub wall: DurationMs,
    /// What it asked of the host.
    pub host: HostCalls,
    /// What it wrote to standard output, at most `dunlin_model::MAX_ITEM_OUTPUT` bytes.
    pub output: String,
    /// Whether it wrote more.
    pub output_cut: bool,
}

impl ItemEnd {
    /// Returns the end of an item of which no instance has anything to tell.
    pub fn without_instance(outcome: Outcome) -> Self {
        Self {
            outcome,
            fuel: Fuel(0),
            memory: Bytes(0),
            wall: DurationMs(0),
            host: HostCalls::default(),
            output: String::new(),
            output_cut: false,
        }
    }
}

impl Job {
    /// Returns the job that runs `loaded` as `allocation` says.
    pub async fn new(
        loaded: &Loaded,
        allocation: &AssignedAllocation,
        node: &NodeId,
        sink: Arc<dyn LogSink>,
        access: &Access,
    ) -> Result<Self, LoadError> {
        loaded.looked_at().await?.job()?;
        let environment = match &allocation.work {
            Work::Serve => Vec::new(),
            Work::Items { run, attempt, .. } => vec![
                ("DUNLIN_RUN".to_owned(), run.to_string()),
                ("DUNLIN_ATTEMPT".to_owned(), attempt.to_string()),
            ],
        };
        let name = allocation.workload.workload.to_string();
        let sandbox = Arc::new(Sandbox::new(allocation, node, sink, access)?.dumping(loaded));
        Ok(Self { sandbox, name, environment, loaded: loaded.clone() })
    }

    /// Returns how many instances it may have at a time.
    pub fn concurrency(&self) -> u32 {
        self.sandbox.limits.concurrency.max(1)
    }

    /// Returns what its instances have used so far.
    pub fn usage(&self) -> Usage {
        self.sandbox.usage()
    }

    /// Begins no new item, gives those that run `grace` to end, then ends them.
    pub async fn stop(&self, grace: Duration) {
        self.sandbox.gate.close(grace).await;
    }

    /// Runs `item` in a fresh instance. If the returned future is dropped, the instance is ended.
    pub async fn run_item(&self, item: Item) -> ItemEnd {
        let Some(_permit) = self.sandbox.gate.enter_patiently().await else {
            return ItemEnd::without_instance(Outcome::Cancelled);
        };
        let stdin = match &item.input {
            None => Stdin::Empty,
            Some(path) => match tokio::fs::File::open(path).await {
                Ok(file) => Stdin::File(file),
                Err(error) => return not_started(format!("its input cannot be read: {error}")),
            },
        };
        let capture = Capture::default();
        let own = Own {
            arguments: self.arguments(item.arguments),
            environment: self.environment(item.number),
            stdin,
            stdout: Stdout::Capture(capture.clone()),
            stderr: Stdout::Log,
        };
        let end = self.run(own).await;
        let (output, output_cut) = capture.take();
        ItemEnd { output, output_cut, ..end }
    }

    /// Runs the first item in a fresh instance with the streams of somebody who waits for it. When this returns, they
    /// hold all that the instance wrote.
    pub async fn run_attached(&self, arguments: Vec<String>, streams: Streams) -> ItemEnd {
        let Some(_permit) = self.sandbox.gate.enter_patiently().await else {
            return ItemEnd::without_instance(Outcome::Cancelled);
        };
        let Streams { stdin, stdout, stderr } = streams;
        let own = Own {
            arguments: self.arguments(arguments),
            environment: self.environment(0),
            stdin: Stdin::File(stdin),
            stdout: Stdout::Pipe(stdout.clone()),
            stderr: Stdout::Pipe(stderr.clone()),
        };
        let end = self.run(own).await;
        stdout.flushed().await;
        stderr.flushed().await;
        end
    }

    fn arguments(&self, more: Vec<String>) -> Vec<String> {
        std::iter::once(self.name.clone()).chain(more).collect()
    }

    fn environment(&self, item: u32) -> Vec<(String, String)> {
        let mut environment = self.environment.clone();
        environment.push(("DUNLIN_ITEM".to_owned(), item.to_string()));
        environment
    }

    async fn run(&self, own: Own) -> ItemEnd {
        let linked = match self.loaded.linked().await {
            Ok(linked) => linked,
            Err(error) => return not_started(error.to_string()),
        };
        let mut instance = match self.sandbox.begin(&linked, self.loaded.gauge(), own) {
            Ok(instance) => instance,
            Err(error) => return not_started(trap_text(&error)),
        };
        let ending = {
            let (gauge, pause) = (instance.gauge.clone(), instance.pause.clone());
            let last_calls = instance.store.data().last_calls().clone();
            let call = pin!(async {
                match linked.job().map_err(wasmtime::Error::new)? {
                    JobCode::Wasi02(command) => {
                        let command = command.instantiate_async(&mut instance.store).await?;
                        command.wasi_cli_run().call_run(&mut instance.store).await
                    }
                    // Boxed, so that it takes no room in the futures of all others.
                    JobCode::Wasi03(command) => Box::pin(wasi03::run(&mut instance.store, command)).await,
                }
            });
            self.sandbox.until_end((&gauge, &pause), last_calls.during(call), std::future::pending()).await
        };
        let Ended { outcome, used, untold } =
            self.sandbox.end("item", &instance, &ending, |result| match result {
                Ok(()) => Outcome::Completed,
                Err(()) => Outcome::Exited { code: 1 },
            });
        if let (Some(untold), Ending::Returned(Err(error))) = (untold, ending) {
            // What is known of it comes before its end; others go on meanwhile.
            let told = tokio::task::spawn_blocking(move || untold.tell(&error, &mut instance.store));
            let _process_is_ending = told.await;
        }
        ItemEnd {
            fuel: used.fuel,
            memory: used.memory,
            wall: used.wall,
            host: used.host,
            ..ItemEnd::without_instance(outcome)
        }
    }
}

fn not_started(reason: String) -> ItemEnd {
    ItemEnd::without_instance(Outcome::NotStarted { reason })
}
