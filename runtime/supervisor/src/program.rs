//! What the agent is, and what it is to become: each upgrade is tried once, and one that nobody hears of goes back.

use dunlin_model::{Architecture, Digest, ProgramOrder, ProgramReport, Timestamp};

use crate::backoff::Backoff;
use crate::{Action, Config};

/// What was on disk of the program when an agent started that takes some from the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptProgram {
    /// The number of the last upgrade that was tried; 0 if none.
    pub tried: u64,
    /// Which program of the fleet this is; none if it is the one that is installed.
    pub digest: Option<Digest>,
    /// Why it is not what the last upgrade wanted.
    pub failed: Option<String>,
    /// Whether it is on trial: it goes back unless a coordinator speaks to it.
    pub is_on_trial: bool,
}

/// Where the program stands.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs {
    /// What is known; nothing if this agent takes no programs.
    kept: Option<KeptProgram>,
    /// Until when it must be heard of, if it is on trial.
    trial: Option<Timestamp>,
    /// Whether a coordinator has spoken to it.
    is_heard: bool,
    /// What it was last told.
    wanted: Option<ProgramOrder>,
    /// The upgrade that the agent is at.
    at_work: Option<u64>,
    /// Until when it is not tried again.
    until: Timestamp,
    backoff: Backoff,
}

impl Programs {
    /// Takes what is on disk.
    pub(crate) fn restore(&mut self, kept: Option<KeptProgram>, now: Timestamp, config: &Config) {
        self.trial = kept.as_ref().filter(|kept| kept.is_on_trial).map(|_| now.plus(config.trial));
        self.kept = kept;
    }

    /// Takes what the agent is to become.
    pub(crate) fn want(&mut self, order: Option<ProgramOrder>) {
        if order != self.wanted {
            self.until = Timestamp::default();
            self.backoff.reset();
        }
        self.wanted = order;
    }

    /// Notes that a coordinator has spoken to this agent.
    pub(crate) fn heard(&mut self) {
        self.is_heard = true;
    }

    /// Notes that the agent did not become what it was to become, and whether it may be tried again.
    pub(crate) fn not_taken(
        &mut self,
        number: u64,
        reason: String,
        again: bool,
        now: Timestamp,
        config: &Config,
    ) -> Option<Action> {
        self.at_work.take_if(|at_work| *at_work == number)?;
        if again {
            self.until = self.backoff.failed(now, config);
            return None;
        }
        Some(self.tried(number, Some(reason)))
    }

    /// Returns what is to be done now.
    pub(crate) fn settle(&mut self, now: Timestamp) -> Option<Action> {
        let kept = self.kept.as_ref()?;
        if let Some(until) = self.trial {
            // On its way back it is what it is no more, whoever speaks to it.
            if self.at_work.is_some() {
                return None;
            }
            if self.is_heard {
                self.trial = None;
                return Some(self.tried(self.kept.as_ref()?.tried, None));
            }
            if until.max(self.until) > now {
                return None;
            }
            let number = kept.tried;
            self.at_work = Some(number);
            let reason = "it was started and no coordinator spoke to it".to_owned();
            return Some(Action::ReturnProgram { number, reason });
        }
        let order = self.wanted.as_ref().filter(|order| order.number > kept.tried)?;
        if self.at_work.is_some() || self.until > now {
            return None;
        }
        if order.program.as_ref().map(|program| program.digest) == kept.digest {
            return Some(self.tried(order.number, None));
        }
        self.at_work = Some(order.number);
        Some(Action::TakeProgram { order: Box::new(order.clone()) })
    }

    /// Returns what the coordinator is to hear; nothing if this agent takes no programs.
    pub(crate) fn report(&self) -> Option<ProgramReport> {
        let KeptProgram { tried, digest, failed, .. } = self.kept.clone()?;
        // It is none yet that could be counted on.
        let tried = if self.trial.is_some() { tried.saturating_sub(1) } else { tried };
        Some(ProgramReport { architecture: Architecture::own(), tried, digest, failed })
    }

    /// Returns when to look again.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Timestamp> {
        let waits = self.wanted.is_some() && self.at_work.is_none();
        let trial = self.trial.map(|until| until.max(self.until));
        trial.into_iter().chain(waits.then_some(self.until))
    }

    fn tried(&mut self, number: u64, failed: Option<String>) -> Action {
        if let Some(kept) = &mut self.kept {
            kept.tried = number;
            kept.failed.clone_from(&failed);
        }
        Action::KeepTried { number, failed }
    }
}
