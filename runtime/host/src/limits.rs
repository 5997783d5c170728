//! The limits G2 to G17 of the limits table that bind every guest alike. What a manifest can choose is in
//! `dunlin_model::Limits`.

/// G2: the most table elements of one instance, over all its tables.
pub const MAX_TABLE_ELEMENTS: usize = 100_000;
/// G3: the most core instances in one instance.
pub const MAX_CORE_INSTANCES: usize = 64;
/// G3: the most memories of one instance.
pub const MAX_MEMORIES: usize = 8;
/// G3: the most tables of one instance.
pub const MAX_TABLES: usize = 32;
/// G8: the most bytes that one call into the host may copy out of the guest.
pub const HOSTCALL_FUEL: usize = 4 << 20;
/// G10: the most resources (streams, requests, pollables, ...) that one instance may hold.
pub const MAX_RESOURCES: usize = 10_000;
/// G11: the most random bytes that one call may ask for.
pub const MAX_RANDOM: u64 = 64 << 10;
/// G12: the most bytes of one set of HTTP fields, as held in memory.
pub const MAX_FIELDS: usize = 64 << 10;
/// G13: the most bytes that one write to a stream may have, and so about what a body buffers.
pub const MAX_WRITE: usize = 64 << 10;
/// G17: how many bytes of log one allocation may write per second, on average.
pub const LOG_RATE: u64 = 64 << 10;
/// G17: how many bytes of log one allocation may write at once.
pub const LOG_BURST: u64 = 1 << 20;
