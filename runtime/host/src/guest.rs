//! What belongs to one instance on the host's side: the data of its store.

use std::sync::Arc;

use dunlin_model::{Bytes, InstanceId, LogSource};
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::cli::AsyncStdinStream;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::limiter::Limiter;
use crate::limits::{HOSTCALL_FUEL, MAX_FIELDS, MAX_RANDOM, MAX_RESOURCES};
use crate::logs::{Lines, Logs};
use crate::outbound_http::OutboundHttp;
use crate::stdio::{Capture, Output};

/// What an instance is given.
pub struct GuestSetup {
    /// Which instance it is.
    pub instance: InstanceId,
    /// Its arguments, the first of which is its own name.
    pub arguments: Vec<String>,
    /// Its environment, all of it.
    pub environment: Vec<(String, String)>,
    /// What it reads from standard input.
    pub stdin: Stdin,
    /// Where its standard output goes.
    pub stdout: Stdout,
    /// How much memory it may take.
    pub memory: Bytes,
    /// Where its log goes.
    pub logs: Arc<Logs>,
}

/// What an instance reads from standard input.
pub enum Stdin {
    /// Nothing.
    Empty,
    /// A file.
    File(tokio::fs::File),
}

/// Where the standard output of an instance goes.
pub enum Stdout {
    /// Into the log, by lines.
    Log,
    /// Into the output of an item.
    Capture(Capture),
}

/// One instance on the host's side.
pub struct Guest {
    instance: InstanceId,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    outbound_http: OutboundHttp,
    table: ResourceTable,
    limiter: Limiter,
    logs: Arc<Logs>,
    stdout: Output,
    stderr: Output,
}

impl Guest {
    /// Returns a store for one new instance, with every limit of this crate set.
    pub fn store(engine: &Engine, setup: GuestSetup) -> Store<Self> {
        let GuestSetup { instance, arguments, environment, stdin, stdout, memory, logs } = setup;
        let stdout = match stdout {
            Stdout::Log => Output::lines(Lines::new(logs.clone(), instance, LogSource::Stdout)),
            Stdout::Capture(capture) => Output::Capture(capture),
        };
        let stderr = Output::lines(Lines::new(logs.clone(), instance, LogSource::Stderr));

        // A new context has no files, no environment and empty input; networking is said to be off all the same.
        let mut wasi = WasiCtx::builder();
        wasi.args(&arguments)
            .envs(&environment)
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .max_random_size(MAX_RANDOM)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if let Stdin::File(file) = stdin {
            wasi.stdin(AsyncStdinStream::new(file));
        }
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(MAX_FIELDS);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_RESOURCES);

        let guest = Self {
            instance,
            wasi: wasi.build(),
            http,
            outbound_http: OutboundHttp,
            table,
            limiter: Limiter::new(memory),
            logs,
            stdout,
            stderr,
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(HOSTCALL_FUEL);
        store
    }

    /// Returns what it took of memory.
    pub fn limiter(&self) -> &Limiter {
        &self.limiter
    }

    /// Ends the lines that were begun and tells what was dropped: nothing more will come from this instance.
    pub fn end_output(&self) {
        self.stdout.flush_line();
        self.stderr.flush_line();
        self.logs.settle();
    }

    pub(crate) fn log_line(&mut self, source: LogSource, line: &[u8]) {
        self.logs.line(self.instance, source, line, false);
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outbound_http, table: &mut self.table, ctx: &mut self.http }
    }
}
