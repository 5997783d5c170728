//! Planted bugs: mistakes that could be made in this crate, to see whether the simulation finds them.
//!
//! Each has a one-line hook where it would be made: `if planted(Bug::OverQuota)`. Without the feature `planted-bugs`,
//! which only the simulation's own test of its teeth switches on, [`planted`] is `false` at compile time, nothing can
//! plant one, and nothing of this is in a program.

#[cfg(feature = "planted-bugs")]
use std::cell::Cell;

/// A mistake that could be made here.
#[cfg_attr(not(feature = "planted-bugs"), expect(unreachable_pub, reason = "only who plants bugs sees them"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// Free memory and computing are not looked at on the single node.
    PlaceOverCapacity,
    /// Countable resources that are taken are not looked at.
    CountResourceNot,
    /// An allocation takes its countable resources twice.
    CountResourceTwice,
    /// What a workload requires of labels by expressions is not looked at.
    IgnoreRequired,
    /// What a workload requires of labels by equality is not looked at.
    IgnoreLabels,
    /// An affinity that binds is taken for a wish.
    TakeAffinityForAWish,
    /// New work goes to nodes that are cordoned.
    IgnoreCordon,
    /// New work goes to nodes that were lost again and again.
    IgnoreFlapping,
    /// New work goes to nodes that cannot be spoken to.
    PlaceOnDisconnected,
    /// A namespace gets one allocation more than its quota.
    OverQuota,
    /// The quota is looked at before the first allocation of a turn only.
    LookAtQuotaOnce,
    /// Of open items only those of the new run count toward the quota.
    ForgetOpenItems,
    /// Services may use what only batch work may over-commit.
    OvercommitServices,
    /// A service that runs everywhere does not hear of nodes that join.
    EverywhereMissesJoined,
    /// A service that runs everywhere is ended on nodes that are lost.
    EverywhereForgetsLost,
    /// A service that runs everywhere goes from node to node though its rollout has failed.
    EverywhereGoesOn,
    /// What ended leaves no room for those who wait.
    ForgetRoom,
    /// After a start of the coordinator nodes get the time of a lease only, not the grace.
    SkipStartGrace,
    /// A report that says nothing new does not renew the lease.
    RenewLeaseForNewsOnly,
    /// Nobody's lease is known after a start of the coordinator.
    ForgetLease,
    /// Lost nodes are released though many were lost at once.
    IgnoreBrake,
    /// Lost nodes are released without a pause between them.
    ReleaseAllAtOnce,
    /// The operator's word that all are to be released is forgotten.
    NeverRelease,
    /// Whether a held zone may be released is not looked at when nodes are back.
    ForgetToLookAgain,
    /// A coordinator that starts does not know that lost nodes are still to be released.
    RestoreForgetsUnreleased,
    /// The items of a released node are not queued again.
    LoseRange,
    /// The items of what a drain ends are not queued again.
    DrainLosesItems,
    /// Allocations of a lost node stay in the routes.
    KeepRoutesOfLost,
    /// Requests go to allocations which are not up yet.
    RouteBeforeRunning,
    /// Requests go on to allocations which say that they do not run, or are unwell.
    RouteToUnwell,
    /// A node that is back goes on with its items, and so does the queue.
    DuplicateAfterPartition,
    /// Lost allocations which were replaced are kept for ever.
    KeepReplaced,
    /// An earlier revision makes way for allocations that are placed, before they answer.
    EndOldBeforeNew,
    /// What answers requests is stopped without leaving the routes first.
    StopWithoutDraining,
    /// The deadline of a drain passes, and nothing is ended.
    DrainForgetsDeadline,
    /// An item that has a record gets a second one.
    RecordTwice,
    /// A failed item is not queued again.
    DropRetries,
    /// A failed item is tried once more than its job allows.
    RetryOnceMore,
    /// How often items were tried is forgotten when the coordinator starts.
    RestoreForgetsTried,
    /// Items that allocations work on are queued when the coordinator starts.
    RestoreQueuesLeased,
    /// The combining instance is never queued.
    LoseCombine,
    /// What is there is combined though items have failed.
    CombineFailed,
    /// Fuel of recorded items is not accounted.
    ForgetFuel,
    /// That numbers were given out is not made durable.
    ForgetCounters,
    /// Agents are not told that their items are recorded.
    ForgetToAcknowledge,
    /// A cancelled run keeps its allocations.
    CancelKeepsAllocations,
    /// A change of the routes is no new generation.
    GenerationForgetsRoutes,
    /// A change for a node which cannot be spoken to is no new generation.
    GenerationForgetsAbsent,
    /// Services make way too.
    PreemptServices,
    /// Batch work makes way for what is just as urgent.
    PreemptEqual,
    /// The items of what has made way are not queued again.
    PreemptLosesItems,
    /// What is to make way is not ended when its time is over.
    PreemptForgetsDeadline,
    /// Services are moved to better nodes again and again, without a pause.
    MoveWithoutPause,
    /// What is moved to a better node ends before it runs there.
    MoveEndsOldFirst,
    /// A second allocation of a singleton is started beside the first.
    SurgeOfSingleton,
    /// A node is believed to have stopped a singleton as soon as it reports, whatever it says.
    BelieveItHasStopped,
    /// A singleton that drains is taken for one that has ended.
    ReplaceWhileDraining,
    /// That a singleton which was ended may still run is not looked at.
    SingletonForgetsLeaving,
    /// Nodes are not told that a secret has another value.
    ForgetReaders,
    /// A secret is deleted though something reads it.
    DeleteSecretInUse,
    /// An upgrade goes on whatever happens to nodes.
    UpgradeGoesOn,
    /// All nodes become another program at once.
    UpgradeAllAtOnce,
    /// The term is not told to agents as it is, but as the first one.
    IgnoreTerm,
}

#[cfg(feature = "planted-bugs")]
impl Bug {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::PlaceOverCapacity,
        Self::CountResourceNot,
        Self::CountResourceTwice,
        Self::IgnoreRequired,
        Self::IgnoreLabels,
        Self::TakeAffinityForAWish,
        Self::IgnoreCordon,
        Self::IgnoreFlapping,
        Self::PlaceOnDisconnected,
        Self::OverQuota,
        Self::LookAtQuotaOnce,
        Self::ForgetOpenItems,
        Self::OvercommitServices,
        Self::EverywhereMissesJoined,
        Self::EverywhereForgetsLost,
        Self::EverywhereGoesOn,
        Self::ForgetRoom,
        Self::SkipStartGrace,
        Self::RenewLeaseForNewsOnly,
        Self::ForgetLease,
        Self::IgnoreBrake,
        Self::ReleaseAllAtOnce,
        Self::NeverRelease,
        Self::ForgetToLookAgain,
        Self::RestoreForgetsUnreleased,
        Self::LoseRange,
        Self::DrainLosesItems,
        Self::KeepRoutesOfLost,
        Self::RouteBeforeRunning,
        Self::RouteToUnwell,
        Self::DuplicateAfterPartition,
        Self::KeepReplaced,
        Self::EndOldBeforeNew,
        Self::StopWithoutDraining,
        Self::DrainForgetsDeadline,
        Self::RecordTwice,
        Self::DropRetries,
        Self::RetryOnceMore,
        Self::RestoreForgetsTried,
        Self::RestoreQueuesLeased,
        Self::LoseCombine,
        Self::CombineFailed,
        Self::ForgetFuel,
        Self::ForgetCounters,
        Self::ForgetToAcknowledge,
        Self::CancelKeepsAllocations,
        Self::GenerationForgetsRoutes,
        Self::GenerationForgetsAbsent,
        Self::PreemptServices,
        Self::PreemptEqual,
        Self::PreemptLosesItems,
        Self::PreemptForgetsDeadline,
        Self::MoveWithoutPause,
        Self::MoveEndsOldFirst,
        Self::SurgeOfSingleton,
        Self::BelieveItHasStopped,
        Self::ReplaceWhileDraining,
        Self::SingletonForgetsLeaving,
        Self::ForgetReaders,
        Self::DeleteSecretInUse,
        Self::UpgradeGoesOn,
        Self::UpgradeAllAtOnce,
        Self::IgnoreTerm,
    ];
}

#[cfg(feature = "planted-bugs")]
thread_local! {
    /// The one that every cluster of this thread has. A test has a thread for itself.
    static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Lets every cluster of this thread have a bug, or none.
#[cfg(feature = "planted-bugs")]
pub fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}

/// Tells whether this mistake is to be made.
#[cfg(feature = "planted-bugs")]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Tells whether this mistake is to be made: it is not.
#[cfg(not(feature = "planted-bugs"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
