//! Runs of jobs: how one is started, how it stands, and the record of each item.

use std::collections::BTreeMap;

use dunlin_model::{AppName, Bytes, Digest, Fuel, ItemRecord, RunId, Timestamp, WorkloadName};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// The most items of one page.
pub const MAX_ITEM_PAGE: u32 = 1000;

/// The most bytes of an input that comes with the wish itself.
pub const MAX_INPUT_TEXT: Bytes = Bytes(256 << 10);

/// What a run works on: so many items, or one item per uploaded input, or one item with this input; what the job's
/// manifest says if none of them is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StartRun {
    /// So many items, each knowing only its number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u32>,
    /// The digest of an uploaded JSON array of `ItemInput`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Digest>,
    /// The input of the one item, at most 256 KiB of text; what is larger or no text is uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<String>,
    /// Variables beside those of the manifest, or in place of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

/// The answer to a start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunStarted {
    /// Which run it is.
    pub run: RunId,
    /// The runs that it waits for, which were started with it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<RunId>,
}

/// Which runs are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunsQuery {
    /// Only those of this app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<AppName>,
}

/// Runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunList {
    /// The latest first.
    pub runs: Vec<RunStatus>,
}

/// How one run stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunStatus {
    /// Which.
    pub run: RunId,
    /// Of which job.
    pub workload: WorkloadName,
    /// Where it stands.
    pub state: RunState,
    /// How many items it has.
    pub items: u32,
    /// How many of them have a record.
    pub recorded: u32,
    /// How many of these have the outcome `Completed`.
    pub succeeded: u32,
    /// How many of these have another outcome.
    pub failed: u32,
    /// Fuel burned by all recorded items.
    pub fuel: Fuel,
    /// When it was started.
    pub created: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Timestamp>,
    /// Why it does not go on, and what smallest change would help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<String>,
    /// The runs that must have completed before it begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<RunId>,
    /// The moment for which a schedule wanted it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// When it began, which is later than its start if it had to wait for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Timestamp>,
    /// Why it has failed though not all of its items have a record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What the combining instance gave, if the job has one and it is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_output: Option<String>,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It begins when all runs that it comes after have completed.
    Waiting,
    /// Some items have no record yet.
    Running,
    /// Every item, and the combining instance if there is one, has the outcome `Completed`.
    Completed,
    /// Everything is recorded, and not all of it completed; or it was ended before, with a reason.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// A state of a later version.
    #[serde(other)]
    Unknown,
}

impl RunState {
    /// Returns the name alone, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Unknown => "unknown",
        }
    }

    /// Tells whether nothing of it will change any more.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Completed | Self::Failed | Self::Cancelled => true,
            Self::Waiting | Self::Running | Self::Unknown => false,
        }
    }
}

/// Which items are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ItemsQuery {
    /// Those with a higher number than this; from the first if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u32>,
    /// So many at most; never more than 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
}

/// Recorded items, in order of number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemPage {
    /// The items.
    pub items: Vec<ItemStatus>,
    /// What to ask for as `after` to get the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u32>,
}

/// One recorded item.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ItemStatus {
    /// Its number within the run.
    pub item: u32,
    /// The name of its input, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What became of it.
    pub record: ItemRecord,
}
