//! Bytes: components, which must pass admission, and inputs, which may be anything.
//!
//! They are streamed to disk, hashed and bounded on the way; what is too large is refused at its limit, not after.

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use dunlin_admission::{Admitted, Refusal, World, admit_within};
use dunlin_api::{ComponentInfo, Problem, code};
use dunlin_model::{Bytes, Digest, Feature, LimitHit};
use dunlin_store::Components;
use futures_util::StreamExt as _;
use http::StatusCode;

use super::Api;
use super::problem::{Refused, internal};

/// The most bytes of one input, or of one list of inputs.
const MAX_INPUT: Bytes = Bytes(64 << 20);

/// Stores a component. It must be a WebAssembly component that Dunlin can run.
#[utoipa::path(put, path = dunlin_api::paths::COMPONENT, tag = "components",
    params(("digest" = Digest, Path, description = "`sha256:` and 64 hexadecimal digits")),
    request_body(content = Vec<u8>, content_type = "application/wasm"),
    responses((status = 200, body = ComponentInfo),
        (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn put(
    State(api): State<Api>,
    path: Result<Path<Digest>, axum::extract::rejection::PathRejection>,
    body: Body,
) -> Result<Json<ComponentInfo>, Refused> {
    let Path(digest) = path?;
    let bytes = collect(body, api.limits.component_size, "component_size").await?;
    let (components, limits) = (api.components, api.limits);
    // Checking walks all of the component, and storing waits for the disk.
    let checked = tokio::task::spawn_blocking(move || {
        let admitted = admit_within(&bytes, &limits).map_err(|refusal| refused(&refusal))?;
        store(&components, &bytes, digest)?;
        Ok::<Admitted, Refused>(admitted)
    });
    let admitted = checked.await.map_err(|error| internal(&error))??;
    Ok(Json(ComponentInfo {
        digest,
        size: admitted.size,
        worlds: admitted.worlds.iter().map(|world| export(*world, &admitted).to_owned()).collect(),
        features: admitted.features.into_iter().map(|feature| feature.name().to_owned()).collect(),
        imports: admitted.imports,
    }))
}

/// Tells whether a component is stored.
#[utoipa::path(head, path = dunlin_api::paths::COMPONENT, tag = "components",
    params(("digest" = Digest, Path)), responses((status = 200), (status = 404)))]
pub(crate) async fn head(
    State(api): State<Api>,
    path: Result<Path<Digest>, axum::extract::rejection::PathRejection>,
) -> Result<StatusCode, Refused> {
    let Path(digest) = path?;
    is_stored(api.components, digest).await
}

/// Stores an input of a job, or a list of inputs (a JSON array of names and digests).
#[utoipa::path(put, path = dunlin_api::paths::INPUT, tag = "jobs",
    params(("digest" = Digest, Path)), request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn put_input(
    State(api): State<Api>,
    path: Result<Path<Digest>, axum::extract::rejection::PathRejection>,
    body: Body,
) -> Result<StatusCode, Refused> {
    let Path(digest) = path?;
    let bytes = collect(body, MAX_INPUT, "input size").await?;
    let stored = tokio::task::spawn_blocking(move || store(api.inputs.blobs(), &bytes, digest));
    stored.await.map_err(|error| internal(&error))??;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells whether an input is stored.
#[utoipa::path(head, path = dunlin_api::paths::INPUT, tag = "jobs",
    params(("digest" = Digest, Path)), responses((status = 200), (status = 404)))]
pub(crate) async fn head_input(
    State(api): State<Api>,
    path: Result<Path<Digest>, axum::extract::rejection::PathRejection>,
) -> Result<StatusCode, Refused> {
    let Path(digest) = path?;
    is_stored(Arc::clone(api.inputs.blobs()), digest).await
}

pub(crate) async fn is_stored(blobs: Arc<Components>, digest: Digest) -> Result<StatusCode, Refused> {
    let found = tokio::task::spawn_blocking(move || blobs.contains(&digest));
    let found = found.await.map_err(|error| internal(&error))??;
    Ok(if found { StatusCode::OK } else { StatusCode::NOT_FOUND })
}

/// Returns the whole body, or refuses it at the first byte too many.
async fn collect(body: Body, limit: Bytes, name: &str) -> Result<Vec<u8>, Refused> {
    let most = usize::try_from(limit.0).unwrap_or(usize::MAX);
    let mut bytes = Vec::new();
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| cut_short(&error))?;
        if bytes.len() + chunk.len() > most {
            let observed = format!("more than {limit}");
            return Err(Refused::new(Problem::limit(
                413,
                "the upload is too large",
                &LimitHit::new(name, limit, observed),
            )));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Returns what is said to who sends no whole body.
pub(crate) fn cut_short(error: &axum::Error) -> Refused {
    let title = "the upload was cut short; nothing of it was kept";
    Refused::new(Problem::new(400, code::INVALID_REQUEST, title, error.to_string()))
}

pub(crate) fn store(blobs: &Components, bytes: &[u8], digest: Digest) -> Result<(), Refused> {
    let stored = blobs.begin().and_then(|mut partial| {
        partial.write(bytes)?;
        partial.finish(Some(digest))
    });
    Ok(stored.map(drop)?)
}

/// Returns what a component exports to be run in this way.
fn export(world: World, admitted: &Admitted) -> &'static str {
    match world {
        World::Service if admitted.needs(Feature::Wasi03) => "wasi:http/handler",
        World::Service => "wasi:http/incoming-handler",
        World::Command => "wasi:cli/run",
    }
}

fn refused(refusal: &Refusal) -> Refused {
    let status = match refusal {
        Refusal::TooLarge(_) => 413,
        Refusal::NotChecked { .. } => 503,
        _ => 422,
    };
    let mut problem = Problem::new(status, refusal.code(), "the component was refused", refusal.to_string());
    if let Refusal::TooLarge(hit) | Refusal::TooComplex(hit) = refusal {
        problem.limit = Some(hit.limit.clone());
        problem.value = Some(hit.value.clone());
        problem.observed = Some(hit.observed.clone());
    }
    Refused::new(problem)
}
