//! Namespaces: what each may have of the fleet, and what it has.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use dunlin_api::{NamespaceList, NamespaceStatus, Problem};
use dunlin_model::{Name, NamespaceSpec, Object};
use dunlin_scheduler::{Command, NamespaceView, View};

use super::Api;
use super::problem::{Refused, not_found};

/// Lists the namespaces of which an operator has said something, or which have something.
#[utoipa::path(get, path = dunlin_api::paths::NAMESPACES, tag = "namespaces",
    responses((status = 200, body = NamespaceList)))]
pub(crate) async fn list(State(api): State<Api>) -> Json<NamespaceList> {
    let namespaces = known(&api.driver.view()).into_iter().map(|(name, view)| shown(name, &view));
    Json(NamespaceList { namespaces: namespaces.collect() })
}

/// Shows what one namespace may have and has.
#[utoipa::path(get, path = dunlin_api::paths::NAMESPACE, tag = "namespaces", params(("namespace" = Name, Path)),
    responses((status = 200, body = NamespaceStatus),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn status(
    State(api): State<Api>,
    path: Result<Path<Name>, PathRejection>,
) -> Result<Json<NamespaceStatus>, Refused> {
    let Path(namespace) = path?;
    match known(&api.driver.view()).remove(&namespace) {
        Some(view) => Ok(Json(shown(namespace, &view))),
        None => Err(not_found(format!("namespace `{namespace}`"))),
    }
}

/// Lets a namespace have this much. What it has more is not taken away; nothing is added to it.
#[utoipa::path(put, path = dunlin_api::paths::NAMESPACE, tag = "namespaces", params(("namespace" = Name, Path)),
    request_body = NamespaceSpec,
    responses((status = 200, body = NamespaceStatus),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn set(
    State(api): State<Api>,
    path: Result<Path<Name>, PathRejection>,
    body: Result<Json<Object<NamespaceSpec>>, JsonRejection>,
) -> Result<Json<NamespaceStatus>, Refused> {
    let (Path(namespace), Json(Object(spec))) = (path?, body?);
    if let Some(problem) = broken_rules(&spec) {
        return Err(problem.into());
    }
    api.driver.submit(Command::SetNamespace { namespace: namespace.clone(), spec }).await?;
    // The answer came after the view with its effect.
    let view = known(&api.driver.view()).remove(&namespace).unwrap_or_default();
    Ok(Json(shown(namespace, &view)))
}

/// Returns all namespaces that are known; those whose apps have nothing at this moment are among them.
fn known(view: &View) -> BTreeMap<Name, NamespaceView> {
    let mut namespaces = view.namespaces.clone();
    for app in view.apps.keys() {
        namespaces.entry(app.namespace.clone()).or_default();
    }
    namespaces
}

/// Returns all rules that a spec breaks as one problem.
fn broken_rules(spec: &NamespaceSpec) -> Option<Problem> {
    let errors = spec.check();
    let first = errors.first()?;
    let detail = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    let mut problem =
        Problem::new(422, "invalid_namespace", "what the namespace should have breaks the rules", detail);
    if let Some(hit) = errors.iter().find_map(|error| error.hit.as_ref()) {
        problem.limit = Some(hit.limit.clone());
        problem.value = Some(hit.value.clone());
        problem.observed = Some(hit.observed.clone());
    }
    Some(problem.with_hint(format!("mend `{}` and send it again; nothing was changed", first.field)))
}

fn shown(namespace: Name, view: &NamespaceView) -> NamespaceStatus {
    let NamespaceView { spec, usage, open_items } = view.clone();
    NamespaceStatus { namespace, spec, reserved: usage.reserved, allocations: usage.allocations, open_items }
}
