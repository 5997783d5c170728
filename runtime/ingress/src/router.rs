//! Host, path and headers → whatever answers there. Pure.
//!
//! An exact host goes before one with a `*`, of those the one that says most of the name goes before others, and any-host
//! comes last; within a host the longest path prefix wins, and of routes with the same one that which asks for most headers.
//! Where none of a host's paths fits, the next one is asked. A prefix ends at a segment boundary: `/shop` takes `/shop` and
//! `/shop/x`, not `/shopping`. Paths are compared as they were sent: nothing is
//! decoded or collapsed here, so that ingress and guest can never disagree on what a path means.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use dunlin_model::RouteSpec;
use http::HeaderMap;

/// Host and path → `T`.
#[derive(Debug)]
pub(crate) struct Router<T> {
    hosts: HashMap<String, Paths<T>>,
    /// Those of all names below one.
    below: HashMap<String, Paths<T>>,
    any_host: Paths<T>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { hosts: HashMap::new(), below: HashMap::new(), any_host: Paths::default() }
    }
}

impl<T> Router<T> {
    /// Adds a route. Of two equal ones the first stands.
    pub(crate) fn insert(&mut self, spec: &RouteSpec, target: T) {
        let paths = match &spec.host {
            Some(host) => match host.strip_prefix("*.") {
                Some(parent) => self.below.entry(normal_host(parent).into_owned()).or_default(),
                None => self.hosts.entry(normal_host(host).into_owned()).or_default(),
            },
            None => &mut self.any_host,
        };
        paths.insert(spec, target);
    }

    /// Returns what answers a request with these headers for `path` at `authority`, which is a host with or without a port.
    pub(crate) fn find(&self, authority: &str, path: &str, headers: &HeaderMap) -> Option<&T> {
        self.find_by_host(authority, path, headers).or_else(|| self.any_host.find(path, headers))
    }

    fn find_by_host(&self, authority: &str, path: &str, headers: &HeaderMap) -> Option<&T> {
        if self.hosts.is_empty() && self.below.is_empty() {
            return None;
        }
        let host = normal_host(authority);
        let exact = self.hosts.get(&*host).and_then(|paths| paths.find(path, headers));
        if exact.is_some() || self.below.is_empty() {
            return exact;
        }
        parents(&host).find_map(|parent| self.below.get(parent)?.find(path, headers))
    }
}

/// Returns the names of which a normal `host` is below, the longest first.
pub(crate) fn parents(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.').map(|(dot, _)| &host[dot + 1..])
}

/// The routes of one host. Prefixes are stored without a slash at the end, so `/` is the empty one.
#[derive(Debug)]
struct Paths<T> {
    prefixes: HashMap<String, Candidates<T>>,
    longest: usize,
}

/// Those that answer requests for the same paths.
#[derive(Debug)]
struct Candidates<T> {
    /// Those that ask for headers, those that ask for most first.
    by_headers: Vec<(BTreeMap<String, String>, T)>,
    /// What answers whatever the headers are.
    any: Option<T>,
}

impl<T> Default for Paths<T> {
    fn default() -> Self {
        Self { prefixes: HashMap::new(), longest: 0 }
    }
}

impl<T> Default for Candidates<T> {
    fn default() -> Self {
        Self { by_headers: Vec::new(), any: None }
    }
}

impl<T> Candidates<T> {
    fn insert(&mut self, headers: &BTreeMap<String, String>, target: T) {
        if headers.is_empty() {
            self.any.get_or_insert(target);
        } else {
            let place = self.by_headers.partition_point(|(known, _)| weight(known) >= weight(headers));
            self.by_headers.insert(place, (headers.clone(), target));
        }
    }

    fn find(&self, headers: &HeaderMap) -> Option<&T> {
        let fits = self.by_headers.iter().find(|(wanted, _)| have(headers, wanted));
        fits.map(|(_, target)| target).or(self.any.as_ref())
    }
}

/// Returns what goes before what: more headers, and of as many those of which more have one value alone.
fn weight(headers: &BTreeMap<String, String>) -> (usize, usize) {
    (headers.len(), headers.values().filter(|value| *value != "*").count())
}

/// Tells whether each of the wanted headers is there with its value; `*` is any.
fn have(headers: &HeaderMap, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(name, wanted)| {
        let mut values = headers.get_all(name.as_str()).iter();
        values.any(|value| wanted == "*" || value == wanted.as_str())
    })
}

impl<T> Paths<T> {
    fn insert(&mut self, spec: &RouteSpec, target: T) {
        let prefix = spec.path.trim_end_matches('/');
        self.longest = self.longest.max(prefix.len());
        self.prefixes.entry(prefix.to_owned()).or_default().insert(spec.headers(), target);
    }

    fn find(&self, path: &str, headers: &HeaderMap) -> Option<&T> {
        // Bytes beyond the longest prefix cannot matter, which also bounds the work for a path of thousands of slashes.
        let bytes = path.as_bytes();
        let mut end = self.longest.min(bytes.len());
        loop {
            let at_boundary = end == bytes.len() || bytes[end] == b'/';
            if at_boundary
                && let Some(candidates) = path.get(..end).and_then(|prefix| self.prefixes.get(prefix))
                && let Some(target) = candidates.find(headers)
            {
                return Some(target);
            }
            end = bytes[..end].iter().rposition(|byte| *byte == b'/')?;
        }
    }
}

/// Returns the host of `authority` in lower case, without port and without the dot of a full domain name.
pub(crate) fn normal_host(authority: &str) -> Cow<'_, str> {
    let host = match authority.strip_prefix('[') {
        Some(address) => address.find(']').map_or(authority, |end| &authority[..end + 2]),
        None => authority.split_once(':').map_or(authority, |(host, _)| host),
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &[(Option<&str>, &str, &str)] = &[
        (None, "/", "any"),
        (None, "/shop", "any shop"),
        (None, "/deep/er/still", "any deep"),
        (Some("shop.example"), "/", "shop"),
        (Some("shop.example"), "/cart", "cart"),
        (Some("shop.example"), "/cart/item/", "item"),
        (Some("only.example"), "/api", "api"),
        (Some("[::1]"), "/", "six"),
        (Some("*.wild.example"), "/", "wild"),
        (Some("*.wild.example"), "/cart", "wild cart"),
        (Some("*.deep.wild.example"), "/", "deep"),
        (Some("own.wild.example"), "/own", "own"),
    ];

    fn find(host: &str, path: &str) -> Option<&'static str> {
        let mut router = Router::default();
        for (host, path, target) in ROUTES {
            let spec = RouteSpec::new(*host, path);
            router.insert(&spec, *target);
        }
        router.find(host, path, &HeaderMap::new()).copied()
    }

    #[test]
    fn the_host_goes_first_and_then_the_longest_prefix() {
        for (host, path, target) in [
            ("other.example", "/", "any"),
            ("other.example", "/shop", "any shop"),
            ("other.example", "/shop/", "any shop"),
            ("other.example", "/shop/x/y", "any shop"),
            ("other.example", "/shopping", "any"),
            ("other.example", "/sho", "any"),
            ("other.example", "/deep/er", "any"),
            ("other.example", "/deep/er/still/x", "any deep"),
            ("other.example", "/deep/er/stillness", "any"),
            ("other.example", "//shop", "any"),
            ("shop.example", "/", "shop"),
            ("shop.example", "/shop", "shop"),
            ("shop.example", "/cart", "cart"),
            ("shop.example", "/cart/", "cart"),
            ("shop.example", "/cart/it", "cart"),
            ("shop.example", "/cart/item", "item"),
            ("shop.example", "/cart/item/7", "item"),
            ("shop.example", "/Cart", "shop"),
            ("SHOP.Example:8080", "/cart", "cart"),
            ("shop.example.", "/cart", "cart"),
            ("only.example", "/api/v1", "api"),
            ("only.example", "/apix", "any"),
            ("[::1]:8080", "/x", "six"),
            ("[::2]:8080", "/x", "any"),
            ("a.wild.example", "/", "wild"),
            ("A.Wild.Example:80", "/cart/x", "wild cart"),
            ("a.b.wild.example", "/", "wild"),
            ("wild.example", "/", "any"),
            ("a.deep.wild.example", "/", "deep"),
            ("deep.wild.example", "/", "wild"),
            // What its own routes do not take goes to those of the next one.
            ("a.deep.wild.example", "/cart", "deep"),
            ("own.wild.example", "/own/x", "own"),
            ("own.wild.example", "/cart", "wild cart"),
            (".wild.example", "/", "wild"),
            ("", "/x", "any"),
            ("[", "/x", "any"),
        ] {
            assert_eq!(find(host, path), Some(target), "{host} {path}");
        }
    }

    #[test]
    fn without_a_route_nothing_is_found() {
        let mut router = Router::default();
        router.insert(&RouteSpec::new(Some("a.example"), "/x"), ());
        for (host, path) in
            [("b.example", "/x"), ("a.example", "/"), ("a.example", "/xy"), ("a.example", "/ä")]
        {
            assert_eq!(router.find(host, path, &HeaderMap::new()), None, "{host} {path}");
        }
    }

    #[test]
    fn a_path_with_letters_of_several_bytes_is_no_danger() {
        assert_eq!(find("other.example", "/shoä/ö"), Some("any"));
    }

    #[test]
    fn of_two_equal_routes_the_first_stands() {
        let mut router = Router::default();
        for (path, target) in [("/x", 1), ("/x/", 2)] {
            router.insert(&RouteSpec::new(None, path), target);
        }
        assert_eq!(router.find("a", "/x", &HeaderMap::new()), Some(&1));
    }

    #[test]
    fn of_those_at_one_place_the_one_that_asks_for_most_headers_is_taken() {
        let mut router = Router::default();
        for (path, headers, target) in [
            ("/", r"{}", "all"),
            ("/", r#"{"x-a":"*"}"#, "any"),
            ("/", r#"{"x-a":"1"}"#, "one"),
            ("/", r#"{"x-a":"1","x-b":"*"}"#, "both"),
            ("/deep", r#"{"x-deep":"yes"}"#, "deep"),
        ] {
            let rules = serde_json::from_str(&format!(r#"{{"headers":{headers}}}"#)).unwrap();
            router.insert(&RouteSpec { rules: Some(rules), ..RouteSpec::new(None, path) }, target);
        }
        for (path, sent, target) in [
            ("/", &[][..], "all"),
            ("/", &[("x-a", "2")], "any"),
            ("/", &[("x-a", "2"), ("x-a", "1")], "one"),
            ("/", &[("x-a", "1"), ("x-b", "")], "both"),
            ("/", &[("x-b", "7")], "all"),
            ("/deep/x", &[("x-deep", "yes")], "deep"),
            ("/deep/x", &[("x-deep", "no"), ("x-a", "1")], "one"),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in sent {
                headers.append(*name, http::HeaderValue::from_static(value));
            }
            assert_eq!(router.find("a", path, &headers), Some(&target), "{path} {sent:?}");
        }
    }
}
