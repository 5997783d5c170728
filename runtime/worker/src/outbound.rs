//! Outbound connections of guests: asked of the agent, which decides and makes them, and passed back open. Calls of
//! services that have room in this process need no connection.

use std::sync::Arc;

use dunlin_host::{Callee, Calling, ConnectFailure, Connecting, Connector, Resolving, Using, Wanted};
use dunlin_model::{AllocationId, WorkloadName};
use dunlin_protocol::{ConnectError, Outbound};

use crate::channel::{self, Passing};
use crate::services::Services;

/// Asks the agent at the other end of the channel.
pub(crate) struct AgentConnector {
    pub(crate) passing: Arc<Passing>,
    pub(crate) services: Arc<Services>,
}

impl Connector for AgentConnector {
    fn connect(&self, wanted: Wanted) -> Connecting {
        let passing = self.passing.clone();
        Box::pin(async move {
            let Wanted { allocation, using, host, port, address } = wanted;
            let using = match using {
                Using::Http => Outbound::Http,
                Using::Https => Outbound::Https,
                Using::Sockets => Outbound::Tcp,
            };
            let wanted = channel::Wanted { allocation, using, host, port, address };
            passing.connect(wanted).await.map(|(stream, _address)| stream).map_err(failure)
        })
    }

    fn resolve(&self, allocation: AllocationId, name: String) -> Resolving {
        let passing = self.passing.clone();
        Box::pin(async move { passing.resolve(allocation, name).await.map_err(failure) })
    }

    fn callee(&self, service: &WorkloadName) -> Option<Box<dyn Callee>> {
        Some(Box::new(self.services.place(service)?))
    }

    fn call(&self, allocation: AllocationId, service: WorkloadName) -> Calling {
        let passing = self.passing.clone();
        Box::pin(async move { passing.call(allocation, service).await.map_err(failure) })
    }
}

fn failure(error: ConnectError) -> ConnectFailure {
    match error {
        ConnectError::Denied(rule) => ConnectFailure::Denied(rule),
        ConnectError::NotResolved(why) => ConnectFailure::NotResolved(why),
        ConnectError::NotConnected(why) => ConnectFailure::NotConnected(why),
        ConnectError::Unreachable(why) => ConnectFailure::Unreachable(why),
        ConnectError::TimedOut => ConnectFailure::TimedOut,
        ConnectError::LimitHit(hit) => ConnectFailure::LimitHit(hit),
    }
}
