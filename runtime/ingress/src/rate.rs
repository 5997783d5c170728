//! How many requests a client may send: for each a bucket that fills up evenly and of which one moment is kept, that at
//! which it is full again. Pure but for its lock.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunlin_model::RateLimit;

/// The most clients that have a bucket of their own; with them a route takes 3 MiB.
const MAX_CLIENTS: usize = 1 << 16;
/// How many buckets those beyond share, by their addresses: who fills up the others cannot shut out everybody.
const SHARED: u64 = 1 << 12;
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
    /// Those that clients share for which there is no room.
    shared: HashMap<u64, Instant>,
    tidied: Option<Instant>,
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    /// Its address.
    pub(crate) address: IpAddr,
    /// The values of the header by which it is told from others; none where that is its address.
    pub(crate) values: Vec<Vec<u8>>,
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
    pub(crate) fn take(&self, client: &Client, now: Instant) -> Result<(), Duration> {
        let network = of_network(client.address);
        let who = if client.values.is_empty() {
            self.hasher.hash_one(network)
        } else {
            self.hasher.hash_one(&client.values)
        };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = buckets.full_at.contains_key(&who);
        if !is_known && buckets.full_at.len() >= MAX_CLIENTS {
            buckets.tidy(now);
        }
        let has_own = is_known || buckets.full_at.len() < MAX_CLIENTS;
        let shared = self.hasher.hash_one(network) % SHARED;
        let (of, who) = if has_own { (&mut buckets.full_at, who) } else { (&mut buckets.shared, shared) };
        let full_at = of.get(&who).copied().unwrap_or(now).max(now);
        let missing = full_at.duration_since(now).checked_sub(self.tolerance);
        if let Some(missing) = missing.filter(|missing| !missing.is_zero()) {
            return Err(missing);
        }
        of.insert(who, full_at + self.interval);
        Ok(())
    }
}

impl Buckets {
    /// Forgets full buckets: they are as good as new ones.
    fn tidy(&mut self, now: Instant) {
        if self.tidied.is_none_or(|tidied| now.saturating_duration_since(tidied) >= TIDY_PAUSE) {
            self.full_at.retain(|_, full_at| *full_at > now);
            self.shared.retain(|_, full_at| *full_at > now);
            self.tidied = Some(now);
        }
    }
}

/// Returns the network of an address where that is what somebody has: of IPv6, whoever has one has the 2^64 beside it.
fn of_network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::DurationMs;

    use super::*;

    fn rate(requests: u32, per: u64, burst: u32) -> Rate {
        Rate::new(&RateLimit { requests, per: DurationMs(per), burst, by: None })
    }

    fn client(address: &str) -> Client {
        Client { address: address.parse().unwrap(), values: Vec::new() }
    }

    fn with(values: &[&str]) -> Client {
        let values = values.iter().map(|value| value.as_bytes().to_vec()).collect();
        Client { values, ..client("192.0.2.1") }
    }

    #[test]
    fn a_client_has_its_burst_and_then_its_rate() {
        let (rate, now) = (rate(10, 1000, 3), Instant::now());
        let at = |ms: u64| now + Duration::from_millis(ms);
        let one = client("192.0.2.1");
        for _ in 0..3 {
            rate.take(&one, at(0)).unwrap();
        }
        assert_eq!(rate.take(&one, at(0)), Err(Duration::from_millis(100)));
        assert_eq!(rate.take(&one, at(40)), Err(Duration::from_millis(60)));
        rate.take(&client("192.0.2.2"), at(40)).unwrap();
        rate.take(&one, at(100)).unwrap();
        assert_eq!(rate.take(&one, at(100)), Err(Duration::from_millis(100)));
        for _ in 0..3 {
            rate.take(&one, at(60_000)).unwrap();
        }
        rate.take(&one, at(60_000)).unwrap_err();
    }

    #[test]
    fn over_a_long_time_a_client_gets_its_rate() {
        let (rate, now) = (rate(7, 1000, 1), Instant::now());
        let taken =
            (0..10_000).filter(|ms| rate.take(&client("::1"), now + Duration::from_millis(*ms)).is_ok());
        assert_eq!(taken.count(), 70);
    }

    #[test]
    fn clients_are_told_apart_by_network_and_by_value() {
        let (rate, now) = (rate(1, 1000, 1), Instant::now());
        for (who, has_some) in [
            (client("2001:db8::1"), true),
            (client("2001:db8::ffff:1"), false),
            (client("2001:db8:0:1::1"), true),
            (with(&["one"]), true),
            (with(&["one"]), false),
            (with(&["other"]), true),
            (with(&["other", "one"]), true),
            (with(&["otherone"]), true),
        ] {
            assert_eq!(rate.take(&who, now).is_ok(), has_some, "{who:?}");
        }
    }

    #[test]
    fn however_many_clients_there_are_it_takes_no_more_memory() {
        let (rate, now) = (rate(1, 10_000, 1), Instant::now());
        let some = |number: u32| Client { address: IpAddr::V4(number.into()), values: Vec::new() };
        for number in 0..u32::try_from(MAX_CLIENTS).unwrap() {
            rate.take(&some(number), now).unwrap();
        }
        let beyond: Vec<Client> = (u32::MAX - 9999..=u32::MAX).map(some).collect();
        let served = beyond.iter().filter(|client| rate.take(client, now).is_ok()).count();
        assert!((3000..=4096).contains(&served), "{served} of {} are served", beyond.len());
        rate.take(&beyond[0], now).unwrap_err();
        rate.take(&some(5), now).unwrap_err();
        let count = |rate: &Rate| {
            let buckets = rate.buckets.lock().unwrap();
            (buckets.full_at.len(), buckets.shared.len())
        };
        assert_eq!(count(&rate), (MAX_CLIENTS, served));
        rate.take(&beyond[0], now + Duration::from_secs(11)).unwrap();
        assert_eq!(count(&rate), (1, 0));
    }
}
