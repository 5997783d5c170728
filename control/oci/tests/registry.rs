//! A registry that plays by the rules, and registries that do not: what is taken from them, and what is told to whom.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use dunlin_model::Digest;
use dunlin_oci::{Artifact, Credentials, Login, Reference, Registry, RegistryError, Trust};
use http::{Method, StatusCode, header};

const WASM: &[u8] = b"\0asm\x0d\0\x01\0";

/// What a registry does that it should not.
#[derive(Clone, Debug, Default)]
struct Vice {
    /// Other bytes than those that were asked for, of the same length.
    other_bytes: bool,
    /// More bytes than the manifest says, without a length.
    more_bytes: bool,
    /// A manifest that never ends.
    endless_manifest: bool,
    /// Blobs are at this place.
    blobs_at: Option<String>,
    /// Bytes are to be brought to this place.
    uploads_at: Option<String>,
    /// What is brought is sent on to this place.
    sends_on_to: Option<String>,
    /// Tokens are had here; without it nobody has to say who asks.
    realm: Option<String>,
}

/// The path of a request, and its header `authorization`.
type Asked = (String, Option<String>);

#[derive(Clone, Default)]
struct Kept {
    vice: Vice,
    blobs: Arc<Mutex<BTreeMap<String, Bytes>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Kept {
    fn authorizations(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

/// Starts a registry and returns where it is.
async fn start(kept: &Kept) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(kept.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

async fn answer(State(kept): State<Kept>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
    let authorization =
        head.headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let path = head.uri.path().to_owned();
    kept.asked.lock().unwrap().push((path.clone(), authorization.clone()));
    if path == "/token" {
        return r#"{"token":"t0"}"#.into_response();
    }
    if let (Some(realm), None) = (&kept.vice.realm, &authorization) {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"here\"");
        return (StatusCode::UNAUTHORIZED, [(header::WWW_AUTHENTICATE, challenge)]).into_response();
    }
    let name = path.rsplit('/').next().unwrap().to_owned();
    match head.method {
        Method::POST => {
            let place = kept
                .vice
                .uploads_at
                .clone()
                .unwrap_or_else(|| "/v2/team/hello/blobs/uploads/1?state=x".to_owned());
            (StatusCode::ACCEPTED, [(header::LOCATION, place)]).into_response()
        }
        Method::PUT if kept.vice.sends_on_to.is_some() => {
            let place = kept.vice.sends_on_to.clone().unwrap_or_default();
            (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place)]).into_response()
        }
        Method::PUT => {
            let query = head.uri.query().unwrap_or_default();
            let digest = query
                .split('&')
                .find_map(|pair| pair.strip_prefix("digest="))
                .map(|it| it.replace("%3A", ":"));
            kept.blobs.lock().unwrap().insert(digest.unwrap_or(name), body);
            StatusCode::CREATED.into_response()
        }
        _ => given(&kept, &path, &name),
    }
}

fn given(kept: &Kept, path: &str, name: &str) -> Response {
    let is_blob = path.contains("/blobs/");
    if let (true, Some(place)) = (is_blob, &kept.vice.blobs_at) {
        return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place.clone())]).into_response();
    }
    if !is_blob && kept.vice.endless_manifest {
        let chunks = std::iter::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65_536])));
        return Body::from_stream(futures_util::stream::iter(chunks)).into_response();
    }
    let found = kept.blobs.lock().unwrap().get(name).cloned();
    let Some(bytes) = found else { return StatusCode::NOT_FOUND.into_response() };
    match (is_blob, kept.vice.other_bytes, kept.vice.more_bytes) {
        (true, true, _) => vec![b'x'; bytes.len()].into_response(),
        (true, _, true) => {
            let more = [bytes, Bytes::from_static(&[0; 65_536])].map(Ok::<_, std::io::Error>);
            Body::from_stream(futures_util::stream::iter(more)).into_response()
        }
        _ => bytes.into_response(),
    }
}

fn hello() -> Artifact {
    Artifact::component(Bytes::from_static(WASM), &[], &["wasi:cli/run@0.2.6".to_owned()])
}

fn place(address: SocketAddr) -> Reference {
    format!("{address}/team/hello:1.0").parse().unwrap()
}

fn somebody() -> Login {
    Login::Known(Credentials { user: "ann".to_owned(), password: "secret".to_owned() })
}

/// Has an honest registry keep an artifact, then be what `vice` says, and returns what comes of a pull, and the registry.
async fn pulled(vice: Vice) -> (Result<(Artifact, Digest), RegistryError>, Kept) {
    let mut kept = Kept::default();
    let honest = start(&kept).await;
    Registry::of(&place(honest), Login::Nobody, Trust::default()).unwrap().push(&hello()).await.unwrap();
    kept.vice = vice;
    kept.asked = Arc::default();
    let address = start(&kept).await;
    (Registry::of(&place(address), somebody(), Trust::default()).unwrap().pull(1 << 20).await, kept)
}

#[tokio::test]
async fn what_was_pushed_is_pulled_by_tag_and_by_digest() {
    let kept = Kept::default();
    let place = place(start(&kept).await);
    let digest = Registry::of(&place, Login::Nobody, Trust::default()).unwrap().push(&hello()).await.unwrap();
    let registry = Registry::of(&place, Login::Nobody, Trust::default()).unwrap();
    let (artifact, found) = registry.pull(1 << 20).await.unwrap();
    assert_eq!((artifact, found), (hello(), digest));
    // What is there is not sent again.
    let before = kept.authorizations().len();
    assert_eq!(registry.push(&hello()).await.unwrap(), digest);
    assert_eq!(kept.authorizations().len() - before, 3);
    let other = place.pinned(Digest::of(b"other"));
    let error =
        Registry::of(&other, Login::Nobody, Trust::default()).unwrap().pull(1 << 20).await.unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error}");
    let error = registry.pull(7).await.unwrap_err();
    assert!(matches!(error, RegistryError::TooLarge { limit: 7, .. }), "{error}");
}

#[tokio::test]
async fn a_tag_that_is_served_for_a_digest_is_refused() {
    let kept = Kept::default();
    let address = start(&kept).await;
    let place = place(address);
    Registry::of(&place, Login::Nobody, Trust::default()).unwrap().push(&hello()).await.unwrap();
    let other = Digest::of(b"other");
    let manifest = kept.blobs.lock().unwrap()["1.0"].clone();
    kept.blobs.lock().unwrap().insert(other.to_string(), manifest);
    let error = Registry::of(&place.pinned(other), Login::Nobody, Trust::default())
        .unwrap()
        .pull(1 << 20)
        .await
        .unwrap_err();
    assert!(matches!(error, RegistryError::OtherBytes { expected, .. } if expected == other), "{error}");
}

#[tokio::test]
async fn bytes_are_bounded_and_compared_before_they_are_used() {
    let (result, _) = pulled(Vice { other_bytes: true, ..Vice::default() }).await;
    assert!(matches!(result, Err(RegistryError::OtherBytes { .. })), "{result:?}");
    let (result, _) = pulled(Vice { more_bytes: true, ..Vice::default() }).await;
    assert!(matches!(result, Err(RegistryError::TooLarge { .. })), "{result:?}");
    let (result, _) = pulled(Vice { endless_manifest: true, ..Vice::default() }).await;
    assert!(matches!(result, Err(RegistryError::TooLarge { limit: 4_194_304, .. })), "{result:?}");
}

#[tokio::test]
async fn a_password_is_told_to_the_registry_and_who_gives_its_tokens() {
    let tokens = Kept::default();
    let realm = format!("http://{}/token", start(&tokens).await);
    let (result, kept) = pulled(Vice { realm: Some(realm), ..Vice::default() }).await;
    assert_eq!(result.unwrap().0, hello());
    let told = tokens.authorizations();
    assert!(
        matches!(&told[..], [(path, Some(basic))] if path == "/token" && basic.starts_with("Basic ")),
        "{told:?}"
    );
    let after: Vec<_> = kept.authorizations().into_iter().skip(1).map(|(_, told)| told).collect();
    assert!(after.iter().all(|told| told.as_deref() == Some("Bearer t0")), "{after:?}");
}

#[tokio::test]
async fn a_realm_elsewhere_is_not_asked() {
    let stranger = Kept::default();
    let address = start(&stranger).await;
    // The same machine by another name is another host.
    let realm = format!("http://localhost:{}/token", address.port());
    let (result, _) = pulled(Vice { realm: Some(realm), ..Vice::default() }).await;
    assert!(matches!(result, Err(RegistryError::ForeignRealm { .. })), "{result:?}");
    assert!(stranger.authorizations().is_empty());
}

#[tokio::test]
async fn what_opens_the_door_stays_with_the_registry() {
    let stranger = Kept::default();
    stranger.blobs.lock().unwrap().insert("x".to_owned(), hello().config.bytes);
    let address = start(&stranger).await;
    let tokens = Kept::default();
    let realm = format!("http://{}/token", start(&tokens).await);
    let blobs_at = Some(format!("http://localhost:{}/blobs/x", address.port()));
    let (result, _) = pulled(Vice { realm: Some(realm), blobs_at, ..Vice::default() }).await;
    // The config has come from there; the layer cannot, as other bytes are there.
    assert!(
        matches!(result, Err(RegistryError::OtherBytes { .. } | RegistryError::TooLarge { .. })),
        "{result:?}"
    );
    let told = stranger.authorizations();
    assert!(!told.is_empty() && told.iter().all(|(_, told)| told.is_none()), "{told:?}");
}

#[tokio::test]
async fn bytes_are_brought_to_nobody_else() {
    let stranger = Kept::default();
    let there = format!("http://{}/v2/team/hello/blobs/uploads/1", start(&stranger).await);
    let kept = Kept { vice: Vice { uploads_at: Some(there), ..Vice::default() }, ..Kept::default() };
    let place = place(start(&kept).await);
    let error =
        Registry::of(&place, Login::Nobody, Trust::default()).unwrap().push(&hello()).await.unwrap_err();
    assert!(matches!(error, RegistryError::OtherKind { .. }), "{error}");
    assert!(stranger.authorizations().is_empty());
    let there = format!("http://{}/v2/team/hello/blobs/uploads/1", start(&stranger).await);
    let kept = Kept { vice: Vice { sends_on_to: Some(there), ..Vice::default() }, ..Kept::default() };
    let place = self::place(start(&kept).await);
    let error =
        Registry::of(&place, Login::Nobody, Trust::default()).unwrap().push(&hello()).await.unwrap_err();
    assert!(
        matches!(error, RegistryError::Refused { status: StatusCode::TEMPORARY_REDIRECT, .. }),
        "{error}"
    );
    assert!(stranger.authorizations().is_empty());
}

#[tokio::test]
async fn a_registry_whose_tokens_cannot_be_had_is_not_reached() {
    let kept = Kept {
        vice: Vice { realm: Some("http://127.0.0.1:1/token".to_owned()), ..Vice::default() },
        ..Kept::default()
    };
    let address = start(&kept).await;
    let error =
        Registry::of(&place(address), Login::Nobody, Trust::default()).unwrap().pull(1).await.unwrap_err();
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
}
