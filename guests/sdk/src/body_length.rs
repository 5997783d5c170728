//! What a message says of the length of its body, made to fit the body.
//!
//! A host breaks a message off whose body is not as long as `content-length` says, and leaves a body out where its client
//! knows no way to send one of unknown length.

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Method, request};

use crate::body::Inner;
use crate::{Body, Result};

/// Makes the head of a request fit its body, and returns the body.
pub(crate) async fn fit_request(parts: &mut request::Parts, body: Body) -> Result<Body> {
    // With these, clients send no body of which they do not know the length.
    let is_mostly_empty = matches!(parts.method, Method::GET | Method::HEAD | Method::CONNECT);
    let bytes = match body.0 {
        Inner::Whole(bytes) => bytes,
        streamed if is_mostly_empty && !parts.headers.contains_key(CONTENT_LENGTH) => {
            Body(streamed).bytes().await?
        }
        streamed => return Ok(Body(streamed)),
    };
    if is_mostly_empty && bytes.is_empty() {
        parts.headers.remove(CONTENT_LENGTH);
    } else {
        set(&mut parts.headers, bytes.len());
    }
    Ok(bytes.into())
}

/// Makes the head of a response to this method fit its body, and tells whether the body goes with it.
#[cfg(any(test, target_family = "wasm"))]
pub(crate) fn fit_response(method: &Method, parts: &mut http::response::Parts, body: &Body) -> bool {
    use http::StatusCode;

    if matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        parts.headers.remove(CONTENT_LENGTH);
        return false;
    }
    let is_head = method == Method::HEAD;
    match &body.0 {
        // What was passed on says how long the body of GET is; nobody else knows.
        Inner::Whole(bytes) if is_head && bytes.is_empty() => {}
        Inner::Whole(bytes) => set(&mut parts.headers, bytes.len()),
        _ => {}
    }
    !is_head
}

fn set(headers: &mut HeaderMap, length: usize) {
    headers.insert(CONTENT_LENGTH, length.into());
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
        let has_body = fit_response(method, &mut parts, &body);
        (length(&parts.headers), has_body)
    }

    /// Returns the length that a request says, if any, and the body that is sent.
    fn request(method: Method, declared: Option<&str>, body: Body) -> (Option<String>, String) {
        let mut request = http::Request::builder().method(method);
        if let Some(declared) = declared {
            request = request.header(CONTENT_LENGTH, declared);
        }
        let (mut parts, body) = request.body(body).unwrap().into_parts();
        let text = test::block_on(async { fit_request(&mut parts, body).await?.text().await }).unwrap();
        (length(&parts.headers), text)
    }

    fn length(headers: &HeaderMap) -> Option<String> {
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
