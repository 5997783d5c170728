//! What happened in a simulation: a hash of all of it, and the last lines for people.

use std::collections::VecDeque;
use std::fmt;

/// How many lines are kept.
const KEPT: usize = 40;

/// The trace of one simulation.
#[derive(Debug)]
pub(crate) struct Trace {
    hash: u64,
    steps: u64,
    recent: VecDeque<String>,
}

impl Trace {
    /// Returns the empty trace.
    pub(crate) fn new() -> Self {
        // The offset basis of FNV-1a, which is enough to tell two traces apart.
        Self { hash: 0xcbf2_9ce4_8422_2325, steps: 0, recent: VecDeque::new() }
    }

    /// Adds a line.
    pub(crate) fn add(&mut self, now: u64, line: fmt::Arguments<'_>) {
        let line = format!("{:>7}.{:03} {line}", now / 1000, now % 1000);
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.steps += 1;
        if self.recent.len() == KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(line);
    }

    /// Returns the hash of all lines.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns how many lines there were.
    pub(crate) fn steps(&self) -> u64 {
        self.steps
    }

    /// Returns the last lines.
    pub(crate) fn recent(&self) -> Vec<String> {
        self.recent.iter().cloned().collect()
    }
}
