//! Join tokens: made here, shown once, kept only as the hash of their secret.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use dunlin_api::{CreateJoinToken, JoinTokenCreated, Problem};
use dunlin_model::{DurationMs, LimitHit, Object};
use dunlin_scheduler::{Command, TokenRecord};
use dunlin_transport::JoinToken;

use super::Api;
use super::problem::Refused;

/// How long a token may be used if nobody says otherwise.
const DEFAULT_LIFETIME: DurationMs = DurationMs(3_600_000);
/// How long a token may be used at most.
const MAX_LIFETIME: DurationMs = DurationMs(24 * 3_600_000);
/// How many nodes may join with one token at most.
const MAX_USES: u32 = 1000;

/// Creates a token with which a node joins.
#[utoipa::path(post, path = dunlin_api::paths::JOIN_TOKENS, tag = "nodes", request_body = CreateJoinToken,
    responses((status = 200, body = JoinTokenCreated),
        (status = 422, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn create(
    State(api): State<Api>,
    body: Result<Json<Object<CreateJoinToken>>, JsonRejection>,
) -> Result<Json<JoinTokenCreated>, Refused> {
    let Json(Object(wish)) = body?;
    let lifetime = wish.lifetime_ms.unwrap_or(DEFAULT_LIFETIME);
    let uses = wish.uses.unwrap_or(1);
    if lifetime > MAX_LIFETIME || lifetime.0 == 0 {
        let hit = LimitHit::new("token lifetime", MAX_LIFETIME, lifetime);
        return Err(Refused::new(Problem::limit(422, "the token was refused", &hit)));
    }
    if uses > MAX_USES || uses == 0 {
        return Err(Refused::new(Problem::limit(
            422,
            "the token was refused",
            &LimitHit::new("token uses", MAX_USES, uses),
        )));
    }
    let token = JoinToken::create(api.authority_hash);
    let created = api.clock.now();
    let expires = created.plus(lifetime);
    let record = TokenRecord {
        id: token.id().to_owned(),
        secret_hash: token.secret_hash(),
        created,
        expires,
        uses_left: uses,
        used_by: Vec::new(),
        approval: wish.approval,
    };
    api.driver.submit(Command::CreateToken(record)).await?;
    Ok(Json(JoinTokenCreated { token: token.to_string(), expires_ms: expires }))
}
