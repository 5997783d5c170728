//! How many requests a client may send: for each a bucket that fills up evenly and of which one moment is kept, that at
//! which it is full again. Pure but for its lock.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunlin_model::RateLimit;

/// The most clients that have a bucket of their own; with them a route takes 3 MiB. Those beyond share one.
const MAX_CLIENTS: usize = 1 << 16;
/// How long buckets are not looked over for full ones after they were.
const TIDY_PAUSE: Duration = Duration::from_secs(1);

/// The buckets of all clients of one route.
#[derive(Debug)]
pub(crate) struct Rate {
    /// The time in which one request more may be sent.
    interval: Duration,
    /// How far from full a bucket may be before a request.
    tolerance: Duration,
    hasher: RandomState,
    buckets: Mutex<Buckets>,
}

#[derive(Debug, Default)]
struct Buckets {
    /// When the bucket of a client is full, by a hash of who it is; those that are not there are full.
    full_at: HashMap<u64, Instant>,
    /// That of all clients for which there is no room.
    others_full_at: Option<Instant>,
    tidied: Option<Instant>,
}

/// Who a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Client<'a> {
    /// By its address.
    Address(IpAddr),
    /// By the value of a header.
    Value(&'a [u8]),
}

impl Rate {
    /// Returns full buckets.
    pub(crate) fn new(limit: &RateLimit) -> Self {
        let per = Duration::from_millis(limit.per.0);
        let interval = per / limit.requests.max(1);
        Self {
            interval,
            tolerance: interval * limit.burst.saturating_sub(1),
            hasher: RandomState::new(),
            buckets: Mutex::default(),
        }
    }

    /// Takes a request of `client` out of its bucket.
    ///
    /// # Errors
    ///
    /// There is none in it: after how long there will be.
    pub(crate) fn take(&self, client: Client<'_>, now: Instant) -> Result<(), Duration> {
        let client = self.hasher.hash_one(of_network(client));
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = buckets.full_at.contains_key(&client);
        if !is_known && buckets.full_at.len() >= MAX_CLIENTS {
            buckets.tidy(now);
        }
        let has_own = is_known || buckets.full_at.len() < MAX_CLIENTS;
        let full_at = if has_own { buckets.full_at.get(&client).copied() } else { buckets.others_full_at };
        let full_at = full_at.unwrap_or(now).max(now);
        if let Some(missing) =
            full_at.duration_since(now).checked_sub(self.tolerance).filter(|it| !it.is_zero())
        {
            return Err(missing);
        }
        let full_at = full_at + self.interval;
        if has_own {
            buckets.full_at.insert(client, full_at);
        } else {
            buckets.others_full_at = Some(full_at);
        }
        Ok(())
    }
}

impl Buckets {
    /// Forgets full buckets: they are as good as new ones.
    fn tidy(&mut self, now: Instant) {
        if self.tidied.is_none_or(|tidied| now.saturating_duration_since(tidied) >= TIDY_PAUSE) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.tidied = Some(now);
        }
    }
}

/// Returns a client as one of its network where that is what somebody has: of IPv6, whoever has one address has the 2^64
/// beside it.
fn of_network(client: Client<'_>) -> Client<'_> {
    match client {
        Client::Address(IpAddr::V6(address)) => {
            let network = address.to_bits() >> 64 << 64;
            Client::Address(IpAddr::V6(network.into()))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::DurationMs;

    use super::*;

    fn rate(requests: u32, per: u64, burst: u32) -> Rate {
        Rate::new(&RateLimit { requests, per: DurationMs(per), burst, by: None })
    }

    fn client(address: &str) -> Client<'static> {
        Client::Address(address.parse().unwrap())
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_rate() {
        let (rate, now) = (rate(10, 1000, 3), Instant::now());
        let at = |ms: u64| now + Duration::from_millis(ms);
        let one = client("192.0.2.1");
        for _ in 0..3 {
            rate.take(one, at(0)).unwrap();
        }
        assert_eq!(rate.take(one, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(one, at(40)), Err(Duration::from_millis(60)));
        rate.take(client("192.0.2.2"), at(40)).unwrap();
        rate.take(one, at(100)).unwrap();
        assert_eq!(rate.take(one, at(100)), Err(Duration::from_millis(100)));
        for _ in 0..3 {
            rate.take(one, at(60_000)).unwrap();
        }
        rate.take(one, at(60_000)).unwrap_err();
    }

    #[test]
    fn over_a_long_time_a_client_gets_its_rate() {
        let (rate, now) = (rate(7, 1000, 1), Instant::now());
        let taken =
            (0..10_000).filter(|ms| rate.take(client("::1"), now + Duration::from_millis(*ms)).is_ok());
        assert_eq!(taken.count(), 70);
    }

    #[test]
    fn clients_are_told_apart_by_network_and_by_value() {
        let (rate, now) = (rate(1, 1000, 1), Instant::now());
        for (who, has_some) in [
            (client("2001:db8::1"), true),
            (client("2001:db8::ffff:1"), false),
            (client("2001:db8:0:1::1"), true),
            (Client::Value(b"one"), true),
            (Client::Value(b"one"), false),
            (Client::Value(b"other"), true),
        ] {
            assert_eq!(rate.take(who, now).is_ok(), has_some, "{who:?}");
        }
    }

    #[test]
    fn however_many_clients_there_are_it_takes_no_more_memory() {
        let (rate, now) = (rate(1, 10_000, 1), Instant::now());
        let some = |number: u32| Client::Address(IpAddr::V4(number.into()));
        for number in 0..u32::try_from(MAX_CLIENTS).unwrap() {
            rate.take(some(number), now).unwrap();
        }
        rate.take(some(u32::MAX), now).unwrap();
        rate.take(some(u32::MAX - 1), now).unwrap_err();
        rate.take(some(5), now).unwrap_err();
        assert_eq!(rate.buckets.lock().unwrap().full_at.len(), MAX_CLIENTS);
        rate.take(some(u32::MAX - 1), now + Duration::from_secs(11)).unwrap();
        assert_eq!(rate.buckets.lock().unwrap().full_at.len(), 1);
    }
}
