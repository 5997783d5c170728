//! Where worker processes are born: on the thread that never ends.
//!
//! A worker is killed by the system when the thread that started it ends. When the agent becomes another program all its
//! threads end but the first one, and workers that are to outlive that must be children of that one.

use std::io;
use std::pin::pin;

use tokio::process::{Child, Command};
use tokio::sync::mpsc;

type Birth = Box<dyn FnOnce() + Send>;

/// A handle for who starts workers.
#[derive(Clone)]
pub(crate) struct Nursery(mpsc::UnboundedSender<Birth>);

/// What the first thread has of it.
pub(crate) struct Births(mpsc::UnboundedReceiver<Birth>);

/// Returns both sides.
pub(crate) fn nursery() -> (Nursery, Births) {
    // Unbounded: everybody who wants something waits for it.
    let (wanted, births) = mpsc::unbounded_channel();
    (Nursery(wanted), Births(births))
}

impl Nursery {
    /// Starts a process on the first thread, and waits for that. Not to be called on it.
    pub(crate) fn spawn(&self, mut command: Command) -> io::Result<Child> {
        let (done, wait) = std::sync::mpsc::channel();
        let birth = move || {
            let _gone = done.send(command.spawn());
        };
        let ends = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the agent is about to end");
        self.0.send(Box::new(birth)).map_err(|_| ends(std::sync::mpsc::RecvError))?;
        wait.recv().map_err(ends)?
    }
}

impl Births {
    /// Starts what is to be started, on the thread that calls this, until `life` is over.
    pub(crate) async fn attend<T>(mut self, life: impl Future<Output = T>) -> T {
        let mut life = pin!(life);
        loop {
            tokio::select! {
                biased;
                Some(birth) = self.0.recv() => birth(),
                over = &mut life => return over,
            }
        }
    }
}

/// Waits for the workers which outlived the program that this process was before: somebody must, or the system keeps
/// what is left of each.
pub(crate) fn wait_for_former_workers() -> bool {
    let children = std::fs::read_to_string(format!("/proc/self/task/{}/children", std::process::id()));
    let former: Vec<i32> =
        children.unwrap_or_default().split_whitespace().filter_map(|process| process.parse().ok()).collect();
    if former.is_empty() {
        return false;
    }
    tracing::info!(
        workers = former.len(),
        "workers of the agent before go on until their last connection ends"
    );
    let waiting = std::thread::Builder::new().name("former workers".to_owned()).spawn(move || {
        for process in former {
            let _gone = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(process), None);
        }
    });
    if let Err(error) = waiting {
        tracing::warn!(%error, "workers of the agent before are not awaited");
    }
    true
}
