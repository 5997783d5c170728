//! Who may compute next where more guests want to than there are processors: shares in the ratio of the rates.
//!
//! What an allocation has had is what it burned over its rate, as time. An instance that has had its slice of time
//! waits as long as there are as many others that compute and have had less as there are processors. Where there are
//! enough processors for all, nobody ever waits, however far ahead.
//!
//! Who computes is known from its slices: for a while after each it is taken to go on. Time is passed in.

use std::collections::BTreeMap;
use std::time::Duration;

/// For how long after a slice an instance is taken to go on computing. Slices come every 10 ms where nothing else runs.
const GOES_ON: Duration = Duration::from_millis(50);

/// The guests of this process that compute.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    computing: BTreeMap<u64, Computing>,
    /// Below this nobody begins: who was idle has saved up nothing.
    floor: u64,
}

/// The instances of one allocation that compute.
#[derive(Debug)]
struct Computing {
    had: u64,
    /// When each of them had its last slice.
    instances: BTreeMap<u64, Duration>,
}

impl Turns {
    pub(crate) const fn new() -> Self {
        Self { computing: BTreeMap::new(), floor: 0 }
    }

    /// Takes note that `instance` of the allocation `who` computes, which has had so much, and returns what counts as
    /// had.
    pub(crate) fn note(&mut self, now: Duration, who: u64, instance: u64, had: u64) -> u64 {
        self.computing.retain(|_, computing| {
            computing.instances.retain(|_, last| now.saturating_sub(*last) < GOES_ON);
            !computing.instances.is_empty()
        });
        let had = had.max(self.floor);
        let own = self.computing.entry(who).or_insert(Computing { had, instances: BTreeMap::new() });
        own.instances.insert(instance, now);
        own.had = own.had.max(had);
        let had = own.had;
        let least = self.computing.values().map(|computing| computing.had).min();
        self.floor = self.floor.max(least.unwrap_or(0));
        had
    }

    /// Tells whether so many instances of others compute, and have had less than `who`, that it is not its turn.
    pub(crate) fn is_ahead(&self, who: u64, had: u64, processors: usize) -> bool {
        let others = self.computing.iter().filter(|(other, computing)| **other != who && computing.had < had);
        others.map(|(_, computing)| computing.instances.len()).sum::<usize>() >= processors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLICE: Duration = Duration::from_millis(10);

    /// Has one busy guest for each of these rates run on so many processors, and returns how many slices each had.
    fn share(rates: &[u64], processors: usize, rounds: u32) -> Vec<u64> {
        let mut turns = Turns::new();
        let (mut had, mut ran) = (vec![0; rates.len()], vec![0; rates.len()]);
        // Who ran last is at the end of the queue.
        let mut queue: Vec<usize> = (0..rates.len()).collect();
        for round in 0..rounds {
            let now = SLICE * round;
            let mut chosen = Vec::new();
            for who in queue.clone() {
                had[who] = turns.note(now, who as u64, 0, had[who]);
                if chosen.len() < processors && !turns.is_ahead(who as u64, had[who], processors) {
                    chosen.push(who);
                }
            }
            for who in chosen {
                ran[who] += 1;
                had[who] = turns.note(now, who as u64, 0, had[who] + 1_000_000 / rates[who]);
                queue.retain(|other| *other != who);
                queue.push(who);
            }
        }
        ran
    }

    fn is_about(ran: u64, expected: u64) -> bool {
        ran.abs_diff(expected) <= expected / 50
    }

    #[test]
    fn processors_are_shared_in_the_ratio_of_the_rates() {
        for (rates, processors, expected) in [
            (&[1, 1][..], 1, &[3000, 3000][..]),
            (&[1, 3], 1, &[1500, 4500]),
            (&[10, 20, 30], 1, &[1000, 2000, 3000]),
            (&[100, 101, 201], 2, &[2985, 3015, 6000]),
        ] {
            let ran = share(rates, processors, 6000);
            let is_fine = ran.iter().zip(expected).all(|(ran, expected)| is_about(*ran, *expected));
            assert!(is_fine, "{rates:?} on {processors}: {ran:?} is not {expected:?}");
        }
    }

    #[test]
    fn where_there_are_processors_for_all_nobody_waits() {
        assert_eq!(share(&[1, 1000], 2, 1000), [1000, 1000]);
        assert_eq!(share(&[7], 1, 1000), [1000]);
    }

    #[test]
    fn who_was_idle_has_saved_up_no_turns() {
        let mut turns = Turns::new();
        turns.note(SLICE, 1, 0, 1_000_000);
        assert_eq!(turns.note(SLICE, 2, 0, 0), 1_000_000);
        assert!(!turns.is_ahead(1, 1_000_000, 1));
    }

    #[test]
    fn nobody_waits_for_long_for_who_computes_no_more() {
        let mut turns = Turns::new();
        turns.note(SLICE, 1, 0, 0);
        turns.note(SLICE, 2, 0, 1_000);
        assert!(turns.is_ahead(2, 1_000, 1));
        assert!(!turns.is_ahead(2, 1_000, 2), "there is another processor");
        let later = SLICE + GOES_ON;
        turns.note(later, 2, 0, 1_000);
        assert!(!turns.is_ahead(2, 1_000, 1));
    }

    #[test]
    fn all_instances_of_one_allocation_have_one_share() {
        let mut turns = Turns::new();
        for instance in 0..10 {
            turns.note(SLICE, 1, instance, 500);
        }
        turns.note(SLICE, 2, 0, 1_000);
        assert!(turns.is_ahead(2, 1_000, 8), "ten others have had less");
        assert!(!turns.is_ahead(1, 500, 1));
        assert_eq!(turns.computing.len(), 2);
    }
}
