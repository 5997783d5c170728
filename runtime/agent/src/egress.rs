//! Outbound connections for guests: the agent asks for addresses and connects, `dunlin_supervisor::egress` decides.
//!
//! A worker may ask only on behalf of allocations that it runs, and only so often; what it says of a host is judged
//! again here, since a worker is not believed. A name is asked for once, and what is connected is an address that was
//! judged.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dunlin_model::{AssignedAllocation, Capabilities, Host, LimitHit};
use dunlin_protocol::{ConnectError, Outbound};
use dunlin_supervisor::egress::{Denial, MAX_ADDRESSES, Opened, Range, Using, granted, permitted};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::settings::EgressSettings;

/// How many connections one worker may have in the making.
const MAX_CONNECTING: usize = 64;
/// How many connections one worker may ask for in a second.
const MAX_RATE: u32 = 500;
/// How many names one worker may have looked up in a second, and at the same time.
const MAX_LOOKUP_RATE: u32 = 100;
const MAX_LOOKUPS: usize = 16;
/// How long a name may take to be looked up.
const LOOKUP_TIME: Duration = Duration::from_secs(5);

/// What this node lets out.
pub(crate) struct Egress {
    opened: Opened,
}

/// What one allocation may ask for.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    capabilities: Capabilities,
    connect_time: Duration,
}

impl Grant {
    pub(crate) fn of(allocation: &AssignedAllocation) -> Self {
        Self {
            capabilities: allocation.spec.capabilities.clone(),
            connect_time: allocation.spec.limits.connect_timeout.into(),
        }
    }
}

/// How much one worker process may ask for.
pub(crate) struct Asking {
    connecting: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    connection_turns: Turns,
    lookup_turns: Turns,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            connecting: Arc::new(Semaphore::new(MAX_CONNECTING)),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            connection_turns: Turns::new(MAX_RATE),
            lookup_turns: Turns::new(MAX_LOOKUP_RATE),
        }
    }
}

/// Counts what happens in a second.
struct Turns {
    most: u32,
    counted: Mutex<(Instant, u32)>,
}

impl Turns {
    fn new(most: u32) -> Self {
        Self { most, counted: Mutex::new((Instant::now(), 0)) }
    }

    fn take(&self, name: &str) -> Result<(), ConnectError> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if counted.0.elapsed() >= Duration::from_secs(1) {
            *counted = (Instant::now(), 0);
        }
        if counted.1 >= self.most {
            return Err(ConnectError::LimitHit(LimitHit::new(name, self.most, "more")));
        }
        counted.1 += 1;
        Ok(())
    }
}

impl Egress {
    /// Returns what the node's config lets out.
    pub(crate) fn new(settings: &EgressSettings) -> anyhow::Result<Self> {
        let ranges = settings.allow.iter().map(|range| range.parse::<Range>());
        let opened =
            ranges.collect::<Result<_, _>>().context("`[egress] allow` of the config file is wrong")?;
        Ok(Self { opened })
    }

    /// Makes a connection, if `grant` and the node's operator let it.
    pub(crate) async fn connect(
        &self,
        asking: &Asking,
        grant: &Grant,
        using: Outbound,
        (host, port): (&str, u16),
    ) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let host = granted(&grant.capabilities, capability(using), host, port).map_err(denied)?;
        asking.connection_turns.take("outbound connections per second of one worker")?;
        let _connecting = asking.connecting.try_acquire().map_err(|_| {
            let name = "outbound connections in the making of one worker";
            ConnectError::LimitHit(LimitHit::new(name, MAX_CONNECTING, MAX_CONNECTING + 1))
        })?;
        let started = Instant::now();
        let addresses = self.addresses(asking, &host, port).await?;
        let addresses = permitted(addresses, &self.opened).map_err(denied)?;
        let time = grant.connect_time.saturating_sub(started.elapsed());
        connect_to_one(&addresses, port, time).await
    }

    async fn addresses(&self, asking: &Asking, host: &Host, port: u16) -> Result<Vec<IpAddr>, ConnectError> {
        let name = match host {
            Host::Address(address) => return Ok(vec![*address]),
            Host::Name(name) => name.clone(),
        };
        asking.lookup_turns.take("names looked up per second by one worker")?;
        let turn = Arc::clone(&asking.lookups).try_acquire_owned().map_err(|_| {
            let name = "names being looked up by one worker";
            ConnectError::LimitHit(LimitHit::new(name, MAX_LOOKUPS, MAX_LOOKUPS + 1))
        })?;
        // The system's resolver cannot be interrupted: the turn ends when it does, not when nobody waits any more.
        let lookup = tokio::spawn(async move {
            let found = tokio::net::lookup_host((name, port)).await;
            drop(turn);
            found.map(|found| found.map(|address| address.ip()).take(MAX_ADDRESSES).collect::<Vec<_>>())
        });
        let not_resolved = |why: &str| ConnectError::NotResolved(format!("{host} {why}"));
        match timeout(LOOKUP_TIME, lookup).await {
            Ok(Ok(Ok(addresses))) if !addresses.is_empty() => Ok(addresses),
            Ok(Ok(Ok(_))) => Err(not_resolved("has no address")),
            Ok(Ok(Err(error))) => Err(not_resolved(&format!("is not known: {error}"))),
            Ok(Err(_panicked)) => Err(not_resolved("could not be looked up")),
            Err(_elapsed) => Err(not_resolved("was not found in time")),
        }
    }
}

/// Tries one address after the other, each with its share of the time.
async fn connect_to_one(
    addresses: &[IpAddr],
    port: u16,
    time: Duration,
) -> Result<(TcpStream, SocketAddr), ConnectError> {
    let until = Instant::now() + time;
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for (index, address) in addresses.iter().enumerate() {
        let left = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = until.saturating_duration_since(Instant::now()) / left;
        let address = SocketAddr::new(*address, port);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Requests and answers are short; that it is not set costs time and nothing else.
                let _slower = stream.set_nodelay(true);
                return Ok((stream, address));
            }
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(ConnectError::NotConnected(last.to_string()))
}

fn capability(using: Outbound) -> Using {
    match using {
        Outbound::Http => Using::Http,
        Outbound::Https => Using::Https,
        Outbound::Tcp => Using::Sockets,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is the function of a `map_err`")]
fn denied(denial: Denial) -> ConnectError {
    ConnectError::Denied(denial.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(allow: &[&str]) -> Egress {
        let allow = allow.iter().map(|&range| range.to_owned()).collect();
        Egress::new(&EgressSettings { allow, ca_file: None }).unwrap()
    }

    fn grant(pattern: &str) -> Grant {
        let capabilities = Capabilities { outbound_http: vec![pattern.to_owned()], ..Default::default() };
        Grant { capabilities, connect_time: Duration::from_secs(5) }
    }

    #[tokio::test]
    async fn loopback_is_reached_only_if_the_operator_opens_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let grant = grant(&format!("http://*:{}", address.port()));
        let (asking, port) = (Asking::default(), address.port());
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let refused =
                egress(&[]).connect(&asking, &grant, Outbound::Http, (host, port)).await.unwrap_err();
            let ConnectError::Denied(rule) = refused else { panic!("{refused:?}") };
            assert!(rule.contains("is a loopback address"), "{rule}");
            let opened = egress(&["127.0.0.0/8"]);
            let (_, reached) = opened.connect(&asking, &grant, Outbound::Http, (host, port)).await.unwrap();
            assert_eq!(reached, address);
        }
    }

    #[tokio::test]
    async fn a_worker_is_not_believed_that_its_guest_may() {
        let (egress, asking, grant) = (egress(&["0.0.0.0/0"]), Asking::default(), grant("http://a.example"));
        for (using, host, port) in [
            (Outbound::Https, "a.example", 80),
            (Outbound::Tcp, "a.example", 80),
            (Outbound::Http, "b.example", 80),
            (Outbound::Http, "a.example", 81),
            (Outbound::Http, "127.0.0.1", 80),
            (Outbound::Http, "0x7f.1", 80),
        ] {
            let refused = egress.connect(&asking, &grant, using, (host, port)).await.unwrap_err();
            assert!(matches!(refused, ConnectError::Denied(_)), "{using:?} {host}:{port}: {refused:?}");
        }
    }

    #[tokio::test]
    async fn who_asks_too_often_is_told_the_limit() {
        let (egress, asking, grant) = (egress(&[]), Asking::default(), grant("http://127.0.0.1"));
        let mut hits = 0;
        for _ in 0..3 * MAX_RATE {
            match egress.connect(&asking, &grant, Outbound::Http, ("127.0.0.1", 80)).await {
                Err(ConnectError::LimitHit(hit)) => {
                    assert_eq!(hit.value, MAX_RATE.to_string());
                    hits += 1;
                }
                other => assert!(matches!(other, Err(ConnectError::Denied(_))), "{other:?}"),
            }
        }
        assert!(hits > 0);
    }

    #[test]
    fn a_wrong_range_in_the_config_is_said() {
        let settings = EgressSettings { allow: ["10/8".to_owned()].into(), ca_file: None };
        let error = format!("{:#}", Egress::new(&settings).err().unwrap());
        assert!(error.contains("`10/8` is not a range of addresses"), "{error}");
    }
}
