//! A service that greets whoever the path names: `/7` is the number of somebody, whose name another service knows.
//!
//! Shown are configuration, logs, an outgoing request, and tests with a host that is scripted.

// ANCHOR: service
use dunlin_guest::http::{self, StatusCode};
use dunlin_guest::{Context, Request, Response, Result, log};
use serde::Deserialize;

#[derive(Deserialize)]
struct Config {
    greeting: String,
    /// Where names are asked for, without a slash at the end.
    names: String,
}

#[dunlin_guest::service]
async fn greet(request: Request) -> Result<Response> {
    let config: Config = dunlin_guest::config()?;
    let Ok(number) = request.uri().path().trim_start_matches('/').parse::<u32>() else {
        return Ok(http::Response::builder()
            .status(StatusCode::NOT_FOUND)
            .body("ask for a number\n".into())?);
    };
    let name = name_of(&config, number).await?;
    log::info!("{name} is greeted");
    Ok(Response::new(format!("{}, {name}\n", config.greeting).into()))
}
// ANCHOR_END: service

// ANCHOR: outgoing
async fn name_of(config: &Config, number: u32) -> Result<String> {
    let request = http::Request::get(format!("{}/{number}", config.names)).body(())?;
    let mut response = dunlin_guest::send(request).await?;
    let status = response.status();
    dunlin_guest::ensure!(status.is_success(), "asked for the name of {number}, they answered {status}");
    let name = response.body_mut().text().await.context("cannot read the name")?;
    Ok(name.trim().to_owned())
}
// ANCHOR_END: outgoing

// ANCHOR: tests
#[cfg(test)]
mod tests {
    use dunlin_guest::test::{self, Host};

    use super::*;

    fn host() -> Host {
        Host::new().config("greeting", "good day").config("names", "https://names.example.com")
    }

    #[test]
    fn whoever_has_a_name_is_greeted_by_it() {
        let host = host().answer("GET", "https://names.example.com/7", Response::new("Ada\n".into()));
        let response = host.run(greet(test::get("/7"))).unwrap();
        assert_eq!(test::text(response).unwrap(), "good day, Ada\n");
        assert_eq!(host.log(), ["INFO greeter: Ada is greeted"]);
    }

    #[test]
    fn what_is_no_number_is_not_found() {
        let response = host().run(greet(test::get("/ada"))).unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }

    #[test]
    fn a_name_that_is_not_told_is_an_error() {
        let teapot = http::Response::builder().status(418).body("".into()).unwrap();
        let host = host().answer("GET", "https://names.example.com/7", teapot);
        let error = host.run(greet(test::get("/7"))).unwrap_err();
        assert_eq!(error.to_string(), "asked for the name of 7, they answered 418 I'm a teapot");
    }
}
// ANCHOR_END: tests
