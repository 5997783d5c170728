//! Outgoing HTTP. Bodies are streamed both ways: nothing is held as a whole unless it is asked for.

use std::time::Duration;

use wasip2::http::types::ErrorCode;

use crate::{Body, Context, Request, Response, Result, platform};

/// Sends a request and returns the response as soon as its head is here; the request's body may still be on its way.
///
/// The body of the response comes while it is read: read it by [`Body::text`] or [`Body::next`], or give it on as the
/// body of another response or request.
/// Redirects are not followed and nothing is unpacked.
///
/// ```
/// # use dunlin_guest::{Response, Result, test::Host};
/// use dunlin_guest::http::Request;
///
/// async fn price(article: &str) -> Result<String> {
///     let request = Request::get(format!("https://prices.example.com/{article}")).body(())?;
///     let mut response = dunlin_guest::send(request).await?;
///     response.body_mut().text().await
/// }
///
/// let host = Host::new().answer("GET", "https://prices.example.com/tea", Response::new("4.20".into()));
/// assert_eq!(host.run(price("tea"))?, "4.20");
/// # Ok::<(), dunlin_guest::Error>(())
/// ```
///
/// # Errors
///
/// If the manifest does not grant it (`outbound_http`), or the other side cannot be reached or breaks off. An answer
/// with a status like 404 or 500 is not an error.
pub async fn send<B: Into<Body>>(request: http::Request<B>) -> Result<Response> {
    Client::new().send(request).await
}

/// Sends requests with a limit to its patience.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client {
    patience: Option<Duration>,
}

impl Client {
    /// Returns one that waits as long as the host lets it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns one that waits at most so long for the connection, for the first byte of the response, and for each
    /// next byte of its body.
    #[must_use]
    pub fn patience(self, longest: Duration) -> Self {
        Self { patience: Some(longest) }
    }

    /// Sends a request, like [`send`].
    ///
    /// # Errors
    ///
    /// As of [`send`], and if something took longer than the patience.
    pub async fn send<B: Into<Body>>(&self, request: http::Request<B>) -> Result<Response> {
        let request: Request = request.map(Into::into);
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let sent = platform::send(request, self.patience).await;
        let sent = sent.map_err(|error| match error.downcast_ref() {
            Some(ErrorCode::HttpRequestDenied) => {
                let scheme = uri.scheme_str().unwrap_or("https");
                let authority = uri.authority().map_or("", |authority| authority.as_str());
                error.context(format!(
                    "it is not granted: add `outbound_http = [\"{scheme}://{authority}\"]` to the capabilities in dunlin.toml"
                ))
            }
            _ => error,
        });
        sent.with_context(|| format!("cannot send {method} {uri}"))
    }
}
