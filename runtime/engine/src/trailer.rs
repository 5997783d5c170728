//! What a response tells after its body: the fuel that its request burned, and who burned it, which is known only when the
//! guest is done.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, HeaderName};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};

use crate::Spent;
use crate::exchange::Record;

/// How long the end of a body waits for its guest, which may go on after it. Then the trailer is left out.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same where no client waits for it: what goes on after the end is not held up for a log.
const PATIENCE_OF_LOGS: Duration = Duration::from_millis(20);
/// What only Dunlin may say of a response.
const OWN: &str = "dunlin-";

/// The names under which a response says what its request burned.
#[derive(Clone, Debug, Default)]
pub struct AccountNames {
    /// The fuel alone.
    pub fuel: Option<HeaderName>,
    /// The instance and the fuel, as [`Spent::account`] writes them.
    pub account: Option<HeaderName>,
}

/// The trailer that says what an instance burned.
pub(crate) struct FuelTrailer {
    names: AccountNames,
    /// Ends when the instance does; absent if it has.
    ended: Option<oneshot::Receiver<()>>,
    late: Option<Pin<Box<Sleep>>>,
}

impl FuelTrailer {
    pub(crate) fn new(names: AccountNames, ended: Option<oneshot::Receiver<()>>) -> Self {
        Self { names, ended, late: None }
    }

    /// Tells whether only a log wants it, which is to change nothing of how the body ends.
    pub(crate) fn is_for_log(&self) -> bool {
        self.names.fuel.is_none()
    }

    /// Waits until the instance has ended, though not for long. To be polled no more once it is ready.
    pub(crate) fn poll_known(&mut self, record: &Record, context: &mut Context<'_>) -> Poll<()> {
        let is_for_log = self.is_for_log();
        let Some(ended) = self.ended.as_mut().filter(|_| record.get().is_none()) else {
            return Poll::Ready(());
        };
        if Pin::new(ended).poll(context).is_ready() {
            return Poll::Ready(());
        }
        let patience = if is_for_log { PATIENCE_OF_LOGS } else { PATIENCE };
        self.late.get_or_insert_with(|| Box::pin(sleep(patience))).as_mut().poll(context)
    }

    /// Adds what is known to the guest's own trailers.
    pub(crate) fn tell(self, record: &Record, trailers: &mut Option<HeaderMap>) {
        if let Some((_, Some(used))) = record.get() {
            let trailers = trailers.get_or_insert_default();
            if let Some(name) = self.names.fuel {
                trailers.insert(name, used.fuel.0.into());
            }
            if let Some(name) = self.names.account {
                trailers.insert(name, Spent::from(*used).account());
            }
        }
    }
}

/// Removes from a guest's trailers what only Dunlin may say.
pub(crate) fn remove_own(trailers: &mut HeaderMap) {
    let own = trailers.keys().filter(|name| name.as_str().starts_with(OWN)).cloned();
    for name in own.collect::<Vec<_>>() {
        trailers.remove(name);
    }
}
