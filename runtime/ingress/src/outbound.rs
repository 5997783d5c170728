//! A request on its way out: kept until it is answered, so that it can be sent to another endpoint.

use std::sync::Arc;

use dunlin_model::{Bytes, CALLER_HEADER, Name, WorkloadName};
use http::header::{HeaderValue, TE};
use http::{HeaderMap, Method, Request, Uri, Version};
use http_body::{Body, SizeHint};
use hyper::body::Incoming;

use crate::Failure;
use crate::body::{Outgoing, Replay};
use crate::head::{
    ACCOUNT_HEADER, ALLOCATION_HEADER, CLIENT_READS_TRAILERS, FORWARDED_HEADER, TRAILERS, clean_request,
    make_http1,
};
use crate::origin::Origin;
use crate::rules::too_large;
use crate::table::{Place, Way};

/// Who has sent a request here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender<'a> {
    /// Somebody outside.
    Client(&'a Origin),
    /// The ingress of another node, which has told all that is to be told, for a service of this namespace. It is believed
    /// about callers of no other.
    Peer(&'a Name),
    /// A guest of this workload, by its worker.
    Guest(&'a HeaderValue),
}

/// Tells whether this is a workload of a namespace.
fn is_of(caller: &HeaderValue, namespace: &Name) -> bool {
    let name = caller.to_str().ok().and_then(|name| name.parse::<WorkloadName>().ok());
    name.is_some_and(|name| name.namespace == *namespace)
}

/// A request on its way out.
pub(crate) struct Outbound {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Option<(Arc<Replay>, SizeHint)>,
    /// The most bytes of the body, where the client does not say how many there are.
    limit: Option<Bytes>,
    forwarded: HeaderValue,
}

impl Outbound {
    /// Returns `request` of `sender` cleaned of what must not go further. `forwarded` tells another node who sent it on.
    pub(crate) fn new(request: Request<Incoming>, forwarded: HeaderValue, sender: Sender<'_>) -> Self {
        let (mut parts, incoming) = request.into_parts();
        // Nobody else is believed.
        let asked = parts.headers.remove(ACCOUNT_HEADER).filter(|_| matches!(sender, Sender::Peer(_)));
        let caller = match sender {
            Sender::Client(_) => None,
            Sender::Peer(namespace) => {
                let caller = parts.headers.remove(CALLER_HEADER);
                caller.filter(|caller| is_of(caller, namespace))
            }
            Sender::Guest(caller) => Some(caller.clone()),
        };
        clean_request(&mut parts.headers);
        if let Sender::Client(origin) = sender {
            origin.mark(&mut parts.headers);
        }
        if let Some(caller) = caller {
            parts.headers.insert(CALLER_HEADER, caller);
        }
        if parts.version == Version::HTTP_2 {
            make_http1(&mut parts);
        }
        let length = incoming.size_hint();
        let body = (!incoming.is_end_stream()).then(|| (Arc::new(Replay::new(incoming)), length));
        let (method, uri, headers) = (parts.method, parts.uri, parts.headers);
        let mut outbound = Self { method, uri, headers, body, limit: None, forwarded };
        if let Some(asked) = asked {
            outbound.ask_for_account(asked);
        }
        outbound
    }

    /// Has whoever answers say who that is, and what it burns.
    pub(crate) fn ask_who_answers(&mut self) {
        let client_reads = self.headers.contains_key(TE);
        let alone = HeaderValue::from_static("alone");
        self.ask_for_account(if client_reads { CLIENT_READS_TRAILERS } else { alone });
    }

    /// The same, as another ingress has asked.
    fn ask_for_account(&mut self, asked: HeaderValue) {
        self.headers.insert(ACCOUNT_HEADER, asked);
        self.headers.insert(TE, TRAILERS);
    }

    /// Lets no more of the body through than `limit`.
    ///
    /// # Errors
    ///
    /// The client says itself that there is more.
    pub(crate) fn limit(&mut self, limit: Bytes) -> Result<(), Failure> {
        let Some((replay, length)) = &self.body else { return Ok(()) };
        match length.exact() {
            Some(bytes) if bytes > limit.0 => Err(too_large(limit, Some(bytes))),
            Some(_) => Ok(()),
            None => {
                replay.limit(limit.0);
                self.limit = Some(limit);
                Ok(())
            }
        }
    }

    /// Tells whether what has come of the body is within its limit.
    ///
    /// # Errors
    ///
    /// It is not, and nothing more of it has gone further.
    pub(crate) fn check_limit(&self) -> Result<(), Failure> {
        let is_over = self.body.as_ref().is_some_and(|(replay, _)| replay.is_over());
        self.limit.filter(|_| is_over).map_or(Ok(()), |limit| Err(too_large(limit, None)))
    }

    /// Tells whether the request may be sent again though it may have been carried out.
    pub(crate) fn is_repeatable(&self) -> bool {
        self.body.is_none() && matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// Tells whether there is all that is needed to send the request again.
    pub(crate) fn is_whole(&self) -> bool {
        self.body.as_ref().is_none_or(|(replay, _)| replay.is_whole())
    }

    /// Returns the request for one more try, unless too much of its body has gone already.
    pub(crate) fn attempt(&mut self, place: &Place) -> Option<Request<Outgoing>> {
        let body = match &self.body {
            None => Outgoing::Empty,
            Some((replay, length)) => replay.again(length)?,
        };
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        *headers = self.headers.clone();
        headers.insert(ALLOCATION_HEADER, place.header.clone());
        if let Way::Peer(_) = place.way {
            headers.insert(FORWARDED_HEADER, self.forwarded.clone());
        }
        Some(request)
    }
}
