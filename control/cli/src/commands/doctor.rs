//! `dunlin doctor`: what this machine gives to keep guests apart, and what to do where something is missing.

use std::path::PathBuf;

use clap::Args;
use dunlin_agent::{Settings, WallFinding, advice};
use serde::Serialize;

use crate::error::CommandError;
use crate::output::{Output, table};

/// Say what of the wall around guests this machine gives.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin doctor --output json")]
pub(crate) struct DoctorArgs {
    /// The config file of the node's agent (TOML).
    #[arg(long, value_name = "FILE", env = "DUNLIN_CONFIG")]
    config: Option<PathBuf>,
}

/// One line of the result.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    finding: WallFinding,
    meaning: &'static str,
    /// What to do, where the part is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'static str>,
}

/// Looks, prints, and fails if a part is missing that a node with `hardening = "required"` would want.
pub(crate) async fn run(args: DoctorArgs, output: &Output) -> Result<(), CommandError> {
    let cannot = || CommandError::failed("cannot examine this machine");
    let settings = match args.config {
        None => Settings::default(),
        Some(path) => Settings::read(&path)
            .map_err(|error| cannot().caused_by(&error).help("mend the config file and try again"))?,
    };
    let findings = dunlin_agent::examine("/proc/self/exe".as_ref(), &settings)
        .await
        .map_err(|error| cannot().caused_by(&error).help("run it as the user who runs the agent"))?;
    let lines: Vec<Line> = findings.into_iter().map(line).collect();
    output.result(&lines, || text(&lines))?;
    let missing: Vec<_> =
        lines.iter().filter(|line| line.help.is_some()).map(|line| line.finding.part.name()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let what = format!("parts of the wall are missing: {}", missing.join(", "));
    let help = "the column WHAT TO DO says how to get each; a node with `hardening = \"required\"` runs no guest \
                without them";
    Err(CommandError::failed(&what).help(help))
}

fn line(finding: WallFinding) -> Line {
    let advice = advice(finding.part);
    let help = finding.is_missing().then_some(advice.help);
    Line { finding, meaning: advice.meaning, help }
}

fn text(lines: &[Line]) -> String {
    let row = |line: &Line| {
        let state = if line.help.is_some() { "missing" } else { "present" };
        vec![
            line.finding.part.name().to_owned(),
            state.to_owned(),
            line.finding.detail().to_owned(),
            line.meaning.to_owned(),
            line.help.unwrap_or_default().to_owned(),
        ]
    };
    table(&["PART", "STATE", "HOW", "WHAT IT MEANS", "WHAT TO DO"], lines.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use dunlin_agent::{WallPart, WallState};
    use expect_test::expect;

    use super::*;

    #[test]
    fn what_is_missing_says_what_to_do() {
        let found = |part, state| line(WallFinding { part, state });
        let lines = [
            found(WallPart::User, WallState::Present("user 1879048192".to_owned())),
            found(WallPart::Files, WallState::Missing("this kernel has no Landlock".to_owned())),
        ];
        expect![[r#"
            PART   STATE    HOW                          WHAT IT MEANS                                              WHAT TO DO
            user   present  user 1879048192              workers own nothing of the agent's or of each other's
            files  missing  this kernel has no Landlock  workers see their own files only, whoever owns the others  use a kernel since 5.13 with CONFIG_SECURITY_LANDLOCK and `landlock` in its lsm= list"#]]
        .assert_eq(&text(&lines));
        expect![[r#"{"part":"files","state":"missing","detail":"this kernel has no Landlock","meaning":"workers see their own files only, whoever owns the others","help":"use a kernel since 5.13 with CONFIG_SECURITY_LANDLOCK and `landlock` in its lsm= list"}"#]]
        .assert_eq(&serde_json::to_string(&lines[1]).unwrap());
    }
}
