//! The one loop which calls the supervisor.
//!
//! It runs on a thread of its own: saving an assignment waits for the disk, and nothing that must happen after may
//! overtake it. Everything slow (fetching, starting, running) is handed on and comes back as an event.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use dunlin_ingress::Ingress;
use dunlin_model::{
    AllocationId, AllocationReport, Assignment, Generation, ItemReport, Name, ObservedState, ProgramReport,
    RunId, Term, Timestamp,
};
use dunlin_planted::{Bug, Point, planted, reached};
use dunlin_protocol::ToWorker;
use dunlin_supervisor::{Action, Event, Kept, Supervisor};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::begun_items::BegunItems;
use crate::clock::Clock;
use crate::components::Components;
use crate::inputs::Inputs;
use crate::kept_items::Keeper;
use crate::last_assignment::LastAssignment;
use crate::link::Link;
use crate::programs::ProgramHand;
use crate::secrets::Secrets;
use crate::workers::Workers;

const NO_WORKER: &str = "its worker process is gone";
const IDLE: Duration = Duration::from_secs(3600);
/// How long after it has thought the loop gives back the memory that it took for that.
const TIDY_AFTER: Duration = Duration::from_secs(1);
/// How often the clock is looked at while something runs that must stop when the coordinator is silent for long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long clients who wait already are to wait for what is being started.
const BEGIN_TIME: Duration = Duration::from_secs(3);
/// How long to wait before a full disk is tried again.
const DISK_PAUSE: Duration = Duration::from_secs(1);

enum Input {
    Assign(Box<Assignment>),
    Event(Box<Event>),
    /// Those which came together are thought through together.
    Events(Vec<Event>),
    /// The agent is to be started again; told when it may be.
    Leave(oneshot::Sender<()>),
    /// The agent is started again now: do what is to be done last, and end.
    End(oneshot::Sender<()>),
}

/// What a heartbeat says of the allocations.
#[derive(Clone, Debug)]
pub(crate) struct Observed {
    /// Whether the supervisor has said so: before, nothing is known.
    pub(crate) is_published: bool,
    pub(crate) term: Term,
    pub(crate) generation: Generation,
    pub(crate) allocations: Vec<AllocationReport>,
    /// The same list until something of it is recorded.
    pub(crate) items: Arc<[ItemReport]>,
    /// What is to be said of the program.
    pub(crate) program: Option<ProgramReport>,
}

impl Default for Observed {
    fn default() -> Self {
        let (term, generation) = Default::default();
        Self {
            is_published: false,
            term,
            generation,
            allocations: Vec::new(),
            items: Arc::new([]),
            program: None,
        }
    }
}

impl Observed {
    /// Tells whether something other than usage has changed.
    fn differs(&self, other: &Self) -> bool {
        let states = |observed: &Self| -> Vec<(AllocationId, ObservedState)> {
            observed.allocations.iter().map(|allocation| (allocation.id, allocation.state.clone())).collect()
        };
        (self.term, self.generation) != (other.term, other.generation)
            || self.is_published != other.is_published
            || self.program != other.program
            || !Arc::ptr_eq(&self.items, &other.items)
            || states(self) != states(other)
    }
}

/// A handle for those who have something to tell the supervisor.
#[derive(Clone)]
pub(crate) struct Driver {
    // Unbounded on purpose: what comes in is bounded by what the supervisor has asked for, and losing an event
    // would leave an allocation waiting for ever.
    inputs: Sender<Input>,
    observed: watch::Receiver<Arc<Observed>>,
    clock: Clock,
}

/// What a [`Driver`] without a loop was told.
pub(crate) struct Told(Receiver<Input>);

impl Told {
    /// Waits for what is told next; nothing once nobody tells any more.
    pub(crate) fn next(&self) -> Option<Vec<Event>> {
        Some(match self.0.recv().ok()? {
            Input::Assign(_) | Input::Leave(_) | Input::End(_) => Vec::new(),
            Input::Event(event) => vec![*event],
            Input::Events(events) => events,
        })
    }
}

impl Driver {
    /// Returns a handle for where there is no supervisor; what it is told, the caller hears.
    pub(crate) fn without_loop() -> (Self, Told) {
        let (inputs, told) = channel();
        let (_nobody_observes, observed) = watch::channel(Arc::default());
        (Self { inputs, observed, clock: Clock::new() }, Told(told))
    }

    /// Hands over what the coordinator wants.
    pub(crate) fn assign(&self, assignment: Assignment) {
        let _stopping = self.inputs.send(Input::Assign(Box::new(assignment)));
    }

    /// Tells what happened.
    pub(crate) fn tell(&self, event: Event) {
        let _stopping = self.inputs.send(Input::Event(Box::new(event)));
    }

    /// Tells of several things that happened.
    pub(crate) fn tell_all(&self, events: Vec<Event>) {
        let _stopping = self.inputs.send(Input::Events(events));
    }

    /// Waits until all that the node is to run has been started, or has failed to, though not for long.
    pub(crate) async fn has_begun(&self) {
        let mut observed = self.observed();
        let is_beginning =
            |state: &ObservedState| matches!(state, ObservedState::Fetching | ObservedState::Starting);
        let has_begun = |observed: &Arc<Observed>| {
            observed.is_published && !observed.allocations.iter().any(|it| is_beginning(&it.state))
        };
        let _late = timeout(BEGIN_TIME, observed.wait_for(has_begun)).await;
    }

    /// Begins no more items, and waits until the agent may be started again; false if the loop has ended.
    pub(crate) async fn leave(&self) -> bool {
        self.ask(Input::Leave).await
    }

    /// Has done what is to be done last before the agent is started again; false if the loop had ended before, as it does
    /// with this.
    pub(crate) async fn end(&self) -> bool {
        self.ask(Input::End).await
    }

    async fn ask(&self, input: impl FnOnce(oneshot::Sender<()>) -> Input) -> bool {
        let (done, wait) = oneshot::channel();
        self.inputs.send(input(done)).is_ok() && wait.await.is_ok()
    }

    /// Returns what the supervisor's clock shows.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Returns what was last observed; it can be awaited for changes.
    pub(crate) fn observed(&self) -> watch::Receiver<Arc<Observed>> {
        self.observed.clone()
    }
}

/// What the loop acts with.
pub(crate) struct Hands {
    pub(crate) last_assignment: LastAssignment,
    pub(crate) kept_items: Keeper,
    pub(crate) begun_items: BegunItems,
    pub(crate) ingress: Ingress,
    pub(crate) components: Arc<Components>,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) programs: Arc<ProgramHand>,
    pub(crate) link: Link,
    pub(crate) workers: Workers,
    pub(crate) runtime: tokio::runtime::Handle,
    /// Gives back memory that the thread which calls it has freed.
    pub(crate) tidy: fn(),
}

impl Hands {
    /// Makes an assignment durable. While the disk is full it waits: nothing that follows from the assignment is done
    /// before it is safe, and what runs goes on meanwhile.
    fn save(&self, assignment: &Assignment) -> io::Result<()> {
        if planted(Bug::ForgetAssignment) {
            return Ok(());
        }
        loop {
            match self.last_assignment.save(assignment) {
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
                {
                    tracing::error!(%error, "assignment cannot be saved; free space on this node's disk");
                    std::thread::sleep(DISK_PAUSE);
                }
                other => return other,
            }
        }
    }
}

/// The loop's own side.
pub(crate) struct DriverLoop {
    supervisor: Supervisor,
    inputs: Receiver<Input>,
    observed: watch::Sender<Arc<Observed>>,
    driver: Driver,
    /// To be told when the agent may be started again.
    leaving: Option<oneshot::Sender<()>>,
}

/// Returns a handle and the loop which it talks to; the caller gives the loop a thread of its own.
pub(crate) fn driver(supervisor: Supervisor) -> (Driver, DriverLoop) {
    let (sender, inputs) = channel();
    let (observed_sender, observed) = watch::channel(Arc::new(Observed::default()));
    let driver = Driver { inputs: sender, observed, clock: Clock::new() };
    let observed = observed_sender;
    (driver.clone(), DriverLoop { supervisor, inputs, observed, driver, leaving: None })
}

impl DriverLoop {
    /// Carries on with what was `kept` and then does what comes, until the process ends.
    ///
    /// # Errors
    ///
    /// An assignment could not be made durable. The process must end: it may not act on what it could forget.
    pub(crate) fn run(mut self, kept: Kept, hands: &Hands) -> Result<(), io::Error> {
        let began = self.driver.now();
        let actions = self.supervisor.restore(kept, began);
        self.perform(actions, hands)?;
        let mut is_tidy = false;
        loop {
            self.publish();
            let now = self.driver.now();
            let wait = self.supervisor.next_deadline().map_or(IDLE, |deadline| now.until(deadline));
            // The time that a machine sleeps is not waited for: the clock is looked at where much depends on it.
            let wait = if self.supervisor.is_on_time() { wait.min(LOOK_EVERY) } else { wait };
            let wait = if is_tidy { wait } else { wait.min(TIDY_AFTER) };
            let first = match self.inputs.recv_timeout(wait) {
                Ok(input) => {
                    is_tidy = false;
                    Some(input)
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !is_tidy {
                        (hands.tidy)();
                        is_tidy = true;
                    }
                    None
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let rest: Vec<Input> = self.inputs.try_iter().take(1024).collect();
            for input in first.into_iter().chain(rest) {
                forget_inputs(&input, hands);
                if let Input::End(done) = input {
                    return self.end(done, hands);
                }
                let actions = self.decide(input);
                self.perform(actions, hands)?;
            }
            let actions = self.supervisor.tick(self.driver.now());
            self.perform(actions, hands)?;
            if let Some(waiting) = self.leaving.take_if(|_| self.supervisor.may_leave()) {
                let _gone = waiting.send(());
            }
        }
    }

    /// Does what is to be done last.
    fn end(mut self, done: oneshot::Sender<()>, hands: &Hands) -> Result<(), io::Error> {
        let actions = self.supervisor.last_actions(self.driver.now());
        self.perform(actions, hands)?;
        let _gone = done.send(());
        Ok(())
    }

    fn decide(&mut self, input: Input) -> Vec<Action> {
        let now = self.driver.now();
        match input {
            Input::Event(event) => self.supervisor.observe(*event, now),
            Input::Events(events) => self.supervisor.observe_all(events, now),
            Input::Assign(assignment) => self.supervisor.assign(*assignment, now).unwrap_or_else(|stale| {
                tracing::warn!(error = &stale as &dyn std::error::Error, "assignment refused");
                Vec::new()
            }),
            Input::Leave(waiting) => {
                self.supervisor.leave(now);
                self.leaving = Some(waiting);
                Vec::new()
            }
            // It is the last one, and is not decided here.
            Input::End(_) => Vec::new(),
        }
    }

    fn perform(&self, actions: Vec<Action>, hands: &Hands) -> Result<(), io::Error> {
        for action in actions {
            match action {
                Action::Save(assignment) => {
                    hands.save(&assignment)?;
                    tracing::debug!(term = %assignment.term, generation = %assignment.generation, "assignment saved");
                }
                Action::KeepItems { reports, in_place } => hands.kept_items.keep(reports, in_place),
                // Without it the next agent takes all that it does not know for begun; so also if it could not know how
                // those ended that have.
                Action::KeepBegun(begun) => {
                    let saved =
                        if hands.kept_items.flush() { hands.begun_items.save(&begun) } else { Ok(()) };
                    if let Err(error) = saved {
                        tracing::error!(%error, "it cannot be kept how far items have come");
                    }
                }
                Action::SetRoutes(routes) => hands.ingress.set_routes(&routes),
                Action::KeepCode { components } => hands.workers.keep_code(&components),
                Action::KeepSecrets { secrets } => hands.secrets.keep(secrets),
                Action::FetchSecret { secret, version } => {
                    let (secrets, link) = (Arc::clone(&hands.secrets), hands.link.clone());
                    let driver = self.driver.clone();
                    hands
                        .runtime
                        .spawn(async move { driver.tell(secrets.fetch(secret, version, &link).await) });
                }
                Action::GiveSecrets { allocation } => hands.workers.give_secrets(&allocation),
                action @ (Action::TakeProgram { .. }
                | Action::KeepTried { .. }
                | Action::ReturnProgram { .. }) => {
                    hands.programs.act(action, &hands.link, &self.driver, &hands.runtime);
                }
                Action::Fetch { digest } => {
                    let components = Arc::clone(&hands.components);
                    let driver = self.driver.clone();
                    hands.runtime.spawn(async move { driver.tell(components.fetch(digest).await) });
                }
                Action::Start { allocation } => {
                    let component: PathBuf = hands.components.path(&allocation.spec.component);
                    tracing::info!(allocation = %allocation.id, workload = %allocation.workload, "allocation starts");
                    // Worker processes are awaited by the runtime, so they must be born within it.
                    let _within = hands.runtime.enter();
                    reached(Point::AgentBeforeStart);
                    hands.workers.start(*allocation, component, &self.driver);
                    reached(Point::AgentAfterStart);
                }
                Action::Stop { at_once: true, .. } if planted(Bug::OutliveLease) => {}
                Action::Stop { allocation, namespace, at_once } => {
                    tracing::info!(%allocation, "allocation stops");
                    reached(Point::AgentBeforeStop);
                    hands.inputs.forget_all(allocation);
                    let _within = hands.runtime.enter();
                    hands.workers.stop(allocation, &namespace, at_once, &self.driver);
                }
                Action::RunItems { allocation, namespace, range, inputs: false, .. } => {
                    if !hands.workers.run_items(&namespace, ToWorker::RunItems { allocation, range }) {
                        let not_run =
                            |item| Event::ItemNotRun { allocation, item, reason: NO_WORKER.to_owned() };
                        self.driver.tell_all((range.start..range.end).map(not_run).collect());
                    }
                }
                Action::RunItems { allocation, namespace, run, range, combine, inputs: true } => {
                    for item in range.start..range.end {
                        let item = InputOf { allocation, run, item, combine };
                        hands.runtime.spawn(run_item(self.driver.clone(), item, namespace.clone(), hands));
                    }
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self) {
        let (term, generation, allocations, items) = self.supervisor.report();
        let program = self.supervisor.program();
        let now = Observed { is_published: true, term, generation, allocations, items, program };
        self.observed.send_if_modified(|before| {
            let is_news = before.differs(&now);
            // Usage changes all the time; it is told with the next heartbeat and wakes nobody.
            *before = Arc::new(now);
            is_news
        });
    }
}

/// An item whose input must be brought.
#[derive(Clone, Copy)]
struct InputOf {
    allocation: AllocationId,
    run: RunId,
    item: u32,
    combine: bool,
}

/// Brings the input of an item and has it run.
fn run_item(driver: Driver, of: InputOf, namespace: Name, hands: &Hands) -> impl Future<Output = ()> + use<> {
    let (inputs, workers) = (Arc::clone(&hands.inputs), hands.workers.clone());
    let InputOf { allocation, run, item, combine } = of;
    async move {
        let reason = match inputs.prepare(&namespace, allocation, run, item, combine).await {
            Ok(message) => {
                if workers.run_items(&namespace, message) {
                    return;
                }
                NO_WORKER.to_owned()
            }
            Err(error) => format!("{error:#}"),
        };
        tracing::warn!(%allocation, item, reason, "item not run; will retry");
        driver.tell(Event::ItemNotRun { allocation, item, reason });
    }
}

/// Forgets the inputs of items that were run.
fn forget_inputs(input: &Input, hands: &Hands) {
    let events = match input {
        Input::Assign(_) | Input::Leave(_) | Input::End(_) => return,
        Input::Event(event) => std::slice::from_ref(&**event),
        Input::Events(events) => events,
    };
    for event in events {
        if let Event::ItemEnded { allocation, item, .. } = event {
            hands.inputs.forget(*allocation, *item);
        }
    }
}
