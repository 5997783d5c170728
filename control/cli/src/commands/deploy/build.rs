//! From a folder to specs: finds and reads the manifest, runs its build, reads the components it names.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use bytes::Bytes;
use dunlin_model::{AppSpec, Digest, JobInput, Manifest, ManifestWorkload, Name, TestCase, WorkloadKind};

use super::gather::{Place, gather};
use super::wrap::wrapped;
use crate::context::read_text;
use crate::error::CommandError;
use crate::output::Output;

const MANIFEST: &str = "dunlin.toml";
/// Where the password of the key that signs is looked for.
pub(crate) const SIGN_PASSWORD: &str = "DUNLIN_SIGN_PASSWORD";

/// An app, ready to be sent.
#[derive(Debug)]
pub(crate) struct Built {
    /// What it should be.
    pub(crate) spec: AppSpec,
    /// What it runs, each once.
    pub(crate) components: Vec<Component>,
    /// Patterns of the files that are the inputs of jobs which nobody may be there to start.
    pub(crate) inputs: BTreeMap<Name, Vec<String>>,
    /// What is to be tried before it is deployed.
    pub(crate) tests: BTreeMap<Name, TestCase>,
    /// The folder to which paths are relative.
    pub(crate) folder: PathBuf,
}

/// One component file.
#[derive(Debug)]
pub(crate) struct Component {
    pub(crate) digest: Digest,
    pub(crate) path: PathBuf,
    pub(crate) bytes: Bytes,
}

impl Component {
    /// Returns the file's name alone.
    pub(crate) fn label(&self) -> String {
        self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy().into_owned()
    }
}

/// Builds the app at `path`, a folder or a manifest. `namespace` goes before the one in the manifest.
pub(crate) async fn build(
    path: &Path,
    run_build: bool,
    namespace: Option<&Name>,
    output: &Output,
) -> Result<Built, CommandError> {
    let (manifest, folder) = read_manifest(path)?;
    if let Some(build) = manifest.build.as_ref().filter(|_| run_build) {
        run(&build.command, &folder, output).await?;
    }
    let was_not_built = manifest.build.is_some() && !run_build;
    gather(manifest, Place::Files { folder: &folder, was_not_built }, namespace, output).await
}

/// Returns the patterns of the files of jobs that have a schedule, come after others, or are come after: their runs are
/// started without anybody who could send the files.
pub(super) fn inputs_to_send(manifest: &Manifest) -> BTreeMap<Name, Vec<String>> {
    let job = |workload: &ManifestWorkload| match &workload.kind {
        WorkloadKind::Job(job) => Some(job.clone()),
        WorkloadKind::Service(_) => None,
    };
    let earlier: BTreeSet<Name> =
        manifest.workloads.values().filter_map(job).flat_map(|job| job.after).collect();
    let with_files = manifest.workloads.iter().filter_map(|(name, workload)| {
        let job = job(workload)?;
        let is_alone = job.schedule.is_none() && job.after.is_empty() && !earlier.contains(name);
        match &workload.input {
            Some(JobInput::Files(patterns)) if !is_alone => Some((name.clone(), patterns.clone())),
            Some(JobInput::Files(_) | JobInput::Count(_)) | None => None,
        }
    });
    with_files.collect()
}

/// Says what a component asks for that its manifest does not grant: it would be found out only when it is used.
pub(super) fn note_ungranted(
    component: &Component,
    name: &Name,
    workload: &ManifestWorkload,
    output: &Output,
) {
    let kind = match workload.kind {
        WorkloadKind::Service(_) => "service",
        WorkloadKind::Job(_) => "job",
    };
    for ungranted in dunlin_admission::ungranted(&component.bytes, &workload.capabilities) {
        output.note(&format!("`{name}` {ungranted} under `[{kind}.{name}.capabilities]`"));
    }
}

/// Says what a component needs that is off on most nodes.
pub(super) fn note_needed(component: &Component, name: &Name, output: &Output) {
    for feature in dunlin_admission::needed_features(&component.bytes) {
        let feature = feature.name();
        output.note(&format!(
            "`{name}` needs {feature}, so it runs only on nodes whose config file says `features = [\"{feature}\"]`"
        ));
    }
}

/// Returns the manifest in the current folder and where it is, if there is one.
pub(crate) fn find_manifest() -> Result<Option<(Manifest, PathBuf)>, CommandError> {
    let here = Path::new(".");
    if here.join(MANIFEST).is_file() { read_manifest(here).map(Some) } else { Ok(None) }
}

/// Reads the manifest at `path`, or in the folder there, and returns it with its folder.
pub(crate) fn read_manifest(path: &Path) -> Result<(Manifest, PathBuf), CommandError> {
    let (text, file) = manifest_text(path)?;
    let manifest = Manifest::parse(&text).map_err(|errors| {
        let error = CommandError::failed(format!("the manifest {} has mistakes", file.display()));
        let error = errors.0.iter().fold(error, |error, mistake| error.because(mistake.to_string()));
        error.help("each place is line:column; correct them and deploy again")
    })?;
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((manifest, folder.unwrap_or(Path::new(".")).to_owned()))
}

/// Returns the text of the manifest at `path`, or in the folder there, and its file.
pub(crate) fn manifest_text(path: &Path) -> Result<(String, PathBuf), CommandError> {
    let file = if path.is_dir() { path.join(MANIFEST) } else { path.to_owned() };
    let text = read_text(&file).map_err(|error| {
        CommandError::failed(format!("cannot read the manifest {}", file.display()))
            .caused_by(&error)
            .help(format!("give the folder with {MANIFEST}: `dunlin deploy path/to/app`"))
    })?;
    Ok((text, file))
}

async fn run(command: &str, folder: &Path, output: &Output) -> Result<(), CommandError> {
    output.note(&format!("building: {command}"));
    // What the build prints is no result of ours, so it must not get into a pipe with it.
    let status = tokio::process::Command::new("sh")
        .args(["-c", command])
        // A build runs what others have written; it vouches for nothing.
        .env_remove(SIGN_PASSWORD)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(output.for_children())
        .status()
        .await
        .map_err(|error| {
            CommandError::failed(format!("cannot run the build `{command}`")).caused_by(&error)
        })?;
    if status.success() {
        return Ok(());
    }
    let error = CommandError::failed(format!("the build `{command}` failed"))
        .because(format!("it ended with {status}, in the folder {}", folder.display()));
    Err(match missing(command, status.code(), folder) {
        Some((why, help)) => error.because(why).help(help),
        None => error.help("correct what it printed above; `--no-build` deploys the components as they are"),
    })
}

/// What shells say of a program that they do not find.
const NO_PROGRAM: i32 = 127;

/// Returns what a build lacked, as far as that can be known, and what to do.
fn missing(command: &str, code: Option<i32>, folder: &Path) -> Option<(String, &'static str)> {
    if code == Some(NO_PROGRAM) {
        let why = "a program that it needs is not installed, or not in PATH".to_owned();
        return Some((
            why,
            "the line above names it; the book's page on languages says where each compiler comes from",
        ));
    }
    let has = |word: &str| command.split_whitespace().any(|other| other == word);
    if has("npx") || has("npm") {
        let is_there = folder.join("node_modules").is_dir();
        return (!is_there)
            .then(|| ("its packages are not installed".to_owned(), "run `npm install` in that folder"));
    }
    let target = ["wasm32-wasip2", "wasm32-wasip1"].into_iter().find(|target| command.contains(target))?;
    let printing = std::process::Command::new("rustc")
        .args(["--print", "target-libdir", "--target", target])
        .current_dir(folder)
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let library = PathBuf::from(String::from_utf8(printing.stdout).ok()?.trim());
    let help = match target {
        "wasm32-wasip2" => "run `rustup target add wasm32-wasip2`",
        _ => "run `rustup target add wasm32-wasip1`",
    };
    (has("cargo") && !library.is_dir())
        .then(|| (format!("rustc has no library for the target {target}"), help))
}

pub(super) fn read_component(
    path: &Path,
    workload: &Name,
    was_not_built: bool,
) -> Result<Bytes, CommandError> {
    let what = format!("cannot read the component {} of `{workload}`", path.display());
    let help = if was_not_built {
        "deploy without `--no-build`, so that it is built first"
    } else {
        "`component` in dunlin.toml is relative to dunlin.toml; is it what the build makes?"
    };
    read_bounded(path, &what, help)
}

/// Returns the component in a file, made of a core module if it is one.
pub(crate) fn read_guest(path: &Path, output: &Output) -> Result<Bytes, CommandError> {
    let what = format!("cannot read the component {}", path.display());
    let bytes = read_bounded(path, &what, "name the file that the build makes, like `hello.wasm`")?;
    wrapped(bytes, path, output)
}

fn read_bounded(path: &Path, what: &str, help: &str) -> Result<Bytes, CommandError> {
    let mut bytes = Vec::new();
    // What a fleet takes its coordinator says; none takes more than this.
    let most = dunlin_model::ComponentLimits::maximum().component_size;
    fs::File::open(path)
        .and_then(|file| file.take(most.0 + 1).read_to_end(&mut bytes))
        .map_err(|error| CommandError::failed(what).caused_by(&error).help(help))?;
    if bytes.len() as u64 > most.0 {
        return Err(CommandError::failed(what)
            .because(format!("limit `component_size` is {most} at most, observed more"))
            .help("build it with `--release`, and strip its debug information"));
    }
    Ok(bytes.into())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::args::Format;

    const TEXT: &str = "[app]\nname = \"shop\"\n[build]\ncommand = \"printf wasm > a.wasm\"\n\
        [service.cart]\ncomponent = \"a.wasm\"\n[job.sum]\ncomponent = \"a.wasm\"\n";

    async fn built(folder: &Path, run_build: bool, namespace: Option<&Name>) -> Result<Built, String> {
        build(folder, run_build, namespace, &Output::new(Format::Table, true))
            .await
            .map_err(|error| error.to_string().replace(folder.to_str().unwrap(), "FOLDER"))
    }

    #[tokio::test]
    async fn a_folder_becomes_specs_with_each_component_once() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(MANIFEST), TEXT).unwrap();
        let built = built(folder.path(), true, Some(&"team-a".parse().unwrap())).await.unwrap();
        assert_eq!(built.spec.name.to_string(), "team-a/shop");
        assert_eq!(built.spec.workloads.len(), 2);
        assert_eq!(built.components.len(), 1);
        assert_eq!(built.components[0].digest, Digest::of(b"wasm"));
    }

    #[tokio::test]
    async fn what_is_missing_or_wrong_is_said_with_its_help() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(MANIFEST);
        let mut lines = built(folder.path(), true, None).await.unwrap_err();
        fs::write(&path, TEXT).unwrap();
        lines += &built(folder.path(), false, None).await.unwrap_err();
        fs::write(&path, TEXT.replace("printf", "exit 3; printf")).unwrap();
        lines += &built(folder.path(), true, None).await.unwrap_err();
        fs::write(&path, TEXT.replace("printf wasm > a.wasm", "no-such-compiler")).unwrap();
        lines += &built(folder.path(), true, None).await.unwrap_err();
        fs::write(&path, TEXT.replace("printf wasm > a.wasm", "exit 1; npx")).unwrap();
        lines += &built(folder.path(), true, None).await.unwrap_err();
        fs::write(&path, TEXT.replace("> a.wasm", "> b.wasm")).unwrap();
        lines += &built(folder.path(), true, None).await.unwrap_err();
        fs::write(&path, TEXT.replace("name", "nmae")).unwrap();
        lines += &built(folder.path(), true, None).await.unwrap_err();
        expect![[r#"
            error: cannot read the manifest FOLDER/dunlin.toml
              cause: No such file or directory (os error 2)
              help: give the folder with dunlin.toml: `dunlin deploy path/to/app`
            error: cannot read the component FOLDER/a.wasm of `cart`
              cause: No such file or directory (os error 2)
              help: deploy without `--no-build`, so that it is built first
            error: the build `exit 3; printf wasm > a.wasm` failed
              cause: it ended with exit status: 3, in the folder FOLDER
              help: correct what it printed above; `--no-build` deploys the components as they are
            error: the build `no-such-compiler` failed
              cause: it ended with exit status: 127, in the folder FOLDER
              cause: a program that it needs is not installed, or not in PATH
              help: the line above names it; the book's page on languages says where each compiler comes from
            error: the build `exit 1; npx` failed
              cause: it ended with exit status: 1, in the folder FOLDER
              cause: its packages are not installed
              help: run `npm install` in that folder
            error: cannot read the component FOLDER/a.wasm of `cart`
              cause: No such file or directory (os error 2)
              help: `component` in dunlin.toml is relative to dunlin.toml; is it what the build makes?
            error: the manifest FOLDER/dunlin.toml has mistakes
              cause: 1:1: `app.name`: this field is missing; write `name = "shop"`
              cause: 2:1: `app.nmae`: unknown field `nmae`; did you mean `name`?
              help: each place is line:column; correct them and deploy again
        "#]]
        .assert_eq(&lines);
    }
}
