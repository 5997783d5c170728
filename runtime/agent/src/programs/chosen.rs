//! Which program a machine runs as its agent: the one that is installed there, or one that the fleet has brought.
//!
//! The installed one is what the machine starts, and it becomes the other one. So there is always one to go back to, also
//! from a program that ends before it has said a word.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use dunlin_model::Digest;
use serde::{Deserialize, Serialize};

/// How often a program on trial is started at most.
const MOST_STARTS: u32 = 3;
/// How often another one may end before it is ready, one time after the other, until the installed one is tried.
const MOST_ENDS: u32 = 10;

/// What is on disk of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Chosen {
    /// The number of the last upgrade that was tried.
    pub(super) tried: u64,
    /// The program to run; none for what is installed.
    pub(super) program: Option<Digest>,
    /// What ran before it.
    pub(super) former: Option<Digest>,
    /// Why it is not what the last upgrade wanted.
    pub(super) failed: Option<String>,
    /// Whether it is on trial.
    pub(super) is_on_trial: bool,
    /// How often it was started, one time after the other, and was not ready; on trial, how often it was started at all.
    pub(super) starts: u32,
    /// What was installed when it was chosen.
    pub(super) installed: Stamp,
}

/// What tells a file that was replaced from the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    length: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    /// Returns that of a file.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        let file = std::fs::metadata(path)?;
        Ok(Self { length: file.len(), seconds: file.mtime(), nanoseconds: file.mtime_nsec() })
    }
}

impl Chosen {
    /// Returns what is to be run by a machine that has `installed`: a program that was installed since is what its operator
    /// wants now.
    pub(super) fn now(self, installed: Stamp) -> Self {
        if self.program.is_none() || self.installed == installed {
            return self;
        }
        Self { program: None, former: None, is_on_trial: false, starts: 0, failed: None, installed, ..self }
    }

    /// Returns the same at a start of the machine's agent, which counts, and what is to be run: not always what was
    /// chosen.
    pub(super) fn at_start(self) -> (Self, Option<Digest>) {
        if self.is_on_trial && self.starts >= MOST_STARTS {
            let starts = self.starts;
            let back = self.back(format!("it was started {starts} times and no coordinator spoke to it"));
            let program = back.program;
            return (back, program);
        }
        if self.program.is_none() && !self.is_on_trial {
            return (self, None);
        }
        // One that has been good may not be so on a machine that has changed. What is installed may then say what is wrong.
        let program = self.program.filter(|_| self.starts < MOST_ENDS);
        (Self { starts: self.starts.saturating_add(1), ..self }, program)
    }

    /// Returns the same once its program is ready.
    pub(super) fn ready(self) -> Self {
        if self.is_on_trial { self } else { Self { starts: 0, ..self } }
    }

    /// Returns the choice of another program, which is on trial then. Who becomes it starts it; the installed one counts
    /// that itself.
    pub(super) fn take(self, tried: u64, program: Option<Digest>, installed: Stamp) -> Self {
        let starts = u32::from(program.is_some());
        Self { tried, program, former: self.program, failed: None, is_on_trial: true, starts, installed }
    }

    /// Returns the choice of what was before.
    pub(super) fn back(self, reason: String) -> Self {
        Self {
            program: self.former,
            former: None,
            failed: Some(reason),
            is_on_trial: false,
            starts: 0,
            ..self
        }
    }

    /// Returns the same once it is known what came of an upgrade.
    pub(super) fn tried(self, number: u64, failed: Option<String>) -> Self {
        Self { tried: number, failed, is_on_trial: false, starts: 0, ..self }
    }

    /// Returns the choice of an agent that is `running` another program than was chosen.
    pub(super) fn settled(self, running: Option<Digest>, reason: &str) -> Self {
        if self.program == running {
            return self;
        }
        let failed = Some(reason.to_owned());
        Self { program: running, former: None, failed, is_on_trial: false, starts: 0, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::from_sha256([number; 32])
    }

    fn stamp(seconds: i64) -> Stamp {
        Stamp { length: 1, seconds, nanoseconds: 0 }
    }

    /// Returns what is run at each of so many starts.
    fn run(mut chosen: Chosen, times: usize) -> (Vec<Option<Digest>>, Chosen) {
        let mut run = Vec::new();
        for _ in 0..times {
            let program;
            (chosen, program) = chosen.at_start();
            run.push(program);
        }
        (run, chosen)
    }

    #[test]
    fn a_program_on_trial_is_started_three_times_and_then_no_more() {
        let [before, next] = [1, 2].map(|number| Some(digest(number)));
        let had = Chosen { program: before, installed: stamp(1), ..Chosen::default() };
        // The first time it is become, and not started.
        let (programs, chosen) = run(had.take(7, next, stamp(1)), 4);
        assert_eq!(programs, [next, next, before, before]);
        assert_eq!((chosen.tried, chosen.is_on_trial), (7, false));
        assert_eq!(chosen.failed.as_deref(), Some("it was started 3 times and no coordinator spoke to it"));
    }

    #[test]
    fn the_installed_program_is_on_trial_too_where_it_was_another_one() {
        let before = Some(digest(1));
        let had = Chosen { program: before, installed: stamp(1), ..Chosen::default() };
        let (programs, chosen) = run(had.take(7, None, stamp(1)), 4);
        assert_eq!(programs, [None, None, None, before]);
        assert!(chosen.failed.is_some());
    }

    #[test]
    fn what_is_good_is_started_for_ever_as_long_as_it_gets_ready() {
        let chosen = Chosen::default().take(7, Some(digest(2)), stamp(1)).tried(7, None);
        assert_eq!((chosen.is_on_trial, &chosen.failed), (false, &None));
        let ready = (0..100).fold(chosen.clone(), |chosen, _| chosen.at_start().0.ready());
        assert_eq!(ready, chosen);
        let (programs, chosen) = run(chosen, 12);
        assert_eq!(programs[9..], [Some(digest(2)), None, None]);
        assert_eq!(chosen.program, Some(digest(2)), "nothing else is chosen before something is ready");
    }

    #[test]
    fn what_an_operator_installs_is_run_and_no_upgrade_is_tried_twice() {
        let chosen = Chosen::default().take(7, Some(digest(2)), stamp(1)).tried(7, None);
        assert_eq!(chosen.clone().now(stamp(1)), chosen);
        let other = chosen.now(stamp(2));
        assert_eq!((other.program, other.tried), (None, 7));
        assert_eq!(other.clone().now(stamp(3)), other, "nothing was chosen");
    }

    #[test]
    fn what_the_system_does_not_start_is_not_run() {
        let before = Chosen { program: Some(digest(1)), ..Chosen::default() };
        let chosen = before.take(7, Some(digest(2)), stamp(1)).settled(Some(digest(1)), "no");
        assert_eq!((chosen.program, chosen.is_on_trial), (Some(digest(1)), false));
        assert_eq!(chosen.failed.as_deref(), Some("no"));
        assert_eq!(chosen.clone().settled(Some(digest(1)), "no"), chosen);
    }
}
