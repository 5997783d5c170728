//! The one loop which calls the brain.
//!
//! It takes a batch of inputs, lets the brain decide each, commits the changes of all of them in one durable write,
//! publishes the new view, answers, and only then carries out the actions. A failed commit ends the process:
//! starting again and restoring is the recovery, so there is no second path to get wrong.
//!
//! Not here: how messages travel (`fleet`), and what questions are asked of the view (`http`).

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dunlin_scheduler::{Action, Answer, Change, Cluster, Command, Observation, Rejection, Step, View};
use dunlin_store::{Changes, Table};
use tokio::sync::oneshot;

use crate::clock::Clock;
use crate::fleet::Fleet;
use crate::records;

/// How many inputs may wait for the brain; who comes later is told to try again.
const MAX_WAITING: usize = 8192;
/// How many inputs share one durable write at most.
const MAX_BATCH: usize = 1024;
/// How long the loop waits when the brain wants nothing.
const IDLE: Duration = Duration::from_secs(3600);

/// What the driver can be told.
enum Input {
    Command { command: Box<Command>, reply: oneshot::Sender<Result<Answer, Refusal>> },
    Observation(Box<Observation>),
}

/// Why a command was not carried out. Nothing has changed.
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
}

/// A handle for those who want something decided or known.
#[derive(Clone)]
pub(crate) struct Driver {
    inputs: SyncSender<Input>,
    view: Arc<RwLock<Arc<View>>>,
}

impl Driver {
    /// Hands a user's wish to the brain and waits until its effect is durable.
    pub(crate) async fn submit(&self, command: Command) -> Result<Answer, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.inputs.try_send(Input::Command { command: Box::new(command), reply }).map_err(|error| {
            match error {
                TrySendError::Full(_) => Refusal::Overloaded,
                TrySendError::Disconnected(_) => Refusal::Stopping,
            }
        })?;
        answer.await.map_err(|_| Refusal::Stopping)?
    }

    /// Tells the brain what an agent said. Dropped when too much waits: agents say it again at the next heartbeat.
    pub(crate) fn observe(&self, observation: Observation) {
        if let Err(TrySendError::Full(_)) = self.inputs.try_send(Input::Observation(Box::new(observation))) {
            tracing::warn!(limit = MAX_WAITING, "too many inputs wait; an observation was dropped");
        }
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
    cluster: Cluster,
    store: Arc<dyn Changes>,
    fleet: Arc<Fleet>,
    clock: Clock,
}

/// Returns a handle and the loop which it talks to; the caller gives the loop a thread of its own.
pub(crate) fn driver(
    cluster: Cluster,
    store: Arc<dyn Changes>,
    fleet: Arc<Fleet>,
    clock: Clock,
) -> (Driver, DriverLoop) {
    let (sender, inputs) = sync_channel(MAX_WAITING);
    let view = Arc::new(RwLock::new(Arc::new(cluster.view())));
    let handle = Driver { inputs: sender, view: Arc::clone(&view) };
    (handle, DriverLoop { inputs, view, cluster, store, fleet, clock })
}

/// The answers that a batch owes.
type Replies = Vec<(oneshot::Sender<Result<Answer, Refusal>>, Result<Answer, Refusal>)>;

impl DriverLoop {
    /// Runs until all handles are gone, or a commit fails.
    pub(crate) fn run(mut self) -> Result<(), dunlin_store::CommitError> {
        loop {
            let wait = self.cluster.next_deadline().map_or(IDLE, |deadline| self.clock.now().until(deadline));
            match self.inputs.recv_timeout(wait) {
                Ok(first) => self.turn(Some(first))?,
                Err(RecvTimeoutError::Timeout) => self.turn(None)?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// Decides one batch, makes it durable, and only then lets anybody hear of it.
    fn turn(&mut self, first: Option<Input>) -> Result<(), dunlin_store::CommitError> {
        let now = self.clock.now();
        let mut changes = Vec::new();
        let mut actions = Vec::new();
        let mut replies: Replies = Vec::new();
        let mut take = |step: Step| {
            changes.extend(step.changes);
            actions.extend(step.actions);
        };

        let rest = std::iter::from_fn(|| self.inputs.try_recv().ok());
        for input in first.into_iter().chain(rest).take(MAX_BATCH) {
            match input {
                Input::Observation(observation) => take(self.cluster.observe(*observation, now)),
                // Refused before the brain hears of it: what it has decided can not be taken back.
                Input::Command { reply, .. } if !self.store.has_room() => {
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
        }

        if !changes.is_empty() {
            let writes: Vec<_> = changes.iter().map(records::writes).collect();
            self.store.commit(&writes)?;
        }
        for change in &changes {
            // The run itself is gone already, so a crash here leaves records which nothing points at.
            if let Change::RunDeleted(run) = change {
                self.store.delete_prefix(Table::Items, &records::items_of(*run))?;
            }
        }
        let view = Arc::new(self.cluster.view());
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = view;
        for (reply, answer) in replies {
            // Who asked may have gone away meanwhile; what was decided stands.
            let _gone = reply.send(answer);
        }
        for action in actions {
            self.perform(action);
        }
        Ok(())
    }

    fn perform(&self, action: Action) {
        match action {
            Action::Assign { node, assignment } => self.fleet.assign(&node, assignment),
            Action::Recorded { node, items } => self.fleet.recorded(&node, items),
        }
    }
}
