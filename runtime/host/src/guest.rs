//! What belongs to one instance on the host's side: the data of its store.

use std::sync::Arc;

use dunlin_model::{Fuel, HostCalls, InstanceId, Limits, LogSource};
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::HostFutureIncomingResponse;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::calls::{self, Calls, Slice};
use crate::capability::{Files, FilesView, Granted, Names, OutboundHttp, SocketsView, is_open_socket};
use crate::denials::{Denial, Denials};
use crate::host_calls::LastCalls;
use crate::limiter::Limiter;
use crate::limits::MAX_HANDLES_OF_WASI_03;
use crate::logs::{Lines, Logs};
use crate::metered::{Random, Streams};
use crate::pipe::Pipe;
use crate::stdin::Input;
use crate::stdio::{Capture, Output};
use crate::wasi03::Denied;

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
    /// Where its standard error goes.
    pub stderr: Stdout,
    /// What it may use at most.
    pub limits: Limits,
    /// How it is stopped where fuel is counted; nothing if its fuel is not.
    pub slice: Option<Slice>,
    /// Where its log goes.
    pub logs: Arc<Logs>,
    /// What its allocation is granted.
    pub granted: Arc<Granted>,
}

/// What of an instance's use its allocation's meters know already.
#[derive(Clone, Copy, Debug, Default)]
pub struct Told {
    /// Fuel burned.
    pub fuel: Fuel,
    /// Calls into the host.
    pub calls: u64,
}

/// What an instance reads from standard input.
pub enum Stdin {
    /// Nothing.
    Empty,
    /// A file.
    File(tokio::fs::File),
}

/// Where one of the two output streams of an instance goes.
pub enum Stdout {
    /// Into the log, by lines.
    Log,
    /// Into the output of an item.
    Capture(Capture),
    /// To who waits for it, as it is.
    Pipe(Pipe),
}

/// One instance on the host's side.
pub struct Guest {
    instance: InstanceId,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    granted: Arc<Granted>,
    files: Files,
    outbound_http: OutboundHttp,
    denied: Option<Box<Denied>>,
    names: Names,
    table: ResourceTable,
    limits: Limits,
    limiter: Limiter,
    pub(crate) calls: Calls,
    last_calls: LastCalls,
    told: Told,
    logs: Arc<Logs>,
    stdout: Output,
    stderr: Output,
}

impl Guest {
    /// Returns a store for one new instance, with every limit of this crate set.
    pub fn store(engine: &Engine, setup: GuestSetup) -> Store<Self> {
        let GuestSetup { instance, arguments, environment, stdin, stdout, stderr, .. } = setup;
        let GuestSetup { limits, slice, logs, granted, .. } = setup;
        let output = |to, source| match to {
            Stdout::Log => Output::lines(Lines::new(logs.clone(), instance, source)),
            Stdout::Capture(capture) => Output::Capture(capture),
            Stdout::Pipe(pipe) => Output::Pipe(pipe),
        };
        let (stdout, stderr) = (output(stdout, LogSource::Stdout), output(stderr, LogSource::Stderr));

        // A new context has no files, no environment and empty input; networking is said to be off all the same.
        let mut wasi = WasiCtx::builder();
        wasi.args(&arguments)
            .envs(&environment)
            .stdout(stdout.clone())
            .stderr(stderr.clone())
            .max_random_size(limits.random_bytes.0)
            .allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if let Stdin::File(file) = stdin {
            wasi.stdin(Input::new(file));
        }
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(count(limits.header_bytes.0));
        let guest = Self {
            instance,
            wasi: wasi.build(),
            http,
            outbound_http: OutboundHttp::new(Arc::clone(&granted.outbound), instance, logs.clone()),
            granted,
            files: Files::default(),
            denied: None,
            names: Names::default(),
            table: ResourceTable::new(),
            limits,
            limiter: Limiter::new(&limits),
            calls: Calls::new(slice.as_ref().map(|slice| slice.fuel)),
            last_calls: LastCalls::default(),
            told: Told::default(),
            logs,
            stdout,
            stderr,
        };
        let mut store = Store::new(engine, guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(count(limits.host_call_bytes.0));
        let mut handles = limits.handles;
        if let Some(table) = store.concurrent_resource_table() {
            handles = handles.min(MAX_HANDLES_OF_WASI_03);
            table.set_max_capacity(handles as usize);
            store.data_mut().limits.handles = handles;
        }
        store.data_mut().table.set_max_capacity(handles as usize);
        store.set_max_component_handles(handles as usize);
        calls::watch(&mut store, slice.map(|slice| slice.ended));
        store
    }

    /// Gives the instance in `store` so much fuel to burn from now on, if its fuel is counted.
    pub fn set_fuel(store: &mut Store<Self>, fuel: Fuel) -> wasmtime::Result<()> {
        calls::set_fuel(store, fuel)
    }

    /// Begins a new account for the next request of a reused instance.
    pub fn begin_again(&mut self, instance: InstanceId) {
        self.instance = instance;
        self.outbound_http.begin_again(instance);
        self.limiter.reset();
        self.calls.reset();
        self.last_calls.clear();
        self.stderr.forget_lines();
        self.told = Told::default();
    }

    /// Says how many services the request that it answers has come through.
    pub fn set_hops(&mut self, hops: u32) {
        self.outbound_http.set_hops(hops);
    }

    /// Returns what its allocation's meters know of it.
    pub fn told(&self) -> Told {
        self.told
    }

    /// Takes note of what its allocation's meters know of it now.
    pub fn tell(&mut self, told: Told) {
        self.told = told;
    }

    /// Takes note of a refusal.
    pub fn deny(&mut self, denial: Denial) {
        self.limiter.denials.note(denial);
    }

    /// Says that wasmtime itself calls the host, since time has passed, and returns what the guest has asked for so
    /// far.
    pub fn tick(&mut self) -> HostCalls {
        self.calls.disown();
        self.calls.count()
    }

    /// Returns how many handles to things of the host it holds.
    pub fn handles(&mut self) -> usize {
        self.table.iter_mut().count()
    }

    /// Tells whether it holds the body of a message that it has not finished, waits for a response of another, or
    /// has a socket that is connected or on its way to be.
    pub fn has_open_exchange(&mut self) -> bool {
        self.table.iter_mut().any(|thing| {
            thing.is::<HostOutgoingBody>()
                || thing.is::<HostFutureIncomingResponse>()
                || is_open_socket(thing)
        })
    }

    /// Returns what it asked of the host.
    pub fn host_calls(&self) -> HostCalls {
        self.calls.count()
    }

    /// Returns its last calls into the host.
    pub fn last_calls(&self) -> &LastCalls {
        &self.last_calls
    }

    /// Returns its last lines on standard error, unless somebody else has them.
    pub fn last_lines(&self) -> Vec<String> {
        self.stderr.last_lines()
    }

    /// Returns what it was refused.
    pub fn denials(&self) -> &Denials {
        &self.limiter.denials
    }

    /// Returns what it may use at most.
    pub fn limits(&self) -> &Limits {
        &self.limits
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
        self.calls.moved(line.len());
        self.logs.line(self.instance, source, line, false);
    }

    pub(crate) fn granted(&self) -> &Granted {
        &self.granted
    }

    pub(crate) fn files(&mut self) -> FilesView<'_> {
        let wasi = WasiCtxView { ctx: &mut self.wasi, table: &mut self.table };
        FilesView::new(wasi, (&mut self.files, &mut self.calls), &self.granted, self.instance)
    }

    pub(crate) fn sockets(&mut self) -> SocketsView<'_> {
        SocketsView::new((&mut self.table, &mut self.calls), &mut self.outbound_http, &mut self.names)
    }

    pub(crate) fn streams(&mut self) -> Streams<'_> {
        Streams { table: &mut self.table, calls: &mut self.calls }
    }

    pub(crate) fn denied(&mut self) -> (&mut Denied, &mut ResourceTable) {
        (self.denied.get_or_insert_default().as_mut(), &mut self.table)
    }

    pub(crate) fn random(&mut self) -> Random<'_> {
        Random {
            random: self.wasi.random(),
            calls: &mut self.calls,
            denials: &mut self.limiter.denials,
            most: self.limits.random_bytes,
        }
    }
}

/// Returns a number of bytes as wasmtime wants it; none that a manifest can name is too large for it.
fn count(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
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
