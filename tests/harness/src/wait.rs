//! Waiting for a state, never for a time: tests say what must come true, and how long they are patient.

use std::time::{Duration, Instant};

/// How long tests wait for something which should happen soon. Generous, since test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `probe` gives a value.
///
/// # Panics
///
/// When that did not happen within [`PATIENCE`]; the message says what `what` was and what the probe saw last.
pub async fn eventually<T, F, W>(what: &str, mut probe: F) -> T
where
    F: FnMut() -> W,
    W: Future<Output = Result<T, String>>,
{
    let started = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return value,
            Err(seen) => {
                assert!(
                    started.elapsed() < PATIENCE,
                    "{what} did not happen within {PATIENCE:?}; last seen: {seen}"
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}
