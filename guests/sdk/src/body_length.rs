//! What a message says of the length of its body, made to fit the body.
//!
//! A host breaks a message off whose body is not as long as `content-length` says, and leaves a body out where its client
//! knows no way to send one of unknown length.

use http::header::CONTENT_LENGTH;
use http::{Method, request};

use crate::body::Inner;
use crate::{Body, Result};

/// What the head of a message should say of its body. The one who sends it does, as to change a `HeaderMap` would bring
/// much code into each component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// Whatever it says already.
    AsSaid,
    Unsaid,
    Of(usize),
}

/// Returns what a request should say of its body, and the body.
pub(crate) async fn fit_request(parts: &request::Parts, body: Body) -> Result<(Length, Body)> {
    // With these, clients send no body of which they do not know the length.
    let is_mostly_empty = matches!(parts.method, Method::GET | Method::HEAD | Method::CONNECT);
    let bytes = match body.0 {
        Inner::Whole(bytes) => bytes,
        streamed if is_mostly_empty && !parts.headers.contains_key(CONTENT_LENGTH) => {
            Body(streamed).bytes().await?
        }
        streamed => return Ok((Length::AsSaid, Body(streamed))),
    };
    let length = if is_mostly_empty && bytes.is_empty() { Length::Unsaid } else { Length::Of(bytes.len()) };
    Ok((length, bytes.into()))
}

/// Returns what a response to this method should say of its body, and whether the body goes with it.
#[cfg(any(test, target_family = "wasm"))]
pub(crate) fn fit_response(method: &Method, parts: &http::response::Parts, body: &Body) -> (Length, bool) {
    use http::StatusCode;

    if matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return (Length::Unsaid, false);
    }
    let is_head = method == Method::HEAD;
    let length = match &body.0 {
        // What was passed on says how long the body of GET is; nobody else knows.
        Inner::Whole(bytes) if is_head && bytes.is_empty() => Length::AsSaid,
        Inner::Whole(bytes) => Length::Of(bytes.len()),
        _ => Length::AsSaid,
    };
    (length, !is_head)
}

#[cfg(not(target_family = "wasm"))]
impl Length {
    /// Lets these headers say it.
    pub(crate) fn say(self, headers: &mut http::HeaderMap) {
        match self {
            Self::AsSaid => {}
            Self::Unsaid => drop(headers.remove(CONTENT_LENGTH)),
            Self::Of(length) => drop(headers.insert(CONTENT_LENGTH, length.into())),
        }
    }
}

#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests {
    use super::*;
    use crate::{Bytes, test};

    const STALE: &str = "1234";

    /// Returns the length that a response says, if any, and whether a body goes with it.
    fn response(method: &Method, status: u16, declared: Option<&str>, body: Body) -> (Option<String>, bool) {
        let mut response = http::Response::builder().status(status);
        if let Some(declared) = declared {
            response = response.header(CONTENT_LENGTH, declared);
        }
        let (mut parts, body) = response.body(body).unwrap().into_parts();
        let (length, has_body) = fit_response(method, &parts, &body);
        length.say(&mut parts.headers);
        (said(&parts.headers), has_body)
    }

    /// Returns the length that a request says, if any, and the body that is sent.
    fn request(method: Method, declared: Option<&str>, body: Body) -> (Option<String>, String) {
        let mut request = http::Request::builder().method(method);
        if let Some(declared) = declared {
            request = request.header(CONTENT_LENGTH, declared);
        }
        let (mut parts, body) = request.body(body).unwrap().into_parts();
        let (length, mut body) = test::block_on(fit_request(&parts, body)).unwrap();
        length.say(&mut parts.headers);
        (said(&parts.headers), test::block_on(body.text()).unwrap())
    }

    fn said(headers: &http::HeaderMap) -> Option<String> {
        Some(headers.get(CONTENT_LENGTH)?.to_str().unwrap().to_owned())
    }

    fn pieces(text: &'static str) -> Body {
        let mut left = Some(Bytes::from(text)).filter(|text| !text.is_empty());
        Body::from_fn(async move || Ok(left.take()))
    }

    fn says(length: &str) -> Option<String> {
        Some(length.to_owned())
    }

    #[test]
    fn an_answer_to_head_says_the_length_and_has_no_body() {
        assert_eq!(response(&Method::HEAD, 200, Some(STALE), ().into()), (says(STALE), false));
        assert_eq!(response(&Method::HEAD, 200, Some(STALE), pieces("x")), (says(STALE), false));
        assert_eq!(response(&Method::HEAD, 200, None, "four".into()), (says("4"), false));
        assert_eq!(response(&Method::HEAD, 200, None, ().into()), (None, false));
    }

    #[test]
    fn an_answer_that_never_has_a_body_says_no_length() {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(response(&method, 204, Some(STALE), "x".into()), (None, false));
            assert_eq!(response(&method, 304, Some(STALE), pieces("x")), (None, false));
        }
    }

    #[test]
    fn a_whole_body_goes_with_its_length_whatever_was_said() {
        assert_eq!(response(&Method::GET, 200, Some(STALE), "four".into()), (says("4"), true));
        assert_eq!(response(&Method::GET, 200, None, ().into()), (says("0"), true));
        assert_eq!(request(Method::POST, Some(STALE), "four".into()), (says("4"), "four".to_owned()));
        assert_eq!(request(Method::POST, None, ().into()), (says("0"), String::new()));
    }

    #[test]
    fn a_streamed_body_keeps_what_is_said_of_it() {
        assert_eq!(response(&Method::GET, 200, Some("4"), pieces("four")), (says("4"), true));
        assert_eq!(response(&Method::GET, 200, None, pieces("four")), (None, true));
        assert_eq!(request(Method::POST, None, pieces("four")), (None, "four".to_owned()));
        assert_eq!(request(Method::GET, Some("4"), pieces("four")), (says("4"), "four".to_owned()));
    }

    #[test]
    fn a_get_keeps_the_body_it_has() {
        assert_eq!(request(Method::GET, None, "four".into()), (says("4"), "four".to_owned()));
        assert_eq!(request(Method::GET, None, pieces("four")), (says("4"), "four".to_owned()));
    }

    #[test]
    fn a_get_without_a_body_says_no_length() {
        for method in [Method::GET, Method::HEAD] {
            assert_eq!(request(method.clone(), Some(STALE), ().into()), (None, String::new()));
            assert_eq!(request(method, None, pieces("")), (None, String::new()));
        }
    }
}
