//! The agent process: drives the supervisor; owns keys, link, caches and workers.
