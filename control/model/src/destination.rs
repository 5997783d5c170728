//! Where guests may connect to: hosts as they are written, and the patterns of a manifest that match them.
//!
//! One name has one spelling here. What a system's resolver would take for an address in disguise (`0x7f.1`,
//! `2130706433`) is no host at all. What a name resolves to is judged later, by address (`runtime/supervisor`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::check::shown;

/// The most characters of a host name.
const MAX_NAME: usize = 253;
/// The most characters of one of its labels.
const MAX_LABEL: usize = 63;

/// A host, named or by its address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Host {
    /// A name in lower case and without a dot at its end.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// Why a text is not a place where guests could connect to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DestinationError(String);

impl DestinationError {
    fn new(text: &str, why: &str) -> Self {
        Self(format!("`{}` {why}", shown(text)))
    }
}

impl FromStr for Host {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Result<Ipv6Addr, _> = inner.parse();
            return address
                .map(|address| Self::Address(IpAddr::V6(address)))
                .map_err(|_| DestinationError::new(text, "is not an IPv6 address in brackets"));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(IpAddr::V4(address)));
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        if name.len() > MAX_NAME || !name.split('.').all(is_label) {
            return Err(DestinationError::new(
                text,
                "is not a host: use letters, digits, `-` and `_` with dots between, in ASCII",
            ));
        }
        if name.rsplit('.').next().is_some_and(looks_like_a_number) {
            return Err(DestinationError::new(
                text,
                "ends in a number but is not an IPv4 address of four decimal numbers",
            ));
        }
        Ok(Self::Name(name))
    }
}

fn is_label(label: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(is_inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// Old resolvers read such a last label as part of an address: `010`, `0x7f`.
fn looks_like_a_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x");
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Hosts, as a manifest names them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostPattern {
    /// This one.
    Exactly(Host),
    /// Every name that ends with a dot and this: `*.example.org`.
    Below(String),
    /// Every name and address: `*`.
    Any,
}

impl HostPattern {
    /// Tells whether `host` is one of them.
    pub fn matches(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Exactly(own), host) => own == host,
            (Self::Below(parent), Host::Name(name)) => {
                name.strip_suffix(parent.as_str()).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.'))
            }
            (Self::Below(_), Host::Address(_)) => false,
            (Self::Any, _) => true,
        }
    }
}

impl FromStr for HostPattern {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let Some(parent) = text.strip_prefix("*.") else { return text.parse().map(Self::Exactly) };
        match parent.parse()? {
            Host::Name(name) => Ok(Self::Below(name)),
            Host::Address(_) => Err(DestinationError::new(text, "puts `*` before an address")),
        }
    }
}

/// Where HTTP requests may go: `https://api.example.com`, `http://*.example.org:8080`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpPattern {
    /// Whether by `https`, or else by `http`.
    pub is_tls: bool,
    /// To which hosts.
    pub host: HostPattern,
    /// To which port.
    pub port: u16,
}

impl HttpPattern {
    /// Tells whether a request may go there.
    pub fn matches(&self, is_tls: bool, host: &Host, port: u16) -> bool {
        self.is_tls == is_tls && self.port == port && self.host.matches(host)
    }
}

impl FromStr for HttpPattern {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let wrong = |why| Err(DestinationError::new(text, why));
        let (is_tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (true, rest),
            (None, Some(rest)) => (false, rest),
            (None, None) => return wrong("does not begin with `https://` or `http://`"),
        };
        if rest.contains(['/', '?', '#']) {
            return wrong(
                "has a path; what is granted is a scheme, a host and a port, without a `/` at the end",
            );
        }
        if rest.contains('@') {
            return wrong("has a user name in it");
        }
        let (host, port) = split(rest);
        let port = match port {
            None if is_tls => 443,
            None => 80,
            Some(port) => read_port(text, port)?,
        };
        Ok(Self { is_tls, host: host.parse()?, port })
    }
}

/// Where TCP connections may go: `db.example.com:5432`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketPattern {
    /// To which hosts.
    pub host: HostPattern,
    /// To which port.
    pub port: u16,
}

impl SocketPattern {
    /// Tells whether a connection may go there.
    pub fn matches(&self, host: &Host, port: u16) -> bool {
        self.port == port && self.host.matches(host)
    }
}

impl FromStr for SocketPattern {
    type Err = DestinationError;

    fn from_str(text: &str) -> Result<Self, DestinationError> {
        let (host, port) = split(text);
        let Some(port) = port else {
            return Err(DestinationError::new(text, "has no port; write it like `db.example.com:5432`"));
        };
        Ok(Self { host: host.parse()?, port: read_port(text, port)? })
    }
}

/// Returns the host and, if there is one, the port that a request's authority names. A user name is not allowed.
pub fn host_and_port(authority: &str) -> Result<(Host, Option<u16>), DestinationError> {
    let (host, port) = split(authority);
    let port = port.map(|port| read_port(authority, port)).transpose()?;
    Ok((host.parse()?, port))
}

/// Parts a host and its port; the colons of an IPv6 address are within brackets.
fn split(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

fn read_port(text: &str, port: &str) -> Result<u16, DestinationError> {
    let is_plain = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if is_plain && port > 0 => Ok(port),
        _ => Err(DestinationError::new(text, "has no port from 1 to 65535 after its colon")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(text: &str) -> HttpPattern {
        text.parse().unwrap()
    }

    fn host(text: &str) -> Host {
        text.parse().unwrap()
    }

    #[test]
    fn a_host_has_one_spelling() {
        assert_eq!(host("API.Example.com."), host("api.example.com"));
        assert_eq!(host("127.0.0.1"), Host::Address(Ipv4Addr::LOCALHOST.into()));
        assert_eq!(host("[0:0::1]").to_string(), "[::1]");
        for text in [
            "",
            ".",
            "..",
            "a..b",
            "-a",
            "a-",
            "a b",
            "a/b",
            "a@b",
            "a:1",
            "a%00",
            "bücher.example",
            "::1",
            "[::1",
            "[fe80::1%eth0]",
            "0x7f.1",
            "2130706433",
            "127.1",
            "127.0.0.01",
            "0177.0.0.1",
            "1.2.3.4.5",
            "0x7f000001",
            "example.0x",
            "127.0.0.1.0",
            "[127.0.0.1]",
            "\0",
            "a\n",
        ] {
            assert!(text.parse::<Host>().is_err(), "{text:?} is taken for a host");
        }
    }

    #[test]
    fn a_pattern_matches_what_it_says_and_nothing_beside() {
        let any_port = |pattern: &str, name: &str| http(pattern).matches(true, &host(name), 443);
        assert!(any_port("https://api.example.com", "api.example.com"));
        assert!(any_port("https://api.example.com:443", "API.example.com."));
        assert!(any_port("https://*.example.com", "a.b.example.com"));
        for name in ["example.com", "badexample.com", "api.example.com.evil.org", "10.0.0.1", "[::1]"] {
            assert!(!any_port("https://*.example.com", name), "{name}");
        }
        assert!(any_port("https://*", "10.0.0.1"));
        assert!(!http("http://a.example").matches(true, &host("a.example"), 80));
        assert!(!http("http://a.example:8080").matches(false, &host("a.example"), 80));
        assert!(http("http://[::1]:8080").matches(false, &host("[::1]"), 8080));
        let socket: SocketPattern = "db.example.com:5432".parse().unwrap();
        assert!(socket.matches(&host("db.example.com"), 5432));
        assert!(!socket.matches(&host("db.example.com"), 5433));
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for text in [
            "",
            "a.example",
            "ftp://a.example",
            "HTTPS://a.example",
            "https://",
            "https://a.example/",
            "https://a:0",
            "https://a.example:65536",
            "https://a.example:+1",
            "https://a.example:",
            "https://u@a.example",
            "https://*a.b",
            "https://a.*.b",
            "https://*.10.0.0.1",
            "https://**",
            "http://0x7f.1",
            "https://a?b",
            "https://a#b",
        ] {
            assert!(text.parse::<HttpPattern>().is_err(), "{text:?} is taken for a pattern");
        }
        for text in ["", "a", "a:", ":1", "a:0", "[::1]", "::1", "a:b:1", "a:1/"] {
            assert!(text.parse::<SocketPattern>().is_err(), "{text:?} is taken for a pattern");
        }
    }
}
