//! What a service needs next that runs everywhere: one allocation of the newest revision on each of its places.
//!
//! A pure plan from what there is. A place that has none is given one at once. An earlier one that answers is replaced on
//! its own node: by default the new one is started beside it, on as many nodes at a time as the service allows more
//! allocations; on as many as may be without, the earlier one is ended first, which is the way on nodes that have no room
//! for two.
//!
//! Not here: which nodes are places (`reconcile`), and whether the new revision is well (`judge`).

use std::collections::BTreeMap;

use dunlin_model::{AllocationId, NodeId};

use crate::planted::{Bug, planted};
use crate::rollout::{Copy, Phase, Rules, shrink};

/// What to do now for a service that runs everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlanEverywhere {
    /// Whom to end.
    pub(crate) end: Vec<AllocationId>,
    /// On which nodes to start one of the newest revision.
    pub(crate) start: Vec<NodeId>,
    /// On which nodes to start one of the revision before.
    pub(crate) start_earlier: Vec<NodeId>,
    /// On which nodes to start one of the newest revision beside an earlier one that answers.
    pub(crate) replace: Vec<NodeId>,
    /// On how many of those, the first that have room.
    pub(crate) at_once: u32,
}

/// Returns what brings `copies` nearer to one allocation of the newest revision on each of `places`, which are open for
/// new ones or not, as far as the phase allows.
pub(crate) fn plan_everywhere(
    places: &BTreeMap<NodeId, bool>,
    phase: Phase,
    rules: Rules,
    copies: &[(Copy, NodeId)],
) -> PlanEverywhere {
    let has_halted = phase == Phase::Halted && !planted(Bug::EverywhereGoesOn);
    let mut on_node: BTreeMap<&NodeId, Vec<Copy>> = BTreeMap::new();
    for (copy, node) in copies {
        on_node.entry(node).or_default().push(*copy);
    }
    let mut plan = PlanEverywhere::default();
    // The earlier ones that answer, on the nodes in `replace`.
    let mut earlier: Vec<Vec<Copy>> = Vec::new();
    let (mut replacing, mut unserved) = (0_u32, 0_u32);
    for (node, is_open) in places {
        let (mut current, mut old): (Vec<Copy>, Vec<Copy>) =
            on_node.remove(node).unwrap_or_default().into_iter().partition(Copy::is_current);
        shrink(&mut current, 1, &mut plan.end);
        let is_served = current.iter().any(|copy| copy.is_running);
        shrink(&mut old, usize::from(!is_served), &mut plan.end);
        let is_served_by_old = old.iter().any(|copy| copy.is_running);
        unserved += u32::from(*is_open && !is_served && !is_served_by_old);
        replacing += u32::from(!is_served && !current.is_empty() && !old.is_empty());
        if !is_open || !current.is_empty() {
            continue;
        }
        if has_halted {
            if old.is_empty() {
                plan.start_earlier.push(node.clone());
            }
        } else if is_served_by_old {
            plan.replace.push(node.clone());
            earlier.push(old);
        } else {
            plan.start.push(node.clone());
        }
    }
    let first_ended = rules.unavailable.saturating_sub(unserved);
    let first_ended = usize::try_from(first_ended).unwrap_or(usize::MAX).min(plan.replace.len());
    plan.replace.truncate(plan.replace.len() - first_ended);
    plan.end.extend(earlier.drain(plan.replace.len()..).flatten().map(|copy| copy.id));
    plan.at_once = rules.surge.saturating_sub(replacing);
    plan.end.extend(on_node.values().flatten().map(|copy| copy.id));
    plan
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_BY_ONE: Rules = Rules { surge: 1, unavailable: 0 };

    /// Reads places and what is there like `a:1! b:2!,3+ c: (d):4!`: `!` runs, `+` is of the newest revision, a node in
    /// brackets takes nothing new.
    fn planned_as(phase: Phase, rules: Rules, text: &str) -> String {
        let (mut places, mut copies) = (BTreeMap::new(), Vec::new());
        for word in text.split_whitespace() {
            let (place, on_it) = word.split_once(':').expect("a node and what is there");
            let node: NodeId = place.trim_matches(['(', ')']).parse().expect("a name");
            places.insert(node.clone(), !place.starts_with('('));
            for copy in on_it.split(',').filter(|copy| !copy.is_empty()) {
                let copy = Copy {
                    id: AllocationId::new(copy.trim_end_matches(['!', '+']).parse().expect("a number")),
                    is_newest: copy.contains('+'),
                    is_leaving: false,
                    is_running: copy.contains('!'),
                    crowd: 1,
                };
                copies.push((copy, node.clone()));
            }
        }
        let plan = plan_everywhere(&places, phase, rules, &copies);
        let end: Vec<String> = plan.end.iter().map(ToString::to_string).collect();
        let nodes = |nodes: &[NodeId]| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        format!(
            "end [{}] start [{}] earlier [{}] replace {} of [{}]",
            end.join(" "),
            nodes(&plan.start),
            nodes(&plan.start_earlier),
            plan.at_once,
            nodes(&plan.replace)
        )
    }

    #[test]
    fn a_place_without_one_is_given_one_at_once_and_the_rest_goes_from_node_to_node() {
        let planned = |text| planned_as(Phase::Rolling, ONE_BY_ONE, text);
        assert_eq!(planned("a: b: (c):"), "end [] start [a b] earlier [] replace 1 of []");
        assert_eq!(planned("a:1! b:2! c:"), "end [] start [c] earlier [] replace 1 of [a b]");
        assert_eq!(planned("a:1!,3+ b:2!"), "end [] start [] earlier [] replace 0 of [b]");
        assert_eq!(planned("a:1!,3!+ b:2!"), "end [a1] start [] earlier [] replace 1 of [b]");
        assert_eq!(planned("a:3!+ (b):2! c:4"), "end [] start [c] earlier [] replace 1 of []");
    }

    #[test]
    fn as_many_nodes_at_a_time_as_the_service_allows() {
        let planned =
            |surge, unavailable, text| planned_as(Phase::Rolling, Rules { surge, unavailable }, text);
        let four = "a:1! b:2! c:3! d:4!";
        assert_eq!(planned(3, 0, four), "end [] start [] earlier [] replace 3 of [a b c d]");
        assert_eq!(planned(3, 0, "a:1!,5+ b:2! c:3!"), "end [] start [] earlier [] replace 2 of [b c]");
        assert_eq!(planned(0, 2, four), "end [a3 a4] start [] earlier [] replace 0 of [a b]");
        assert_eq!(planned(0, 2, "a:1! b:2! c:5+ d:"), "end [] start [d] earlier [] replace 0 of [a b]");
        assert_eq!(planned(0, 9, four), "end [a1 a2 a3 a4] start [] earlier [] replace 0 of []");
        assert_eq!(planned(1, 1, four), "end [a4] start [] earlier [] replace 1 of [a b c]");
    }

    #[test]
    fn what_has_failed_goes_to_no_other_node() {
        let planned = |text| planned_as(Phase::Halted, Rules { surge: 2, unavailable: 2 }, text);
        assert_eq!(planned("a:1!,5+ b:2! c: d:6!+"), "end [] start [] earlier [c] replace 1 of []");
        assert_eq!(planned("a:1 (b):"), "end [] start [] earlier [] replace 2 of []");
    }
}
