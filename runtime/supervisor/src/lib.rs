//! The agent's brain: the life of allocations on one node, without I/O.
