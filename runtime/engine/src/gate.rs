//! How many instances of one allocation live at the same time, and how they are ended together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use dunlin_model::{LimitHit, Name};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::limits::{MAX_WAIT, NAMESPACE_CONCURRENCY};

/// G14: the room of one namespace on this node, for the instances of all its allocations.
pub(crate) struct Room {
    free: Arc<Semaphore>,
    instances: u32,
}

/// How many instances each namespace of this process may have.
static CONCURRENCY: AtomicU32 = AtomicU32::new(NAMESPACE_CONCURRENCY);

/// Sets how many instances each namespace of this process may have at the same time, for allocations that are loaded
/// from now on.
pub fn set_namespace_concurrency(instances: u32) {
    CONCURRENCY.store(instances.max(1), Ordering::Relaxed);
}

/// Returns how many that are.
pub(crate) fn namespace_concurrency() -> usize {
    CONCURRENCY.load(Ordering::Relaxed) as usize
}

impl Room {
    /// Returns the room of `namespace`: the same to all who ask while anybody has it.
    pub(crate) fn of(namespace: &Name) -> Arc<Self> {
        static ROOMS: Mutex<BTreeMap<Name, Weak<Room>>> = Mutex::new(BTreeMap::new());
        let mut rooms = ROOMS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = rooms.get(namespace).and_then(Weak::upgrade) {
            return room;
        }
        let room = Self::with(CONCURRENCY.load(Ordering::Relaxed));
        rooms.retain(|_, room| room.strong_count() > 0);
        rooms.insert(namespace.clone(), Arc::downgrade(&room));
        room
    }

    fn with(instances: u32) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(instances as usize)), instances })
    }
}

/// The right of one instance to live.
#[derive(Debug)]
pub(crate) struct Permit {
    _own: OwnedSemaphorePermit,
    _room: OwnedSemaphorePermit,
}

pub(crate) struct Gate {
    concurrency: u32,
    room: Arc<Room>,
    free: Arc<Semaphore>,
    waiting: AtomicU32,
    ended: watch::Sender<bool>,
}

impl Gate {
    pub(crate) fn new(concurrency: u32, room: Arc<Room>) -> Self {
        let free = Arc::new(Semaphore::new(concurrency as usize));
        Self { concurrency, room, free, waiting: AtomicU32::new(0), ended: watch::Sender::new(false) }
    }

    /// Waits until one more instance may live, though not for long and not in a long queue.
    pub(crate) async fn enter(&self) -> Result<Permit, LimitHit> {
        let own = self.enter_allocation().await?;
        if let Ok(room) = self.room.free.clone().try_acquire_owned() {
            return Ok(Permit { _own: own, _room: room });
        }
        // As many wait here as are let into their allocations, so the queue has an end, too.
        match tokio::time::timeout(MAX_WAIT, self.room.free.clone().acquire_owned()).await {
            Ok(room) => Ok(Permit { _own: own, _room: room.expect("a room is never closed") }),
            Err(_elapsed) => {
                let most = self.room.instances;
                Err(LimitHit::new("namespace_concurrency", most, format!("{most} running")))
            }
        }
    }

    /// Lets one more instance live, if that is possible without waiting.
    pub(crate) fn enter_at_once(&self) -> Option<Permit> {
        let own = self.free.clone().try_acquire_owned().ok()?;
        let room = self.room.free.clone().try_acquire_owned().ok()?;
        Some(Permit { _own: own, _room: room })
    }

    async fn enter_allocation(&self) -> Result<OwnedSemaphorePermit, LimitHit> {
        if let Ok(permit) = self.free.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiting::begin(&self.waiting);
        let waiting = self.waiting.load(Ordering::Relaxed);
        let full = |waiting: u32| {
            let observed = format!("{} running, {waiting} waiting", self.concurrency);
            LimitHit::new("concurrency", self.concurrency, observed)
        };
        if waiting > self.concurrency {
            return Err(full(waiting));
        }
        match tokio::time::timeout(MAX_WAIT, self.free.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_closed)) => Err(LimitHit::new("concurrency", 0, "the allocation is being stopped")),
            Err(_elapsed) => Err(full(waiting)),
        }
    }

    /// Waits for as long as it takes until one more instance may live; nothing if none ever will.
    pub(crate) async fn enter_patiently(&self) -> Option<Permit> {
        let own = self.free.clone().acquire_owned().await.ok()?;
        let room = self.room.free.clone().acquire_owned().await.expect("a room is never closed");
        Some(Permit { _own: own, _room: room })
    }

    /// Returns when every instance should end at once.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.subscribe();
        // The gate is here for as long as this waits, so there is no error.
        drop(ended.wait_for(|is_ended| *is_ended).await);
    }

    /// Lets nobody in, gives those inside `grace` to leave, and then ends them.
    pub(crate) async fn close(&self, grace: Duration) {
        let all = self.free.clone();
        let mut queue = std::pin::pin!(all.acquire_many(self.concurrency));
        // Once this waits, the semaphore's fair queue lets no later one pass.
        if tokio::time::timeout(grace, &mut queue).await.is_err() {
            self.ended.send_replace(true);
            drop(queue.await);
        }
        self.free.close();
    }
}

/// Counts one who waits, also if the waiting is given up.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn begin(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_queue_is_short_and_the_wait_is_too() {
        let gate = Arc::new(Gate::new(1, Room::with(1)));
        let inside = gate.enter().await.unwrap();
        let second = tokio::spawn({
            let gate = gate.clone();
            async move { gate.enter().await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(gate.enter().await.is_err(), "one is inside and one waits");
        assert!(second.await.unwrap().is_err(), "it waited too long");
        drop(inside);
        assert!(gate.enter().await.is_ok());
    }

    #[tokio::test]
    async fn the_allocations_of_a_namespace_share_its_room() {
        let room = Room::with(2);
        let (first, second) = (Gate::new(2, room.clone()), Gate::new(2, room));
        let inside = [first.enter().await.unwrap(), second.enter().await.unwrap()];
        let hit = first.enter().await.unwrap_err();
        assert_eq!(hit.limit, "namespace_concurrency");
        drop(inside);
        assert!(second.enter().await.is_ok(), "there is room again");
    }

    #[tokio::test]
    async fn who_does_not_leave_in_time_is_ended() {
        let gate = Arc::new(Gate::new(2, Room::with(2)));
        let inside = gate.enter().await.unwrap();
        let guest = tokio::spawn({
            let gate = gate.clone();
            async move {
                gate.ended().await;
                drop(inside);
            }
        });
        gate.close(Duration::from_millis(10)).await;
        guest.await.unwrap();
        assert!(gate.enter().await.is_err());
    }
}
