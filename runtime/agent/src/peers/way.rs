//! By which way another node is dialed, and when the other one is tried again. Pure.
//!
//! Directly if that works: it is faster, and needs no coordinator. Where the direct way does not answer, through a relay;
//! then the direct one is tried again now and then, since networks change.

use std::time::{Duration, Instant};

/// How long the direct way has before the other one is tried too.
const DIRECT_HEAD_START: Duration = Duration::from_millis(300);
/// How long the relayed way has where the direct one did not work a while ago.
const RELAYED_HEAD_START: Duration = Duration::from_secs(2);
/// After how long a direct way that did not work is tried again; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(30);
/// At most after this time.
const LAST_PAUSE: Duration = Duration::from_secs(15 * 60);

/// How another node is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By its address.
    Direct,
    /// Through a relay.
    Relayed,
}

/// In which order the ways are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// This one at once.
    pub(crate) first: Way,
    /// How long the first one has before the other one is tried too, which it is at once when the first one fails.
    pub(crate) head_start: Duration,
}

impl Plan {
    /// Tells whether the other way is tried when the first one has failed. The direct one is not where it did not work a
    /// moment ago and the relay says that the node `is_absent`: it would not answer, and who waits has others to ask.
    pub(crate) fn goes_on(&self, is_absent: bool) -> bool {
        !(is_absent && self.first == Way::Relayed)
    }
}

/// What is known of the direct way to a node.
#[derive(Debug, Default)]
pub(crate) struct DirectWay {
    /// How often it did not work, since it last did.
    failures: u32,
    /// When it is to be tried again.
    due: Option<Instant>,
}

impl DirectWay {
    /// Returns how to dial the node.
    pub(crate) fn plan(&self, has_relay: bool, now: Instant) -> Plan {
        if !has_relay || self.failures == 0 || self.is_due(now) {
            // A relay that is not there may be in a moment.
            Plan { first: Way::Direct, head_start: DIRECT_HEAD_START }
        } else {
            Plan { first: Way::Relayed, head_start: RELAYED_HEAD_START }
        }
    }

    /// Tells whether it is to be tried again though there is another way.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// It does not work, or has not answered in time.
    pub(crate) fn failed(&mut self, now: Instant) {
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        self.due = Some(now + pause.min(LAST_PAUSE));
    }

    /// It works.
    pub(crate) fn worked(&mut self) {
        *self = Self::default();
    }

    /// It leads elsewhere from now on, and nothing is known of that.
    pub(crate) fn changed(&mut self, now: Instant) {
        *self = Self { failures: 0, due: Some(now) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_direct_way_is_tried_first_and_not_for_ever() {
        let now = Instant::now();
        let mut direct = DirectWay::default();
        let direct_first = Plan { first: Way::Direct, head_start: DIRECT_HEAD_START };
        let relayed_first = Plan { first: Way::Relayed, head_start: RELAYED_HEAD_START };
        assert_eq!(direct.plan(false, now), direct_first);
        assert_eq!(direct.plan(true, now), direct_first);
        direct.failed(now);
        assert_eq!(direct.plan(true, now), relayed_first);
        assert_eq!(direct.plan(false, now), direct_first, "there is nothing else");
        assert_eq!(direct.plan(true, now + FIRST_PAUSE), direct_first);
        direct.worked();
        assert_eq!(direct.plan(true, now), direct_first);
        assert!(!direct.is_due(now + LAST_PAUSE), "there is nothing to be tried");
        direct.failed(now);
        direct.changed(now);
        assert!(direct.is_due(now), "of another address nothing is known");
        assert_eq!(direct.plan(true, now), direct_first);
    }

    #[test]
    fn a_node_that_is_gone_is_given_up_at_once_where_there_was_no_direct_way() {
        let now = Instant::now();
        let mut direct = DirectWay::default();
        assert!(direct.plan(true, now).goes_on(true));
        direct.failed(now);
        assert!(direct.plan(true, now).goes_on(false));
        assert!(!direct.plan(true, now).goes_on(true));
        assert!(direct.plan(true, now + FIRST_PAUSE).goes_on(true));
    }

    #[test]
    fn it_is_tried_again_less_and_less_often() {
        let now = Instant::now();
        let mut direct = DirectWay::default();
        for pause in [30, 60, 120, 240, 480, 900, 900] {
            direct.failed(now);
            assert!(!direct.is_due(now + Duration::from_secs(pause - 1)), "{pause}");
            assert!(direct.is_due(now + Duration::from_secs(pause)), "{pause}");
        }
        for _ in 0..100 {
            direct.failed(now);
        }
        assert!(direct.is_due(now + LAST_PAUSE));
    }
}
