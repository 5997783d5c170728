//! Reading `on_partition` of `[service.NAME]`.

use super::reader::{Found, Reader, Section};
use crate::{DurationMs, OnPartition, ServiceSpec, partition};

const EXPECTED: &str = "\"keep\", \"singleton\" or { stop_after = \"5m\" }";

/// Returns what the service does on a node that does not hear from its coordinator.
pub(super) fn on_partition(reader: &mut Reader<'_>, section: &Section<'_>) -> OnPartition {
    if section.is_table("on_partition") {
        return stop_after(reader, section).map(OnPartition::StopAfter).unwrap_or_default();
    }
    let Some(Found { value, at }) = reader.string(section, "on_partition", EXPECTED) else {
        return OnPartition::Keep;
    };
    match value.as_str() {
        "keep" => OnPartition::Keep,
        "singleton" => OnPartition::Singleton,
        _ => {
            reader.note(at, section.path("on_partition"), format!("this must be {EXPECTED}"));
            OnPartition::Keep
        }
    }
}

fn stop_after(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<DurationMs> {
    let inner = reader.section(section, "on_partition")?;
    reader.refuse_unknown(&inner, &["stop_after"]);
    if !inner.has("stop_after") {
        reader.missing(&inner, "stop_after", "\"5m\"");
    }
    reader.parsed(&inner, "stop_after", "a string like \"5m\"").map(|found| found.value)
}

/// Notes what contradicts it.
pub(super) fn expect(reader: &mut Reader<'_>, section: &Section<'_>, service: &ServiceSpec) {
    partition::check(service, &mut |field, rule| {
        let inner = field.strip_prefix("rollout.");
        let rollout = inner.and_then(|key| Some((reader.section(section, "rollout")?, key)));
        match rollout {
            Some((rollout, key)) => reader.expect(rollout.place(key), rollout.path(key), rule),
            None => reader.expect(section.place(field), section.path(field), rule),
        }
    });
}

/// Notes that a job has no say in it.
pub(super) fn refuse_for_job(reader: &mut Reader<'_>, section: &Section<'_>) {
    if section.has("on_partition") {
        let message =
            "only a service has this; whether an item of a job may run twice is said by `semantics`";
        reader.note(section.place("on_partition"), section.path("on_partition"), message);
    }
}
