//! Looking on until every service of a revision runs, or telling why it does not.

use std::time::Duration;

use dunlin_api::{AllocationState, AppStatus, Client, RolloutStatus, ServiceOrJob, WorkloadStatus};
use dunlin_model::{AppName, Revision};
use tokio::time::Instant;

use crate::error::CommandError;
use crate::output::Output;

const POLL: Duration = Duration::from_millis(250);
/// A service all of whose allocations were refused for so long will not run by itself.
const REFUSED_FOR: Duration = Duration::from_secs(3);

/// Where a rollout stands, as far as one who waits for it cares.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    /// Canaries run, and all that is left is up to a person.
    Canaries,
    Superseded(Revision),
    /// It failed, and this revision was restored.
    TakenBack(Revision),
    /// It failed and stays as it is, for this reason.
    Failed(String),
    GoesOn {
        running: u32,
        desired: u32,
        is_refused: bool,
    },
}

/// Returns how the app stands as soon as every service of `revision` runs.
pub(crate) async fn until_running(
    client: &Client,
    app: &AppName,
    revision: Revision,
    timeout: Duration,
    output: &Output,
) -> Result<AppStatus, CommandError> {
    let began = Instant::now();
    let bar = output.progress_of_count(&format!("starting {app}"), 0);
    let mut refused_since = None;
    loop {
        let status = client.app(app).await.map_err(|error| {
            CommandError::client(format!("`{app}` is deployed, but cannot tell whether it runs"), &error)
        })?;
        let (running, desired, is_refused) = match progress(&status, revision) {
            Progress::Done | Progress::Canaries => {
                bar.finish();
                return Ok(status);
            }
            Progress::Superseded(newer) => {
                return Err(CommandError::failed(format!("revision {revision} of `{app}` does not run"))
                    .because(format!("somebody deployed revision {newer} meanwhile"))
                    .help(format!("`dunlin status {app}` shows how that one stands")));
            }
            Progress::TakenBack(newer) => return Err(taken_back(client, app, revision, newer).await),
            Progress::Failed(reason) => {
                return Err(CommandError::failed(format!("revision {revision} of `{app}` has failed"))
                    .because(reason)
                    .help(format!("`dunlin rollback {app}` restores the one before")));
            }
            Progress::GoesOn { running, desired, is_refused } => (running, desired, is_refused),
        };
        bar.set_of(u64::from(running), u64::from(desired));
        refused_since = if is_refused { refused_since.or(Some(Instant::now())) } else { None };
        let is_refused = refused_since.is_some_and(|since| since.elapsed() >= REFUSED_FOR);
        if is_refused || began.elapsed() >= timeout {
            bar.finish();
            return Err(not_running(&status, revision, timeout, is_refused));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Says that a revision was taken back, and why.
async fn taken_back(client: &Client, app: &AppName, revision: Revision, newer: Revision) -> CommandError {
    let mut error = CommandError::failed(format!("revision {revision} of `{app}` has failed"));
    if let Ok(list) = client.revisions(app).await {
        let own = list.revisions.into_iter().find(|known| known.revision == revision);
        error = own.and_then(|own| own.reason).into_iter().fold(error, CommandError::because);
    }
    error
        .because(format!("the revision before was restored, as revision {newer}"))
        .help(format!("mend it and deploy again; `dunlin history {app}` lists what became of each"))
}

fn progress(status: &AppStatus, revision: Revision) -> Progress {
    if status.revision > revision && status.restores.is_some() {
        return Progress::TakenBack(status.revision);
    }
    if let Some(reason) = status.rollout.as_ref().and_then(|rollout| rollout.failed.clone()) {
        return Progress::Failed(reason);
    }
    if status.revision > revision {
        return Progress::Superseded(status.revision);
    }
    let is_up_to_a_person = status.rollout.as_ref().is_some_and(RolloutStatus::waits_for_a_person);
    if status.revision == revision && is_up_to_a_person {
        return Progress::Canaries;
    }
    let services = || status.workloads.iter().filter(|workload| workload.kind == ServiceOrJob::Service);
    let desired = services().map(|service| service.desired).sum();
    let running = services().map(|service| ready(service, revision).min(service.desired)).sum();
    if running == desired && status.revision == revision {
        return Progress::Done;
    }
    let is_refused = services().any(|service| {
        let mut ours = service.allocations.iter().filter(|it| it.revision == revision).peekable();
        ours.peek().is_some() && ours.all(|it| it.state == AllocationState::Refused)
    });
    Progress::GoesOn { running, desired, is_refused }
}

/// Returns how many allocations of the revision run.
fn ready(service: &WorkloadStatus, revision: Revision) -> u32 {
    let running = service
        .allocations
        .iter()
        .filter(|allocation| allocation.revision == revision && allocation.state == AllocationState::Running);
    u32::try_from(running.count()).unwrap_or(u32::MAX)
}

fn not_running(status: &AppStatus, revision: Revision, timeout: Duration, is_refused: bool) -> CommandError {
    let app = &status.name;
    let mut error =
        CommandError::failed(format!("`{app}` is deployed as revision {revision}, but not all of it runs"));
    if !is_refused {
        error = error.because(format!("{} have passed", dunlin_model::DurationMs(millis(timeout))));
    }
    for service in status.workloads.iter().filter(|workload| workload.kind == ServiceOrJob::Service) {
        let (running, desired) = (ready(service, revision), service.desired);
        if running >= desired {
            continue;
        }
        let mut cause = format!("`{}`: {running} of {desired} allocations run", service.name);
        if let Some(waiting) = &service.waiting {
            cause.push_str(&format!("; {waiting}"));
        }
        error = error.because(cause);
        let held = service.allocations.iter().filter(|it| it.revision == revision);
        if let Some((id, reason)) = held.filter_map(|it| Some((it.id, it.reason.as_ref()?))).next() {
            error = error.because(format!("{id}: {reason}"));
        }
    }
    let shown =
        format!("`dunlin status {app}` shows where it stands, `dunlin logs {}` what it prints", app.app);
    error.help(if is_refused { shown } else { format!("the fleet goes on trying; {shown}") })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use dunlin_api::AllocationStatus;
    use dunlin_model::{AllocationId, Bytes, Digest, Fuel, Limits};
    use expect_test::expect;

    use super::*;

    fn status(desired: u32, allocations: &[(u64, AllocationState)]) -> AppStatus {
        let allocation = |(index, (revision, state)): (usize, &(u64, AllocationState))| AllocationStatus {
            id: AllocationId::new(index as u64),
            node: "node-1".parse().unwrap(),
            revision: Revision(*revision),
            state: *state,
            reason: (*state == AllocationState::Refused).then(|| "it imports `wasi:gpu`".to_owned()),
            restarts: 0,
            memory: Bytes(0),
            fuel: Fuel(0),
            instances: 0,
        };
        AppStatus {
            name: "default/shop".parse().unwrap(),
            revision: Revision(2),
            restores: None,
            rollout: None,
            workloads: vec![WorkloadStatus {
                name: "cart".parse().unwrap(),
                kind: ServiceOrJob::Service,
                desired,
                running: 0,
                waiting: Some("no node has 64MiB; add a node".to_owned()),
                routes: Vec::new(),
                limits: Limits::SERVICE,
                component: Digest::of(b""),
                allocations: allocations.iter().enumerate().map(allocation).collect(),
                after: Vec::new(),
                schedule: None,
            }],
        }
    }

    #[test]
    fn allocations_of_an_older_revision_do_not_count() {
        use AllocationState::{Running, Starting};
        let goes_on = Progress::GoesOn { running: 1, desired: 2, is_refused: false };
        assert_eq!(progress(&status(2, &[(1, Running), (2, Running), (2, Starting)]), Revision(2)), goes_on);
        assert_eq!(
            progress(&status(2, &[(1, Running), (2, Running), (2, Running)]), Revision(2)),
            Progress::Done
        );
        assert_eq!(progress(&status(0, &[]), Revision(2)), Progress::Done);
        assert_eq!(progress(&status(0, &[]), Revision(1)), Progress::Superseded(Revision(2)));
    }

    #[test]
    fn what_does_not_run_says_why() {
        use AllocationState::{Refused, Running};
        let timeout = Duration::from_secs(60);
        let waits = not_running(&status(2, &[(2, Running)]), Revision(2), timeout, false);
        let refused = not_running(&status(1, &[(2, Refused)]), Revision(2), timeout, true);
        expect![[r#"
            error: `default/shop` is deployed as revision 2, but not all of it runs
              cause: 1m have passed
              cause: `cart`: 1 of 2 allocations run; no node has 64MiB; add a node
              help: the fleet goes on trying; `dunlin status default/shop` shows where it stands, `dunlin logs shop` what it prints
            error: `default/shop` is deployed as revision 2, but not all of it runs
              cause: `cart`: 0 of 1 allocations run; no node has 64MiB; add a node
              cause: a0: it imports `wasi:gpu`
              help: `dunlin status default/shop` shows where it stands, `dunlin logs shop` what it prints
        "#]].assert_eq(&format!("{waits}{refused}"));
    }
}
