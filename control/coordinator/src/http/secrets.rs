//! Secrets: sealed as soon as they are here, and never told to anybody who asks.

use axum::Json;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use dunlin_api::{Problem, SecretList, SecretStatus, SetSecret, code};
use dunlin_model::{Name, Object, SecretId, SecretName, SecretValueError, SecretVersion};
use dunlin_scheduler::{Command, SecretRecord, View};
use http::StatusCode;

use super::Api;
use super::problem::{Refused, invalid, not_found};
use crate::session::sealed_for;

/// Lists the secrets of a namespace, without their values.
#[utoipa::path(get, path = dunlin_api::paths::SECRETS, tag = "secrets", params(("namespace" = Name, Path)),
    responses((status = 200, body = SecretList)))]
pub(crate) async fn list(
    State(api): State<Api>,
    path: Result<Path<Name>, PathRejection>,
) -> Result<Json<SecretList>, Refused> {
    let Path(namespace) = path?;
    let view = api.driver.view();
    let known = view.secrets.values().filter(|secret| secret.id.namespace == namespace);
    Ok(Json(SecretList { secrets: known.map(|secret| shown(secret, &view)).collect() }))
}

/// Sets a secret. What reads it has the new value the next time it asks.
#[utoipa::path(put, path = dunlin_api::paths::SECRET, tag = "secrets",
    params(("namespace" = Name, Path), ("name" = SecretName, Path)), request_body = SetSecret,
    responses((status = 200, body = SecretStatus),
        (status = 409, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn set(
    State(api): State<Api>,
    path: Result<Path<(Name, SecretName)>, PathRejection>,
    body: Result<Json<Object<SetSecret>>, JsonRejection>,
) -> Result<Json<SecretStatus>, Refused> {
    let Path((namespace, name)) = path?;
    let Json(Object(SetSecret { value })) = body.map_err(|rejection| unreadable(rejection.status()))?;
    value.check().map_err(refused)?;
    let id = SecretId { namespace, name };
    let version = SecretVersion(getrandom::u64().map_err(|error| super::problem::internal(&error))?);
    let sealed = api.sealing.seal(&sealed_for(&id, version), value.expose().as_bytes());
    let command = Command::SetSecret { id: id.clone(), version, sealed: sealed.into() };
    api.driver.submit(command).await?;
    // The answer came after the view with its effect; it may have been set again, or deleted, since.
    let view = api.driver.view();
    let known = view.secrets.get(&id).ok_or_else(|| not_found(format!("secret `{id}`")))?;
    Ok(Json(shown(known, &view)))
}

/// Forgets a secret that nothing reads.
#[utoipa::path(delete, path = dunlin_api::paths::SECRET, tag = "secrets",
    params(("namespace" = Name, Path), ("name" = SecretName, Path)),
    responses((status = 204),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn delete(
    State(api): State<Api>,
    path: Result<Path<(Name, SecretName)>, PathRejection>,
) -> Result<StatusCode, Refused> {
    let Path((namespace, name)) = path?;
    api.driver.submit(Command::DeleteSecret(SecretId { namespace, name })).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn shown(secret: &SecretRecord, view: &View) -> SecretStatus {
    let of_namespace = view.apps.values().filter(|app| app.name.namespace == secret.id.namespace);
    let workloads = of_namespace.flat_map(|app| app.workloads.values());
    let readers = workloads.filter(|workload| workload.spec.capabilities.secrets.contains(&secret.id.name));
    SecretStatus {
        secret: secret.id.clone(),
        version: secret.version,
        created_ms: secret.created,
        updated_ms: secret.updated,
        readers: readers.map(|workload| workload.name.clone()).collect(),
    }
}

/// What the decoder says of a wrong body may have a part of the value in it.
fn unreadable(status: StatusCode) -> Refused {
    let detail = "the body is not JSON of the form {\"value\": \"...\"}, sent as application/json";
    invalid(status, detail.to_owned())
}

fn refused(error: SecretValueError) -> Refused {
    let title = "the value cannot be that of a secret";
    match error {
        SecretValueError::TooLarge(hit) => Refused::new(Problem::limit(422, title, &hit)),
        SecretValueError::Empty | SecretValueError::ZeroByte => {
            let problem = Problem::new(422, code::INVALID_REQUEST, title, error.to_string());
            Refused::new(problem.with_hint("nothing was changed"))
        }
    }
}
