//! Upgrades in the simulation: agents become programs, some of which are refused by their node, or hear of nobody.
//!
//! Rules: no more nodes become one at a time than was wished; when one could not, no further one is told (both are the
//! brain's own, `check`); and in the end an upgrade is over or was stopped, and those that came later have it too.

use std::collections::BTreeMap;

use dunlin_model::{Architecture, Digest, DurationMs, NodeId, Program, ProgramOrder, UpgradePlan};
use dunlin_scheduler::{Command, UpgradeState};
use dunlin_supervisor::{Action, Event, KeptProgram};

use crate::agent::Agent;
use crate::world::{Happening, World};

/// How often a machine starts a program that is on trial.
const MOST_STARTS: u32 = 3;

/// The programs that there are, by the first byte of their digests.
const PROGRAMS: u64 = 8;

/// Tells whether no node takes a program.
fn is_refused(digest: &Digest) -> bool {
    number(digest) % 4 == 1
}

fn number(digest: &Digest) -> u64 {
    u64::from_str_radix(&digest.hex()[..2], 16).expect("it is a number")
}

impl World {
    /// Returns what somebody wants with the programs of the fleet.
    pub(crate) fn upgrade_wish(&mut self) -> Command {
        let random = &mut self.random;
        match random.between(0, 9) {
            0 => Command::StopUpgrade,
            1 => Command::RevertUpgrade,
            2 => Command::ResumeUpgrade,
            _ => {
                let byte = u8::try_from(random.between(1, PROGRAMS)).expect("it is small");
                let program = Program { digest: Digest::from_sha256([byte; 32]), signature: String::new() };
                let plan = UpgradePlan {
                    rings: if random.chance(500) { vec![100] } else { vec![20, 60, 100] },
                    at_once: random.small(1, 2),
                    bake: DurationMs(random.between(0, 5_000)),
                    patience: DurationMs(60_000),
                };
                Command::StartUpgrade { programs: BTreeMap::from([(Architecture::own(), program)]), plan }
            }
        }
    }

    /// Carries out what a supervisor wants done about its program; true if its life has ended with that.
    pub(crate) fn minds_program(&mut self, node: &NodeId, action: Action) -> Result<bool, String> {
        let life = self.agents[node].life;
        match action {
            Action::KeepTried { number, failed } => {
                let kept = &mut self.agents.get_mut(node).expect("it is a node").program;
                *kept = KeptProgram { tried: number, failed, is_on_trial: false, ..kept.clone() };
            }
            Action::TakeProgram { order } => self.takes_program(node, *order),
            Action::ReturnProgram { number: _, reason } => {
                let agent = self.agents.get_mut(node).expect("it is a node");
                agent.goes_back(reason);
                self.counts.programs_returned += 1;
                self.note(format_args!("{node} becomes again what it was"));
                self.agent_is_to_start_again(node)?;
                self.agent_crashes(node);
            }
            other => return Err(format!("{other:?} has nothing to do with programs")),
        }
        Ok(self.agents[node].life != life)
    }

    fn takes_program(&mut self, node: &NodeId, order: ProgramOrder) {
        let number = order.number;
        let not_taken = |again| Event::NotTaken { number, reason: "simulated".to_owned(), again };
        let is_refused = order.program.as_ref().is_some_and(|program| is_refused(&program.digest));
        let wait = self.draw(50, 3_000);
        if is_refused || self.random.chance(self.faults.fetch_fails) {
            self.plan_on_node(node, wait, None, not_taken(!is_refused));
            return;
        }
        let life = self.agents[node].life;
        self.plan(wait, Happening::Becomes { node: node.clone(), life, order });
    }

    /// An agent becomes another program.
    pub(crate) fn becomes(&mut self, node: &NodeId, life: u64, order: ProgramOrder) -> Result<(), String> {
        if self.agents[node].life != life {
            return Ok(());
        }
        self.agent_is_to_start_again(node)?;
        let agent = self.agents.get_mut(node).expect("it is a node");
        let digest = order.program.map(|program| program.digest);
        agent.former = agent.program.digest;
        agent.starts = 0;
        agent.program = KeptProgram { tried: order.number, digest, failed: None, is_on_trial: true };
        self.counts.programs_taken += 1;
        self.note(format_args!("{node} becomes {digest:?}"));
        self.agent_crashes(node);
        Ok(())
    }

    /// An upgrade comes to an end, and who is there then has it.
    pub(crate) fn check_upgrade_is_over(&self) -> Result<(), String> {
        let Some(upgrade) = &self.coordinator.store.upgrade else { return Ok(()) };
        if upgrade.state == UpgradeState::Running {
            return Err(format!("upgrade {} goes on", upgrade.number));
        }
        let nodes = self.coordinator.store.nodes.values().filter(|node| node.lost.is_none());
        for node in nodes.filter(|node| upgrade.is_for(node) && upgrade.state == UpgradeState::Done) {
            let report = node.info.as_ref().and_then(|info| info.program.as_ref());
            if report.is_none_or(|report| report.tried != upgrade.number) {
                return Err(format!("{} has not tried upgrade {}: {report:?}", node.id, upgrade.number));
            }
        }
        match self.agents.values().find(|agent| !agent.gone && agent.program.is_on_trial) {
            Some(agent) => Err(format!("the program of {} is still on trial", agent.node)),
            None => Ok(()),
        }
    }
}

impl Agent {
    /// Tells whether it is a program that never hears of its coordinator.
    pub(crate) fn is_deaf(&self) -> bool {
        self.program.digest.as_ref().is_some_and(|digest| number(digest) % 4 == 2)
    }

    /// Counts a start of the machine's agent; one on trial is not started for ever.
    pub(crate) fn counts_start(&mut self) {
        if self.program.is_on_trial {
            self.starts += 1;
            if self.starts > MOST_STARTS {
                self.goes_back("it was started too often".to_owned());
            }
        }
    }

    fn goes_back(&mut self, reason: String) {
        let (tried, digest) = (self.program.tried, self.former.take());
        self.program = KeptProgram { tried, digest, failed: Some(reason), is_on_trial: false };
    }
}
