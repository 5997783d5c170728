//! A service that stands in front of another one: whoever shows the secret is let through, with all they send.
//!
//! Requests are passed on as they come and answers as they go, without either being held as a whole. What concerns one
//! connection is left out, and so is the secret: the service behind is asked by this one, and knows it by
//! `dunlin-caller`, which nobody can write but the host.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use dunlin_guest::http::header::{self, AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use dunlin_guest::http::{StatusCode, Uri, uri};
use dunlin_guest::{Context, Request, Response, Result, log};
use serde::Deserialize;
use subtle::{Choice, ConstantTimeEq};

/// What `[service.gate.capabilities]` in `dunlin.toml` gives.
#[derive(Deserialize)]
struct Config {
    /// Whom to ask: a scheme and an authority.
    upstream: String,
    /// What is behind the gate, for those who are asked to show the secret.
    realm: String,
    #[serde(rename = "GATE_TOKEN")]
    token: String,
}

/// Headers that are about one connection, as RFC 9110 has them in section 7.6.1.
const OF_A_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

#[dunlin_guest::service]
async fn pass(mut request: Request) -> Result<Response> {
    let config: Config = dunlin_guest::config()?;
    // Else whoever shows an empty one would be let through.
    dunlin_guest::ensure!(!config.token.is_empty(), "the secret GATE_TOKEN is empty");
    if !is_let_through(request.headers(), config.token.as_bytes()) {
        log::warn!("{} {} is not let through", request.method(), request.uri().path());
        return refusal(&config.realm);
    }
    *request.uri_mut() = upstream(&config.upstream, request.uri())?;
    // The host of the address above is the one that is asked, and not the one this service was asked by.
    request.headers_mut().remove(header::HOST);
    request.headers_mut().remove(AUTHORIZATION);
    remove_those_of_a_connection(request.headers_mut());
    let mut response = match dunlin_guest::send(request).await {
        Ok(response) => response,
        Err(error) => {
            log::error!("{error:#}");
            return Ok(text(StatusCode::BAD_GATEWAY, "the service behind does not answer\n"));
        }
    };
    remove_those_of_a_connection(response.headers_mut());
    Ok(response)
}

/// Tells whether a request shows the secret: as a bearer token, or as the password of any name.
fn is_let_through(headers: &HeaderMap, token: &[u8]) -> bool {
    let mut shown = headers.get_all(AUTHORIZATION).iter();
    // Of two it would not be clear which one counts.
    let (Some(shown), None) = (shown.next(), shown.next()) else { return false };
    let shown = shown.as_bytes();
    let Some(place) = shown.iter().position(|letter| *letter == b' ') else { return false };
    let (scheme, credentials) = (&shown[..place], shown[place..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return is_same(credentials, token);
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return false;
    }
    let Ok(pair) = BASE64_STANDARD.decode(credentials) else { return false };
    // A name has no colon, and a password may.
    let colon = pair.iter().position(|letter| *letter == b':');
    colon.is_some_and(|colon| is_same(&pair[colon + 1..], token))
}

/// Compares what is shown with the secret, in a time that depends on the length of what is shown and on nothing else: who
/// guesses must not hear how many of the first letters were right, nor how many there are.
fn is_same(shown: &[u8], secret: &[u8]) -> bool {
    let pairs = shown.iter().zip(secret.iter().cycle());
    let is_equal = pairs.fold(Choice::from(1), |equal, (shown, secret)| equal & shown.ct_eq(secret));
    (is_equal & shown.len().ct_eq(&secret.len())).into()
}

fn refusal(realm: &str) -> Result<Response> {
    let mut response = text(StatusCode::UNAUTHORIZED, "show the token of this service\n");
    // A quotation mark or a backslash would end the text.
    let realm: String = realm.chars().filter(|letter| !matches!(letter, '"' | '\\')).collect();
    for scheme in ["Basic", "Bearer"] {
        let value = HeaderValue::try_from(format!("{scheme} realm=\"{realm}\""));
        let value = value.context("`realm` of the configuration cannot be in a header")?;
        response.headers_mut().append(header::WWW_AUTHENTICATE, value);
    }
    Ok(response)
}

/// Returns the address at the service behind that has the path and query of what this one was asked.
fn upstream(address: &str, asked: &Uri) -> Result<Uri> {
    let mut parts: uri::Parts =
        address.parse::<Uri>().with_context(|| format!("`{address}` is no address"))?.into_parts();
    parts.path_and_query = asked.path_and_query().cloned();
    Uri::from_parts(parts).with_context(|| format!("cannot ask `{address}` for `{asked}`"))
}

/// Removes the headers that are about one connection, and those that `connection` names as such.
fn remove_those_of_a_connection(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(header::CONNECTION).iter().cloned().collect();
    let named = values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    let named = named.filter_map(|name| name.trim().parse::<HeaderName>().ok());
    for name in named.chain(OF_A_CONNECTION) {
        headers.remove(name);
    }
}

fn text(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use dunlin_guest::http;
    use dunlin_guest::test::{self, Host};

    use super::*;

    const UPSTREAM: &str = "http://inner.auth-proxy.internal";
    const TOKEN: &str = "correct:horse";

    fn host() -> Host {
        Host::new().config("upstream", UPSTREAM).config("realm", "the \"inner\"").secret("GATE_TOKEN", TOKEN)
    }

    fn with(mut request: Request, name: HeaderName, value: &str) -> Request {
        request.headers_mut().append(name, value.parse().unwrap());
        request
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }

    fn is_passed(values: &[&str]) -> bool {
        let host = host().answer("GET", &format!("{UPSTREAM}/"), Response::new("inside\n".into()));
        let request =
            values.iter().fold(test::get("/"), |request, value| with(request, AUTHORIZATION, value));
        let response = host.run(pass(request)).unwrap();
        let is_passed = host.sent().len() == 1;
        assert_eq!(response.status(), if is_passed { StatusCode::OK } else { StatusCode::UNAUTHORIZED });
        is_passed
    }

    #[test]
    fn who_shows_the_secret_is_let_through() {
        for value in [
            "Bearer correct:horse",
            "bearer  correct:horse",
            &basic("ada:correct:horse"),
            &basic(":correct:horse"),
        ] {
            assert!(is_passed(&[value]), "{value}");
        }
    }

    #[test]
    fn who_does_not_is_asked_for_it() {
        for value in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer correct",
            "Bearer correct:horsf",
            "Bearer correct:horsecorrect:horse",
            "correct:horse",
            "Digest correct:horse",
            "Basic !",
            &basic("correct"),
            &basic("ada:horse"),
            &basic("correct:horse"),
        ] {
            assert!(!is_passed(&[value]), "{value}");
        }
        assert!(!is_passed(&[]));
        assert!(!is_passed(&["Bearer correct:horse", "Bearer correct:horse"]));
        let response = host().run(pass(test::get("/"))).unwrap();
        let asked: Vec<_> = response.headers().get_all(header::WWW_AUTHENTICATE).iter().collect();
        assert_eq!(asked, ["Basic realm=\"the inner\"", "Bearer realm=\"the inner\""]);
    }

    #[test]
    fn without_a_secret_nobody_is_let_through() {
        let host = Host::new().config("upstream", UPSTREAM).config("realm", "r").secret("GATE_TOKEN", "");
        let error = host.run(pass(with(test::get("/"), AUTHORIZATION, "Bearer "))).unwrap_err();
        assert_eq!(error.to_string(), "the secret GATE_TOKEN is empty");
    }

    #[test]
    fn a_request_is_passed_on_without_what_is_of_a_connection() {
        let mut answer = Response::new("made\n".into());
        *answer.status_mut() = StatusCode::CREATED;
        answer.headers_mut().insert("x-answer", HeaderValue::from_static("yes"));
        answer.headers_mut().insert("keep-alive", HeaderValue::from_static("timeout=5"));
        let host = host().answer("POST", &format!("{UPSTREAM}/a/b?c=d"), answer);
        let mut request = test::post("http://gate.example/a/b?c=d", "what is sent");
        for (name, value) in [
            ("authorization", "Bearer correct:horse"),
            ("host", "gate.example"),
            ("connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("cookie", "a=b"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ] {
            request = with(request, HeaderName::from_static(name), value);
        }
        let response = host.run(pass(request)).unwrap();
        let sent = &host.sent()[0];
        let mut headers: Vec<String> =
            sent.headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        assert_eq!(headers, ["content-length: 12", "cookie: a=b", "x-twice: 1", "x-twice: 2"]);
        assert_eq!(sent.body, b"what is sent");
        assert_eq!((response.status(), response.headers().len()), (StatusCode::CREATED, 1));
        assert_eq!(response.headers()["x-answer"], "yes");
        assert_eq!(test::text(response).unwrap(), "made\n");
    }

    #[test]
    fn a_service_that_does_not_answer_is_a_bad_gateway() {
        let host = host().fail("GET", &format!("{UPSTREAM}/"), dunlin_guest::ErrorCode::ConnectionRefused);
        let request = with(test::get("/"), AUTHORIZATION, "Bearer correct:horse");
        assert_eq!(host.run(pass(request)).unwrap().status(), http::StatusCode::BAD_GATEWAY);
        assert!(
            host.log()[0].contains("cannot send GET http://inner.auth-proxy.internal/"),
            "{:?}",
            host.log()
        );
    }
}
