//! A service that serves the files of the folder `site/`.
//!
//! The files are compiled into the component: a deploy brings all of them at once, and a rollback brings the old ones
//! back. Browsers keep what they have and ask whether it is still the same (`ETag`, `If-None-Match`).

mod site;

use dunlin_guest::http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION,
};
use dunlin_guest::http::{HeaderMap, Method, StatusCode, response};
use dunlin_guest::{Body, Bytes, Request, Response, Result, http};

use crate::site::{File, Found, SITE, Site};

#[dunlin_guest::service]
async fn serve(request: Request) -> Result<Response> {
    answer(&SITE, &request)
}

/// Answers a request with what is on a site.
fn answer(site: &Site, request: &Request) -> Result<Response> {
    // HEAD is answered like GET: the SDK sends the head of this answer and leaves out the body.
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let answer = http::Response::builder()
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(ALLOW, "GET, HEAD");
        return Ok(answer.body("there is only GET and HEAD here\n".into())?);
    }
    match site.find(request.uri().path()) {
        Found::File(file) if is_known(request.headers(), file) => {
            let answer = http::Response::builder()
                .status(StatusCode::NOT_MODIFIED)
                .header(ETAG, file.etag);
            Ok(answer.body(Body::empty())?)
        }
        Found::File(file) => Ok(found(file).header(ETAG, file.etag).body(body(file))?),
        Found::Folder => {
            let query = request
                .uri()
                .query()
                .map(|query| format!("?{query}"))
                .unwrap_or_default();
            let place = format!("{}/{query}", request.uri().path());
            let answer = http::Response::builder()
                .status(StatusCode::PERMANENT_REDIRECT)
                .header(LOCATION, place);
            Ok(answer.body(Body::empty())?)
        }
        Found::Nothing => not_found(site),
    }
}

/// Tells whether the client has these bytes already.
fn is_known(headers: &HeaderMap, file: &File) -> bool {
    let known = headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok());
    // A `W/` says that others may have been made to mean the same. Ours are the same.
    known
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.trim_start_matches("W/") == file.etag)
}

fn found(file: &File) -> response::Builder {
    // `no-cache` means: keep it, and ask before it is used again.
    http::Response::builder()
        .header(CONTENT_TYPE, file.content_type())
        .header(CACHE_CONTROL, "no-cache")
}

/// Answers with the site's page `404.html`, if it has one.
fn not_found(site: &Site) -> Result<Response> {
    match site.file("/404.html") {
        Some(page) => Ok(found(page).status(StatusCode::NOT_FOUND).body(body(page))?),
        None => Ok(http::Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body("there is no such page\n".into())?),
    }
}

fn body(file: &'static File) -> Body {
    Bytes::from_static(file.bytes).into()
}

#[cfg(test)]
mod tests {
    use dunlin_guest::test;

    use super::*;
    use crate::site::SMALL;

    fn ask(uri: &str, etag: Option<&str>) -> Response {
        let mut request = test::get(uri);
        if let Some(etag) = etag {
            request
                .headers_mut()
                .insert(IF_NONE_MATCH, etag.parse().unwrap());
        }
        answer(&SMALL, &request).unwrap()
    }

    #[test]
    fn a_file_is_served_with_its_type() {
        let response = ask("/style.css", None);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()[CONTENT_TYPE], "text/css; charset=utf-8");
        assert!(test::text(response).unwrap().contains("margin"));
    }

    #[test]
    fn what_the_client_has_is_not_sent_again() {
        let etag = ask("/", None).headers()[ETAG].to_str().unwrap().to_owned();
        for known in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
            let response = ask("/", Some(&known));
            assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{known}");
            assert_eq!(test::text(response).unwrap(), "");
        }
        assert_eq!(ask("/", Some("\"other\"")).status(), StatusCode::OK);
    }

    #[test]
    fn a_folder_is_named_with_its_slash() {
        let response = ask("/posts?page=2", None);
        assert_eq!(
            (response.status().as_u16(), &response.headers()[LOCATION]),
            (308, &"/posts/?page=2".parse().unwrap())
        );
    }

    #[test]
    fn what_is_not_there_has_the_page_for_it() {
        let response = ask("/nowhere", None);
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert_eq!(test::text(response).unwrap(), "nothing here");
    }

    #[test]
    fn a_site_without_a_page_for_it_says_so_in_text() {
        let response = answer(&Site(&[]), &test::get("/")).unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn nothing_is_taken() {
        let response = answer(&SMALL, &test::post("/", "x")).unwrap();
        assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(response.headers()[ALLOW], "GET, HEAD");
    }
}
