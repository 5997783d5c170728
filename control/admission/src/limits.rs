//! What binds a component beside the limits C1 and C2 of the limits table, which an operator sets
//! ([`dunlin_model::ComponentLimits`]).
//!
//! The parser's own limits are those of browsers, some a hundred times higher; a service on a shared coordinator
//! should not spend minutes on one upload.

/// The most other things that take a few bytes to write and much more to hold: instances, aliases, exports and
/// globals, tables, memories, element segments, each over the whole component.
pub const MAX_PACKED: u64 = 200_000;
