//! A worker on a thread of the test, the agent's ends of its sockets, and a client for its services.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_compiled::{CodeKey, Platform};
use dunlin_descriptors::Channel;
use dunlin_engine::CompileError;
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes as Size, Digest, DurationMs, Fuel, ItemRange, JobSpec, Limits,
    LogRecord, Revision, RunId, ServiceSpec, Work, WorkloadKind, WorkloadSpec,
};
use dunlin_protocol::{
    FromWorker, PassedToWorker, ToWorker, WallSetup, WorkerSetup, decode, encode, frame_length,
};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long anything may take. Only a test that fails waits as long.
const PATIENCE: Duration = Duration::from_secs(120);

const KEY: CodeKey = CodeKey([7; 32]);
const PLATFORM: Platform = Platform([8; 32]);

pub(crate) const ALLOCATION: AllocationId = AllocationId::new(1);

pub(crate) const LIMITS: Limits = Limits {
    memory: Size(16 << 20),
    fuel: Fuel(200_000_000),
    deadline: DurationMs(60_000),
    // Nothing here is slowed down; what is when it should be has tests of its own in the engine.
    fuel_rate: Limits::MAXIMUM.fuel_rate,
    fuel_burst: Limits::MAXIMUM.fuel_burst,
    host_calls: Limits::MAXIMUM.host_calls,
    host_call_burst: Limits::MAXIMUM.host_call_burst,
    ..Limits::SERVICE
};

pub(crate) struct Worker {
    pub(crate) folder: TempDir,
    control: UnixStream,
    pub(crate) channel: Arc<Channel>,
    messages: mpsc::UnboundedReceiver<FromWorker>,
    pub(crate) logs: Vec<LogRecord>,
}

impl Worker {
    /// Starts one on a thread of the test.
    pub(crate) async fn start() -> Self {
        Self::start_by(|control, channel| drop(std::thread::spawn(|| dunlin_worker::run(control, channel))))
            .await
    }

    /// Starts one that `begin` runs with the worker's ends of its sockets.
    pub(crate) async fn start_by(begin: impl FnOnce(UnixStream, OwnedFd)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (control, theirs) = UnixStream::pair().unwrap();
        let (channel, their_channel) = Channel::pair().unwrap();
        begin(theirs, their_channel);
        let mut incoming = control.try_clone().unwrap();
        let (sender, messages) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while let Some(message) = read(&mut incoming) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut worker = Self { folder, control, channel: Arc::new(channel), messages, logs: Vec::new() };
        let setup = WorkerSetup {
            namespace_concurrency: 256,
            coredump_size: dunlin_model::Bytes(16 << 20),
            processor_rate: dunlin_model::FuelRate(1_000_000_000),
            namespace: Some("tests".parse().unwrap()),
            node: "node-1".parse().unwrap(),
            code_key: KEY.0,
            platform: PLATFORM.0,
            folders: [].into(),
            scratch: Some(worker.path("scratch")),
            authorities: Vec::new(),
            // A worker on a thread has no wall: it would be one around the test.
            wall: WallSetup {
                user: None,
                folder: worker.folder.path().to_owned(),
                read: Vec::new(),
                write: Vec::new(),
                agent: std::process::id(),
                required: false,
            },
        };
        worker.send(&ToWorker::Setup(Box::new(setup)));
        worker.wait(|message| matches!(message, FromWorker::Ready).then_some(())).await;
        worker
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn send(&mut self, message: &ToWorker) {
        self.control.write_all(&encode(message).unwrap()).unwrap();
    }

    /// Waits for the message that `wanted` takes; keeps the logs that come before it.
    pub(crate) async fn wait<T>(&mut self, mut wanted: impl FnMut(&FromWorker) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let message = self.messages.recv().await.expect("the worker has ended");
                if let FromWorker::Logs { records } = &message {
                    self.logs.extend(records.clone());
                }
                if let Some(found) = wanted(&message) {
                    return found;
                }
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the message did not come")
    }

    /// Waits until a line with `text` was logged.
    pub(crate) async fn wait_for_log(&mut self, text: &str) {
        if self.logs.iter().any(|record| record.text.contains(text)) {
            return;
        }
        self.wait(|message| match message {
            FromWorker::Logs { records } => {
                records.iter().any(|record| record.text.contains(text)).then_some(())
            }
            _ => None,
        })
        .await;
    }

    /// Starts an allocation and returns why it did not start, if it did not, and whether that is final.
    pub(crate) async fn try_start(
        &mut self,
        component: &[u8],
        work: Work,
        limits: Limits,
    ) -> Result<(), (String, bool)> {
        let compiled = match self.compile(component) {
            Ok(compiled) => compiled,
            Err(CompileError::Refused(reason)) => return Err((reason, true)),
            Err(CompileError::Failed(reason)) => return Err((reason, false)),
        };
        self.try_start_compiled(compiled, allocation(component, work, limits)).await
    }

    /// Compiles as the agent's compiler does, and keeps the code as the agent does.
    pub(crate) fn compile(&self, component: &[u8]) -> Result<PathBuf, CompileError> {
        let digest = Digest::of(component);
        let path = self.path(&dunlin_compiled::file_name(PLATFORM, digest));
        if !path.exists() {
            let code = dunlin_engine::compile(component)?;
            let mac = dunlin_compiled::seal(KEY, PLATFORM, digest, &code);
            std::fs::write(&path, [mac.as_slice(), &code].concat()).unwrap();
        }
        Ok(path)
    }

    pub(crate) async fn try_start_compiled(
        &mut self,
        compiled: PathBuf,
        allocation: AssignedAllocation,
    ) -> Result<(), (String, bool)> {
        let allocation = Box::new(allocation);
        self.send(&ToWorker::Start { allocation, compiled, secrets: Default::default() });
        self.wait(|message| match message {
            FromWorker::Started { .. } => Some(Ok(())),
            FromWorker::NotStarted { reason, refused, .. } => Some(Err((reason.clone(), *refused))),
            _ => None,
        })
        .await
    }

    pub(crate) async fn serve(&mut self, component: &[u8], limits: Limits) {
        self.try_start(component, Work::Serve, limits).await.unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let request = Request::get(path).header("host", "hello.test").header("dunlin-allocation", "a1");
        let response = self.request(request.body(Full::default()).unwrap()).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    pub(crate) async fn request<B>(&self, request: Request<B>) -> Response<Incoming>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let answer = request_to(&self.channel, request);
        tokio::time::timeout(PATIENCE, answer).await.expect("the response did not come")
    }
}

pub(crate) async fn request_to<B>(channel: &Channel, request: Request<B>) -> Response<Incoming>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (stream, theirs) = tokio::net::UnixStream::pair().unwrap();
    let theirs = OwnedFd::from(theirs.into_std().unwrap());
    let message = &encode(&PassedToWorker::Proxied).unwrap()[4..];
    channel.send(message, Some(theirs.as_fd())).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    // The connection ends with its sender; the response's body keeps what it needs.
    sender.send_request(to_boxed(request)).await.unwrap()
}

fn to_boxed<B>(
    request: Request<B>,
) -> Request<impl Body<Data = Bytes, Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    request.map(|body| body.map_err(Into::into).boxed_unsync())
}

pub(crate) fn items() -> Work {
    let range = ItemRange { start: 0, end: 10 };
    Work::Items { run: RunId::new(3), range, attempt: 2, combine: false, inputs: true }
}

pub(crate) fn allocation(component: &[u8], work: Work, limits: Limits) -> AssignedAllocation {
    let kind = match work {
        Work::Serve => WorkloadKind::Service(ServiceSpec {
            allocations: 1,
            routes: Vec::new(),
            fuel_header: false,
            everywhere: false,
            rollout: Default::default(),
            health: None,
            on_partition: Default::default(),
        }),
        Work::Items { .. } => WorkloadKind::Job(JobSpec { attempts: 1, ..JobSpec::default() }),
    };
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    AssignedAllocation {
        id: ALLOCATION,
        workload: "tests/app/hello".parse().unwrap(),
        revision: Revision(4),
        spec: std::sync::Arc::new(WorkloadSpec {
            component: Digest::of(component),
            kind,
            limits,
            environment: [variable("COLOUR", "grey"), variable("DUNLIN_NODE", "forged")].into(),
            node_labels: [].into(),
            capabilities: Default::default(),
            instances: Default::default(),
            metering: Default::default(),
            coredump: false,
            signed: None,
            placement: Default::default(),
            priority: Default::default(),
        }),
        work,
    }
}

fn read(stream: &mut UnixStream) -> Option<FromWorker> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).ok()?;
    let mut body = vec![0; frame_length(prefix).unwrap()];
    stream.read_exact(&mut body).ok()?;
    Some(decode(&body).unwrap())
}
