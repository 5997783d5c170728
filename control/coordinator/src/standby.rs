//! A coordinator that is not in charge: it keeps its copy of the state up to date, passes on what it is asked, and takes
//! over when nobody is in charge.
//!
//! Agents are told to look elsewhere; they dial all coordinators, and stay with the one that is in charge.
//!
//! Not here: what it does when it is in charge (`process`).

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use dunlin_api::{Problem, Relay, Relayed, code, paths};
use dunlin_model::ClusterId;
use dunlin_protocol::{JoinReply, RefusalCode, StreamRequest, ToAgent};
use dunlin_store::{Etcd, EtcdLocation, FollowError, Reign};
use dunlin_transport::{Authority, CloseCode, Connection, Incoming, serve_join};
use futures_util::TryStreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Config;
use crate::backup::ADMIN_TOKEN;
use crate::http;
use crate::http::problem::{Refused, not_in_charge};
use crate::process::{Doors, blocking, new_authority, new_token, private_folder, write_private};

/// How often it looks who is in charge.
const LOOK: Duration = Duration::from_millis(400);
/// How many requests are passed on at a time; who comes later is told to ask elsewhere.
const MAX_PASSED: usize = 256;
/// How many agents and newcomers are told at once that they are wrong here.
const MAX_TOLD: usize = 256;
/// How long one of them may take to hear it.
const TELL_TIME: Duration = Duration::from_secs(3);
/// What agents and newcomers are told.
const NOT_IN_CHARGE: &str = "another coordinator of this fleet is in charge, or none is at the moment";

/// What all coordinators of a fleet have in common beside its state.
#[derive(Serialize, Deserialize)]
pub(crate) struct FleetSecrets {
    authority_pem: String,
    admin_token: String,
}

/// What the one in charge says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Leader {
    /// Where the others reach its API, as `host:port`.
    api: String,
}

/// With what a coordinator takes over.
pub(crate) struct Turn {
    pub(crate) etcd: Arc<Etcd>,
    pub(crate) reign: Arc<Reign>,
    pub(crate) doors: Doors,
    pub(crate) authority: Arc<Authority>,
}

/// Follows until it is this coordinator's turn; returns nothing if it is told to stop before.
pub(crate) async fn wait(
    config: &Config,
    location: EtcdLocation,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Turn>> {
    let state = config.state.clone();
    private_folder(&state).with_context(|| format!("could not make the state folder {}", state.display()))?;
    let opened = blocking(move || Etcd::open(location, &state.join("copy"))).await?;
    let etcd = Arc::new(opened.context("could not open the coordinator's store in etcd")?);
    // Who has been one of the fleet's coordinators answers at once, also while etcd is away.
    let authority = match known_authority(&config.state)? {
        Some(authority) => authority,
        None => tokio::select! {
            authority = shared_authority(&etcd, &config.state) => authority?,
            () = stop.cancelled() => return Ok(None),
        },
    };
    let authority = Arc::new(authority);
    let heartbeat = Duration::from(config.profile.patience().heartbeat);
    let doors = Doors::open(config, &authority, heartbeat).await?;
    let cluster = authority.cluster().clone();
    let ready = doors.ready(&cluster)?;
    let me = Leader { api: ready.advertised(config) };
    let (leader, seen) = watch::channel(None);
    // What stands at the doors ends when it is this one's turn, and the doors stay open.
    let aside = stop.child_token();
    let relay =
        Relay::new(&authority.certificate_pem()).context("could not set up what passes requests on")?;
    let room = Arc::new(Semaphore::new(MAX_PASSED));
    let router = router(Passing { relay, leader: seen, room });
    let passing = tokio::spawn(http::serve(doors.listener.clone(), doors.tls.clone(), router, aside.clone()));
    let telling = tokio::spawn(turn_away(doors.server.clone(), aside.clone()));
    ready.write(&config.state)?;
    tracing::info!(%cluster, fleet = %ready.fleet, api = %ready.api, "coordinator ready; it follows");
    let following = async {
        // Whether etcd holds this fleet.
        shared_authority(&etcd, &config.state).await?;
        follow(&etcd, &me, &leader).await.map(Some)
    };
    let reign = tokio::select! {
        reign = following => reign,
        () = stop.cancelled() => Ok(None),
    };
    // Not waited for: what is passed on goes on beside what this one does now.
    aside.cancel();
    drop((passing, telling));
    Ok(reign?.map(|reign| Turn { etcd, reign, doors, authority }))
}

/// Follows until it is in charge.
async fn follow(
    etcd: &Arc<Etcd>,
    me: &Leader,
    leader: &watch::Sender<Option<Leader>>,
) -> anyhow::Result<Arc<Reign>> {
    let own = serde_json::to_vec(me)?;
    let mut is_reached = true;
    loop {
        let (looking, own) = (Arc::clone(etcd), own.clone());
        let looked = blocking(move || -> Result<_, FollowError> {
            let seen = looking.follow()?;
            let reign = if seen.leader.is_none() { looking.campaign(&own)? } else { None };
            Ok((seen.leader, reign))
        });
        match looked.await? {
            Ok((_, Some(reign))) => return Ok(reign),
            Ok((found, None)) => {
                let found = found.and_then(|found| serde_json::from_slice(&found).ok());
                leader.send_if_modified(|known| {
                    let is_new = *known != found;
                    if is_new {
                        tracing::info!(leader = ?found, "who is in charge has changed");
                        *known = found;
                    }
                    is_new
                });
                is_reached = true;
            }
            Err(FollowError::Etcd(error)) => {
                if std::mem::take(&mut is_reached) {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "etcd does not answer; will retry");
                }
                leader.send_if_modified(|known| known.take().is_some());
            }
            Err(error) => return Err(error).context("could not follow the coordinator in charge"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Returns the fleet's authority as the state folder holds it, if this was one of the fleet's coordinators before.
fn known_authority(state: &Path) -> anyhow::Result<Option<Authority>> {
    if !state.join(Authority::FILE).exists() || !state.join(ADMIN_TOKEN).exists() {
        return Ok(None);
    }
    let known = Authority::load(state).context("could not open the authority in the state folder")?;
    Ok(Some(known))
}

/// Returns the fleet's authority, which etcd holds; the first coordinator makes it. What etcd holds is put into the state
/// folder as well, as the other commands expect it there.
async fn shared_authority(etcd: &Arc<Etcd>, state: &Path) -> anyhow::Result<Authority> {
    let mut is_reached = true;
    let secrets = loop {
        let (asking, folder) = (Arc::clone(etcd), state.to_owned());
        let asked = blocking(move || -> anyhow::Result<_> {
            // Before anything is put down: an etcd that was emptied is no new fleet.
            asking.follow()?;
            let own = FleetSecrets::of(&folder)?.to_json()?;
            Ok(asking.fleet(own)?)
        });
        match asked.await? {
            Ok(secrets) => break secrets,
            Err(error) if !is_transient(&error) => {
                return Err(error).context("could not open the fleet's state in etcd");
            }
            Err(error) => {
                if std::mem::take(&mut is_reached) {
                    tracing::warn!(
                        error = &*error as &dyn std::error::Error,
                        "etcd does not answer; will retry"
                    );
                }
            }
        }
        tokio::time::sleep(LOOK).await;
    };
    FleetSecrets::from_json(&secrets)?.save(state)
}

fn is_transient(error: &anyhow::Error) -> bool {
    use dunlin_store::EtcdError;
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(EtcdError::Unreachable { .. })))
}

/// Refuses a state folder of another fleet: its files would be overwritten.
fn check_folder(state: &Path, cluster: &ClusterId) -> anyhow::Result<()> {
    let Some(own) = known_authority(state)? else { return Ok(()) };
    anyhow::ensure!(
        own.cluster() == cluster,
        "the state folder {} is of fleet {}, and etcd holds fleet {cluster}; give another --state, or another prefix",
        state.display(),
        own.cluster()
    );
    Ok(())
}

impl FleetSecrets {
    /// Returns those of a state folder that has them.
    pub(crate) fn kept(state: &Path) -> anyhow::Result<Self> {
        let authority = known_authority(state)?;
        anyhow::ensure!(authority.is_some(), "{} holds no fleet's authority and token", state.display());
        Self::of(state)
    }

    pub(crate) fn to_json(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    pub(crate) fn from_json(json: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(json).context("the fleet's record in etcd is damaged")
    }

    /// Puts them into a state folder that has none, or the same; returns the authority.
    pub(crate) fn save(&self, state: &Path) -> anyhow::Result<Authority> {
        let authority =
            Authority::from_pem(&self.authority_pem).context("the fleet's authority in etcd is damaged")?;
        check_folder(state, authority.cluster())?;
        authority.save(state).context("could not save the fleet's authority")?;
        write_private(&state.join(ADMIN_TOKEN), self.admin_token.as_bytes())
            .context("could not save the administrator's token")?;
        write_private(&state.join("ca.pem"), authority.certificate_pem().as_bytes())
            .context("could not write the authority's certificate")?;
        Ok(authority)
    }

    /// Returns those of the state folder, or new ones; nothing is written.
    fn of(state: &Path) -> anyhow::Result<Self> {
        let authority = match known_authority(state)? {
            Some(authority) => authority,
            None => new_authority(SystemTime::now())?,
        };
        let token = state.join(ADMIN_TOKEN);
        let admin_token = match std::fs::read_to_string(&token) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => new_token()?,
            Err(error) => return Err(error).with_context(|| format!("could not read {}", token.display())),
        };
        Ok(Self { authority_pem: authority.to_pem(), admin_token })
    }
}

/// What the handlers of a coordinator that is not in charge work with.
#[derive(Clone)]
struct Passing {
    relay: Relay,
    leader: watch::Receiver<Option<Leader>>,
    /// Who is passed on now.
    room: Arc<Semaphore>,
}

fn router(passing: Passing) -> Router {
    Router::new().route(paths::HEALTH, get(|| async { "ok\n" })).fallback(pass_on).with_state(passing)
}

async fn pass_on(State(passing): State<Passing>, request: Request) -> Response {
    let mut leader = passing.leader.clone();
    let known = leader.borrow_and_update().clone();
    let Some(Leader { api }) = known.filter(|_| !request.headers().contains_key(Relay::MARK)) else {
        return not_in_charge("this coordinator is not, and knows no other that is").into_response();
    };
    let Ok(room) = passing.room.try_acquire_owned() else {
        let detail = format!("limit `requests passed on` is {MAX_PASSED}, all of them taken");
        let problem = Problem::new(503, code::BUSY, "the coordinator is busy", detail);
        return Refused::new(problem.with_hint("ask the coordinator in charge itself")).into_response();
    };
    let (head, body) = request.into_parts();
    let is_safe = head.method.is_safe();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let relayed = tokio::select! {
        relayed = passing.relay.pass_on(&api, head.method, &path, head.headers, body.into_data_stream()) => relayed,
        // One that is paused, or cut off, would be waited for until the client has no more patience.
        _ = leader.changed() => return broken_off(&api, is_safe).into_response(),
    };
    match relayed {
        Ok(Relayed { status, headers, body }) => {
            // Until its last byte it takes room.
            let body = body.map_err(std::io::Error::other).inspect_ok(move |_| {
                let _room = &room;
            });
            (status, headers, Body::from_stream(body)).into_response()
        }
        Err(error) => {
            tracing::debug!(
                leader = api,
                error = &error as &dyn std::error::Error,
                "request was not passed on"
            );
            if error.was_not_sent() {
                return not_in_charge(&format!("{api} should be, and does not answer")).into_response();
            }
            broken_off(&api, is_safe).into_response()
        }
    }
}

/// What is said when the one in charge is gone before it has answered. A question can be asked again; of a wish it is not
/// known whether it came true.
fn broken_off(leader: &str, is_safe: bool) -> Refused {
    let detail = format!("{leader} broke off before it had answered");
    if is_safe {
        return not_in_charge(&detail);
    }
    let problem = Problem::new(502, code::UNAVAILABLE, "the coordinator in charge broke off", detail);
    Refused::new(problem.with_hint("it may have happened or not: look, and ask again"))
}

/// Tells agents and newcomers that they are wrong here, until `aside` is cancelled.
async fn turn_away(server: Arc<dunlin_transport::Server>, aside: CancellationToken) {
    let told = Arc::new(Semaphore::new(MAX_TOLD));
    let tracker = TaskTracker::new();
    loop {
        let incoming = tokio::select! {
            incoming = server.accept() => incoming,
            () = aside.cancelled() => None,
        };
        let Some(incoming) = incoming else { break };
        let Ok(room) = Arc::clone(&told).try_acquire_owned() else {
            let (Incoming::Fleet(_, connection) | Incoming::Late(_, connection) | Incoming::Join(connection)) =
                incoming;
            connection.close(CloseCode::BUSY, NOT_IN_CHARGE);
            continue;
        };
        tracker.spawn(async move {
            let _room = room;
            let _late = tokio::time::timeout(TELL_TIME, tell(incoming)).await;
        });
    }
    tracker.close();
    tracker.wait().await;
}

async fn tell(incoming: Incoming) {
    match incoming {
        Incoming::Fleet(node, connection) | Incoming::Late(node, connection) => {
            if let Err(error) = refuse(&connection).await {
                tracing::debug!(%node, error = &*error as &dyn std::error::Error, "agent was not told");
            }
            connection.close(CloseCode::DONE, NOT_IN_CHARGE);
        }
        Incoming::Join(connection) => {
            let refused = |_| async {
                JoinReply::Refused { code: code::NOT_IN_CHARGE.to_owned(), message: NOT_IN_CHARGE.to_owned() }
            };
            if let Err(error) = serve_join(&connection, refused).await {
                tracing::debug!(error = &error as &dyn std::error::Error, "newcomer was not told");
            }
        }
    }
}

async fn refuse(connection: &Connection) -> anyhow::Result<()> {
    let mut stream = connection.accept().await?;
    if matches!(stream.receive_request().await?, StreamRequest::Control(_)) {
        let (code, message) = (RefusalCode::NotInCharge, NOT_IN_CHARGE.to_owned());
        stream.send_message(&ToAgent::Refused { code, message }).await?;
        stream.finish();
        stream.send.delivered().await?;
    }
    Ok(())
}
