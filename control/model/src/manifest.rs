//! The manifest `dunlin.toml`: strict text from people, turned into checked values.
//!
//! All mistakes are reported at once, each with its line and column; an unknown field names the nearest known one.
//!
//! Not here: reading files. The caller resolves each component's path to a digest and then asks for the
//! [`AppSpec`](crate::AppSpec).

use std::collections::BTreeMap;
use std::fmt;

use crate::{Limits, Name, WorkloadKind};

/// A manifest, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// `[app] name`.
    pub app: Name,
    /// `[app] namespace`, `default` if absent.
    pub namespace: Name,
    /// `[build]`, if there is something to build.
    pub build: Option<Build>,
    /// `[service.NAME]` and `[job.NAME]`.
    pub workloads: BTreeMap<Name, ManifestWorkload>,
}

/// `[build]`: how to make the components.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// A shell command, run in the folder of the manifest.
    pub command: String,
}

/// One workload of a manifest: a spec whose component is still a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestWorkload {
    /// The component's file, relative to the manifest.
    pub component: String,
    /// Service or job.
    pub kind: WorkloadKind,
    /// What it may use at most.
    pub limits: Limits,
    /// Variables of the guest's environment.
    pub environment: BTreeMap<String, String>,
    /// Labels which a node must have.
    pub node_labels: BTreeMap<String, String>,
    /// Where a job's items come from; absent for a service.
    pub input: Option<JobInput>,
}

/// Where the items of a job's run come from, when the one who starts it names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobInput {
    /// So many items, each knowing only its number.
    Count(u32),
    /// One item for each file which matches one of these patterns, relative to the manifest, in order of path.
    Files(Vec<String>),
}

/// One mistake in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Where, as a dotted path: `service.hello.limits.memory`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "`{}`: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// All mistakes of a manifest, in the order of their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestErrors(pub Vec<ManifestError>);
