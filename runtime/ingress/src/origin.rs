//! Where requests come from, as it is told to guests: `Forwarded` (RFC 7239), and the older headers that most programs
//! read.
//!
//! What a client says of itself in these headers is not believed, unless an operator trusts its address: then it is a
//! proxy, and what it says is added to.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName, HeaderValue};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// Only where it is not plain HTTP: to a guest each header costs time, and `Forwarded` has it.
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HTTPS: HeaderValue = HeaderValue::from_static("https");
/// What only a proxy would say.
const OF_PROXIES: [HeaderName; 4] = [
    PROTO,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
];

/// Where the requests of one connection come from.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    client: IpAddr,
    address: HeaderValue,
    forwarded: HeaderValue,
    has_tls: bool,
    is_trusted: bool,
}

impl Origin {
    /// Returns that of a connection from `client`.
    pub(crate) fn new(client: IpAddr, is_tls: bool, is_trusted: bool) -> Self {
        // An IPv4 client of a socket for both kinds.
        let client = client.to_canonical();
        let scheme = if is_tls { "https" } else { "http" };
        let node = match client {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        let value = |text: String| {
            HeaderValue::try_from(text).expect("an address has digits and marks, which any header can hold")
        };
        Self {
            client,
            address: value(client.to_string()),
            forwarded: value(format!("for={node};proto={scheme}")),
            has_tls: is_tls,
            is_trusted,
        }
    }

    /// Tells whether the client speaks TLS here.
    pub(crate) fn has_tls(&self) -> bool {
        self.has_tls
    }

    /// Returns who has sent a request with these headers: the client of the connection, or for whom it speaks if it is
    /// trusted, by the last address of `X-Forwarded-For` that is not trusted itself.
    pub(crate) fn client(&self, headers: &HeaderMap, is_trusted: impl Fn(IpAddr) -> bool) -> IpAddr {
        if !self.is_trusted {
            return self.client;
        }
        let mut client = self.client;
        for value in headers.get_all(FOR).iter().rev().filter_map(|value| value.to_str().ok()) {
            for told in value.rsplit(',') {
                let Some(address) = address(told.trim()) else { return client };
                client = address;
                if !is_trusted(address) {
                    return client;
                }
            }
        }
        client
    }

    /// Puts it into the head of a request.
    pub(crate) fn mark(&self, headers: &mut HeaderMap) {
        if self.is_trusted {
            append(headers, FORWARDED, &self.forwarded);
            append(headers, FOR, &self.address);
        } else {
            headers.insert(FORWARDED, self.forwarded.clone());
            headers.insert(FOR, self.address.clone());
            for name in OF_PROXIES {
                headers.remove(name);
            }
        }
        if self.has_tls {
            headers.entry(PROTO).or_insert(HTTPS);
        }
    }
}

/// Reads an address as proxies write it: some with a port, and IPv6 then in brackets.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().map(|address: SocketAddr| address.ip());
    bare.parse().or_else(|_| with_port()).ok().map(|address: IpAddr| address.to_canonical())
}

/// Makes what a proxy has said and `last` one list.
fn append(headers: &mut HeaderMap, name: HeaderName, last: &HeaderValue) {
    let mut list = Vec::new();
    for value in headers.get_all(&name) {
        list.extend_from_slice(value.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(last.as_bytes());
    let list = HeaderValue::from_maybe_shared(bytes::Bytes::from(list));
    headers.insert(name, list.expect("values of headers with a comma between them are one"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(client: &str, is_tls: bool, is_trusted: bool, said: &[(&str, &str)]) -> Vec<String> {
        let mut headers = HeaderMap::new();
        for (name, value) in said {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        Origin::new(client.parse().unwrap(), is_tls, is_trusted).mark(&mut headers);
        let line =
            |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
        let mut lines: Vec<_> = headers.iter().map(line).collect();
        lines.sort();
        lines
    }

    const LIES: &[(&str, &str)] = &[
        ("forwarded", "for=10.0.0.1"),
        ("forwarded", "for=10.0.0.2;proto=https"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "bank.example"),
        ("x-forwarded-port", "443"),
        ("x-real-ip", "10.0.0.1"),
    ];

    #[test]
    fn who_has_sent_a_request_is_the_client_or_for_whom_a_proxy_speaks() {
        for (is_trusted, said, client) in [
            (false, &["192.0.2.1"][..], "10.0.0.1"),
            (true, &[], "10.0.0.1"),
            (true, &["192.0.2.1, 192.0.2.2"], "192.0.2.2"),
            (true, &["192.0.2.1", "::ffff:192.0.2.3"], "192.0.2.3"),
            (true, &["unknown"], "10.0.0.1"),
            (true, &["192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            (true, &["192.0.2.1", "10.0.0.3, 10.0.0.2"], "192.0.2.1"),
            (true, &["10.0.0.2"], "10.0.0.2"),
            (true, &["192.0.2.4:8080"], "192.0.2.4"),
            (true, &["[2001:db8::1]:8080"], "2001:db8::1"),
            (true, &["[2001:db8::1]"], "2001:db8::1"),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(FOR, HeaderValue::from_static(value));
            }
            let origin = Origin::new("::ffff:10.0.0.1".parse().unwrap(), false, is_trusted);
            let is_proxy = |address: IpAddr| address.to_string().starts_with("10.");
            assert_eq!(
                origin.client(&headers, is_proxy),
                client.parse::<IpAddr>().unwrap(),
                "{is_trusted} {said:?}"
            );
        }
    }

    #[test]
    fn a_client_is_told_of_by_its_address_whatever_it_says() {
        let told = ["forwarded: for=192.0.2.7;proto=http", "x-forwarded-for: 192.0.2.7"];
        assert_eq!(marked("192.0.2.7", false, false, &[]), told);
        assert_eq!(marked("192.0.2.7", false, false, LIES), told);
        assert_eq!(marked("::ffff:192.0.2.7", false, false, LIES), told);
        assert_eq!(
            marked("2001:db8::7", true, false, LIES),
            [
                "forwarded: for=\"[2001:db8::7]\";proto=https",
                "x-forwarded-for: 2001:db8::7",
                "x-forwarded-proto: https",
            ]
        );
    }

    #[test]
    fn what_a_trusted_proxy_says_is_added_to() {
        assert_eq!(
            marked("192.0.2.7", false, true, LIES),
            [
                "forwarded: for=10.0.0.1, for=10.0.0.2;proto=https, for=192.0.2.7;proto=http",
                "x-forwarded-for: 10.0.0.1, 192.0.2.7",
                "x-forwarded-host: bank.example",
                "x-forwarded-port: 443",
                "x-forwarded-proto: https",
                "x-real-ip: 10.0.0.1",
            ]
        );
        assert_eq!(
            marked("192.0.2.7", true, true, &[]),
            [
                "forwarded: for=192.0.2.7;proto=https",
                "x-forwarded-for: 192.0.2.7",
                "x-forwarded-proto: https"
            ]
        );
    }
}
