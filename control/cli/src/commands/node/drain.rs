//! Draining a node, and watching it until nothing is left there.
//!
//! Who is left is read from the apps, how many are left from the node itself: an app that is deleted meanwhile names
//! none of its allocations any more.

use std::time::Duration;

use dunlin_api::{AllocationState, AppStatus, Client, ClientError, CordonNode, NodeStatus};
use dunlin_model::{DurationMs, NodeId};

use super::DrainArgs;
use crate::args::Global;
use crate::error::CommandError;
use crate::output::Output;
use crate::time::about;

const POLL: Duration = Duration::from_millis(250);
/// How many allocations are named; of more only the number is said.
const NAMED: usize = 10;

pub(super) async fn run(global: &Global, args: &DrainArgs, output: &Output) -> Result<(), CommandError> {
    let DrainArgs { node, deadline, wait } = args;
    let client = crate::client::connect(global)?;
    let left = if *wait { Left::on(&client, node).await? } else { Left::default() };
    let status = client
        .cordon_node(node, &CordonNode { drain_ms: Some(*deadline) })
        .await
        .map_err(|error| CommandError::client(format!("cannot drain `{node}`"), &error))?;
    if *wait {
        output.note(&format!("`{node}` is being drained; what is left in {} is ended", about(*deadline)));
        let status = until_empty(&client, node, left, output).await?;
        return output.result(&status, || {
            format!("`{node}` runs nothing, and nothing new goes there until `dunlin node uncordon {node}`\n")
        });
    }
    output.result(&status, || started(&status))
}

fn started(status: &NodeStatus) -> String {
    let node = &status.node;
    match status.allocations {
        0 => {
            format!("`{node}` runs nothing, and nothing new goes there until `dunlin node uncordon {node}`\n")
        }
        allocations => {
            let end = about(DurationMs(status.drain_ends_in_ms.unwrap_or_default()));
            format!(
                "{} to leave `{node}`, and what is left in {end} is ended; `dunlin nodes` shows how many are left\n",
                have(allocations)
            )
        }
    }
}

fn have(allocations: u32) -> String {
    if allocations == 1 { "1 allocation has".to_owned() } else { format!("{allocations} allocations have") }
}

/// What is on a node that is to leave it, and was not told to stop yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Left {
    /// The allocations: `a3` of `default/shop/cart`.
    allocations: Vec<String>,
    /// Why there is no room for them elsewhere: `default/shop/cart` and the reason.
    reasons: Vec<String>,
}

impl Left {
    async fn on(client: &Client, node: &NodeId) -> Result<Self, CommandError> {
        let apps = client.apps().await.map_err(|error| not_told(node, &error))?.apps;
        Ok(Self::of(node, &apps))
    }

    fn of(node: &NodeId, apps: &[AppStatus]) -> Self {
        let mut left = Self::default();
        for app in apps {
            for workload in &app.workloads {
                let here = workload.allocations.iter().filter(|it| it.node == *node);
                let before = left.allocations.len();
                let stays = here.filter(|it| it.state != AllocationState::Stopping);
                let name = app.name.workload(&workload.name);
                left.allocations.extend(stays.map(|it| format!("{} of `{name}`", it.id)));
                let waiting = workload.waiting.as_ref().filter(|_| left.allocations.len() > before);
                left.reasons.extend(waiting.map(|reason| format!("`{name}` waits: {reason}")));
            }
        }
        left
    }

    fn named(&self) -> String {
        let more = self.allocations.len().saturating_sub(NAMED);
        let named = self.allocations[..self.allocations.len() - more].join(", ");
        if more == 0 { named } else { format!("{named} and {more} more") }
    }
}

fn not_told(node: &NodeId, error: &ClientError) -> CommandError {
    CommandError::client(format!("cannot tell what is left on `{node}`"), error)
}

/// Waits until nothing is left on a node, and tells what is meanwhile. `left` is what was there at first.
async fn until_empty(
    client: &Client,
    node: &NodeId,
    mut left: Left,
    output: &Output,
) -> Result<NodeStatus, CommandError> {
    let mut told = Left::default();
    let mut was_ended = false;
    loop {
        let nodes = client.nodes().await.map_err(|error| not_told(node, &error))?.nodes;
        let status = nodes.into_iter().find(|status| status.node == *node);
        let status = status.filter(|status| status.cordoned_ms_ago.is_some());
        let status = status.ok_or_else(|| uncordoned(node))?;
        let is_over = status.drain_ends_in_ms.is_none();
        was_ended |= is_over && !left.allocations.is_empty();
        if status.allocations == 0 {
            return if was_ended { Err(ended(node, &left)) } else { Ok(status) };
        }
        if !is_over {
            left = Left::on(client, node).await?;
            if told != left && !left.allocations.is_empty() {
                tell(&left, &status, output);
                told = left.clone();
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

fn tell(left: &Left, status: &NodeStatus, output: &Output) {
    let end = about(DurationMs(status.drain_ends_in_ms.unwrap_or_default()));
    output.note(&format!("left on `{}` for at most {end}: {}", status.node, left.named()));
    for reason in &left.reasons {
        output.note(reason);
    }
}

fn uncordoned(node: &NodeId) -> CommandError {
    CommandError::failed(format!("`{node}` is not drained any more"))
        .because("somebody has uncordoned it meanwhile")
        .help(format!("`dunlin node drain {node}` begins anew; `dunlin nodes` shows how it stands"))
}

fn ended(node: &NodeId, left: &Left) -> CommandError {
    let error = CommandError::failed(format!("not everything has left `{node}` by itself"))
        .because(format!("when the deadline was over these were left and had to be ended: {}", left.named()));
    let error = left.reasons.iter().fold(error, |error, reason| error.because(reason.clone()));
    error.help(
        "the node is empty and stays cordoned; what was ended goes on when there is room elsewhere, as \
         `dunlin status` shows; a longer `--deadline` or another node would have given it a place",
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn apps() -> Vec<AppStatus> {
        let allocation = |id: &str, node: &str, state: &str| {
            format!(
                r#"{{"id":"{id}","node":"{node}","revision":1,"state":"{state}","restarts":0,"memory":0,"fuel":0,
                "instances":0}}"#
            )
        };
        let app = |waiting: &str, allocations: &[String]| {
            format!(
                r#"{{"name":"default/shop","revision":1,"workloads":[{{"name":"cart","kind":"service","desired":3,
                "running":1,"waiting":{waiting},"routes":[],"limits":{{"memory":67108864,"fuel":1000000000,
                "fuel_rate":50000000,"deadline":30000,"concurrency":64}},
                "component":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                "allocations":[{}]}}]}}"#,
                allocations.join(",")
            )
        };
        let here = [
            allocation("a1", "node-1", "running"),
            allocation("a2", "node-2", "running"),
            allocation("a3", "node-2", "stopping"),
        ];
        let many: Vec<String> =
            (10..22).map(|number| allocation(&format!("a{number}"), "node-3", "running")).collect();
        [app("\"no node has 64MiB\"", &here), app("null", &many)]
            .iter()
            .map(|text| serde_json::from_str(text).unwrap())
            .collect()
    }

    #[test]
    fn what_is_left_is_named_with_the_reason() {
        let node = "node-2".parse().unwrap();
        expect![[r#"
            error: not everything has left `node-2` by itself
              cause: when the deadline was over these were left and had to be ended: a2 of `default/shop/cart`
              cause: `default/shop/cart` waits: no node has 64MiB
              help: the node is empty and stays cordoned; what was ended goes on when there is room elsewhere, as `dunlin status` shows; a longer `--deadline` or another node would have given it a place
        "#]]
        .assert_eq(&ended(&node, &Left::of(&node, &apps())).to_string());
        assert_eq!(Left::of(&"node-4".parse().unwrap(), &apps()), Left::default());
        let many = Left::of(&"node-3".parse().unwrap(), &apps()).named();
        assert!(many.ends_with("a19 of `default/shop/cart` and 2 more"), "{many}");
    }

    #[test]
    fn who_is_uncordoned_meanwhile_is_told() {
        expect![[r#"
            error: `node-2` is not drained any more
              cause: somebody has uncordoned it meanwhile
              help: `dunlin node drain node-2` begins anew; `dunlin nodes` shows how it stands
        "#]]
        .assert_eq(&uncordoned(&"node-2".parse().unwrap()).to_string());
    }

    #[test]
    fn a_drain_says_how_much_has_to_leave_and_until_when() {
        let status = |allocations: u32| {
            let json = format!(
                r#"{{"node":"node-2","state":"alive","capacity":{{"memory":0,"fuel_rate":0}},
                "reserved":{{"memory":0,"fuel_rate":0}},"allocations":{allocations},"cordoned_ms_ago":0,
                "drain_ends_in_ms":600000}}"#
            );
            serde_json::from_str::<NodeStatus>(&json).unwrap()
        };
        expect![[r#"
            `node-2` runs nothing, and nothing new goes there until `dunlin node uncordon node-2`
            1 allocation has to leave `node-2`, and what is left in 10m00s is ended; `dunlin nodes` shows how many are left
            3 allocations have to leave `node-2`, and what is left in 10m00s is ended; `dunlin nodes` shows how many are left
        "#]]
        .assert_eq(&(started(&status(0)) + &started(&status(1)) + &started(&status(3))));
    }
}
