//! Turns in which the nodes of a site are sent chunks of a component.
//!
//! They share a link, and what one of them has the others wait for. Connections that compete for a link do not get the same
//! of it; turns see to it that all nodes have as much at any time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many chunks are sent to a site at a time: as much as is under way on a link that is fast and long.
const AT_A_TIME: usize = 8;

/// The turns at all sites.
#[derive(Debug, Default)]
pub(crate) struct SiteTurns(Mutex<BTreeMap<(Digest, String), Arc<Semaphore>>>);

impl SiteTurns {
    /// Waits for a turn to send a chunk of `component` to `site`. Who asks first has it first.
    pub(crate) async fn turn(&self, component: Digest, site: &str) -> Option<OwnedSemaphorePermit> {
        let turns = {
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            // Those that nobody waits for and nobody has.
            all.retain(|_, turns| Arc::strong_count(turns) > 1);
            let turns = all.entry((component, site.to_owned()));
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(AT_A_TIME))))
        };
        turns.acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_site_waits_for_its_own_turns_and_for_no_others() {
        let turns = SiteTurns::default();
        let (one, other) = (Digest::of(b"one"), Digest::of(b"other"));
        let mut taken = Vec::new();
        for _ in 0..AT_A_TIME {
            taken.push(turns.turn(one, "harbour").await.unwrap());
        }
        assert!(turns.turn(one, "harbour").now_or_never().is_none());
        for (component, site) in [(other, "harbour"), (one, "light-house")] {
            assert!(turns.turn(component, site).now_or_never().is_some());
        }
        taken.pop();
        assert!(turns.turn(one, "harbour").now_or_never().is_some());
        taken.clear();
        drop(turns.turn(other, "harbour").await);
        assert_eq!(turns.0.lock().unwrap().len(), 1, "what nobody needs is not kept");
    }
}
