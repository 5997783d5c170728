//! A host for tests, and what else a test of a guest needs. It is there where a guest is not compiled to wasm.
//!
//! ```
//! use dunlin_guest::{Request, Response, Result, test};
//!
//! #[dunlin_guest::service]
//! async fn greet(request: Request) -> Result<Response> {
//!     let greeting = dunlin_guest::config::get("greeting")?.unwrap_or("good day".into());
//!     Ok(Response::new(format!("{greeting}, {}\n", request.uri().path()).into()))
//! }
//!
//! let host = test::Host::new().config("greeting", "ahoy");
//! let response = host.run(greet(test::get("/ada")))?;
//! assert_eq!(test::text(response)?, "ahoy, /ada\n");
//! # Ok::<(), dunlin_guest::Error>(())
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io::Cursor;
use std::rc::Rc;

use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, Uri};

pub use crate::block_on;
use crate::{Body, Bytes, Error, ErrorCode, Item, Outputs, Request, Response, Result, log_level, platform};

/// A host that gives what a test says, and remembers what the guest has done.
#[derive(Clone, Debug, Default)]
pub struct Host(Rc<RefCell<State>>);

impl Host {
    /// Returns a host without configuration, which answers no request.
    #[must_use]
    pub fn new() -> Self {
        log_level::install_for_tests();
        Self::default()
    }

    /// Gives the configuration a value.
    #[must_use]
    pub fn config(self, key: &str, value: &str) -> Self {
        self.0.borrow_mut().config.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Gives the guest a secret: it is found by its name and is not among all values.
    #[must_use]
    pub fn secret(self, name: &str, value: &str) -> Self {
        self.0.borrow_mut().secrets.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Answers requests with this method and URI so. If it is called for the same ones again, the answers are given in
    /// turn, and the last one from then on.
    ///
    /// # Panics
    ///
    /// If the method or the URI is none, or the response's body gives an error.
    #[must_use]
    pub fn answer(self, method: &str, uri: &str, response: Response) -> Self {
        let (parts, mut body) = response.into_parts();
        let body = platform::block_on(body.bytes()).expect("the body of a scripted answer can be read");
        self.script(method, uri, Answer::Response { status: parts.status, headers: parts.headers, body })
    }

    /// Lets requests with this method and URI fail so.
    ///
    /// # Panics
    ///
    /// If the method or the URI is none.
    #[must_use]
    pub fn fail(self, method: &str, uri: &str, code: ErrorCode) -> Self {
        self.script(method, uri, Answer::Failure(code))
    }

    fn script(self, method: &str, uri: &str, answer: Answer) -> Self {
        let method = method.parse().expect("the method of a scripted answer is one");
        let uri = uri.parse().expect("the URI of a scripted answer is one");
        self.0.borrow_mut().script.push(Scripted { method, uri, answer });
        self
    }

    /// Runs a future, such as a service's function gives, with this host around it.
    pub fn run<F: Future>(&self, future: F) -> F::Output {
        self.within(|| block_on(future))
    }

    /// Calls a function, such as that of a job, with this host around it.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        platform::with_host(&self.0, work)
    }

    /// Returns the lines that were logged: level, context and message, as in `INFO greeter: somebody asks`.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.0.borrow().log.clone()
    }

    /// Returns the requests that were sent, in order.
    #[must_use]
    pub fn sent(&self) -> Vec<Sent> {
        self.0.borrow().sent.clone()
    }
}

/// A request that a guest has sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Its method.
    pub method: Method,
    /// Where it went.
    pub uri: Uri,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its whole body.
    pub body: Vec<u8>,
}

/// Returns a request `GET uri` without a body.
///
/// # Panics
///
/// If the URI is none.
#[must_use]
pub fn get(uri: &str) -> Request {
    http::Request::get(uri).body(Body::empty()).expect("the URI of a test's request is one")
}

/// Returns a request `POST uri` with this body.
///
/// # Panics
///
/// If the URI is none.
#[must_use]
pub fn post(uri: &str, body: impl Into<Body>) -> Request {
    http::Request::post(uri).body(body.into()).expect("the URI of a test's request is one")
}

/// Reads the body of a response as text.
///
/// # Errors
///
/// If the body gives an error or is not UTF-8.
pub fn text(response: Response) -> Result<String> {
    // Also within a future: it is the test that reads, and not the guest.
    platform::block_on(response.into_body().text())
}

/// Returns the first item of a run, in its first attempt, with this name and input.
#[must_use]
pub fn item(name: &str, input: impl AsRef<[u8]>) -> Item {
    Item::new(name.to_owned(), Box::new(Cursor::new(input.as_ref().to_vec())))
}

impl Item {
    /// Returns it with this number within the run. For tests only.
    #[must_use]
    pub fn with_index(self, index: u32) -> Self {
        Self { index, ..self }
    }

    /// Returns it in this attempt. For tests only.
    #[must_use]
    pub fn with_attempt(self, attempt: u32) -> Self {
        Self { attempt, ..self }
    }
}

/// Returns what the function that combines reads, if the items have given these outputs.
#[must_use]
pub fn outputs(outputs: impl AsRef<[u8]>) -> Outputs {
    Outputs(Box::new(Cursor::new(outputs.as_ref().to_vec())))
}

/// What a host gives, and what a guest has done.
#[derive(Debug, Default)]
pub(crate) struct State {
    config: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
    script: Vec<Scripted>,
    sent: Vec<Sent>,
    log: Vec<String>,
}

impl State {
    pub(crate) fn config_value(&self, key: &str) -> Option<String> {
        self.config.get(key).or_else(|| self.secrets.get(key)).cloned()
    }

    pub(crate) fn config_values(&self) -> Vec<(String, String)> {
        self.config.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    pub(crate) fn log(&mut self, line: String) {
        self.log.push(line);
    }

    /// Answers a request by the script.
    pub(crate) fn send(&mut self, parts: Parts, body: Bytes) -> Result<Response> {
        let Parts { method, uri, headers, .. } = parts;
        let fits = |scripted: &Scripted| scripted.method == method && scripted.uri == uri;
        let answer = match self.script.iter().position(fits) {
            None => Err(self.unexpected(&method, &uri)),
            Some(first) if self.script.iter().filter(|scripted| fits(scripted)).count() > 1 => {
                self.script.remove(first).answer.give()
            }
            Some(last) => self.script[last].answer.give(),
        };
        self.sent.push(Sent { method, uri, headers, body: body.to_vec() });
        answer
    }

    fn unexpected(&self, method: &Method, uri: &Uri) -> Error {
        let scripted: Vec<String> =
            self.script.iter().map(|scripted| format!("{} {}", scripted.method, scripted.uri)).collect();
        let scripted = if scripted.is_empty() { "nothing".to_owned() } else { scripted.join(", ") };
        Error::msg(format!("the test has no answer to {method} {uri}; what it scripts: {scripted}"))
    }
}

#[derive(Debug)]
struct Scripted {
    method: Method,
    uri: Uri,
    answer: Answer,
}

#[derive(Debug)]
enum Answer {
    Response { status: StatusCode, headers: HeaderMap, body: Bytes },
    Failure(ErrorCode),
}

impl Answer {
    fn give(&self) -> Result<Response> {
        match self {
            Self::Failure(code) => Err(code.clone().into()),
            Self::Response { status, headers, body } => {
                let mut response = Response::new(body.clone().into());
                *response.status_mut() = *status;
                *response.headers_mut() = headers.clone();
                Ok(response)
            }
        }
    }
}

#[cfg(test)]
mod tests;
