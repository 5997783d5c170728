//! What a guest may touch beyond computing. Everything is denied unless it stands here.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::check::{Broken, at_most, shown};
use crate::secret::MAX_GRANTED;
use crate::{DestinationError, Host, HttpPattern, Name, SecretName, SocketPattern};

/// The most places where one workload may connect to, by each capability.
pub(crate) const MAX_PATTERNS: usize = 64;
/// The most folders of one workload.
pub(crate) const MAX_FOLDERS: usize = 16;
/// The most configuration values of one workload.
pub(crate) const MAX_CONFIG: usize = 256;
/// The most characters of the path at which a guest sees a folder.
pub(crate) const MAX_GUEST_PATH: usize = 256;

/// What one workload is granted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Capabilities {
    /// Where it may send HTTP requests: `https://api.example.com`, `http://*.example.org:8080`.
    pub outbound_http: Vec<String>,
    /// Where it may open TCP connections: `host:port`.
    pub sockets: Vec<String>,
    /// What it finds in `wasi:config`.
    pub config: BTreeMap<String, String>,
    /// Secrets of its namespace which it finds there as well, each by its name.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<SecretName>,
    /// Folders of its node which it sees, by the path at which it sees them.
    pub folders: BTreeMap<String, FolderGrant>,
    /// The path at which it sees a scratch folder, empty at the start of each instance and bounded by
    /// `limits.scratch`.
    pub scratch: Option<String>,
}

/// A folder which a node's operator offers, as one workload sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FolderGrant {
    /// The name under which the node's config offers it.
    pub folder: Name,
    /// Whether the guest may write; the node's config must allow that, too.
    #[serde(default)]
    pub writable: bool,
}

impl Capabilities {
    /// Tells whether HTTP requests may go to `host`. A pattern that cannot be read grants nothing.
    pub fn grants_http(&self, is_tls: bool, host: &Host, port: u16) -> bool {
        let patterns = self.outbound_http.iter().filter_map(|pattern| pattern.parse::<HttpPattern>().ok());
        patterns.into_iter().any(|pattern| pattern.matches(is_tls, host, port))
    }

    /// Tells whether TCP connections may go to `host`. A pattern that cannot be read grants nothing.
    pub fn grants_socket(&self, host: &Host, port: u16) -> bool {
        let patterns = self.sockets.iter().filter_map(|pattern| pattern.parse::<SocketPattern>().ok());
        patterns.into_iter().any(|pattern| pattern.matches(host, port))
    }

    /// Tells whether the addresses of `host` may be asked for: whether TCP connections may go to any port of it.
    pub fn grants_lookup(&self, host: &Host) -> bool {
        let patterns = self.sockets.iter().filter_map(|pattern| pattern.parse::<SocketPattern>().ok());
        patterns.into_iter().any(|pattern| pattern.host.matches(host))
    }

    /// Looks at every field; the first part of each finding is the field's path below `capabilities`.
    pub(crate) fn check(&self, note: &mut dyn FnMut(String, Result<(), Broken>)) {
        for (index, pattern) in self.outbound_http.iter().enumerate() {
            note(format!("outbound_http[{index}]"), http_pattern(pattern));
        }
        note("outbound_http".to_owned(), at_most("outbound_http", MAX_PATTERNS, self.outbound_http.len()));
        for (index, pattern) in self.sockets.iter().enumerate() {
            note(format!("sockets[{index}]"), socket_pattern(pattern));
        }
        note("sockets".to_owned(), at_most("sockets", MAX_PATTERNS, self.sockets.len()));
        for (key, value) in &self.config {
            note("config".to_owned(), config_value(key, value));
        }
        note("config".to_owned(), at_most("config", MAX_CONFIG, self.config.len()));
        for name in &self.secrets {
            note("secrets".to_owned(), not_in_config(name.as_str(), &self.config));
        }
        note("secrets".to_owned(), at_most("secrets", MAX_GRANTED, self.secrets.len()));
        for path in self.folders.keys() {
            note("folders".to_owned(), guest_path(path));
        }
        note("folders".to_owned(), at_most("folders", MAX_FOLDERS, self.folders.len()));
        if let Some(path) = &self.scratch {
            note("scratch".to_owned(), guest_path(path));
            note("scratch".to_owned(), not_a_folder(path, &self.folders));
        }
    }
}

pub(crate) fn http_pattern(text: &str) -> Result<(), Broken> {
    broken(text.parse::<HttpPattern>().map(drop))
}

pub(crate) fn socket_pattern(text: &str) -> Result<(), Broken> {
    broken(text.parse::<SocketPattern>().map(drop))
}

fn broken(result: Result<(), DestinationError>) -> Result<(), Broken> {
    result.map_err(|error| Broken::new(error.to_string()))
}

pub(crate) fn config_value(key: &str, value: &str) -> Result<(), Broken> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if key.is_empty() || key.len() > 128 || !key.bytes().all(is_inner) {
        return Err(Broken::new(format!(
            "`{}` cannot name a value: use 1 to 128 letters, digits, `-`, `_`, `.` and `/`",
            shown(key)
        )));
    }
    if value.contains('\0') {
        return Err(Broken::new(format!("the value of `{}` has a zero byte in it", shown(key))));
    }
    Ok(())
}

/// A secret has a name of its own among what a guest finds in `wasi:config`.
pub(crate) fn not_in_config(name: &str, config: &BTreeMap<String, String>) -> Result<(), Broken> {
    match config.contains_key(name) {
        true => Err(Broken::new(format!("`{}` is already a value of `config`", shown(name)))),
        false => Ok(()),
    }
}

/// A path at which a guest sees a folder: `/data`.
pub(crate) fn guest_path(path: &str) -> Result<(), Broken> {
    let wrong = |why: &str| Err(Broken::new(format!("`{}` {why}", shown(path))));
    let Some(rest) = path.strip_prefix('/') else { return wrong("should begin with `/`") };
    at_most("guest path", MAX_GUEST_PATH, path.len())?;
    if rest.is_empty() {
        return Ok(());
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return wrong("has characters which cannot stand in such a path: use visible ASCII without `\\`");
    }
    if rest.split('/').any(|segment| segment.is_empty() || segment == "." || segment == "..") {
        return wrong("has a segment which is empty, `.` or `..`");
    }
    Ok(())
}

pub(crate) fn not_a_folder(scratch: &str, folders: &BTreeMap<String, FolderGrant>) -> Result<(), Broken> {
    match folders.contains_key(scratch) {
        true => Err(Broken::new(format!("`{}` is already the path of a folder", shown(scratch)))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_granted_is_denied() {
        let capabilities = Capabilities::default();
        let host = "api.example.com".parse().unwrap();
        assert!(!capabilities.grants_http(true, &host, 443));
        assert!(!capabilities.grants_socket(&host, 443));
        assert!(!capabilities.grants_lookup(&host));
        let unreadable = Capabilities { outbound_http: vec!["https://".to_owned()], ..Default::default() };
        assert!(!unreadable.grants_http(true, &host, 443));
    }

    #[test]
    fn a_name_may_be_looked_up_if_any_of_its_ports_is_granted() {
        let sockets = ["db.example.com:5432", "*.example.org:443"].map(str::to_owned).to_vec();
        let capabilities = Capabilities { sockets, ..Default::default() };
        let grants = |host: &str| capabilities.grants_lookup(&host.parse().unwrap());
        assert!(grants("DB.example.com.") && grants("a.example.org"));
        for host in ["example.com", "example.org", "a.db.example.com", "10.0.0.1"] {
            assert!(!grants(host), "{host}");
        }
    }

    #[test]
    fn a_guest_path_is_absolute_and_plain() {
        for path in ["/", "/data", "/var/lib/shop.db"] {
            assert!(guest_path(path).is_ok(), "{path}");
        }
        for path in ["", "data", "/data/", "//", "/a//b", "/../etc", "/a/./b", "/a\0", "/ä", "/a\\b", "/a b"]
        {
            assert!(guest_path(path).is_err(), "{path:?}");
        }
        assert!(guest_path(&format!("/{}", "a".repeat(MAX_GUEST_PATH))).is_err());
    }

    #[test]
    fn every_field_is_looked_at() {
        let folder = FolderGrant { folder: "data".parse().unwrap(), writable: false };
        let capabilities = Capabilities {
            outbound_http: vec!["https://fine.example".to_owned(), "nonsense".to_owned()],
            sockets: vec!["nonsense".to_owned()],
            config: [(String::new(), String::new()), ("KEY".to_owned(), String::new())].into(),
            secrets: ["KEY".parse().unwrap(), "OTHER".parse().unwrap()].into(),
            folders: [("/tmp".to_owned(), folder.clone()), ("relative".to_owned(), folder)].into(),
            scratch: Some("/tmp".to_owned()),
        };
        let mut wrong = Vec::new();
        capabilities.check(&mut |field, result| wrong.extend(result.is_err().then_some(field)));
        assert_eq!(wrong, ["outbound_http[1]", "sockets[0]", "config", "secrets", "folders", "scratch"]);
    }
}
