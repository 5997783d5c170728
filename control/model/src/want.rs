//! What a deploy newly wants: what a workload may do or have then, and could not before.
//!
//! Not here: who is asked about it (`scheduler`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    AppSpec, Capabilities, Feature, FolderGrant, Limits, Name, Placement, Priority, RouteSpec, WorkloadKind,
    WorkloadSpec,
};

/// Something that a workload may do or have, and could not before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Want {
    /// Which workload.
    pub workload: Name,
    /// The field of its spec, as a dotted path: `capabilities.outbound_http`, `limits.memory`.
    pub field: String,
    /// How much it had before, of what it had some of already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What it wants: a host, a secret, an amount.
    pub to: String,
}

/// As it is said to people.
impl fmt::Display for Want {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { workload, field, from, to } = self;
        match from {
            Some(from) => write!(f, "{workload}.{field}: {from} -> {to}"),
            None => write!(f, "{workload}.{field}: {to}"),
        }
    }
}

impl AppSpec {
    /// Returns what its workloads want that those of `before` had not; of a workload that is new, all that is beyond what
    /// everybody has.
    ///
    /// What is written otherwise than before is new: a host that a pattern of before contains, for one.
    pub fn newly_wants(&self, before: Option<&Self>) -> Vec<Want> {
        let mut wants = Vec::new();
        for (name, workload) in &self.workloads {
            let had = before.and_then(|before| before.workloads.get(name));
            let had = had.map_or_else(|| given(&workload.kind), grants);
            for (key, Grant { amount, text }) in grants(workload) {
                let before = had.get(&key);
                if before.is_none_or(|before| before.amount < amount) {
                    let from = before.map(|before| before.text.clone());
                    wants.push(Want { workload: name.clone(), field: key.0, from, to: text });
                }
            }
        }
        wants
    }
}

/// What a workload has, by the field and by what tells it from others of that field.
type Grants = BTreeMap<(String, String), Grant>;

/// How much it has of something.
struct Grant {
    /// To be compared with that of the same key; 0 of what one has or has not.
    amount: u64,
    /// For people.
    text: String,
}

/// Returns what each workload has whose manifest says nothing.
fn given(kind: &WorkloadKind) -> Grants {
    let limits = match kind {
        WorkloadKind::Service(_) => &Limits::SERVICE,
        WorkloadKind::Job(_) => &Limits::JOB,
    };
    let mut grants = of_limits(limits);
    grants.extend([amount("priority", u8::from(Priority::DEFAULT).into(), &Priority::DEFAULT)]);
    grants
}

fn grants(spec: &WorkloadSpec) -> Grants {
    // How many there are is for quotas to bound, and who is hurt by the rest is the app itself.
    let WorkloadSpec {
        component: _,
        signed: _,
        kind,
        limits,
        environment: _,
        node_labels,
        capabilities,
        instances: _,
        metering: _,
        coredump: _,
        placement,
        priority,
    } = spec;
    let Placement { require, prefer: _, spread: _, near: _, apart: _, resources } = placement;
    let Capabilities { outbound_http, sockets, config: _, secrets, folders, scratch } = capabilities;
    let mut grants = of_limits(limits);
    let mut add = |(key, grant): ((String, String), Grant)| {
        // Of two for the same the larger one counts.
        if grants.get(&key).is_none_or(|known| known.amount < grant.amount) {
            grants.insert(key, grant);
        }
    };
    // Such labels stand for what a component was found to need.
    let (features, labels): (Vec<_>, Vec<_>) =
        node_labels.iter().partition(|(key, _)| Feature::is_label(key));
    features.iter().for_each(|(feature, _)| add(one("component", (*feature).clone())));
    outbound_http.iter().for_each(|pattern| add(one("capabilities.outbound_http", pattern.clone())));
    sockets.iter().for_each(|pattern| add(one("capabilities.sockets", pattern.clone())));
    secrets.iter().for_each(|name| add(one("capabilities.secrets", name.to_string())));
    // A folder is another one where the nodes are others. At which path it is seen is nobody's concern.
    let nodes = labels.iter().map(|(key, value)| format!("{key} = {value}"));
    let nodes: BTreeSet<String> = nodes.chain(require.iter().map(ToString::to_string)).collect();
    let nodes: Vec<String> = nodes.into_iter().collect();
    for FolderGrant { folder, writable } in folders.values() {
        let place = if nodes.is_empty() { String::new() } else { format!(", where {}", nodes.join(", ")) };
        let text = format!("{folder}{}{place}", if *writable { ", to write" } else { "" });
        let key = ("capabilities.folders".to_owned(), format!("{folder}{place}"));
        add((key, Grant { amount: (*writable).into(), text }));
    }
    scratch.iter().for_each(|_| add(amount("capabilities.scratch", 0, &"a folder")));
    if let WorkloadKind::Service(service) = kind {
        service.routes.iter().for_each(|route| add(one("routes", shown(route))));
    }
    for (name, count) in resources {
        add(amount(&format!("placement.resources.{name}"), (*count).into(), count));
    }
    add(amount("priority", u8::from(*priority).into(), priority));
    grants
}

/// A route with all that its place is: what is done there with requests is the app's own concern.
fn shown(route: &RouteSpec) -> String {
    let place = format!("{}{}", route.host.as_deref().unwrap_or("*"), route.path);
    let headers = route.headers().iter().map(|(name, value)| format!("{name}: {value:?}"));
    let headers: Vec<String> = headers.collect();
    if headers.is_empty() { place } else { format!("{place} with {}", headers.join(", ")) }
}

fn one(field: &str, what: String) -> ((String, String), Grant) {
    ((field.to_owned(), what.clone()), Grant { amount: 0, text: what })
}

fn amount(field: &str, amount: u64, text: &dyn fmt::Display) -> ((String, String), Grant) {
    ((field.to_owned(), String::new()), Grant { amount, text: text.to_string() })
}

fn of_limits(limits: &Limits) -> Grants {
    let fields = Limits::FIELDS.iter().map(|field| (field, field.value(limits)));
    fields.map(|(field, value)| amount(&format!("limits.{}", field.name), value.number(), &value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Digest, Manifest};

    fn spec(workloads: &str) -> AppSpec {
        let manifest = Manifest::parse(&format!("app.name = \"shop\"\n{workloads}")).unwrap();
        let workloads = manifest.workloads.iter();
        let workloads = workloads.map(|(name, workload)| (name.clone(), workload.spec(Digest::of(b""))));
        AppSpec { name: manifest.app_name(), workloads: workloads.collect() }
    }

    fn wants(before: Option<&str>, after: &str) -> Vec<String> {
        let before = before.map(spec);
        spec(after).newly_wants(before.as_ref()).iter().map(ToString::to_string).collect()
    }

    const BARE: &str = "[service.cart]\ncomponent = \"cart.wasm\"\n";
    const WITH_SOME: &str = r#"
        [service.cart]
        component = "cart.wasm"
        routes = [{ host = "shop.example.com", path = "/" }]
        priority = 60
        limits = { memory = "128MiB" }
        [service.cart.capabilities]
        outbound_http = ["https://a.example.com"]
        secrets = ["TOKEN"]
        folders = { "/photos" = { folder = "photos" } }
        [service.cart.placement]
        resources = { gpu = 1 }
    "#;

    #[test]
    fn what_is_new_wants_all_that_is_beyond_what_everybody_has() {
        assert_eq!(wants(None, BARE), [""; 0]);
        let all = [
            "cart.capabilities.folders: photos",
            "cart.capabilities.outbound_http: https://a.example.com",
            "cart.capabilities.secrets: TOKEN",
            "cart.limits.memory: 64MiB -> 128MiB",
            "cart.placement.resources.gpu: 1",
            "cart.priority: 50 -> 60",
            "cart.routes: shop.example.com/",
        ];
        assert_eq!(wants(None, WITH_SOME), all);
        assert_eq!(wants(Some(BARE), WITH_SOME), all);
    }

    #[test]
    fn what_was_there_or_becomes_less_is_no_want() {
        assert_eq!(wants(Some(WITH_SOME), WITH_SOME), [""; 0]);
        assert_eq!(wants(Some(WITH_SOME), BARE), [""; 0]);
        let elsewhere = WITH_SOME.replace("/photos", "/pictures").replace("cart.wasm", "other.wasm");
        assert_eq!(wants(Some(WITH_SOME), &elsewhere), [""; 0]);
        let twice =
            r#"folders = { "/a" = { folder = "photos", writable = true }, "/b" = { folder = "photos" } }"#;
        let twice = WITH_SOME.replace(r#"folders = { "/photos" = { folder = "photos" } }"#, twice);
        assert_eq!(wants(Some(WITH_SOME), &twice), ["cart.capabilities.folders: photos -> photos, to write"]);
        assert_eq!(wants(Some(&twice), WITH_SOME), [""; 0]);
    }

    #[test]
    fn a_folder_of_other_nodes_and_a_route_for_more_requests_are_wants() {
        let elsewhere = WITH_SOME.replace("resources =", "require = [\"zone = b\"]\nresources =");
        assert_eq!(wants(Some(WITH_SOME), &elsewhere), ["cart.capabilities.folders: photos, where zone = b"]);
        let some = WITH_SOME.replace("path = \"/\"", "path = \"/\", headers = { x-canary = \"1\" }");
        assert_eq!(wants(Some(&some), WITH_SOME), ["cart.routes: shop.example.com/"]);
        assert_eq!(wants(Some(WITH_SOME), &some), ["cart.routes: shop.example.com/ with x-canary: \"1\""]);
    }

    #[test]
    fn more_of_it_and_more_of_them_are_wants() {
        let more = WITH_SOME
            .replace("128MiB", "1GiB")
            .replace("gpu = 1", "gpu = 2")
            .replace("[\"https://a.example.com\"]", "[\"https://a.example.com\", \"https://b.example.com\"]")
            .replace("folder = \"photos\"", "folder = \"photos\", writable = true")
            .replace("[\"TOKEN\"]", "[\"KEY\"]\nscratch = \"/tmp\"");
        let new = [
            "cart.capabilities.folders: photos -> photos, to write",
            "cart.capabilities.outbound_http: https://b.example.com",
            "cart.capabilities.scratch: a folder",
            "cart.capabilities.secrets: KEY",
            "cart.limits.memory: 128MiB -> 1GiB",
            "cart.placement.resources.gpu: 1 -> 2",
        ];
        assert_eq!(wants(Some(WITH_SOME), &more), new);
    }
}
