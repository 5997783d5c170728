//! Rollout: the passage of one service from its earlier revisions to the newest, some allocations at a time.
//!
//! A pure plan from what there is. As many more than desired may exist meanwhile, and as many less may serve, as the
//! service allows; beyond that an earlier one that serves is only ended when a new one serves. So a new revision that
//! never runs leaves the old one serving.
//!
//! Not here: a service that runs everywhere (`everywhere`), on which node a new allocation goes (`placement`), and whether the new revision is well (`judge`).

use dunlin_model::AllocationId;

use crate::planted::{Bug, planted};

/// One live allocation of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub(crate) id: AllocationId,
    /// Whether it is of the newest revision.
    pub(crate) is_newest: bool,
    /// Whether it is to leave its node: it makes way for another, as one of an earlier revision does.
    pub(crate) is_leaving: bool,
    /// Whether it answers requests.
    pub(crate) is_running: bool,
    /// How many of the service are on its node.
    pub(crate) crowd: u32,
}

impl Copy {
    pub(crate) const fn is_current(&self) -> bool {
        self.is_newest && !self.is_leaving
    }
}

/// How far a rollout may go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    /// All allocations follow.
    #[default]
    Rolling,
    /// So many of the newest revision run beside the others.
    Canary(u32),
    /// Nothing more is replaced.
    Halted,
}

/// What a rollout may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    /// How many more than desired there may be meanwhile.
    pub(crate) surge: u32,
    /// How many less than desired may serve meanwhile.
    pub(crate) unavailable: u32,
}

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Whom to end.
    pub(crate) end: Vec<AllocationId>,
    /// How many of the newest revision to start.
    pub(crate) start: u32,
    /// How many of the revision before to start.
    pub(crate) start_earlier: u32,
}

/// Returns what brings `copies` nearer to `desired` allocations of the newest revision, as far as the phase allows.
pub(crate) fn plan(desired: u32, phase: Phase, rules: Rules, copies: &[Copy]) -> Plan {
    let (newest, earlier): (Vec<Copy>, Vec<Copy>) = copies.iter().partition(|copy| copy.is_newest);
    // What has failed is not started anew where it leaves a node: the revision before takes its place.
    let goes = |copy: &&Copy| phase == Phase::Halted && copy.is_leaving && copy.is_running;
    let (leaving, newest): (Vec<Copy>, Vec<Copy>) = newest.iter().partition(goes);
    let (wanted, wanted_earlier) = match phase {
        Phase::Rolling => return roll(desired, rules, copies),
        Phase::Canary(canaries) => (canaries, desired),
        Phase::Halted => {
            let serving = newest.iter().filter(|copy| copy.is_running).count();
            let serving = u32::try_from(serving).unwrap_or(u32::MAX);
            let silent = u32::try_from(newest.len()).unwrap_or(u32::MAX) - serving;
            // Of those that do not serve some stay, so that it can be seen why.
            let stay = serving.min(desired).saturating_add(silent.min(rules.surge.max(1)));
            (stay, desired.saturating_sub(serving))
        }
    };
    // Each of the two is as a service that has no other revision. But what is too much of the newest and answers, as it
    // was there before under another, goes only when enough of the revision before answer: that one takes its place.
    let Plan { mut end, start, start_earlier: _ } = roll(wanted, rules, &newest);
    let (surplus, rest): (Vec<Copy>, Vec<Copy>) =
        newest.iter().partition(|copy| copy.is_running && end.contains(&copy.id));
    end.retain(|id| rest.iter().any(|copy| copy.id == *id));
    let surplus = surplus.into_iter().chain(leaving).map(|copy| Copy { is_newest: false, ..copy });
    let earlier = earlier.into_iter().map(|copy| Copy { is_newest: true, ..copy });
    let before = roll(wanted_earlier, rules, &earlier.chain(surplus).collect::<Vec<_>>());
    end.extend(before.end);
    Plan { end, start, start_earlier: before.start }
}

fn roll(desired: u32, rules: Rules, copies: &[Copy]) -> Plan {
    let desired_count = usize::try_from(desired).unwrap_or(usize::MAX);
    let as_count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
    let (mut current, mut old): (Vec<Copy>, Vec<Copy>) = copies.iter().partition(|copy| copy.is_current());
    let mut end = Vec::new();
    shrink(&mut current, desired_count, &mut end);

    // An earlier allocation that does not answer is no loss.
    let (serving_old, silent_old): (Vec<Copy>, Vec<Copy>) = old.iter().partition(|copy| copy.is_running);
    end.extend(silent_old.iter().map(|copy| copy.id));
    old = serving_old;
    let serves = |copy: &&Copy| copy.is_running || planted(Bug::EndOldBeforeNew);
    let serving = current.iter().filter(serves).count();
    let needed = desired_count.saturating_sub(as_count(rules.unavailable)).saturating_sub(serving);
    shrink(&mut old, needed, &mut end);

    // Earlier ones that were lost may have come back after they were replaced: of what does not serve yet, no more
    // than what the rollout allows is kept. Those that serve are never among the surplus here.
    let surge = if old.is_empty() { 0 } else { as_count(rules.surge) };
    let most = desired_count.saturating_add(surge);
    shrink(&mut current, most.saturating_sub(old.len()), &mut end);

    let wanted = desired_count.saturating_sub(current.len());
    let start = wanted.min(most.saturating_sub(current.len() + old.len()));
    Plan { end, start: u32::try_from(start).unwrap_or(u32::MAX), start_earlier: 0 }
}

/// Ends surplus copies: those that do not run first, then those where most are, then those with the highest id.
pub(crate) fn shrink(copies: &mut Vec<Copy>, wanted: usize, end: &mut Vec<AllocationId>) {
    copies.sort_by_key(|copy| (std::cmp::Reverse(copy.is_running), copy.crowd, copy.id));
    let kept = wanted.min(copies.len());
    end.extend(copies.drain(kept..).rev().map(|copy| copy.id));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_BY_ONE: Rules = Rules { surge: 1, unavailable: 0 };

    /// Reads copies like `1 2! 3+ 4!+`: `!` runs, `+` is of the newest revision, `-` is to leave its node.
    fn planned_as(desired: u32, phase: Phase, rules: Rules, copies: &str) -> String {
        let copies: Vec<Copy> = copies
            .split_whitespace()
            .map(|word| Copy {
                id: AllocationId::new(word.trim_end_matches(['!', '+', '-']).parse().unwrap()),
                is_newest: word.contains('+'),
                is_leaving: word.contains('-'),
                is_running: word.contains('!'),
                crowd: 0,
            })
            .collect();
        let Plan { end, start, start_earlier } = plan(desired, phase, rules, &copies);
        let end: Vec<String> = end.iter().map(ToString::to_string).collect();
        let earlier = if start_earlier > 0 { format!(" earlier {start_earlier}") } else { String::new() };
        format!("end [{}] start {start}{earlier}", end.join(" "))
    }

    fn planned(desired: u32, copies: &str) -> String {
        planned_as(desired, Phase::Rolling, ONE_BY_ONE, copies)
    }

    #[test]
    fn what_may_be_more_is_started_and_what_may_be_missing_is_ended() {
        let planned =
            |surge, unavailable, copies| planned_as(4, Phase::Rolling, Rules { surge, unavailable }, copies);
        assert_eq!(planned(2, 0, "1! 2! 3! 4!"), "end [] start 2");
        assert_eq!(planned(2, 0, "1! 2! 3! 4! 5+ 6!+"), "end [a4] start 1");
        assert_eq!(planned(4, 0, "1! 2! 3! 4!"), "end [] start 4");
        assert_eq!(planned(0, 1, "1! 2! 3! 4!"), "end [a4] start 1");
        assert_eq!(planned(0, 1, "1! 2! 3! 5+"), "end [] start 0");
        assert_eq!(planned(0, 1, "1! 2! 3! 5!+"), "end [a3] start 1");
        assert_eq!(planned(0, 4, "1! 2! 3! 4!"), "end [a4 a3 a2 a1] start 4");
        assert_eq!(planned(1, 1, "1! 2! 3! 4!"), "end [a4] start 2");
    }

    #[test]
    fn canaries_run_beside_what_was_before() {
        let planned = |copies| planned_as(3, Phase::Canary(1), ONE_BY_ONE, copies);
        assert_eq!(planned("1! 2! 3!"), "end [] start 1");
        assert_eq!(planned("1! 2! 3! 4+"), "end [] start 0");
        assert_eq!(planned("1! 2 3! 4!+ 5+"), "end [a5] start 0");
        assert_eq!(planned("1! 4!+"), "end [] start 0 earlier 2");
        assert_eq!(planned("1! 2! 3!- 4!+"), "end [] start 0 earlier 1");
        assert_eq!(planned("1! 2! 3! 4!+-"), "end [] start 1");
        // What answers and is too much as a canary goes only when others answer.
        assert_eq!(planned("1!+ 2!+ 3!+"), "end [] start 0 earlier 2");
        assert_eq!(planned("1!+ 2!+ 3!+ 4!"), "end [] start 0 earlier 1");
    }

    #[test]
    fn a_rollout_that_has_failed_replaces_nothing_more() {
        let planned = |copies| planned_as(3, Phase::Halted, ONE_BY_ONE, copies);
        assert_eq!(planned("1! 2! 3! 4+"), "end [] start 0");
        assert_eq!(planned("1! 2! 4+"), "end [] start 0 earlier 1");
        assert_eq!(planned("1! 4!+ 5!+ 6+"), "end [] start 0");
    }

    #[test]
    fn what_is_missing_is_started_and_what_is_surplus_ended() {
        assert_eq!(planned(3, "1+ 2!+"), "end [] start 1");
        assert_eq!(planned(1, "1!+ 2+ 3!+"), "end [a2 a3] start 0");
        assert_eq!(planned(0, "1!+ 2!"), "end [a1 a2] start 0");
    }

    #[test]
    fn what_is_too_much_of_a_failed_revision_is_ended_all_the_same() {
        let halted = |copies| planned_as(1, Phase::Halted, ONE_BY_ONE, copies);
        assert_eq!(halted("1!+ 2!+ 3!+ 4!+"), "end [a4 a3 a2] start 0");
        assert_eq!(halted("1!+"), "end [] start 0");
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
