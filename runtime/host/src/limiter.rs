//! How much memory an instance may take: totals over all its memories and tables.
//!
//! wasmtime asks per memory; a guest with eight of them must not get eight times its limit. A growth that is
//! refused returns -1 to the guest, which may go on; only if it then fails is that called out of memory.

use dunlin_model::Bytes;
use wasmtime::ResourceLimiter;

use crate::limits::{MAX_CORE_INSTANCES, MAX_MEMORIES, MAX_TABLE_ELEMENTS, MAX_TABLES};

/// Counts what one instance takes.
#[derive(Debug)]
pub struct Limiter {
    limit: usize,
    memory: usize,
    peak: usize,
    table_elements: usize,
    /// What the last granted growths added, to be taken back if they fail after all.
    last_memory: usize,
    last_table: usize,
    denied: Option<Denied>,
}

/// A growth of memory that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The limit.
    pub limit: Bytes,
    /// What the instance would have held.
    pub observed: Bytes,
}

impl Limiter {
    pub(crate) fn new(limit: Bytes) -> Self {
        Self {
            limit: usize::try_from(limit.0).unwrap_or(usize::MAX),
            memory: 0,
            peak: 0,
            table_elements: 0,
            last_memory: 0,
            last_table: 0,
            denied: None,
        }
    }

    /// Returns the most memory the instance held.
    pub fn peak(&self) -> Bytes {
        Bytes(self.peak as u64)
    }

    /// Returns the last growth of memory that was refused, if any was.
    pub fn denied(&self) -> Option<Denied> {
        self.denied
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let added = desired.saturating_sub(current);
        let total = self.memory.saturating_add(added);
        self.last_memory = 0;
        if total > self.limit {
            let (limit, observed) = (Bytes(self.limit as u64), Bytes(total as u64));
            self.denied = Some(Denied { limit, observed });
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
        let added = desired.saturating_sub(current);
        let total = self.table_elements.saturating_add(added);
        self.last_table = 0;
        if total > MAX_TABLE_ELEMENTS {
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
        MAX_CORE_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_binds_the_sum_over_all_memories() {
        let mut limiter = Limiter::new(Bytes(100));
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(!limiter.memory_growing(0, 60, None).unwrap());
        assert_eq!(limiter.denied(), Some(Denied { limit: Bytes(100), observed: Bytes(120) }));
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert_eq!(limiter.peak(), Bytes(100));
    }

    #[test]
    fn a_growth_that_fails_after_all_is_taken_back() {
        let mut limiter = Limiter::new(Bytes(100));
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        limiter.memory_grow_failed(wasmtime::format_err!("no memory")).unwrap();
        assert!(limiter.memory_growing(0, 100, None).unwrap());
    }

    #[test]
    fn a_table_cannot_outgrow_the_sum_of_tables() {
        let mut limiter = Limiter::new(Bytes(0));
        assert!(limiter.table_growing(0, MAX_TABLE_ELEMENTS, None).unwrap());
        assert!(!limiter.table_growing(0, 1, None).unwrap());
    }
}
