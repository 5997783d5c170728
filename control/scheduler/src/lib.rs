//! The coordinator's brain: placement, rollout, leases and retries, without I/O.
