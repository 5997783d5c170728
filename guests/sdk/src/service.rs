//! A service: from what the host hands over to the author's function, and back.

use std::process::ExitCode;

use wstd::http::Body;

use crate::Error;

/// A request: method, URI and headers, and a body that comes while it is read.
pub type Request = http::Request<Body>;

/// A response: status and headers, and a body that goes out while it is made.
pub type Response = http::Response<Body>;

/// What a guest's functions give back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What `main` of a service does: a service is not run, it is asked.
pub fn not_a_program() -> ExitCode {
    eprintln!("error: this is a service, not a program; `dunlin serve` serves its component");
    ExitCode::FAILURE
}

#[cfg(target_family = "wasm")]
pub use answer::serve;

/// What there is to do for one request.
#[cfg(target_family = "wasm")]
mod answer {
    use std::future::Future;

    use http::header::{self, HeaderMap, HeaderName};
    use http::{HeaderValue, StatusCode};
    use wasip2::http::types::{IncomingRequest, ResponseOutparam};
    use wstd::http::request::try_from_incoming;
    use wstd::http::server::Responder;

    use crate::log_level::{Level, install};
    use crate::{Error, Request, Response, platform};

    /// Headers that are about one connection. A guest has none in its hands, and the host refuses a message with them.
    const OF_A_CONNECTION: [HeaderName; 9] = [
        header::CONNECTION,
        HeaderName::from_static("http2-settings"),
        HeaderName::from_static("keep-alive"),
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        HeaderName::from_static("proxy-connection"),
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::HOST,
    ];

    /// Answers one request with what `function` makes of it.
    pub fn serve<F, E>(
        request: IncomingRequest,
        response: ResponseOutparam,
        function: impl FnOnce(Request) -> F,
    ) where
        F: Future<Output = Result<Response, E>>,
        E: Into<Error>,
    {
        install();
        let responder = Responder::new(response);
        platform::block_on(async move {
            let mut answer = match try_from_incoming(request) {
                Ok(request) => function(request).await.unwrap_or_else(|error| failed(&error.into())),
                Err(error) => refused(&error),
            };
            without_those_of_a_connection(answer.headers_mut());
            if let Err(error) = responder.respond(answer).await {
                platform::log(
                    Level::Warn,
                    "dunlin-guest",
                    &format!("the response was not sent to its end: {error:#}"),
                );
            }
        });
    }

    /// Writes the error into the log, and tells the client nothing of it: it may hold what is not for clients.
    fn failed(error: &Error) -> Response {
        platform::log(Level::Error, "dunlin-guest", &format!("the request failed: {error:#}"));
        text(StatusCode::INTERNAL_SERVER_ERROR, "internal server error\n")
    }

    fn refused(error: &Error) -> Response {
        platform::log(Level::Warn, "dunlin-guest", &format!("the request cannot be read: {error:#}"));
        text(StatusCode::BAD_REQUEST, "bad request\n")
    }

    fn text(status: StatusCode, body: &'static str) -> Response {
        let mut response = Response::new(body.into());
        *response.status_mut() = status;
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }

    fn without_those_of_a_connection(headers: &mut HeaderMap) {
        for name in OF_A_CONNECTION {
            headers.remove(name);
        }
    }
}
