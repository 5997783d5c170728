//! What one instance was refused, by the names of its limits: the last of each kind for its outcome, the number for
//! metrics. What is refused where no instance is at hand is counted for its allocation.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use dunlin_model::{LimitHit, LimitValue};

/// One refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The name of the limit.
    pub limit: &'static str,
    /// Its value.
    pub value: LimitValue,
    /// What the instance wanted, or would have had.
    pub observed: LimitValue,
}

impl From<Denial> for LimitHit {
    fn from(denial: Denial) -> Self {
        Self::new(denial.limit, denial.value, denial.observed)
    }
}

/// The refusals of one instance. Most have none, and cost nothing.
#[derive(Debug, Default)]
pub struct Denials(Vec<(Denial, u64)>);

impl Denials {
    /// Takes note of one.
    pub(crate) fn note(&mut self, denial: Denial) {
        match self.0.iter_mut().find(|(known, _)| known.limit == denial.limit) {
            Some((known, count)) => {
                *known = denial;
                *count += 1;
            }
            None => self.0.push((denial, 1)),
        }
    }

    /// Returns the last refusal by the limit of this name.
    pub fn of(&self, limit: &str) -> Option<Denial> {
        self.0.iter().map(|(denial, _)| *denial).find(|denial| denial.limit == limit)
    }

    /// Returns the last refusal by each limit, with their number, in the order in which they were first hit.
    pub fn iter(&self) -> impl Iterator<Item = (Denial, u64)> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}

/// How often one allocation's instances hit limits in work that goes on beside them.
#[derive(Debug, Default)]
pub(crate) struct Hits(Mutex<BTreeMap<&'static str, u64>>);

impl Hits {
    /// Counts one.
    pub(crate) fn count(&self, limit: &'static str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(limit).or_default() += 1;
    }

    /// Returns how often each limit was hit so far.
    pub(crate) fn all(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::Bytes;

    use super::*;

    #[test]
    fn the_last_of_each_limit_is_kept_and_all_are_counted() {
        let mut denials = Denials::default();
        for observed in [5, 7] {
            let (value, observed) = (LimitValue::Count(4), LimitValue::Count(observed));
            denials.note(Denial { limit: "tables", value, observed });
        }
        let (value, observed) = (LimitValue::Bytes(Bytes(1)), LimitValue::Bytes(Bytes(2)));
        denials.note(Denial { limit: "memory", value, observed });
        assert_eq!(denials.of("tables").unwrap().observed, LimitValue::Count(7));
        assert_eq!(denials.iter().map(|(_, count)| count).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(denials.of("handles"), None);
    }
}
