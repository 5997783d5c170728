//! The list of moments at which harm may be done, and the harm.

use std::io;

/// Makes the list of points, with a name for each.
macro_rules! points {
    ($($(#[doc = $doc:literal])* $point:ident = $name:literal),+ $(,)?) => {
        /// A moment at which a process may end, stand still or fail.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($(#[doc = $doc])* $point),+
        }

        impl Point {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$point),+];

            /// Returns its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$point => $name),+
                }
            }
        }
    };
}

points! {
    /// A transaction of the coordinator's store is about to begin.
    StoreBegin = "store.begin",
    /// All of it is written and nothing is durable.
    StoreBeforeCommit = "store.before_commit",
    /// It is durable, and nobody knows.
    StoreAfterCommit = "store.after_commit",
    /// A new store is whole and has not its name yet.
    StoreCreateRename = "store.create.rename",
    /// A file of the coordinator's is whole and has not its name yet.
    StateRename = "state.rename",
    /// A coordinator that starts is about to take its term.
    TermBeforePersist = "term.before_persist",
    /// What was wished is durable, and nobody was told.
    ApiBeforeAck = "api.before_ack",
    /// Who wished was told.
    ApiAfterAck = "api.after_ack",
    /// A node is about to be told what it is to run.
    DispatchBeforeSend = "dispatch.before_send",
    /// It was told.
    DispatchAfterSend = "dispatch.after_send",
    /// Records of items are durable, and their node was not told.
    AckBeforeRecord = "ack.before_record",
    /// A backup is half written.
    BackupMid = "backup.mid",
    /// A file of the agent's is about to be written.
    SnapshotWrite = "agent.snapshot.write",
    /// It is whole and has not its name yet.
    SnapshotRename = "agent.snapshot.rename",
    /// An allocation is about to be started.
    AgentBeforeStart = "agent.before_start",
    /// Its worker was told.
    AgentAfterStart = "agent.after_start",
    /// An allocation is about to be stopped.
    AgentBeforeStop = "agent.before_stop",
    /// A component is on its way.
    PullMidStream = "pull.mid_stream",
    /// All of it is there and may be wrong.
    PullBeforeVerify = "pull.before_verify",
    /// It is right and has not its name yet.
    PullBeforeRename = "pull.before_rename",
    /// A component is about to be compiled.
    CompileSpawn = "compile.spawn",
    /// A new certificate is there, and is not saved.
    CertBeforeSwap = "cert.before_swap",
    /// It is saved, and not shown yet.
    CertAfterSwap = "cert.after_swap",
}

/// Has harm done at this moment, if it is to be: the process ends or stands still for a while.
#[cfg(feature = "on")]
pub fn reached(point: Point) {
    // What fails is for who can fail.
    let _no_harm = harm::at(point);
}

/// The same, or something fails.
///
/// # Errors
///
/// It is to fail.
#[cfg(feature = "on")]
pub fn fails(point: Point) -> io::Result<()> {
    harm::at(point)
}

/// Has no harm done.
#[cfg(not(feature = "on"))]
#[inline(always)]
pub const fn reached(_: Point) {}

/// Has nothing fail.
///
/// # Errors
///
/// None.
#[cfg(not(feature = "on"))]
#[inline(always)]
pub const fn fails(_: Point) -> io::Result<()> {
    Ok(())
}

#[cfg(feature = "on")]
mod harm {
    use std::io;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::Point;

    /// For how long a process stands still.
    const STILL: Duration = Duration::from_secs(2);

    /// What the environment wants: `DUNLIN_FAULT=NAME:HARM:NUMBER`, where that is the time at which the point is reached.
    struct Wanted {
        name: String,
        harm: String,
        number: u64,
        /// Where it is noted that harm was done.
        noted: Option<std::ffi::OsString>,
        times: AtomicU64,
    }

    fn wanted() -> Option<&'static Wanted> {
        static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
        let read = || {
            let text = std::env::var("DUNLIN_FAULT").ok()?;
            let mut words = text.split(':');
            let (name, harm) = (words.next()?.to_owned(), words.next()?.to_owned());
            let number = words.next()?.parse().ok()?;
            let noted = std::env::var_os("DUNLIN_FAULT_NOTED");
            Some(Wanted { name, harm, number, noted, times: AtomicU64::new(0) })
        };
        WANTED.get_or_init(read).as_ref()
    }

    pub(super) fn at(point: Point) -> io::Result<()> {
        let Some(wanted) = wanted().filter(|wanted| wanted.name == point.name()) else { return Ok(()) };
        if wanted.times.fetch_add(1, Ordering::Relaxed) + 1 != wanted.number {
            return Ok(());
        }
        if let Some(noted) = &wanted.noted {
            std::fs::write(noted, "INJECTED")?;
        }
        match wanted.harm.as_str() {
            // As abruptly as it can be done from within: nothing is unwound, flushed or told.
            "kill" => std::process::abort(),
            "sleep" => {
                std::thread::sleep(STILL);
                Ok(())
            }
            _ => Err(io::Error::other(format!("a fault was wanted at {}", wanted.name))),
        }
    }
}
