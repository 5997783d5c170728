//! `dunlin build`: makes the components of an app, and says whether a fleet would take them.

use std::path::PathBuf;

use clap::Args;
use dunlin_admission::World;
use dunlin_model::{Bytes, Digest, Name, WorkloadKind};
use serde::Serialize;

use crate::args::Global;
use crate::commands::deploy;
use crate::error::CommandError;
use crate::output::{Output, table};

/// Build an app without deploying it, and check its components.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin build shop")]
pub(crate) struct BuildArgs {
    /// The folder with the app's manifest, or the manifest.
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
}

/// One workload and its component.
#[derive(Debug, Serialize)]
struct Line {
    workload: Name,
    kind: &'static str,
    component: PathBuf,
    /// In bytes.
    size: Bytes,
    digest: Digest,
}

/// Builds, checks and prints.
pub(crate) async fn run(global: &Global, args: BuildArgs, output: &Output) -> Result<(), CommandError> {
    let built = deploy::build(&args.path, true, global.namespace.as_ref(), output).await?;
    let mut lines = Vec::new();
    for (workload, spec) in built.spec.workloads {
        let component = built.components.iter().find(|component| component.digest == spec.component);
        let Some(component) = component else { continue };
        let refused = || {
            CommandError::failed(format!("no fleet would take {} for `{workload}`", component.path.display()))
        };
        let admitted = dunlin_admission::admit(&component.bytes)
            .map_err(|refusal| refused().caused_by(&refusal).help(deploy::refusal_help(&refusal)))?;
        let (kind, world) = match spec.kind {
            WorkloadKind::Service(_) => ("service", World::Service),
            WorkloadKind::Job(_) => ("job", World::Command),
        };
        if !admitted.is(world) {
            let other = if kind == "job" { "service" } else { "job" };
            return Err(refused()
                .because(format!("it is a component for a {other}"))
                .help(format!("write `[{other}.{workload}]` in the manifest, or build another component")));
        }
        let (path, size) = (component.path.clone(), admitted.size);
        lines.push(Line { workload, kind, component: path, size, digest: spec.component });
    }
    output.result(&lines, || {
        let row = |line: &Line| {
            let Line { workload, kind, component, size, digest } = line;
            vec![
                workload.to_string(),
                (*kind).to_owned(),
                size.to_string(),
                digest.short(),
                component.display().to_string(),
            ]
        };
        table(&["WORKLOAD", "KIND", "SIZE", "DIGEST", "COMPONENT"], lines.iter().map(row).collect())
    })
}
