//! What one worker was told of names: addresses which were judged, so that a guest can connect to one of them.
//!
//! A guest asks for the addresses of a name first and connects to one of them later. To ask the resolver again then
//! would fail for every name whose answers take turns, since it may be told others. So answers are remembered for a
//! while; who comes later, or is forgotten since there were many, has the name resolved again. Nothing is believed by
//! this: the name is judged again at each connection, and addresses are judged before they come here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How many names of one worker are remembered.
pub(super) const MAX_ANSWERS: usize = 256;
/// For how long.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(300);

/// The latest answers, by name.
#[derive(Debug, Default)]
pub(super) struct Answers(BTreeMap<String, (Instant, Vec<IpAddr>)>);

impl Answers {
    /// Takes note of the addresses that `name` has.
    pub(super) fn remember(&mut self, name: String, addresses: Vec<IpAddr>, now: Instant) {
        if self.0.len() >= MAX_ANSWERS && !self.0.contains_key(&name) {
            let oldest = self.0.iter().min_by_key(|(_, (at, _))| *at).map(|(name, _)| name.clone());
            self.0.remove(&oldest.unwrap_or_default());
        }
        self.0.insert(name, (now, addresses));
    }

    /// Returns the addresses that `name` had lately.
    pub(super) fn of(&self, name: &str, now: Instant) -> Option<&[IpAddr]> {
        let (at, addresses) = self.0.get(name)?;
        (now.saturating_duration_since(*at) < ANSWER_TIME).then_some(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_for_a_while_and_the_oldest_go_first() {
        let (mut answers, start) = (Answers::default(), Instant::now());
        let address: IpAddr = "8.8.8.8".parse().unwrap();
        for number in 0..=MAX_ANSWERS {
            let later = start + Duration::from_millis(number as u64);
            answers.remember(format!("{number}.example"), vec![address], later);
        }
        assert_eq!(answers.0.len(), MAX_ANSWERS);
        assert_eq!(answers.of("0.example", start), None);
        assert_eq!(answers.of("1.example", start), Some(&[address][..]));
        assert_eq!(answers.of("1.example", start + ANSWER_TIME + Duration::from_millis(1)), None);
        // What is asked for again is as good as new, and takes no place of another.
        answers.remember("1.example".to_owned(), Vec::new(), start + ANSWER_TIME);
        assert_eq!(answers.0.len(), MAX_ANSWERS);
        assert_eq!(answers.of("1.example", start + ANSWER_TIME), Some(&[][..]));
    }
}
