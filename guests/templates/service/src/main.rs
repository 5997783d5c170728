//! A service: greets whoever the path names.
//!
//! Each request runs in a fresh sandbox, so what is kept in a static is not there for the next one.

use dunlin_guest::http::{self, Method, StatusCode};
use dunlin_guest::{Request, Response, Result, log};

/// What `[service.web.capabilities]` in `dunlin.toml` gives.
#[derive(serde::Deserialize)]
struct Config {
    greeting: String,
}

#[dunlin_guest::service]
async fn answer(request: Request) -> Result<Response> {
    if request.method() != Method::GET {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "there is only GET here\n".to_owned(),
        );
    }
    match request.uri().path() {
        "/health" => text(StatusCode::OK, "well\n".to_owned()),
        path => {
            let config: Config = dunlin_guest::config()?;
            let name = path.trim_matches('/');
            log::info!("`{name}` is greeted");
            let name = if name.is_empty() { "world" } else { name };
            text(StatusCode::OK, format!("{}, {name}\n", config.greeting))
        }
    }
}

fn text(status: StatusCode, text: String) -> Result<Response> {
    let response = http::Response::builder()
        .status(status)
        .header("content-type", "text/plain; charset=utf-8");
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
    fn it_says_that_it_is_well() {
        assert_eq!(ask(test::get("/health")), (200, "well\n".to_owned()));
    }

    #[test]
    fn nothing_is_taken() {
        assert_eq!(ask(test::post("/ada", "x")).0, 405);
    }

    #[test]
    fn without_a_greeting_the_error_says_what_to_write() {
        let error = Host::new().run(answer(test::get("/"))).unwrap_err();
        assert!(error.to_string().contains("write `greeting = "), "{error}");
    }
}
