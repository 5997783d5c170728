//! What a component asks for and its manifest does not grant, with the line that would.
//!
//! It is no refusal: programs import more than they use. What every program built on a standard library imports
//! (files) is not spoken of; what only those import that mean it is. Of sockets it is the two interfaces by which one
//! comes to a connection.

use std::fmt;

use dunlin_model::{Capabilities, ComponentLimits, Feature};

use crate::admit::features_of;
use crate::scan::scan;

/// An import of which every use will be denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ungranted {
    /// What it is for.
    pub what: &'static str,
    /// What the workload's `capabilities` would have to say.
    pub line: &'static str,
}

impl fmt::Display for Ungranted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "imports {}, which is denied: to allow it, add `{}`", self.what, self.line)
    }
}

/// Returns what the component `bytes` imports that `capabilities` do not grant; nothing if it is no component.
pub fn ungranted(bytes: &[u8], capabilities: &Capabilities) -> Vec<Ungranted> {
    let Ok(surface) = scan(bytes, &ComponentLimits::maximum()) else { return Vec::new() };
    let imports = |interface: &str| {
        surface.imports.iter().any(|import| import.split('@').next().is_some_and(|name| name == interface))
    };
    let mut found = Vec::new();
    if capabilities.outbound_http.is_empty()
        && (imports("wasi:http/outgoing-handler") || imports("wasi:http/client"))
    {
        let line = "outbound_http = [\"https://api.example.com\"]";
        found.push(Ungranted { what: "outbound HTTP", line });
    }
    let opens_sockets = imports("wasi:sockets/tcp-create-socket") || imports("wasi:sockets/ip-name-lookup");
    // What is of WASI 0.3 can be granted none.
    let may_open_any = !features_of(&surface).contains(&Feature::Wasi03);
    if capabilities.sockets.is_empty() && opens_sockets && may_open_any {
        found.push(Ungranted { what: "TCP connections", line: "sockets = [\"db.example.com:5432\"]" });
    }
    if capabilities.config.is_empty() && imports("wasi:config/store") {
        found.push(Ungranted {
            what: "configuration, of which there is none",
            line: "config = { key = \"value\" }",
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(import: &str) -> Vec<u8> {
        wat::parse_str(format!(r#"(component (import "{import}" (instance)))"#)).unwrap()
    }

    #[test]
    fn what_is_imported_and_not_granted_is_named_with_its_line() {
        let none = Capabilities::default();
        let found = ungranted(&component("wasi:http/outgoing-handler@0.2.3"), &none);
        assert_eq!(
            found[0].to_string(),
            "imports outbound HTTP, which is denied: to allow it, add `outbound_http = [\"https://api.example.com\"]`"
        );
        assert_eq!(ungranted(&component("wasi:config/store@0.2.0-rc.1"), &none).len(), 1);
        assert_eq!(ungranted(&component("wasi:http/client@0.3.0"), &none).len(), 1);
        let granted = Capabilities { outbound_http: vec!["https://a.example".to_owned()], ..none.clone() };
        assert_eq!(ungranted(&component("wasi:http/outgoing-handler@0.2.3"), &granted), []);
        for import in ["wasi:sockets/tcp-create-socket@0.2.0", "wasi:sockets/ip-name-lookup@0.2.3"] {
            let found = ungranted(&component(import), &none);
            assert_eq!(
                found[0].to_string(),
                "imports TCP connections, which is denied: to allow it, add `sockets = [\"db.example.com:5432\"]`"
            );
            let granted = Capabilities { sockets: vec!["a.example:80".to_owned()], ..none.clone() };
            assert_eq!(ungranted(&component(import), &granted), []);
        }
        assert_eq!(ungranted(&component("wasi:sockets/ip-name-lookup@0.3.0"), &none), []);
        for other in ["wasi:http/types@0.2.3", "wasi:filesystem/types@0.2.3", "wasi:sockets/tcp@0.2.3"] {
            assert_eq!(ungranted(&component(other), &none), [], "{other}");
        }
        assert_eq!(ungranted(b"nonsense", &none), []);
    }
}
