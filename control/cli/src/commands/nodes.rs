//! `dunlin nodes`: the machines and what is free on them.

use clap::Args;
use dunlin_api::{NodeList, NodeStatus};
use dunlin_model::DurationMs;

use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, table};
use crate::time::about;

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
        "ALLOCATIONS",
        "MEMORY FREE",
        "OF",
        "FUEL RATE FREE",
        "OF",
        "INGRESS",
        "LABELS",
        "VERSION",
    ];
    table(&header, list.nodes.iter().map(row).collect())
}

fn row(node: &NodeStatus) -> Vec<String> {
    let free = node.capacity.minus(node.reserved);
    let seen = node.last_seen_ms_ago.map(|ago| format!("{} ago", about(DurationMs(ago))));
    let labels = node.labels.iter().map(|(key, value)| format!("{key}={value}"));
    vec![
        node.node.to_string(),
        node.state.name().to_owned(),
        seen.unwrap_or_default(),
        node.allocations.to_string(),
        free.memory.to_string(),
        node.capacity.memory.to_string(),
        free.fuel_rate.to_string(),
        node.capacity.fuel_rate.to_string(),
        node.ingress.map(|address| address.to_string()).unwrap_or_default(),
        labels.collect::<Vec<_>>().join(" "),
        node.version.clone(),
    ]
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
            "peer":"127.0.0.1:7400","version":"0.1.0","last_seen_ms_ago":1200,"allocations":1},
            {"node":"node-2","state":"never-seen","capacity":{"memory":0,"fuel_rate":0},
            "reserved":{"memory":0,"fuel_rate":0},"allocations":0}]}"#;
        expect![[r#"
            NODE    STATE       SEEN      ALLOCATIONS  MEMORY FREE  OF    FUEL RATE FREE  OF    INGRESS         LABELS  VERSION
            node-1  alive       1.2s ago  1            960MiB       1GiB  1950M/s         2G/s  127.0.0.1:8080  zone=a  0.1.0
            node-2  never-seen            0            0B           0B    0/s             0/s"#]].assert_eq(&shown(&serde_json::from_str(json).unwrap()));
        expect![[r#"
            no nodes yet; `dunlin token create` makes a token with which one joins
        "#]]
        .assert_eq(&shown(&NodeList::default()));
    }
}
