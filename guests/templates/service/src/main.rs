//! A service: greets whoever the path names.
//!
//! Each request runs in a fresh sandbox, so what is kept in a static is not there for the next one.

use dunlin_guest::http::header::{ALLOW, CONTENT_TYPE};
use dunlin_guest::http::{self, Method, StatusCode};
use dunlin_guest::{Request, Response, Result, log};

/// What `[service.web.capabilities]` in `dunlin.toml` gives.
#[derive(serde::Deserialize)]
struct Config {
    greeting: String,
}

#[dunlin_guest::service]
async fn answer(request: Request) -> Result<Response> {
    // HEAD is answered like GET: the SDK sends the head of this answer and leaves out the body.
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Ok(http::Response::builder()
            .status(StatusCode::METHOD_NOT_ALLOWED)
            .header(ALLOW, "GET, HEAD")
            .body("there is only GET and HEAD here\n".into())?);
    }
    match request.uri().path() {
        "/health" => text("well\n".to_owned()),
        path => {
            let config: Config = dunlin_guest::config()?;
            let name = path.trim_matches('/');
            log::info!("`{name}` is greeted");
            let name = if name.is_empty() { "world" } else { name };
            text(format!("{}, {name}\n", config.greeting))
        }
    }
}

fn text(text: String) -> Result<Response> {
    let response = http::Response::builder().header(CONTENT_TYPE, "text/plain; charset=utf-8");
    Ok(response.body(text.into())?)
}

#[cfg(test)]
mod tests {
    use dunlin_guest::test::{self, Host};

    use super::*;

    /// Asks the service as its host would, and returns the status and the text of the answer.
    fn ask(request: Request) -> (u16, String) {
        let response = Host::new()
            .config("greeting", "ahoy")
            .run(answer(request))
            .unwrap();
        (response.status().as_u16(), test::text(response).unwrap())
    }

    #[test]
    fn whoever_the_path_names_is_greeted() {
        assert_eq!(ask(test::get("/ada")), (200, "ahoy, ada\n".to_owned()));
        assert_eq!(ask(test::get("/")), (200, "ahoy, world\n".to_owned()));
    }

    #[test]
    fn head_is_answered_like_get() {
        let mut request = test::get("/ada");
        *request.method_mut() = Method::HEAD;
        assert_eq!(ask(request).0, 200);
    }

    #[test]
    fn it_says_that_it_is_well() {
        assert_eq!(ask(test::get("/health")), (200, "well\n".to_owned()));
    }

    #[test]
    fn nothing_is_taken() {
        let response = Host::new().run(answer(test::post("/ada", "x"))).unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[ALLOW]),
            (405, &"GET, HEAD".parse().unwrap())
        );
    }

    #[test]
    fn without_a_greeting_the_error_says_what_to_write() {
        let error = Host::new().run(answer(test::get("/"))).unwrap_err();
        assert!(error.to_string().contains("write `greeting = "), "{error}");
    }
}
