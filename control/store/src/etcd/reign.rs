//! Who is in charge: from the moment at which it put itself under `leader` until its lease has ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::client::EtcdError;
use super::message::{Compare, PutRequest, RangeRequest, Request, TxnRequest};
use super::room::File;
use super::{Etcd, Keys};

/// How long a coordinator that is not heard is still believed to be in charge.
const LEASE: Duration = Duration::from_secs(5);
/// How often it says that it is there.
const PERIOD: Duration = Duration::from_millis(1_200);
/// How often it looks how full etcd is, in periods.
const LOOK: u32 = 4;

/// A time in which this coordinator, and no other, is in charge.
pub struct Reign {
    /// Drawn, so that what it wrote is told from what others wrote.
    pub(super) id: u64,
    lease: i64,
    /// The revision at which `leader` was made.
    revision: i64,
    /// When etcd was asked for the last time that it granted. The lease ends no earlier than that far on.
    renewed: Mutex<Instant>,
    is_over: watch::Sender<bool>,
    has_room: AtomicBool,
}

impl Reign {
    /// Tries to be in charge, and if it is keeps the lease from then on, as long as somebody has the reign.
    pub(super) fn begin(etcd: &Arc<Etcd>, me: &[u8]) -> Result<Option<Arc<Self>>, EtcdError> {
        let shared = &etcd.shared;
        let mut id = [0; 8];
        getrandom::fill(&mut id)
            .map_err(|error| EtcdError::Senseless(format!("no random bytes: {error}")))?;
        let started = Instant::now();
        let lease = shared.client.grant(LEASE)?;
        let key = shared.keys.leader();
        let value = [hex::encode(id).as_bytes(), b"\n", me].concat();
        let answer = shared.client.transact(&TxnRequest {
            compare: vec![Compare::absent(key.clone())],
            success: vec![Request::Put(PutRequest { key: key.clone(), value: value.clone(), lease }).into()],
            failure: vec![Request::Range(RangeRequest { key, ..RangeRequest::default() }).into()],
        })?;
        let revision = if answer.succeeded {
            answer.revision()
        } else {
            // A first attempt whose answer was lost makes the second one fail.
            let own = answer.ranges().flatten().find(|found| found.value == value);
            match own {
                Some(own) => own.create_revision,
                None => {
                    shared.client.revoke(lease)?;
                    return Ok(None);
                }
            }
        };
        let reign = Arc::new(Self {
            id: u64::from_be_bytes(id),
            lease,
            revision,
            renewed: Mutex::new(started),
            is_over: watch::Sender::new(false),
            has_room: AtomicBool::new(true),
        });
        let (kept, of) = (Arc::downgrade(&reign), Arc::downgrade(etcd));
        let thread = std::thread::Builder::new().name("reign".to_owned()).spawn(move || keep(&kept, &of));
        thread.map_err(|error| EtcdError::Senseless(format!("could not start a thread: {error}")))?;
        Ok(Some(reign))
    }

    /// The condition that this coordinator is in charge.
    pub(super) fn condition(&self, keys: &Keys) -> Compare {
        Compare::made_at(keys.leader(), self.revision)
    }

    /// Returns when it is over: the lease has ended, or may have.
    pub async fn over(&self) {
        let mut is_over = self.is_over.subscribe();
        while !self.is_over() {
            // Not left to the thread which asks etcd: that may wait for an answer.
            let left = LEASE.saturating_sub(self.unheard());
            let _either = tokio::time::timeout(left, is_over.changed()).await;
        }
    }

    /// Tells whether the lease has ended, or may have.
    pub(super) fn is_over(&self) -> bool {
        *self.is_over.borrow() || self.unheard() >= LEASE
    }

    /// Whether etcd has room, as it was seen last.
    pub(super) fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    pub(super) fn end(&self) {
        self.is_over.send_replace(true);
    }

    fn unheard(&self) -> Duration {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Steps down, so that another one need not wait for the lease's end.
    pub fn resign(&self, etcd: &Etcd) {
        self.end();
        match etcd.shared.client.revoke(self.lease) {
            // It has ended already.
            Ok(()) | Err(EtcdError::Refused { .. }) => {}
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "others wait for the end of this lease"
            ),
        }
    }
}

/// Returns what the one in charge says of itself, of the value under `leader`: what stands behind its reign's id.
pub(super) fn said(value: &[u8]) -> &[u8] {
    value.iter().position(|byte| *byte == b'\n').map_or(&[], |end| &value[end + 1..])
}

fn keep(reign: &Weak<Reign>, etcd: &Weak<Etcd>) {
    for turn in 0_u32.. {
        let (Some(reign), Some(etcd)) = (reign.upgrade(), etcd.upgrade()) else { return };
        let asked = Instant::now();
        match etcd.shared.client.keep_alive(reign.lease) {
            Ok(true) => *reign.renewed.lock().unwrap_or_else(PoisonError::into_inner) = asked,
            Ok(false) => {
                tracing::warn!("the lease has ended; another coordinator may be in charge");
                reign.end();
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the lease was not renewed");
            }
        }
        if reign.is_over() {
            reign.end();
            return;
        }
        if turn.is_multiple_of(LOOK) {
            look_for_room(&reign, &etcd);
        }
        drop((reign, etcd));
        std::thread::sleep(PERIOD);
    }
}

/// Notes whether etcd has room for more.
fn look_for_room(reign: &Reign, etcd: &Etcd) {
    let status = match etcd.shared.client.status() {
        Ok(status) => status,
        Err(error) => return tracing::debug!(error = &error as &dyn std::error::Error, "etcd tells nothing"),
    };
    let file = File::new(&status, etcd.shared.keys.location.quota);
    let has_room = file.has_room() && !status.errors.iter().any(|error| error.contains("NOSPACE"));
    if reign.has_room.swap(has_room, Ordering::Relaxed) && !has_room {
        let errors = status.errors.join("; ");
        tracing::error!(%file, errors, "etcd is nearly full; wishes are refused until it has room");
        tracing::error!(
            "what is not in use is given back; if most of it is in use, etcd needs a larger quota"
        );
    }
}
