//! Reading `[service.NAME]` and `[job.NAME]`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::reader::{Found, Reader, Section, Strings};
use super::{JobInput, MAX_TEXT, ManifestWorkload, capabilities, job, partition, placement, rollout, route};
use crate::check::{self, between};
use crate::limits::Access;
use crate::placement::Home;
use crate::{
    Instances, LimitField, Limits, MAX_ITEMS, Metering, Priority, RolloutSpec, RouteSpec, ServiceSpec,
    WorkloadKind,
};

const SERVICE_FIELDS: [&str; 17] = [
    "component",
    "allocations",
    "routes",
    "limits",
    "environment",
    "node_labels",
    "capabilities",
    "instances",
    "metering",
    "coredump",
    "fuel_header",
    "everywhere",
    "rollout",
    "health",
    "on_partition",
    "placement",
    "priority",
];
const JOB_FIELDS: [&str; 21] = [
    "component",
    "input",
    "items",
    "parallelism",
    "attempts",
    "combine",
    "after",
    "schedule",
    "time_zone",
    "missed",
    "overlap",
    "semantics",
    "deadline",
    "limits",
    "environment",
    "node_labels",
    "capabilities",
    "metering",
    "coredump",
    "placement",
    "priority",
];

/// A route and where it stands.
pub(super) type PlacedRoute = Found<RouteSpec>;

pub(super) fn service(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    home: &Home<'_>,
) -> (Option<ManifestWorkload>, Vec<PlacedRoute>) {
    reader.refuse_unknown(section, &SERVICE_FIELDS);
    let allocations = reader.count(section, "allocations");
    if let Some(Found { value, at }) = &allocations {
        let rule = check::at_most("allocations", check::MAX_ALLOCATIONS, *value);
        reader.expect(*at, section.path("allocations"), rule);
    }
    let everywhere = reader.truth(section, "everywhere").unwrap_or(false);
    if everywhere && section.has("allocations") {
        let message =
            "a service that runs everywhere has one allocation on each node that fits it; leave this out";
        reader.note(section.place("allocations"), section.path("allocations"), message);
    }
    let placed = route::routes(reader, section);
    let on_partition = partition::on_partition(reader, section);
    let service = ServiceSpec {
        allocations: allocations.map_or(1, |found| found.value),
        routes: placed.iter().map(|route| route.value.clone()).collect(),
        fuel_header: reader.truth(section, "fuel_header").unwrap_or(false),
        everywhere,
        rollout: rollout::rollout(reader, section, everywhere, RolloutSpec::default_for(on_partition)),
        health: rollout::health(reader, section),
        on_partition,
    };
    partition::expect(reader, section, &service);
    let kind = WorkloadKind::Service(service);
    let workload = workload(reader, section, home, kind, None);
    if let Some(workload) = &workload {
        let rule = check::everywhere_alone(everywhere, &workload.placement);
        reader.expect(section.place("placement"), section.path("placement"), rule);
    }
    (workload, placed)
}

pub(super) fn job(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    home: &Home<'_>,
) -> Option<ManifestWorkload> {
    let known: Vec<&str> = JOB_FIELDS.into_iter().chain(["on_partition"]).collect();
    reader.refuse_unknown(section, if section.has("on_partition") { &known } else { &JOB_FIELDS });
    partition::refuse_for_job(reader, section);
    let input = input(reader, section);
    let kind = WorkloadKind::Job(job::job(reader, section, input.as_ref()));
    workload(reader, section, home, kind, input)
}

fn workload(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    home: &Home<'_>,
    kind: WorkloadKind,
    input: Option<JobInput>,
) -> Option<ManifestWorkload> {
    let limits = limits(reader, section, &kind);
    let environment = environment(reader, section);
    let node_labels = node_labels(reader, section);
    let capabilities = capabilities::capabilities(reader, section);
    let rule = check::environment(&environment, &capabilities.config, limits.environment);
    reader.expect(section.place("environment"), section.path("environment"), rule);
    let instances =
        choice(reader, section, "instances", &[("fresh", Instances::Fresh), ("reused", Instances::Reused)]);
    let metering = choice(reader, section, "metering", &[("fuel", Metering::Fuel), ("time", Metering::Time)]);
    let coredump = reader.truth(section, "coredump").unwrap_or(false);
    reader.expect(
        section.place("coredump"),
        section.path("coredump"),
        check::dumped(coredump, &capabilities),
    );
    let placement = placement::placement(reader, section, home);
    let priority = priority(reader, section);
    if !section.has("component") {
        reader.missing(section, "component", "\"path/to/component.wasm\"");
    }
    let component = reader.string(section, "component", "a string, the path of a .wasm file")?;
    text(reader, section, "component", &component);
    let component = component.value;
    Some(ManifestWorkload {
        component,
        kind,
        limits,
        environment,
        node_labels,
        capabilities,
        instances,
        metering,
        coredump,
        placement,
        priority,
        input,
    })
}

fn priority(reader: &mut Reader<'_>, section: &Section<'_>) -> Priority {
    let Some(Found { value, at }) = reader.integer(section, "priority") else { return Priority::DEFAULT };
    Priority::new(value).unwrap_or_else(|error| {
        reader.note(at, section.path("priority"), error.to_string());
        Priority::DEFAULT
    })
}

/// Reads one of a few words; the default if it is not there.
pub(super) fn choice<T: Copy + Default>(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &str,
    words: &[(&str, T)],
) -> T {
    let listed: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
    let listed = listed.join(" or ");
    let Some(found) = reader.string(section, key, &listed) else { return T::default() };
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == found.value) {
        return *value;
    }
    reader.note(found.at, section.path(key), format!("this must be {listed}"));
    T::default()
}

/// Notes a text that is empty or too long.
pub(super) fn text(reader: &mut Reader<'_>, section: &Section<'_>, key: &str, found: &Found<String>) {
    if found.value.trim().is_empty() {
        reader.note(found.at, section.path(key), "this must not be empty");
    }
    reader.expect(found.at, section.path(key), check::at_most(key, MAX_TEXT, found.value.len()));
}

fn input(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<JobInput> {
    if section.has("input") && section.has("items") {
        let at = section.place("items").max(section.place("input"));
        let message = "a job has either `items` or `input`, not both: each file of `input` is one item";
        reader.note(at, section.path("items"), message);
    }
    let items = reader.count(section, "items").map(|Found { value, at }| {
        reader.expect(at, section.path("items"), between("items", MAX_ITEMS, value));
        JobInput::Count(value)
    });
    let files = reader.list_of_strings(section, "input", "[\"texts/*.md\"]").map(|patterns| {
        if patterns.value.is_empty() {
            reader.note(patterns.at, section.path("input"), "there is no pattern in this list");
        }
        for pattern in &patterns.value {
            text(reader, section, "input", pattern);
        }
        JobInput::Files(patterns.value.into_iter().map(|pattern| pattern.value).collect())
    });
    items.or(files)
}

fn limits(reader: &mut Reader<'_>, section: &Section<'_>, kind: &WorkloadKind) -> Limits {
    let defaults = match kind {
        WorkloadKind::Service(_) => Limits::SERVICE,
        WorkloadKind::Job(_) => Limits::JOB,
    };
    let Some(section) = reader.section(section, "limits") else { return defaults };
    let section = &section;
    let known: Vec<&str> = Limits::FIELDS.iter().map(|field| field.name).collect();
    reader.refuse_unknown(section, &known);
    let mut limits = defaults;
    let mut places = BTreeMap::new();
    for field in Limits::FIELDS {
        if let Some(at) = limit(reader, section, field, &mut limits) {
            places.insert(field.name, at);
        }
    }
    if places.contains_key("fuel_rate") && !places.contains_key("fuel_burst") {
        limits.fuel_burst = Limits::burst_of(limits.fuel_rate);
    }
    for (name, rule) in check::limits(&limits, kind) {
        // A burst that follows from a rate is not what is wrong.
        if name != "fuel_burst" || places.contains_key(name) {
            let at = places.get(name).copied().unwrap_or(section.at());
            reader.expect(at, section.path(name), rule);
        }
    }
    limits
}

/// Reads one limit, if it is there, and returns where it stands.
fn limit(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    field: &LimitField,
    limits: &mut Limits,
) -> Option<usize> {
    fn take<T>(
        reader: &mut Reader<'_>,
        section: &Section<'_>,
        key: &str,
        example: &str,
        limit: &mut T,
    ) -> Option<usize>
    where
        T: FromStr,
        T::Err: Display,
    {
        let found = reader.parsed(section, key, &format!("a string like {example}"))?;
        *limit = found.value;
        Some(found.at)
    }
    match field.access {
        Access::Bytes(access) => take(reader, section, field.name, "\"64MiB\"", access(limits)),
        Access::Fuel(access) => take(reader, section, field.name, "\"500M\"", access(limits)),
        Access::FuelRate(access) => take(reader, section, field.name, "\"50M/s\"", access(limits)),
        Access::Duration(access) => take(reader, section, field.name, "\"30s\"", access(limits)),
        Access::Count(access) => {
            let found = reader.count(section, field.name)?;
            *access(limits) = found.value;
            Some(found.at)
        }
    }
}

fn environment(reader: &mut Reader<'_>, section: &Section<'_>) -> BTreeMap<String, String> {
    let Some((inner, entries)) = reader.map_of_strings(section, "environment") else {
        return BTreeMap::new();
    };
    for (name, Found { value, at: _ }) in &entries {
        reader.expect(inner.place(name), inner.path(name), check::variable(name, value));
    }
    plain(entries)
}

fn node_labels(reader: &mut Reader<'_>, section: &Section<'_>) -> BTreeMap<String, String> {
    let Some((inner, entries)) = reader.map_of_strings(section, "node_labels") else {
        return BTreeMap::new();
    };
    for (key, Found { value, at: _ }) in &entries {
        reader.expect(inner.place(key), inner.path(key), check::own_label(key, value));
    }
    let rule = check::at_most("node_labels", check::MAX_NODE_LABELS, entries.len());
    reader.expect(section.place("node_labels"), section.path("node_labels"), rule);
    plain(entries)
}

pub(super) fn plain(entries: Strings) -> BTreeMap<String, String> {
    entries.into_iter().map(|(key, found)| (key, found.value)).collect()
}
