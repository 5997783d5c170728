//! Which endpoint is tried first, and which after it. Pure.
//!
//! Round robin: every request begins one further. Suspect endpoints keep their turn but come after all others, so
//! that a fleet in which everything is suspect still tries. What runs on every node answers first on its own: whatever
//! is cut from this node, it answers here.

/// Returns the order in which `count` endpoints are tried by the request with this `turn`, those of `first` before others.
pub(crate) fn order(
    turn: usize,
    count: usize,
    first: &[usize],
    is_suspect: impl Fn(usize) -> bool + Copy,
) -> impl Iterator<Item = usize> {
    let round = move |count: usize| {
        let start = turn.checked_rem(count).unwrap_or(0);
        (start..count).chain(0..start)
    };
    let early = round(first.len()).map(move |place| first[place]).filter(move |it| !is_suspect(*it));
    let in_turn = round(count).filter(move |it| !first.contains(it) && !is_suspect(*it));
    early.chain(in_turn).chain(round(count).filter(move |it| is_suspect(*it)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(turn: usize, count: usize, first: &[usize], suspects: &[usize], expected: &[usize]) {
        let order: Vec<usize> = order(turn, count, first, |endpoint| suspects.contains(&endpoint)).collect();
        assert_eq!(order, expected, "turn {turn} of {count}, first {first:?}, suspects {suspects:?}");
    }

    #[test]
    fn each_request_begins_one_further() {
        check(0, 3, &[], &[], &[0, 1, 2]);
        check(1, 3, &[], &[], &[1, 2, 0]);
        check(5, 3, &[], &[], &[2, 0, 1]);
        check(usize::MAX, 1, &[], &[], &[0]);
        check(7, 0, &[], &[], &[]);
    }

    #[test]
    fn what_is_here_comes_first_and_each_of_it_in_turn() {
        check(0, 3, &[2], &[], &[2, 0, 1]);
        check(1, 4, &[0, 3], &[], &[3, 0, 1, 2]);
        check(4, 4, &[0, 3], &[], &[0, 3, 1, 2]);
    }

    #[test]
    fn suspects_come_last() {
        check(0, 3, &[], &[0], &[1, 2, 0]);
        check(1, 3, &[], &[1, 2], &[0, 1, 2]);
        check(2, 3, &[], &[0, 1, 2], &[2, 0, 1]);
        check(0, 3, &[1], &[1], &[0, 2, 1]);
    }
}
