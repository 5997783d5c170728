//! How the client's requests travel: TLS under the fleet's authority, time limits, bounded answers.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Request, RequestBuilder, Response, StatusCode, Url};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ClientConfig, ClientConfigError, ClientError, MAX_ANSWER};
use crate::{CONTENT_TYPE_PROBLEM, Problem, code, paths};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// An upload gets one more second for so many bytes: slower lines than this are taken for broken.
const UPLOAD_BYTES_PER_SECOND: u64 = 64 << 10;
/// Finds a dead peer under a log stream which is silent for hours.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// How many bytes are handed to the connection at once, and so how finely progress is told.
const UPLOAD_CHUNK: usize = 64 << 10;

/// How long a request that was not carried out is sent again, while no coordinator is in charge,
const CHARGE_TIME: Duration = Duration::from_secs(20);
/// and how long from one attempt to the next.
const CHARGE_PAUSE: Duration = Duration::from_millis(300);

/// How long one of several coordinators may take to say that it is there.
const FIND_TIME: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
pub(super) struct Transport {
    http: reqwest::Client,
    /// Asks whether a coordinator is there, on connections of its own: on a common one it would wait behind an upload.
    probe: reqwest::Client,
    /// Where the coordinators are; there is at least one.
    urls: Arc<[Url]>,
    /// Which of them is asked: the last that answered.
    current: Arc<AtomicUsize>,
    /// Whether that one was found to answer, where there are several.
    is_found: Arc<AtomicBool>,
    /// The same as text, for people.
    shown: String,
}

impl Transport {
    pub(super) fn new(config: ClientConfig) -> Result<Self, ClientConfigError> {
        let ClientConfig { url, token, authority_pem } = config;
        let urls: Vec<Url> = url.split(',').map(parsed).collect::<Result<_, _>>()?;
        let is_local = urls.iter().all(is_this_machine);
        let is_tls = urls.iter().any(|url| url.scheme() == "https");
        let mut authorization =
            HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| ClientConfigError::Token)?;
        authorization.set_sensitive(true);
        let headers = HeaderMap::from_iter([(AUTHORIZATION, authorization)]);
        let client = |headers: HeaderMap| {
            let mut builder = reqwest::Client::builder()
                .tls_backend_preconfigured(tls(&authority_pem, is_tls)?)
                .default_headers(headers)
                .user_agent(concat!("dunlin/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_keepalive(KEEPALIVE);
            if is_local {
                builder = builder.no_proxy();
            }
            builder.build().map_err(ClientConfigError::Http)
        };
        // Whether it is there anybody may ask.
        let (http, probe) = (client(headers)?, client(HeaderMap::new())?);
        let shown = url.trim_end_matches('/').to_owned();
        // One alone is asked whether it answers or not.
        let is_found = Arc::new(AtomicBool::new(urls.len() == 1));
        Ok(Self { http, probe, urls: urls.into(), current: Arc::default(), is_found, shown })
    }

    pub(super) fn url(&self) -> &str {
        &self.shown
    }

    pub(super) async fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        let response = self.answered(self.request(Method::GET, path).timeout(REQUEST_TIMEOUT)).await?;
        self.json(response).await
    }

    pub(super) async fn send<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, ClientError> {
        let request = self.request(method, path).timeout(REQUEST_TIMEOUT).json(body);
        let response = self.answered(request).await?;
        self.json(response).await
    }

    /// Sends a request whose answer says nothing but that it was done.
    pub(super) async fn order(&self, method: Method, path: &str) -> Result<(), ClientError> {
        self.answered(self.request(method, path).timeout(REQUEST_TIMEOUT)).await.map(drop)
    }

    pub(super) async fn exists(&self, path: &str) -> Result<bool, ClientError> {
        match self.answered(self.request(Method::HEAD, path).timeout(REQUEST_TIMEOUT)).await {
            Ok(_) => Ok(true),
            Err(ClientError::Problem(problem)) if problem.status == StatusCode::NOT_FOUND.as_u16() => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn upload<A: DeserializeOwned>(
        &self,
        path: &str,
        content_type: &'static str,
        bytes: Bytes,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<A, ClientError> {
        let response = self.answered(self.upload_request(path, content_type, bytes, progress)).await?;
        self.json(response).await
    }

    pub(super) async fn upload_unanswered(
        &self,
        path: &str,
        content_type: &'static str,
        bytes: Bytes,
        progress: impl FnMut(u64) + Send + 'static,
    ) -> Result<(), ClientError> {
        self.answered(self.upload_request(path, content_type, bytes, progress)).await.map(drop)
    }

    /// Sends a request whose answer goes on for as long as there is something to say.
    pub(super) async fn stream(&self, path: &str) -> Result<Response, ClientError> {
        self.answered(self.request(Method::GET, path)).await
    }

    fn upload_request(
        &self,
        path: &str,
        content_type: &'static str,
        mut bytes: Bytes,
        mut progress: impl FnMut(u64) + Send + 'static,
    ) -> RequestBuilder {
        let length = bytes.len() as u64;
        let timeout = REQUEST_TIMEOUT + Duration::from_secs(length / UPLOAD_BYTES_PER_SECOND);
        let mut sent = 0;
        let chunks = std::iter::from_fn(move || {
            if bytes.is_empty() {
                return None;
            }
            let chunk = bytes.split_to(bytes.len().min(UPLOAD_CHUNK));
            sent += chunk.len() as u64;
            progress(sent);
            Some(Ok::<_, std::convert::Infallible>(chunk))
        });
        self.request(Method::PUT, path)
            .timeout(timeout)
            .header(CONTENT_TYPE, content_type)
            .header(CONTENT_LENGTH, length)
            .body(reqwest::Body::wrap_stream(futures_util::stream::iter(chunks)))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let mut url = self.url_of(self.current.load(Ordering::Relaxed)).to_string();
        url.truncate(url.trim_end_matches('/').len());
        self.http.request(method, url + path)
    }

    fn url_of(&self, asked: usize) -> &Url {
        &self.urls[asked % self.urls.len()]
    }

    /// Sends, and sends again what was certainly not carried out: to another coordinator if one does not answer, and
    /// after a moment if none is in charge.
    async fn answered(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let started = Instant::now();
        let mut request = request.build().map_err(|error| ClientError::unreachable(&self.shown, error))?;
        let mut unreached = 0;
        loop {
            self.find().await;
            // Other requests may move on meanwhile: this one is watched where it was sent.
            let asked = self.current.load(Ordering::Relaxed);
            request = self.sent_to(asked, request);
            // A body that is streamed cannot be sent twice.
            let (again, is_head) = (request.try_clone(), request.method() == Method::HEAD);
            let is_safe = request.method().is_safe();
            let answered = tokio::select! {
                answered = self.answered_once(request) => Some(answered),
                () = self.gone(asked) => None,
            };
            let error = match answered {
                Some(Ok(response)) => return Ok(response),
                Some(Err(error)) => error,
                None => {
                    self.leave(asked);
                    match again {
                        Some(again) if is_safe && started.elapsed() < CHARGE_TIME => {
                            request = again;
                            continue;
                        }
                        _ => return Err(ClientError::gone(&self.shown)),
                    }
                }
            };
            if error.problem().is_none() {
                self.doubt();
            }
            let Some(again) = again else { return Err(error) };
            if error.was_not_sent() && unreached + 1 < self.urls.len() {
                unreached += 1;
                self.leave(asked);
            } else if nobody_is_in_charge(&error, is_head) && started.elapsed() < CHARGE_TIME {
                unreached = 0;
                // Another one may know better.
                self.leave(asked);
                tokio::time::sleep(CHARGE_PAUSE).await;
            } else {
                return Err(error);
            }
            request = again;
        }
    }

    /// Returns when the coordinator that is asked does not answer any more, where there are others. One alone is waited
    /// for as long as a request may take.
    async fn gone(&self, asked: usize) {
        if self.urls.len() == 1 {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(FIND_TIME).await;
            if !self.is_there(asked).await {
                return;
            }
        }
    }

    async fn is_there(&self, asked: usize) -> bool {
        let mut url = self.url_of(asked).clone();
        url.set_path(paths::HEALTH);
        let health = self.probe.get(url).timeout(FIND_TIME);
        health.send().await.is_ok_and(|answer| answer.status().is_success())
    }

    /// Asks another coordinator from now on than the one that was `asked`, unless that has happened already.
    fn leave(&self, asked: usize) {
        let next = asked.wrapping_add(1);
        let _left_already = self.current.compare_exchange(asked, next, Ordering::Relaxed, Ordering::Relaxed);
        self.doubt();
    }

    /// Has it found out anew whether the one that is asked is there, where there are others.
    fn doubt(&self) {
        if self.urls.len() > 1 {
            self.is_found.store(false, Ordering::Relaxed);
        }
    }

    /// Of several coordinators finds one that answers. One that is paused accepts connections, and would be waited for.
    async fn find(&self) {
        if self.is_found.load(Ordering::Relaxed) {
            return;
        }
        for _ in 0..self.urls.len() {
            let asked = self.current.load(Ordering::Relaxed);
            if self.is_there(asked).await {
                self.is_found.store(true, Ordering::Relaxed);
                return;
            }
            self.leave(asked);
        }
    }

    /// Returns a request for the coordinator that is to be asked.
    fn sent_to(&self, asked: usize, mut request: Request) -> Request {
        let mut url = self.url_of(asked).clone();
        url.set_path(request.url().path());
        url.set_query(request.url().query());
        *request.url_mut() = url;
        request
    }

    /// Sends and sorts out everything that is not success.
    async fn answered_once(&self, request: Request) -> Result<Response, ClientError> {
        let response =
            self.http.execute(request).await.map_err(|error| ClientError::unreachable(&self.shown, error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let is_problem = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with(CONTENT_TYPE_PROBLEM));
        let body = self.body(response).await?;
        let problem = is_problem.then(|| serde_json::from_slice(&body).ok()).flatten();
        // An answer to HEAD has no body, and a proxy does not speak our language.
        let problem = problem.unwrap_or_else(|| bare_problem(status));
        Err(ClientError::Problem(Box::new(problem)))
    }

    async fn json<A: DeserializeOwned>(&self, response: Response) -> Result<A, ClientError> {
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::bad_answer(error.to_string()))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut body = Vec::new();
        loop {
            let chunk =
                response.chunk().await.map_err(|error| ClientError::unreachable(&self.shown, error))?;
            let Some(chunk) = chunk else { return Ok(body) };
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(ClientError::bad_answer(format!("it has more than {MAX_ANSWER} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
    }
}

/// Returns `path` with the fields of `query`. All our parameters are names, ids, numbers and truth values, none of
/// which needs an escape in a URL.
pub(super) fn with_query(path: &str, query: &impl Serialize) -> String {
    let mut url = path.to_owned();
    let value = serde_json::to_value(query).expect("a query is a plain struct, which always becomes JSON");
    let mut separator = '?';
    for (name, value) in value.as_object().into_iter().flatten() {
        let text = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        url.extend([separator]);
        url.push_str(&format!("{name}={text}"));
        separator = '&';
    }
    url
}

/// Tells whether a request was refused only since no coordinator is in charge at the moment.
fn nobody_is_in_charge(error: &ClientError, is_head: bool) -> bool {
    error.problem().is_some_and(|problem| {
        // The answer to a HEAD has no body that says more; it changes nothing if it is sent again.
        problem.code == code::NOT_IN_CHARGE || (is_head && problem.status == 503)
    })
}

fn parsed(text: &str) -> Result<Url, ClientConfigError> {
    let wrong = || ClientConfigError::Url { url: text.to_owned() };
    let url = Url::parse(text).ok().filter(Url::has_host).ok_or_else(wrong)?;
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_this_machine(&url) => Ok(url),
        "http" => Err(ClientConfigError::Plain { url: text.to_owned() }),
        _ => Err(wrong()),
    }
}

fn is_this_machine(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Returns TLS which trusts the fleet's authority alone: a certificate of a public authority proves nothing here.
pub(super) fn tls(authority_pem: &str, is_needed: bool) -> Result<rustls::ClientConfig, ClientConfigError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority_pem.as_bytes()) {
        let certificate = certificate.map_err(|_| ClientConfigError::Authority)?;
        roots.add(certificate).map_err(|_| ClientConfigError::Authority)?;
    }
    if is_needed && roots.is_empty() {
        return Err(ClientConfigError::Authority);
    }
    // The provider is named here, so that no process-wide default is needed.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(ClientConfigError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn bare_problem(status: StatusCode) -> Problem {
    let code = match status {
        StatusCode::UNAUTHORIZED => code::UNAUTHORIZED,
        StatusCode::NOT_FOUND => code::NOT_FOUND,
        StatusCode::TOO_MANY_REQUESTS => code::BUSY,
        StatusCode::SERVICE_UNAVAILABLE => code::UNAVAILABLE,
        status if status.is_server_error() => code::INTERNAL,
        _ => code::INVALID_REQUEST,
    };
    Problem::new(status.as_u16(), code, format!("the coordinator answered {status}"), "")
}
