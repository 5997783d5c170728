//! Jobs that come after others of their app: which, in what order, and that none waits for itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::check::{Broken, nearest, shown};
use crate::{AppSpec, Name, WorkloadKind};

/// What is known of one workload of an app.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link {
    /// Whether it is a job.
    pub(crate) is_job: bool,
    /// Whether it is known what a run works on that nobody says anything of.
    pub(crate) has_work: bool,
    /// What it comes after.
    pub(crate) after: BTreeSet<Name>,
}

/// The workloads of an app by name.
pub(crate) type Links = BTreeMap<Name, Link>;

/// Returns what is wrong with what `job` comes after.
pub(crate) fn check_after(links: &Links, job: &Name) -> Result<(), Broken> {
    let jobs: Vec<&str> =
        links.iter().filter(|(_, link)| link.is_job).map(|(name, _)| name.as_str()).collect();
    for before in links.get(job).iter().flat_map(|link| &link.after) {
        match links.get(before) {
            Some(link) if !link.is_job => {
                return Err(Broken::new(format!("`{before}` is a service; a job comes after jobs")));
            }
            Some(link) if !link.has_work => {
                return Err(Broken::new(format!(
                    "nothing says what `{before}` works on when it is run before `{job}`; give it `items`, `input` or \
                     an `after` of its own"
                )));
            }
            Some(_) => {}
            None => {
                let before = shown(before.as_str());
                let hint = nearest(&before, &jobs);
                return Err(Broken::new(format!("there is no job `{before}` in this app; {hint}")));
            }
        }
    }
    match cycle(links, job) {
        Some(names) => {
            let shown: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
            Err(Broken::new(format!("a job cannot come after itself: {}", shown.join(" after "))))
        }
        None => Ok(()),
    }
}

/// Returns a way from a job back to itself, if there is one.
fn cycle(links: &Links, job: &Name) -> Option<Vec<Name>> {
    // The way to each that was reached, so that no way is gone twice.
    let mut ways: BTreeMap<&Name, Vec<&Name>> = BTreeMap::new();
    let mut next = vec![(job, vec![job])];
    while let Some((name, way)) = next.pop() {
        for before in links.get(name).iter().flat_map(|link| &link.after) {
            let mut longer = way.clone();
            longer.push(before);
            if before == job {
                return Some(longer.into_iter().cloned().collect());
            }
            if !ways.contains_key(before) {
                ways.insert(before, longer.clone());
                next.push((before, longer));
            }
        }
    }
    None
}

/// Returns what is known of each workload.
pub(crate) fn links_of(spec: &AppSpec) -> Links {
    let links = spec.workloads.iter().map(|(name, workload)| {
        let link = match &workload.kind {
            WorkloadKind::Service(_) => Link::default(),
            WorkloadKind::Job(job) => Link {
                is_job: true,
                has_work: job.items.is_some() || !job.after.is_empty(),
                after: job.after.clone(),
            },
        };
        (name.clone(), link)
    });
    links.collect()
}

/// Returns a job and all that come before it, each after those that it comes after.
pub fn chain_of(spec: &AppSpec, job: &Name) -> Vec<Name> {
    fn visit(spec: &AppSpec, job: &Name, seen: &mut BTreeSet<Name>, chain: &mut Vec<Name>) {
        if !seen.insert(job.clone()) {
            return;
        }
        if let Some(WorkloadKind::Job(job)) = spec.workloads.get(job).map(|workload| &workload.kind) {
            job.after.iter().for_each(|before| visit(spec, before, seen, chain));
        }
        chain.push(job.clone());
    }
    let mut chain = Vec::new();
    visit(spec, job, &mut BTreeSet::new(), &mut chain);
    chain
}
