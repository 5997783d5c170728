//! The coordinator process: drives the scheduler.
