//! What outbound connections have in common: who makes them, what one allocation may do, and what its log says.
//!
//! A guest's host opens no socket. It asks a [`Connector`], which in a worker is the agent at the other end of a
//! channel; that one decides again, by the addresses, and with the operator's word.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use dunlin_model::{AllocationId, Capabilities, DurationMs, InstanceId, LimitHit, Limits, WorkloadName};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::outbound_http::{Callee, Calling};
use crate::denials::Hits;
use crate::logs::Logs;

/// How often at most the log of an allocation says that the same destination is denied.
const NOTICE_INTERVAL: Duration = Duration::from_secs(60);
/// How many denied destinations are remembered for that.
const MAX_NOTICES: usize = 16;

/// Which capability a connection is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Using {
    /// `outbound_http`, by `http`.
    Http,
    /// `outbound_http`, by `https`.
    Https,
    /// `sockets`.
    Sockets,
}

/// A connection that a guest wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Whose guest.
    pub allocation: AllocationId,
    /// By which capability.
    pub using: Using,
    /// To which host, a name or an address.
    pub host: String,
    /// To which port.
    pub port: u16,
    /// To which of the host's addresses; whichever answers, if absent.
    pub address: Option<IpAddr>,
}

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectFailure {
    /// It is not allowed; the text names the rule.
    Denied(String),
    /// The name has no address.
    NotResolved(String),
    /// Nobody takes connections there.
    NotConnected(String),
    /// No way leads there.
    Unreachable(String),
    /// Nobody answered in time.
    TimedOut,
    /// A limit on connections was hit.
    LimitHit(LimitHit),
}

/// A connection in the making. Dropping it gives up.
pub type Connecting = Pin<Box<dyn Future<Output = Result<TcpStream, ConnectFailure>> + Send>>;

/// The addresses of a name in the making. Dropping it gives up.
pub type Resolving = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, ConnectFailure>> + Send>>;

/// Makes connections for guests, if they may.
pub trait Connector: Send + Sync {
    /// Makes one.
    fn connect(&self, wanted: Wanted) -> Connecting;

    /// Returns the addresses of `name` to which guests of `allocation` may open sockets.
    fn resolve(&self, allocation: AllocationId, name: String) -> Resolving;

    /// Takes a place for one request at `service` in this process, if one is free.
    fn callee(&self, _service: &WorkloadName) -> Option<Box<dyn Callee>> {
        None
    }

    /// Opens a way on which one request in HTTP/1.1 of a guest of `allocation` goes to `service`, wherever that runs.
    fn call(&self, _allocation: AllocationId, service: WorkloadName) -> Calling {
        Box::pin(async move { Err(ConnectFailure::NotResolved(format!("there is no service `{service}`"))) })
    }
}

/// What one allocation may do outbound.
pub(crate) struct Outbound {
    pub(super) allocation: AllocationId,
    pub(super) granted: Option<GrantedOutbound>,
    pub(super) limits: OutboundLimits,
    pub(super) hits: Hits,
    notices: Mutex<BTreeMap<String, Instant>>,
}

pub(super) struct GrantedOutbound {
    /// Whose guest it is.
    pub(super) workload: WorkloadName,
    pub(super) capabilities: Capabilities,
    pub(super) connector: Arc<dyn Connector>,
    pub(super) tls: Arc<Tls>,
}

/// G12, G15 and G16 of one allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct OutboundLimits {
    pub(super) open: u32,
    pub(super) rate: u32,
    pub(super) connect: DurationMs,
    pub(super) first_byte: DurationMs,
    pub(super) between_bytes: DurationMs,
    pub(super) headers: u32,
    pub(super) header_bytes: u64,
}

impl OutboundLimits {
    fn of(limits: &Limits) -> Self {
        Self {
            open: limits.connections,
            rate: limits.connection_rate,
            connect: limits.connect_timeout,
            first_byte: limits.first_byte_timeout,
            between_bytes: limits.between_bytes_timeout,
            headers: limits.headers,
            header_bytes: limits.header_bytes.0,
        }
    }
}

impl Outbound {
    pub(super) fn denied(allocation: AllocationId, limits: &Limits) -> Self {
        let limits = OutboundLimits::of(limits);
        Self { allocation, granted: None, limits, hits: Hits::default(), notices: Mutex::default() }
    }

    pub(super) fn granted(allocation: AllocationId, limits: &Limits, granted: GrantedOutbound) -> Self {
        let granted = Some(granted);
        let limits = OutboundLimits::of(limits);
        Self { allocation, granted, limits, hits: Hits::default(), notices: Mutex::default() }
    }

    /// Counts that something took as long as `limit` lets it, unless the guest itself wanted it faster.
    pub(super) fn late(&self, limit: &'static str, waited: Duration) {
        let most = match limit {
            "connect_timeout" => self.limits.connect,
            "first_byte_timeout" => self.limits.first_byte,
            _ => self.limits.between_bytes,
        };
        if waited >= most.into() {
            self.hits.count(limit);
        }
    }

    /// Tells the owner of a guest that it was refused a destination, but not on every try.
    pub(super) fn notice(&self, logs: &Logs, instance: InstanceId, destination: &str, text: &str) {
        let mut notices = self.notices.lock().unwrap_or_else(PoisonError::into_inner);
        notices.retain(|_, at| at.elapsed() < NOTICE_INTERVAL);
        if notices.contains_key(destination) || notices.len() >= MAX_NOTICES {
            return;
        }
        notices.insert(destination.to_owned(), Instant::now());
        drop(notices);
        logs.say(instance, text);
    }
}

/// What one instance has open and how fast it opens more, by all capabilities together: G15.
#[derive(Clone)]
pub(super) struct Counted {
    pub(super) open: Arc<Semaphore>,
    pub(super) pace: Arc<Mutex<Pace>>,
    /// Names are looked up at the same pace, but not in the turns of connections.
    pub(super) lookup_pace: Arc<Mutex<Pace>>,
}

impl Counted {
    pub(super) fn new(limits: &OutboundLimits) -> Self {
        Self {
            open: Arc::new(Semaphore::new(usize::try_from(limits.open).unwrap_or(usize::MAX))),
            pace: Arc::new(Mutex::new(Pace::new(limits.rate))),
            lookup_pace: Arc::new(Mutex::new(Pace::new(limits.rate))),
        }
    }
}

/// Counts the connections of one instance in time.
#[derive(Debug)]
pub(super) struct Pace {
    rate: u32,
    left: f64,
    at: Instant,
}

impl Pace {
    pub(super) fn new(rate: u32) -> Self {
        Self { rate, left: f64::from(rate), at: Instant::now() }
    }

    /// Takes one connection's turn and returns how long to wait for it.
    pub(super) fn take(&mut self) -> Duration {
        let rate = f64::from(self.rate.max(1));
        let now = Instant::now();
        self.left = (self.left + now.duration_since(self.at).as_secs_f64() * rate).min(rate);
        self.at = now;
        self.left -= 1.0;
        if self.left >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.left / rate) }
    }
}

/// How servers are known: the public authorities, and those that the operator adds. Read once, when first needed.
#[derive(Default)]
pub(crate) struct Tls {
    authorities: Vec<u8>,
    config: OnceLock<Result<Arc<ClientConfig>, String>>,
}

impl Tls {
    pub(super) fn new(authorities: Vec<u8>) -> Self {
        Self { authorities, config: OnceLock::new() }
    }

    pub(super) fn config(&self) -> Result<Arc<ClientConfig>, String> {
        self.config.get_or_init(|| self.read()).clone()
    }

    fn read(&self) -> Result<Arc<ClientConfig>, String> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() };
        for authority in CertificateDer::pem_slice_iter(&self.authorities) {
            let authority = authority.map_err(|error| format!("an authority cannot be read: {error}"))?;
            roots.add(authority).map_err(|error| format!("an authority cannot be used: {error}"))?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_lets_a_second_of_connections_through_and_then_one_after_the_other() {
        let mut pace = Pace::new(10);
        for _ in 0..10 {
            assert_eq!(pace.take(), Duration::ZERO);
        }
        let (first, second) = (pace.take(), pace.take());
        assert!(first > Duration::from_millis(50) && first <= Duration::from_millis(100), "{first:?}");
        assert!(second > first && second <= Duration::from_millis(200), "{second:?}");
    }

    #[test]
    fn the_public_authorities_are_there_and_others_are_read_once() {
        assert!(Tls::default().config().is_ok());
        let wrong = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
        assert!(Tls::new(wrong).config().is_err());
    }
}
