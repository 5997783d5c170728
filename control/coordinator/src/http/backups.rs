//! Backups: all that the coordinator has, as one file.

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use dunlin_api::{Problem, code};
use futures_util::stream;
use http::header::CONTENT_TYPE;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::Api;
use super::problem::Refused;

/// About so many bytes are handed to the connection at a time.
const PIECE: usize = 64 << 10;
/// How many pieces may wait for the connection.
const AHEAD: usize = 4;
/// How long the one who asked may take nothing: a commit that finds the disk full waits for the backup.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns a backup of all that the coordinator has, of one moment, while it works: a tar archive which
/// `dunlin restore` reads. It holds the fleet's private key and the administrator's token. One that breaks off before its
/// `SHA256SUMS` is none. One is taken at a time.
#[utoipa::path(get, path = dunlin_api::paths::BACKUP, tag = "backup",
    responses((status = 200, body = Vec<u8>, content_type = "application/x-tar"),
        (status = 503, body = Problem, content_type = "application/problem+json")))]
pub(crate) async fn take(State(api): State<Api>) -> Result<Response, Refused> {
    let Ok(turn) = api.backups.clone().try_acquire_owned() else {
        let detail = "limit `backups at a time` is 1, and one is being taken";
        return Err(Refused::new(Problem::new(503, code::BUSY, "another backup is being taken", detail)));
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    let (source, now) = (api.backup.clone(), api.clock.now());
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        let mut pieces = Pieces { sender, waiting: Vec::with_capacity(PIECE), handle: Handle::current() };
        if let Err(error) = source.write(now, &mut pieces) {
            tracing::error!(error = &*error as &dyn std::error::Error, "a backup was broken off");
            // The one who asked must not take it for the end.
            let _gone = pieces.send(Err(io::Error::other("the backup was broken off")));
        }
    });
    let pieces = stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|piece| (piece, receiver))
    });
    Ok(([(CONTENT_TYPE, "application/x-tar")], Body::from_stream(pieces)).into_response())
}

/// Hands what is written to the connection, piece by piece.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    waiting: Vec<u8>,
    handle: Handle,
}

impl Pieces {
    fn send(&self, piece: io::Result<Bytes>) -> io::Result<()> {
        let sent = self.handle.block_on(tokio::time::timeout(PATIENCE, self.sender.send(piece)));
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_gone)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the one who asked is gone")),
            Err(_late) => Err(io::Error::new(io::ErrorKind::TimedOut, "the one who asked takes nothing")),
        }
    }
}

impl io::Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.waiting, Vec::with_capacity(PIECE));
        self.send(Ok(piece.into()))
    }
}
