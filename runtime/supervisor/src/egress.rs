//! Where guests may connect to, decided without I/O: first by the name they give, then by the addresses it has.
//!
//! A manifest grants names and ports; only the node's operator can open addresses that are not public. The decision
//! is about the very address that is connected, so a name that changes its mind between two questions gains nothing.
//!
//! Not here: asking for addresses and connecting (`runtime/agent`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use dunlin_model::{AddressRange, Capabilities, Host};

/// The most addresses of one name that are looked at.
pub const MAX_ADDRESSES: usize = 16;

/// Which capability a guest uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Using {
    /// `outbound_http`, by `http`.
    Http,
    /// `outbound_http`, by `https`.
    Https,
    /// `sockets`.
    Sockets,
}

/// Why a guest may not connect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// What it named is no host.
    #[error("egress_denied: {0}")]
    NoHost(String),
    /// No grant of its manifest matches.
    #[error("egress_denied: no `{capability}` grant matches {host}:{port}")]
    NotGranted {
        /// The field of the manifest which would have to.
        capability: &'static str,
        /// Where to.
        host: Host,
        /// Which port.
        port: u16,
    },
    /// No grant of its manifest names this host, with whatever port.
    #[error("egress_denied: no `sockets` grant names {host}")]
    NotNamed {
        /// Whose addresses it wants.
        host: Host,
    },
    /// The host does not have the address that it wants of it.
    #[error("egress_denied: {host} does not have the address {address}")]
    OtherAddress {
        /// Which host.
        host: Host,
        /// What it wants.
        address: IpAddr,
    },
    /// Every address it has is of a kind that is not public, and not opened by the node's operator.
    #[error("egress_denied: {address} is {rule}, which `[egress] allow` of the node's config does not open")]
    NotPublic {
        /// The first of them.
        address: IpAddr,
        /// What kind it is of.
        rule: &'static str,
    },
}

/// Ranges of addresses that a node's operator has opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened(Vec<AddressRange>);

impl FromIterator<AddressRange> for Opened {
    fn from_iter<I: IntoIterator<Item = AddressRange>>(ranges: I) -> Self {
        Self(ranges.into_iter().collect())
    }
}

/// Returns the host that a guest named, if its manifest grants it.
pub fn granted(capabilities: &Capabilities, using: Using, host: &str, port: u16) -> Result<Host, Denial> {
    let host: Host =
        host.parse().map_err(|error: dunlin_model::DestinationError| Denial::NoHost(error.to_string()))?;
    let (capability, is_granted) = match using {
        Using::Http => ("outbound_http", capabilities.grants_http(false, &host, port)),
        Using::Https => ("outbound_http", capabilities.grants_http(true, &host, port)),
        Using::Sockets => ("sockets", capabilities.grants_socket(&host, port)),
    };
    // Port 0 means "any" to some systems and nothing to a guest.
    if is_granted && port != 0 { Ok(host) } else { Err(Denial::NotGranted { capability, host, port }) }
}

/// Returns the name whose addresses a guest wants, if its manifest grants a socket to any port of it.
pub fn granted_lookup(capabilities: &Capabilities, name: &str) -> Result<String, Denial> {
    let host: Host =
        name.parse().map_err(|error: dunlin_model::DestinationError| Denial::NoHost(error.to_string()))?;
    match host {
        Host::Name(name) if capabilities.grants_lookup(&Host::Name(name.clone())) => Ok(name),
        // An address has no addresses: who asks for them is no guest of ours.
        host => Err(Denial::NotNamed { host }),
    }
}

/// Returns the address to connect, of those that `host` has and that were judged: the one that a guest wants.
pub fn chosen(host: &Host, judged: &[IpAddr], wanted: IpAddr) -> Result<IpAddr, Denial> {
    let is_there = judged.contains(&wanted);
    is_there.then_some(wanted).ok_or_else(|| Denial::OtherAddress { host: host.clone(), address: wanted })
}

/// Returns those of a name's addresses to which a guest may connect, in their order; if there are none, why.
///
/// # Errors
///
/// With nothing to choose from there is nothing to deny: an empty list gives an empty list.
pub fn permitted(
    addresses: impl IntoIterator<Item = IpAddr>,
    opened: &Opened,
) -> Result<Vec<IpAddr>, Denial> {
    let (mut left, mut denied) = (Vec::new(), None);
    for address in addresses.into_iter().take(MAX_ADDRESSES) {
        match judge(address, opened) {
            // What was judged is also what is connected: the plain form of a mapped address.
            Ok(plain) => left.push(plain),
            Err(rule) => denied = denied.or(Some(Denial::NotPublic { address, rule })),
        }
    }
    match denied {
        Some(denial) if left.is_empty() => Err(denial),
        _ => Ok(left),
    }
}

fn judge(address: IpAddr, opened: &Opened) -> Result<IpAddr, &'static str> {
    let plain = match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    match not_public(plain) {
        Some(_) if opened.0.iter().any(|range| range.contains(plain)) => Ok(plain),
        Some(rule) => Err(rule),
        None => Ok(plain),
    }
}

/// Returns what kind of address this is if it is not one of the public internet.
pub fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => not_public_v4(address),
        IpAddr::V6(address) => not_public_v6(address),
    }
}

fn not_public_v4(address: Ipv4Addr) -> Option<&'static str> {
    Some(match address.octets() {
        [0, ..] => "an address of \"this network\"",
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => "a private address",
        [100, 64..=127, ..] => "an address shared by a carrier",
        [127, ..] => "a loopback address",
        [169, 254, 169, 254] => "the address of a cloud's metadata",
        [169, 254, ..] => "a link-local address",
        [192, 0, 0, ..] => "an address reserved for protocols",
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => "an address for documentation",
        [192, 31, 196, _] | [192, 52, 193, _] | [192, 175, 48, _] => "an address of a special network",
        [192, 88, 99, _] => "a relay of 6to4",
        [198, 18..=19, ..] => "an address for benchmarks",
        [224..=239, ..] => "a multicast address",
        [255, 255, 255, 255] => "the broadcast address",
        [240..=255, ..] => "a reserved address",
        _ => return None,
    })
}

fn not_public_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        not_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("the unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        // Mapped addresses are IPv4 in another coat; compatible ones have not been in use for decades.
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        [0, 0, 0, 0, 0, 0, ..] => Some("an IPv4-compatible address"),
        [0, 0, 0, 0, 0xffff, 0, ..] => Some("an IPv4-translated address"),
        // Through a translator these lead to the IPv4 address that is in them.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Some("an address of a local translator"),
        [0x100, 0, 0, 0 | 1, ..] => Some("an address that is discarded"),
        [0x2002, high, low, ..] => embedded(high, low).or(Some("a 6to4 address")),
        // Teredo hides the IPv4 address of the client and that of its server; nobody serves by it.
        [0x2001, 0, ..] => Some("a Teredo address"),
        [0x2001, 0x0..0x200, ..] => Some("an address reserved for protocols"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0x0..=0xfff, ..] => Some("an address for documentation"),
        [0x2620, 0x4f, 0x8000, ..] => Some("an address of a special network"),
        [0x5f00, ..] => Some("an address of a segment router"),
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Some("the address of a cloud's metadata"),
        [0xfc00..=0xfdff, ..] => Some("a unique local address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfec0..=0xfeff, ..] => Some("a site-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        // All that is given out to be routed publicly begins with the bits 001.
        [0x2000..=0x3fff, ..] => None,
        _ => Some("an address that nobody was given"),
    }
}

#[cfg(test)]
mod tests;
