//! Rollout: the passage of one service from its earlier revisions to the newest, one allocation at a time.
//!
//! A pure plan from what there is. One more than desired may exist meanwhile, and an earlier one that serves is only
//! ended when a new one serves. So a new revision that never runs leaves the old one serving.
//!
//! Not here: on which node a new allocation goes (`placement`).

use std::collections::BTreeMap;

use dunlin_model::{AllocationId, NodeId};

use crate::planted::{Bug, planted};
/// One live allocation of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) id: AllocationId,
    /// Whether it is of the newest revision.
    pub(crate) is_current: bool,
    /// Whether it answers requests.
    pub(crate) is_running: bool,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whom to end.
    pub(crate) end: Vec<AllocationId>,
    /// How many of the newest revision to start.
    pub(crate) start: u32,
}

/// Returns what brings `copies` nearer to `desired` allocations of the newest revision.
pub(crate) fn plan(desired: u32, copies: &[Copy]) -> Plan {
    let desired_count = usize::try_from(desired).unwrap_or(usize::MAX);
    let (mut current, mut old): (Vec<Copy>, Vec<Copy>) = copies.iter().partition(|copy| copy.is_current);
    let mut end = Vec::new();
    shrink(&mut current, desired_count, &mut end);

    // An earlier allocation that does not answer is no loss.
    let (serving_old, silent_old): (Vec<Copy>, Vec<Copy>) = old.iter().partition(|copy| copy.is_running);
    end.extend(silent_old.iter().map(|copy| copy.id));
    old = serving_old;
    let serves = |copy: &&Copy| copy.is_running || planted(Bug::EndOldBeforeNew);
    let serving = current.iter().filter(serves).count();
    shrink(&mut old, desired_count.saturating_sub(serving), &mut end);

    // Earlier ones that were lost may have come back after they were replaced: of what does not serve yet, no more
    // than the one that the rollout allows is kept. Those that serve are never among the surplus here.
    let room = desired_count.saturating_add(usize::from(!old.is_empty()));
    shrink(&mut current, room.saturating_sub(old.len()), &mut end);

    let total = current.len() + old.len();
    let may_surge = !old.is_empty() && serving == current.len() && total == desired_count;
    let missing = u32::try_from(desired_count.saturating_sub(total)).unwrap_or(u32::MAX);
    let start = if may_surge { 1 } else { missing };
    Plan { end, start }
}

/// What to do now for a service that runs everywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PlanEverywhere {
    /// Whom to end.
    pub(crate) end: Vec<AllocationId>,
    /// On which nodes to start one of the newest revision.
    pub(crate) start: Vec<NodeId>,
    /// On one of which nodes, the first that has room, to start one beside an earlier one that answers.
    pub(crate) replace: Vec<NodeId>,
}

/// Returns what brings `copies` nearer to one allocation of the newest revision on each of `places`, which are open for
/// new ones or not.
///
/// A node that has none is given one at once. An earlier one is replaced on its own node, first new then old, on one
/// node after the other.
pub(crate) fn plan_everywhere(places: &BTreeMap<NodeId, bool>, copies: &[(Copy, NodeId)]) -> PlanEverywhere {
    let mut on_node: BTreeMap<&NodeId, Vec<Copy>> = BTreeMap::new();
    for (copy, node) in copies {
        on_node.entry(node).or_default().push(*copy);
    }
    let is_replacing = on_node.values().any(|copies| {
        copies.iter().any(|copy| !copy.is_current)
            && copies.iter().any(|copy| copy.is_current && !copy.is_running)
    });
    let mut plan = PlanEverywhere::default();
    for (node, is_open) in places {
        let (mut current, mut old): (Vec<Copy>, Vec<Copy>) =
            on_node.remove(node).unwrap_or_default().into_iter().partition(|copy| copy.is_current);
        shrink(&mut current, 1, &mut plan.end);
        let is_served = current.iter().any(|copy| copy.is_running);
        shrink(&mut old, usize::from(!is_served), &mut plan.end);
        if !is_open || !current.is_empty() {
            continue;
        }
        if old.iter().any(|copy| copy.is_running) {
            plan.replace.push(node.clone());
        } else {
            plan.start.push(node.clone());
        }
    }
    if is_replacing {
        plan.replace.clear();
    }
    plan.end.extend(on_node.values().flatten().map(|copy| copy.id));
    plan
}

/// Ends surplus copies: those that do not run first, then those with the highest id.
fn shrink(copies: &mut Vec<Copy>, wanted: usize, end: &mut Vec<AllocationId>) {
    copies.sort_by_key(|copy| (std::cmp::Reverse(copy.is_running), copy.id));
    let kept = wanted.min(copies.len());
    end.extend(copies.drain(kept..).rev().map(|copy| copy.id));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads copies like `1 2! 3+ 4!+`: `!` runs, `+` is of the newest revision.
    fn planned(desired: u32, copies: &str) -> String {
        let copies: Vec<Copy> = copies
            .split_whitespace()
            .map(|word| Copy {
                id: AllocationId::new(word.trim_end_matches(['!', '+']).parse().unwrap()),
                is_current: word.contains('+'),
                is_running: word.contains('!'),
            })
            .collect();
        let Plan { end, start } = plan(desired, &copies);
        let end: Vec<String> = end.iter().map(ToString::to_string).collect();
        format!("end [{}] start {start}", end.join(" "))
    }

    #[test]
    fn what_is_missing_is_started_and_what_is_surplus_ended() {
        assert_eq!(planned(3, "1+ 2!+"), "end [] start 1");
        assert_eq!(planned(1, "1!+ 2+ 3!+"), "end [a2 a3] start 0");
        assert_eq!(planned(0, "1!+ 2!"), "end [a1 a2] start 0");
    }

    #[test]
    fn a_rollout_goes_one_by_one() {
        assert_eq!(planned(2, "1! 2!"), "end [] start 1");
        assert_eq!(planned(2, "1! 2! 3+"), "end [] start 0");
        assert_eq!(planned(2, "1! 2! 3!+"), "end [a2] start 1");
        assert_eq!(planned(2, "1! 3!+"), "end [] start 1");
        assert_eq!(planned(2, "1! 3!+ 4!+"), "end [a1] start 0");
    }

    #[test]
    fn what_replaced_lost_ones_makes_way_when_they_are_back() {
        assert_eq!(planned(3, "1! 2! 3! 4+ 5+"), "end [a5] start 0");
        assert_eq!(planned(2, "1! 2!+ 3+ 4+"), "end [a4] start 0");
    }

    #[test]
    fn a_broken_revision_is_replaced_though_nothing_of_it_runs() {
        assert_eq!(planned(2, "1! 2! 3"), "end [a3] start 1");
        assert_eq!(planned(2, "1 2"), "end [a1 a2] start 2");
    }
}
