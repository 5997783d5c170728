//! The ingress itself: what it knows, and what it does with one request.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use dunlin_model::{AllocationId, Digest, NodeId, RouteTable, WorkloadName};
use http::header::{LOCATION, SET_COOKIE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::access_log::Logging;
use crate::body::Answer;
use crate::choice::Wish;
use crate::config::IngressConfig;
use crate::forward;
use crate::head::{ALLOCATION_HEADER, authority, forwarded_by};
use crate::origin::Origin;
use crate::outbound::{Outbound, Sender};
use crate::rarely::Rarely;
use crate::router::normal_host;
use crate::rules::{Stay, Verdict};
use crate::shared_clients::SharedClients;
use crate::stream::{Local, Peers};
use crate::suspects::Suspects;
use crate::table::{Table, Target, Way};
use crate::upstream::{Opener, SendError};
use crate::{FAILURE_HEADER, Failure};

/// The port that need not be named.
const HTTPS: u16 = 443;

/// The front door of one node. Clones are the same ingress.
#[derive(Clone)]
pub struct Ingress {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    forwarded: HeaderValue,
    local: Arc<dyn Local>,
    peers: Arc<dyn Peers>,
    config: IngressConfig,
    table: RwLock<Arc<Table>>,
    suspects: Suspects,
    shared_clients: SharedClients,
    /// That a balancer does not say for whom it passes bytes on.
    silent_balancers: Rarely,
    /// Whether nothing more is taken from other nodes, as the agent is about to be started again.
    is_leaving: AtomicBool,
}

impl Ingress {
    /// Returns the ingress of `node`. It has no routes yet.
    pub fn new(node: NodeId, local: Arc<dyn Local>, peers: Arc<dyn Peers>) -> Self {
        Self::with_config(node, local, peers, IngressConfig::default())
    }

    /// Returns the ingress of `node` with other limits than the default ones.
    pub fn with_config(
        node: NodeId,
        local: Arc<dyn Local>,
        peers: Arc<dyn Peers>,
        config: IngressConfig,
    ) -> Self {
        let forwarded = forwarded_by(&node);
        let (table, suspects, shared_clients) =
            (RwLock::default(), Suspects::default(), SharedClients::default());
        let is_leaving = AtomicBool::new(false);
        let inner = Inner {
            node,
            forwarded,
            local,
            peers,
            config,
            table,
            suspects,
            shared_clients,
            silent_balancers: Rarely::default(),
            is_leaving,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes these routes for all requests from now on. Requests under way are not disturbed.
    pub fn set_routes(&self, routes: &RouteTable) {
        // The lock is held while the table is made, so that of two calls the later one stands.
        let mut table = self.inner.table.write().unwrap_or_else(PoisonError::into_inner);
        let new = Table::new(&self.inner.node, routes, &table);
        // Workers are told first: what is decided by the new table they will know.
        for (namespace, version, routes) in new.news(&table) {
            self.inner.local.set_routes(namespace, version, routes);
        }
        *table = Arc::new(new);
    }

    /// Tells whether requests of a machine with this key (the SHA-256 of it) are taken: it is still a member, for all that
    /// is known here.
    pub fn takes_requests_of(&self, key: &Digest) -> bool {
        !self.table().revoked.contains(key)
    }

    /// Takes nothing more from other nodes: those wait for a moment, as the agent is about to be started again.
    pub fn refuse_peers(&self) {
        self.inner.is_leaving.store(true, Ordering::Release);
    }

    /// Returns its limits.
    pub fn config(&self) -> &IngressConfig {
        &self.inner.config
    }

    /// Returns what guests are told of a client that speaks for itself, or for others if it is trusted.
    pub(crate) fn origin(&self, client: SocketAddr, is_tls: bool) -> Origin {
        Origin::new(client.ip(), is_tls, self.config().trusts(client.ip()))
    }

    /// Tells whether connections of this client may be handed to workers. Those of proxies carry requests for whoever it
    /// is, and what those say only an ingress knows to believe.
    pub(crate) fn may_hand_off(&self, client: IpAddr) -> bool {
        let config = self.config();
        // A worker does not log.
        config.hand_off
            && config.access_log.is_none()
            && config.redirect_port.is_none()
            && !config.trusts(client)
            && !self.shared_clients().contain(client)
    }

    pub(crate) fn suspects(&self) -> &Suspects {
        &self.inner.suspects
    }

    pub(crate) fn peers(&self) -> &dyn Peers {
        &*self.inner.peers
    }

    pub(crate) fn opener(&self) -> Opener<'_> {
        Opener { local: &*self.inner.local, limit: self.inner.config.connect_timeout }
    }

    pub(crate) fn local(&self) -> &dyn Local {
        &*self.inner.local
    }

    pub(crate) fn shared_clients(&self) -> &SharedClients {
        &self.inner.shared_clients
    }

    pub(crate) fn silent_balancers(&self) -> &Rarely {
        &self.inner.silent_balancers
    }

    pub(crate) fn table(&self) -> Arc<Table> {
        Arc::clone(&self.inner.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Answers a request from outside.
    pub(crate) async fn answer(&self, request: Request<Incoming>, origin: &Origin) -> Response<Answer> {
        let Some(log) = &self.config().access_log else {
            return match self.find(&request, origin) {
                Ok(target) => self.answer_by(&target, request, origin).await,
                Err(response) => *response,
            };
        };
        let client = self.client(&request, origin);
        let mut logging = Logging::begin(log, &request, origin, client);
        let response = match self.find(&request, origin) {
            Ok(target) => {
                logging.is_for(&target.service.workload);
                self.answer_by(&target, request, origin).await
            }
            Err(response) => *response,
        };
        logging.answered(response)
    }

    /// Returns who has sent a request, as far as that is known.
    fn client<B>(&self, request: &Request<B>, origin: &Origin) -> IpAddr {
        origin.client(request.headers(), |address| self.config().trusts(address))
    }

    /// Returns the service for which a request is, or the answer where there is none.
    fn find<B>(&self, request: &Request<B>, origin: &Origin) -> Result<Arc<Target>, Box<Response<Answer>>> {
        let refuse = |failure| Box::new(refuse(failure));
        let host = authority(request).map_err(refuse)?;
        if let Some(port) = self.config().redirect_port
            && !origin.has_tls()
        {
            return Err(Box::new(redirect(host, port, request.uri())));
        }
        let table = self.table();
        let target = table.router.find(host, request.uri().path(), request.headers());
        let target = target.ok_or_else(|| refuse(no_route(host, request.uri().path())))?;
        if table.is_misspelled(host, request.uri().path(), request.headers(), target) {
            let detail = "this path is another spelling of one that has rules: write it without escapes that it does \
                          not need, and without empty segments, `.` and `..`";
            return Err(refuse(Failure::new(StatusCode::BAD_REQUEST, "bad_path", detail.to_owned())));
        }
        Ok(Arc::clone(target))
    }

    async fn answer_by(
        &self,
        target: &Arc<Target>,
        request: Request<Incoming>,
        origin: &Origin,
    ) -> Response<Answer> {
        if let Some(rules) = &target.rules {
            let client = self.client(&request, origin);
            match rules.judge(&request, client, std::time::Instant::now()) {
                Verdict::Forward => {}
                Verdict::Answer(response) => return response,
                Verdict::Refuse(failure) => return refuse(failure),
            }
        }
        let stay = target.rules.as_ref().map(|rules| rules.stay(request.headers(), origin.has_tls()));
        let Stay { key, cookie } = stay.unwrap_or_default();
        let mut outbound = Outbound::new(request, self.inner.forwarded.clone(), Sender::Client(origin));
        if self.config().access_log.is_some() {
            outbound.ask_who_answers();
        }
        if let Some(limit) = target.rules.as_ref().and_then(|rules| rules.body_limit())
            && let Err(failure) = outbound.limit(limit)
        {
            return refuse(failure);
        }
        let wish = Wish { turn: target.service.take_turn(), key };
        let mut response = forward::forward(self, target, wish, &mut outbound).await.unwrap_or_else(refuse);
        if let Some(cookie) = cookie {
            response.headers_mut().append(SET_COOKIE, cookie);
        }
        response
    }

    /// Tells whether there is a service of this name, whether or not anything runs of it.
    pub fn knows(&self, service: &WorkloadName) -> bool {
        self.table().targets.contains_key(service)
    }

    /// Answers a call of `service` by a guest of the workload that `caller` names.
    pub(crate) async fn answer_call(
        &self,
        request: Request<Incoming>,
        service: &WorkloadName,
        caller: &HeaderValue,
    ) -> Response<Answer> {
        let Some(target) = self.table().targets.get(service).cloned() else {
            let detail = format!("there is no service `{service}`");
            return refuse(Failure::new(StatusCode::NOT_FOUND, "no_route", detail));
        };
        let mut outbound = Outbound::new(request, self.inner.forwarded.clone(), Sender::Guest(caller));
        let wish = Wish { turn: target.service.take_turn(), key: None };
        forward::forward(self, &target, wish, &mut outbound).await.unwrap_or_else(refuse)
    }

    /// Answers a request that another node's ingress has sent on: here or not at all.
    pub(crate) async fn answer_peer(&self, request: Request<Incoming>) -> Response<Answer> {
        if self.inner.is_leaving.load(Ordering::Acquire) {
            let detail = format!("the agent of node {} is being started again", self.inner.node);
            let failure = Failure::new(StatusCode::SERVICE_UNAVAILABLE, Failure::STARTING_AGAIN, detail);
            return refuse(failure.retry_after(1));
        }
        let asked = request.headers().get(ALLOCATION_HEADER).and_then(|value| value.to_str().ok());
        let Some(Ok(allocation)) = asked.map(str::parse::<AllocationId>) else {
            let detail = "a request from another node must name its allocation".to_owned();
            return refuse(Failure::new(StatusCode::BAD_REQUEST, "bad_allocation", detail));
        };
        let place = self.table().local.get(&allocation).cloned();
        let Some((place, Way::Local(pool))) = place.as_ref().map(|place| (place, &place.way)) else {
            return refuse(self.no_allocation(allocation));
        };
        let mut outbound =
            Outbound::new(request, self.inner.forwarded.clone(), Sender::Peer(pool.namespace()));
        let until = Instant::now() + self.inner.config.local_timeout;
        let under_way = place.load.begin();
        match pool.send(self.opener(), &mut outbound, place, until).await {
            Ok(mut response) => {
                response.body_mut().hold(under_way);
                // That is for this ingress to say, and not for a worker.
                if response.headers().get(FAILURE_HEADER).is_some_and(|code| code == Failure::STARTING_AGAIN)
                {
                    response.headers_mut().remove(FAILURE_HEADER);
                }
                response
            }
            // Nothing was sent, so the other node may as well try elsewhere.
            Err(SendError::NotSent(error)) => {
                tracing::debug!(%allocation, %error, "worker not reached");
                refuse(self.no_allocation(allocation))
            }
            Err(error) => refuse(forward::failed(&error)),
        }
    }

    fn no_allocation(&self, allocation: AllocationId) -> Failure {
        let detail = format!("allocation {allocation} does not run on node {}", self.inner.node);
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, Failure::NO_ALLOCATION, detail).retry_after(1)
    }
}

/// Returns the response that tells a failure.
fn refuse(failure: Failure) -> Response<Answer> {
    failure.into_response().map(Answer::Whole)
}

/// Sends a client to the same place by TLS. The method stays, and so does the body.
fn redirect(authority: &str, port: u16, target: &Uri) -> Response<Answer> {
    let host = normal_host(authority);
    let path = target.path_and_query().map_or("/", PathAndQuery::as_str);
    let place =
        if port == HTTPS { format!("https://{host}{path}") } else { format!("https://{host}:{port}{path}") };
    let Ok(place) = HeaderValue::try_from(place) else {
        let detail = "the target of the request cannot stand in a header".to_owned();
        return refuse(Failure::new(StatusCode::BAD_REQUEST, "bad_target", detail));
    };
    let mut response = Response::new(Answer::Whole(Full::default()));
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    response.headers_mut().insert(LOCATION, place);
    response
}

fn no_route(host: &str, path: &str) -> Failure {
    let shown: String = path.chars().take(200).collect();
    let detail = format!("no service has a route for host `{host}` and path `{shown}`");
    Failure::new(StatusCode::NOT_FOUND, "no_route", detail)
        .hint("`dunlin status` lists all routes; a service gets one by `routes` in dunlin.toml".to_owned())
}
