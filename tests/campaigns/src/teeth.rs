//! Whether the campaigns find what is planted: each bug is made in a program that was built with them, and the campaign
//! that should find it must fail.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use dunlin_planted::Bug;

use crate::report::Report;

/// Which campaign finds which bug, and within how many rounds. Those that are found soonest come first: so many of them are
/// tried with each change.
const TEETH: [(Bug, &str, u64); 15] = [
    (Bug::ForgetNamespaces, "kills", 40),
    (Bug::StopAtDamagedAssignment, "flips", 300),
    (Bug::ForgetAssignment, "reboots", 10),
    (Bug::CommitWithoutSync, "kills", 40),
    (Bug::BelieveDamagedKeys, "flips", 300),
    (Bug::ForgetBatches, "kills", 100),
    (Bug::ForgetRuns, "kills", 40),
    (Bug::AnswerBeforeCommit, "kills", 400),
    (Bug::LoseLastWrite, "kills", 100),
    (Bug::SweepEndedRuns, "kills", 100),
    (Bug::PanicOnFailedWrite, "faults", 200),
    (Bug::WriteInPlace, "faults", 300),
    (Bug::NewKeyAtEachJoin, "faults", 300),
    (Bug::KeepTerm, "kills", 100),
    (Bug::OutliveLease, "partitions", 100),
];

/// Tries so many of the bugs, of which each must be found. `DUNLIN_TEST_PROGRAM` names the program that has them.
pub fn teeth(rounds: u64, seed: u64) -> anyhow::Result<Report> {
    ensure!(
        std::env::var_os("DUNLIN_TEST_PROGRAM").is_some(),
        "there is no program with planted bugs; `cargo x teeth` builds one"
    );
    let mut report = Report::default();
    let most = usize::try_from(rounds)?.min(TEETH.len());
    for (bug, campaign, rounds) in &TEETH[..most] {
        let since = Instant::now();
        let mut command = Command::new(std::env::current_exe()?);
        command.args([campaign, "--rounds", &rounds.to_string(), "--seed", &seed.to_string()]);
        command.env("DUNLIN_PLANTED", bug.name()).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        let output = command.output().with_context(|| format!("could not run {campaign}"))?;
        let told = String::from_utf8_lossy(&output.stdout);
        ensure!(!output.status.success(), "{campaign} does not find `{}`:\n{told}", bug.name());
        let said = String::from_utf8_lossy(&output.stderr);
        report.fault(&format!("`{}`, found by {campaign}: {}", bug.name(), cause(&said)));
        report.recovered("from the start until a planted bug is found", since.elapsed());
    }
    Ok(report)
}

/// Returns the beginning of what a campaign says last of why it has failed.
fn cause(said: &str) -> String {
    let cause = said.rsplit_once("Caused by:").map_or(said, |(_, cause)| cause);
    cause.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(160).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bug_is_looked_for() {
        for bug in Bug::ALL {
            assert_eq!(TEETH.iter().filter(|(other, ..)| other == bug).count(), 1, "{}", bug.name());
        }
    }
}
