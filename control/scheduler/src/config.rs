//! How patient the brain is. Everything else it does is not to be configured.

use dunlin_model::DurationMs;

/// How patient the brain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a silent node is still believed, counted from its last report.
    pub lease: DurationMs,
    /// How long after a start of the coordinator every known node is believed at least. Agents that were without one for
    /// long try to reach it up to 40 s apart, and none of them has failed.
    pub start_grace: DurationMs,
    /// How long requests go to a node that is silent and still believed, where that is shorter than the lease: whoever
    /// is believed for hours may be out of reach for hours.
    pub routed: Option<DurationMs>,
    /// How often agents report. An ended service allocation leaves the routes this long before it is stopped.
    pub heartbeat: DurationMs,
    /// How long the brain waits after it has let what one lost node ran be replaced, before it does so for the next.
    pub release_pause: DurationMs,
    /// How long a failed item waits before its second attempt; doubled for each one after.
    pub retry_backoff: DurationMs,
    /// The longest that a failed item waits.
    pub retry_backoff_max: DurationMs,
}

impl Config {
    /// For machines behind flaky links: 30 s of silence, six heartbeats, make a node lost.
    pub const EDGE: Self = Self {
        lease: DurationMs(30_000),
        start_grace: DurationMs(60_000),
        routed: None,
        heartbeat: DurationMs(5_000),
        release_pause: DurationMs(10_000),
        retry_backoff: DurationMs(1_000),
        retry_backoff_max: DurationMs(60_000),
    };

    /// For machines on one reliable network: 10 s of silence, five heartbeats, make a node lost.
    pub const LAN: Self = Self {
        lease: DurationMs(10_000),
        start_grace: DurationMs(60_000),
        routed: None,
        heartbeat: DurationMs(2_000),
        release_pause: DurationMs(10_000),
        retry_backoff: DurationMs(500),
        retry_backoff_max: DurationMs(30_000),
    };

    /// For machines that are out of reach for hours by their nature, such as those of a ship or of a site that is woken
    /// twice a day: 6 h of silence make a node lost, so that a working day without a link ends nothing and two gaps a day
    /// at least are seen. The grace after a start is as long: whoever was in such a gap is not lost before it has ended.
    pub const DARK: Self = Self {
        lease: DurationMs(6 * 3_600_000),
        start_grace: DurationMs(6 * 3_600_000),
        routed: Some(DurationMs(90_000)),
        heartbeat: DurationMs(30_000),
        release_pause: DurationMs(60_000),
        retry_backoff: DurationMs(5_000),
        retry_backoff_max: DurationMs(600_000),
    };

    /// For tests which let real time pass.
    pub const TINY: Self = Self {
        lease: DurationMs(1_000),
        start_grace: DurationMs(1_500),
        routed: None,
        heartbeat: DurationMs(100),
        release_pause: DurationMs(500),
        retry_backoff: DurationMs(50),
        retry_backoff_max: DurationMs(400),
    };
}
