//! The manifest `dunlin.toml`: strict text from people, turned into checked values.
//!
//! All mistakes are reported at once, each with its line and column; an unknown field names the nearest known one.
//!
//! Not here: reading files. The caller resolves each component's path to a digest and then asks for the
//! [`AppSpec`](crate::AppSpec).

mod capabilities;
mod job;
mod packed;
mod partition;
mod placement;
mod reader;
mod rollout;
mod route;
mod test_case;
#[cfg(test)]
mod tests;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use toml_edit::Document;

pub use self::packed::packed;
use self::reader::{Found, Reader, Section};
use self::test_case::Known;
use crate::check::{self, MAX_WORKLOADS};
use crate::placement::Home;
use crate::{
    AppName, Bytes, Capabilities, Digest, Fuel, Instances, Limits, Metering, Name, Placement, Priority,
    WorkloadKind, WorkloadSpec,
};

/// The most bytes of a manifest.
pub const MAX_MANIFEST: Bytes = Bytes(256 << 10);
/// The most bytes of a path, a pattern or a command in it.
const MAX_TEXT: usize = 4 << 10;

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
    /// `[test.NAME]`, which no fleet is told of.
    pub tests: BTreeMap<Name, TestCase>,
}

impl Manifest {
    /// Returns the manifest that `text` says, or all that is wrong with it. Never panics.
    pub fn parse(text: &str) -> Result<Self, ManifestErrors> {
        let mut reader = Reader::new(text);
        let size = Bytes(text.len() as u64);
        if let Err(broken) = check::at_most("manifest", MAX_MANIFEST, size) {
            reader.note(0, "", broken.message);
            return Err(reader.finish().expect_err("a mistake was just noted"));
        }
        let document = match Document::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let at = error.span().map_or(0, |span| span.start);
                reader.note(at, "", error.message().replace('\n', "; "));
                return Err(reader.finish().expect_err("a mistake was just noted"));
            }
        };
        let manifest = read(&mut reader, &Section::root(document.as_table()));
        reader.finish()?;
        Ok(manifest.expect("a manifest is only absent if a mistake was noted"))
    }

    /// Returns the full name of the app.
    pub fn app_name(&self) -> AppName {
        AppName { namespace: self.namespace.clone(), app: self.app.clone() }
    }
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
    /// What it may touch beyond computing.
    pub capabilities: Capabilities,
    /// Whether each request or item gets an instance of its own.
    pub instances: Instances,
    /// How what it computes is counted.
    pub metering: Metering,
    /// Whether a core dump is kept of an instance that traps.
    pub coredump: bool,
    /// What it asks of the places where it runs.
    pub placement: Placement,
    /// Whether it goes before others.
    pub priority: Priority,
    /// Where a job's items come from; absent for a service.
    pub input: Option<JobInput>,
}

impl ManifestWorkload {
    /// Returns the spec of this workload, once its component is known by its digest.
    pub fn spec(&self, component: Digest) -> WorkloadSpec {
        WorkloadSpec {
            component,
            kind: self.kind.clone(),
            limits: self.limits,
            environment: self.environment.clone(),
            node_labels: self.node_labels.clone(),
            capabilities: self.capabilities.clone(),
            instances: self.instances,
            metering: self.metering,
            coredump: self.coredump,
            signed: None,
            placement: self.placement.clone(),
            priority: self.priority,
        }
    }
}

/// Where the items of a job's run come from, when the one who starts it names none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobInput {
    /// So many items, each knowing only its number.
    Count(u32),
    /// One item for each file which matches one of these patterns, relative to the manifest, in order of path.
    Files(Vec<String>),
}

/// `[test.NAME]`: what one workload is given, and what must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestCase {
    /// Which workload of the app.
    pub workload: Name,
    /// What it is given.
    pub input: TestInput,
    /// What must come of it.
    pub expected: TestExpectation,
}

/// What a workload is given in a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestInput {
    /// A request, for a service.
    Request {
        /// Its method, `GET` if none is said.
        method: String,
        /// Its path and query, `/` if none is said.
        path: String,
        /// Its headers.
        headers: BTreeMap<String, String>,
        /// Its body.
        body: TestContent,
    },
    /// An item, for a job.
    Item {
        /// What it reads from its standard input; of a file the path is its first argument, as in a run.
        input: TestContent,
    },
}

/// Bytes that a test gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TestContent {
    /// None.
    #[default]
    Empty,
    /// Those of a text in the manifest.
    Text(String),
    /// Those of a file, relative to the manifest.
    File(String),
}

/// What must come of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestExpectation {
    /// The status of a service's response; 200 if none is said.
    pub status: u16,
    /// With what a job ends; 0 if nothing is said.
    pub exit_code: u8,
    /// The whole body, or standard output.
    pub equals: Option<String>,
    /// What must stand in the body, or in standard output.
    pub contains: Vec<String>,
    /// Headers of the response and their values.
    pub headers: BTreeMap<String, String>,
    /// What it may burn at most.
    pub fuel: Option<Fuel>,
}

impl TestExpectation {
    /// The status if none is said.
    pub const STATUS: u16 = 200;
}

impl Default for TestExpectation {
    fn default() -> Self {
        Self {
            status: Self::STATUS,
            exit_code: 0,
            equals: None,
            contains: Vec::new(),
            headers: BTreeMap::new(),
            fuel: None,
        }
    }
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

impl fmt::Display for ManifestErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ManifestErrors {}

fn read(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<Manifest> {
    reader.refuse_unknown(root, &["app", "build", "service", "job", "test"]);
    let app = read_app(reader, root);
    let build = read_build(reader, root);
    let mut workloads = BTreeMap::new();
    let mut routes = BTreeSet::new();
    let services = reader.section(root, "service").map(|section| reader.sections(&section));
    let jobs = reader.section(root, "job").map(|section| reader.sections(&section));
    let (services, jobs) = (services.unwrap_or_default(), jobs.unwrap_or_default());
    let count = services.len() + jobs.len();
    if count == 0 && !root.has("service") && !root.has("job") {
        let message = "there is no workload; add `[service.NAME]` or `[job.NAME]` with a `component`";
        reader.note(usize::MAX, "", message);
    } else if count == 0 {
        reader.note(root.place("service").max(root.place("job")), "", "there is no workload in here");
    }
    reader.expect(0, "", check::at_most("workloads", MAX_WORKLOADS, count));
    // An app without a name has a mistake already; its workloads are read all the same.
    let app_name = app.clone().unwrap_or_else(|| "default/app".parse().expect("it is a name"));
    let workload_names = services.iter().chain(&jobs).map(|(key, _)| *key).collect();
    let home = Home { app: &app_name, workloads: workload_names };
    for (key, section) in &services {
        let name = workload_name(reader, section, key);
        let (workload, placed) = workload::service(reader, section, &home);
        for Found { value, at } in placed {
            let headers = value.headers().clone();
            if !routes.insert((value.host, value.path.trim_end_matches('/').to_owned(), headers)) {
                reader.note(at, section.path("routes"), check::SAME_ROUTE);
            }
        }
        workloads.extend(name.zip(workload));
    }
    for (key, section) in &jobs {
        let name = workload_name(reader, section, key);
        if services.iter().any(|(service, _)| service == key) {
            let message = format!("`{key}` is already the name of a service; give one of them another");
            reader.note(section.at(), format!("job.{key}"), message);
        }
        let workload = workload::job(reader, section, &home);
        workloads.extend(name.zip(workload));
    }
    job::check_chains(reader, &jobs, &workloads);
    let mut tests = BTreeMap::new();
    let known = Known { services: &services, jobs: &jobs };
    let cases = reader.section(root, "test").map(|section| reader.sections(&section));
    for (key, section) in cases.unwrap_or_default() {
        let name = workload_name(reader, &section, key);
        tests.extend(name.zip(test_case::test_case(reader, &section, &known)));
    }
    let AppName { namespace, app } = app?;
    Some(Manifest { app, namespace, build, workloads, tests })
}

fn read_app(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<AppName> {
    if !root.has("app") {
        reader.note(0, "app", "this table is missing; write `[app]` and below it `name = \"shop\"`");
    }
    let section = reader.section(root, "app")?;
    reader.refuse_unknown(&section, &["name", "namespace"]);
    if !section.has("name") {
        reader.missing(&section, "name", "\"shop\"");
    }
    let expected = "a string like \"shop\"";
    let name = reader.parsed(&section, "name", expected);
    let namespace = match section.has("namespace") {
        true => reader.parsed(&section, "namespace", expected)?.value,
        false => "default".parse().expect("`default` is a name"),
    };
    Some(AppName { namespace, app: name?.value })
}

fn read_build(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<Build> {
    let section = reader.section(root, "build")?;
    reader.refuse_unknown(&section, &["command"]);
    if !section.has("command") {
        reader.missing(&section, "command", "\"cargo build --release --target wasm32-wasip2\"");
    }
    let command = reader.string(&section, "command", "a string, a shell command")?;
    workload::text(reader, &section, "command", &command);
    Some(Build { command: command.value })
}

fn workload_name(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<Name> {
    match key.parse() {
        Ok(name) => Some(name),
        Err(error) => {
            reader.note(section.at(), "", crate::NameError::to_string(&error));
            None
        }
    }
}
