//! From which other nodes a node may take the chunks of a component. Pure.
//!
//! Neighbours are nodes with the same value of the label `site`: what is between them costs less than the way to here. A
//! node without that label has none.

use std::net::SocketAddr;

use dunlin_model::{Digest, NodeId, ObservedState};
use dunlin_protocol::Neighbour;
use dunlin_scheduler::{NodeStatus, NodeView, View};

/// The label that says where a node is.
const SITE: &str = "site";
/// How many nodes share the fetching of a component. More of them would have more connections to each other, and save
/// nothing: each group brings it over the site's link once.
const GROUP: usize = 24;
/// How many are named of those that have all of it.
const GIVERS: usize = 6;

/// A node at the same site that has the component, or is to have it.
#[derive(Clone, Debug)]
struct Candidate {
    node: NodeId,
    address: SocketAddr,
    has_all: bool,
}

/// Returns where a node is, if its operator says so.
pub(crate) fn site(node: &NodeView) -> Option<&str> {
    node.record.info.as_ref()?.labels.get(SITE).map(String::as_str)
}

/// Returns from whom `node` may take the component: some that have all of it, and those that fetch it together with `node`.
pub(crate) fn neighbours(view: &View, node: &NodeId, component: &Digest) -> Vec<Neighbour> {
    let Some(here) = view.nodes.get(node).and_then(site) else { return Vec::new() };
    let is_near =
        |other: &NodeView| other.status == NodeStatus::Alive && other.connected && site(other) == Some(here);
    let mut candidates: Vec<Candidate> = Vec::new();
    let of_component = view.allocations.values().filter(|it| it.record.spec.component == *component);
    for allocation in of_component.filter(|it| it.record.is_assigned()) {
        let Some(other) = view.nodes.get(&allocation.record.node).filter(|other| is_near(other)) else {
            continue;
        };
        let Some(info) = &other.record.info else { continue };
        let Some(has_all) = has_all(allocation.observed.as_ref().map(|report| &report.state)) else {
            continue;
        };
        candidates.push(Candidate { node: other.record.id.clone(), address: info.peer, has_all });
    }
    choose(candidates, node)
}

/// Tells whether a node on which an allocation is in this state has all of its component; nothing if it may not come to that.
fn has_all(state: Option<&ObservedState>) -> Option<bool> {
    match state {
        None | Some(ObservedState::Fetching) => Some(false),
        Some(
            ObservedState::Starting
            | ObservedState::Running
            | ObservedState::Unhealthy { .. }
            | ObservedState::Stopped { .. }
            | ObservedState::Finished,
        ) => Some(true),
        // It may be the fetching that has failed.
        Some(ObservedState::BackingOff { .. } | ObservedState::Refused { .. }) => None,
    }
}

/// Chooses those of `candidates` that are named to `node`; all who fetch at the same time are told of one another.
fn choose(mut candidates: Vec<Candidate>, node: &NodeId) -> Vec<Neighbour> {
    // Of several allocations on a node one that runs is enough.
    candidates.sort_by(|one, other| one.node.cmp(&other.node).then(other.has_all.cmp(&one.has_all)));
    candidates.dedup_by(|later, first| later.node == first.node);
    let place = candidates.partition_point(|candidate| candidate.node < *node);
    let (mut givers, fetching): (Vec<_>, Vec<_>) =
        candidates.into_iter().partition(|candidate| candidate.has_all && candidate.node != *node);
    if !givers.is_empty() {
        // Not the same ones for everybody.
        let turn = place % givers.len();
        givers.rotate_left(turn);
        givers.truncate(GIVERS);
    }
    let group = fetching.partition_point(|candidate| candidate.node < *node) / GROUP;
    let group = fetching.into_iter().skip(group * GROUP).take(GROUP);
    let others = givers.into_iter().chain(group).filter(|candidate| candidate.node != *node);
    others.map(|Candidate { node, address, has_all }| Neighbour { node, address, has_all }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: usize, with_all: &[usize]) -> Vec<Candidate> {
        let candidate = |number: usize| Candidate {
            node: name(number),
            address: SocketAddr::from(([10, 0, 0, 1], 4433)),
            has_all: with_all.contains(&number),
        };
        (0..count).map(candidate).collect()
    }

    fn name(number: usize) -> NodeId {
        format!("node-{number:03}").parse().unwrap()
    }

    fn names(candidates: Vec<Candidate>, node: &NodeId) -> Vec<NodeId> {
        choose(candidates, node).into_iter().map(|neighbour| neighbour.node).collect()
    }

    #[test]
    fn those_who_fetch_together_are_told_of_one_another() {
        for number in 0..60 {
            let group = number / GROUP * GROUP..60.min((number / GROUP + 1) * GROUP);
            let others: Vec<_> = group.filter(|other| *other != number).map(name).collect();
            assert_eq!(names(candidates(60, &[]), &name(number)), others);
        }
    }

    #[test]
    fn who_has_all_of_it_goes_before_who_fetches_it_and_not_all_ask_the_same_ones() {
        assert_eq!(names(candidates(4, &[3]), &name(1)), [name(3), name(0), name(2)]);
        let all: Vec<usize> = (6..30).collect();
        let [one, other] = [0, 5].map(|number| names(candidates(30, &all), &name(number)));
        assert_eq!((one.len(), other.len()), (GIVERS + 5, GIVERS + 5));
        assert_ne!(one[..GIVERS], other[..GIVERS]);
    }

    #[test]
    fn a_node_is_no_neighbour_of_its_own_and_is_named_once() {
        let twice = [candidates(3, &[]), candidates(3, &[2])].concat();
        let named = choose(twice, &name(0));
        let named: Vec<_> = named.into_iter().map(|it| (it.node, it.has_all)).collect();
        assert_eq!(named, [(name(2), true), (name(1), false)]);
        assert_eq!(names(candidates(1, &[0]), &name(0)), []);
    }
}
