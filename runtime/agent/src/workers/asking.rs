//! What workers ask for on behalf of their guests: connections, addresses of names, and ways to services. A worker is not
//! believed: whose guest it is, and what that may have, is looked up here.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_ingress::Ingress;
use dunlin_model::{AllocationId, Name, WorkloadName};
use dunlin_protocol::{ConnectError, PassedToWorker};
use tokio::net::UnixStream;
use tokio::sync::OwnedSemaphorePermit;

use super::channel::Passing;
use super::{Asked, Workers};
use crate::egress::Wanted;

/// How long calls may take that are under way when the agent ends.
const CALL_TIME: Duration = Duration::from_secs(10);

impl Workers {
    /// Has `ingress` send calls of guests on. It is said once, since the ingress itself needs the workers.
    pub(crate) fn call_by(&self, ingress: Ingress) {
        let _known = self.shared.ingress.set(ingress);
    }

    /// Waits for the calls that are under way, though not for ever. From then on none is taken.
    pub(crate) async fn until_called(&self) {
        self.shared.calls.close();
        if tokio::time::timeout(CALL_TIME, self.shared.calls.wait()).await.is_err() {
            tracing::warn!("calls of guests were cut off by the end of the agent");
        }
        self.shared.calls_are_over.store(true, Ordering::Release);
    }

    /// Returns by which grant a worker may ask for something outbound on behalf of a guest, and how much of it; nothing
    /// if the guest is not its own.
    pub(super) fn asked(&self, namespace: &Name, process: u32, allocation: AllocationId) -> Option<Asked> {
        let running = self.running();
        let worker = running.by_namespace.get(namespace).filter(|worker| worker.process == process)?;
        Some((Arc::clone(worker.grants.get(&allocation)?), Arc::clone(&worker.asking)))
    }

    /// Makes an outbound connection, if the guest may have it, and returns the answer.
    pub(super) async fn connected(&self, asked: Option<Asked>, request: u64, wanted: Wanted<'_>) -> Passing {
        let connected = match &asked {
            None => Err(not_its_own()),
            Some((grant, asking)) => self.shared.config.egress.connect(asking, grant, wanted).await,
        };
        let (result, descriptor) = match connected.map(|(stream, address)| (stream.into_std(), address)) {
            Ok((Ok(stream), address)) => (Ok(address), Some(stream.into())),
            Ok((Err(error), _)) => (Err(ConnectError::NotConnected(error.to_string())), None),
            Err(error) => (Err(error), None),
        };
        Passing { descriptor, ..Passing::bare(PassedToWorker::Connected { request, result }) }
    }

    /// Asks for the addresses of a name, if the guest may have them, and returns the answer.
    pub(super) async fn resolved(&self, asked: Option<Asked>, request: u64, name: &str) -> Passing {
        let result = match &asked {
            None => Err(not_its_own()),
            Some((grant, asking)) => self.shared.config.egress.resolve(asking, grant, name).await,
        };
        Passing::bare(PassedToWorker::Resolved { request, result })
    }

    /// Lets one request of a guest go to a service, wherever that runs, and returns the answer.
    pub(super) fn called(&self, asked: Option<Asked>, request: u64, service: WorkloadName) -> Passing {
        let (result, descriptor, turn) = match self.way(asked, service) {
            Ok((theirs, turn)) => (Ok(()), Some(theirs.into()), Some(turn)),
            Err(error) => (Err(error), None, None),
        };
        Passing { descriptor, _turn: turn, ..Passing::bare(PassedToWorker::Called { request, result }) }
    }

    /// Returns the worker's end of a stream of which the ingress serves the other one.
    fn way(
        &self,
        asked: Option<Asked>,
        service: WorkloadName,
    ) -> Result<(std::os::unix::net::UnixStream, Arc<OwnedSemaphorePermit>), ConnectError> {
        let (grant, asking) = asked.ok_or_else(not_its_own)?;
        if self.shared.calls_are_over.load(Ordering::Acquire) {
            return Err(ConnectError::NotConnected("the agent is being started again".to_owned()));
        }
        let turn = Arc::new(self.shared.config.egress.call(&asking, &grant, &service)?);
        let ingress = self.shared.ingress.get().filter(|ingress| ingress.knows(&service));
        let ingress =
            ingress.ok_or_else(|| ConnectError::NotResolved(format!("there is no service `{service}`")))?;
        let failed = |error: std::io::Error| ConnectError::NotConnected(error.to_string());
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let (ingress, caller, until_answered) = (ingress.clone(), grant.workload.clone(), Arc::clone(&turn));
        self.shared.calls.spawn(async move {
            ingress.serve_call(Box::new(ours), &service, &caller).await;
            drop(until_answered);
        });
        Ok((theirs.into_std().map_err(failed)?, turn))
    }

    /// Queues a message for a worker, if it is still the one of its namespace.
    pub(super) fn pass(&self, namespace: &Name, process: u32, passing: Passing) {
        let running = self.running();
        if let Some(worker) = running.by_namespace.get(namespace).filter(|worker| worker.process == process) {
            // A worker that takes no messages has died, which is noticed by who attends it.
            let _dying = worker.passing.send(passing);
        }
    }
}

fn not_its_own() -> ConnectError {
    ConnectError::Denied("egress_denied: the allocation is not the worker's".to_owned())
}
