//! The service behind the gate. It tells who calls it and what it got, and then gives back the body, piece by piece.
//!
//! It has no route, so that nobody reaches it but those services of its namespace to which a manifest grants it. That one
//! of them is the gate, and has asked for the secret, is what `dunlin-caller` says.

use std::fmt::Write as _;

use dunlin_guest::{Body, Bytes, Request, Response, Result};

#[dunlin_guest::service]
async fn echo(request: Request) -> Result<Response> {
    let (parts, mut body) = request.into_parts();
    let caller = parts.headers.get("dunlin-caller").map(|caller| String::from_utf8_lossy(caller.as_bytes()));
    let mut told = format!("called by {}\n", caller.as_deref().unwrap_or("nobody"));
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    // A `String` takes whatever is written.
    let _ = writeln!(told, "{} {path}", parts.method);
    let mut headers: Vec<_> = parts.headers.iter().collect();
    headers.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in headers.into_iter().filter(|(name, _)| *name != "dunlin-caller") {
        let _ = writeln!(told, "{name}: {}", String::from_utf8_lossy(value.as_bytes()));
    }
    told.push('\n');
    let mut told = Some(Bytes::from(told));
    Ok(Response::new(Body::from_fn(async move || match told.take() {
        Some(told) => Ok(Some(told)),
        None => body.next().await,
    })))
}

#[cfg(test)]
mod tests {
    use dunlin_guest::test::{self, Host};

    use super::*;

    #[test]
    fn it_tells_who_calls_and_what_it_got() {
        let mut request = test::post("http://inner.auth-proxy.internal/a?b", "body\n");
        for (name, value) in [("x-b", "2"), ("dunlin-caller", "default/auth-proxy/gate"), ("x-a", "1")] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let response = Host::new().run(echo(request)).unwrap();
        assert_eq!(
            test::text(response).unwrap(),
            "called by default/auth-proxy/gate\nPOST /a?b\nx-a: 1\nx-b: 2\n\nbody\n"
        );
    }

    #[test]
    fn without_a_caller_it_says_so() {
        let response = Host::new().run(echo(test::get("/"))).unwrap();
        assert_eq!(test::text(response).unwrap(), "called by nobody\nGET /\n\n");
    }
}
