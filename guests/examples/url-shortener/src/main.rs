//! A service that sends whoever asks for a short name on to the address that belongs to it.
//!
//! Names and addresses are the configuration of the service: a deploy brings all of them at once, and a rollback brings
//! the former ones back. Nothing is written here while it runs.

use std::collections::BTreeMap;

use dunlin_guest::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use dunlin_guest::http::uri::Scheme;
use dunlin_guest::http::{self, HeaderValue, Method, StatusCode, Uri};
use dunlin_guest::{Context, Request, Response, Result, ensure};

/// A redirect with 308 is for ever, and browsers keep it as long. A link that is changed should be found within minutes.
const KEPT: &str = "public, max-age=300";

/// All names, each with its address.
///
/// They are read as a whole, and no name is looked up by itself with `config::get`: that finds secrets, too, and a client
/// could ask for one by its name.
type Links = BTreeMap<String, String>;

#[dunlin_guest::service]
async fn answer(request: Request) -> Result<Response> {
    // HEAD is answered like GET: the SDK sends the head of this answer and leaves out the body.
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let answer = text(StatusCode::METHOD_NOT_ALLOWED, "there is only GET and HEAD here\n");
        return Ok(with(answer, ALLOW, HeaderValue::from_static("GET, HEAD")));
    }
    let links: Links = dunlin_guest::config()?;
    let name = request.uri().path().trim_start_matches('/');
    if name.is_empty() {
        return Ok(text(StatusCode::OK, &list(&links)));
    }
    match links.get(name) {
        Some(address) => {
            let place = location(address).with_context(|| format!("cannot send on to the link `{name}`"))?;
            let answer = text(StatusCode::PERMANENT_REDIRECT, &format!("{address}\n"));
            Ok(with(with(answer, LOCATION, place), CACHE_CONTROL, HeaderValue::from_static(KEPT)))
        }
        None => Ok(text(StatusCode::NOT_FOUND, "there is no such link\n")),
    }
}

/// Returns the list of all links, in the order of their names.
fn list(links: &Links) -> String {
    links.iter().map(|(name, address)| format!("{name} {address}\n")).collect()
}

/// Checks an address that the manifest gives. One without a scheme would lead to another name of this service.
fn location(address: &str) -> Result<HeaderValue> {
    let uri: Uri = address.parse().with_context(|| format!("`{address}` is no address"))?;
    let is_web = uri.scheme() == Some(&Scheme::HTTP) || uri.scheme() == Some(&Scheme::HTTPS);
    ensure!(is_web, "`{address}` should begin with `https://` or `http://`");
    Ok(HeaderValue::from_str(address)?)
}

fn text(status: StatusCode, text: &str) -> Response {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"))
}

fn with(mut response: Response, name: http::HeaderName, value: HeaderValue) -> Response {
    response.headers_mut().insert(name, value);
    response
}

#[cfg(test)]
mod tests {
    use dunlin_guest::test::{self, Host};

    use super::*;

    fn host() -> Host {
        Host::new()
            .config("wasi", "https://github.com/WebAssembly/WASI")
            .config("search", "https://search.example/?q=a&b=c#top")
            .config("torn", "www.example.com")
            .config("odd", "javascript:alert(1)")
            .secret("TOKEN", "https://secret.example/")
    }

    fn ask(path: &str) -> Result<(u16, Option<String>, String)> {
        let response = host().run(answer(test::get(path)))?;
        let place = response.headers().get(LOCATION).map(|place| place.to_str().unwrap().to_owned());
        Ok((response.status().as_u16(), place, test::text(response)?))
    }

    #[test]
    fn a_name_leads_to_its_address() {
        for (path, address) in [
            ("/wasi", "https://github.com/WebAssembly/WASI"),
            ("/search?utm=1", "https://search.example/?q=a&b=c#top"),
        ] {
            assert_eq!(ask(path).unwrap(), (308, Some(address.to_owned()), format!("{address}\n")));
        }
        let response = host().run(answer(test::get("/wasi"))).unwrap();
        assert_eq!(response.headers()[CACHE_CONTROL], KEPT);
    }

    #[test]
    fn all_are_listed_in_their_order_and_no_secret_is() {
        let (status, place, list) = ask("/").unwrap();
        assert_eq!((status, place), (200, None));
        assert_eq!(
            list.lines().map(|line| line.split(' ').next().unwrap()).collect::<Vec<_>>(),
            ["odd", "search", "torn", "wasi"]
        );
    }

    #[test]
    fn what_has_no_address_is_not_found() {
        for path in ["/nothing", "/wasi/", "/wasi/x", "/WASI", "/%77asi", "/TOKEN"] {
            assert_eq!(ask(path).unwrap(), (404, None, "there is no such link\n".to_owned()), "{path}");
        }
    }

    #[test]
    fn an_address_that_is_none_is_an_error_that_names_the_link() {
        assert_eq!(
            format!("{:#}", ask("/torn").unwrap_err()),
            "cannot send on to the link `torn`: `www.example.com` should begin with `https://` or `http://`"
        );
        assert!(ask("/odd").is_err());
    }

    #[test]
    fn nothing_is_taken() {
        let response = host().run(answer(test::post("/wasi", "x"))).unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[ALLOW]),
            (405, &"GET, HEAD".parse().unwrap())
        );
    }
}
