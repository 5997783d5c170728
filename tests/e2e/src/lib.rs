//! One file per way through the house, on real processes.
