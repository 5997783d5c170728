//! The connections of clients that were handed to this worker.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_engine::GuestBody;
use dunlin_ingress::{Handed, HandedBody, HandedDoor, HandedEnd, Handling, Order, serve_handed};
use dunlin_model::{AllocationId, Name, NamespaceRoute};
use dunlin_protocol::{FromWorker, PassedToAgent};
use http::Request;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};

use crate::allocations::Allocations;
use crate::channel::Passing;
use crate::control::Agent;
use crate::data::{Answer, respond};

/// How long ended connections wait to be told of together.
const TELL_INTERVAL: Duration = Duration::from_millis(20);

/// How long connections may last when the agent has gone, which is as long as a request may take.
const OUTLIVE_TIME: Duration = Duration::from_secs(600);

/// The connections of clients that were handed to this worker.
pub(crate) struct Connections {
    allocations: Arc<Allocations>,
    passing: Arc<Passing>,
    doors: Mutex<Doors>,
    open: watch::Sender<usize>,
    ended: AtomicU32,
    has_ended: Notify,
}

#[derive(Default)]
struct Doors {
    by_namespace: BTreeMap<Name, Arc<HandedDoor>>,
    order: Option<Order>,
}

impl Connections {
    pub(crate) fn new(allocations: Arc<Allocations>, passing: Arc<Passing>) -> Self {
        let (open, has_ended) = (watch::Sender::new(0), Notify::new());
        Self { allocations, passing, doors: Mutex::default(), open, ended: AtomicU32::new(0), has_ended }
    }

    fn doors(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door(&self, namespace: Name) -> Arc<HandedDoor> {
        let mut doors = self.doors();
        let order = doors.order;
        let door = doors.by_namespace.entry(namespace).or_default();
        if let Some(order) = order {
            door.order(order);
        }
        Arc::clone(door)
    }

    /// Takes these routes for the requests of all connections that were handed off for `namespace`.
    pub(crate) fn set_routes(&self, namespace: Name, version: u64, routes: Vec<NamespaceRoute>) {
        self.door(namespace).set_routes(version, routes);
    }

    /// Has all connections end as `order` says, those that are still to come included.
    pub(crate) fn order(&self, order: Order) {
        let mut doors = self.doors();
        doors.order = Some(order);
        for door in doors.by_namespace.values() {
            door.order(order);
        }
    }

    /// Waits until the last connection has ended, though not for ever.
    pub(crate) async fn outlive(&self) {
        self.order(Order::Drain);
        let mut open = self.open.subscribe();
        let _late = tokio::time::timeout(OUTLIVE_TIME, open.wait_for(|open| *open == 0)).await;
    }

    /// Gives back all connections, and says so when none is left.
    pub(crate) async fn leave(&self) {
        self.order(Order::Leave);
        let mut open = self.open.subscribe();
        // An error would mean that this itself is gone.
        drop(open.wait_for(|open| *open == 0).await);
        if let Err(error) = self.passing.send(&PassedToAgent::Left, None).await {
            tracing::debug!(error = &error as &dyn std::error::Error, "agent is gone");
        }
    }

    /// Serves a connection until it ends.
    pub(crate) fn take(
        self: &Arc<Self>,
        stream: TcpStream,
        client: SocketAddr,
        namespace: Name,
        routes: u64,
    ) {
        let this = Arc::clone(self);
        self.open.send_modify(|open| *open += 1);
        tokio::spawn(async move {
            let _open = Open(&this.open);
            let door = this.door(namespace);
            door.wait_for_routes(routes).await;
            match serve_handed(stream, client, &door, &*this.allocations).await {
                HandedEnd::Closed => this.count_ended(),
                HandedEnd::GiveBack { stream, read } => {
                    let message = PassedToAgent::GiveBack { client, read };
                    if let Err(error) = this.passing.send(&message, Some(&stream)).await {
                        let error = &error as &dyn std::error::Error;
                        tracing::debug!(error, "connection not given back");
                        this.count_ended();
                    }
                }
            }
        });
    }

    /// Takes notice that a connection has ended, or never began.
    pub(crate) fn count_ended(&self) {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.has_ended.notify_one();
    }

    /// Tells of connections that have ended, for ever.
    pub(crate) async fn tell_ended(&self, agent: &Agent) {
        loop {
            self.has_ended.notified().await;
            tokio::time::sleep(TELL_INTERVAL).await;
            let connections = self.ended.swap(0, Ordering::Relaxed);
            if connections > 0 {
                agent.send(FromWorker::ConnectionsEnded { connections }).await;
            }
        }
    }
}

/// Counts one open connection, also if its task panics.
struct Open<'a>(&'a watch::Sender<usize>);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Handed for Allocations {
    type Body = GuestBody;

    fn has(&self, allocation: AllocationId) -> bool {
        self.serves(allocation)
    }

    async fn handle(&self, allocation: AllocationId, request: Request<HandedBody>) -> Handling<GuestBody> {
        match respond(self, allocation, request).await {
            Answer::Response(response) => Handling::Answered(response),
            Answer::Failed(failure) => Handling::Failed(failure),
            Answer::NotTaken(failure) => Handling::NotTaken(failure),
        }
    }
}
