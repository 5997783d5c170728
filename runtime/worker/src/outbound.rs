//! Outbound connections of guests: asked of the agent, which decides and makes them, and passed back open.

use std::sync::Arc;

use dunlin_host::{ConnectFailure, Connecting, Connector, Using, Wanted};
use dunlin_protocol::{ConnectError, Outbound};

use crate::channel::Passing;

/// Asks the agent at the other end of the channel.
pub(crate) struct AgentConnector(pub(crate) Arc<Passing>);

impl Connector for AgentConnector {
    fn connect(&self, wanted: Wanted) -> Connecting {
        let passing = self.0.clone();
        Box::pin(async move {
            let Wanted { allocation, using, host, port } = wanted;
            let using = match using {
                Using::Http => Outbound::Http,
                Using::Https => Outbound::Https,
            };
            match passing.connect(allocation, using, host, port).await {
                Ok((stream, _address)) => Ok(stream),
                Err(ConnectError::Denied(rule)) => Err(ConnectFailure::Denied(rule)),
                Err(ConnectError::NotResolved(why)) => Err(ConnectFailure::NotResolved(why)),
                Err(ConnectError::NotConnected(why)) => Err(ConnectFailure::NotConnected(why)),
                Err(ConnectError::LimitHit(hit)) => Err(ConnectFailure::LimitHit(hit)),
            }
        })
    }
}
