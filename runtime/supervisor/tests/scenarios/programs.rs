//! Programs: each upgrade is tried once, what nobody hears of goes back, and what may come later is tried again.

use dunlin_model::{Program, ProgramOrder};
use dunlin_supervisor::KeptProgram;

use super::*;

/// A supervisor that takes programs, and says what it wants done about them.
struct Agent {
    supervisor: Supervisor,
    now: Timestamp,
    generation: u64,
}

fn digest(byte: u8) -> Digest {
    Digest::from_sha256([byte; 32])
}

fn order(number: u64, program: Option<u8>) -> ProgramOrder {
    let program = program.map(|byte| Program { digest: digest(byte), signature: String::new() });
    ProgramOrder { number, program }
}

impl Agent {
    fn start(kept: Option<KeptProgram>) -> (Self, Vec<Action>) {
        let now = Timestamp(1_000_000);
        let mut supervisor = fresh_supervisor(Config::default());
        let actions = supervisor.restore(Kept { program: kept, ..Kept::default() }, now);
        (Self { supervisor, now, generation: 0 }, of_programs(actions))
    }

    fn fresh() -> Self {
        Self::start(Some(KeptProgram::default())).0
    }

    fn told(&mut self, program: Option<ProgramOrder>) -> Vec<Action> {
        self.generation += 1;
        let generation = self.generation.to_string();
        let assignment = Assignment { program, ..assignment(&["1", &generation]) };
        of_programs(self.supervisor.assign(assignment, self.now).unwrap())
    }

    fn observe(&mut self, event: Event) -> Vec<Action> {
        of_programs(self.supervisor.observe(event, self.now))
    }

    fn wait(&mut self, seconds: u64) -> Vec<Action> {
        self.now = self.now.plus(DurationMs(seconds * 1_000));
        of_programs(self.supervisor.tick(self.now))
    }

    /// Returns which upgrade it says it has tried, and how that went.
    fn says(&self) -> (u64, Option<String>) {
        let report = self.supervisor.program().unwrap();
        (report.tried, report.failed)
    }
}

fn of_programs(actions: Vec<Action>) -> Vec<Action> {
    let is_of_it = |action: &Action| {
        matches!(action, Action::TakeProgram { .. } | Action::KeepTried { .. } | Action::ReturnProgram { .. })
    };
    actions.into_iter().filter(is_of_it).collect()
}

fn take(order: &ProgramOrder) -> Vec<Action> {
    vec![Action::TakeProgram { order: Box::new(order.clone()) }]
}

fn tried(number: u64, failed: Option<&str>) -> Vec<Action> {
    vec![Action::KeepTried { number, failed: failed.map(str::to_owned) }]
}

fn not_taken(number: u64, again: bool) -> Event {
    Event::NotTaken { number, reason: "no".to_owned(), again }
}

#[test]
fn an_upgrade_is_tried_once() {
    let mut agent = Agent::fresh();
    let first = order(3, Some(1));
    assert_eq!(agent.told(Some(first.clone())), take(&first));
    assert_eq!(agent.told(Some(first.clone())), [], "it is at it");
    assert_eq!(agent.observe(not_taken(3, false)), tried(3, Some("no")));
    assert_eq!(agent.says(), (3, Some("no".to_owned())));
    assert_eq!(agent.told(Some(first)), []);
    assert_eq!(agent.told(Some(order(2, Some(2)))), [], "it is an earlier one");
    assert_eq!(agent.observe(not_taken(3, false)), [], "it was not at it");
    let next = order(4, Some(1));
    assert_eq!(agent.told(Some(next.clone())), take(&next));
}

#[test]
fn what_may_be_had_later_is_tried_again_after_a_while() {
    let mut agent = Agent::fresh();
    let first = order(1, Some(1));
    agent.told(Some(first.clone()));
    assert_eq!(agent.observe(not_taken(1, true)), []);
    assert_eq!(agent.says(), (0, None));
    assert!(agent.supervisor.next_deadline().is_some());
    assert_eq!(agent.wait(2), take(&first));
    agent.observe(not_taken(1, true));
    assert_eq!(agent.told(None), [], "nobody wants it any more");
    assert_eq!(agent.wait(600), []);
}

#[test]
fn who_is_it_already_says_so_and_does_nothing() {
    let kept = KeptProgram { tried: 1, digest: Some(digest(1)), ..KeptProgram::default() };
    let (mut agent, _) = Agent::start(Some(kept));
    assert_eq!(agent.told(Some(order(2, Some(1)))), tried(2, None));
    assert_eq!(agent.says(), (2, None));
    let back = order(3, None);
    assert_eq!(agent.told(Some(back.clone())), take(&back), "the installed one is another program");
}

#[test]
fn a_program_is_on_trial_until_a_coordinator_speaks_to_it() {
    let kept = || KeptProgram { tried: 5, digest: Some(digest(1)), failed: None, is_on_trial: true };
    let (mut agent, actions) = Agent::start(Some(kept()));
    assert_eq!(actions, []);
    assert_eq!(agent.says().0, 4, "it cannot be counted on yet");
    assert_eq!(agent.wait(200), []);
    assert_eq!(agent.told(None), tried(5, None));
    assert_eq!(agent.says(), (5, None));
    assert_eq!(agent.wait(2_000), []);

    let (mut agent, _) = Agent::start(Some(kept()));
    assert_eq!(agent.wait(299), []);
    let reason = "it was started and no coordinator spoke to it".to_owned();
    let back = [Action::ReturnProgram { number: 5, reason }];
    assert_eq!(agent.wait(1), back);
    assert_eq!(agent.wait(100), [], "it is on its way back");
    assert_eq!(agent.told(None), [], "whoever speaks to it");

    let (mut agent, _) = Agent::start(Some(kept()));
    assert_eq!(agent.wait(300), back);
    assert_eq!(agent.observe(not_taken(5, true)), [], "the disk is full");
    assert_eq!(agent.wait(2), back);
}

#[test]
fn an_agent_that_takes_no_programs_says_nothing_of_them() {
    let (mut agent, _) = Agent::start(None);
    assert_eq!(agent.told(Some(order(1, Some(1)))), []);
    assert_eq!(agent.supervisor.program(), None);
}

#[test]
fn an_agent_that_is_about_to_start_again_takes_none() {
    let mut agent = Agent::fresh();
    agent.supervisor.leave(agent.now);
    assert_eq!(agent.told(Some(order(1, Some(1)))), []);
}
