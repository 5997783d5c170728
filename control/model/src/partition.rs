//! What a service does on a node that has lost its coordinator.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::check::Broken;
use crate::{Amount, DurationMs, ServiceSpec};

/// The shortest time without word from a coordinator after which a service may stop, and the longest.
const STOP_AFTER: (DurationMs, DurationMs) = (DurationMs(1_000), DurationMs(30 * 86_400_000));

/// What a service does on a node that does not hear from its coordinator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnPartition {
    /// It goes on, however long that lasts. What replaces it elsewhere may run at the same time.
    #[default]
    Keep,
    /// It stops when nothing was heard for so long, and goes on when it is.
    StopAfter(DurationMs),
    /// At most one allocation of it runs at any moment, anywhere: it runs under a lease only.
    Singleton,
}

impl OnPartition {
    /// Tells whether it goes on.
    pub fn is_keep(&self) -> bool {
        *self == Self::Keep
    }

    /// Tells whether at most one may run.
    pub fn is_singleton(&self) -> bool {
        *self == Self::Singleton
    }
}

impl fmt::Display for OnPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keep => f.write_str("keep"),
            Self::StopAfter(time) => write!(f, "stop after {time}"),
            Self::Singleton => f.write_str("singleton"),
        }
    }
}

/// Says of each field of a service whether it contradicts what the service does on a partition.
pub(crate) fn check(service: &ServiceSpec, note: &mut dyn FnMut(&'static str, Result<(), Broken>)) {
    match service.on_partition {
        OnPartition::Keep => {}
        OnPartition::StopAfter(time) => {
            let (least, most) = STOP_AFTER;
            if time < least || time > most {
                let limit = format!("{least} to {most}");
                note("on_partition", Err(Broken::limit("stop_after", limit, time)));
            }
        }
        OnPartition::Singleton => check_singleton(service, note),
    }
}

/// Of a singleton there are never two, not for a moment.
fn check_singleton(service: &ServiceSpec, note: &mut dyn FnMut(&'static str, Result<(), Broken>)) {
    let ServiceSpec { allocations, everywhere, rollout, .. } = service;
    if *everywhere {
        let message =
            "a service that runs everywhere is no singleton; leave this or `on_partition` out".to_owned();
        note("everywhere", Err(Broken::new(message)));
    }
    if *allocations > 1 {
        let message = format!("a singleton has one allocation, not {allocations}; leave this out");
        note("allocations", Err(Broken::new(message)));
    }
    if rollout.max_surge != Amount::Count(0) {
        let message =
            "of a singleton no second allocation runs beside the first; let this be 0, or leave it out";
        note("rollout.max_surge", Err(Broken::new(message)));
    }
    if rollout.canary.is_some() {
        let message = "a canary would be a second allocation of a singleton; leave this out";
        note("rollout.canary", Err(Broken::new(message)));
    }
}
