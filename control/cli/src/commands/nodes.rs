//! `dunlin nodes`: the machines and what is free on them.

use std::time::Duration;

use clap::Args;
use dunlin_api::{NodeList, NodeState, NodeStatus};
use dunlin_model::DurationMs;

use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, table};
use crate::time::about;

/// How many nodes are named with which one speaks through the coordinator.
const SHOWN: usize = 3;

/// Show the nodes and what is free on them.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin nodes")]
pub(crate) struct NodesArgs {}

pub(crate) async fn run(global: &Global, _: NodesArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let nodes =
        client.nodes().await.map_err(|error| CommandError::client("cannot list the nodes", &error))?;
    output.result(&nodes, || shown(&nodes))
}

fn shown(list: &NodeList) -> String {
    if list.nodes.is_empty() {
        return "no nodes yet; `dunlin token create` makes a token with which one joins\n".to_owned();
    }
    let header = [
        "NODE",
        "STATE",
        "SEEN",
        "LINK",
        "ALLOCATIONS",
        "MEMORY FREE",
        "OF",
        "FUEL RATE FREE",
        "OF",
        "INGRESS",
        "RESOURCES",
        "LABELS",
        "VERSION",
    ];
    table(&header, list.nodes.iter().map(row).collect())
}

fn row(node: &NodeStatus) -> Vec<String> {
    let free = node.capacity.minus(node.reserved);
    let seen = node.last_seen_ms_ago.map(|ago| format!("{} ago", about(DurationMs(ago))));
    let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let resources = node.resources.iter().map(|(name, count)| format!("{name}={count}"));
    vec![
        node.node.to_string(),
        state(node),
        seen.unwrap_or_default(),
        link(node),
        node.allocations.to_string(),
        free.memory.to_string(),
        node.capacity.memory.to_string(),
        free.fuel_rate.to_string(),
        node.capacity.fuel_rate.to_string(),
        node.ingress.map(|address| address.to_string()).unwrap_or_default(),
        resources.collect::<Vec<_>>().join(" "),
        labels.collect::<Vec<_>>().join(" "),
        node.version.clone(),
    ]
}

/// Says how far a node is from the coordinator, and with which others it speaks through that.
fn link(node: &NodeStatus) -> String {
    let round_trip = node.round_trip_us.map(|time| {
        let by = if node.over_tcp { " over TCP" } else { "" };
        format!("{:.1}ms{by}", Duration::from_micros(time).as_secs_f64() * 1e3)
    });
    let with: Vec<_> = node.relayed_with.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = node.relayed_with.len().saturating_sub(SHOWN);
    let relayed = (!with.is_empty()).then(|| {
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("relayed with {}{more}", with.join(" "))
    });
    round_trip.into_iter().chain(relayed).collect::<Vec<_>>().join(", ")
}

/// Says whether a node is heard of, and why nothing new goes there if that is so.
fn state(node: &NodeStatus) -> String {
    let mut words = Vec::new();
    match node.state {
        _ if node.revoked => words.push("revoked".to_owned()),
        // That it is alive is said if there is nothing else to say.
        NodeState::Alive => {}
        NodeState::Pending => {
            let key = node.key.map(|key| format!(", its key is {key}")).unwrap_or_default();
            words.push(format!("waits for approval{key}"));
        }
        NodeState::Lost | NodeState::NeverSeen | NodeState::Unknown => {
            words.push(node.state.name().to_owned())
        }
    }
    match (node.drain_ends_in_ms, node.cordoned_ms_ago, node.allocations) {
        (Some(_), _, 0) => words.push("drained".to_owned()),
        (Some(end), _, _) => words.push(format!("draining for {}", about(DurationMs(end)))),
        (None, Some(_), _) => words.push("cordoned".to_owned()),
        (None, None, _) => {}
    }
    if let Some(end) = node.set_aside_ends_in_ms {
        words.push(format!("set aside for {}", about(DurationMs(end))));
    }
    if node.clock_unset {
        words.push("clock not set".to_owned());
    }
    if words.is_empty() { node.state.name().to_owned() } else { words.join(", ") }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn nodes_are_shown_with_what_is_free() {
        let json = r#"{"nodes":[{"node":"node-1","state":"alive","labels":{"zone":"a"},
            "capacity":{"memory":1073741824,"fuel_rate":2000000000},
            "reserved":{"memory":67108864,"fuel_rate":50000000},"ingress":"127.0.0.1:8080",
            "peer":"127.0.0.1:7400","version":"0.1.0","last_seen_ms_ago":1200,"round_trip_us":1234,"allocations":1},
            {"node":"node-2","state":"never-seen","capacity":{"memory":0,"fuel_rate":0},
            "reserved":{"memory":0,"fuel_rate":0},"allocations":0},
            {"node":"node-3","state":"alive","capacity":{"memory":0,"fuel_rate":0},"reserved":{"memory":0,"fuel_rate":0},
            "allocations":2,"round_trip_us":48000,"relayed_with":["a","b","c","d","e"],"resources":{"gpu":2,"port-cam":1},"batch_overcommit":150,"cordoned_ms_ago":1000,
            "drain_ends_in_ms":599000},
            {"node":"node-4","state":"lost","capacity":{"memory":0,"fuel_rate":0},"reserved":{"memory":0,"fuel_rate":0},
            "allocations":0,"cordoned_ms_ago":1000,"set_aside_ends_in_ms":60000},
            {"node":"node-5","state":"alive","capacity":{"memory":0,"fuel_rate":0},"reserved":{"memory":0,"fuel_rate":0},
            "allocations":0,"round_trip_us":90000,"over_tcp":true,"cordoned_ms_ago":1000,"drain_ends_in_ms":599000},
            {"node":"node-6","state":"alive","capacity":{"memory":0,"fuel_rate":0},"reserved":{"memory":0,"fuel_rate":0},
            "allocations":0,"clock_unset":true}]}"#;
        expect![[r#"
            NODE    STATE                                SEEN      LINK                                   ALLOCATIONS  MEMORY FREE  OF    FUEL RATE FREE  OF    INGRESS         RESOURCES         LABELS  VERSION
            node-1  alive                                1.2s ago  1.2ms                                  1            960MiB       1GiB  1950M/s         2G/s  127.0.0.1:8080                    zone=a  0.1.0
            node-2  never-seen                                                                            0            0B           0B    0/s             0/s
            node-3  draining for 9m59s                             48.0ms, relayed with a b c and 2 more  2            0B           0B    0/s             0/s                   gpu=2 port-cam=1
            node-4  lost, cordoned, set aside for 1m00s                                                   0            0B           0B    0/s             0/s
            node-5  drained                                        90.0ms over TCP                        0            0B           0B    0/s             0/s
            node-6  clock not set                                                                         0            0B           0B    0/s             0/s"#]].assert_eq(&shown(&serde_json::from_str(json).unwrap()));
        expect![[r#"
            no nodes yet; `dunlin token create` makes a token with which one joins
        "#]]
        .assert_eq(&shown(&NodeList::default()));
    }
}
