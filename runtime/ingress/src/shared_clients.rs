//! Clients that have sent requests for several namespaces on one connection: most likely proxies.

use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many are remembered; beyond that the oldest is forgotten.
const MAX_CLIENTS: usize = 1024;

/// The addresses of clients whose connections are not handed off.
#[derive(Debug, Default)]
pub(crate) struct SharedClients {
    /// Whether there is any, so that the usual connection takes no lock.
    is_any: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    clients: BTreeSet<IpAddr>,
    by_age: VecDeque<IpAddr>,
}

impl SharedClients {
    pub(crate) fn remember(&self, client: IpAddr) {
        let mut known = self.lock();
        if known.clients.insert(client) {
            known.by_age.push_back(client);
        }
        if known.by_age.len() > MAX_CLIENTS
            && let Some(oldest) = known.by_age.pop_front()
        {
            known.clients.remove(&oldest);
        }
        self.is_any.store(true, Ordering::Release);
    }

    pub(crate) fn contain(&self, client: IpAddr) -> bool {
        self.is_any.load(Ordering::Acquire) && self.lock().clients.contains(&client)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten() {
        let clients = SharedClients::default();
        let address = |number: usize| IpAddr::from(u128::try_from(number).unwrap().to_be_bytes());
        for number in 0..=MAX_CLIENTS {
            clients.remember(address(number));
            clients.remember(address(number));
        }
        assert!(!clients.contain(address(0)));
        assert!(clients.contain(address(1)) && clients.contain(address(MAX_CLIENTS)));
    }
}
