//! The one list of what guests can import. `dunlin_admission::PROVIDED` says the same to users, and a test compares.

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::guest::Guest;
use crate::logging;

/// Returns the linker for guests.
pub fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    logging::add_to_linker::<Guest, logging::Logging>(&mut linker, |guest| guest)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use dunlin_admission::PROVIDED;
    use wasmtime::component::Component;

    use super::*;

    fn links(import: &str) -> bool {
        let engine = Engine::default();
        let wat = format!("(component (import \"{import}\" (instance)))");
        let component = Component::new(&engine, wat::parse_str(&wat).unwrap()).unwrap();
        linker(&engine).unwrap().instantiate_pre(&component).is_ok()
    }

    #[test]
    fn everything_that_is_said_to_be_provided_is_linked() {
        for provided in PROVIDED {
            let name = format!("{}@{}", provided.interface, provided.version);
            assert!(links(&name), "{name} is not linked");
        }
    }

    #[test]
    fn nothing_else_of_what_is_known_is_linked() {
        let others = [
            "wasi:cli/run@0.2.0",
            "wasi:clocks/timezone@0.2.0",
            "wasi:config/store@0.2.0-rc.1",
            "wasi:http/incoming-handler@0.2.0",
            "wasi:http/types@0.3.0",
            "wasi:keyvalue/store@0.2.0-draft",
            "wasi:nn/graph@0.2.0-rc-2024-10-28",
            "wasi:tls/types@0.2.0-draft",
            "wasi:cli/environment@0.3.0",
            "wasi:logging/logging",
        ];
        for name in others {
            assert!(!links(name), "{name} is linked");
            assert!(!dunlin_admission::is_provided(name), "{name} is said to be provided");
        }
    }
}
