//! How large and how intricate a component may be: the limits C1 and C2 of the limits table.
//!
//! The parser's own limits are those of browsers, some a hundred times higher; a service on a shared coordinator
//! should not spend minutes on one upload.

/// C1: the most bytes of a component.
pub const MAX_COMPONENT: u64 = 64 << 20;
/// C2: the most functions with a body, over all modules of a component.
pub const MAX_FUNCTIONS: u64 = 50_000;
/// C2: the most types, over all modules and components in a component.
pub const MAX_TYPES: u64 = 10_000;
/// C2: the most imports, over all modules and components in a component. The interpreter of Python, linked of 14
/// modules which import from each other, has 1,034.
pub const MAX_IMPORTS: u64 = 4_000;
/// C2: the most data segments, over all modules of a component. Go leaves out every run of zeros and so comes to
/// 30,600 in a program that prints one line.
pub const MAX_DATA_SEGMENTS: u64 = 40_000;
/// C2: how deep components, modules and the types of components may nest in one another.
pub const MAX_NESTING: u64 = 100;
/// The most other things that take a few bytes to write and much more to hold: instances, aliases, exports and
/// globals, tables, memories, element segments, each over the whole component.
pub const MAX_PACKED: u64 = 200_000;
