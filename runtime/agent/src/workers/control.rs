//! The control socket of one worker: frames in, frames out.

use dunlin_protocol::{FromWorker, ToWorker, decode, encode, frame_length};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

/// Passes messages on until there is nobody left who sends, or the worker is gone. Then the worker sees the end.
pub(super) async fn write(mut writer: OwnedWriteHalf, mut messages: mpsc::UnboundedReceiver<ToWorker>) {
    while let Some(message) = messages.recv().await {
        let frame = match encode(&message) {
            Ok(frame) => frame,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "message to a worker is too large");
                continue;
            }
        };
        if writer.write_all(&frame).await.is_err() {
            // The reader sees the same end and tells the supervisor.
            return;
        }
    }
}

/// Returns the next message, or nothing once the worker is gone or talks nonsense.
pub(super) async fn read(reader: &mut OwnedReadHalf) -> Option<FromWorker> {
    let mut prefix = [0; 4];
    reader.read_exact(&mut prefix).await.ok()?;
    let mut body = vec![0; frame_length(prefix).ok()?];
    reader.read_exact(&mut body).await.ok()?;
    decode(&body)
        .inspect_err(|error| {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a worker broke the protocol; it is ended"
            );
        })
        .ok()
}
