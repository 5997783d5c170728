//! Instances that wait for their next request.
//!
//! Only an instance that has ended cleanly is kept: its guest has returned, it holds no more than it did after its
//! first request, and no body or call of its request is still open. The one that ended last is used first, since
//! its memory is still in the processor's caches and so that those that are not needed grow old and go.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use wasmtime_wasi_http::p2::bindings::Proxy;

use crate::gate::namespace_concurrency;
use crate::limits::{MAX_USES, REUSE_IDLE};
use crate::sandbox::Instance;

/// An instance that can answer requests.
pub(crate) struct Live {
    pub(crate) instance: Instance,
    /// What is called; absent while the guest is not yet instantiated, and while it is called.
    pub(crate) proxy: Option<Proxy>,
    /// How many requests it has answered.
    uses: u32,
    /// How many handles it held after its first request.
    handles: usize,
}

impl Live {
    pub(crate) fn new(instance: Instance) -> Self {
        Self { instance, proxy: None, uses: 0, handles: 0 }
    }

    /// Takes note of a request that has ended well, and tells whether there may be another.
    fn may_go_on(&mut self) -> bool {
        let guest = self.instance.store.data_mut();
        if guest.has_open_exchange() {
            return false;
        }
        let (handles, limits) = (guest.handles(), *guest.limits());
        if self.uses == 0 {
            self.handles = handles;
        }
        self.uses += 1;
        // One that leaks would otherwise fail sooner or later in the middle of a request.
        self.uses < MAX_USES
            && handles <= self.handles
            && handles <= limits.handles as usize / 2
            && guest.limiter().peak().0 <= limits.memory.0 - limits.memory.0 / 4
    }
}

/// How many instances of this process wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// One of them.
struct Waiting;

impl Waiting {
    /// Counts one more, if there may be one.
    fn begin() -> Option<Self> {
        let waiting = Self;
        let before = WAITING.fetch_add(1, Ordering::Relaxed);
        (before < namespace_concurrency()).then_some(waiting)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        WAITING.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The instances of one allocation that wait.
#[derive(Clone, Default)]
pub(crate) struct Idle(Arc<Mutex<Stack>>);

#[derive(Default)]
struct Stack {
    /// The one that was used last is the last.
    live: Vec<(Instant, Live, Waiting)>,
    is_swept: bool,
    is_closed: bool,
}

impl Idle {
    /// Returns an instance that waits, if one does.
    pub(crate) fn take(&self) -> Option<Live> {
        self.stack().live.pop().map(|(_, live, _waiting)| live)
    }

    /// Keeps `live` for the next request, if it is fit for one, and fewer wait in this process than one namespace may
    /// have running.
    pub(crate) fn keep(&self, mut live: Live) {
        if !live.may_go_on() {
            return;
        }
        let Some(waiting) = Waiting::begin() else { return };
        let mut stack = self.stack();
        if stack.is_closed {
            return;
        }
        stack.live.push((Instant::now(), live, waiting));
        if !stack.is_swept {
            stack.is_swept = true;
            tokio::spawn(sweep(Arc::downgrade(&self.0)));
        }
    }

    /// Drops those that wait and keeps none from now on.
    pub(crate) fn close(&self) {
        let mut stack = self.stack();
        stack.is_closed = true;
        let live = std::mem::take(&mut stack.live);
        drop(stack);
        drop(live);
    }

    fn stack(&self) -> MutexGuard<'_, Stack> {
        lock(&self.0)
    }
}

fn lock(stack: &Mutex<Stack>) -> MutexGuard<'_, Stack> {
    stack.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops instances that have waited for too long, until none is left.
async fn sweep(stack: Weak<Mutex<Stack>>) {
    loop {
        tokio::time::sleep(REUSE_IDLE).await;
        let Some(stack) = stack.upgrade() else { return };
        let mut waiting = lock(&stack);
        let old = waiting.live.iter().take_while(|(since, ..)| since.elapsed() >= REUSE_IDLE).count();
        let old: Vec<_> = waiting.live.drain(..old).collect();
        waiting.is_swept = !waiting.live.is_empty();
        let is_done = !waiting.is_swept;
        drop(waiting);
        // Outside of the lock: to take down an instance takes time.
        drop(old);
        if is_done {
            return;
        }
    }
}
