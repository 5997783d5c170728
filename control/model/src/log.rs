//! What guests print and log, as records.

use serde::{Deserialize, Serialize};

use crate::{InstanceId, Timestamp};

/// One line that a guest printed or logged, framed by the host so that a guest cannot forge another's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LogRecord {
    /// When the host took it.
    pub at: Timestamp,
    /// Which instance said it.
    pub instance: InstanceId,
    /// Through which door.
    pub source: LogSource,
    /// The line without its end, at most [`LogRecord::MAX_TEXT`] bytes; not UTF-8 is replaced.
    pub text: String,
}

impl LogRecord {
    /// The most bytes of one line; the rest is dropped and the line says so.
    pub const MAX_TEXT: usize = 64 << 10;
}

/// Through which door a line came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LogSource {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// `wasi:logging`, at trace or debug level.
    Debug,
    /// `wasi:logging`, at info level.
    Info,
    /// `wasi:logging`, at warn level.
    Warn,
    /// `wasi:logging`, at error or critical level.
    Error,
    /// Dunlin itself, about the instance: how it ended, how many lines were dropped.
    Host,
}
