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
    /// How often it was started, as long as it is on trial.
    pub(super) trial: Option<u32>,
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
        Self { program: None, former: None, trial: None, failed: None, installed, ..self }
    }

    /// Returns the same at a start of the machine's agent, which counts for a program on trial.
    pub(super) fn at_start(self) -> Self {
        match self.trial {
            Some(starts) if starts >= MOST_STARTS => {
                let reason = format!("it was started {starts} times and no coordinator spoke to it");
                self.back(reason)
            }
            Some(starts) => Self { trial: Some(starts + 1), ..self },
            None => self,
        }
    }

    /// Returns the choice of another program, which is on trial then.
    pub(super) fn take(self, tried: u64, program: Option<Digest>, installed: Stamp) -> Self {
        Self { tried, program, former: self.program, failed: None, trial: Some(1), installed }
    }

    /// Returns the choice of what was before.
    pub(super) fn back(self, reason: String) -> Self {
        Self { program: self.former, former: None, failed: Some(reason), trial: None, ..self }
    }

    /// Returns the same once it is known what came of an upgrade.
    pub(super) fn tried(self, number: u64, failed: Option<String>) -> Self {
        Self { tried: number, failed, trial: None, ..self }
    }

    /// Returns the choice of an agent that is `running` another program than was chosen, as that could not be started.
    pub(super) fn settled(self, running: Option<Digest>) -> Self {
        if self.program == running {
            return self;
        }
        let reason = "the system could not start it".to_owned();
        Self { program: running, former: None, failed: Some(reason), trial: None, ..self }
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

    #[test]
    fn a_program_on_trial_is_started_three_times_and_then_no_more() {
        let before = Chosen { program: Some(digest(1)), installed: stamp(1), ..Chosen::default() };
        let mut chosen = before.take(7, Some(digest(2)), stamp(1));
        for _ in 1..MOST_STARTS {
            chosen = chosen.at_start();
            assert_eq!(chosen.program, Some(digest(2)));
        }
        let chosen = chosen.at_start();
        assert_eq!((chosen.program, chosen.tried, chosen.trial), (Some(digest(1)), 7, None));
        assert_eq!(chosen.failed.as_deref(), Some("it was started 3 times and no coordinator spoke to it"));
        assert_eq!(chosen.clone().at_start(), chosen);
    }

    #[test]
    fn what_is_good_is_started_for_ever() {
        let chosen = Chosen::default().take(7, Some(digest(2)), stamp(1)).tried(7, None);
        assert_eq!((chosen.trial, &chosen.failed), (None, &None));
        assert_eq!((0..10).fold(chosen.clone(), |chosen, _| chosen.at_start()), chosen);
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
        let chosen = before.take(7, Some(digest(2)), stamp(1)).settled(Some(digest(1)));
        assert_eq!((chosen.program, chosen.trial), (Some(digest(1)), None));
        assert!(chosen.failed.is_some());
        assert_eq!(chosen.clone().settled(Some(digest(1))), chosen);
    }
}
