//! How a registry wants to know who asks, and whom a password is told for that.
//!
//! A registry answers 401 and names a *realm* where tokens are had. What it names is a stranger's word: only who can be
//! the registry's own is asked, by TLS unless all of it is on this machine.

use http_auth::ChallengeRef;

use crate::reference::{DOCKER_HUB, host_of};

/// Where Docker Hub gives tokens.
const DOCKER_HUB_TOKENS: &str = "auth.docker.io";

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// The password itself.
    Basic,
    /// A token, to be had from `realm`.
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// Returns the first of what a header `www-authenticate` names that is understood.
    pub(crate) fn read(header: &str) -> Option<Self> {
        let all = http_auth::parse_challenges(header).ok()?;
        all.iter().find_map(Self::of)
    }

    fn of(challenge: &ChallengeRef<'_>) -> Option<Self> {
        let param = |name: &str| {
            let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if challenge.scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        let is_bearer = challenge.scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then_some(())?;
        Some(Self::Bearer { realm: param("realm")?, service: param("service") })
    }
}

/// Returns whether tokens for `registry` may be asked from `realm`, a URL; otherwise why not. `trusted` are hosts that the
/// user has named.
pub(crate) fn may_ask(
    registry: &str,
    realm: &str,
    is_loopback: bool,
    trusted: &[String],
) -> Result<(), &'static str> {
    let realm = reqwest::Url::parse(realm).map_err(|_| "it is no URL")?;
    let host = realm.host_str().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let own = host_of(registry);
    match realm.scheme() {
        "https" => {}
        "http" if is_loopback && host == own => return Ok(()),
        _ => return Err("it is not reached by TLS"),
    }
    // Who has a name below another one is in the hands of who has that; a top-level domain is nobody's.
    let is_above = host.contains('.') && own.strip_suffix(host).is_some_and(|rest| rest.ends_with('.'));
    let is_docker_hub = DOCKER_HUB.contains(&own) && host == DOCKER_HUB_TOKENS;
    let is_trusted = trusted.iter().any(|trusted| trusted == host);
    if host == own || is_above || is_docker_hub || is_trusted { Ok(()) } else { Err("it is another host") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_understood() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
        };
        for (header, expected) in [
            ("Basic realm=\"Registry\"", Some(Challenge::Basic)),
            (
                r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull""#,
                bearer("https://ghcr.io/token", Some("ghcr.io")),
            ),
            (r#"bearer REALM="https://a.b/t""#, bearer("https://a.b/t", None)),
            (r#"Negotiate, Basic realm="x""#, Some(Challenge::Basic)),
            ("Bearer service=\"x\"", None),
            ("Digest realm=\"x\"", None),
            ("\"", None),
            ("", None),
        ] {
            assert_eq!(Challenge::read(header), expected, "{header}");
        }
    }

    #[test]
    fn a_password_goes_to_nobody_else() {
        for (registry, realm, expected) in [
            ("ghcr.io", "https://ghcr.io/token", true),
            ("registry.gitlab.com", "https://gitlab.com/jwt/auth", true),
            ("registry-1.docker.io", "https://auth.docker.io/token", true),
            ("127.0.0.1:5000", "http://127.0.0.1:5001/token", true),
            ("[::1]:5000", "http://[::1]:5001/token", true),
            ("ghcr.io", "http://ghcr.io/token", false),
            ("ghcr.io", "https://io/token", false),
            ("ghcr.io", "https://evil.example/token", false),
            ("gitlab.com", "https://registry.gitlab.com/token", false),
            ("xgitlab.com", "https://gitlab.com/token", false),
            ("ghcr.io", "https://ghcr.io.evil.example/token", false),
            ("ghcr.io", "https://ghcr.io@evil.example/token", false),
            ("127.0.0.1:5000", "http://169.254.169.254/token", false),
            ("ghcr.io", "http://127.0.0.1/token", false),
            ("ghcr.io", "/token", false),
            ("ghcr.io", "file:///etc/passwd", false),
        ] {
            let is_loopback = host_of(registry).parse::<std::net::IpAddr>().is_ok();
            assert_eq!(may_ask(registry, realm, is_loopback, &[]).is_ok(), expected, "{registry} {realm}");
        }
        let named = ["gitlab.example".to_owned()];
        assert!(may_ask("registry.example", "https://gitlab.example/jwt", false, &named).is_ok());
        assert!(may_ask("registry.example", "http://gitlab.example/jwt", false, &named).is_err());
    }
}
