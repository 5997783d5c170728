//! What would come of something: the brain is copied between two batches, and the copy is driven ahead elsewhere.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use dunlin_api::{FleetSnapshot, Problem, Simulate, code};
use dunlin_model::{AppName, AppSpec, FieldChange, Forecast, Name, Object, Plan, Timestamp};
use dunlin_scheduler::{Cluster, Foresight, Planned, plan as plan_deploy};
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::apps::looked_at;
use super::problem::{Refused, internal};
use crate::simulate::{SimulateError, WITHIN, look, snapshot as snapshot_of};

/// Tells what a deploy would change, allocation by allocation. Nothing is changed, and components need not have been
/// uploaded.
#[utoipa::path(post, path = dunlin_api::paths::APP_PLAN, tag = "forecasts",
    params(("namespace" = Name, Path), ("app" = Name, Path)), request_body = AppSpec,
    responses((status = 200, body = Plan),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn plan(
    State(api): State<Api>,
    path: Result<Path<(Name, Name)>, PathRejection>,
    body: Result<Json<Object<AppSpec>>, JsonRejection>,
) -> Result<Json<Plan>, Refused> {
    let Path((namespace, app)) = path?;
    let named = AppName { namespace, app };
    let Json(Object(spec)) = body?;
    if spec.name != named {
        let detail = format!("the path says `{named}`, the body says `{}`", spec.name);
        return Err(Problem::new(422, code::INVALID_REQUEST, "the app has two names", detail).into());
    }
    let (cluster, now, _turn) = copy(&api).await?;
    let planned = tokio::task::spawn_blocking(move || {
        let spec = looked_at(&api, spec)?;
        let planned = plan_deploy(cluster, now, spec.clone(), WITHIN)?;
        Ok::<Plan, Refused>(told(planned, &spec))
    });
    planned.await.map_err(|error| internal(&error))?.map(Json)
}

/// Tells what would come of a loss, a drain, a deploy or more load, all at once. Nothing is changed.
#[utoipa::path(post, path = dunlin_api::paths::SIMULATIONS, tag = "forecasts", request_body = Simulate,
    responses((status = 200, body = Forecast),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn simulate(
    State(api): State<Api>,
    body: Result<Json<Object<Simulate>>, JsonRejection>,
) -> Result<Json<Forecast>, Refused> {
    let Json(Object(mut wish)) = body?;
    let (cluster, now, _turn) = copy(&api).await?;
    let looked = tokio::task::spawn_blocking(move || {
        let deploy = wish.deploy.into_iter().map(|spec| looked_at(&api, spec));
        wish.deploy = deploy.collect::<Result<_, _>>()?;
        Ok::<Forecast, Refused>(look(Foresight::of(cluster, now), wish)?)
    });
    looked.await.map_err(|error| internal(&error))?.map(Json)
}

/// Writes the fleet down, with all that matters for what would be decided: nodes, namespaces, specs, and what is where.
/// The specs hold the variables of guests.
#[utoipa::path(get, path = dunlin_api::paths::SNAPSHOT, tag = "forecasts",
    responses((status = 200, body = FleetSnapshot),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn snapshot(State(api): State<Api>) -> Result<Json<FleetSnapshot>, Refused> {
    let patience = api.driver.ask(|cluster, _| cluster.patience()).await?;
    let written = tokio::task::spawn_blocking(move || snapshot_of(&api.driver.view(), patience));
    Ok(Json(written.await.map_err(|error| internal(&error))?))
}

/// Returns a copy of the brain, and the right to keep it for as long as the answer takes.
async fn copy(api: &Api) -> Result<(Cluster, Timestamp, OwnedSemaphorePermit), Refused> {
    let turn = Arc::clone(&api.forecasts).try_acquire_owned().map_err(|_taken| {
        let detail = "as many forecasts as may be are worked on already";
        Refused::new(Problem::new(503, code::BUSY, "the coordinator is busy", detail))
    })?;
    let (cluster, now) = api.driver.ask(|cluster, now| (cluster.clone(), now)).await?;
    Ok((cluster, now, turn))
}

impl From<SimulateError> for Refused {
    fn from(error: SimulateError) -> Self {
        let detail = error.to_string();
        match error {
            SimulateError::Rejected(rejection) => rejection.into(),
            SimulateError::UnknownZone(_) => {
                Self::new(Problem::new(404, "unknown_zone", "the wish was refused", detail))
            }
            SimulateError::NotScalable(_) => {
                Self::new(Problem::new(422, "not_scalable", "the wish was refused", detail))
            }
            SimulateError::Snapshot(_) => {
                Self::new(Problem::new(422, code::INVALID_REQUEST, "the wish was refused", detail))
            }
        }
    }
}

fn told(planned: Planned, spec: &AppSpec) -> Plan {
    let Planned { before, revision, changed, wants, asks, forecast } = planned;
    let fields = before.as_ref().map_or_else(
        || differences(&AppSpec { name: spec.name.clone(), workloads: Default::default() }, spec),
        |before| differences(&before.spec, spec),
    );
    Plan {
        app: spec.name.clone(),
        before: before.map(|app| app.revision),
        revision,
        changed,
        fields,
        wants,
        asks,
        forecast,
    }
}

/// Returns the fields in which two specs of an app differ.
fn differences(before: &AppSpec, after: &AppSpec) -> Vec<FieldChange> {
    let names: std::collections::BTreeSet<&Name> =
        before.workloads.keys().chain(after.workloads.keys()).collect();
    let mut found = Vec::new();
    for name in names {
        let value = |spec: &AppSpec| spec.workloads.get(name).and_then(|it| serde_json::to_value(it).ok());
        match (value(before), value(after)) {
            (Some(before), Some(after)) => compare(name, "", Some(&before), Some(&after), &mut found),
            (before, after) => {
                let kind = |value: Option<Value>| value.map(|value| value["kind"].to_string());
                let (from, to) = (kind(before), kind(after));
                found.push(FieldChange { workload: name.clone(), field: String::new(), from, to });
            }
        }
    }
    found
}

fn compare(
    workload: &Name,
    path: &str,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<FieldChange>,
) {
    if before == after {
        return;
    }
    if let (Some(Value::Object(one)), Some(Value::Object(other))) = (before, after) {
        let keys: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
        for key in keys {
            let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(workload, &inner, one.get(key), other.get(key), found);
        }
        return;
    }
    // What guests see may be a secret, and plans are kept in logs. Of a signature, nobody wants to see the text.
    let is_hidden = path.starts_with("signed")
        || path.starts_with("environment.")
        || path.starts_with("capabilities.config");
    let shown = |value: &Value| if is_hidden { "(not shown)".to_owned() } else { value.to_string() };
    found.push(FieldChange {
        workload: workload.clone(),
        field: path.to_owned(),
        from: before.map(shown),
        to: after.map(shown),
    });
}

#[cfg(test)]
mod tests {
    use dunlin_model::{Digest, Manifest};

    use super::*;

    fn spec(workloads: &str) -> AppSpec {
        let manifest = Manifest::parse(&format!("app.name = \"shop\"\n{workloads}")).unwrap();
        let workloads = manifest.workloads.iter();
        let workloads = workloads.map(|(name, workload)| (name.clone(), workload.spec(Digest::of(b""))));
        AppSpec { name: manifest.app_name(), workloads: workloads.collect() }
    }

    #[test]
    fn fields_that_differ_are_named_and_no_secret_is_shown() {
        let before = spec(
            "[service.web]\ncomponent = \"w\"\nallocations = 2\nenvironment = { TOKEN = \"one\", OLD = \"x\" }\n[job.old]\ncomponent = \"w\"\n",
        );
        let after = spec(
            "[service.web]\ncomponent = \"w\"\nallocations = 3\nenvironment = { TOKEN = \"two\" }\n[service.web.placement]\nrequire = [\"zone = b\"]\n",
        );
        let told: Vec<String> = differences(&before, &after)
            .into_iter()
            .map(|it| format!("{}.{}: {:?} {:?}", it.workload, it.field, it.from, it.to))
            .collect();
        let hidden = "Some(\"(not shown)\")";
        assert_eq!(
            told,
            [
                "old.: Some(\"\\\"job\\\"\") None".to_owned(),
                "web.allocations: Some(\"2\") Some(\"3\")".to_owned(),
                format!("web.environment.OLD: {hidden} None"),
                format!("web.environment.TOKEN: {hidden} {hidden}"),
                "web.placement: None Some(\"{\\\"require\\\":[\\\"zone = b\\\"]}\")".to_owned(),
            ]
        );
        assert_eq!(differences(&after, &after), []);
    }
}
