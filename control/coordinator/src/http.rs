//! The public HTTP API: HTTPS and JSON, described by an OpenAPI document made from this code.
//!
//! Questions read the driver's last view; wishes go through the driver and are answered once they are durable.
//! The serving loop is our own, since it needs limits which a plain one does not set: connections, header time, TLS
//! handshake time.

mod apps;
mod backups;
mod components;
mod document;
mod explanations;
mod forecasts;
mod identity;
mod jobs;
mod logs;
mod namespaces;
mod nodes;
pub(crate) mod problem;
mod rollouts;
mod secrets;
mod tokens;
mod traps;
mod upgrades;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use dunlin_api::{Problem, code, paths};
use dunlin_model::{ClusterId, ComponentLimits, Term};
use dunlin_sealed::SealingKey;
use dunlin_store::{Changes, Components};
use dunlin_transport::Relay;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api_tls::ApiTls;
use crate::backup::Source;
use crate::clock::Clock;
use crate::driver::Driver;
use crate::fleet::Fleet;
use crate::inputs::Inputs;
use crate::session::Desk;
use identity::BearerToken;
use problem::{Refused, not_in_charge};

/// The most bytes of a request body, components and inputs excepted (N1).
const MAX_BODY: usize = 1 << 20;
/// How many connections there may be (N3).
const MAX_CONNECTIONS: usize = 1024;
/// How many questions of what would come of something are worked on at a time; who comes later is told to try again.
const MAX_FORECASTS: usize = 2;
/// How long a client may take for its headers, and for the TLS handshake (N2).
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How often a client of HTTP/2 is asked whether it is there.
const KEEP_ALIVE: Duration = Duration::from_secs(20);
/// How long it may take to say so.
const KEEP_ALIVE_TIME: Duration = Duration::from_secs(10);

/// What the handlers work with.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) cluster: ClusterId,
    pub(crate) term: Term,
    pub(crate) clock: Clock,
    pub(crate) driver: Driver,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) store: Arc<dyn Changes>,
    pub(crate) components: Arc<Components>,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) programs: Arc<Components>,
    /// Where others reach this API, where there may be several coordinators.
    pub(crate) in_charge: Option<String>,
    /// How large and how intricate a component may be.
    pub(crate) limits: ComponentLimits,
    /// Of what backups are taken.
    pub(crate) backup: Source,
    /// Who may take one now.
    pub(crate) backups: Arc<Semaphore>,
    /// Who may look ahead now: it takes a copy of the whole brain.
    pub(crate) forecasts: Arc<Semaphore>,
    /// Seals secrets.
    pub(crate) sealing: SealingKey,
    /// SHA-256 of the administrator's token.
    pub(crate) admin_hash: [u8; 32],
    /// SHA-256 of the authority's public key, for join tokens.
    pub(crate) authority_hash: [u8; 32],
}

impl Api {
    /// Returns what the handlers work with: mostly what sessions do.
    pub(crate) fn new(
        desk: &Desk,
        backup: Source,
        clock: Clock,
        admin_hash: [u8; 32],
        authority_hash: [u8; 32],
    ) -> Self {
        Self {
            cluster: desk.cluster.clone(),
            term: desk.term,
            clock,
            driver: desk.driver.clone(),
            fleet: Arc::clone(&desk.fleet),
            relay: Arc::clone(&desk.relay),
            store: Arc::clone(&desk.store),
            components: Arc::clone(&desk.components),
            inputs: Arc::clone(&desk.inputs),
            programs: Arc::clone(&desk.programs),
            in_charge: None,
            limits: ComponentLimits::default(),
            backup,
            backups: Arc::new(Semaphore::new(1)),
            forecasts: Arc::new(Semaphore::new(MAX_FORECASTS)),
            sealing: desk.sealing.clone(),
            admin_hash,
            authority_hash,
        }
    }

    /// Returns the same with these limits on components.
    pub(crate) fn within(self, limits: ComponentLimits) -> Self {
        Self { limits, ..self }
    }

    /// Returns the same that says of itself that it is in charge.
    pub(crate) fn in_charge(self, address: Option<String>) -> Self {
        Self { in_charge: address, ..self }
    }
}

#[derive(utoipa::OpenApi)]
#[openapi(
    info(title = "Dunlin", description = "The HTTP API of a Dunlin coordinator.", license(name = "Apache-2.0")),
    modifiers(&BearerToken),
    security(("token" = []))
)]
struct Description;

fn described() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(apps::list))
        .routes(routes!(apps::deploy, apps::status, apps::delete))
        .routes(routes!(apps::stop))
        .routes(routes!(rollouts::revisions))
        .routes(routes!(rollouts::rollback))
        .routes(routes!(rollouts::promote))
        .routes(routes!(forecasts::plan))
        .routes(routes!(forecasts::simulate))
        .routes(routes!(forecasts::snapshot))
        .routes(routes!(explanations::workload))
        .routes(routes!(explanations::allocation))
        .routes(routes!(jobs::start))
        .routes(routes!(jobs::list))
        .routes(routes!(jobs::status))
        .routes(routes!(jobs::items))
        .routes(routes!(jobs::cancel))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::cordon))
        .routes(routes!(nodes::uncordon))
        .routes(routes!(nodes::revoke))
        .routes(routes!(nodes::approve))
        .routes(routes!(nodes::remove))
        .routes(routes!(nodes::release_brake))
        .routes(routes!(nodes::fleet))
        .routes(routes!(namespaces::list))
        .routes(routes!(namespaces::set, namespaces::status))
        .routes(routes!(secrets::list))
        .routes(routes!(secrets::set, secrets::delete))
        .routes(routes!(upgrades::status, upgrades::start))
        .routes(routes!(upgrades::stop))
        .routes(routes!(upgrades::resume))
        .routes(routes!(upgrades::revert))
        .routes(routes!(tokens::create))
        .routes(routes!(backups::take))
        .routes(routes!(nodes::recover))
        .routes(routes!(logs::stream))
        .routes(routes!(traps::list))
        .routes(routes!(traps::coredump))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        // These have limits of their own, checked while streaming.
        .merge(
            OpenApiRouter::new()
                .routes(routes!(components::put, components::head))
                .routes(routes!(components::put_input, components::head_input))
                .routes(routes!(upgrades::put, upgrades::head))
                .layer(DefaultBodyLimit::disable()),
        )
}

/// Returns the OpenAPI document as JSON.
pub(crate) fn openapi() -> String {
    let (_, document) = described().split_for_parts();
    let mut document = serde_json::to_value(document).expect("the document has only string keys");
    document::complete(&mut document);
    format!("{document:#}")
}

/// Returns all routes of the API.
pub(crate) fn router(api: Api) -> Router {
    let document: Arc<str> = openapi().into();
    let (described, _) = described().split_for_parts();
    let open = Router::new().route(paths::HEALTH, get(|| async { "ok\n" })).route(
        paths::OPENAPI,
        get(move || {
            let body = document.to_string();
            async move { ([(http::header::CONTENT_TYPE, "application/json")], body).into_response() }
        }),
    );
    described
        .route_layer(axum::middleware::from_fn_with_state(api.clone(), identity::require))
        .route_layer(axum::middleware::from_fn_with_state(api.clone(), while_in_charge))
        .fallback(|| async {
            Refused::new(Problem::new(
                404,
                code::NOT_FOUND,
                "there is nothing here",
                "no path of the API matches",
            ))
        })
        .method_not_allowed_fallback(|| async {
            let detail = "the path exists, but not with this method";
            Refused::new(Problem::new(405, code::METHOD_NOT_ALLOWED, "the method is not allowed", detail))
        })
        .with_state(api)
        .merge(open)
}

/// Answers only as long as no other coordinator can be in charge: one that was paused would tell what was, and does not
/// know what others have acknowledged since. What a wish came to is for the driver to say, which looks as well.
async fn while_in_charge(State(api): State<Api>, request: Request, next: Next) -> Response {
    let over = || not_in_charge("the time in which this coordinator was in charge is over").into_response();
    if !api.store.is_in_charge() {
        return over();
    }
    let is_safe = request.method().is_safe();
    let answer = next.run(request).await;
    if is_safe && !api.store.is_in_charge() { over() } else { answer }
}

/// Returns how one connection is served. The version was agreed on with TLS; were it read off the first bytes, a
/// client that sends none would be waited for without limit.
fn server(is_http2: bool) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(64 << 10);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(64)
        .max_header_list_size(64 << 10)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIME);
    if is_http2 { server.http2_only() } else { server.http1_only() }
}

/// Serves `router` on `listener`. Survives every error of a connection; ends when `stop` does, after what is in
/// flight is answered.
pub(crate) async fn serve(
    listener: Arc<TcpListener>,
    tls: ApiTls,
    router: Router,
    stop: tokio_util::sync::CancellationToken,
) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tracker = tokio_util::task::TaskTracker::new();
    loop {
        let room = Arc::clone(&connections).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => {
                // An answer is written in pieces; held back for more it would wait for the client's delayed word.
                // If this fails the connection is about to fail, and says so itself.
                let _ = stream.set_nodelay(true);
                stream
            }
            Err(error) => {
                // Out of descriptors, or a client that went away: wait for a moment, go on.
                tracing::warn!(%error, "api connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (tls, router, stop) = (tls.acceptor(), router.clone(), stop.clone());
        tracker.spawn(async move {
            let _room = room;
            let Ok(Ok(stream)) = tokio::time::timeout(HEADER_TIME, tls.accept(stream)).await else { return };
            let service = TowerToHyperService::new(router.map_request(|request: http::Request<_>| request));
            let server = server(stream.get_ref().1.alpn_protocol() == Some(b"h2"));
            let connection = server.serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "api connection ended");
                    }
                }
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _late = tokio::time::timeout(Duration::from_secs(2), connection).await;
                }
            }
        });
    }
    tracker.close();
    let _late = tokio::time::timeout(Duration::from_secs(3), tracker.wait()).await;
}
