//! `dunlin push`, `dunlin pull` and `dunlin install`: components and apps as OCI artifacts.
//!
//! A component is kept in the layout of the ecosystem, so that other tools read it. An app is its manifest and its
//! components under one name: what the catalogue of a registry lists, and `install` deploys.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use dunlin_admission::Admitted;
use dunlin_model::{Digest, Manifest, Name, Signed, packed};
use dunlin_oci::{Artifact, Reference, layout};
use serde::Serialize;

use super::alone::pair;
use super::deploy::{self, Built, DeployHow, Place, gather, read_guest, refusal_help, signature_files};
use crate::args::Global;
use crate::error::CommandError;
use crate::output::Output;
use crate::registry::{failed, pull as pulled, registry};

/// Bring a component or a whole app to a registry of OCI artifacts.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin push hello.wasm ghcr.io/team/hello:1.0.0")]
#[command(after_help = "The password is the one that `docker login` has kept.")]
pub(crate) struct PushArgs {
    /// A component, or the folder of an app, or its manifest.
    path: PathBuf,
    /// Where it is to be.
    #[arg(value_name = "REFERENCE")]
    to: Reference,
    /// Take an app's components as they are; do not run `[build] command`.
    #[arg(long)]
    no_build: bool,
}

/// Fetch a component or an app from a registry of OCI artifacts.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin pull ghcr.io/team/hello:1.0.0 hello.wasm")]
pub(crate) struct PullArgs {
    /// Where it is.
    #[arg(value_name = "REFERENCE")]
    from: Reference,
    /// The file for a component, the folder for an app; named for the artifact if absent.
    #[arg(value_name = "TO")]
    to: Option<PathBuf>,
}

/// Deploy an app from a registry of OCI artifacts.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin install ghcr.io/team/shop:1.0.0 --set greeting=hello")]
pub(crate) struct InstallArgs {
    /// Where it is.
    #[arg(value_name = "REFERENCE")]
    from: Reference,
    /// A value of its configuration, of all workloads that have it, or of one as WORKLOAD.KEY=VALUE; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    #[command(flatten)]
    how: DeployHow,
}

const NO_FILES: &str = "deploy it from its folder, or give the job `items` in place of `input`";

/// What was brought or fetched.
#[derive(Debug, Serialize)]
struct Moved {
    /// By this it means the same for ever.
    reference: String,
    digest: Digest,
    /// Where it is here.
    path: PathBuf,
}

/// Pushes what is at the path.
pub(crate) async fn push(global: &Global, args: PushArgs, output: &Output) -> Result<(), CommandError> {
    let PushArgs { path, to, no_build } = args;
    if to.is_pinned() {
        return Err(CommandError::usage(format!("cannot push to {to}"))
            .because("it names a digest, which is that of what is there already")
            .help("name a tag, like `:1.0.0`; the digest is printed when it is there"));
    }
    let is_app = path.is_dir() || path.extension().is_some_and(|ending| ending == "toml");
    let artifact = match is_app {
        true => app(&path, no_build, global.namespace.as_ref(), output).await?,
        false => component(&path, output)?,
    };
    let progress = output.progress_of_bytes(&format!("pushing {to}"), 0);
    let sent = registry(&to)?.push(&artifact).await;
    progress.finish();
    let digest = sent.map_err(|error| failed(format!("cannot push to {to}"), &error))?;
    let moved = Moved { reference: to.pinned(digest).to_string(), digest, path };
    output.result(&moved, || moved.reference.clone())
}

fn component(path: &Path, output: &Output) -> Result<Artifact, CommandError> {
    let bytes = read_guest(path, output)?;
    let admitted = admitted(&bytes, path)?;
    Ok(Artifact::component(bytes, &admitted.imports, &admitted.exports))
}

/// Returns what a component is; one that no fleet takes is of no use to anybody.
fn admitted(bytes: &[u8], path: &Path) -> Result<Admitted, CommandError> {
    dunlin_admission::admit(bytes).map_err(|refusal| {
        CommandError::failed(format!("no fleet would take {}", path.display()))
            .caused_by(&refusal)
            .help(refusal_help(&refusal))
    })
}

async fn app(
    path: &Path,
    no_build: bool,
    namespace: Option<&Name>,
    output: &Output,
) -> Result<Artifact, CommandError> {
    let built = deploy::build(path, !no_build, namespace, output).await?;
    let (manifest, file) = deploy::manifest_text(path)?;
    let cannot = || CommandError::failed(format!("cannot push the app of {}", file.display()));
    if let Some(job) = built.inputs.keys().next() {
        return Err(cannot().because(reads_files(job)).help(NO_FILES));
    }
    // What several workloads run is one layer, named for the first of them.
    let mut layers: BTreeMap<Digest, (String, Bytes)> = BTreeMap::new();
    let (mut paths, mut signed) = (BTreeMap::new(), Vec::new());
    for (name, spec) in &built.spec.workloads {
        if let Some(Signed { statement, signature }) = spec.signed.as_deref() {
            signed.extend(
                signature_files(name).into_iter().zip([statement, signature].map(|it| it.clone().into())),
            );
        }
        let component = built.components.iter().find(|component| component.digest == spec.component);
        let Some(component) = component else { continue };
        let path = match layers.entry(component.digest) {
            Entry::Occupied(known) => known.get().0.clone(),
            Entry::Vacant(place) => {
                admitted(&component.bytes, &component.path)?;
                place.insert((format!("components/{name}.wasm"), component.bytes.clone())).0.clone()
            }
        };
        paths.insert(name.clone(), path);
    }
    let manifest = packed(&manifest, &paths)
        .ok_or_else(|| cannot().because("it has changed meanwhile").help("push again"))?;
    Ok(Artifact::app(manifest.into(), layers.into_values(), signed))
}

/// Says why an app whose jobs read files cannot be an artifact.
fn reads_files(job: &Name) -> String {
    format!("the runs of `{job}` start by themselves and read files, which no artifact holds")
}

/// Pulls what is at the reference into files.
pub(crate) async fn pull(args: PullArgs, output: &Output) -> Result<(), CommandError> {
    let PullArgs { from, to } = args;
    let (artifact, digest) = pulled(&from, output).await?;
    let is_app = artifact.artifact_type.as_deref() == Some(layout::APP);
    let named = if is_app { from.name().to_owned() } else { format!("{}.wasm", from.name()) };
    let path = to.unwrap_or_else(|| PathBuf::from(named));
    if path.symlink_metadata().is_ok() {
        return Err(CommandError::failed(format!("there is something at {} already", path.display()))
            .help(format!("name another place: `dunlin pull {from} PLACE`; nothing is written over")));
    }
    let files = match is_app {
        true => app_files(&from, &path, artifact)?,
        false => {
            let bytes = artifact.into_component().ok_or_else(|| {
                CommandError::failed(format!("{from} is neither a component nor an app"))
                    .help("images of containers, and what else registries keep, are for other tools")
            })?;
            vec![(path.clone(), bytes)]
        }
    };
    for (file, bytes) in files {
        write(&file, &bytes).map_err(|error| {
            CommandError::failed(format!("cannot write {}", file.display()))
                .caused_by(&error)
                .help("choose a place where you may write")
        })?;
    }
    let moved = Moved { reference: from.pinned(digest).to_string(), digest, path };
    output.result(&moved, || format!("{} is in {}", moved.reference, moved.path.display()))
}

/// Returns the files of an app in `folder`, none of which may be outside of it.
fn app_files(
    from: &Reference,
    folder: &Path,
    artifact: Artifact,
) -> Result<Vec<(PathBuf, Bytes)>, CommandError> {
    let files = artifact.layers.into_iter().filter_map(|layer| Some((layer.title?, layer.bytes)));
    let place = |(title, bytes): (String, Bytes)| {
        let is_inside = Path::new(&title).components().all(|part| matches!(part, Component::Normal(_)));
        if is_inside && !title.is_empty() {
            return Ok((folder.join(title), bytes));
        }
        Err(CommandError::failed(format!("cannot write the files of {from}"))
            .because(format!("its manifest names `{title}`, which is not below its folder"))
            .help(format!("`dunlin install {from}` deploys it without files")))
    };
    files.map(place).collect()
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::OpenOptions::new().write(true).create_new(true).open(path)?.write_all(bytes)
}

/// Deploys the app at the reference.
pub(crate) async fn install(global: &Global, args: InstallArgs, output: &Output) -> Result<(), CommandError> {
    let InstallArgs { from, set, how } = args;
    let client = crate::client::connect(global)?;
    let (artifact, digest) = pulled(&from, output).await?;
    let not_an_app = |why: String| {
        CommandError::failed(format!("{from} cannot be installed"))
            .because(why)
            .help("an app is pushed by `dunlin push FOLDER REFERENCE`")
    };
    if artifact.artifact_type.as_deref() != Some(layout::APP) {
        return Err(not_an_app("it is no app of Dunlin".to_owned()));
    }
    let mut manifest = None;
    let mut components = BTreeMap::new();
    for layer in artifact.layers {
        match (layer.media_type.as_str(), layer.title) {
            (layout::APP_MANIFEST, _) => manifest = Some(layer.bytes),
            (layout::WASM | layout::SIGNED, Some(title)) => drop(components.insert(title, layer.bytes)),
            _ => {}
        }
    }
    let manifest = manifest.ok_or_else(|| not_an_app("it has no manifest".to_owned()))?;
    let manifest = Manifest::parse(&String::from_utf8_lossy(&manifest))
        .map_err(|errors| not_an_app(format!("its manifest has mistakes: {errors}")))?;
    let mut built = gather(manifest, Place::Artifact(&components), global.namespace.as_ref(), output).await?;
    // Files here would be sent to whoever has made the artifact.
    if let Some(job) = built.inputs.keys().next() {
        return Err(not_an_app(reads_files(job)));
    }
    for (key, value) in set {
        set_config(&mut built, &from, &key, value)?;
    }
    output.note(&format!("installing {} as `{}`", from.pinned(digest), built.spec.name));
    let result = deploy::bring(&client, &built, &how, output).await?;
    deploy::show(&result, output)
}

/// Sets a value in the configuration of all workloads that have such a one, or of the one that `key` names.
fn set_config(built: &mut Built, from: &Reference, key: &str, value: String) -> Result<(), CommandError> {
    let mut is_set = false;
    let mut known = Vec::new();
    for (name, workload) in &mut built.spec.workloads {
        let own = key.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix('.'));
        for (other, configured) in &mut workload.capabilities.config {
            if other == key || own == Some(other.as_str()) {
                configured.clone_from(&value);
                is_set = true;
            }
            known.push(format!("{name}.{other}"));
        }
    }
    if is_set {
        return Ok(());
    }
    let help = match known.is_empty() {
        true => "nothing of it can be set: no workload has a `config`".to_owned(),
        false => format!("there are: {}", known.join(", ")),
    };
    Err(CommandError::usage(format!("{from} has nothing that is called `{key}`")).help(help))
}
