//! Which allocation of a service is tried first, and which after it. Pure.
//!
//! Of two that are on this node, and of two that are on others, the one is taken that has less to do; where both have as
//! much, the one whose turn it is. Then what is here goes before what is elsewhere, until it has so much more to do: the
//! way to another node costs about as much as a short request. What runs on every node answers on its own: whatever is
//! cut from this node, it answers here. Requests with the same key go to the same one, wherever they come in, and where
//! that does not answer to the same next one. Those that failed a moment ago come after all others, so that a fleet in
//! which all have failed still tries.

/// So many requests more than elsewhere are under way here at most before one goes elsewhere.
const ADVANTAGE: usize = 8;

/// What one request is chosen by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// The number of the request.
    pub(crate) turn: usize,
    /// What requests have in common that go to the same allocation.
    pub(crate) key: Option<u64>,
}

/// How far those here go before those elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Home {
    /// As long as they have at most so many requests more to do.
    First(usize),
    /// Whatever they have to do.
    Only,
}

impl Home {
    /// Returns that of a service of which an allocation takes so many requests at the same time, if that is known: it is to be
    /// left before requests wait in it while others are idle.
    pub(crate) fn of(concurrency: Option<u32>) -> Self {
        let half = concurrency.and_then(|concurrency| usize::try_from(concurrency / 2).ok());
        Self::First(half.unwrap_or(ADVANTAGE).min(ADVANTAGE))
    }
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
    /// Returns who is tried first at this turn; nobody if all failed a moment ago.
    fn first(&self, turn: usize, all: &impl Allocations, home: Home) -> Option<usize> {
        let here = of_two(&self.here, turn, all);
        let Home::First(advantage) = home else { return here.or_else(|| of_two(&self.elsewhere, turn, all)) };
        let elsewhere = of_two(&self.elsewhere, turn, all);
        let is_busy = |here: usize| {
            elsewhere.is_some_and(|elsewhere| all.load(here) > all.load(elsewhere).saturating_add(advantage))
        };
        here.filter(|here| !is_busy(*here)).or(elsewhere).or(here)
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

/// Returns the order in which all of `count` allocations are tried at this turn of the group: one of the group, its others,
/// all others.
pub(crate) fn in_turn<'a>(
    group: &'a Group,
    home: Home,
    count: usize,
    turn: usize,
    all: &'a impl Allocations,
) -> impl Iterator<Item = usize> + 'a {
    let first = group.first(turn, all, home);
    let start = turn.checked_rem(count).unwrap_or(0);
    let others = move || round(count, start).filter(move |index| Some(*index) != first);
    let healthy = move || others().filter(|index| !all.is_suspect(*index));
    let near = healthy().filter(|index| group.contains(*index));
    let far = healthy().filter(|index| !group.contains(*index));
    first.into_iter().chain(near).chain(far).chain(others().filter(|index| all.is_suspect(*index)))
}

/// Returns the order in which they are tried for a key: it is the same on every node, and who comes or goes changes nothing
/// of how the others stand (rendezvous hashing).
pub(crate) fn by_key(group: &Group, count: usize, key: u64, all: &impl Allocations) -> Vec<usize> {
    let rank = |index: &usize| {
        let score = mix(key ^ mix(all.number(*index)));
        (all.is_suspect(*index), !group.contains(*index), std::cmp::Reverse(score))
    };
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_cached_key(rank);
    order
}

/// Returns the numbers below `count` from `start` on and round.
pub(crate) fn round(count: usize, start: usize) -> impl Iterator<Item = usize> {
    (start..count).chain(0..start)
}

/// Tells whether the request goes to a canary, to which `some` of so many go: evenly in their turn, or always for the same
/// keys. And says which turn that is among those that go to canaries, or to others.
pub(crate) fn canary_turn(wish: Wish, (some, all): (u64, u64)) -> (bool, usize) {
    if let Some(key) = wish.key {
        // Not the number by which the allocation is chosen, or canaries would have the same keys each.
        let goes = mix(key.rotate_left(32)).checked_rem(all).is_some_and(|place| place < some);
        return (goes, wish.turn);
    }
    let canaries_before = |turn: u128| (turn * u128::from(some)).checked_div(all.into()).unwrap_or(0);
    let turn = wish.turn as u128;
    let before = canaries_before(turn);
    let goes = canaries_before(turn + 1) > before;
    let own = if goes { before } else { turn - before };
    // At most the turn itself, unless all are canaries, and then it is that.
    (goes, usize::try_from(own).unwrap_or(wish.turn))
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
        (0..turns).map(|turn| group.first(turn, known, Home::of(None))).collect()
    }

    #[test]
    fn with_as_much_to_do_each_has_its_turn() {
        let all = group(&[0, 1, 2], &[]);
        assert_eq!(firsts(&all, &Known(&[0; 3], &[]), 4), [Some(0), Some(1), Some(2), Some(0)]);
        assert_eq!(firsts(&group(&[], &[0, 1]), &Known(&[5; 2], &[]), 3), [Some(0), Some(1), Some(0)]);
        assert_eq!(firsts(&group(&[], &[]), &Known(&[], &[]), 1), [None]);
        assert_eq!(group(&[0], &[]).first(usize::MAX, &Known(&[0], &[]), Home::Only), Some(0));
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
        assert_eq!(all.first(0, &Known(&[0, 100, 0], &[]), Home::Only), Some(1));
        assert_eq!(all.first(0, &Known(&[0, 100, 0], &[1]), Home::Only), Some(0));
    }

    #[test]
    fn where_few_requests_have_room_they_go_elsewhere_before_they_wait() {
        let all = group(&[1], &[0, 2]);
        for (concurrency, most) in [(1, 0), (2, 1), (4, 2), (15, 7), (16, 8), (64, 8)] {
            let first = |load| all.first(0, &Known(&[0, load, 0], &[]), Home::of(Some(concurrency)));
            assert_eq!((first(most), first(most + 1)), (Some(1), Some(0)), "{concurrency}");
        }
    }

    #[test]
    fn what_failed_comes_last_and_is_tried_if_there_is_nothing_else() {
        let known = Known(&[0; 5], &[1, 4]);
        let canaries = group(&[0], &[3, 4]);
        let tried: Vec<usize> = in_turn(&canaries, Home::First(0), 5, 1, &known).collect();
        assert_eq!(tried, [0, 3, 2, 1, 4]);
        let known = Known(&[0; 2], &[0, 1]);
        let all = group(&[0, 1], &[]);
        assert_eq!(firsts(&all, &known, 1), [None]);
        assert_eq!(in_turn(&all, Home::Only, 2, 1, &known).collect::<Vec<_>>(), [1, 0]);
        assert_eq!(in_turn(&group(&[], &[]), Home::Only, 0, 7, &Known(&[], &[])).count(), 0);
    }

    #[test]
    fn a_key_stays_with_its_allocations_whoever_else_comes_or_goes() {
        let (here, there) = (group(&[0, 1], &[2, 3]), group(&[2, 3], &[0, 1]));
        let mut of_each = BTreeMap::new();
        for key in 0..1000_u64 {
            let key = mix(key);
            let order = by_key(&here, 4, key, &Known(&[0, 50, 0, 0], &[]));
            *of_each.entry(order[0]).or_insert(0) += 1;
            assert_eq!(by_key(&there, 4, key, &Known(&[0; 4], &[])), order);
            // With one of them away the others stand as before.
            let without = by_key(&here, 4, key, &Known(&[0; 4], &[3]));
            let others = order.iter().copied().filter(|index| *index != 3);
            assert!(others.chain([3]).eq(without));
        }
        assert!(of_each.len() == 4 && of_each.values().all(|keys| (200..300).contains(keys)), "{of_each:?}");
    }

    #[test]
    fn canaries_have_their_share_and_each_of_them_as_much() {
        for percent in [1, 5, 33, 50, 99, 100] {
            let goes = |turn, key| canary_turn(Wish { turn, key }, (percent, 100)).0;
            let turns = (0..1000).filter(|turn| goes(*turn, None)).count();
            assert_eq!(turns as u64, percent * 10);
            let keys = (0..10_000).filter(|key| goes(0, Some(mix(*key)))).count();
            let off = (keys as u64).abs_diff(percent * 100);
            assert!(off < 200, "{percent}% is off by {off} of 10,000");
        }
        for share in [(2, 4), (10, 100), (1, 3), (25, 100)] {
            let mut next = [0, 0];
            for turn in 0..1000 {
                let (goes, own) = canary_turn(Wish { turn, key: None }, share);
                assert_eq!(own, next[usize::from(goes)], "turn {turn} of {share:?}");
                next[usize::from(goes)] += 1;
            }
        }
        assert_eq!(canary_turn(Wish { turn: 7, key: None }, (0, 0)), (false, 7));
        assert_eq!(canary_turn(Wish { turn: usize::MAX, key: None }, (1, 1)), (true, usize::MAX));
    }
}
