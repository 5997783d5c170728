//! The service of the quickstart: greets on `/`, and streams back what is posted to `/echo`.
//!
//! Each request runs in a fresh sandbox, so nothing kept in a static is there for the next one.
//! Which allocation answers is told by the environment that Dunlin gives to every guest.

use wstd::http::{Body, Error, Method, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/") => Ok(Response::new(greeting().into())),
        // The body goes out as it comes in; it is never held as a whole, whatever its size.
        (&Method::POST, "/echo") => Ok(Response::new(request.into_body())),
        _ => {
            let mut response = Response::new("there is only GET / and POST /echo here\n".into());
            *response.status_mut() = StatusCode::NOT_FOUND;
            Ok(response)
        }
    }
}

fn greeting() -> String {
    let variable = |name| std::env::var(name).unwrap_or_else(|_| "?".to_owned());
    format!(
        "hello from {} on {} ({} revision {})\n",
        variable("DUNLIN_ALLOCATION"),
        variable("DUNLIN_NODE"),
        variable("DUNLIN_WORKLOAD"),
        variable("DUNLIN_REVISION"),
    )
}
