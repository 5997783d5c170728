//! One request, up to three endpoints: who is tried next, and when it must not be tried again. Where all of them say that
//! they have not begun it and others may be known in a moment, there are further rounds.
//!
//! A request is sent again if nothing of it was carried out: the connection could not be opened, or the other side
//! says that the allocation is not there, or has too much to do. If it broke on the way, only what may be repeated without
//! harm (`GET`, `HEAD`, `OPTIONS` without a body) is sent again. Where sending again gives somebody more work than there
//! was, the service's [`RetryBudget`](crate::load::RetryBudget) pays for it.

use std::sync::Arc;
use std::time::Duration;

use http::{Response, StatusCode};
use tokio::time::{Instant, sleep, timeout};

use crate::body::Answer;
use crate::choice::Wish;
use crate::config::{BACK_PAUSE, BACK_TIME, MAX_TRIES, ROUTES_TIME};
use crate::failure::{FAILURE_HEADER, Failure};
use crate::ingress::Ingress;
use crate::outbound::Outbound;
use crate::rules::too_slow;
use crate::suspects::Suspect;
use crate::table::{Place, Seen, Service, Target, Way};
use crate::upstream::{SendError, Upstream};

/// The code of a failure after which the request may have been carried out.
const PEER_FAILED: &str = "peer_failed";
/// The code with which a worker says that an allocation has too much to do, and has not begun the request.
const OVERLOADED: &str = "overloaded";

/// Sends a request to the endpoints of `target` until one of them answers. Where none does, and one is to be back or
/// known in a moment, it waits for that.
pub(crate) async fn forward(
    ingress: &Ingress,
    target: &Arc<Target>,
    wish: Wish,
    outbound: &mut Outbound,
) -> Result<Response<Answer>, Failure> {
    target.service.retries.save();
    let limit = target.rules.as_ref().and_then(|rules| rules.timeout());
    // A route may give more time than there is where nothing is said.
    let peers_time = ingress.config().peer_timeout.max(limit.unwrap_or_default());
    let answered = match limit {
        None => forward_all(ingress, target, peers_time, wish, outbound).await,
        Some(limit) => timeout(limit, forward_all(ingress, target, peers_time, wish, outbound))
            .await
            .unwrap_or_else(|_late| Err(too_slow(limit))),
    };
    // Whatever the service makes of a body that was cut off.
    outbound.check_limit().and(answered)
}

async fn forward_all(
    ingress: &Ingress,
    target: &Arc<Target>,
    peers_time: Duration,
    wish: Wish,
    outbound: &mut Outbound,
) -> Result<Response<Answer>, Failure> {
    let began = Instant::now();
    let mut service = Arc::clone(&target.service);
    loop {
        match forward_once(ingress, &service, peers_time, wish, outbound).await {
            Err(NoAnswer { patience, .. }) if began.elapsed() < patience => {
                sleep(BACK_PAUSE).await;
                // Its endpoints may be others by now.
                if let Some(now) = ingress.table().targets.get(&service.workload) {
                    service = Arc::clone(&now.service);
                }
            }
            answered => return answered.map_err(|none| none.failure),
        }
    }
}

/// Why a request was not answered.
struct NoAnswer {
    failure: Failure,
    /// For how long after its beginning the request is worth another round.
    patience: Duration,
}

impl From<Failure> for NoAnswer {
    fn from(failure: Failure) -> Self {
        Self { failure, patience: Duration::ZERO }
    }
}

async fn forward_once(
    ingress: &Ingress,
    service: &Service,
    peers_time: Duration,
    wish: Wish,
    outbound: &mut Outbound,
) -> Result<Response<Answer>, NoAnswer> {
    let peers_until = Instant::now() + peers_time;
    let seen = Seen { service, suspects: ingress.suspects() };
    let mut round = Round {
        ingress,
        service,
        unreached: Vec::new(),
        failure: None,
        patience: Duration::ZERO,
        may_have_begun: false,
    };
    let mut tries = 0;
    let mut order = seen.order(wish).peekable();
    while let Some(index) = order.next() {
        let place = &*service.places[index];
        // What could not be reached a moment ago will not be reached by the name of another allocation there.
        if round.unreached.iter().any(|other| other.node == place.node) {
            continue;
        }
        if tries == MAX_TRIES {
            break;
        }
        tries += 1;
        let sent = send(ingress, place, outbound, peers_until).await;
        match sent.map_err(|error| of_client(error, outbound)) {
            Ok(response) => {
                let is_last = order.peek().is_none();
                if let Some(response) = round.take(response, place, outbound, is_last) {
                    return Ok(response);
                }
            }
            Err(error @ SendError::TimedOut) => return Err(failed(&error).into()),
            Err(error) => {
                if !round.goes_on_after(error, place, outbound) {
                    break;
                }
            }
        }
    }
    Err(round.end())
}

/// What is known of the tries of one request.
struct Round<'a> {
    ingress: &'a Ingress,
    service: &'a Service,
    unreached: Vec<&'a Place>,
    failure: Option<Failure>,
    patience: Duration,
    /// Then it gets the tries of this round and no further ones.
    may_have_begun: bool,
}

impl<'a> Round<'a> {
    /// Tells whether the service may have one request more than its clients send.
    fn pays(&self) -> bool {
        self.service.retries.take(std::time::Instant::now())
    }

    fn mark(&self, suspect: Suspect) {
        self.ingress.suspects().mark(suspect);
    }

    /// Returns the response if it is for the client; else another allocation is to be tried.
    fn take(
        &mut self,
        response: Response<Answer>,
        place: &'a Place,
        outbound: &Outbound,
        is_last: bool,
    ) -> Option<Response<Answer>> {
        match failure_code(&response, place) {
            Some(Failure::NO_ALLOCATION) => {
                self.mark(Suspect::Allocation(place.allocation));
                // Nodes hear of new routes one before the other.
                self.patience = self.patience.max(ROUTES_TIME);
                self.failure = Some(no_endpoint(self.service));
            }
            Some(Failure::STARTING_AGAIN) => {
                self.mark(Suspect::Node(place.node.clone()));
                self.unreached.push(place);
                self.patience = BACK_TIME;
                self.failure = Some(no_endpoint(self.service));
            }
            // It has not begun it, and another one may have less to do.
            Some(OVERLOADED) => {
                place.busy.mark(std::time::Instant::now());
                if is_last || !outbound.is_whole() || !self.pays() {
                    return Some(response);
                }
                self.failure = Some(overloaded(self.service));
            }
            Some(PEER_FAILED) if outbound.is_repeatable() => {
                self.may_have_begun = true;
                self.mark(Suspect::Allocation(place.allocation));
                if !self.pays() {
                    return Some(response);
                }
                self.failure = Some(failed(&SendError::Spent));
            }
            _ => return Some(response),
        }
        None
    }

    /// Tells whether another allocation is to be tried after this one gave no response.
    fn goes_on_after(&mut self, error: SendError, place: &'a Place, outbound: &Outbound) -> bool {
        let (node, allocation) = (&place.node, place.allocation);
        match error {
            SendError::NotSent(_) | SendError::Broken(_) if is_starting_again(self.ingress, place) => {
                self.unreached.push(place);
                self.patience = BACK_TIME;
                self.failure = Some(no_endpoint(self.service));
                true
            }
            error @ SendError::NotSent(_) => {
                tracing::debug!(%node, %allocation, %error, "endpoint not reached");
                self.mark(unreachable(place));
                self.unreached.push(place);
                self.failure = Some(failed(&error));
                true
            }
            error @ SendError::Broken(_) => {
                tracing::debug!(%node, %allocation, %error, "endpoint broke");
                self.mark(Suspect::Allocation(allocation));
                self.failure = Some(failed(&error));
                self.may_have_begun = true;
                outbound.is_repeatable() && self.pays()
            }
            SendError::Spent | SendError::TimedOut => {
                self.may_have_begun = true;
                false
            }
        }
    }

    fn end(self) -> NoAnswer {
        let patience = if self.may_have_begun { Duration::ZERO } else { self.patience };
        NoAnswer { failure: self.failure.unwrap_or_else(|| no_endpoint(self.service)), patience }
    }
}

async fn send(
    ingress: &Ingress,
    place: &Place,
    outbound: &mut Outbound,
    peers_until: Instant,
) -> Result<Response<Answer>, SendError> {
    let under_way = place.load.begin();
    let mut response = match &place.way {
        Way::Local(pool) => {
            let until = Instant::now() + ingress.config().local_timeout;
            pool.send(ingress.opener(), outbound, place, until).await?
        }
        Way::Peer(address) => {
            let opening = ingress.peers().open(&place.node, *address);
            let upstream = Upstream::open(opening, ingress.config().connect_timeout).await?;
            let request = outbound.attempt(place).ok_or(SendError::Spent)?;
            upstream.send(request, peers_until, None).await?
        }
    };
    response.body_mut().hold(under_way);
    Ok(response)
}

/// Returns the error as one of the client, if the connection broke since its body is too large: nobody else is to blame.
fn of_client(error: SendError, outbound: &Outbound) -> SendError {
    match error {
        SendError::Broken(_) if outbound.check_limit().is_err() => SendError::Spent,
        error => error,
    }
}

/// Tells whether a node to which no request could be sent, or that has not answered one, has not begun it and will be
/// back in a moment.
fn is_starting_again(ingress: &Ingress, place: &Place) -> bool {
    matches!(place.way, Way::Peer(_)) && ingress.peers().is_starting_again(&place.node)
}

/// Returns what to avoid when `place` cannot be reached: a whole node, but of this node only the allocation, since
/// a dead worker says nothing of the other namespaces.
fn unreachable(place: &Place) -> Suspect {
    match place.way {
        Way::Local(_) => Suspect::Allocation(place.allocation),
        Way::Peer(_) => Suspect::Node(place.node.clone()),
    }
}

/// Returns the failure which the other side says it is, if it is one that another endpoint may not have.
fn failure_code(response: &Response<Answer>, place: &Place) -> Option<&'static str> {
    let code = response.headers().get(FAILURE_HEADER)?;
    match response.status() {
        StatusCode::SERVICE_UNAVAILABLE if code == Failure::NO_ALLOCATION => Some(Failure::NO_ALLOCATION),
        // Said by a worker it is not believed: that would be a word about all of its node.
        StatusCode::SERVICE_UNAVAILABLE
            if code == Failure::STARTING_AGAIN && matches!(place.way, Way::Peer(_)) =>
        {
            Some(Failure::STARTING_AGAIN)
        }
        StatusCode::SERVICE_UNAVAILABLE if code == OVERLOADED => Some(OVERLOADED),
        StatusCode::BAD_GATEWAY if code == PEER_FAILED => Some(PEER_FAILED),
        _ => None,
    }
}

fn no_endpoint(service: &Service) -> Failure {
    let detail = format!("no allocation of `{}` answers at the moment", service.workload);
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "no_endpoint", detail)
        .hint("`dunlin status` shows where its allocations stand".to_owned())
        .retry_after(1)
}

/// Returns the failure of a request for which all that were asked had too much to do.
fn overloaded(service: &Service) -> Failure {
    let detail = format!("every instance of `{}` that may run is busy", service.workload);
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, detail).retry_after(1)
}

/// Returns the failure that tells the client of `error`.
pub(crate) fn failed(error: &SendError) -> Failure {
    let (status, code, detail) = match error {
        SendError::NotSent(_) => (
            StatusCode::BAD_GATEWAY,
            PEER_FAILED,
            "no allocation of the service could be reached; the request was not sent",
        ),
        SendError::Broken(_) | SendError::Spent => (
            StatusCode::BAD_GATEWAY,
            PEER_FAILED,
            "the connection to the allocation broke before it answered; the request may have been carried out",
        ),
        SendError::TimedOut => (
            StatusCode::GATEWAY_TIMEOUT,
            "peer_timeout",
            "the allocation did not answer in time; the request may have been carried out",
        ),
    };
    Failure::new(status, code, detail.to_owned()).retry_after(1)
}
