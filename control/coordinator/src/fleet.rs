//! The agents that are connected: one session each, and what is to be told to them.
//!
//! State, not commands: of assignments only the newest is kept for a slow agent, and what is lost is asked for again
//! by the agent's next report.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::{AllocationId, Assignment, DurationMs, NodeId, Timestamp};
use dunlin_transport::{CloseCode, Connection};
use tokio::sync::{mpsc, watch};

/// How many acknowledgements may wait for a slow agent; those beyond are dropped, since agents repeat their reports.
const MAX_RECORDED_WAITING: usize = 64;

/// The agents that are connected.
#[derive(Default)]
pub(crate) struct Fleet {
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    by_node: BTreeMap<NodeId, Session>,
    counted: u64,
}

struct Session {
    number: u64,
    assignment: watch::Sender<Option<Arc<Assignment>>>,
    recorded: mpsc::Sender<Vec<(AllocationId, u32)>>,
    heard: watch::Sender<Option<Heard>>,
    connection: Connection,
}

/// What a session has to send.
pub(crate) struct Outbox {
    /// Tells sessions of the same node apart.
    pub(crate) number: u64,
    pub(crate) assignment: watch::Receiver<Option<Arc<Assignment>>>,
    pub(crate) recorded: mpsc::Receiver<Vec<(AllocationId, u32)>>,
    pub(crate) heard: watch::Receiver<Option<Heard>>,
}

/// What is said of a report that was heard: the newest says all that those before it said.
#[derive(Clone, Debug)]
pub(crate) struct Heard {
    /// When it was sent, by the node's clock.
    pub(crate) sent: Timestamp,
    /// Which singletons may run, and for how long from then on.
    pub(crate) leases: BTreeMap<AllocationId, DurationMs>,
}

impl Fleet {
    /// Takes in the session of a node that connected. An older one of the same node is closed: a node has one voice.
    pub(crate) fn enter(&self, node: NodeId, connection: Connection) -> Outbox {
        let (assignment, assignment_out) = watch::channel(None);
        let (recorded, recorded_out) = mpsc::channel(MAX_RECORDED_WAITING);
        let (heard, heard_out) = watch::channel(None);
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.counted += 1;
        let number = sessions.counted;
        let session = Session { number, assignment, recorded, heard, connection };
        if let Some(older) = sessions.by_node.insert(node, session) {
            older.connection.close(CloseCode::REPLACED, "the node connected again");
        }
        Outbox { number, assignment: assignment_out, recorded: recorded_out, heard: heard_out }
    }

    /// Forgets a session that ended, unless a newer one of the same node has taken its place; tells whether it was
    /// the node's last.
    pub(crate) fn leave(&self, node: &NodeId, number: u64) -> bool {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let is_current = sessions.by_node.get(node).is_some_and(|session| session.number == number);
        if is_current {
            sessions.by_node.remove(node);
        }
        is_current
    }

    /// Sends `assignment` to `node`, if it is connected; an older one that still waits is replaced.
    pub(crate) fn assign(&self, node: &NodeId, assignment: Assignment) {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.by_node.get(node) {
            session.assignment.send_replace(Some(Arc::new(assignment)));
        }
    }

    /// Tells `node` that these items are recorded, if it is connected and listens.
    pub(crate) fn recorded(&self, node: &NodeId, items: Vec<(AllocationId, u32)>) {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.by_node.get(node) {
            let _repeated_later = session.recorded.try_send(items);
        }
    }

    /// Tells `node` that a report was heard, if it is connected; what was to be told of an earlier one is replaced.
    pub(crate) fn heard(&self, node: &NodeId, heard: Heard) {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.by_node.get(node) {
            session.heard.send_replace(Some(heard));
        }
    }

    /// Closes the connection to `node`, which is no member any more.
    pub(crate) fn expel(&self, node: &NodeId) {
        if let Some(connection) = self.connection(node) {
            connection.close(CloseCode::NOT_A_MEMBER, "this node was revoked");
        }
    }

    /// Returns the connection to `node`, if there is one.
    pub(crate) fn connection(&self, node: &NodeId) -> Option<Connection> {
        let sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.by_node.get(node).map(|session| session.connection.clone())
    }
}
