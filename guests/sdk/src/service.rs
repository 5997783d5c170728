//! A service: from what the host hands over to the author's function, and back.

use std::process::ExitCode;

use crate::log_level::Level;
use crate::{Body, Error, platform};

/// A request: method, URI and headers, and a body that comes while it is read.
pub type Request = http::Request<Body>;

/// A response: status and headers, and a body that goes out while it is made.
pub type Response = http::Response<Body>;

/// What a guest's functions give back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What `main` of a service does: a service is not run, it is asked.
pub fn not_a_program() -> ExitCode {
    platform::log(
        Level::Error,
        "dunlin-guest",
        "this is a service, not a program; `dunlin serve` serves its component",
    );
    ExitCode::FAILURE
}

#[cfg(target_family = "wasm")]
pub use answer::serve;

/// What there is to do for one request.
#[cfg(target_family = "wasm")]
mod answer {
    use std::future::Future;

    use http::{HeaderValue, StatusCode, header};
    use wasip2::http::types::{IncomingRequest, ResponseOutparam};

    use crate::log_level::{Level, install};
    use crate::{Bytes, Error, Request, Response, block_on, platform};

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
        // One that is none is refused below.
        let method = platform::method(request.method()).unwrap_or_default();
        block_on(async move {
            let answer = match platform::request(request) {
                Ok(request) => function(request).await.unwrap_or_else(|error| failed(&error.into())),
                Err(error) => refused(&error),
            };
            if let Err(error) = platform::respond(&method, answer, response).await {
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
        let mut response = Response::new(Bytes::from_static(body.as_bytes()).into());
        *response.status_mut() = status;
        let text = HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().append(header::CONTENT_TYPE, text);
        response
    }
}
