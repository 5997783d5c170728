//! Requests passed on as they are: from a coordinator that is not in charge to the one that is.

use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStream};
use reqwest::header::{self, HeaderMap, HeaderName};
use reqwest::{Method, StatusCode};

use super::transport::tls;
use super::{ClientConfigError, ClientError};

/// How long a connection may take to be made. Coordinators are near each other.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an answer may take to begin: a little longer than clients wait.
const ANSWER_TIME: Duration = Duration::from_secs(70);
/// Finds a dead peer under an answer that is silent for long.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// What is said of one connection, and not of the request.
const OF_THE_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::HOST,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Passes requests on to coordinators of one fleet.
#[derive(Clone, Debug)]
pub struct Relay {
    http: reqwest::Client,
}

/// An answer that was got by passing a request on.
pub struct Relayed {
    /// Its status.
    pub status: StatusCode,
    /// Its headers, without those of the connection.
    pub headers: HeaderMap,
    /// Its body, as it comes.
    pub body: Pin<Box<dyn Stream<Item = Result<Bytes, ClientError>> + Send>>,
}

impl Relay {
    /// The header that marks a request as passed on, so that none goes round for ever.
    pub const MARK: HeaderName = HeaderName::from_static("dunlin-passed-on");

    /// Returns one that believes only coordinators of this authority (PEM).
    pub fn new(authority_pem: &str) -> Result<Self, ClientConfigError> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(authority_pem, true)?)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            // A connection for each request under way: on a common one, streams that go on for ever would take all places.
            .http1_only()
            .tcp_keepalive(KEEPALIVE)
            .no_proxy()
            .build()
            .map_err(ClientConfigError::Http)?;
        Ok(Self { http })
    }

    /// Passes a request on to the coordinator whose API is at `address` (`host:port`).
    pub async fn pass_on<S>(
        &self,
        address: &str,
        method: Method,
        path_and_query: &str,
        mut headers: HeaderMap,
        body: S,
    ) -> Result<Relayed, ClientError>
    where
        S: TryStream + Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        Bytes: From<S::Ok>,
    {
        let url = format!("https://{address}");
        without_those_of_the_connection(&mut headers);
        headers.insert(Self::MARK, header::HeaderValue::from_static("1"));
        let request = self.http.request(method, format!("{url}{path_and_query}")).headers(headers);
        let request = request.body(reqwest::Body::wrap_stream(body));
        let answer = tokio::time::timeout(ANSWER_TIME, request.send()).await;
        let answer = answer.map_err(|_| ClientError::bad_answer(format!("{url} did not answer in time")))?;
        let response = answer.map_err(|error| ClientError::unreachable(&url, error))?;
        let (status, mut headers) = (response.status(), response.headers().clone());
        without_those_of_the_connection(&mut headers);
        let body = response
            .bytes_stream()
            .map(move |piece| piece.map_err(|error| ClientError::unreachable(&url, error)));
        Ok(Relayed { status, headers, body: Box::pin(body) })
    }
}

fn without_those_of_the_connection(headers: &mut HeaderMap) {
    for name in OF_THE_CONNECTION {
        headers.remove(name);
    }
}
