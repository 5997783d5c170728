//! `dunlin status`: the fleet and its apps, or one app in detail.

use clap::Args;
use dunlin_api::{AllocationStatus, AppStatus, FleetStatus, RolloutStatus, ServiceOrJob, WorkloadStatus};
use dunlin_model::RouteSpec;
use serde::Serialize;

use super::node;
use crate::args::Global;
use crate::error::CommandError;
use crate::names;
use crate::output::{Output, table};
use crate::time::utc;

/// Show the fleet and its apps, or one app in detail.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin status shop")]
pub(crate) struct StatusArgs {
    /// `app` or `namespace/app`; all if absent.
    pub(crate) app: Option<String>,
}

#[derive(Serialize)]
struct Overview {
    fleet: FleetStatus,
    apps: Vec<AppStatus>,
}

pub(crate) async fn run(global: &Global, args: StatusArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    if let Some(app) = args.app {
        let name = names::app(&app, global.namespace.as_ref())?;
        let status = client
            .app(&name)
            .await
            .map_err(|error| CommandError::client(format!("cannot show `{name}`"), &error))?;
        return output.result(&status, || detail(&status));
    }
    let failed = |error| CommandError::client("cannot show the fleet", &error);
    let fleet = client.status().await.map_err(failed)?;
    let mut apps = client.apps().await.map_err(failed)?.apps;
    if let Some(namespace) = &global.namespace {
        apps.retain(|app| app.name.namespace == *namespace);
    }
    let overview = Overview { fleet, apps };
    output.result(&overview, || {
        let fleet = in_lines(&overview.fleet);
        if overview.apps.is_empty() {
            return format!("{fleet}no apps yet; `dunlin deploy` brings one\n");
        }
        fleet + &all_workloads(&overview.apps)
    })
}

fn in_lines(fleet: &FleetStatus) -> String {
    let FleetStatus { cluster, term, version, in_charge, nodes_alive, nodes, apps: _, held_zones, recovery } =
        fleet;
    let at = in_charge.as_ref().map(|address| format!(" at {address}")).unwrap_or_default();
    let mut text = format!(
        "fleet {cluster}: {nodes_alive} of {nodes} nodes alive; coordinator {version}{at}, term {term}\n"
    );
    if let Some(recovery) = recovery {
        text.push_str(&format!(
            "in recovery: {}; nothing is decided, and what runs goes on: see `dunlin recover`\n",
            recovery.reason
        ));
    }
    for held in held_zones {
        text.push_str(&format!(
            "held: {}, so many at once that nothing is moved until they are back or `dunlin node release` says so\n",
            node::held(held)
        ));
    }
    text
}

fn all_workloads(apps: &[AppStatus]) -> String {
    let rows = apps.iter().flat_map(|app| {
        app.workloads.iter().map(|workload| {
            let mut row = vec![app.name.to_string(), app.revision.to_string()];
            row.extend(workload_row(workload));
            row
        })
    });
    table(&["APP", "REVISION", "WORKLOAD", "KIND", "RUNNING", "ROUTES", "WAITING"], rows.collect())
}

/// Returns the table of an app's workloads.
pub(crate) fn workloads(app: &AppStatus) -> String {
    let rows = app.workloads.iter().map(workload_row).collect();
    table(&["WORKLOAD", "KIND", "RUNNING", "ROUTES", "WAITING"], rows)
}

fn workload_row(workload: &WorkloadStatus) -> Vec<String> {
    let kind = match workload.kind {
        ServiceOrJob::Service => "service",
        ServiceOrJob::Job => "job",
    };
    let running = match workload.kind {
        ServiceOrJob::Service => format!("{}/{}", workload.running, workload.desired),
        // How many a job wants depends on its runs, and is shown with them.
        ServiceOrJob::Job => workload.running.to_string(),
    };
    vec![
        workload.name.to_string(),
        kind.to_owned(),
        running,
        workload.routes.iter().map(route).collect::<Vec<_>>().join(" "),
        workload.waiting.clone().or_else(|| next_run(workload)).unwrap_or_default(),
    ]
}

/// Says when a job is run next by itself.
fn next_run(workload: &WorkloadStatus) -> Option<String> {
    let next = workload.schedule.as_ref()?.next?;
    Some(format!("for {}", utc(next)))
}

fn route(route: &RouteSpec) -> String {
    let pattern = format!("{}{}", route.host.as_deref().unwrap_or("*"), route.path);
    let Some(rules) = &route.rules else { return pattern };
    match (&rules.redirect, &rules.respond) {
        (Some(redirect), _) => format!("{pattern}->{}", redirect.to),
        (None, Some(respond)) => format!("{pattern}={}", respond.status),
        (None, None) => pattern,
    }
}

fn detail(app: &AppStatus) -> String {
    let restores = app.restores.map(|restored| format!(", which restores {restored}")).unwrap_or_default();
    let rollout = app.rollout.as_ref().map(rollout).unwrap_or_default();
    let mut text =
        format!("`{}`, revision {}{restores}\n{rollout}{}\n", app.name, app.revision, workloads(app));
    let rows: Vec<Vec<String>> = app
        .workloads
        .iter()
        .flat_map(|workload| workload.allocations.iter().map(|it| allocation_row(workload, it)))
        .collect();
    if !rows.is_empty() {
        let header = [
            "ALLOCATION",
            "WORKLOAD",
            "NODE",
            "REVISION",
            "STATE",
            "RESTARTS",
            "MEMORY",
            "FUEL",
            "INSTANCES",
            "REASON",
        ];
        text.push_str(&format!("\n{}\n", table(&header, rows)));
    }
    text
}

/// Says how the passage to the newest revision goes.
fn rollout(rollout: &RolloutStatus) -> String {
    let RolloutStatus { from, canaries, good_since, failed, .. } = rollout;
    let from = from.map(|from| format!(" from revision {from}")).unwrap_or_default();
    let what = match (failed, good_since, canaries) {
        (Some(reason), _, _) => format!("has failed and stopped: {reason}"),
        (None, Some(since), true) if rollout.by_hand => {
            format!("has canaries that are well since {}; `dunlin promote` lets all follow", utc(*since))
        }
        (None, Some(since), true) => format!("has canaries that are well since {}, and watched", utc(*since)),
        (None, None, true) => "starts its canaries".to_owned(),
        (None, Some(since), false) => format!("is well since {}, and watched", utc(*since)),
        (None, None, false) => "goes on".to_owned(),
    };
    format!("rollout{from} {what}\n")
}

fn allocation_row(workload: &WorkloadStatus, allocation: &AllocationStatus) -> Vec<String> {
    vec![
        allocation.id.to_string(),
        workload.name.to_string(),
        allocation.node.to_string(),
        allocation.revision.to_string(),
        allocation.state.name().to_owned(),
        allocation.restarts.to_string(),
        allocation.memory.to_string(),
        allocation.fuel.to_string(),
        allocation.instances.to_string(),
        allocation.reason.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const JSON: &str = r#"{"name":"default/shop","revision":4,"workloads":[{"name":"cart","kind":"service",
        "desired":3,"running":1,"waiting":"2 wait: no node has 64MiB","routes":[{"host":"shop.localhost","path":"/"},
        {"host":null,"path":"/cart"}],"limits":{"memory":67108864,"fuel":1000000000,"fuel_rate":50000000,
        "deadline":30000,"concurrency":64},
        "component":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "allocations":[{"id":"a12","node":"node-1","revision":4,"state":"running","restarts":0,"memory":1048576,
        "fuel":12000000,"instances":7},{"id":"a13","node":"node-2","revision":4,"state":"a-later-one",
        "reason":"trap\u001b[2J\nstack","restarts":2,"memory":0,"fuel":0,"instances":0}]}]}"#;

    #[test]
    fn an_app_is_shown_with_its_allocations() {
        let app: AppStatus = serde_json::from_str(JSON).unwrap();
        expect![[r#"
            `default/shop`, revision 4
            WORKLOAD  KIND     RUNNING  ROUTES                  WAITING
            cart      service  1/3      shop.localhost/ */cart  2 wait: no node has 64MiB

            ALLOCATION  WORKLOAD  NODE    REVISION  STATE    RESTARTS  MEMORY  FUEL  INSTANCES  REASON
            a12         cart      node-1  4         running  0         1MiB    12M   7
            a13         cart      node-2  4         unknown  2         0B      0     0          trap\u{1b}[2J stack
        "#]].assert_eq(&detail(&app));
        expect![[r#"
            APP           REVISION  WORKLOAD  KIND     RUNNING  ROUTES                  WAITING
            default/shop  4         cart      service  1/3      shop.localhost/ */cart  2 wait: no node has 64MiB"#]].assert_eq(&all_workloads(std::slice::from_ref(&app)));
    }

    #[test]
    fn zones_that_are_held_are_mentioned() {
        let fleet = r#"{"cluster":"k3","term":2,"version":"0.1.0","nodes_alive":7,"nodes":13,"apps":1,
            "held_zones":[{"zone":"","lost":3,"nodes":3},{"zone":"a","lost":3,"nodes":5}]}"#;
        expect![[r#"
            fleet k3: 7 of 13 nodes alive; coordinator 0.1.0, term 2
            held: the nodes without a zone with 3 of 3 nodes lost, so many at once that nothing is moved until they are back or `dunlin node release` says so
            held: zone `a` with 3 of 5 nodes lost, so many at once that nothing is moved until they are back or `dunlin node release` says so
        "#]].assert_eq(&in_lines(&serde_json::from_str(fleet).unwrap()));
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "most of it is the expected text")]
    fn programs_get_the_api_s_own_form() {
        let app: AppStatus = serde_json::from_str(JSON).unwrap();
        let fleet = r#"{"cluster":"k3","term":2,"version":"0.1.0","nodes_alive":1,"nodes":2,"apps":1}"#;
        let overview = Overview { fleet: serde_json::from_str(fleet).unwrap(), apps: vec![app] };
        expect![[r#"
            {
              "fleet": {
                "cluster": "k3",
                "term": 2,
                "version": "0.1.0",
                "nodes_alive": 1,
                "nodes": 2,
                "apps": 1,
                "held_zones": []
              },
              "apps": [
                {
                  "name": "default/shop",
                  "revision": 4,
                  "workloads": [
                    {
                      "name": "cart",
                      "kind": "service",
                      "desired": 3,
                      "running": 1,
                      "waiting": "2 wait: no node has 64MiB",
                      "routes": [
                        {
                          "host": "shop.localhost",
                          "path": "/"
                        },
                        {
                          "host": null,
                          "path": "/cart"
                        }
                      ],
                      "limits": {
                        "memory": 67108864,
                        "table_elements": 100000,
                        "core_instances": 64,
                        "memories": 8,
                        "tables": 32,
                        "fuel": 1000000000,
                        "fuel_rate": 50000000,
                        "fuel_burst": 12500000,
                        "deadline": 30000,
                        "host_call_bytes": 4194304,
                        "host_calls": 50000,
                        "host_call_burst": 100000,
                        "handles": 10000,
                        "random_bytes": 65536,
                        "header_bytes": 32768,
                        "headers": 100,
                        "request_body": 10485760,
                        "response_body": 67108864,
                        "concurrency": 64,
                        "connections": 32,
                        "connection_rate": 10,
                        "connect_timeout": 5000,
                        "first_byte_timeout": 30000,
                        "between_bytes_timeout": 30000,
                        "log_rate": 65536,
                        "log_burst": 1048576,
                        "log_line": 8192,
                        "log_kept": 16777216,
                        "environment": 65536,
                        "scratch": 67108864
                      },
                      "component": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
                      "allocations": [
                        {
                          "id": "a12",
                          "node": "node-1",
                          "revision": 4,
                          "state": "running",
                          "restarts": 0,
                          "memory": 1048576,
                          "fuel": 12000000,
                          "instances": 7
                        },
                        {
                          "id": "a13",
                          "node": "node-2",
                          "revision": 4,
                          "state": "unknown",
                          "reason": "trap\u001b[2J\nstack",
                          "restarts": 2,
                          "memory": 0,
                          "fuel": 0,
                          "instances": 0
                        }
                      ]
                    }
                  ]
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&overview).unwrap());
    }
}
