//! The list of mistakes, and whether one is to be made.

/// Makes the list of bugs, with a name for each.
macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $bug:ident = $name:literal),+ $(,)?) => {
        /// A mistake that could be made.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $doc])* $bug),+
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$bug),+];

            /// Returns its name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$bug => $name),+
                }
            }
        }
    };
}

bugs! {
    /// Wishes are answered before what they change is durable.
    AnswerBeforeCommit = "answer-before-commit",
    /// Every thirtieth batch of changes is not written.
    ForgetBatches = "forget-batches",
    /// Of a batch with several changes the last is not written.
    LoseLastWrite = "lose-last-write",
    /// Nothing that is committed is synced.
    CommitWithoutSync = "commit-without-sync",
    /// A coordinator that starts knows no runs.
    ForgetRuns = "forget-runs",
    /// A coordinator that starts knows nothing of namespaces.
    ForgetNamespaces = "forget-namespaces",
    /// The records of items go when their run has ended.
    SweepEndedRuns = "sweep-ended-runs",
    /// A failed write is taken for impossible.
    PanicOnFailedWrite = "panic-on-failed-write",
    /// A file that is to be whole or not there is written in place.
    WriteInPlace = "write-in-place",
    /// A machine that joins takes a new key at each attempt.
    NewKeyAtEachJoin = "new-key-at-each-join",
    /// Whether a file with keys is as it was written is not looked at.
    BelieveDamagedKeys = "believe-damaged-keys",
    /// The last assignment is not kept.
    ForgetAssignment = "forget-assignment",
    /// A damaged assignment keeps an agent from starting.
    StopAtDamagedAssignment = "stop-at-damaged-assignment",
    /// A coordinator that starts has the term that it had.
    KeepTerm = "keep-term",
    /// A singleton whose lease is over goes on.
    OutliveLease = "outlive-lease",
}

/// Tells whether this mistake is to be made.
#[cfg(feature = "on")]
pub fn planted(bug: Bug) -> bool {
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("DUNLIN_PLANTED").ok());
    wanted.as_deref() == Some(bug.name())
}

/// Tells whether this mistake is to be made: it never is.
#[cfg(not(feature = "on"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}
