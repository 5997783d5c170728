//! Dialing another node by the ways that there are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::NodeId;
use dunlin_transport::{ConnectError, Connection, NodeEndpoint};
use futures_util::future::{BoxFuture, Either, FutureExt as _, select};
use tokio::time::sleep;

use super::way::{Plan, Way};

/// A way that is being tried.
pub(super) type Attempt = BoxFuture<'static, Result<Connection, ConnectError>>;

/// How a node was reached.
pub(super) struct Reached {
    pub(super) way: Way,
    pub(super) connection: Connection,
    /// The direct way, where the relayed one was faster and the direct one may answer yet.
    pub(super) slower: Option<Attempt>,
}

/// Begins to dial by `way`.
pub(super) fn attempt(endpoint: &Arc<NodeEndpoint>, way: Way, node: &NodeId, address: SocketAddr) -> Attempt {
    let (endpoint, node) = (Arc::clone(endpoint), node.clone());
    match way {
        Way::Direct => async move { endpoint.connect_peer(address, &node).await }.boxed(),
        Way::Relayed => async move { endpoint.connect_relayed(&node).await }.boxed(),
    }
}

/// Dials `node` as `plan` says, until one of the ways has led to it or none is left.
///
/// # Errors
///
/// No way has; the error is that of the direct one.
pub(super) async fn dial(
    endpoint: &Arc<NodeEndpoint>,
    plan: Plan,
    node: &NodeId,
    address: SocketAddr,
) -> Result<Reached, ConnectError> {
    let reached = |way| move |connection| Reached { way, connection, slower: None };
    let first = attempt(endpoint, plan.first, node, address);
    let Some(head_start) = plan.head_start else {
        return first.await.map(reached(plan.first));
    };
    let second_way = match plan.first {
        Way::Direct => Way::Relayed,
        Way::Relayed => Way::Direct,
    };
    let second = attempt(endpoint, second_way, node, address);
    match select(first, sleep_boxed(head_start)).await {
        Either::Left((Ok(connection), _)) => Ok(reached(plan.first)(connection)),
        Either::Left((Err(error @ ConnectError::Absent { .. }), _)) if !plan.goes_on(true) => Err(error),
        Either::Left((Err(first_error), _)) => match second.await {
            Ok(connection) => Ok(reached(second_way)(connection)),
            Err(second_error) => Err(of_direct(plan.first, first_error, second_error)),
        },
        Either::Right(((), first)) => race((plan.first, first), (second_way, second)).await,
    }
}

async fn race(
    (first_way, first): (Way, Attempt),
    (second_way, second): (Way, Attempt),
) -> Result<Reached, ConnectError> {
    let ((way, ended), (other_way, other)) = match select(first, second).await {
        Either::Left((ended, second)) => ((first_way, ended), (second_way, second)),
        Either::Right((ended, first)) => ((second_way, ended), (first_way, first)),
    };
    match ended {
        Ok(connection) => {
            let slower = (other_way == Way::Direct).then_some(other);
            Ok(Reached { way, connection, slower })
        }
        Err(error) => match other.await {
            Ok(connection) => Ok(Reached { way: other_way, connection, slower: None }),
            Err(other_error) => Err(of_direct(way, error, other_error)),
        },
    }
}

/// Returns the error of the direct way: it is what an operator can do something about.
fn of_direct(first_way: Way, first: ConnectError, second: ConnectError) -> ConnectError {
    match first_way {
        Way::Direct => first,
        Way::Relayed => second,
    }
}

fn sleep_boxed(time: Duration) -> BoxFuture<'static, ()> {
    sleep(time).boxed()
}
