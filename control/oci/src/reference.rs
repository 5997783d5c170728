//! Where an artifact is: `oci://registry.example:5000/team/hello:1.2`, or by digest `...@sha256:...`.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use dunlin_model::Digest;

/// What a reference begins with where a path could stand as well.
pub const SCHEME: &str = "oci://";
const MAX_REPOSITORY: usize = 255;
const MAX_TAG: usize = 128;
const LATEST: &str = "latest";
/// Docker Hub, by the names that people write; the last one is that of its registry.
pub(crate) const DOCKER_HUB: [&str; 3] = ["docker.io", "index.docker.io", DOCKER_HUB_REGISTRY];
const DOCKER_HUB_REGISTRY: &str = "registry-1.docker.io";

/// Where an artifact is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no reference of an artifact: {why}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

impl Reference {
    /// Returns the registry as it is written: a host, perhaps with a port.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns where the registry is asked: its host, perhaps with a port.
    pub(crate) fn host(&self) -> &str {
        if DOCKER_HUB.contains(&self.registry()) { DOCKER_HUB_REGISTRY } else { &self.registry }
    }

    /// Returns the name within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tells whether it names a digest, and so something that cannot be changed.
    pub const fn is_pinned(&self) -> bool {
        self.digest.is_some()
    }

    /// Returns the digest, if it names one.
    pub const fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns by what the artifact is asked for: its digest, else its tag, which is `latest` if none is said.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => LATEST.to_owned(),
        }
    }

    /// Returns the reference of the artifact with this digest at the same place, which means the same for ever.
    #[must_use]
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// Returns the name alone: the last part of the repository.
    pub fn name(&self) -> &str {
        self.repository.rsplit('/').next().unwrap_or(&self.repository)
    }

    /// Tells whether its registry is on this machine, where nobody listens on the way.
    pub fn is_loopback(&self) -> bool {
        let host = host_of(&self.registry);
        let is_v4 = host.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback());
        let is_v6 = host.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
        host == "localhost" || is_v4 || is_v6
    }
}

/// Returns the host of `host:port`, without the brackets of an address.
pub(crate) fn host_of(registry: &str) -> &str {
    if let Some(rest) = registry.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    registry.split(':').next().unwrap_or(registry)
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let error = |why| ReferenceError { text: text.chars().take(200).collect(), why };
        let rest = text.strip_prefix(SCHEME).unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest
                    .parse()
                    .map_err(|_| error("behind `@` stands a digest, `sha256:` and 64 digits"))?;
                (rest, Some(digest))
            }
            None => (rest, None),
        };
        let (registry, rest) = rest
            .split_once('/')
            .ok_or_else(|| error("it needs a registry and a name, like `registry.example/team/hello:1.0`"))?;
        if !is_registry(registry) {
            return Err(error("it begins with the host of a registry, like `ghcr.io` or `localhost:5000`"));
        }
        let (repository, tag) = match rest.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag.to_owned())),
            None => (rest, None),
        };
        if repository.len() > MAX_REPOSITORY || !repository.split('/').all(is_part) {
            return Err(error(
                "a name has parts of a-z, 0-9, `.`, `_` and `-` with `/` between, 255 bytes at most",
            ));
        }
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(error("a tag has letters, digits, `.`, `_` and `-`, and 128 bytes at most"));
        }
        Ok(Self { registry: registry.to_ascii_lowercase(), repository: repository.to_owned(), tag, digest })
    }
}

/// Tells whether a text is a host that cannot be mistaken for the first part of a name.
fn is_registry(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, port)) if host.parse::<Ipv6Addr>().is_ok() => ("localhost", port),
            _ => return false,
        },
        None => match text.find(':') {
            Some(at) => text.split_at(at),
            None => (text, ""),
        },
    };
    let is_port = port.is_empty() || port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok());
    let label = |label: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_letter)
    };
    let is_host = host.len() <= 253 && host.split('.').all(label);
    is_port && is_host && (host == "localhost" || host.contains('.') || !port.is_empty())
}

fn is_part(part: &str) -> bool {
    let is_inner = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-');
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    part.bytes().all(is_inner) && is_end(part.bytes().next()) && is_end(part.bytes().last())
}

fn is_tag(tag: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG && tag.bytes().next().is_some_and(is_first) && tag.bytes().all(is_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Reference, ReferenceError> {
        text.parse()
    }

    #[test]
    fn references_are_read_and_written_alike() {
        let digest = Digest::of(b"");
        for text in [
            "oci://ghcr.io/team/hello:1.2.0",
            "oci://localhost:5000/hello",
            "oci://127.0.0.1:5000/a/b/c_d:latest",
            "oci://[::1]:5000/a:x",
            &format!("oci://registry.example/hello:1@{digest}"),
        ] {
            assert_eq!(read(text).unwrap().to_string(), text);
        }
        let hello = read("ghcr.io/team/hello").unwrap();
        assert_eq!(
            (hello.version().as_str(), hello.name(), hello.registry()),
            ("latest", "hello", "ghcr.io")
        );
        assert_eq!(read("GHCR.io/a").unwrap().registry(), "ghcr.io");
        assert_eq!(hello.pinned(digest).version(), digest.to_string());
    }

    #[test]
    fn what_is_no_reference_says_why() {
        for text in [
            "hello",
            "team/hello",
            "ghcr.io/",
            "ghcr.io/Team",
            "ghcr.io/a:",
            "ghcr.io/a:b:c",
            "ghcr.io/a@sha256:1",
            "ghcr.io/a/../b",
            "ghcr.io/-a",
            "ghcr.io:x/a",
            "user@ghcr.io/a",
            "[::1/a",
            "oci://",
            "",
            "ghcr.io/a?b",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_asked_in_the_clear() {
        for (text, expected) in [
            ("localhost:5000/a", true),
            ("127.0.0.1/a", true),
            ("127.9.9.9:1/a", true),
            ("[::1]/a", true),
            ("localhost.example/a", false),
            ("10.0.0.1:5000/a", false),
        ] {
            assert_eq!(read(text).unwrap().is_loopback(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_written_back(text in "\\PC{0,60}") {
            if let Ok(reference) = read(&text) {
                prop_assert_eq!(read(&reference.to_string()).unwrap(), reference);
            }
        }
    }
}
