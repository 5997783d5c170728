//! `dunlin job list`: the jobs there are, what they come after, and when they run by themselves.

use clap::Args;
use dunlin_api::{AppStatus, ScheduleStatus, ServiceOrJob};
use serde::Serialize;

use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, table};
use crate::time::utc;

/// List the jobs there are, what they come after, and when they run by themselves.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin job list")]
pub(crate) struct ListArgs {}

/// One job.
#[derive(Debug, Serialize)]
struct Job {
    job: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    after: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule: Option<ScheduleStatus>,
}

pub(super) async fn list(global: &Global, _: &ListArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let apps = client.apps().await;
    let mut apps = apps.map_err(|error| CommandError::client("cannot list the jobs", &error))?.apps;
    if let Some(namespace) = &global.namespace {
        apps.retain(|app| app.name.namespace == *namespace);
    }
    let jobs = jobs(&apps);
    output.result(&jobs, || shown(&jobs))
}

fn jobs(apps: &[AppStatus]) -> Vec<Job> {
    let all = apps.iter().flat_map(|app| app.workloads.iter().map(move |workload| (app, workload)));
    let jobs = all.filter(|(_, workload)| workload.kind == ServiceOrJob::Job);
    let job = |(app, workload): (&AppStatus, &dunlin_api::WorkloadStatus)| Job {
        job: app.name.workload(&workload.name).to_string(),
        after: workload.after.iter().map(ToString::to_string).collect(),
        schedule: workload.schedule.clone(),
    };
    jobs.map(job).collect()
}

fn shown(jobs: &[Job]) -> String {
    if jobs.is_empty() {
        return "no jobs yet; `dunlin deploy` brings one\n".to_owned();
    }
    let row = |Job { job, after, schedule }: &Job| {
        let schedule = schedule.as_ref();
        let last = schedule.map(|schedule| match (&schedule.run, &schedule.skipped) {
            (Some(run), _) => run.to_string(),
            (None, Some(why)) => format!("skipped: {why}"),
            (None, None) => String::new(),
        });
        vec![
            job.clone(),
            after.join(" "),
            schedule.map(|it| it.schedule.to_string()).unwrap_or_default(),
            schedule.and_then(|it| it.next).map(utc).unwrap_or_default(),
            schedule.and_then(|it| it.last).map(utc).unwrap_or_default(),
            last.unwrap_or_default(),
        ]
    };
    table(&["JOB", "AFTER", "SCHEDULE", "NEXT", "LAST", "RUN"], jobs.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const APP: &str = r#"{"name":"default/shop","revision":1,"workloads":[
        {"name":"cart","kind":"service","desired":1,"running":1,"limits":LIMITS,"component":"DIGEST"},
        {"name":"map","kind":"job","desired":0,"running":0,"limits":LIMITS,"component":"DIGEST",
         "schedule":{"cron":"0 3 * * *","time_zone":"Europe/Zurich","missed":"once","overlap":"skip",
          "next":1796176800000,"last":1796090400000,"skipped":"r7 had not ended"}},
        {"name":"reduce","kind":"job","desired":0,"running":0,"limits":LIMITS,"component":"DIGEST","after":["map"],
         "schedule":{"cron":"@hourly","next":1796176800000,"last":1796090400000,"run":"r8"}}]}"#;

    #[test]
    fn jobs_are_shown_with_their_next_run() {
        let limits = serde_json::to_string(&dunlin_model::Limits::JOB).unwrap();
        let digest = dunlin_model::Digest::of(b"").to_string();
        let app = APP.replace("LIMITS", &limits).replace("DIGEST", &digest);
        let app: AppStatus = serde_json::from_str(&app).unwrap();
        let jobs = jobs(&[app]);
        expect![[r#"
            JOB                  AFTER  SCHEDULE                 NEXT                      LAST                      RUN
            default/shop/map            0 3 * * * Europe/Zurich  2026-12-02T02:00:00.000Z  2026-12-01T02:00:00.000Z  skipped: r7 had not ended
            default/shop/reduce  map    @hourly UTC              2026-12-02T02:00:00.000Z  2026-12-01T02:00:00.000Z  r8"#]]
        .assert_eq(&shown(&jobs));
        expect![[r#"[{"job":"default/shop/map","schedule":{"cron":"0 3 * * *","time_zone":"Europe/Zurich","missed":"once","overlap":"skip","next":1796176800000,"last":1796090400000,"skipped":"r7 had not ended"}},{"job":"default/shop/reduce","after":["map"],"schedule":{"cron":"@hourly","time_zone":"UTC","missed":"skip","overlap":"skip","next":1796176800000,"last":1796090400000,"run":"r8"}}]"#]]
        .assert_eq(&serde_json::to_string(&jobs).unwrap());
        expect![[r#"
            no jobs yet; `dunlin deploy` brings one
        "#]]
        .assert_eq(&shown(&[]));
    }
}
