//! What a campaign says: what was done, what was checked, and how long it took until all was well again.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a campaign says.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many faults of each kind there were.
    pub faults: BTreeMap<String, u64>,
    /// How many things of each kind were acknowledged and found again.
    pub found: BTreeMap<String, u64>,
    /// How many requests were answered. None failed that must not.
    pub answered: u64,
    /// How long it took after faults of each kind until it worked again.
    pub recoveries: BTreeMap<String, Vec<Duration>>,
}

impl Report {
    pub(crate) fn fault(&mut self, kind: &str) {
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }

    pub(crate) fn recovered(&mut self, kind: &str, after: Duration) {
        self.recoveries.entry(kind.to_owned()).or_default().push(after);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, count) in &self.faults {
            writeln!(f, "{count:>9}  {kind}")?;
        }
        for (kind, count) in &self.found {
            writeln!(f, "{count:>9}  {kind} acknowledged, none lost")?;
        }
        writeln!(f, "{:>9}  requests answered, none failed that must not", self.answered)?;
        for (kind, times) in &self.recoveries {
            let mut times = times.clone();
            times.sort_unstable();
            let at = |thousandths: usize| {
                let rank = (times.len() * thousandths).div_ceil(1000).max(1);
                times.get(rank - 1).copied().unwrap_or_default().as_millis()
            };
            let (median, most, longest) = (at(500), at(990), at(1000));
            writeln!(f, "{kind}: p50 {median} ms, p99 {most} ms, longest {longest} ms")?;
        }
        Ok(())
    }
}
