//! Apps made of the fixtures.

use dunlin_harness::App;

/// Returns an app `shop` with the service `hello` at `/`.
pub fn hello(component: &[u8], allocations: u32) -> App {
    service("shop", "hello", component, allocations, "/")
}

/// Returns an app with one service.
pub fn service(app: &str, name: &str, component: &[u8], allocations: u32, path: &str) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "{app}"

        [service.{name}]
        component = "guest.wasm"
        allocations = {allocations}
        routes = [{{ path = "{path}" }}]
        limits = {{ memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }}
        "#
    );
    App::new(&manifest, &[("guest.wasm", component)])
}

/// Returns an app `batch` with one job; `more` are further lines of its section.
pub fn job(name: &str, component: &[u8], more: &str, files: &[(&str, &[u8])]) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "batch"

        [job.{name}]
        component = "guest.wasm"
        parallelism = 3
        limits = {{ memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }}
        {more}
        "#
    );
    let all: Vec<(&str, &[u8])> =
        [("guest.wasm", component)].into_iter().chain(files.iter().copied()).collect();
    App::new(&manifest, &all)
}
