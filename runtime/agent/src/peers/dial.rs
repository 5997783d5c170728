//! Dialing another node by the ways that there are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::NodeId;
use dunlin_transport::{ConnectError, Connection, NodeEndpoint};
use futures_util::future::{BoxFuture, Either, FutureExt as _, select};
use tokio::time::{sleep, timeout};

use super::way::{Plan, Way};

/// How often a relay is asked for a node that has not answered by it, or a relay is looked for.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How long the relayed way has after the direct one has failed.
const LAST_CHANCE: Duration = Duration::from_secs(2);

/// A way that is being tried.
pub(super) type Attempt = BoxFuture<'static, Result<Connection, ConnectError>>;

/// How a node was reached.
pub(super) struct Reached {
    pub(super) way: Way,
    pub(super) connection: Connection,
    /// The direct way, where the relayed one was faster and the direct one may answer yet.
    pub(super) slower: Option<Attempt>,
}

/// Why a node was not reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotReached {
    /// It is not there, for all that the relay knows, and there was no direct way a moment ago.
    #[error(transparent)]
    Absent(ConnectError),
    /// No way leads to it.
    #[error("directly: {direct}; through the coordinator: {relayed}")]
    Nowhere {
        /// Why the direct one does not.
        direct: ConnectError,
        /// Why the other one does not.
        relayed: String,
    },
    /// What has dialed it was ended.
    #[error("the dialing was broken off")]
    BrokenOff,
}

/// Begins to dial directly.
pub(super) fn directly(endpoint: &Arc<NodeEndpoint>, node: &NodeId, address: SocketAddr) -> Attempt {
    let (endpoint, node) = (Arc::clone(endpoint), node.clone());
    async move { endpoint.connect_peer(address, &node).await }.boxed()
}

/// Begins to dial through a relay. `is_patient` where there is nothing better to do than to ask it again: it may have to
/// come back itself, and so may the node.
fn relayed(endpoint: &Arc<NodeEndpoint>, node: &NodeId, is_patient: bool) -> Attempt {
    let (endpoint, node) = (Arc::clone(endpoint), node.clone());
    async move {
        loop {
            match endpoint.connect_relayed(&node).await {
                Err(ConnectError::Absent { .. } | ConnectError::NoRelay { .. }) if is_patient => {
                    sleep(ASK_AGAIN).await;
                }
                ended => return ended,
            }
        }
    }
    .boxed()
}

/// Dials `node` as `plan` says, until one of the ways has led to it or none is left.
pub(super) async fn dial(
    endpoint: &Arc<NodeEndpoint>,
    plan: Plan,
    node: &NodeId,
    address: SocketAddr,
) -> Result<Reached, NotReached> {
    let direct = directly(endpoint, node, address);
    match plan.first {
        Way::Direct => {
            let relayed = relayed(endpoint, node, true);
            match select(direct, sleep(plan.head_start).boxed()).await {
                Either::Left((Ok(connection), _)) => Ok(reached(Way::Direct, connection)),
                Either::Left((Err(error), _)) => last_chance(error, relayed).await,
                Either::Right(((), direct)) => race(direct, relayed).await,
            }
        }
        Way::Relayed => {
            // Where the relay has just come back the node may have to come back too.
            let relayed = relayed(endpoint, node, endpoint.has_new_relay());
            match select(relayed, sleep(plan.head_start).boxed()).await {
                Either::Left((Ok(connection), _)) => Ok(reached(Way::Relayed, connection)),
                Either::Left((Err(error @ ConnectError::Absent { .. }), _)) if !plan.goes_on(true) => {
                    Err(NotReached::Absent(error))
                }
                Either::Left((Err(error), _)) => instead(direct, &error).await,
                Either::Right(((), relayed)) => race(direct, relayed).await,
            }
        }
    }
}

fn reached(way: Way, connection: Connection) -> Reached {
    Reached { way, connection, slower: None }
}

/// Takes the first of both that leads to the node.
async fn race(direct: Attempt, relayed: Attempt) -> Result<Reached, NotReached> {
    match select(direct, relayed).await {
        Either::Left((Ok(connection), _)) => Ok(reached(Way::Direct, connection)),
        Either::Left((Err(error), relayed)) => last_chance(error, relayed).await,
        Either::Right((Ok(connection), direct)) => {
            Ok(Reached { way: Way::Relayed, connection, slower: Some(direct) })
        }
        Either::Right((Err(error), direct)) => instead(direct, &error).await,
    }
}

/// Goes on with the direct way after the relayed one has failed.
async fn instead(direct: Attempt, error: &ConnectError) -> Result<Reached, NotReached> {
    let nowhere = |direct| NotReached::Nowhere { direct, relayed: error.to_string() };
    direct.await.map(|connection| reached(Way::Direct, connection)).map_err(nowhere)
}

/// Goes on with the relayed way after the direct one has failed, though not for long.
async fn last_chance(direct: ConnectError, relayed: Attempt) -> Result<Reached, NotReached> {
    let error = match timeout(LAST_CHANCE, relayed).await {
        Ok(Ok(connection)) => return Ok(reached(Way::Relayed, connection)),
        Ok(Err(error)) => error.to_string(),
        Err(_late) => "it does not answer, or there is no coordinator".to_owned(),
    };
    Err(NotReached::Nowhere { direct, relayed: error })
}
