//! One registry, asked by HTTP as the OCI distribution specification has it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::Digest;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder, Response, Url};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Deserialize;

use crate::artifact::{Artifact, Descriptor, Layer, MAX_LAYERS, Manifest, layout};
use crate::challenge::{Challenge, may_ask};
use crate::{Credentials, CredentialsError, Login, Reference};

/// The most bytes of a manifest: what the specification has registries take at least.
const MAX_MANIFEST: u64 = 4 << 20;
/// The most bytes of what a registry says of an error, or of a token.
const MAX_SAID: u64 = 64 << 10;
/// The most bytes of it that are shown.
const SHOWN: usize = 300;
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long nothing may come.
const READ_TIME: Duration = Duration::from_secs(30);
/// What a link takes at least, in bytes a second: by this it is known how long bytes may be under way.
const SLOWEST: u64 = 16 << 10;
const MAX_REDIRECTS: usize = 5;

/// Why an artifact does not get to a registry, or from there.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The registry cannot be asked.
    #[error("{registry} cannot be reached")]
    Unreachable {
        /// Which.
        registry: String,
        /// Why not. It does not name the address, which can open a door.
        #[source]
        source: reqwest::Error,
    },
    /// It says nothing.
    #[error("{registry} was silent for {} s", after.as_secs())]
    Silent {
        /// Which.
        registry: String,
        /// For so long.
        after: Duration,
    },
    /// It wants to know who asks, and that cannot be found out.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// It wants to know who asks, and does not take what it is told.
    #[error("{registry} does not let this user in: {why}")]
    Denied {
        /// Which.
        registry: String,
        /// What it said, or what it lacks.
        why: String,
    },
    /// It wants the password told to somebody else.
    #[error("{registry} wants to know from {realm} who asks, which is not asked: {why}")]
    ForeignRealm {
        /// Which.
        registry: String,
        /// Who it names.
        realm: String,
        /// What is wrong with that.
        why: &'static str,
    },
    /// It has no such artifact.
    #[error("{registry} has no {what}")]
    NotFound {
        /// Which.
        registry: String,
        /// What was asked for.
        what: String,
    },
    /// It says no, or something that makes no sense.
    #[error("{registry} answered {status}: {said}")]
    Refused {
        /// Which.
        registry: String,
        /// What it answered.
        status: StatusCode,
        /// What it said.
        said: String,
    },
    /// What came is longer than it may be.
    #[error("{what} of {registry} is too large: limit is {limit} bytes, observed {observed}")]
    TooLarge {
        /// Which.
        registry: String,
        /// What came.
        what: String,
        /// The most that is taken.
        limit: u64,
        /// How much it is at least.
        observed: u64,
    },
    /// What came is not what it should be.
    #[error("{registry} sent other bytes than {expected}: they are {observed}")]
    OtherBytes {
        /// Which.
        registry: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        observed: Digest,
    },
    /// What is there is of another kind.
    #[error("what {registry} has there cannot be used: {why}")]
    OtherKind {
        /// Which.
        registry: String,
        /// Why not.
        why: String,
    },
    /// The certificates that are to be trusted cannot be read.
    #[error("the authorities for registries cannot be used")]
    Authorities,
}

/// Whom to believe besides those whom everybody believes.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// Certificates of authorities, PEM.
    pub authorities: Vec<u8>,
    /// Hosts that give tokens for registries with other names.
    pub token_hosts: Vec<String>,
}

/// A registry, and who asks it.
#[derive(Debug)]
pub struct Registry {
    /// Asks for something, wherever the registry has it.
    client: Client,
    /// Brings something, to nobody but the registry.
    uploads: Client,
    place: Reference,
    login: Login,
    token_hosts: Vec<String>,
    /// What opens the door, once the registry has said what it wants.
    authorization: Mutex<Option<HeaderValue>>,
}

impl Registry {
    /// Returns the registry of a reference. It is asked by TLS, unless it is on this machine.
    pub fn of(place: &Reference, login: Login, trust: Trust) -> Result<Self, RegistryError> {
        let Trust { authorities, token_hosts } = trust;
        let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for authority in CertificateDer::pem_slice_iter(&authorities) {
            let added = authority.map(|authority| roots.add(authority));
            if !matches!(added, Ok(Ok(()))) {
                return Err(RegistryError::Authorities);
            }
        }
        // The provider is named here, so that no process-wide default is needed.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| RegistryError::Authorities)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = |redirects| {
            let mut builder = Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .connect_timeout(CONNECT_TIME)
                .redirect(redirects)
                .user_agent(concat!("dunlin/", env!("CARGO_PKG_VERSION")));
            // What is in the clear does not leave this machine.
            if place.is_loopback() {
                builder = builder.no_proxy();
            }
            let failed =
                |source| RegistryError::Unreachable { registry: place.registry().to_owned(), source };
            builder.build().map_err(failed)
        };
        Ok(Self {
            client: client(Policy::custom(redirected))?,
            uploads: client(Policy::none())?,
            place: place.clone(),
            login,
            token_hosts,
            authorization: Mutex::new(None),
        })
    }

    /// Brings an artifact to the place of the reference, and returns the digest of its manifest.
    pub async fn push(&self, artifact: &Artifact) -> Result<Digest, RegistryError> {
        for layer in std::iter::once(&artifact.config).chain(&artifact.layers) {
            self.push_blob(layer).await?;
        }
        let manifest =
            serde_json::to_vec(&artifact.manifest()).map_err(|error| self.other(error.to_string()))?;
        let digest = Digest::of(&manifest);
        let url = self.url(&format!("manifests/{}", self.place.version()))?;
        let request = self.uploads.put(url).header(CONTENT_TYPE, layout::MANIFEST).body(manifest);
        let response = self.send(request, Scope::Push).await?;
        self.expect(response, &[StatusCode::CREATED, StatusCode::OK], "repository to push to").await?;
        Ok(digest)
    }

    /// Returns the artifact at the place of the reference, of at most `limit` bytes, and the digest of its manifest.
    pub async fn pull(&self, limit: u64) -> Result<(Artifact, Digest), RegistryError> {
        let (manifest, digest) = self.manifest().await?;
        let parts = || std::iter::once(&manifest.config).chain(&manifest.layers);
        if manifest.layers.len() > MAX_LAYERS {
            let why = format!("limit is {MAX_LAYERS} layers, observed {}", manifest.layers.len());
            return Err(self.other(why));
        }
        let total = parts().fold(0_u64, |total, part| total.saturating_add(part.size));
        if total > limit {
            return Err(self.too_large("the artifact", limit, total));
        }
        let mut pulled = Vec::new();
        for part in parts() {
            pulled.push(part.clone().with(self.blob(part).await?));
        }
        let config = pulled.remove(0);
        let Manifest { artifact_type, annotations, .. } = manifest;
        Ok((Artifact { artifact_type, config, layers: pulled, annotations }, digest))
    }

    async fn manifest(&self) -> Result<(Manifest, Digest), RegistryError> {
        let url = self.url(&format!("manifests/{}", self.place.version()))?;
        let response = self.send(self.client.get(url).header(ACCEPT, layout::MANIFEST), Scope::Pull).await?;
        let what = format!("`{}`", self.place);
        let response = self.expect(response, &[StatusCode::OK], &what).await?;
        let bytes = self.read(response, "the manifest", MAX_MANIFEST).await?;
        let observed = Digest::of(&bytes);
        if let Some(expected) = self.place.digest().filter(|expected| *expected != observed) {
            return Err(RegistryError::OtherBytes { registry: self.registry(), expected, observed });
        }
        let manifest: Manifest = serde_json::from_slice(&bytes)
            .map_err(|error| self.other(format!("it is no artifact with a config and layers: {error}")))?;
        match manifest.media_type.as_deref() {
            None | Some(layout::MANIFEST) => Ok((manifest, observed)),
            Some(other) => Err(self.other(format!("it is of the type `{other}`"))),
        }
    }

    async fn blob(&self, part: &Descriptor) -> Result<Bytes, RegistryError> {
        let url = self.url(&format!("blobs/{}", part.digest))?;
        let response = self.send(self.client.get(url), Scope::Pull).await?;
        let what = format!("blob {} of `{}`", part.digest, self.place);
        let response = self.expect(response, &[StatusCode::OK], &what).await?;
        let bytes = self.read(response, &what, part.size).await?;
        let observed = Digest::of(&bytes);
        if observed == part.digest {
            return Ok(bytes);
        }
        Err(RegistryError::OtherBytes { registry: self.registry(), expected: part.digest, observed })
    }

    /// Brings bytes to the registry, unless it has them.
    async fn push_blob(&self, layer: &Layer) -> Result<(), RegistryError> {
        let digest = Digest::of(&layer.bytes);
        let there = self.client.head(self.url(&format!("blobs/{digest}"))?);
        if self.send(there, Scope::Push).await?.status() == StatusCode::OK {
            return Ok(());
        }
        let begin = self.uploads.post(self.url("blobs/uploads/")?).header(CONTENT_LENGTH, 0);
        let begun = self.send(begin, Scope::Push).await?;
        let begun = self.expect(begun, &[StatusCode::ACCEPTED], "repository to push to").await?;
        let location = begun.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location = location.and_then(|location| begun.url().join(location).ok());
        let mut location =
            location.ok_or_else(|| self.other("it names no place for the bytes".to_owned()))?;
        if !self.is_own(&location) {
            return Err(self.other(format!("it wants the bytes brought to {}", location.authority())));
        }
        location.query_pairs_mut().append_pair("digest", &digest.to_string());
        let request = self.uploads.put(location).header(CONTENT_TYPE, "application/octet-stream");
        let patience = READ_TIME + Duration::from_secs(layer.bytes.len() as u64 / SLOWEST);
        let sent = self.send_within(request.body(layer.bytes.clone()), Scope::Push, patience).await?;
        self.expect(sent, &[StatusCode::CREATED], "repository to push to").await.map(drop)
    }

    /// Sends a request; if the registry wants to know who asks, it is told, and asked again.
    async fn send(&self, request: RequestBuilder, scope: Scope) -> Result<Response, RegistryError> {
        self.send_within(request, scope, READ_TIME).await
    }

    async fn send_within(
        &self,
        request: RequestBuilder,
        scope: Scope,
        patience: Duration,
    ) -> Result<Response, RegistryError> {
        let again = request.try_clone();
        let known = self.authorization.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let response = self.sent(with(request, known), patience).await?;
        // A token may be for less than this, or too old.
        let (Some(again), StatusCode::UNAUTHORIZED) = (again, response.status()) else { return Ok(response) };
        let Some(authorization) = self.authorize(response.headers(), scope).await? else {
            return Ok(response);
        };
        *self.authorization.lock().unwrap_or_else(PoisonError::into_inner) = Some(authorization.clone());
        self.sent(with(again, Some(authorization)), patience).await
    }

    async fn sent(&self, request: RequestBuilder, patience: Duration) -> Result<Response, RegistryError> {
        self.within(patience, request.send()).await
    }

    /// Waits for the registry, but not for ever.
    async fn within<T>(
        &self,
        patience: Duration,
        asked: impl Future<Output = Result<T, reqwest::Error>>,
    ) -> Result<T, RegistryError> {
        match tokio::time::timeout(patience, asked).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(source)) => {
                Err(RegistryError::Unreachable { registry: self.registry(), source: source.without_url() })
            }
            Err(_) => Err(RegistryError::Silent { registry: self.registry(), after: patience }),
        }
    }

    fn credentials(&self) -> Result<Option<Credentials>, RegistryError> {
        match &self.login {
            Login::Nobody => Ok(None),
            Login::Known(credentials) => Ok(Some(credentials.clone())),
            Login::OfDocker => Ok(Credentials::find(self.place.registry())?),
        }
    }

    /// Returns what opens the door that was closed with these headers; nothing if there is nothing to open it with.
    async fn authorize(
        &self,
        headers: &HeaderMap,
        scope: Scope,
    ) -> Result<Option<HeaderValue>, RegistryError> {
        let said = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let mut said = said.filter_map(Challenge::read);
        match said.next() {
            None => Ok(None),
            Some(Challenge::Basic) => {
                let Some(Credentials { user, password }) = self.credentials()? else { return Ok(None) };
                let request = self.client.request(Method::GET, self.base()?).basic_auth(user, Some(password));
                let built = request.build();
                Ok(built.ok().and_then(|mut request| request.headers_mut().remove(AUTHORIZATION)))
            }
            Some(Challenge::Bearer { realm, service }) => {
                let (host, is_loopback) = (self.place.host(), self.place.is_loopback());
                may_ask(host, &realm, is_loopback, &self.token_hosts).map_err(|why| {
                    RegistryError::ForeignRealm { registry: self.registry(), realm: realm.clone(), why }
                })?;
                self.token(&realm, service.as_deref(), scope).await.map(Some)
            }
        }
    }

    async fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Scope,
    ) -> Result<HeaderValue, RegistryError> {
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let mut url = Url::parse(realm).map_err(|error| self.other(error.to_string()))?;
        let scope = format!("repository:{}:{}", self.place.repository(), scope.actions());
        url.query_pairs_mut().append_pair("scope", &scope);
        if let Some(service) = service {
            url.query_pairs_mut().append_pair("service", service);
        }
        let mut request = self.client.get(url);
        if let Some(Credentials { user, password }) = self.credentials()? {
            request = request.basic_auth(user, Some(password));
        }
        let response = self.sent(request, READ_TIME).await?;
        let response = self.expect(response, &[StatusCode::OK], "place that gives tokens").await?;
        let bytes = self.read(response, "a token", MAX_SAID).await?;
        let token: Option<Token> = serde_json::from_slice(&bytes).ok();
        let token = token.and_then(|it| it.token.or(it.access_token));
        let header = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
        let mut header = header.ok_or_else(|| self.other("what it gives is no token".to_owned()))?;
        header.set_sensitive(true);
        Ok(header)
    }

    /// Returns a response that is as expected; what else it says is an error.
    async fn expect(
        &self,
        response: Response,
        expected: &[StatusCode],
        what: &str,
    ) -> Result<Response, RegistryError> {
        let status = response.status();
        if expected.contains(&status) {
            return Ok(response);
        }
        let registry = self.registry();
        if status == StatusCode::NOT_FOUND {
            return Err(RegistryError::NotFound { registry, what: what.to_owned() });
        }
        let said = self.read(response, "an answer", MAX_SAID).await.unwrap_or_default();
        let said: String = String::from_utf8_lossy(&said).trim().chars().take(SHOWN).collect();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            let has_password = self.credentials().is_ok_and(|found| found.is_some());
            let nobody =
                if has_password { "" } else { "there is no password for it in Docker's config file; " };
            let why = format!("{nobody}it answered {status}: {said}");
            return Err(RegistryError::Denied { registry, why });
        }
        Err(RegistryError::Refused { registry, status, said })
    }

    /// Returns a body of at most `limit` bytes.
    async fn read(&self, mut response: Response, what: &str, limit: u64) -> Result<Bytes, RegistryError> {
        if let Some(length) = response.content_length().filter(|length| *length > limit) {
            return Err(self.too_large(what, limit, length));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.within(READ_TIME, response.chunk()).await? {
            let observed = (bytes.len() + chunk.len()) as u64;
            if observed > limit {
                return Err(self.too_large(what, limit, observed));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.into())
    }

    fn base(&self) -> Result<Url, RegistryError> {
        let scheme = if self.place.is_loopback() { "http" } else { "https" };
        let url = format!("{scheme}://{}/v2/{}/", self.place.host(), self.place.repository());
        Url::parse(&url).map_err(|error| self.other(error.to_string()))
    }

    fn url(&self, below: &str) -> Result<Url, RegistryError> {
        self.base()?.join(&format!("./{below}")).map_err(|error| self.other(error.to_string()))
    }

    /// Tells whether a URL is one of the registry itself.
    fn is_own(&self, url: &Url) -> bool {
        self.base().is_ok_and(|base| base.origin() == url.origin())
    }

    fn registry(&self) -> String {
        self.place.registry().to_owned()
    }

    fn other(&self, why: String) -> RegistryError {
        RegistryError::OtherKind { registry: self.registry(), why }
    }

    fn too_large(&self, what: &str, limit: u64, observed: u64) -> RegistryError {
        RegistryError::TooLarge { registry: self.registry(), what: what.to_owned(), limit, observed }
    }
}

/// For what a token is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Pull,
    Push,
}

impl Scope {
    const fn actions(self) -> &'static str {
        match self {
            Self::Pull => "pull",
            Self::Push => "pull,push",
        }
    }
}

fn with(request: RequestBuilder, authorization: Option<HeaderValue>) -> RequestBuilder {
    match authorization {
        Some(authorization) => request.header(AUTHORIZATION, authorization),
        None => request,
    }
}

/// Follows a registry to where it keeps its bytes, but never from TLS into the clear. The client itself leaves what opens
/// the door out of requests to other hosts.
fn redirected(attempt: reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action {
    let was_secret = attempt.previous().first().is_some_and(|first| first.scheme() == "https");
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error("the registry sends from one place to the other");
    }
    if was_secret && attempt.url().scheme() != "https" {
        return attempt.error("the registry sends to a place that is not reached by TLS");
    }
    attempt.follow()
}
