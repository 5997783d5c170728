//! What nodes are told, in short.

use std::fmt::Write as _;

use dunlin_model::{Assignment, Endpoint, RouteTable, Work};

use crate::secrets;

/// Returns an assignment in short: `3: a1@1 a2=0..5 | shop.example: a1`.
pub(crate) fn describe(assignment: &Assignment) -> String {
    let mut told = format!("{}.{}:", assignment.term, assignment.generation);
    for allocation in &assignment.allocations {
        match &allocation.work {
            Work::Serve => write!(told, " {}@{}", allocation.id, allocation.revision).unwrap(),
            Work::Items { run, range, attempt, combine, inputs: _ } => {
                let mark = if *combine { " combine" } else { "" };
                write!(told, " {}[{run} {range} attempt {attempt}{mark}]", allocation.id).unwrap();
            }
        }
    }
    secrets::describe(&mut told, assignment);
    let RouteTable { routes, endpoints, shares, .. } = &assignment.routes;
    let routed = routes.iter().map(|route| (route.spec.host.clone().unwrap(), &route.workload));
    let unrouted = endpoints.keys().filter(|name| !routes.iter().any(|route| route.workload == **name));
    for (host, workload) in routed.chain(unrouted.map(|name| (name.host().to_string(), name))) {
        let endpoints = endpoints[workload].iter();
        let shown = |Endpoint { allocation, node, canary }: &Endpoint| {
            format!("{}{allocation} on {node}", if *canary { "canary " } else { "" })
        };
        let endpoints: Vec<String> = endpoints.map(shown).collect();
        let share = shares.get(workload).map(|share| format!(" with {share} to canaries"));
        write!(told, " | {host}: {}{}", endpoints.join(", "), share.unwrap_or_default()).unwrap();
    }
    let peers: Vec<String> = assignment.routes.peers.keys().map(ToString::to_string).collect();
    write!(told, " | peers {}", peers.join(" ")).unwrap();
    told
}
