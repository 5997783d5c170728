//! Who asks: a bearer token, compared by hash and in constant time.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use dunlin_api::{Problem, code};
use http::HeaderValue;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};

use super::Api;
use super::problem::Refused;

/// Lets pass who has the token. One answer for all others, so that it tells nothing.
pub(crate) async fn require(State(api): State<Api>, request: Request, next: Next) -> Response {
    if is_known(&api, &request) {
        return next.run(request).await;
    }
    let detail = "the request has no valid bearer token";
    let problem = Problem::new(401, code::UNAUTHORIZED, "who asks is not known", detail).with_hint(
        "the token is in `admin.token` in the coordinator's state folder: `--token-file FILE`, or the header `Authorization: Bearer TOKEN`",
    );
    let mut response = Refused::new(problem).into_response();
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

fn is_known(api: &Api, request: &Request) -> bool {
    let mut values = request.headers().get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Some(token) = value.as_bytes().strip_prefix(b"Bearer ") else { return false };
    let hash: [u8; 32] = Sha256::digest(token).into();
    hash.ct_eq(&api.admin_hash).into()
}

/// Adds the token to the OpenAPI document.
pub(crate) struct BearerToken;

impl utoipa::Modify for BearerToken {
    fn modify(&self, document: &mut OpenApi) {
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    }
}
