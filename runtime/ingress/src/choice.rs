//! Which endpoint is tried first, and which after it. Pure.
//!
//! Round robin: every request begins one further. Suspect endpoints keep their turn but come after all others, so
//! that a fleet in which everything is suspect still tries.

/// Returns the order in which `count` endpoints are tried by the request with this `turn`.
pub(crate) fn order(
    turn: usize,
    count: usize,
    is_suspect: impl Fn(usize) -> bool + Copy,
) -> impl Iterator<Item = usize> {
    let round = move || {
        let start = turn.checked_rem(count).unwrap_or(0);
        (start..count).chain(0..start)
    };
    round()
        .filter(move |endpoint| !is_suspect(*endpoint))
        .chain(round().filter(move |endpoint| is_suspect(*endpoint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(turn: usize, count: usize, suspects: &[usize], expected: &[usize]) {
        let order: Vec<usize> = order(turn, count, |endpoint| suspects.contains(&endpoint)).collect();
        assert_eq!(order, expected, "turn {turn} of {count} with suspects {suspects:?}");
    }

    #[test]
    fn each_request_begins_one_further() {
        check(0, 3, &[], &[0, 1, 2]);
        check(1, 3, &[], &[1, 2, 0]);
        check(5, 3, &[], &[2, 0, 1]);
        check(usize::MAX, 1, &[], &[0]);
        check(7, 0, &[], &[]);
    }

    #[test]
    fn suspects_come_last() {
        check(0, 3, &[0], &[1, 2, 0]);
        check(1, 3, &[1, 2], &[0, 1, 2]);
        check(2, 3, &[0, 1, 2], &[2, 0, 1]);
    }
}
