//! How much one connection may hold, and how soon a silent one is given up.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

/// Handshakes in progress at which new ones are ignored.
pub(crate) const MAX_HALF_OPEN: usize = 1024;
/// Handshakes in progress at which new ones must first prove their address.
pub(crate) const RETRY_ABOVE: usize = 64;
/// How long a handshake may take on the accepting side.
pub(crate) const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// How long an attempt to connect may take.
pub(crate) const CONNECT_TIME: Duration = Duration::from_secs(10);
/// For how long a coordinator may not answer by UDP until TCP is tried,
pub(crate) const HEAD_START: Duration = Duration::from_secs(3);
/// and how long UDP has once more when TCP is answered.
pub(crate) const FRESH_TIME: Duration = Duration::from_millis(1500);
/// How long nothing may come by a tunnel; what is in it has ended long before.
pub(crate) const TUNNEL_SILENCE: Duration = Duration::from_secs(60);
/// How long nothing may come on a relayed connection while there is a relay until its other side counts as gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(6);
/// How long after a relay is back another node may need to be back too.
pub(crate) const RETURN_TIME: Duration = Duration::from_secs(8);
/// Accepted connections that nobody has taken yet.
pub(crate) const MAX_WAITING: usize = 64;

/// What one side grants on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireLimits {
    /// How long a silent connection is kept.
    pub idle: Duration,
    /// How often an idle connection says that it is alive.
    pub keep_alive: Duration,
    /// Streams that the other side may have open in both directions.
    pub streams: u32,
    /// Streams that the other side may have open in its direction alone.
    pub one_way_streams: u32,
    /// Bytes that a stream may hold which nobody reads.
    pub stream_window: u32,
    /// Bytes that all streams of a connection may hold which nobody reads.
    pub connection_window: u32,
}

impl WireLimits {
    /// Between agent and coordinator.
    pub const FLEET: Self = Self {
        idle: Duration::from_secs(30),
        keep_alive: Duration::from_secs(10),
        streams: 16,
        one_way_streams: 8,
        stream_window: 256 << 10,
        // More than all streams can hold: those that somebody is slow to read must not keep heartbeats from coming.
        connection_window: 8 << 20,
    };

    /// Between nodes: requests of many users at a time, and a dead node must be noticed soon.
    pub const PEER: Self = Self {
        idle: Duration::from_secs(3),
        keep_alive: Duration::from_secs(1),
        streams: 256,
        stream_window: 128 << 10,
        // As above: the answers to some slow clients must not keep those to others from coming.
        connection_window: 34 << 20,
        ..Self::FLEET
    };

    /// Between nodes through a relay, which is away for some seconds when a coordinator is: until the node has noticed that,
    /// and has found the next one.
    pub const RELAYED: Self = Self { idle: Duration::from_secs(25), ..Self::PEER };

    pub(crate) fn transport(&self) -> Arc<TransportConfig> {
        // Longer than a QUIC timeout can be is as good as the longest.
        let idle = IdleTimeout::try_from(self.idle).unwrap_or_else(|_| IdleTimeout::from(VarInt::MAX));
        let mut transport = TransportConfig::default();
        transport
            .max_idle_timeout(Some(idle))
            .keep_alive_interval(Some(self.keep_alive))
            .max_concurrent_bidi_streams(self.streams.into())
            .max_concurrent_uni_streams(self.one_way_streams.into())
            .stream_receive_window(self.stream_window.into())
            .receive_window(self.connection_window.into())
            .send_window(u64::from(self.connection_window))
            .datagram_receive_buffer_size(None)
            .datagram_send_buffer_size(0);
        Arc::new(transport)
    }
}
