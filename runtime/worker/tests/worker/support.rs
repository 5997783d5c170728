//! A worker on a thread of the test, its agent's end of the socket, and a client for its data socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use dunlin_engine::Compiler;
use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes as Size, Digest, DurationMs, Fuel, ItemRange, JobSpec, Limits,
    LogRecord, Revision, RunId, ServiceSpec, Work, WorkloadKind, WorkloadSpec,
};
use dunlin_protocol::{FromWorker, ToWorker, WorkerSetup, decode, encode, frame_length};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::sync::mpsc;

/// How long anything may take. Only a test that fails waits as long.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const ALLOCATION: AllocationId = AllocationId::new(1);

pub(crate) const LIMITS: Limits = Limits {
    memory: Size(16 << 20),
    fuel: Fuel(200_000_000),
    deadline: DurationMs(60_000),
    ..Limits::SERVICE
};

pub(crate) struct Worker {
    pub(crate) folder: TempDir,
    control: UnixStream,
    messages: mpsc::UnboundedReceiver<FromWorker>,
    pub(crate) logs: Vec<LogRecord>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Worker {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn start_in(folder: TempDir) -> Self {
        let (control, theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || dunlin_worker::run(theirs, Compiler::InProcess));
        let mut incoming = control.try_clone().unwrap();
        let (sender, messages) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while let Some(message) = read(&mut incoming) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut worker = Self { folder, control, messages, logs: Vec::new(), thread };
        let setup = WorkerSetup {
            namespace: "tests".parse().unwrap(),
            node: "node-1".parse().unwrap(),
            cache: worker.path("cache"),
            cache_key: [7; 32],
            data_socket: worker.path("data"),
        };
        worker.send(&ToWorker::Setup(setup));
        worker.wait(|message| matches!(message, FromWorker::Ready).then_some(())).await;
        worker
    }

    /// Closes the agent's end and returns the folder once the worker has ended.
    pub(crate) fn end(self) -> TempDir {
        self.control.shutdown(std::net::Shutdown::Both).unwrap();
        self.thread.join().unwrap().unwrap();
        self.folder
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
        let path = self.path(&Digest::of(component).hex());
        std::fs::write(&path, component).unwrap();
        let allocation = Box::new(allocation(component, work, limits));
        self.send(&ToWorker::Start { allocation, component: path });
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
        let socket = self.path("data");
        let answer = request_to(&socket, request);
        tokio::time::timeout(PATIENCE, answer).await.expect("the response did not come")
    }
}

pub(crate) async fn request_to<B>(socket: &Path, request: Request<B>) -> Response<Incoming>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = tokio::net::UnixStream::connect(socket).await.unwrap();
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
    Work::Items { run: RunId::new(3), range, attempt: 2, combine: false }
}

pub(crate) fn allocation(component: &[u8], work: Work, limits: Limits) -> AssignedAllocation {
    let kind = match work {
        Work::Serve => {
            WorkloadKind::Service(ServiceSpec { allocations: 1, routes: Vec::new(), fuel_header: false })
        }
        Work::Items { .. } => WorkloadKind::Job(JobSpec { parallelism: 1, attempts: 1, combine: false }),
    };
    let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    AssignedAllocation {
        id: ALLOCATION,
        workload: "tests/app/hello".parse().unwrap(),
        revision: Revision(4),
        spec: WorkloadSpec {
            component: Digest::of(component),
            kind,
            limits,
            environment: [variable("COLOUR", "grey"), variable("DUNLIN_NODE", "forged")].into(),
            node_labels: [].into(),
            capabilities: Default::default(),
            instances: Default::default(),
            metering: Default::default(),
        },
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
