//! What is kept of an instance that ended badly, for the author of its guest.
//!
//! All of it is bounded: a guest chooses the names of its functions and the lines that it prints.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Bytes, DurationMs, Fuel, HostCalls, InstanceId, NodeId, Outcome, Revision, Timestamp, WorkloadName,
};

/// What is known of an instance that ended with another outcome than `Completed` or `Cancelled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrapRecord {
    /// When it ended.
    pub at: Timestamp,
    /// Which it was.
    pub instance: InstanceId,
    /// Of which workload.
    pub workload: WorkloadName,
    /// Of which revision.
    pub revision: Revision,
    /// How it ended. The reason of a trap stands here without the stack, which is in `frames`.
    pub outcome: Outcome,
    /// What it burned.
    pub fuel: Fuel,
    /// The most memory it held.
    pub memory: Bytes,
    /// How long it took.
    pub wall: DurationMs,
    /// How often, and for how much, it called the host.
    pub host: HostCalls,
    /// Its stack where it ended, the innermost call first; empty where nothing is known of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub frames: Vec<Frame>,
    /// Its last calls into the host, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_calls: Vec<HostCall>,
    /// Its last lines on standard error, the oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stderr: Vec<String>,
    /// How many instances of this allocation ended so since the last record, without one of their own.
    #[serde(default)]
    pub missed: u64,
    /// What became of its core dump, where the workload wants one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coredump: Option<CoreDump>,
}

/// What became of the core dump of an instance that trapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CoreDump {
    /// The node was given it. It goes when later ones need its place.
    Made {
        /// How large it is.
        size: Bytes,
    },
    /// There is none.
    NotMade {
        /// Why.
        reason: String,
    },
}

/// One call on the stack of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Frame {
    /// The function, as its author wrote it where that is known.
    pub function: String,
    /// The file, if the component says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// The column, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

/// One call of a guest into the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HostCall {
    /// Interface and function, as `wasi:http/types.fields.append`.
    pub name: String,
    /// What came of it: `ok`, what the error begins with, or that it did not return.
    pub outcome: String,
}

/// A record and the node that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrapOnNode {
    /// Where the instance ran.
    pub node: NodeId,
    /// What is known of it.
    pub trap: TrapRecord,
}

impl TrapRecord {
    /// The most calls on a stack.
    pub const MAX_FRAMES: usize = 32;
    /// The most calls into the host.
    pub const MAX_HOST_CALLS: usize = 20;
    /// The most lines of standard error, and the most bytes of each.
    pub const MAX_LINES: usize = 20;
    /// The most bytes of one line of standard error, and of the reason.
    pub const MAX_LINE: usize = 1 << 10;
    /// The most bytes of the name of a function, a file or a call.
    pub const MAX_NAME: usize = 512;

    /// Returns the same within the bounds, whoever has made it.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        if let Outcome::Trapped { reason } | Outcome::NotStarted { reason } = &mut self.outcome {
            cut(reason, Self::MAX_LINE);
        }
        if let Outcome::LimitExceeded { hit } = &mut self.outcome {
            for text in [&mut hit.limit, &mut hit.value, &mut hit.observed] {
                cut(text, Self::MAX_NAME);
            }
        }
        self.frames.truncate(Self::MAX_FRAMES);
        for frame in &mut self.frames {
            cut(&mut frame.function, Self::MAX_NAME);
            if let Some(file) = &mut frame.file {
                cut(file, Self::MAX_NAME);
            }
        }
        last(&mut self.host_calls, Self::MAX_HOST_CALLS);
        for call in &mut self.host_calls {
            cut(&mut call.name, Self::MAX_NAME);
            cut(&mut call.outcome, Self::MAX_NAME);
        }
        last(&mut self.stderr, Self::MAX_LINES);
        for line in &mut self.stderr {
            cut(line, Self::MAX_LINE);
        }
        if let Some(CoreDump::NotMade { reason }) = &mut self.coredump {
            cut(reason, Self::MAX_LINE);
        }
        self
    }

    /// Returns the call on the stack that an author wants to see first: the innermost that is not of the language's
    /// own way to fail.
    pub fn first_frame(&self) -> Option<&Frame> {
        self.frames.iter().find(|frame| !frame.is_of_a_panic()).or(self.frames.first())
    }
}

impl Frame {
    /// Tells whether it belongs to how a language fails, not to what failed.
    fn is_of_a_panic(&self) -> bool {
        const BEGINNINGS: &[&str] = &[
            "std::",
            "core::",
            "alloc::",
            "<alloc::",
            "<core::",
            "<std::",
            "__rust",
            "rust_",
            "_RNv",
            "abort",
            "__wasi",
            "__assert_fail",
            "exit",
            "_Exit",
            "wasip2::",
            "wasi::",
        ];
        BEGINNINGS.iter().any(|beginning| self.function.starts_with(beginning))
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.function)?;
        let Some(file) = &self.file else { return Ok(()) };
        write!(f, " at {file}")?;
        for number in [self.line, self.column] {
            let Some(number) = number else { break };
            write!(f, ":{number}")?;
        }
        Ok(())
    }
}

fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

fn last<T>(list: &mut Vec<T>, most: usize) {
    list.drain(..list.len().saturating_sub(most));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::AllocationId;

    fn record() -> TrapRecord {
        TrapRecord {
            at: Timestamp(1),
            instance: InstanceId { allocation: AllocationId::new(1), number: 2 },
            workload: "default/shop/cart".parse().unwrap(),
            revision: Revision(3),
            outcome: Outcome::Trapped { reason: "x".repeat(5000) },
            fuel: Fuel(1),
            memory: Bytes(2),
            wall: DurationMs(3),
            host: HostCalls::default(),
            frames: Vec::new(),
            host_calls: Vec::new(),
            stderr: Vec::new(),
            missed: 0,
            coredump: None,
        }
    }

    #[test]
    fn a_record_is_bounded_and_keeps_what_came_last() {
        let frame = Frame { function: "ü".repeat(1000), file: Some("f".repeat(1000)), ..Frame::default() };
        let call = |number: usize| HostCall { name: number.to_string(), outcome: "ok".to_owned() };
        let bounded = TrapRecord {
            frames: vec![frame; 100],
            host_calls: (0..100).map(call).collect(),
            stderr: (0..100).map(|number| format!("{number}{}", "y".repeat(5000))).collect(),
            ..record()
        }
        .bounded();
        assert_eq!((bounded.frames.len(), bounded.frames[0].function.len()), (32, 512));
        assert_eq!((bounded.host_calls.len(), bounded.host_calls[0].name.as_str()), (20, "80"));
        assert_eq!((bounded.stderr.len(), bounded.stderr[19].len()), (20, 1024));
        assert!(bounded.stderr[19].starts_with("99y"));
        assert_eq!(bounded.outcome, Outcome::Trapped { reason: "x".repeat(1024) });
    }

    #[test]
    fn the_first_frame_is_the_authors_own() {
        let frame = |function: &str| Frame { function: function.to_owned(), ..Frame::default() };
        let mut trap = record();
        assert_eq!(trap.first_frame(), None);
        trap.frames =
            ["__rust_abort", "std::panicking::begin", "shop::pay", "core::ops::call"].map(frame).into();
        assert_eq!(trap.first_frame().unwrap().function, "shop::pay");
        trap.frames.truncate(2);
        assert_eq!(trap.first_frame().unwrap().function, "__rust_abort");
    }

    #[test]
    fn a_frame_says_where_it_is_as_far_as_that_is_known() {
        let mut frame = Frame {
            function: "pay".to_owned(),
            file: Some("shop/src/pay.rs".to_owned()),
            ..Frame::default()
        };
        assert_eq!(frame.to_string(), "pay at shop/src/pay.rs");
        (frame.line, frame.column) = (Some(7), Some(3));
        assert_eq!(frame.to_string(), "pay at shop/src/pay.rs:7:3");
    }
}
