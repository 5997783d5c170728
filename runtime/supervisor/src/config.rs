//! What can be set of a supervisor: its limits and its patience.

use dunlin_model::DurationMs;

/// The limits and the patience of a supervisor. Each default is the value the book's limits table gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long to wait after the first failure; doubled after each further one.
    pub backoff_first: DurationMs,
    /// The longest wait after a failure.
    pub backoff_longest: DurationMs,
    /// After running this long without a failure, an allocation's earlier failures are forgotten.
    pub backoff_reset: DurationMs,
    /// How long items that run may take when no new ones are to be taken; then they are broken off. It is less than the
    /// coordinator waits, so that it hears what they have burned.
    pub finish_within: DurationMs,
    /// How many worker deaths an item may have been running at, before it is taken for their cause.
    pub item_deaths: u32,
    /// The most item reports in one heartbeat.
    pub report_items: usize,
    /// The most bytes of output and reasons in one heartbeat's item reports; one report is always sent.
    pub report_bytes: usize,
    /// No further item is started while this many item reports wait to be recorded.
    pub outbox_items: usize,
    /// No further item is started while item reports with this many bytes wait to be recorded.
    pub outbox_bytes: usize,
    /// How long a report of an item may wait to be recorded until it is kept on disk.
    pub keep_items_after: DurationMs,
    /// The longest wait until a secret that could not be fetched is tried again.
    pub secret_wait: DurationMs,
    /// How long a program that the agent has just become may go without a coordinator that speaks to it.
    pub trial: DurationMs,
    /// The most characters of a reason that are kept for the coordinator.
    pub reason_length: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            backoff_first: DurationMs(1_000),
            backoff_longest: DurationMs(300_000),
            backoff_reset: DurationMs(600_000),
            finish_within: DurationMs(25_000),
            item_deaths: 3,
            report_items: 8_192,
            report_bytes: 1 << 20,
            outbox_items: 16_384,
            outbox_bytes: 32 << 20,
            keep_items_after: DurationMs(2_000),
            secret_wait: DurationMs(10_000),
            trial: DurationMs(300_000),
            reason_length: 512,
        }
    }
}
