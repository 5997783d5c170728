//! The ends of logs, for the message of a campaign that has failed.

use dunlin_harness::Fleet;

/// How many lines of each log are told.
const LINES: usize = 60;

/// Returns the end of each log, under its name.
pub(crate) fn tails(logs: impl IntoIterator<Item = (String, String)>) -> String {
    let tail = |(name, log): (String, String)| {
        let lines: Vec<&str> = log.lines().collect();
        format!("{name}:\n{}", lines[lines.len().saturating_sub(LINES)..].join("\n"))
    };
    logs.into_iter().map(tail).collect::<Vec<_>>().join("\n")
}

/// Returns the end of each log of a fleet.
pub(crate) fn tails_of(fleet: &Fleet) -> String {
    tails(fleet.logs().into_iter().map(|(folder, log)| (folder.display().to_string(), log)))
}
