//! Revisions of an app: which there are, the way back to one, and the promotion of canaries.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use dunlin_api::{Deployed, Problem, RevisionList, RevisionState, RevisionStatus, Rollback, RolloutStatus};
use dunlin_model::{Name, Object, Promote, WorkloadKind};
use dunlin_scheduler::{Answer, AppView, Command, Fate, RevisionRecord, RolloutRecord};
use http::StatusCode;

use super::Api;
use super::apps::{AppPath, name};
use super::problem::{Refused, not_found};

/// Lists the revisions of an app that are kept, the newest first.
#[utoipa::path(get, path = dunlin_api::paths::APP_REVISIONS, tag = "apps",
    params(("namespace" = Name, Path), ("app" = Name, Path)),
    responses((status = 200, body = RevisionList),
        (status = 404, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn revisions(State(api): State<Api>, path: AppPath) -> Result<Json<RevisionList>, Refused> {
    let named = name(path?.0);
    let view = api.driver.view();
    let app = view.apps.get(&named).ok_or_else(|| not_found(format!("app `{named}`")))?;
    let earlier = app.revisions.iter().rev().map(|record| earlier(record));
    let revisions = std::iter::once(newest(app)).chain(earlier).collect();
    Ok(Json(RevisionList { app: named, revisions }))
}

/// Makes an earlier revision of an app the newest again, under a new number.
#[utoipa::path(post, path = dunlin_api::paths::APP_ROLLBACK, tag = "apps",
    params(("namespace" = Name, Path), ("app" = Name, Path)), request_body = Option<Rollback>,
    responses((status = 200, body = Deployed),
        (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn rollback(
    State(api): State<Api>,
    path: AppPath,
    body: Result<Option<Json<Option<Object<Rollback>>>>, JsonRejection>,
) -> Result<Json<Deployed>, Refused> {
    let (app, body) = (name(path?.0), body?);
    let Rollback { revision: to } =
        body.and_then(|Json(wish)| wish).map(|Object(wish)| wish).unwrap_or_default();
    match api.driver.submit(Command::Rollback { app, to }).await? {
        Answer::Deployed { revision, changed, wants } => Ok(Json(Deployed { revision, changed, wants })),
        other => unreachable!("the brain answers a rollback with {other:?}"),
    }
}

/// Lets all allocations of an app follow its canaries.
#[utoipa::path(post, path = dunlin_api::paths::APP_PROMOTE, tag = "apps",
    params(("namespace" = Name, Path), ("app" = Name, Path)),
    responses((status = 204), (status = 404, body = Problem, content_type = "application/problem+json"),
        (status = 409, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn promote(State(api): State<Api>, path: AppPath) -> Result<StatusCode, Refused> {
    api.driver.submit(Command::Promote(name(path?.0))).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns how the passage to the newest revision goes, if it does.
pub(super) fn rollout_status(app: &AppView) -> Option<RolloutStatus> {
    let RolloutRecord { from, services, started, promoted, good_since, failed } = app.rollout.clone()?;
    let by_hand = app.workloads.iter().filter(|(name, _)| services.contains(*name)).any(|(_, workload)| {
        let WorkloadKind::Service(service) = &workload.spec.kind else { return false };
        service.rollout.canary.is_some() && service.rollout.promote == Promote::ByHand
    });
    Some(RolloutStatus { from, started, canaries: !promoted, by_hand, good_since, failed })
}

fn newest(app: &AppView) -> RevisionStatus {
    let failed = app.rollout.as_ref().and_then(|rollout| rollout.failed.clone());
    let state = match (&app.rollout, &failed) {
        (None, _) if app.stopped => RevisionState::Stopped,
        (None, _) => RevisionState::Current,
        (Some(_), None) => RevisionState::RollingOut,
        (Some(_), Some(_)) => RevisionState::Failed,
    };
    RevisionStatus {
        revision: app.revision,
        deployed: app.deployed,
        state,
        reason: failed,
        restores: app.restores,
    }
}

fn earlier(record: &RevisionRecord) -> RevisionStatus {
    let (state, reason) = match &record.fate {
        Fate::Completed => (RevisionState::Completed, None),
        Fate::Superseded => (RevisionState::Superseded, None),
        Fate::Stopped => (RevisionState::Stopped, None),
        Fate::Failed { reason } => (RevisionState::Failed, Some(reason.clone())),
    };
    let RevisionRecord { revision, deployed, restores, .. } = record;
    RevisionStatus { revision: *revision, deployed: *deployed, state, reason, restores: *restores }
}
