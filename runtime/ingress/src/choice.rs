//! Which allocation of a service is tried first, and which after it. Pure.
//!
//! Of two that are on this node, and of two that are on others, the one is taken that has less to do; where both have as
//! much, the one whose turn it is. Then what is here goes before what is elsewhere, until it has [`ADVANTAGE`] more to
//! do: the way to another node costs about as much as a short request. What runs on every node answers on its own:
//! whatever is cut from this node, it answers here. A request with a key goes to the one that the key says, wherever it
//! comes in. Those that failed a moment ago come after all others, so that a fleet in which all have failed still tries.

/// So many requests more than elsewhere are under way here before one goes elsewhere.
pub(crate) const ADVANTAGE: usize = 8;

/// What one request is chosen by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// The number of the request.
    pub(crate) turn: usize,
    /// What requests have in common that go to the same allocation.
    pub(crate) key: Option<u64>,
}

/// Those that a service's requests are shared among, by their places in the list of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) here: Vec<usize>,
    pub(crate) elsewhere: Vec<usize>,
}

/// What is known of each allocation.
pub(crate) trait Allocations {
    /// A number that it has on every node.
    fn number(&self, index: usize) -> u64;
    /// Whether it failed a moment ago.
    fn is_suspect(&self, index: usize) -> bool;
    /// How much it has to do, as far as this node knows.
    fn load(&self, index: usize) -> usize;
}

impl Group {
    /// Returns who is tried first; nobody if all failed a moment ago. `stays_here` says that nobody elsewhere is better than
    /// somebody here.
    pub(crate) fn first(&self, wish: Wish, all: &impl Allocations, stays_here: bool) -> Option<usize> {
        if let Some(key) = wish.key {
            let healthy = self.here.iter().chain(&self.elsewhere).filter(|index| !all.is_suspect(**index));
            return healthy.copied().max_by_key(|index| mix(key ^ mix(all.number(*index))));
        }
        let here = of_two(&self.here, wish.turn, all);
        if here.is_some() && (stays_here || self.elsewhere.is_empty()) {
            return here;
        }
        match (here, of_two(&self.elsewhere, wish.turn, all)) {
            (Some(here), Some(elsewhere)) if all.load(here) > all.load(elsewhere) + ADVANTAGE => {
                Some(elsewhere)
            }
            (here, elsewhere) => here.or(elsewhere),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.here.len() + self.elsewhere.len()
    }

    fn contains(&self, index: usize) -> bool {
        // In the order of all.
        self.here.binary_search(&index).is_ok() || self.elsewhere.binary_search(&index).is_ok()
    }
}

/// Returns the one of two that has less to do. If both failed a moment ago, the next that did not.
fn of_two(list: &[usize], turn: usize, all: &impl Allocations) -> Option<usize> {
    let count = list.len();
    let start = turn.checked_rem(count)?;
    let first = list[start];
    if count == 1 {
        return Some(first).filter(|first| !all.is_suspect(*first));
    }
    let apart = 1 + usize::try_from(mix(turn as u64) % (count as u64 - 1)).unwrap_or_default();
    let second = list[(start + apart) % count];
    match (all.is_suspect(first), all.is_suspect(second)) {
        (false, false) if all.load(second) < all.load(first) => Some(second),
        (false, _) => Some(first),
        (true, false) => Some(second),
        (true, true) => round(count, start).map(|place| list[place]).find(|index| !all.is_suspect(*index)),
    }
}

/// Returns the order in which all of `count` allocations are tried: `first`, the others of its `group`, all others.
pub(crate) fn order<'a>(
    first: Option<usize>,
    group: &'a Group,
    count: usize,
    turn: usize,
    all: &'a impl Allocations,
) -> impl Iterator<Item = usize> + 'a {
    let start = turn.checked_rem(count).unwrap_or(0);
    let others = move || round(count, start).filter(move |index| Some(*index) != first);
    let healthy = move || others().filter(|index| !all.is_suspect(*index));
    let near = healthy().filter(|index| group.contains(*index));
    let far = healthy().filter(|index| !group.contains(*index));
    first.into_iter().chain(near).chain(far).chain(others().filter(|index| all.is_suspect(*index)))
}

/// Returns the numbers below `count` from `start` on and round.
pub(crate) fn round(count: usize, start: usize) -> impl Iterator<Item = usize> {
    (start..count).chain(0..start)
}

/// Tells whether the request goes to a canary, to which `some` of so many go: evenly in their turn, or always for the same
/// keys.
pub(crate) fn is_for_canary(wish: Wish, (some, all): (u64, u64)) -> bool {
    match wish.key {
        // Not the number by which the allocation is chosen, or canaries would have the same keys each.
        Some(key) => mix(key.rotate_left(32)).checked_rem(all).is_some_and(|place| place < some),
        None => (wish.turn as u64)
            .checked_rem(all)
            .is_some_and(|turn| (turn + 1) * some / all > turn * some / all),
    }
}

/// Returns a number that looks like chance, and is the same on every machine for the same `number` (the end of `splitmix64`).
pub(crate) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Loads, and who failed a moment ago.
    struct Known<'a>(&'a [usize], &'a [usize]);

    impl Allocations for Known<'_> {
        fn number(&self, index: usize) -> u64 {
            index as u64 + 7
        }

        fn is_suspect(&self, index: usize) -> bool {
            self.1.contains(&index)
        }

        fn load(&self, index: usize) -> usize {
            self.0[index]
        }
    }

    fn group(here: &[usize], elsewhere: &[usize]) -> Group {
        Group { here: here.to_vec(), elsewhere: elsewhere.to_vec() }
    }

    fn firsts(group: &Group, known: &Known<'_>, turns: usize) -> Vec<Option<usize>> {
        (0..turns).map(|turn| group.first(Wish { turn, key: None }, known, false)).collect()
    }

    #[test]
    fn with_as_much_to_do_each_has_its_turn() {
        let all = group(&[0, 1, 2], &[]);
        assert_eq!(firsts(&all, &Known(&[0; 3], &[]), 4), [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(firsts(&group(&[], &[0, 1]), &Known(&[5; 2], &[]), 3), [Some(0), Some(1), Some(0)]);
        assert_eq!(firsts(&group(&[], &[]), &Known(&[], &[]), 1), [None]);
        assert_eq!(
            group(&[0], &[]).first(Wish { turn: usize::MAX, key: None }, &Known(&[0], &[]), false),
            Some(0)
        );
    }

    #[test]
    fn of_two_the_one_with_less_to_do_is_taken_so_the_one_with_most_never_is() {
        let seen = firsts(&group(&[0, 1, 2, 3], &[]), &Known(&[3, 1, 9, 2], &[]), 100);
        let count = |index| seen.iter().filter(|first| **first == Some(index)).count();
        assert_eq!(count(2), 0);
        assert!(count(1) > count(3) && count(3) > count(0), "{seen:?}");
    }

    #[test]
    fn what_is_here_goes_first_until_it_has_much_more_to_do() {
        let all = group(&[1], &[0, 2]);
        assert_eq!(firsts(&all, &Known(&[0, ADVANTAGE, 0], &[]), 3), [Some(1); 3]);
        assert_eq!(firsts(&all, &Known(&[0, ADVANTAGE + 1, 0], &[]), 2), [Some(0), Some(2)]);
        assert_eq!(firsts(&all, &Known(&[0; 3], &[1]), 2), [Some(0), Some(2)]);
        assert_eq!(firsts(&all, &Known(&[0, 100, 0], &[0, 2]), 1), [Some(1)]);
        let stays = all.first(Wish { turn: 0, key: None }, &Known(&[0, 100, 0], &[]), true);
        assert_eq!(stays, Some(1));
    }

    #[test]
    fn what_failed_comes_last_and_is_tried_if_there_is_nothing_else() {
        let known = Known(&[0; 5], &[1, 4]);
        let canaries = group(&[0], &[3, 4]);
        let tried: Vec<usize> = order(Some(3), &canaries, 5, 1, &known).collect();
        assert_eq!(tried, [3, 0, 2, 1, 4]);
        let known = Known(&[0; 2], &[0, 1]);
        let all = group(&[0, 1], &[]);
        assert_eq!(firsts(&all, &known, 1), [None]);
        assert_eq!(order(None, &all, 2, 1, &known).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(order(None, &group(&[], &[]), 0, 7, &Known(&[], &[])).count(), 0);
    }

    #[test]
    fn a_key_stays_with_its_allocation_whoever_else_comes_or_goes() {
        let before = group(&[0, 1], &[2, 3]);
        let mut of_each = BTreeMap::new();
        for key in 0..1000_u64 {
            let wish = Wish { turn: 0, key: Some(mix(key)) };
            let known = Known(&[0, 50, 0, 0], &[]);
            let first = before.first(wish, &known, false).unwrap();
            *of_each.entry(first).or_insert(0) += 1;
            // From the other side, at another turn, and with one of them away.
            let other = group(&[2, 3], &[0, 1]).first(Wish { turn: 3, ..wish }, &known, true);
            assert_eq!(other, Some(first));
            let without = before.first(wish, &Known(&[0; 4], &[3]), false).unwrap();
            assert!(without == first || first == 3);
        }
        assert!(of_each.len() == 4 && of_each.values().all(|keys| (200..300).contains(keys)), "{of_each:?}");
    }

    #[test]
    fn canaries_have_their_share() {
        for percent in [1, 5, 33, 50, 99, 100] {
            let goes = |turn, key| is_for_canary(Wish { turn, key }, (percent, 100));
            let turns = (0..1000).filter(|turn| goes(*turn, None)).count();
            assert_eq!(turns as u64, percent * 10);
            let keys = (0..10_000).filter(|key| goes(0, Some(mix(*key)))).count();
            let off = (keys as u64).abs_diff(percent * 100);
            assert!(off < 200, "{percent}% is off by {off} of 10,000");
        }
        let of_three: Vec<_> = (0..6).map(|turn| is_for_canary(Wish { turn, key: None }, (1, 3))).collect();
        assert_eq!(of_three, [false, false, true, false, false, true]);
        assert!(!is_for_canary(Wish { turn: 0, key: None }, (0, 0)));
    }
}
