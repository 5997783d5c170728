//! Which connections are handed to a worker: decided on the first bytes, which are only looked at. Pure.
//!
//! A connection is handed off if its first request is one that the worker will answer, and no request that its host
//! can make is for another namespace. Whatever is out of the ordinary stays here: it costs a detour, nothing else.

use std::sync::Arc;

use http::header::{EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Method, Request, Uri};

use crate::choice::{Allocations as _, Wish};
use crate::head::authority;
use crate::suspects::Suspects;
use crate::table::{Seen, Service, Table, Way};

/// How many bytes are looked at. A longer head is served without hand-off.
pub(crate) const MAX_PEEK: usize = 16 << 10;
/// The most headers; the HTTP server behind has the same limit.
const MAX_HEADERS: usize = 100;

/// Returns the service whose worker on this node may take the connection that begins with `bytes`.
pub(crate) fn decide<'a>(bytes: &[u8], table: &'a Table, suspects: &Suspects) -> Option<&'a Arc<Service>> {
    let request = head(bytes)?;
    if request.headers().contains_key(EXPECT) || request.headers().contains_key(UPGRADE) {
        return None;
    }
    let host = authority(&request).ok()?;
    let target = table.router.find(host, request.uri().path(), request.headers())?;
    let service = &target.service;
    let namespace = &service.workload.namespace;
    let is_known = table.namespaces.contains_key(namespace);
    if target.rules.is_some() || !is_known || !table.owners.is_sole(host, namespace) {
        return None;
    }
    // Only if this service's next request would stay on this node: else this node is not the best one for it.
    let seen = Seen { service, suspects };
    let first = seen.order(Wish { turn: service.next_turn(), key: None }).next()?;
    let is_here = matches!(service.places[first].way, Way::Local(_)) && !seen.is_suspect(first);
    is_here.then_some(service)
}

/// Returns what decides on a request, if `bytes` begin with its whole head.
pub(crate) fn head(bytes: &[u8]) -> Option<Request<()>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    if !parsed.parse(bytes).ok()?.is_complete() {
        return None;
    }
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(parsed.method?.as_bytes()).ok()?;
    *request.uri_mut() = Uri::try_from(parsed.path?).ok()?;
    let mut kept = HeaderMap::new();
    for header in parsed.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).ok()?;
        if [HOST, EXPECT, UPGRADE].contains(&name) {
            kept.append(name, HeaderValue::from_bytes(header.value).ok()?);
        }
    }
    *request.headers_mut() = kept;
    Some(request)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dunlin_model::{AllocationId, Endpoint, NodeId, Route, RouteSpec, RouteTable, WorkloadName};

    use super::*;
    use crate::suspects::Suspect;

    /// Routes of two namespaces: `a` has two hosts of its own, one of which it shares in part with `b`.
    const ROUTES: &[(Option<&str>, &str, &str)] = &[
        (Some("a.example"), "/", "a/app/web"),
        (Some("a.example"), "/away", "a/app/away"),
        (Some("a.example"), "/none", "a/app/none"),
        (Some("shared.example"), "/", "a/app/web"),
        (Some("shared.example"), "/b", "b/app/web"),
    ];

    fn table(more: &[(Option<&str>, &str, &str)]) -> Table {
        let route = |(host, path, workload): &(Option<&str>, &str, &str)| Route {
            spec: RouteSpec::new(*host, path),
            workload: workload.parse().unwrap(),
        };
        let endpoint = |number, node: &str| Endpoint::new(AllocationId::new(number), node.parse().unwrap());
        let name = |workload: &str| workload.parse::<WorkloadName>().unwrap();
        let routes = RouteTable {
            routes: ROUTES.iter().chain(more).map(route).collect(),
            endpoints: BTreeMap::from([
                (name("a/app/web"), vec![endpoint(1, "here")]),
                (name("a/app/away"), vec![endpoint(2, "there")]),
                (name("b/app/web"), vec![endpoint(3, "here")]),
            ]),
            peers: BTreeMap::from([("there".parse().unwrap(), "127.0.0.1:1".parse().unwrap())]),
            revoked: Default::default(),
            everywhere: Default::default(),
            shares: Default::default(),
            narrow: Default::default(),
        };
        let node: NodeId = "here".parse().unwrap();
        Table::new(&node, &routes, &Table::default())
    }

    fn decided(table: &Table, bytes: &str) -> Option<String> {
        decide(bytes.as_bytes(), table, &Suspects::default()).map(|service| service.workload.to_string())
    }

    #[test]
    fn an_ordinary_request_of_one_namespace_is_handed_off() {
        let table = table(&[]);
        for bytes in [
            "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "POST /x?y HTTP/1.1\r\nhost: A.Example:80\r\nContent-Length: 5\r\n\r\nhe",
            "GET / HTTP/1.0\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\n\r\nGET /away HTTP/1.1\r\n",
        ] {
            assert_eq!(decided(&table, bytes).as_deref(), Some("a/app/web"), "{bytes:?}");
        }
    }

    #[test]
    fn everything_else_stays_here() {
        let table = table(&[]);
        for bytes in [
            "",
            "GET / HTTP/1.1\r\nHost: a.example\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a@a.example\r\n\r\n",
            "GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "CONNECT a.example:1 HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.example\r\nUpgrade: h2c\r\n\r\n",
            "PUT / HTTP/1.1\r\nHost: a.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
            "GET /away HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET /none HTTP/1.1\r\nHost: a.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: nobody.example\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: shared.example\r\n\r\n",
            "GET /b HTTP/1.1\r\nHost: shared.example\r\n\r\n",
            "\u{1}\u{2} HTTP/1.1\r\nHost: a.example\r\n\r\n",
        ] {
            assert_eq!(decided(&table, bytes), None, "{bytes:?}");
        }
        let suspects = Suspects::default();
        suspects.mark(Suspect::Allocation(AllocationId::new(1)));
        let suspect = decide(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", &table, &suspects);
        assert!(suspect.is_none(), "an allocation that failed a moment ago gets no connection");
    }

    #[test]
    fn a_route_for_any_host_shares_every_host() {
        let request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
        let theirs = table(&[(None, "/b", "b/app/web")]);
        assert_eq!(decided(&theirs, request), None);
        let own = table(&[(None, "/more", "a/app/web")]);
        assert_eq!(decided(&own, request).as_deref(), Some("a/app/web"));
        let unknown = "GET /more HTTP/1.1\r\nHost: nobody.example\r\n\r\n";
        assert_eq!(decided(&own, unknown).as_deref(), Some("a/app/web"));
    }
}
