//! Reading what only `[job.NAME]` has: how it is run, when, and after which others.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{Found, Reader, Section};
use super::workload::choice;
use super::{JobInput, ManifestWorkload};
use crate::chain::{Link, Links, check_after};
use crate::check::{self, between};
use crate::{DurationMs, JobSpec, Missed, Name, Overlap, Schedule, Semantics, TimeZone, WorkloadKind};

/// What is said of the moments of a schedule, and nothing without one.
const OF_SCHEDULE: [&str; 3] = ["time_zone", "missed", "overlap"];

pub(super) fn job(reader: &mut Reader<'_>, section: &Section<'_>, input: Option<&JobInput>) -> JobSpec {
    let mut counted = |key, most, default| {
        let Some(Found { value, at }) = reader.count(section, key) else { return default };
        reader.expect(at, section.path(key), between(key, most, value));
        value
    };
    let parallelism = counted("parallelism", check::MAX_PARALLELISM, 1);
    let attempts = counted("attempts", check::MAX_ATTEMPTS, 3);
    let combine = reader.truth(section, "combine").unwrap_or(false);
    let words = [("at-least-once", Semantics::AtLeastOnce), ("at-most-once", Semantics::AtMostOnce)];
    let semantics = choice(reader, section, "semantics", &words);
    let is_once = semantics == Semantics::AtMostOnce;
    let job = JobSpec {
        parallelism,
        attempts: if is_once && !section.has("attempts") { 1 } else { attempts },
        combine,
        items: match input {
            Some(JobInput::Count(items)) => Some(*items),
            Some(JobInput::Files(_)) | None => None,
        },
        inputs: None,
        after: after(reader, section),
        schedule: schedule(reader, section),
        semantics,
        deadline: deadline(reader, section),
    };
    reader.expect(section.place("attempts"), section.path("attempts"), check::attempts_of(&job));
    if job.schedule.is_some() {
        let rule = check::scheduled(input.is_some() || !job.after.is_empty());
        reader.expect(section.place("schedule"), section.path("schedule"), rule);
    }
    job
}

fn after(reader: &mut Reader<'_>, section: &Section<'_>) -> BTreeSet<Name> {
    let Some(list) = reader.list_of_strings(section, "after", "[\"map\"]") else { return BTreeSet::new() };
    let mut names = BTreeSet::new();
    for (index, Found { value, at }) in list.value.into_iter().enumerate() {
        match value.parse::<Name>() {
            Ok(name) => drop(names.insert(name)),
            Err(error) => reader.note(at, format!("{}[{index}]", section.path("after")), error.to_string()),
        }
    }
    names
}

fn schedule(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Schedule> {
    let cron = reader.parsed(section, "schedule", "a string like \"0 3 * * *\"");
    let time_zone = reader.parsed::<TimeZone>(section, "time_zone", "a string like \"Europe/Zurich\"");
    let missed = choice(reader, section, "missed", &[("skip", Missed::Skip), ("once", Missed::Once)]);
    let overlap = choice(reader, section, "overlap", &[("skip", Overlap::Skip), ("allow", Overlap::Allow)]);
    if !section.has("schedule") {
        for key in OF_SCHEDULE.into_iter().filter(|key| section.has(key)) {
            let message = "this says something of a `schedule`, and there is none; add one or leave this out";
            reader.note(section.place(key), section.path(key), message);
        }
    }
    let time_zone = time_zone.map(|found| found.value).unwrap_or_default();
    Some(Schedule { cron: cron?.value, time_zone, missed, overlap })
}

fn deadline(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<DurationMs> {
    let Found { value, at } = reader.parsed(section, "deadline", "a string like \"1h\"")?;
    reader.expect(at, section.path("deadline"), check::run_time(value));
    Some(value)
}

/// Notes jobs that come after what is not there, or after themselves.
pub(super) fn check_chains(
    reader: &mut Reader<'_>,
    jobs: &[(&str, Section<'_>)],
    workloads: &BTreeMap<Name, ManifestWorkload>,
) {
    let links: Links = workloads.iter().map(|(name, workload)| (name.clone(), link(workload))).collect();
    for (key, section) in jobs {
        let Ok(name) = key.parse::<Name>() else { continue };
        if section.has("after") && links.contains_key(&name) {
            reader.expect(section.place("after"), section.path("after"), check_after(&links, &name));
        }
    }
}

fn link(workload: &ManifestWorkload) -> Link {
    match &workload.kind {
        WorkloadKind::Service(_) => Link::default(),
        WorkloadKind::Job(job) => Link {
            is_job: true,
            has_work: workload.input.is_some() || !job.after.is_empty(),
            after: job.after.clone(),
        },
    }
}
