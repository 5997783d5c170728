//! What the agent passes to this worker, each kind to who is concerned.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use dunlin_ingress::Order;
use dunlin_protocol::PassedToWorker;

use crate::allocations::Allocations;
use crate::channel::{Passing, tcp, unix};
use crate::data;
use crate::handed::Connections;

/// Takes what comes until the agent is gone.
pub(crate) async fn take(
    passing: Arc<Passing>,
    allocations: Arc<Allocations>,
    connections: Arc<Connections>,
) {
    loop {
        match passing.next().await {
            Ok(Some((message, descriptor))) => take_one(message, descriptor, &allocations, &connections),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "the channel broke");
                return;
            }
        }
    }
}

fn take_one(
    message: PassedToWorker,
    descriptor: Option<OwnedFd>,
    allocations: &Arc<Allocations>,
    connections: &Arc<Connections>,
) {
    let not_taken = |error: std::io::Error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "connection not taken");
    };
    let too_many = || std::io::Error::other("this worker has too many open files");
    match message {
        PassedToWorker::Connection { client, namespace, routes } => {
            match descriptor.ok_or_else(too_many).and_then(tcp) {
                Ok(stream) => connections.take(stream, client, namespace, routes),
                Err(error) => {
                    not_taken(error);
                    connections.count_ended();
                }
            }
        }
        PassedToWorker::Proxied => match descriptor.ok_or_else(too_many).and_then(unix) {
            Ok(stream) => drop(tokio::spawn(data::serve(stream, allocations.clone()))),
            Err(error) => not_taken(error),
        },
        PassedToWorker::Stream { allocation, stream } => match descriptor.ok_or_else(too_many) {
            Ok(descriptor) => allocations.attached().keep(allocation, stream, descriptor),
            Err(error) => not_taken(error),
        },
        PassedToWorker::Drain => connections.order(Order::Drain),
        PassedToWorker::Leave => {
            let connections = connections.clone();
            tokio::spawn(async move { connections.leave().await });
        }
        // The channel itself gives answers to who asked.
        PassedToWorker::Connected { .. }
        | PassedToWorker::Resolved { .. }
        | PassedToWorker::Called { .. } => {}
    }
}
