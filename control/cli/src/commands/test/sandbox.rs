//! Runs the tests of one workload: a service answers real requests behind the front door of a node, a job reads an item.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use dunlin_agent::{Solo, SoloConfig, SoloEnd, SoloGuest, SoloStreams};
use dunlin_model::{
    Feature, Fuel, Instances, LogRecord, Name, TestCase, TestContent, TestInput, WorkloadKind, WorkloadSpec,
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;
use tokio_util::sync::CancellationToken;

use super::super::alone::{source, unhindered};
use super::super::deploy::Built;
use super::judge::Observed;
use crate::error::CommandError;

/// The most bytes that are kept of what a guest gives.
const MAX_GIVEN: usize = 64 << 20;
/// How many lines of a guest's log are shown.
const LINES: usize = 20;
/// How much longer than its deadline a request may take, on its way.
const MARGIN: Duration = Duration::from_secs(5);
const FUEL_HEADER: &str = "dunlin-fuel";

/// A workload that is tested.
pub(super) struct Subject<'a> {
    guest: SoloGuest,
    folder: &'a Path,
    /// What a fleet would have to give it that nobody gives here.
    missing: Option<String>,
}

impl<'a> Subject<'a> {
    /// Returns the workload of that name, if its component is there.
    pub(super) fn new(built: &'a Built, name: &Name) -> Option<Self> {
        let spec = built.spec.workloads.get(name)?;
        let component = built.components.iter().find(|component| component.digest == spec.component)?;
        let guest = SoloGuest {
            name: name.clone(),
            component: component.path.clone(),
            bytes: Some(component.bytes.clone()),
            spec: tested(spec.clone(), &component.bytes),
        };
        Some(Self { guest, folder: &built.folder, missing: missing(spec) })
    }
}

/// Returns the spec of a workload as it is tested: what would end it is as in a fleet, what would slow it down is not.
fn tested(mut spec: WorkloadSpec, component: &[u8]) -> WorkloadSpec {
    spec.limits = unhindered(spec.limits);
    // What one test leaves behind must not change what the next one burns.
    spec.instances = Instances::Fresh;
    spec.node_labels.clear();
    Feature::set_labels(&mut spec.node_labels, dunlin_admission::needed_features(component));
    match &mut spec.kind {
        WorkloadKind::Service(service) => service.fuel_header = true,
        WorkloadKind::Job(job) => job.attempts = 1,
    }
    spec
}

/// Returns why a workload cannot be tested without a fleet.
fn missing(spec: &WorkloadSpec) -> Option<String> {
    let capabilities = &spec.capabilities;
    let what = match (capabilities.folders.is_empty(), capabilities.secrets.is_empty()) {
        (true, true) => return None,
        (false, _) => "folders, which a node offers",
        (true, false) => "secrets, which a fleet keeps",
    };
    Some(format!("not run: it is granted {what}; try it on `dunlin up`"))
}

/// Runs all tests of the workload, and tells of each what came of it, or why it was not run, and what was logged.
pub(super) async fn run_all(
    subject: Subject<'_>,
    config: SoloConfig,
    tests: Vec<(&Name, &TestCase)>,
    mut tell: impl FnMut(&Name, &TestCase, Result<Observed, String>, Vec<String>) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    if let Some(missing) = &subject.missing {
        return tests
            .into_iter()
            .try_for_each(|(name, case)| tell(name, case, Err(missing.clone()), Vec::new()));
    }
    let mut solo = None;
    for (name, case) in tests {
        let started = match solo.take() {
            Some(solo) => Ok(solo),
            None => Solo::start(config.clone(), subject.guest.clone()).await,
        };
        let mut running = match started {
            Ok(running) => running,
            Err(error) => {
                tell(name, case, Err(format!("not run: {}", chain(&error.into()))), Vec::new())?;
                continue;
            }
        };
        let mut logs = running.logs();
        let mut printed = Vec::new();
        let observed = run_one(&mut running, &subject, case, &mut printed).await;
        // After anything else its worker may be gone; an item has ended with its run.
        let is_well = matches!(observed, Ok(Observed::Response { status: ..=499, .. }));
        printed.extend(lines(&mut logs));
        tell(name, case, observed.map_err(|error| chain(&error)), printed)?;
        if is_well {
            solo = Some(running);
        } else {
            running.end_now().await;
        }
    }
    if let Some(solo) = solo {
        solo.end_now().await;
    }
    Ok(())
}

/// Runs one test; what a job prints on standard error is added to `printed`.
async fn run_one(
    solo: &mut Solo,
    subject: &Subject<'_>,
    case: &TestCase,
    printed: &mut Vec<String>,
) -> anyhow::Result<Observed> {
    match &case.input {
        TestInput::Request { method, path, headers, body } => {
            let body = bytes_of(body, subject.folder)?;
            let mut request = http::Request::builder().method(method.as_str()).uri(path.as_str());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let request = request.body(Full::new(body)).context("no such request can be sent")?;
            let deadline = Duration::from(subject.guest.spec.limits.deadline) + MARGIN;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = listener.local_addr()?;
            tokio::select! {
                () = solo.serve(listener, CancellationToken::new()) => anyhow::bail!("the service has ended"),
                answer = tokio::time::timeout(deadline, ask(address, request)) => {
                    answer.with_context(|| format!("no whole answer within {deadline:?}"))?
                }
            }
        }
        TestInput::Item { input } => item(solo, subject.folder, input, printed).await,
    }
}

/// Sends one request on a connection of its own.
async fn ask(address: SocketAddr, mut request: http::Request<Full<Bytes>>) -> anyhow::Result<Observed> {
    let headers = request.headers_mut();
    // What a body burned is only known at its end, and told in a trailer to those who want to hear it.
    headers.insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    if !headers.contains_key(http::header::HOST) {
        headers.insert(http::header::HOST, http::HeaderValue::from_str(&address.to_string())?);
    }
    let stream = TcpStream::connect(address).await.context("could not reach the service")?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .context("could not reach the service")?;
    // It ends with the sender.
    tokio::spawn(connection);
    let response = sender.send_request(request).await.context("the service did not answer")?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_GIVEN).collect().await;
    let body = body.map_err(|error| anyhow::anyhow!("the body was not whole: {error}"))?;
    let told = head.headers.get(FUEL_HEADER).or_else(|| body.trailers()?.get(FUEL_HEADER)).cloned();
    let fuel = told.and_then(|value| value.to_str().ok()?.parse().ok()).map(Fuel);
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.to_string()).and_modify(|all| *all = format!("{all}, {value}")).or_insert(value);
    }
    Ok(Observed::Response { status: head.status.as_u16(), headers, body: body.to_bytes().to_vec(), fuel })
}

async fn item(
    solo: &mut Solo,
    folder: &Path,
    input: &TestContent,
    printed: &mut Vec<String>,
) -> anyhow::Result<Observed> {
    let (stdout, stdout_end) = kept()?;
    let (stderr, stderr_end) = kept()?;
    let arguments = match input {
        TestContent::File(path) => vec![path.clone()],
        TestContent::Empty | TestContent::Text(_) => Vec::new(),
    };
    let streams = SoloStreams { stdin: stdin(input, folder)?, stdout: stdout_end, stderr: stderr_end };
    let ended = solo.run(arguments, streams).await;
    let SoloEnd { outcome, fuel, .. } = ended?;
    let stderr = stderr.await.context("what it printed could not be read")??;
    let stderr = String::from_utf8_lossy(&stderr);
    let all: Vec<&str> = stderr.lines().collect();
    printed.extend(all.iter().skip(all.len().saturating_sub(LINES)).map(|line| format!("stderr: {line}")));
    let stdout = stdout.await.context("what it printed could not be read")??;
    Ok(Observed::End { outcome, stdout, fuel })
}

/// Returns a pipe's end to write to, and what tells what was written.
fn kept() -> io::Result<(tokio::task::JoinHandle<io::Result<Vec<u8>>>, OwnedFd)> {
    let (mut reader, writer) = io::pipe()?;
    let reading = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        (&mut reader).take(MAX_GIVEN as u64).read_to_end(&mut bytes)?;
        // Who prints more is not stopped by it.
        io::copy(&mut reader, &mut io::sink())?;
        Ok(bytes)
    });
    Ok((reading, writer.into()))
}

fn stdin(input: &TestContent, folder: &Path) -> anyhow::Result<OwnedFd> {
    let open = |path: &Path| {
        File::open(path).map(OwnedFd::from).with_context(|| format!("could not read {}", path.display()))
    };
    match input {
        TestContent::Empty => open(Path::new("/dev/null")),
        TestContent::File(path) => open(&folder.join(path)),
        TestContent::Text(text) => {
            let (reader, mut writer) = io::pipe()?;
            let text = text.clone();
            tokio::task::spawn_blocking(move || {
                // A guest need not read it all.
                let _nobody_reads = writer.write_all(text.as_bytes());
            });
            Ok(reader.into())
        }
    }
}

fn bytes_of(content: &TestContent, folder: &Path) -> anyhow::Result<Bytes> {
    match content {
        TestContent::Empty => Ok(Bytes::new()),
        TestContent::Text(text) => Ok(Bytes::from(text.clone())),
        TestContent::File(path) => {
            let path = folder.join(path);
            let read = std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
            Ok(read.into())
        }
    }
}

/// Returns the last lines that were logged.
fn lines(logs: &mut Receiver<LogRecord>) -> Vec<String> {
    let mut lines = VecDeque::new();
    loop {
        match logs.try_recv() {
            Ok(record) => lines.push_back(format!("{}: {}", source(record.source), record.text)),
            Err(TryRecvError::Lagged(_)) => {}
            Err(TryRecvError::Empty | TryRecvError::Closed) => break,
        }
        if lines.len() > LINES {
            lines.pop_front();
        }
    }
    lines.into()
}

fn chain(error: &anyhow::Error) -> String {
    format!("{error:#}")
}
