//! What the crate `log` is told becomes lines in the guest's log, with the target as context.

use log::{LevelFilter, Log, Metadata, Record};

use crate::log_level::Level;
use crate::platform;

/// Takes all records: `log` itself drops those below the level that is wanted.
struct Lines;

impl Log for Lines {
    fn enabled(&self, _metadata: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let level = match record.level() {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warn,
            log::Level::Info => Level::Info,
            log::Level::Debug => Level::Debug,
            log::Level::Trace => Level::Trace,
        };
        platform::log(level, record.target(), &record.args().to_string());
    }

    fn flush(&self) {}
}

/// Makes it the logger of the process, unless the guest has set one of its own.
pub(crate) fn install(wanted: Option<Level>) {
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(match wanted {
            None => LevelFilter::Off,
            Some(Level::Error) => LevelFilter::Error,
            Some(Level::Warn) => LevelFilter::Warn,
            Some(Level::Info) => LevelFilter::Info,
            Some(Level::Debug) => LevelFilter::Debug,
            Some(Level::Trace) => LevelFilter::Trace,
        });
    }
}
