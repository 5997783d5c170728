//! `dunlin test`: the tests of a manifest, each in the sandbox of a fleet's nodes and without a fleet.
//!
//! A test says what a workload is given, what must come of it, and what it may burn: fuel is the same at each run, so a
//! change that makes a request dearer fails its test wherever it is run. [`sandbox`] runs, [`mod@judge`] decides.

mod judge;
mod sandbox;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use dunlin_agent::{Settings, SoloConfig};
use dunlin_model::{Feature, Fuel, Name, TestCase};
use serde::Serialize;

use self::judge::{Observed, judge};
use self::sandbox::Subject;
use super::alone::{cache, feature};
use super::deploy::{self, Built};
use super::processes::{Stop, failed, start_quiet_log};
use crate::args::Global;
use crate::error::CommandError;
use crate::output::Output;

/// Run the tests of an app's manifest in the sandbox, without a fleet.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin test shop greets")]
pub(crate) struct TestArgs {
    /// The folder of the app, or its manifest.
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Only tests with this in their names.
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
    /// Take the components as they are; do not run `[build] command`.
    #[arg(long)]
    no_build: bool,
    /// Addresses that are not public and to which guests may connect all the same, like 127.0.0.0/8; may be repeated.
    #[arg(long, value_name = "RANGE")]
    allow_address: Vec<String>,
    /// What is young and off unless it is switched on, like wasi-0.3; may be repeated.
    #[arg(long, value_name = "FEATURE", value_parser = feature)]
    feature: Vec<Feature>,
}

/// What became of one test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Tested {
    test: Name,
    workload: Name,
    passed: bool,
    /// What it burned, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel: Option<Fuel>,
    /// What it may burn at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    fuel_limit: Option<Fuel>,
    /// Why it has not passed.
    failures: Vec<String>,
    /// What the guest logged, where it has not passed.
    logs: Vec<String>,
}

impl Tested {
    fn new(test: &Name, case: &TestCase, observed: &Result<Observed, String>, logs: Vec<String>) -> Self {
        let failures = match observed {
            Ok(observed) => judge(&case.expected, observed),
            Err(why) => vec![why.clone()],
        };
        let passed = failures.is_empty();
        Self {
            test: test.clone(),
            workload: case.workload.clone(),
            passed,
            fuel: observed.as_ref().ok().and_then(Observed::fuel),
            fuel_limit: case.expected.fuel,
            failures,
            logs: if passed { Vec::new() } else { logs },
        }
    }

    fn text(&self, width: usize) -> String {
        let fuel = match (self.fuel, self.fuel_limit) {
            (Some(fuel), Some(limit)) => format!("{fuel} fuel, at most {limit}"),
            (Some(fuel), None) => format!("{fuel} fuel"),
            (None, _) => String::new(),
        };
        let verdict = if self.passed { "ok" } else { "FAILED" };
        let mut lines =
            vec![format!("{verdict:<6}  {:<width$}  {fuel}", self.test.as_str()).trim_end().to_owned()];
        lines.extend(self.failures.iter().map(|failure| format!("        {failure}")));
        lines.extend(self.logs.iter().map(|line| format!("        log: {line}")));
        lines.join("\n")
    }
}

/// Builds the app and runs its tests; an error if one has not passed.
pub(crate) async fn run(global: &Global, args: TestArgs, output: &Output) -> Result<(), CommandError> {
    let built = deploy::build(&args.path, !args.no_build, global.namespace.as_ref(), output).await?;
    let filter = args.filter.as_deref().unwrap_or_default();
    let chosen: BTreeMap<&Name, &TestCase> =
        built.tests.iter().filter(|(name, _)| name.as_str().contains(filter)).collect();
    if chosen.is_empty() {
        return Err(nothing_to_run(&built, filter));
    }
    let cannot = |error: anyhow::Error| failed("cannot run the tests", &error);
    // It starts the log of this process, which can be done once.
    let config = config(&args)?;
    let mut stop = Stop::new().map_err(cannot)?;
    let mut tested = Vec::new();
    let all = async {
        for (workload, tests) in by_workload(&chosen) {
            let subject = Subject::new(&built, workload).ok_or_else(|| {
                CommandError::failed(format!("cannot test `{workload}`"))
                    .because("its component is not there")
                    .help("build it: leave out `--no-build`")
            })?;
            sandbox::run_all(subject, config.clone(), tests, |name, case, observed, logs| {
                let one = Tested::new(name, case, &observed, logs);
                let width = chosen.keys().map(|name| name.as_str().len()).max().unwrap_or(0);
                let shown = if output.is_json() {
                    Ok(())
                } else {
                    output.text(&crate::output::escaped(&one.text(width)))
                };
                tested.push(one);
                shown
            })
            .await?;
        }
        Ok::<(), CommandError>(())
    };
    tokio::select! {
        done = all => done?,
        () = stop.asked() => return Err(CommandError::failed("the tests were broken off").because("you asked for it").help("run them again; what passed before is told above")),
    }
    if output.is_json() {
        output.json_line(&tested)?;
    }
    let wrong = tested.iter().filter(|one| !one.passed).count();
    if wrong > 0 {
        return Err(CommandError::failed(format!("{wrong} of {} tests failed", tested.len())).help(
            "each says above what was expected and what came; `fuel` of a test is in `[test.NAME] expect`",
        ));
    }
    output.note(&format!("{} passed", tested.len()));
    Ok(())
}

fn nothing_to_run(built: &Built, filter: &str) -> CommandError {
    let app = &built.spec.name;
    if built.tests.is_empty() {
        return CommandError::failed(format!("`{app}` has no tests"))
            .because("there is no `[test.NAME]` in its manifest")
            .help("write one: `[test.greets]` with `service = \"hello\"` and `expect = { status = 200, fuel = \"3M\" }`");
    }
    let names: Vec<&str> = built.tests.keys().map(Name::as_str).collect();
    CommandError::failed(format!("no test of `{app}` has `{filter}` in its name"))
        .help(format!("there are: {}", names.join(", ")))
}

fn by_workload<'a>(
    tests: &BTreeMap<&'a Name, &'a TestCase>,
) -> BTreeMap<&'a Name, Vec<(&'a Name, &'a TestCase)>> {
    let mut grouped: BTreeMap<&Name, Vec<_>> = BTreeMap::new();
    for (name, case) in tests {
        grouped.entry(&case.workload).or_default().push((*name, *case));
    }
    grouped
}

fn config(args: &TestArgs) -> Result<SoloConfig, CommandError> {
    let cache = cache().ok_or_else(|| {
        CommandError::failed("cannot run the tests")
            .because("neither XDG_CACHE_HOME nor HOME is set")
            .help("set one of them: compiled code is kept there")
    })?;
    let mut settings = Settings::default();
    settings.egress.allow.extend(args.allow_address.iter().cloned());
    settings.features.extend(args.feature.iter().copied());
    Ok(SoloConfig { cache, program: "/proc/self/exe".into(), settings, log: start_quiet_log() })
}
