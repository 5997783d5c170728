//! Where worker processes are born: on the thread that never ends.
//!
//! A worker is killed by the system when the thread that started it ends. When the agent becomes another program all its
//! threads end but the first one, and workers that are to outlive that must be children of that one.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

/// How long a worker may outlive the agent that started it: a little longer than it gives itself.
const FORMER_TIME: Duration = Duration::from_secs(620);
/// How often it is looked which have ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);

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
/// what is left of each. Who takes too long is killed. Tells whether there are any.
pub(crate) fn wait_for(former: Vec<i32>) -> bool {
    // Only children can be waited for, so that no stranger is meant by a number that is wrong.
    let mut left: Vec<Pid> =
        former.into_iter().map(Pid::from_raw).filter(|process| is_child(*process)).collect();
    if left.is_empty() {
        return false;
    }
    tracing::info!(
        workers = left.len(),
        "workers of the agent before go on until their last connection ends"
    );
    let waiting = std::thread::Builder::new().name("former workers".to_owned()).spawn(move || {
        let began = Instant::now();
        while !left.is_empty() {
            std::thread::sleep(LOOK_EVERY);
            left.retain(|process| is_child(*process));
            if began.elapsed() > FORMER_TIME {
                for process in &left {
                    tracing::warn!(%process, "a worker of the agent before is killed: it did not end in time");
                    let _gone = kill(*process, Signal::SIGKILL);
                }
            }
        }
    });
    if let Err(error) = waiting {
        tracing::warn!(%error, "workers of the agent before are not awaited");
    }
    true
}

/// Tells whether a process is a child that has not ended. One that has is gone with that.
fn is_child(process: Pid) -> bool {
    matches!(waitpid(process, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
}
