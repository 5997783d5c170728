//! The one loop which calls the brain.
//!
//! It takes a batch of inputs, lets the brain decide each, commits the changes of all of them in one durable write,
//! publishes the new view, answers, and only then carries out the actions. A failed commit ends the process:
//! starting again and restoring is the recovery, so there is no second path to get wrong. Only for room on the disk it
//! waits: nothing was written then, nobody has heard of the batch, and the same writes are tried again.
//!
//! Most questions read the view. What only the brain itself can answer is asked between two batches, a few questions at
//! a time, and never of what is not durable yet.
//!
//! Not here: how messages travel (`fleet`), and what questions are asked of the view (`http`).

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dunlin_model::Timestamp;
use dunlin_planted::{Bug, Point, planted, reached};
use dunlin_scheduler::{Action, Answer, Change, Cluster, Command, Observation, Rejection, Step, View};
use dunlin_store::{Changes, CommitError};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use crate::clock::{BrainClock, READ_EVERY};
use crate::fleet::{Fleet, Heard};
use crate::kept::Specs;
use crate::process::Ended;
use crate::records;
use crate::sweeper::Sweeper;

/// How many inputs may wait for the brain; who comes later is told to try again.
const MAX_WAITING: usize = 8192;
/// How many inputs share one durable write at most.
const MAX_BATCH: usize = 1024;
/// How many questions may be before the brain at a time; who comes later waits.
const MAX_QUESTIONS: usize = 4;
/// How long the loop waits before it tries to write again to a disk that was full.
const ROOM_RETRY: Duration = Duration::from_secs(1);

/// What the driver can be told.
enum Input {
    Command { command: Box<Command>, reply: oneshot::Sender<Result<Answer, Refusal>> },
    Observation(Box<Observation>),
    Question(Question),
}

/// What is asked of the brain; it sends its answer by itself.
type Question = Box<dyn FnOnce(&Cluster, Timestamp) + Send>;

/// Why a command was not carried out. Nothing has changed, unless it says otherwise.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    /// The brain says no.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// Too many inputs wait already.
    #[error("limit `waiting inputs` is {MAX_WAITING}, all of them taken")]
    Overloaded,
    /// The disk is full.
    #[error("the coordinator's disk is full")]
    StorageFull,
    /// The coordinator is going down.
    #[error("the coordinator is stopping")]
    Stopping,
    /// The coordinator went down before it had answered. It may have happened all the same.
    #[error("the coordinator stopped before it had answered")]
    Unknown,
}

/// A handle for those who want something decided or known.
#[derive(Clone)]
pub(crate) struct Driver {
    inputs: SyncSender<Input>,
    view: Arc<RwLock<Arc<View>>>,
    /// Whether the loop waits for room on the disk.
    is_full: Arc<AtomicBool>,
    /// Who may ask the brain now.
    questions: Arc<Semaphore>,
}

impl Driver {
    /// Hands a user's wish to the brain and waits until its effect is durable.
    pub(crate) async fn submit(&self, command: Command) -> Result<Answer, Refusal> {
        if self.is_full.load(Ordering::Relaxed) {
            return Err(Refusal::StorageFull);
        }
        let (reply, answer) = oneshot::channel();
        self.inputs.try_send(Input::Command { command: Box::new(command), reply }).map_err(|error| {
            match error {
                TrySendError::Full(_) => Refusal::Overloaded,
                TrySendError::Disconnected(_) => Refusal::Stopping,
            }
        })?;
        answer.await.map_err(|_| Refusal::Unknown)?
    }

    /// Tells the brain what an agent said. Dropped when too much waits: agents say it again at the next heartbeat.
    pub(crate) fn observe(&self, observation: Observation) {
        if let Err(TrySendError::Full(_)) = self.inputs.try_send(Input::Observation(Box::new(observation))) {
            tracing::warn!(limit = MAX_WAITING, "too many inputs wait; an observation was dropped");
        }
    }

    /// Asks the brain itself, after a commit. It decides nothing meanwhile, so the answer must be a quick one: who needs
    /// longer takes a copy of the brain and works on that elsewhere.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Cluster, Timestamp) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let _turn = self.questions.acquire().await.map_err(|_closed| Refusal::Stopping)?;
        let (reply, answer) = oneshot::channel();
        let question: Question = Box::new(move |cluster, now| {
            // Who asked may have gone away meanwhile.
            let _gone = reply.send(question(cluster, now));
        });
        self.inputs.try_send(Input::Question(question)).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Overloaded,
            TrySendError::Disconnected(_) => Refusal::Stopping,
        })?;
        answer.await.map_err(|_| Refusal::Stopping)
    }

    /// Returns the picture as it was after the last commit.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The loop's own side.
pub(crate) struct DriverLoop {
    inputs: Receiver<Input>,
    view: Arc<RwLock<Arc<View>>>,
    is_full: Arc<AtomicBool>,
    cluster: Cluster,
    clock: BrainClock,
    hands: Hands,
    /// Counts the batches with changes.
    batches: u64,
}

/// With what the loop does as the brain says.
pub(crate) struct Hands {
    pub(crate) store: Arc<dyn Changes>,
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) sweeper: Sweeper,
    /// The specs that the store holds.
    pub(crate) specs: Specs,
    /// Ends the wait for room on the disk.
    pub(crate) stop: CancellationToken,
}

/// Returns a handle and the loop which it talks to; the caller gives the loop a thread of its own.
pub(crate) fn driver(cluster: Cluster, clock: BrainClock, hands: Hands) -> (Driver, DriverLoop) {
    let (sender, inputs) = sync_channel(MAX_WAITING);
    let view = Arc::new(RwLock::new(Arc::new(cluster.view())));
    let is_full = Arc::new(AtomicBool::new(false));
    let questions = Arc::new(Semaphore::new(MAX_QUESTIONS));
    let handle = Driver { inputs: sender, view: Arc::clone(&view), is_full: Arc::clone(&is_full), questions };
    (handle, DriverLoop { inputs, view, is_full, cluster, clock, hands, batches: 0 })
}

/// The answers that a batch owes.
type Replies = Vec<(oneshot::Sender<Result<Answer, Refusal>>, Result<Answer, Refusal>)>;

/// Tells those who wished something what came of it.
fn answer(replies: Replies, has_changed: bool) {
    let are_wishes = has_changed && !replies.is_empty();
    if are_wishes {
        reached(Point::ApiBeforeAck);
    }
    for (reply, answer) in replies {
        // Who asked may have gone away meanwhile; what was decided stands.
        let _gone = reply.send(answer);
    }
    if are_wishes {
        reached(Point::ApiAfterAck);
    }
}

impl DriverLoop {
    /// Runs until all handles are gone, the process stops while it waits for room, the brain wants a new start, or a
    /// commit fails.
    pub(crate) fn run(mut self) -> Result<Ended, CommitError> {
        loop {
            let now = self.clock.read();
            let wait = self.cluster.next_deadline().map_or(READ_EVERY, |deadline| now.until(deadline));
            // The clock must be read again soon, whatever happens.
            let first = match self.inputs.recv_timeout(wait.min(READ_EVERY)) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Ok(Ended::Stopped),
            };
            let now = self.clock.read();
            if first.is_none() && self.cluster.next_deadline().is_none_or(|deadline| deadline > now) {
                continue;
            }
            if let ControlFlow::Break(ended) = self.turn(first, now)? {
                return Ok(ended);
            }
        }
    }

    /// Decides one batch, makes it durable, and only then lets anybody hear of it.
    fn turn(&mut self, first: Option<Input>, now: Timestamp) -> Result<ControlFlow<Ended>, CommitError> {
        let mut changes = Vec::new();
        let mut actions = Vec::new();
        let mut replies: Replies = Vec::new();
        let mut questions = Vec::new();
        // A question changes nothing, and a picture of a large fleet costs.
        let mut is_picture_old = false;
        let mut take = |step: Step| {
            changes.extend(step.changes);
            actions.extend(step.actions);
        };

        let rest = std::iter::from_fn(|| self.inputs.try_recv().ok());
        for input in first.into_iter().chain(rest).take(MAX_BATCH) {
            is_picture_old |= !matches!(input, Input::Question(_));
            match input {
                Input::Question(question) => questions.push(question),
                Input::Observation(observation) => take(self.cluster.observe(*observation, now)),
                // Refused before the brain hears of it: what it has decided can not be taken back.
                Input::Command { reply, .. } if !self.hands.store.has_room() => {
                    replies.push((reply, Err(Refusal::StorageFull)));
                }
                Input::Command { command, reply } => match self.cluster.submit(*command, now) {
                    Ok((answer, step)) => {
                        take(step);
                        replies.push((reply, Ok(answer)));
                    }
                    Err(rejection) => replies.push((reply, Err(rejection.into()))),
                },
            }
        }
        if self.cluster.next_deadline().is_some_and(|deadline| deadline <= now) {
            take(self.cluster.tick(now));
            is_picture_old = true;
        }

        if planted(Bug::AnswerBeforeCommit) {
            answer(std::mem::take(&mut replies), false);
        }
        if !changes.is_empty() && self.commit(&changes, now)?.is_break() {
            // Nothing of the batch was written, and that is known.
            for (reply, _) in replies {
                let _gone = reply.send(Err(Refusal::Stopping));
            }
            return Ok(ControlFlow::Break(Ended::Stopped));
        }
        if !self.hands.store.is_in_charge() {
            return Err(CommitError::Deposed("the time in which it was in charge is over".into()));
        }
        for change in &changes {
            match change {
                Change::RunDeleted(run) => self.hands.sweeper.sweep(*run),
                Change::Run(run) if planted(Bug::SweepEndedRuns) && !run.is_open() => {
                    self.hands.sweeper.sweep(run.id);
                }
                _ => {}
            }
        }
        if is_picture_old {
            let view = Arc::new(self.cluster.view());
            *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        }
        answer(replies, !changes.is_empty());
        if actions.contains(&Action::StartAgain) {
            return Ok(ControlFlow::Break(Ended::ToStartAgain));
        }
        self.perform(actions);
        for question in questions {
            question(&self.cluster, now);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Makes changes durable, however long there is no room for them; breaks if the process stops before that.
    ///
    /// The brain has decided already and can not take it back. That is no harm while nobody hears of it, and services
    /// go on meanwhile: the nodes need no coordinator for that.
    fn commit(&mut self, changes: &[Change], now: Timestamp) -> Result<ControlFlow<()>, CommitError> {
        let mut writes = records::writes(changes, &mut self.hands.specs);
        // Deletions are possible without room, so they must not be held up by this.
        if writes.iter().any(|write| write.value.is_some()) {
            writes.push(records::time_seen(now));
        }
        self.batches += 1;
        if planted(Bug::ForgetBatches) && self.batches.is_multiple_of(30) {
            return Ok(ControlFlow::Continue(()));
        }
        if planted(Bug::LoseLastWrite) && writes.len() > 2 {
            writes.swap_remove(0);
        }
        loop {
            match self.hands.store.commit(&writes) {
                Ok(()) => {
                    if self.is_full.swap(false, Ordering::Relaxed) {
                        tracing::info!("there is room on the disk again; the changes are written");
                    }
                    return Ok(ControlFlow::Continue(()));
                }
                Err(error @ CommitError::StorageFull(_)) => {
                    if !self.is_full.swap(true, Ordering::Relaxed) {
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(
                            error,
                            "changes wait for room on the disk; nothing is decided meanwhile"
                        );
                    }
                }
                Err(error) if planted(Bug::PanicOnFailedWrite) => panic!("{error}"),
                Err(error) => return Err(error),
            }
            if self.hands.stop.is_cancelled() {
                return Ok(ControlFlow::Break(()));
            }
            std::thread::sleep(ROOM_RETRY);
        }
    }

    /// Carries out the actions of a batch. However often a node is to be told, it is told once, and what is right at
    /// the end of the batch.
    fn perform(&self, actions: Vec<Action>) {
        let mut nodes = BTreeSet::new();
        for action in actions {
            match action {
                Action::Assign { node } => drop(nodes.insert(node)),
                Action::Expel { node } => self.hands.fleet.expel(&node),
                // The loop has ended.
                Action::StartAgain => {}
                Action::AssignAll => nodes.extend(self.cluster.listeners().cloned()),
                Action::Recorded { node, items } => {
                    reached(Point::AckBeforeRecord);
                    self.hands.fleet.recorded(&node, items);
                }
                Action::Heard { node, sent, leases } => {
                    self.hands.fleet.heard(&node, Heard { sent, leases });
                }
            }
        }
        for node in nodes {
            if let Some(assignment) = self.cluster.assignment(&node) {
                self.hands.fleet.assign(&node, assignment);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use dunlin_model::Term;
    use dunlin_scheduler::{Config, TokenRecord};
    use dunlin_store::{LoadError, NoSpace, Record, Snapshot, SnapshotError, Table, Write};

    use super::*;

    /// A disk that is full for a number of commits.
    struct FullFor {
        commits: AtomicU32,
        written: RwLock<Vec<Vec<Write>>>,
    }

    impl Changes for FullFor {
        fn commit(&self, writes: &[Write]) -> Result<(), CommitError> {
            let left = self.commits.load(Ordering::Relaxed);
            if left > 0 {
                self.commits.store(left - 1, Ordering::Relaxed);
                let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
                return Err(CommitError::StorageFull(NoSpace::Refused(full)));
            }
            self.written.write().unwrap().push(writes.to_vec());
            Ok(())
        }

        fn has_room(&self) -> bool {
            true
        }

        fn get(&self, _: Table, _: &[u8]) -> Result<Option<Vec<u8>>, LoadError> {
            Ok(None)
        }

        fn range(&self, _: Table, _: &[u8], _: Option<&[u8]>, _: usize) -> Result<Vec<Record>, LoadError> {
            Ok(Vec::new())
        }

        fn snapshot(
            &self,
            _: &mut dyn FnMut(&dyn Snapshot) -> Result<(), SnapshotError>,
        ) -> Result<(), SnapshotError> {
            Ok(())
        }

        fn delete_prefix(&self, _: Table, _: &[u8]) -> Result<u64, CommitError> {
            Ok(0)
        }
    }

    fn start(full_for: u32) -> (Arc<FullFor>, CancellationToken, Driver, std::thread::JoinHandle<bool>) {
        let disk = Arc::new(FullFor { commits: full_for.into(), written: RwLock::default() });
        let store: Arc<dyn Changes> = Arc::<FullFor>::clone(&disk);
        let mut clock = BrainClock::start(Timestamp(0));
        let cluster = Cluster::new("c4".parse().unwrap(), Term(1), Config::LAN, clock.read());
        let stop = CancellationToken::new();
        let sweeper = Sweeper::start(Arc::clone(&store)).unwrap();
        let specs = Specs::default();
        let hands = Hands { store, fleet: Arc::default(), sweeper, specs, stop: stop.clone() };
        let (driver, driver_loop) = driver(cluster, clock, hands);
        let thread = std::thread::spawn(move || driver_loop.run().is_ok());
        (disk, stop, driver, thread)
    }

    fn token(id: &str) -> Command {
        let token = TokenRecord {
            id: id.to_owned(),
            secret_hash: [1; 32],
            expires: Timestamp(u64::MAX),
            uses_left: 1,
            created: Timestamp(0),
            used_by: Vec::new(),
            approval: false,
        };
        Command::CreateToken(token)
    }

    #[tokio::test]
    async fn what_finds_no_room_is_written_later_and_answered_only_then() {
        let (disk, _stop, driver, thread) = start(1);
        let mut waiting = Box::pin(driver.submit(token("t")));
        // It is told to nobody, and nobody else is kept waiting.
        while !driver.is_full.load(Ordering::Relaxed) {
            tokio::select! {
                biased;
                answer = waiting.as_mut() => panic!("answered too early: {answer:?}"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert!(driver.view().tokens.is_empty());
        assert!(matches!(driver.submit(token("u")).await, Err(Refusal::StorageFull)));

        assert_eq!(waiting.await.unwrap(), Answer::TokenCreated);
        assert_eq!(driver.view().tokens.len(), 1);
        assert_eq!(disk.written.read().unwrap().len(), 1);
        assert_eq!(driver.submit(token("u")).await.unwrap(), Answer::TokenCreated);
        drop(driver);
        assert!(thread.join().unwrap());
    }

    #[tokio::test]
    async fn a_question_is_answered_by_the_brain_as_it_is_on_the_disk() {
        let (disk, _stop, driver, _thread) = start(0);
        assert_eq!(driver.submit(token("t")).await.unwrap(), Answer::TokenCreated);
        let tokens = driver.ask(|cluster, _| cluster.view().tokens.len()).await.unwrap();
        assert_eq!((tokens, disk.written.read().unwrap().len()), (1, 1));
    }

    #[tokio::test]
    async fn a_process_that_stops_does_not_wait_for_room() {
        let (disk, stop, driver, thread) = start(u32::MAX);
        stop.cancel();
        assert!(matches!(driver.submit(token("t")).await, Err(Refusal::Stopping)));
        assert!(thread.join().unwrap());
        assert!(disk.written.read().unwrap().is_empty());
    }
}
