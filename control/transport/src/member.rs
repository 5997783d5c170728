//! Who a certificate is for: its cluster and its role, in the form of a SPIFFE id.
//!
//! `spiffe://<cluster>/node/<id>` or `spiffe://<cluster>/coordinator/<name>`, the only URI among the certificate's
//! names. The common name is for people; the DNS name is derived from the same two parts and never read.

use std::fmt;
use std::str::FromStr;

use dunlin_model::{ClusterId, Name, NodeId};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a member is to its fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Runs guests.
    Node(NodeId),
    /// Decides for all nodes.
    Coordinator(Name),
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => write!(f, "node {node}"),
            Self::Coordinator(name) => write!(f, "coordinator {name}"),
        }
    }
}

/// One who belongs to a fleet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// The fleet.
    pub cluster: ClusterId,
    /// What it is there.
    pub role: Role,
}

/// Why a certificate does not name a member.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAMember {
    /// Its bytes are not a certificate.
    #[error("the bytes are not a certificate")]
    Malformed,
    /// It has no URI name, or several.
    #[error("the certificate has {observed} URI names, a member's has exactly one")]
    UriNames {
        /// How many it has.
        observed: usize,
    },
    /// Its URI name is of another form.
    #[error("`{uri}` names no member of a fleet")]
    WrongUri {
        /// The name, shortened and escaped.
        uri: String,
    },
}

impl Member {
    /// Returns the name in its certificate.
    pub fn uri(&self) -> String {
        let (kind, name) = match &self.role {
            Role::Node(node) => ("node", &node.0),
            Role::Coordinator(name) => ("coordinator", name),
        };
        format!("spiffe://{}/{kind}/{name}", self.cluster)
    }

    /// Returns the DNS name in its certificate, against which TLS checks a server's.
    pub fn dns_name(&self) -> String {
        match &self.role {
            Role::Node(node) => format!("{node}.node.dunlin.internal"),
            Role::Coordinator(_) => COORDINATOR_DNS_NAME.to_owned(),
        }
    }

    /// Returns whom a certificate names. Whether it is genuine must be checked elsewhere.
    pub fn of_certificate(der: &[u8]) -> Result<Self, NotAMember> {
        let uris = uri_names(der)?;
        let [uri] = uris.as_slice() else {
            return Err(NotAMember::UriNames { observed: uris.len() });
        };
        uri.parse()
    }
}

/// The DNS name of every coordinator: who dials one does not know which it will meet.
pub(crate) const COORDINATOR_DNS_NAME: &str = "coordinator.dunlin.internal";

/// Returns the fleet that an authority's certificate names: `spiffe://<cluster>`, its only URI name.
pub(crate) fn cluster_of_authority(der: &[u8]) -> Result<ClusterId, NotAMember> {
    let uris = uri_names(der)?;
    let [uri] = uris.as_slice() else {
        return Err(NotAMember::UriNames { observed: uris.len() });
    };
    uri.strip_prefix("spiffe://")
        .and_then(|cluster| cluster.parse().ok())
        .ok_or_else(|| NotAMember::WrongUri { uri: shown(uri) })
}

fn uri_names(der: &[u8]) -> Result<Vec<String>, NotAMember> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NotAMember::Malformed)?;
    if !rest.is_empty() {
        return Err(NotAMember::Malformed);
    }
    let names = certificate.subject_alternative_name().map_err(|_| NotAMember::Malformed)?;
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    Ok(names.map(|names| names.value.general_names.iter().filter_map(uri).collect()).unwrap_or_default())
}

fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_default).collect()
}

impl FromStr for Member {
    type Err = NotAMember;

    fn from_str(uri: &str) -> Result<Self, NotAMember> {
        let wrong = || NotAMember::WrongUri { uri: shown(uri) };
        let parts: Vec<&str> = uri.strip_prefix("spiffe://").ok_or_else(wrong)?.split('/').collect();
        let [cluster, kind, name] = parts.as_slice() else { return Err(wrong()) };
        let name: Name = name.parse().map_err(|_| wrong())?;
        let role = match *kind {
            "node" => Role::Node(NodeId(name)),
            "coordinator" => Role::Coordinator(name),
            _ => return Err(wrong()),
        };
        Ok(Self { cluster: cluster.parse().map_err(|_| wrong())?, role })
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of fleet {}", self.role, self.cluster)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_reads_back_its_uri() {
        for uri in ["spiffe://c4/node/node-1", "spiffe://c4/coordinator/main"] {
            assert_eq!(uri.parse::<Member>().unwrap().uri(), uri);
        }
    }

    #[test]
    fn other_uris_name_no_member() {
        for uri in [
            "spiffe://c4/user/ann",
            "spiffe://c4/node",
            "spiffe://c4/node/",
            "spiffe://c4/node/a/b",
            "spiffe://c4//node/a",
            "SPIFFE://c4/node/a",
            "spiffe://C4/node/a",
            "spiffe://c4/node/a?x",
            "https://c4/node/a",
            "",
        ] {
            assert!(uri.parse::<Member>().is_err(), "{uri:?} should be refused");
        }
    }

    #[test]
    fn bytes_that_are_no_certificate_name_nobody() {
        assert_eq!(Member::of_certificate(b"\x30\x82\x01"), Err(NotAMember::Malformed));
    }
}
