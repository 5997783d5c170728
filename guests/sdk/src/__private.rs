//! What the attributes write down calls these; they may become others with any version.

pub use wasip2;

pub use crate::job::{run_job, run_job_with_combine};
pub use crate::service::not_a_program;
#[cfg(target_family = "wasm")]
pub use crate::service::serve;
