//! `dunlin inspect`: what a component is, what it will ask for, and whether a fleet takes it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use dunlin_admission::{Admitted, World};
use dunlin_model::{Bytes, Capabilities, Digest};
use serde::Serialize;

use crate::commands::deploy::{read_guest, refusal_help};
use crate::error::CommandError;
use crate::output::Output;

/// Show what a component is: how it is started, what it imports, what it will have to be granted, who made it.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin inspect target/wasm32-wasip2/release/hello.wasm")]
pub(crate) struct InspectArgs {
    /// The component.
    #[arg(value_name = "FILE")]
    component: PathBuf,
}

/// What is known of it.
#[derive(Debug, Serialize)]
struct Inspected {
    digest: Digest,
    /// How large it is, in bytes.
    size: Bytes,
    /// As what it can be deployed.
    kinds: Vec<&'static str>,
    imports: Vec<String>,
    exports: Vec<String>,
    /// What it imports that nothing grants by itself.
    needs: Vec<Need>,
    /// What nodes must have switched on for it.
    features: Vec<&'static str>,
    /// The tools and languages that it names, with their versions.
    producers: BTreeMap<String, String>,
}

/// Something that a manifest has to grant.
#[derive(Debug, Serialize)]
struct Need {
    what: &'static str,
    /// What stands under `capabilities` of the workload.
    grant: &'static str,
}

/// Looks at the component and prints what it is.
pub(crate) fn run(args: InspectArgs, output: &Output) -> Result<(), CommandError> {
    let bytes = read_guest(&args.component, output)?;
    let admitted = dunlin_admission::admit(&bytes).map_err(|refusal| {
        CommandError::failed(format!("{} would be refused", args.component.display()))
            .caused_by(&refusal)
            .help(refusal_help(&refusal))
    })?;
    let inspected = inspected(&bytes, admitted);
    output.result(&inspected, || text(&inspected))
}

fn inspected(bytes: &[u8], admitted: Admitted) -> Inspected {
    let kind = |world: &World| match world {
        World::Service => "service",
        World::Command => "job",
    };
    let ungranted = dunlin_admission::ungranted(bytes, &Capabilities::default());
    Inspected {
        digest: Digest::of(bytes),
        size: admitted.size,
        kinds: admitted.worlds.iter().map(kind).collect(),
        needs: ungranted.into_iter().map(|it| Need { what: it.what, grant: it.line }).collect(),
        features: admitted.features.iter().map(|feature| feature.name()).collect(),
        producers: dunlin_admission::producers(bytes),
        imports: admitted.imports,
        exports: admitted.exports,
    }
}

fn text(inspected: &Inspected) -> String {
    let Inspected { digest, size, kinds, imports, exports, needs, features, producers } = inspected;
    let mut lines = vec![
        format!("digest     {digest}"),
        format!("size       {size}"),
        format!("runs as    {}", kinds.join(", ")),
    ];
    let mut list = |title: &str, all: Vec<String>| {
        for (number, one) in all.into_iter().enumerate() {
            lines.push(format!("{:<10} {one}", if number == 0 { title } else { "" }));
        }
    };
    let named = |(tool, version): (&String, &String)| format!("{tool} {version}").trim_end().to_owned();
    list("made with", producers.iter().map(named).collect());
    list("needs", needs.iter().map(|need| format!("{}: grant `{}`", need.what, need.grant)).collect());
    list(
        "needs",
        features.iter().map(|feature| format!("nodes with `features = [\"{feature}\"]`")).collect(),
    );
    list("imports", imports.clone());
    list("exports", exports.clone());
    lines.join("\n")
}
