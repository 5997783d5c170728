//! The one connection to the coordinator: kept up, heard, and used to fetch. Where no UDP comes through it goes over TCP,
//! until UDP does.
//!
//! Where a fleet has several coordinators all are dialed at once, and the one that is in charge welcomes the node; the
//! others only say that they are not.
//!
//! Losing it changes nothing on the node: what runs goes on, and the report says all again once it is back.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail};
use dunlin_model::{AllocationId, ClusterId, InstanceId, LogRecord, NodeId, NodeInfo, Report};
use dunlin_protocol::{
    Hello, LogQuery, RefusalCode, StreamReply, StreamRequest, ToAgent, ToCoordinator, TrapQuery, Version,
};
use dunlin_supervisor::Event;
use dunlin_transport::{Backoff, CloseCode, Connection, NodeEndpoint, RelayEnded, SendHalf, Stream};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::AsyncReadExt as _;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep, timeout};

use crate::certificate::Certificate;
use crate::driver::{Driver, Observed};
use crate::logs::Logs;

/// Reports that follow from changes keep at least this distance; a burst of changes makes one report.
const REPORT_PAUSE: Duration = Duration::from_millis(5);
/// How long after it said that it is not in charge a coordinator is asked again.
const NOT_IN_CHARGE_PAUSE: Duration = Duration::from_millis(500);
/// After how long a coordinator that has ended a relay is asked for it again.
const RELAY_PAUSE: Duration = Duration::from_secs(1);
/// After how long a coordinator that is reached by TCP is dialed by UDP again, twice as long each time,
const FIRST_UDP_PAUSE: Duration = Duration::from_secs(15);
/// and after this time at most.
const LAST_UDP_PAUSE: Duration = Duration::from_secs(15 * 60);
/// How often is looked whether a change to UDP was given up, when the way by TCP has ended meanwhile.
const CHANGE_LOOK: Duration = Duration::from_millis(50);
/// How long a coordinator may take until it welcomes this node, or says that it does not.
const WELCOME_TIME: Duration = Duration::from_secs(10);
/// How long who wants to fetch waits for a connection.
const CONNECTION_TIME: Duration = Duration::from_secs(5);
/// The most lines that one question for logs may ask for.
const MAX_TAIL: usize = 10_000;

/// The connection to the coordinator, as long as there is one.
#[derive(Clone)]
pub(crate) struct Link {
    connection: watch::Receiver<Option<Connection>>,
}

impl Link {
    /// Returns the connection to the coordinator; waits for one, but not long.
    pub(crate) async fn connected(&self) -> anyhow::Result<Connection> {
        let mut current = self.connection.clone();
        let connected = timeout(CONNECTION_TIME, current.wait_for(Option::is_some)).await;
        let connection = connected.ok().and_then(Result::ok).and_then(|connection| connection.clone());
        connection.context("the coordinator is not connected")
    }

    /// Opens a stream to the coordinator, and reads the answer's head: whether what was asked for follows, and its name.
    pub(crate) async fn fetch(&self, request: &StreamRequest) -> anyhow::Result<(Stream, Option<String>)> {
        Self::fetch_on(&self.connected().await?, request).await
    }

    /// The same on this connection and on no later one.
    pub(crate) async fn fetch_on(
        connection: &Connection,
        request: &StreamRequest,
    ) -> anyhow::Result<(Stream, Option<String>)> {
        let mut stream = connection.open(request).await?;
        stream.finish();
        match stream.receive_message::<StreamReply>().await?.context("the coordinator ended the stream")? {
            StreamReply::Ok { name, .. } => Ok((stream, name)),
            StreamReply::Error { message } => Err(Declined(message).into()),
        }
    }
}

/// What was asked for cannot be had from who was asked, as that says.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Declined(String);

/// What keeps the link up.
pub(crate) struct LinkKeeper {
    pub(crate) endpoint: Arc<NodeEndpoint>,
    pub(crate) certificate: Certificate,
    /// Where the coordinators are, each as `host:port`; one of them is in charge.
    pub(crate) coordinators: Vec<String>,
    pub(crate) cluster: ClusterId,
    pub(crate) node: NodeId,
    pub(crate) info: NodeInfo,
    /// Where other nodes reach this one, if the operator says so.
    pub(crate) advertise: Option<SocketAddr>,
    /// At which address this machine has reached its coordinator last.
    pub(crate) last_way_out: Mutex<Option<SocketAddr>>,
    pub(crate) driver: Driver,
    pub(crate) logs: Arc<Logs>,
    pub(crate) slot: LinkSlot,
}

impl LinkKeeper {
    /// Connects, serves the connection until it ends, and connects again, for ever.
    pub(crate) async fn run(self) {
        let mut welcomed = self.connect().await;
        let mut former: Option<Connection> = None;
        loop {
            let Welcomed { coordinator, address, connection, control, heartbeat } = welcomed;
            let over_tcp = connection.is_over_tcp();
            tracing::info!(coordinator, %address, over_tcp, "coordinator connected");
            self.slot.connection.send_replace(Some(connection.clone()));
            if let Some(former) = former.take() {
                former.close(CloseCode::DONE, "");
            }
            let better = {
                let is_changing = AtomicBool::new(false);
                let mut by_udp = pin!(self.by_udp(&coordinator, &connection, &is_changing));
                tokio::select! {
                    biased;
                    better = &mut by_udp => Some(better),
                    () = self.serve(&connection, control, heartbeat) => {
                        // The coordinator ends the one when it welcomes the other, which may be heard of later.
                        self.slot.connection.send_replace(None);
                        let given_up = async {
                            while is_changing.load(Ordering::Relaxed) {
                                sleep(CHANGE_LOOK).await;
                            }
                        };
                        tokio::select! {
                            biased;
                            better = by_udp => Some(better),
                            () = given_up => None,
                        }
                    }
                }
            };
            welcomed = match better {
                Some(better) => {
                    former = Some(connection);
                    better
                }
                None => {
                    self.slot.connection.send_replace(None);
                    connection.close(CloseCode::DONE, "");
                    tracing::warn!(coordinator, "coordinator lost; what runs goes on");
                    sleep(Backoff::new().next(random())).await;
                    self.connect().await
                }
            };
        }
    }

    /// Waits until a coordinator that is reached by TCP welcomes this node by UDP; `is_changing` is set while it may be about
    /// to.
    async fn by_udp(&self, coordinator: &str, connection: &Connection, is_changing: &AtomicBool) -> Welcomed {
        if !connection.is_over_tcp() {
            return std::future::pending().await;
        }
        let mut pause = FIRST_UDP_PAUSE;
        loop {
            sleep(pause).await;
            pause = LAST_UDP_PAUSE.min(pause * 2);
            let address = connection.remote_address();
            let welcomed = match self.endpoint.connect_coordinator_by_udp(address).await {
                Ok(connection) => {
                    is_changing.store(true, Ordering::Relaxed);
                    self.be_welcomed(coordinator, address, connection).await
                }
                Err(error) => Err(error.into()),
            };
            match welcomed {
                Ok(welcomed) => return welcomed,
                Err(error) => {
                    is_changing.store(false, Ordering::Relaxed);
                    let error = error.as_ref() as &dyn std::error::Error;
                    tracing::debug!(coordinator, error, "coordinator is not reached by UDP");
                }
            }
        }
    }

    /// Dials all coordinators, each again and again, and stays with the first that welcomes this node.
    async fn connect(&self) -> Welcomed {
        let mut dialing: FuturesUnordered<_> =
            self.coordinators.iter().map(|coordinator| self.dial(coordinator)).collect();
        loop {
            // None of them ends otherwise, and there is at least one.
            if let Some(welcomed) = dialing.next().await {
                return welcomed;
            }
        }
    }

    async fn dial(&self, coordinator: &str) -> Welcomed {
        let mut backoff = Backoff::new();
        loop {
            match self.connect_to(coordinator).await {
                Ok(welcomed) => return welcomed,
                // It is there, and may be in charge soon.
                Err(error) if error.downcast_ref::<NotInCharge>().is_some() => {
                    tracing::debug!(coordinator, "coordinator is not in charge");
                    sleep(NOT_IN_CHARGE_PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(
                        coordinator,
                        error = error.as_ref() as &dyn std::error::Error,
                        "coordinator not reached; will retry"
                    );
                    sleep(backoff.next(random())).await;
                }
            }
        }
    }

    async fn connect_to(&self, coordinator: &str) -> anyhow::Result<Welcomed> {
        let bound = self.endpoint.local_address();
        let address = resolve(coordinator, bound.ip()).await?;
        let mut connection = self.endpoint.connect_coordinator(address).await?;
        if self.certificate.ends_now() {
            self.certificate
                .renew(&connection)
                .await
                .context("this node's certificate has ended, or is about to")?;
            connection.close(CloseCode::DONE, "");
            connection = self.endpoint.connect_coordinator(address).await?;
        }
        self.be_welcomed(coordinator, address, connection).await
    }

    async fn be_welcomed(
        &self,
        coordinator: &str,
        address: SocketAddr,
        connection: Connection,
    ) -> anyhow::Result<Welcomed> {
        let hello = Hello {
            min_version: Version::MIN,
            max_version: Version::MAX,
            node: self.node.clone(),
            cluster: self.cluster.clone(),
            term: self.driver.observed().borrow().term,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let mut control = connection.open(&StreamRequest::Control(hello)).await?;
        let answer = timeout(WELCOME_TIME, control.receive_message::<ToAgent>());
        match answer.await.context("the coordinator did not answer the hello within 10s")?? {
            Some(ToAgent::Welcome { heartbeat_ms, .. }) => {
                // A coordinator of another program cannot make this one spin, or fall silent.
                let heartbeat = Duration::from_millis(heartbeat_ms.clamp(50, 60_000));
                Ok(Welcomed { coordinator: coordinator.to_owned(), address, connection, control, heartbeat })
            }
            Some(ToAgent::Refused { code: RefusalCode::NotInCharge, .. }) => Err(NotInCharge.into()),
            Some(ToAgent::Refused { code, message }) => {
                bail!("the coordinator refused ({code:?}): {message}")
            }
            Some(ToAgent::Assign(_) | ToAgent::Recorded { .. } | ToAgent::Heard { .. }) | None => {
                bail!("the coordinator said no welcome")
            }
        }
    }

    async fn serve(&self, connection: &Connection, control: Stream, heartbeat: Duration) {
        let (sender, mut receiver) = control.split();
        let hear = async {
            loop {
                match receiver.receive_message::<ToAgent>().await {
                    Ok(Some(message)) => self.hear(message),
                    Ok(None) => return,
                    Err(error) => {
                        tracing::debug!(
                            error = &error as &dyn std::error::Error,
                            "coordinator is not heard any more"
                        );
                        return;
                    }
                }
            }
        };
        tokio::select! {
            () = hear => {}
            () = self.report(sender, heartbeat) => {}
            () = self.answer(connection) => {}
            () = self.have_relayed(connection) => {}
            () = self.certificate.keep(connection) => {}
            _ = connection.closed() => {}
        }
    }

    fn hear(&self, message: ToAgent) {
        match message {
            ToAgent::Assign(assignment) => self.driver.assign(*assignment),
            ToAgent::Recorded { cluster, term, items } if cluster == self.cluster => {
                self.driver.tell(Event::Recorded { term, items });
            }
            ToAgent::Heard { cluster, term, sent, leases } if cluster == self.cluster => {
                self.driver.tell(Event::Heard { term, sent, leases });
            }
            ToAgent::Recorded { .. }
            | ToAgent::Heard { .. }
            | ToAgent::Welcome { .. }
            | ToAgent::Refused { .. } => {
                tracing::warn!("coordinator said something out of place");
            }
        }
    }

    /// Reports at every heartbeat, and soon after something changed.
    async fn report(&self, mut sender: SendHalf, heartbeat: Duration) {
        let mut observed = self.driver.observed();
        loop {
            let last = Instant::now();
            let report = self.compose(&observed.borrow_and_update().clone());
            if let Err(error) = sender.send_message(&ToCoordinator::Report(report)).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "report could not be sent");
                return;
            }
            match timeout(heartbeat, observed.changed()).await {
                // Either is a reason to report again.
                Ok(Ok(())) | Err(_) => {}
                // What was observed last is not what is: the agent is about to end.
                Ok(Err(_gone)) => std::future::pending().await,
            }
            tokio::time::sleep_until(last + REPORT_PAUSE).await;
        }
    }

    fn compose(&self, observed: &Observed) -> Report {
        // Both are asked each time: a clock may be set at any moment, and a machine may move.
        let clock_unset = self.endpoint.identity().has_no_clock();
        let peer = self.reached_at();
        Report {
            cluster: self.cluster.clone(),
            term: observed.term,
            generation: observed.generation,
            info: NodeInfo { clock_unset, peer, program: observed.program.clone(), ..self.info.clone() },
            sent: self.driver.now(),
            allocations: observed.allocations.clone(),
            items: observed.items.to_vec(),
        }
    }

    /// Has the coordinator relay for this node as long as they are connected.
    async fn have_relayed(&self, connection: &Connection) {
        loop {
            let ended = self.endpoint.relay_through(connection).await;
            // One of an earlier build does not relay, and will not while this connection lasts.
            if let RelayEnded::Refused { message } = ended {
                tracing::debug!(message, "the coordinator does not relay");
                return std::future::pending().await;
            }
            tracing::debug!(error = &ended as &dyn std::error::Error, "the coordinator relays no more");
            sleep(RELAY_PAUSE).await;
        }
    }

    /// Returns where others are to dial this node: where the operator says, else at the address by which it reaches the
    /// coordinator now.
    fn reached_at(&self) -> SocketAddr {
        let coordinator = self.slot.connection.borrow().as_ref().map(Connection::remote_address);
        let way_out = coordinator.and_then(|address| way_out(self.endpoint.local_address(), address).ok());
        let mut last = self.last_way_out.lock().unwrap_or_else(PoisonError::into_inner);
        // Without a network there is none for a while.
        *last = way_out.or(*last);
        self.advertise.or(*last).unwrap_or(self.info.peer)
    }

    /// Answers the streams that the coordinator opens.
    async fn answer(&self, connection: &Connection) {
        while let Ok(mut stream) = connection.accept().await {
            let logs = Arc::clone(&self.logs);
            tokio::spawn(async move {
                let answered = match stream.receive_request().await {
                    Ok(StreamRequest::Logs(query)) => send_logs(stream, logs, query).await,
                    Ok(StreamRequest::Traps(query)) => send_traps(stream, logs, query).await,
                    Ok(StreamRequest::CoreDump { instance }) => send_dump(stream, logs, instance).await,
                    Ok(_) => Ok(()),
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = answered {
                    tracing::debug!(error = error.as_ref() as &dyn std::error::Error, "stream ended early");
                }
            });
        }
    }
}

/// A coordinator that has welcomed this node.
struct Welcomed {
    coordinator: String,
    address: SocketAddr,
    connection: Connection,
    control: Stream,
    heartbeat: Duration,
}

/// What a coordinator says while another one is in charge, or none.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator is not in charge")]
struct NotInCharge;

/// Returns a random number; without randomness the waits are only less well spread.
fn random() -> u64 {
    let mut random = [0; 8];
    let _ = getrandom::fill(&mut random);
    u64::from_le_bytes(random)
}

/// Where the keeper puts the connection; made before the keeper, since others need the link first.
pub(crate) struct LinkSlot {
    connection: watch::Sender<Option<Connection>>,
}

#[cfg(test)]
impl LinkSlot {
    /// Gives a test's own connection to those who fetch.
    pub(crate) fn connect(&self, connection: Connection) {
        self.connection.send_replace(Some(connection));
    }
}

/// Returns a link, and the slot of the one who will keep it.
pub(crate) fn link() -> (Link, LinkSlot) {
    let (sender, connection) = watch::channel(None);
    (Link { connection }, LinkSlot { connection: sender })
}

/// Returns where the coordinator is at this moment, of its addresses one that a socket bound to `own` can reach.
pub(crate) async fn resolve(coordinator: &str, own: IpAddr) -> anyhow::Result<SocketAddr> {
    let mut found = tokio::net::lookup_host(coordinator)
        .await
        .with_context(|| format!("could not find the coordinator `{coordinator}`; it should be host:port"))?;
    found.find(|address| address.is_ipv4() == own.is_ipv4()).with_context(|| {
        format!("the coordinator's name `{coordinator}` has no address that {own} can reach")
    })
}

/// Returns the address under which the endpoint `bound` is seen from `address`.
fn way_out(bound: SocketAddr, address: SocketAddr) -> std::io::Result<SocketAddr> {
    if !bound.ip().is_unspecified() {
        return Ok(bound);
    }
    // Connecting a UDP socket sends nothing; it only asks the system for the way.
    let probe = std::net::UdpSocket::bind((bound.ip(), 0))?;
    probe.connect(address)?;
    Ok(SocketAddr::new(probe.local_addr()?.ip(), bound.port()))
}

async fn send_traps(mut stream: Stream, logs: Arc<Logs>, query: TrapQuery) -> anyhow::Result<()> {
    stream.send_message(&StreamReply::Ok { length: None, name: None }).await?;
    let found = tokio::task::spawn_blocking(move || logs.traps().find(&query));
    for trap in found.await? {
        stream.send_message(&trap).await?;
    }
    stream.finish();
    Ok(stream.send.delivered().await?)
}

async fn send_dump(mut stream: Stream, logs: Arc<Logs>, instance: InstanceId) -> anyhow::Result<()> {
    let reading = tokio::task::spawn_blocking(move || logs.dumps().read(instance));
    match reading.await? {
        Ok((file, length)) => {
            stream.send_message(&StreamReply::Ok { length: Some(length), name: None }).await?;
            tokio::io::copy(&mut tokio::fs::File::from_std(file).take(length), &mut stream.send).await?;
        }
        Err(error) => {
            tracing::debug!(%instance, %error, "core dump is not there");
            let message = format!("this node has no core dump of {instance}");
            stream.send_message(&StreamReply::Error { message }).await?;
        }
    }
    stream.finish();
    Ok(stream.send.delivered().await?)
}

async fn send_logs(mut stream: Stream, logs: Arc<Logs>, query: LogQuery) -> anyhow::Result<()> {
    // Subscribed before the files are read, so that no line falls between the two; one may be told twice.
    let mut live = logs.follow();
    stream.send_message(&StreamReply::Ok { length: None, name: None }).await?;
    let tail = usize::try_from(query.tail)?.min(MAX_TAIL);
    let (reader, allocations) = (Arc::clone(&logs), query.allocations.clone());
    let read = tokio::task::spawn_blocking(move || {
        allocations.into_iter().flat_map(|allocation| reader.tail(allocation, tail)).collect::<Vec<_>>()
    });
    let mut last: std::collections::BTreeMap<AllocationId, LogRecord> = std::collections::BTreeMap::new();
    for record in read.await? {
        stream.send_message(&record).await?;
        last.insert(record.instance.allocation, record);
    }
    if !query.follow {
        stream.finish();
        return Ok(stream.send.delivered().await?);
    }
    loop {
        let record = tokio::select! {
            record = live.recv() => record,
            // Whoever followed is gone: a stream that nobody reads must not be kept for a line that may never come.
            _ = stream.send.delivered() => return Ok(()),
        };
        match record {
            Ok(record) => {
                let allocation = record.instance.allocation;
                let is_wanted = query.allocations.contains(&allocation);
                if is_wanted && last.remove(&allocation).as_ref() != Some(&record) {
                    stream.send_message(&record).await?;
                }
            }
            Err(broadcast::error::RecvError::Lagged(lines)) => {
                tracing::debug!(lines, "a follower of logs is too slow; lines were dropped for it");
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        }
    }
}
