//! Reading `[service.NAME.rollout]` and `[service.NAME.health]`.

use std::collections::BTreeMap;

use super::reader::{Found, Reader, Section};
use super::workload::choice;
use crate::check::Broken;
use crate::{HealthSpec, Promote, RolloutSpec};

const ROLLOUT_FIELDS: [&str; 11] = [
    "max_surge",
    "max_unavailable",
    "canary",
    "canary_share",
    "promote",
    "bake",
    "deadline",
    "rollback",
    "max_restarts",
    "max_errors",
    "max_fuel",
];
const HEALTH_FIELDS: [&str; 6] = ["path", "interval", "timeout", "failures", "successes", "restart_after"];
const DURATION: &str = "a string like \"30s\"";
const SHARE: &str = "a string like \"200%\"";

/// Returns how the service passes from one revision to the next; what it does not say is that of `spec`.
pub(super) fn rollout(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    everywhere: bool,
    mut spec: RolloutSpec,
) -> RolloutSpec {
    let Some(section) = &reader.section(section, "rollout") else { return spec };
    reader.refuse_unknown(section, &ROLLOUT_FIELDS);
    let mut places = Places::default();
    if let Some(found) = reader.amount(section, "max_surge") {
        spec.max_surge = places.keep("max_surge", found);
    }
    if let Some(found) = reader.amount(section, "max_unavailable") {
        spec.max_unavailable = places.keep("max_unavailable", found);
    }
    spec.canary = reader.amount(section, "canary").map(|found| places.keep("canary", found));
    spec.canary_share =
        reader.parsed(section, "canary_share", SHARE).map(|found| places.keep("canary_share", found));
    let words = [("auto", Promote::Auto), ("by-hand", Promote::ByHand)];
    spec.promote = choice(reader, section, "promote", &words);
    if let Some(found) = reader.parsed(section, "bake", DURATION) {
        spec.bake = places.keep("bake", found);
    }
    if let Some(found) = reader.parsed(section, "deadline", DURATION) {
        spec.deadline = places.keep("deadline", found);
    }
    spec.rollback = reader.truth(section, "rollback").unwrap_or(spec.rollback);
    if let Some(found) = reader.count(section, "max_restarts") {
        spec.max_restarts = places.keep("max_restarts", found);
    }
    if let Some(found) = reader.parsed(section, "max_errors", SHARE) {
        spec.max_errors = found.value;
    }
    spec.max_fuel = reader.parsed(section, "max_fuel", SHARE).map(|found| found.value);
    spec.check(everywhere, &mut |field, rule| places.expect(reader, section, field, rule));
    spec
}

/// Returns how it is known that an allocation is well, if the manifest says.
pub(super) fn health(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<HealthSpec> {
    let section = &reader.section(section, "health")?;
    reader.refuse_unknown(section, &HEALTH_FIELDS);
    if !section.has("path") {
        reader.missing(section, "path", "\"/health\"");
    }
    let mut places = Places::default();
    let path = reader.string(section, "path", "a string like \"/health\"")?;
    let mut spec = HealthSpec {
        path: places.keep("path", path),
        interval: HealthSpec::INTERVAL,
        timeout: HealthSpec::TIMEOUT,
        failures: HealthSpec::FAILURES,
        successes: HealthSpec::SUCCESSES,
        restart_after: None,
    };
    for (key, time) in [("interval", &mut spec.interval), ("timeout", &mut spec.timeout)] {
        if let Some(found) = reader.parsed(section, key, DURATION) {
            *time = places.keep(key, found);
        }
    }
    for (key, count) in [("failures", &mut spec.failures), ("successes", &mut spec.successes)] {
        if let Some(found) = reader.count(section, key) {
            *count = places.keep(key, found);
        }
    }
    if let Some(found) = reader.count(section, "restart_after") {
        spec.restart_after = Some(places.keep("restart_after", found));
    }
    spec.check(&mut |field, rule| places.expect(reader, section, field, rule));
    Some(spec)
}

/// Where each field stands, for what the rules will say of it.
#[derive(Default)]
struct Places(BTreeMap<&'static str, usize>);

impl Places {
    /// Remembers the place of a field, and returns what it is.
    fn keep<T>(&mut self, key: &'static str, found: Found<T>) -> T {
        self.0.insert(key, found.at);
        found.value
    }

    fn expect(&self, reader: &mut Reader<'_>, section: &Section<'_>, field: &str, rule: Result<(), Broken>) {
        let at = self.0.get(field).copied().unwrap_or(section.at());
        reader.expect(at, section.path(field), rule);
    }
}
