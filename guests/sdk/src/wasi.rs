//! The host as a guest finds it: the interfaces of WASI, each behind a function that `fake` has, too.
//!
//! What is generated here from `wit/` holds code beyond the compiler's word, as it must at the border of a component.
//! It comes from the macro of `wit-bindgen`, which answers for it; nothing of it is written in this crate.

mod http;

pub(crate) use http::{Incoming, block_on, method, request, respond, send};

use crate::log_level::Level;

mod bindings {
    wit_bindgen::generate!({
        inline: "
            package dunlin:guest;

            world imports {
                import wasi:config/store@0.2.0-rc.1;
                import wasi:logging/logging@0.1.0-draft;
            }
        ",
        path: ["wit/config", "wit/logging"],
        world: "dunlin:guest/imports",
        generate_all,
    });
}

use bindings::wasi::config::store;
use bindings::wasi::logging::logging;

/// Returns the value of a key or of a secret, if there is one.
pub(crate) fn config_value(key: &str) -> Result<Option<String>, String> {
    store::get(key).map_err(text)
}

/// Returns all keys with their values, without secrets.
pub(crate) fn config_values() -> Result<Vec<(String, String)>, String> {
    store::get_all().map_err(text)
}

fn text(error: store::Error) -> String {
    match error {
        store::Error::Upstream(text) | store::Error::Io(text) => text,
    }
}

/// Writes a line into the guest's log.
pub(crate) fn log(level: Level, context: &str, message: &str) {
    let level = match level {
        Level::Error => logging::Level::Error,
        Level::Warn => logging::Level::Warn,
        Level::Info => logging::Level::Info,
        Level::Debug => logging::Level::Debug,
        Level::Trace => logging::Level::Trace,
    };
    logging::log(level, context, message);
}
