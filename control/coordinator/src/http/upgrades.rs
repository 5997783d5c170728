//! Upgrades: agents become another program, ring by ring.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::{JsonRejection, PathRejection};
use axum::extract::{Path, State};
use dunlin_api::{Problem, StartUpgrade, UpgradeNode, UpgradeNodeState, UpgradeState, UpgradeStatus, code};
use dunlin_model::{Digest, LimitHit, MAX_PROGRAM, MAX_SIGNATURE, Object, Program};
use dunlin_scheduler::{Command, NodeRecord, UpgradeRecord, UpgradeState as Stands, View};
use futures_util::StreamExt as _;
use http::StatusCode;

use super::Api;
use super::components::cut_short;
use super::problem::{Refused, internal, not_found};

/// Stores a program, which may be any bytes: nodes look at its signature.
#[utoipa::path(put, path = dunlin_api::paths::PROGRAM, tag = "upgrades",
    params(("digest" = Digest, Path, description = "`sha256:` and 64 hexadecimal digits")),
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 204), (status = 413, body = Problem, content_type = "application/problem+json"),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn put(
    State(api): State<Api>,
    path: Result<Path<Digest>, PathRejection>,
    body: Body,
) -> Result<StatusCode, Refused> {
    let Path(digest) = path?;
    let mut partial = api.programs.begin()?;
    let mut length = 0;
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| cut_short(&error))?;
        length += chunk.len() as u64;
        if length > MAX_PROGRAM.0 {
            let hit = LimitHit::new("program_size", MAX_PROGRAM, format!("more than {MAX_PROGRAM}"));
            return Err(Refused::new(Problem::limit(413, "the program is too large", &hit)));
        }
        // It is a large file, and the disk may be slow.
        let written = tokio::task::spawn_blocking(move || partial.write(&chunk).map(|()| partial));
        partial = written.await.map_err(|error| internal(&error))??;
    }
    let finished = tokio::task::spawn_blocking(move || partial.finish(Some(digest)));
    finished.await.map_err(|error| internal(&error))??;
    Ok(StatusCode::NO_CONTENT)
}

/// Tells whether a program is stored.
#[utoipa::path(head, path = dunlin_api::paths::PROGRAM, tag = "upgrades",
    params(("digest" = Digest, Path)), responses((status = 200), (status = 404)))]
pub(crate) async fn head(
    State(api): State<Api>,
    path: Result<Path<Digest>, PathRejection>,
) -> Result<StatusCode, Refused> {
    let Path(digest) = path?;
    super::components::is_stored(api.programs, digest).await
}

/// Shows how the last upgrade stands.
#[utoipa::path(get, path = dunlin_api::paths::UPGRADE, tag = "upgrades",
    responses((status = 200, body = UpgradeStatus),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn status(State(api): State<Api>) -> Result<Json<UpgradeStatus>, Refused> {
    let view = api.driver.view();
    let record = view.upgrade.as_ref().ok_or_else(|| not_found("upgrade".to_owned()))?;
    Ok(Json(shown(record, &view)))
}

/// Has agents become these programs, ring by ring. Each must be stored, and signed with a key which the config of a node
/// names to be taken there.
#[utoipa::path(post, path = dunlin_api::paths::UPGRADE, tag = "upgrades", request_body = StartUpgrade,
    responses((status = 200, body = UpgradeStatus),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn start(
    State(api): State<Api>,
    body: Result<Json<Object<StartUpgrade>>, JsonRejection>,
) -> Result<Json<UpgradeStatus>, Refused> {
    let Json(Object(StartUpgrade { programs, plan })) = body?;
    for program in programs.values() {
        if program.signature.len() > MAX_SIGNATURE {
            let hit = LimitHit::new("signature_size", MAX_SIGNATURE, program.signature.len());
            return Err(Refused::new(Problem::limit(422, "the signature is too large", &hit)));
        }
    }
    are_here(&api, programs.values()).await?;
    submit(&api, Command::StartUpgrade { programs, plan }).await
}

/// Has no further node told.
#[utoipa::path(post, path = dunlin_api::paths::UPGRADE_STOP, tag = "upgrades",
    responses((status = 200, body = UpgradeStatus),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn stop(State(api): State<Api>) -> Result<Json<UpgradeStatus>, Refused> {
    submit(&api, Command::StopUpgrade).await
}

/// Goes on with an upgrade that was stopped, under another number: nodes that could not become it try again.
#[utoipa::path(post, path = dunlin_api::paths::UPGRADE_RESUME, tag = "upgrades",
    responses((status = 200, body = UpgradeStatus),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn resume(State(api): State<Api>) -> Result<Json<UpgradeStatus>, Refused> {
    if let Some(upgrade) = &api.driver.view().upgrade {
        are_here(&api, upgrade.programs.values()).await?;
    }
    submit(&api, Command::ResumeUpgrade).await
}

/// Has all agents become what they were before the last upgrade.
#[utoipa::path(post, path = dunlin_api::paths::UPGRADE_REVERT, tag = "upgrades",
    responses((status = 200, body = UpgradeStatus),
        (status = 422, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn revert(State(api): State<Api>) -> Result<Json<UpgradeStatus>, Refused> {
    if let Some(upgrade) = &api.driver.view().upgrade {
        are_here(&api, upgrade.former.values()).await?;
    }
    submit(&api, Command::RevertUpgrade).await
}

/// Refuses what wants programs that the coordinator does not have.
async fn are_here(api: &Api, programs: impl Iterator<Item = &Program>) -> Result<(), Refused> {
    for program in programs {
        let (blobs, digest) = (api.programs.clone(), program.digest);
        let found = tokio::task::spawn_blocking(move || blobs.contains(&digest));
        if !found.await.map_err(|error| internal(&error))?? {
            let detail = format!("the coordinator does not have {digest}");
            let problem = Problem::new(422, code::UNKNOWN_PROGRAM, "a program is missing", detail);
            return Err(Refused::new(
                problem.with_hint("upload it: `PUT /v1/programs/{digest}`, or `dunlin upgrade start`"),
            ));
        }
    }
    Ok(())
}

async fn submit(api: &Api, command: Command) -> Result<Json<UpgradeStatus>, Refused> {
    api.driver.submit(command).await?;
    // The answer came after the view with its effect.
    let view = api.driver.view();
    let record = view.upgrade.as_ref().ok_or_else(|| not_found("upgrade".to_owned()))?;
    Ok(Json(shown(record, &view)))
}

fn shown(record: &UpgradeRecord, view: &View) -> UpgradeStatus {
    let (state, reason) = match &record.state {
        Stands::Running => (UpgradeState::Running, None),
        Stands::Stopped { reason } => (UpgradeState::Stopped, Some(reason.clone())),
        Stands::Done => (UpgradeState::Done, None),
    };
    let members = view.nodes.values().map(|node| &node.record).filter(|node| !node.removed && !node.revoked);
    let nodes: Vec<UpgradeNode> = members.map(|node| shown_on(record, node)).collect();
    let done = nodes.iter().filter(|node| node.state == UpgradeNodeState::Done).count();
    UpgradeStatus {
        number: record.number,
        state,
        reason,
        programs: record.programs.iter().map(|(name, program)| (name.clone(), program.digest)).collect(),
        plan: record.plan.clone(),
        ring: u32::try_from(record.ring).unwrap_or(u32::MAX).saturating_add(1),
        started_ms: record.started,
        done: u32::try_from(done).unwrap_or(u32::MAX),
        nodes,
    }
}

fn shown_on(record: &UpgradeRecord, node: &NodeRecord) -> UpgradeNode {
    let report = node.info.as_ref().and_then(|info| info.program.as_ref());
    let failed =
        report.filter(|report| report.tried == record.number).and_then(|report| report.failed.clone());
    let is_told = node.upgrade.is_some_and(|told| told.number == record.number);
    let state = if !record.is_for(node) {
        UpgradeNodeState::Apart
    } else if record.is_done_on(node) {
        UpgradeNodeState::Done
    } else if failed.is_some() {
        UpgradeNodeState::Failed
    } else if is_told {
        UpgradeNodeState::Told
    } else {
        UpgradeNodeState::Waiting
    };
    UpgradeNode {
        node: node.id.clone(),
        state,
        program: report.and_then(|report| report.digest),
        version: node.info.as_ref().map(|info| info.version.clone()).unwrap_or_default(),
        reason: failed,
    }
}
