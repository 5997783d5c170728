//! How much memory an instance may take: totals over all its memories and tables.
//!
//! wasmtime asks per memory; a guest with eight of them must not get eight times its limit. A growth that is
//! refused returns -1 to the guest, which may go on; only if it then fails is that called out of memory.

use dunlin_model::{Bytes, LimitValue, Limits};
use wasmtime::ResourceLimiter;

use crate::denials::{Denial, Denials};

/// Counts what one instance takes.
#[derive(Debug)]
pub struct Limiter {
    limits: Limits,
    memory: u64,
    peak: u64,
    table_elements: u64,
    /// What the last granted growths added, to be taken back if they fail after all.
    last_memory: u64,
    last_table: u64,
    pub(crate) denials: Denials,
}

impl Limiter {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            memory: 0,
            peak: 0,
            table_elements: 0,
            last_memory: 0,
            last_table: 0,
            denials: Denials::default(),
        }
    }

    /// Returns the most memory the instance held.
    pub fn peak(&self) -> Bytes {
        Bytes(self.peak)
    }

    /// Begins anew for the next request of a reused instance, which keeps what it holds.
    pub(crate) fn reset(&mut self) {
        self.peak = self.memory;
        self.denials.clear();
    }
}

/// Returns the number of things that a growth adds.
fn added(current: usize, desired: usize) -> u64 {
    desired.saturating_sub(current) as u64
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let added = added(current, desired);
        let total = self.memory.saturating_add(added);
        self.last_memory = 0;
        if total > self.limits.memory.0 {
            let (value, observed) = (LimitValue::Bytes(self.limits.memory), LimitValue::Bytes(Bytes(total)));
            self.denials.note(Denial { limit: "memory", value, observed });
            return Ok(false);
        }
        self.last_memory = added;
        self.memory = total;
        self.peak = self.peak.max(total);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory = self.memory.saturating_sub(self.last_memory);
        self.last_memory = 0;
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let added = added(current, desired);
        let total = self.table_elements.saturating_add(added);
        let most = u64::from(self.limits.table_elements);
        self.last_table = 0;
        if total > most {
            let (value, observed) = (LimitValue::Count(most), LimitValue::Count(total));
            self.denials.note(Denial { limit: "table_elements", value, observed });
            return Ok(false);
        }
        self.last_table = added;
        self.table_elements = total;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.table_elements = self.table_elements.saturating_sub(self.last_table);
        self.last_table = 0;
        Ok(())
    }

    fn instances(&self) -> usize {
        self.limits.core_instances as usize
    }

    fn tables(&self) -> usize {
        self.limits.tables as usize
    }

    fn memories(&self) -> usize {
        self.limits.memories as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(memory: u64, table_elements: u32) -> Limiter {
        Limiter::new(&Limits { memory: Bytes(memory), table_elements, ..Limits::SERVICE })
    }

    #[test]
    fn the_limit_binds_the_sum_over_all_memories() {
        let mut limiter = limiter(100, 0);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        let denial = limiter.denials.of("memory").unwrap();
        assert_eq!((denial.value.number(), denial.observed.number()), (100, 120));
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert_eq!(limiter.peak(), Bytes(100));
    }

    #[test]
    fn a_growth_that_fails_after_all_is_taken_back() {
        let mut limiter = limiter(100, 0);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        limiter.memory_grow_failed(wasmtime::format_err!("no memory")).unwrap();
        assert!(limiter.memory_growing(0, 100, None).unwrap());
    }

    #[test]
    fn a_table_cannot_outgrow_the_sum_of_tables() {
        let mut limiter = limiter(0, 1_000);
        assert!(limiter.table_growing(0, 1_000, None).unwrap());
        assert!(!limiter.table_growing(0, 1, None).unwrap());
        assert_eq!(limiter.denials.of("table_elements").unwrap().observed.number(), 1_001);
    }

    #[test]
    fn the_next_request_of_an_instance_begins_with_what_it_holds() {
        let mut limiter = limiter(100, 0);
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(60, 160, None).unwrap());
        limiter.reset();
        assert_eq!((limiter.peak(), limiter.denials.of("memory")), (Bytes(60), None));
        assert!(!limiter.memory_growing(60, 160, None).unwrap());
    }
}
