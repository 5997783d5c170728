//! Outbound connections for guests: the agent asks for addresses and connects, `dunlin_supervisor::egress` decides.
//!
//! A worker may ask only on behalf of allocations that it runs, and only so often; what it says of a host is judged
//! again here, since a worker is not believed. A name is asked for once, and what is connected is an address that was
//! judged. A guest that opens sockets is told the judged addresses of a name first (`answers`), and then wants one.

mod answers;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use dunlin_model::{AddressRange, AssignedAllocation, Capabilities, Host, LimitHit, WorkloadName};
use dunlin_protocol::{ConnectError, Outbound};
use dunlin_supervisor::egress::{
    Denial, MAX_ADDRESSES, Opened, Using, chosen, granted, granted_lookup, permitted,
};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use self::answers::Answers;
use crate::settings::EgressSettings;

/// How many connections one worker may have in the making.
const MAX_CONNECTING: usize = 64;
/// How many connections one worker may ask for in a second.
const MAX_RATE: u32 = 500;
/// How many calls of services one worker may have the agent pass on at the same time, and in a second.
const MAX_CALLS: usize = 4096;
const MAX_CALL_RATE: u32 = 20_000;
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
    /// Whose it is.
    pub(crate) workload: WorkloadName,
    capabilities: Capabilities,
    connect_time: Duration,
}

impl Grant {
    pub(crate) fn of(allocation: &AssignedAllocation) -> Self {
        Self {
            workload: allocation.workload.clone(),
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
    calls: Arc<Semaphore>,
    call_turns: Turns,
    answers: Mutex<Answers>,
}

impl Default for Asking {
    fn default() -> Self {
        Self {
            connecting: Arc::new(Semaphore::new(MAX_CONNECTING)),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            connection_turns: Turns::new(MAX_RATE),
            lookup_turns: Turns::new(MAX_LOOKUP_RATE),
            calls: Arc::new(Semaphore::new(MAX_CALLS)),
            call_turns: Turns::new(MAX_CALL_RATE),
            answers: Mutex::default(),
        }
    }
}

impl Asking {
    fn answers(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a worker wants a connection to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// By which capability.
    pub(crate) using: Outbound,
    /// A host name or an address.
    pub(crate) host: &'a str,
    /// Which port.
    pub(crate) port: u16,
    /// Which of the host's addresses; any, if absent.
    pub(crate) address: Option<IpAddr>,
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
        let ranges = settings.allow.iter().map(|range| range.parse::<AddressRange>());
        let opened =
            ranges.collect::<Result<_, _>>().context("`[egress] allow` of the config file is wrong")?;
        Ok(Self { opened })
    }

    /// Makes a connection, if `grant` and the node's operator let it.
    pub(crate) async fn connect(
        &self,
        asking: &Asking,
        grant: &Grant,
        Wanted { using, host, port, address }: Wanted<'_>,
    ) -> Result<(TcpStream, SocketAddr), ConnectError> {
        let host = granted(&grant.capabilities, capability(using), host, port).map_err(denied)?;
        asking.connection_turns.take("outbound connections per second of one worker")?;
        let _connecting = asking.connecting.try_acquire().map_err(|_| {
            let name = "outbound connections in the making of one worker";
            ConnectError::LimitHit(LimitHit::new(name, MAX_CONNECTING, MAX_CONNECTING + 1))
        })?;
        let started = Instant::now();
        let addresses = match address.and_then(|address| known(asking, &host, address)) {
            Some(known) => vec![known],
            None => {
                let found = self.addresses(asking, &host, port).await?;
                let judged = permitted(found, &self.opened).map_err(denied)?;
                match address {
                    None => judged,
                    Some(address) => vec![chosen(&host, &judged, address).map_err(denied)?],
                }
            }
        };
        let time = grant.connect_time.saturating_sub(started.elapsed());
        connect_to_one(&addresses, port, time).await
    }

    /// Lets a guest call a service of its namespace, if `grant` does. The call is over when what is returned is dropped.
    pub(crate) fn call(
        &self,
        asking: &Asking,
        grant: &Grant,
        service: &WorkloadName,
    ) -> Result<OwnedSemaphorePermit, ConnectError> {
        let host = service.host().to_string();
        granted(&grant.capabilities, Using::Http, &host, WorkloadName::PORT).map_err(denied)?;
        if service.namespace != grant.workload.namespace {
            return Err(ConnectError::Denied(format!("egress_denied: `{service}` is of another namespace")));
        }
        asking.call_turns.take("calls of services per second of one worker")?;
        Arc::clone(&asking.calls).try_acquire_owned().map_err(|_| {
            let name = "calls of services of one worker";
            ConnectError::LimitHit(LimitHit::new(name, MAX_CALLS, MAX_CALLS + 1))
        })
    }

    /// Returns the addresses of `name` to which a guest may connect, if `grant` lets it ask.
    pub(crate) async fn resolve(
        &self,
        asking: &Asking,
        grant: &Grant,
        name: &str,
    ) -> Result<Vec<IpAddr>, ConnectError> {
        let name = granted_lookup(&grant.capabilities, name).map_err(denied)?;
        let found = self.addresses(asking, &Host::Name(name.clone()), 0).await?;
        let judged = permitted(found, &self.opened).map_err(denied)?;
        asking.answers().remember(name, judged.clone(), Instant::now());
        Ok(judged)
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

/// Returns `address` if the worker was told lately that the host has it.
fn known(asking: &Asking, host: &Host, address: IpAddr) -> Option<IpAddr> {
    let Host::Name(name) = host else { return None };
    let answers = asking.answers();
    answers.of(name, Instant::now())?.contains(&address).then_some(address)
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
    Err(match last.kind() {
        io::ErrorKind::TimedOut => ConnectError::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable | io::ErrorKind::NetworkDown => {
            ConnectError::Unreachable(last.to_string())
        }
        _ => ConnectError::NotConnected(last.to_string()),
    })
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
        Grant { workload: web(), capabilities, connect_time: Duration::from_secs(5) }
    }

    fn web() -> WorkloadName {
        "demo/shop/web".parse().unwrap()
    }

    fn http(host: &str, port: u16) -> Wanted<'_> {
        Wanted { using: Outbound::Http, host, port, address: None }
    }

    #[tokio::test]
    async fn loopback_is_reached_only_if_the_operator_opens_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let grant = grant(&format!("http://*:{}", address.port()));
        let (asking, port) = (Asking::default(), address.port());
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
            let refused = egress(&[]).connect(&asking, &grant, http(host, port)).await.unwrap_err();
            let ConnectError::Denied(rule) = refused else { panic!("{refused:?}") };
            assert!(rule.contains("is a loopback address"), "{rule}");
            let opened = egress(&["127.0.0.0/8"]);
            let (_, reached) = opened.connect(&asking, &grant, http(host, port)).await.unwrap();
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
            let wanted = Wanted { using, host, port, address: None };
            let refused = egress.connect(&asking, &grant, wanted).await.unwrap_err();
            assert!(matches!(refused, ConnectError::Denied(_)), "{using:?} {host}:{port}: {refused:?}");
        }
    }

    fn sockets(patterns: &[&str]) -> Grant {
        let sockets = patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let capabilities = Capabilities { sockets, ..Default::default() };
        Grant { workload: web(), capabilities, connect_time: Duration::from_secs(5) }
    }

    #[test]
    fn services_of_its_own_namespace_are_called_where_that_is_granted() {
        let (egress, asking) = (egress(&[]), Asking::default());
        let call =
            |pattern: &str, service: &str| egress.call(&asking, &grant(pattern), &service.parse().unwrap());
        for pattern in ["http://cart.shop.internal", "http://*.shop.internal", "http://*"] {
            drop(call(pattern, "demo/shop/cart").unwrap());
        }
        for (pattern, service) in [
            ("http://cart.shop.internal", "demo/shop/stock"),
            ("http://*.shop.internal", "demo/bank/cart"),
            ("http://*.shop.internal", "other/shop/cart"),
            ("https://cart.shop.internal", "demo/shop/cart"),
            ("http://cart.shop.internal:8080", "demo/shop/cart"),
        ] {
            let refused = call(pattern, service).unwrap_err();
            assert!(matches!(refused, ConnectError::Denied(_)), "{pattern} {service}: {refused:?}");
        }
    }

    #[tokio::test]
    async fn a_socket_leads_to_the_address_that_its_name_has_and_to_no_other() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let local = listener.local_addr().unwrap();
        let (asking, grant) = (Asking::default(), sockets(&[&format!("localhost:{}", local.port())]));
        let egress = egress(&["127.0.0.0/8"]);
        let to = |host, address: IpAddr| Wanted {
            using: Outbound::Tcp,
            host,
            port: local.port(),
            address: Some(address),
        };
        // Once without an answer that is remembered, and once with one.
        for _ in 0..2 {
            let (_, reached) = egress.connect(&asking, &grant, to("localhost", local.ip())).await.unwrap();
            assert_eq!(reached, local);
            let other = "127.9.9.9".parse().unwrap();
            let refused = egress.connect(&asking, &grant, to("localhost", other)).await.unwrap_err();
            let rule = "egress_denied: localhost does not have the address 127.9.9.9".to_owned();
            assert_eq!(refused, ConnectError::Denied(rule));
            let by_address = egress.connect(&asking, &grant, to("127.0.0.1", local.ip())).await.unwrap_err();
            assert!(matches!(by_address, ConnectError::Denied(_)), "{by_address:?}");
            let resolved = egress.resolve(&asking, &grant, "LOCALHOST.").await.unwrap();
            assert!(resolved.contains(&local.ip()) && !resolved.contains(&"::1".parse().unwrap()));
        }
    }

    #[tokio::test]
    async fn a_name_is_looked_up_only_for_who_may_connect_to_it() {
        let asking = Asking::default();
        for (allow, patterns, rule) in [
            (&["127.0.0.0/8", "::1"][..], &[][..], "no `sockets` grant names localhost"),
            (&["127.0.0.0/8", "::1"], &["a.example:80"], "no `sockets` grant names localhost"),
            (&[], &["localhost:80"], "is a loopback address"),
        ] {
            let refused = egress(allow).resolve(&asking, &sockets(patterns), "localhost").await.unwrap_err();
            let ConnectError::Denied(text) = refused else { panic!("{refused:?}") };
            assert!(text.contains(rule), "{text}");
        }
    }

    #[tokio::test]
    async fn nobody_and_silence_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let error =
            connect_to_one(&[address.ip()], address.port(), Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, ConnectError::NotConnected(_)), "{error:?}");
        // One whose queue is full and who takes nobody does not answer at all.
        let silent = tokio::net::TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(1).unwrap();
        let address = silent.local_addr().unwrap();
        let mut queued = Vec::new();
        let error = loop {
            let short = Duration::from_millis(300);
            match connect_to_one(&[address.ip()], address.port(), short).await {
                Ok(connected) => queued.push(connected),
                Err(error) => break error,
            }
            assert!(queued.len() < 100, "its queue is never full");
        };
        assert_eq!(error, ConnectError::TimedOut);
    }

    #[tokio::test]
    async fn who_asks_too_often_is_told_the_limit() {
        let (egress, asking, grant) = (egress(&[]), Asking::default(), grant("http://127.0.0.1"));
        let mut hits = 0;
        for _ in 0..3 * MAX_RATE {
            match egress.connect(&asking, &grant, http("127.0.0.1", 80)).await {
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
