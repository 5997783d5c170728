//! `wasi:logging`: lines in the log that have a level.

use dunlin_model::LogSource;
use wasmtime::component::HasData;

use crate::guest::Guest;

mod bindings {
    wasmtime::component::bindgen!({ path: "../../wit/wasi-logging", world: "imports", imports: { default: tracing } });
}

pub(crate) use bindings::wasi::logging::logging::add_to_linker;
use bindings::wasi::logging::logging::{Host, Level};

/// The most lines that one message may have; the rest is one long line.
const MAX_LINES: usize = 1000;

pub(crate) struct Logging;

impl HasData for Logging {
    type Data<'a> = &'a mut Guest;
}

impl Host for Guest {
    fn log(&mut self, level: Level, context: String, message: String) {
        let source = match level {
            Level::Trace | Level::Debug => LogSource::Debug,
            Level::Info => LogSource::Info,
            Level::Warn => LogSource::Warn,
            Level::Error | Level::Critical => LogSource::Error,
        };
        for line in message.splitn(MAX_LINES, '\n') {
            if context.is_empty() {
                self.log_line(source, line.as_bytes());
            } else {
                self.log_line(source, format!("{context}: {line}").as_bytes());
            }
        }
    }
}
