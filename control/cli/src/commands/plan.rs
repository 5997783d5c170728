//! `dunlin plan`: what a deploy would change, before it does.
//!
//! Exit code 2 says that something would change, 0 that nothing would; whatever goes wrong is 1, also wrong usage, or
//! 3 if the coordinator is not reached. So a pipeline can tell them apart.

use std::path::PathBuf;

use clap::Args;
use dunlin_api::Client;
use dunlin_model::{AppSpec, Feature, FieldChange, Name, Plan};

use super::deploy::{Built, build, wanted, with_inputs};
use super::forecast;
use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, escaped};
use crate::time::about;

/// The exit code that says that something would change.
const CHANGES: u8 = 2;

/// Show what a deploy would change, allocation by allocation; nothing is changed. Exit code 2 if something would.
#[derive(Clone, Debug, Args)]
#[command(before_help = "Example: dunlin plan guests/examples/quickstart")]
#[command(
    after_help = "Exit codes: 0 nothing would change, 2 something would, 1 could not be told or wrong usage, \
                        3 coordinator not reached."
)]
pub(crate) struct PlanArgs {
    /// The folder of the app, or its manifest.
    #[arg(default_value = ".")]
    pub(crate) path: PathBuf,
    /// Take the components as they are; do not run `[build] command`.
    #[arg(long)]
    pub(crate) no_build: bool,
}

/// Returns the exit code.
pub(crate) async fn run(global: &Global, args: PlanArgs, output: &Output) -> Result<u8, CommandError> {
    let told = async {
        let client = crate::client::connect(global)?;
        planned(&client, &args, global.namespace.as_ref(), output).await
    };
    let plan = told.await.map_err(CommandError::never_usage)?;
    output.result(&plan, || shown(&plan))?;
    Ok(if plan.changed { CHANGES } else { 0 })
}

async fn planned(
    client: &Client,
    args: &PlanArgs,
    namespace: Option<&Name>,
    output: &Output,
) -> Result<Plan, CommandError> {
    let mut built = build(&args.path, !args.no_build, namespace, output).await?;
    // Inputs are known by what is in them, and named in what is deployed.
    built.spec = with_inputs(client, &built, output).await?;
    let spec = with_needs(built);
    let name = spec.name.clone();
    client.plan(&spec).await.map_err(|error| CommandError::client(format!("cannot plan `{name}`"), &error))
}

/// Returns the spec with what its components need, as a coordinator finds it out when they are uploaded.
pub(crate) fn with_needs(built: Built) -> AppSpec {
    let Built { mut spec, components, .. } = built;
    for workload in spec.workloads.values_mut() {
        let component = components.iter().find(|component| component.digest == workload.component);
        let needed = component.map(|component| dunlin_admission::needed_features(&component.bytes));
        Feature::set_labels(&mut workload.node_labels, needed.into_iter().flatten());
    }
    spec
}

fn shown(plan: &Plan) -> String {
    let Plan { app, before, revision, changed, fields, wants, asks, forecast } = plan;
    if !changed {
        return format!("`{app}` is as it should be, as revision {revision}: nothing would change\n");
    }
    let mut text = match before {
        Some(before) => format!("revision {before} of `{app}` would become {revision}\n"),
        None => format!("`{app}` would be new, as revision {revision}\n"),
    };
    for FieldChange { workload, field, from, to } in fields {
        let name = if field.is_empty() { workload.to_string() } else { format!("{workload}.{field}") };
        let change = match (from, to) {
            (Some(from), Some(to)) => format!("  {name}: {from} -> {to}"),
            (Some(from), None) => format!("  {name}: {from} would be gone"),
            // Of a workload it is told which kind it is.
            (None, Some(to)) if field.is_empty() => {
                format!("  {name} would be new, a {}", to.trim_matches('"'))
            }
            (None, Some(to)) => format!("  {name}: {to} would be new"),
            (None, None) => continue,
        };
        text.push_str(&format!("{}\n", escaped(&change)));
    }
    let asked = if *asks {
        "it would newly have, which `dunlin deploy --accept` accepts"
    } else {
        "it would newly have"
    };
    text.push_str(&wanted(wants, asked));
    text.push('\n');
    text.push_str(&forecast::allocations(forecast));
    text.push_str(&match forecast.ends {
        dunlin_model::ForecastEnd::Settled => format!(
            "it would take {}, if each allocation starts at the next heartbeat of its node{}\n",
            about(forecast.took_ms),
            if before.is_some() { "; the time is in it for which the new revision is watched" } else { "" }
        ),
        _ => forecast::end(forecast),
    });
    text
}

#[cfg(test)]
mod tests {
    use dunlin_model::{
        AllocationChange, AllocationForecast, AllocationId, DurationMs, EndReason, Forecast, Revision, Want,
        WorkloadForecast,
    };
    use expect_test::expect;

    use super::*;

    fn plan() -> Plan {
        let allocation = |change, id, from: &str, to: &str| AllocationForecast {
            change,
            id: (id > 0).then(|| AllocationId::new(id)),
            from: from.parse().ok(),
            to: to.parse().ok(),
            why: (change == AllocationChange::Ended).then_some(EndReason::ScaledDown),
            because: (change == AllocationChange::Ended).then(|| "revision 4 wants none".to_owned()),
        };
        let field = |field: &str, from: Option<&str>, to: Option<&str>| FieldChange {
            workload: "cart".parse().unwrap(),
            field: field.to_owned(),
            from: from.map(str::to_owned),
            to: to.map(str::to_owned),
        };
        Plan {
            app: "default/shop".parse().unwrap(),
            before: Some(Revision(3)),
            revision: Revision(4),
            changed: true,
            fields: vec![
                field("allocations", Some("2"), Some("3")),
                field("placement.require", None, Some("[\"zone = b\"]")),
                field("environment.TOKEN", Some("(not shown)"), None),
            ],
            wants: vec![Want {
                workload: "cart".parse().unwrap(),
                field: "limits.memory".to_owned(),
                from: Some("64MiB".to_owned()),
                to: "128MiB".to_owned(),
            }],
            asks: true,
            forecast: Forecast {
                took_ms: DurationMs(3_000),
                workloads: vec![WorkloadForecast {
                    workload: "default/shop/cart".parse().unwrap(),
                    desired_before: 2,
                    serving_before: 2,
                    desired: 3,
                    serving: 2,
                    fewest: 2,
                    down_ms: DurationMs(0),
                    down_since_ms: None,
                    whole_after_ms: None,
                    waiting: Some("no node fulfils `zone = b`".to_owned()),
                    allocations: vec![
                        allocation(AllocationChange::Replaced, 4, "n1", "n1"),
                        allocation(AllocationChange::Replaced, 5, "n1", "n2"),
                        allocation(AllocationChange::Moved, 6, "n1", "n2"),
                        allocation(AllocationChange::Ended, 7, "n1", ""),
                        allocation(AllocationChange::Started, 0, "", "n3"),
                        allocation(AllocationChange::Lost, 8, "n4", ""),
                        allocation(AllocationChange::Kept, 9, "n5", ""),
                    ],
                    more: 0,
                    kept: 1,
                    started: 1,
                    moved: 1,
                    replaced: 2,
                    ended: 1,
                    lost: 1,
                }],
                ..Forecast::default()
            },
        }
    }

    #[test]
    fn a_plan_is_told_field_by_field_and_allocation_by_allocation() {
        expect![[r#"
            revision 3 of `default/shop` would become 4
              cart.allocations: 2 -> 3
              cart.placement.require: ["zone = b"] would be new
              cart.environment.TOKEN: (not shown) would be gone
            it would newly have, which `dunlin deploy --accept` accepts:
              cart.limits.memory: 64MiB -> 128MiB

            default/shop/cart
              ~ a4 on n1 is replaced there
              ~ a5 on n1 is replaced by one on n2
              > a6 moves from n1 to n2
              - a7 on n1 ends: revision 4 wants none
              + one is started on n3
              ! a8 is lost with n4
              = a9 stays on n5
              waits: no node fulfils `zone = b`
            it would take 3.0s, if each allocation starts at the next heartbeat of its node; the time is in it for which the new revision is watched
        "#]]
        .assert_eq(&shown(&plan()));
    }

    #[test]
    fn a_plan_without_changes_says_so() {
        let told = shown(&Plan { changed: false, ..plan() });
        assert_eq!(told, "`default/shop` is as it should be, as revision 4: nothing would change\n");
    }
}
