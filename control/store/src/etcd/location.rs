//! Where in which etcd a fleet's state is: what an operator writes.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use dunlin_model::Bytes;

/// The size at which etcd takes no more writes, if its operator says nothing else.
const DEFAULT_QUOTA: Bytes = Bytes(2 << 30);
const SCHEME: &str = "etcd://";
/// What the keys of a fleet begin with, if its operator says nothing else.
const DEFAULT_PREFIX: &str = "dunlin";

/// Where in which etcd a fleet's state is: `etcd://HOST:PORT,HOST:PORT,…[/PREFIX]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdLocation {
    /// The members, as `host:port`.
    pub members: Vec<String>,
    /// What the keys of this fleet begin with, without the slashes around it.
    pub prefix: String,
    /// The certificates; plain connections if absent, which only loopback may have.
    pub tls: Option<EtcdTls>,
    /// How large its data may become, as its own `--quota-backend-bytes` says.
    pub quota: Bytes,
}

/// With which certificates etcd is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdTls {
    /// The file with the certificate of etcd's authority, PEM.
    pub authority: PathBuf,
    /// The files with the own certificate and its key, PEM, where etcd asks for one.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Why a text is not the place of a fleet's state in etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// It has another form.
    #[error("`{0}` is not like etcd://HOST:PORT,HOST:PORT,HOST:PORT or etcd://HOST:PORT,…/PREFIX")]
    Form(String),
    /// What the fleet is would be readable on the network.
    #[error(
        "etcd at {0} is another machine, and would be told the fleet's keys in the clear; \
         give the file with the certificate of its authority"
    )]
    Plain(String),
}

impl EtcdLocation {
    /// Returns the same, spoken to with these certificates.
    pub fn with_tls(self, tls: EtcdTls) -> Self {
        Self { tls: Some(tls), ..self }
    }

    /// Returns an error if other machines would be spoken to in the clear.
    pub fn check(&self) -> Result<(), LocationError> {
        if self.tls.is_some() {
            return Ok(());
        }
        match self.members.iter().find(|member| !is_loopback(member)) {
            Some(member) => Err(LocationError::Plain(member.clone())),
            None => Ok(()),
        }
    }

    /// Returns the whole of a key.
    pub(super) fn key(&self, rest: &str) -> Vec<u8> {
        format!("/{}/{rest}", self.prefix).into_bytes()
    }
}

impl FromStr for EtcdLocation {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        let wrong = || LocationError::Form(text.to_owned());
        let rest = text.strip_prefix(SCHEME).ok_or_else(wrong)?;
        let (members, prefix) = rest.split_once('/').unwrap_or((rest, DEFAULT_PREFIX));
        let members: Vec<String> = members.split(',').map(str::to_owned).collect();
        let is_member = |member: &String| {
            let port = member.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port);
            port.is_some_and(|port| port.parse::<u16>().is_ok())
        };
        let is_prefix = !prefix.is_empty()
            && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte))
            && !prefix.ends_with('/');
        if !members.iter().all(is_member) || !is_prefix {
            return Err(wrong());
        }
        Ok(Self { members, prefix: prefix.to_owned(), tls: None, quota: DEFAULT_QUOTA })
    }
}

fn is_loopback(member: &str) -> bool {
    let host = member.rsplit_once(':').map_or(member, |(host, _)| host);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_prefix_are_found() {
        let location: EtcdLocation = "etcd://a:2379,10.0.0.2:2379,[::1]:2379".parse().unwrap();
        assert_eq!(location.members, ["a:2379", "10.0.0.2:2379", "[::1]:2379"]);
        assert_eq!(location.key("log/1"), b"/dunlin/log/1");
        let location: EtcdLocation = "etcd://a:1/fleets/north".parse().unwrap();
        assert_eq!(location.key("leader"), b"/fleets/north/leader");
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "a:1",
            "http://a:1",
            "etcd://",
            "etcd://a",
            "etcd://a:",
            "etcd://a:99999",
            "etcd://a:1,",
            "etcd://:1",
            "etcd://a:1/",
            "etcd://a:1/x/",
            "etcd://a:1/ä",
        ] {
            assert!(text.parse::<EtcdLocation>().is_err(), "{text:?} should be refused");
        }
    }

    #[test]
    fn only_this_machine_is_spoken_to_in_the_clear() {
        let check = |text: &str| text.parse::<EtcdLocation>().unwrap().check();
        assert_eq!(check("etcd://127.0.0.1:1,localhost:2,[::1]:3"), Ok(()));
        assert_eq!(check("etcd://127.0.0.1:1,a:2"), Err(LocationError::Plain("a:2".to_owned())));
    }
}
