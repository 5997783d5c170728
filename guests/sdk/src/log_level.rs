//! How much of its log a guest wants, and where its lines go in.
//!
//! The host takes lines of every level. What is below `LOG_LEVEL` is not even written, since each line burns fuel.

use std::sync::Once;

use crate::platform;

/// The variable that says from which level on lines are written.
const VARIABLE: &str = "LOG_LEVEL";

/// How much a line matters, as `wasi:logging` knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// Returns the level in capital letters, as it stands before a line.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

/// Lets the crates `log` and `tracing` write into the guest's log. Only the first call does something.
pub(crate) fn install() {
    install_with(|| {
        wanted(std::env::var(VARIABLE).ok().as_deref()).unwrap_or_else(|text| {
            let message = format!(
                "{VARIABLE} is `{text}`, which is no level: write off, error, warn, info, debug or trace. Until then it is info"
            );
            platform::log(Level::Warn, "dunlin-guest", &message);
            Some(Level::Info)
        })
    });
}

/// Does the same with the level `info`: what a test sees must not depend on the variables of who runs it.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn install_for_tests() {
    install_with(|| Some(Level::Info));
}

fn install_with(wanted: impl FnOnce() -> Option<Level>) {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        let wanted = wanted();
        #[cfg(feature = "log")]
        crate::log_lines::install(wanted);
        #[cfg(feature = "tracing")]
        crate::trace_lines::install(wanted);
        #[cfg(not(any(feature = "log", feature = "tracing")))]
        let _ = wanted;
    });
}

/// Returns the least of the levels that are written, `None` for none at all, or the text that means no level.
fn wanted(text: Option<&str>) -> Result<Option<Level>, &str> {
    match text {
        None => Ok(Some(Level::Info)),
        Some("off") => Ok(None),
        Some("error") => Ok(Some(Level::Error)),
        Some("warn") => Ok(Some(Level::Warn)),
        Some("info") => Ok(Some(Level::Info)),
        Some("debug") => Ok(Some(Level::Debug)),
        Some("trace") => Ok(Some(Level::Trace)),
        Some(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_a_word_and_info_where_there_is_none() {
        assert_eq!(wanted(None), Ok(Some(Level::Info)));
        assert_eq!(wanted(Some("off")), Ok(None));
        assert_eq!(wanted(Some("trace")), Ok(Some(Level::Trace)));
        assert_eq!(wanted(Some("hyper=debug")), Err("hyper=debug"));
    }
}
