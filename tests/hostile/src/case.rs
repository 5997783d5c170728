//! One case: how it is made, how it is tried and what is right.

use std::fmt;

use crate::expected::Ends;

/// How a component came to be.
#[derive(Clone, Debug)]
pub struct Component {
    /// In a word, for the table.
    pub made: &'static str,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// How a case is tried, and what must become of it.
#[derive(Clone, Debug)]
pub enum How {
    /// Uploaded, and refused with one of these codes. With none, anything but an error of ours is right.
    Refused(Component, &'static [&'static str]),
    /// Run as the one item of a job with this variable `CASE`; it must end so and its output begin so.
    Item(Component, String, Ends, &'static [&'static str]),
    /// Asked by HTTP at this path of the hostile service, which answers so, with this code or beginning of a body.
    Asked(&'static str, &'static [u16], &'static [&'static str]),
    /// Asked like this, the response breaks off.
    BreaksOff(&'static str),
    /// Sent to the ingress as it is; the answer begins with one of these, or is none at all.
    Sent(Vec<u8>, &'static [&'static str]),
    /// Something of its own, by name.
    Special(Special),
}

/// What is no single guest and no single request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Clients which go away in the middle of a request.
    Disconnects,
    /// All kinds of requests at once, more than may run.
    Storm,
    /// What one instance wrote to memory must not be found by the next.
    Remains,
    /// A server that leads guests of two tenants astray.
    Redirects,
    /// More names than may be looked up.
    Names,
    /// A guest that computes long and then traps, again and again.
    CrashLoop,
    /// More distinct components than the node keeps compiled.
    ManyArtefacts,
    /// Words that a guest would like to see as metrics.
    Labels,
    /// Clocks, read as finely as can be.
    Timers,
    /// Changes to the compiled code on disk.
    Tampering(Tampering),
}

/// What is done to the compiled code on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tampering {
    /// One bit in each part of the file.
    Flip,
    /// Cut in the middle.
    Cut,
    /// Replaced by bytes of our own.
    Replace,
    /// Replaced by the file of another component.
    Swap,
    /// Emptied.
    Empty,
}

/// One line of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its line in the threat list.
    pub row: u8,
    /// What it does.
    pub name: String,
    /// How it is tried.
    pub how: How,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It did no harm, and what it was told is right.
    Contained(String),
    /// It did no harm, but what it was told is wrong.
    WrongCode(String),
    /// It did harm: to the worker, the agent or the canary.
    Harmed(String),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contained(_) => f.write_str("contained"),
            Self::WrongCode(_) => f.write_str("wrong code"),
            Self::Harmed(_) => f.write_str("harmed the canary"),
        }
    }
}

impl Verdict {
    /// Returns what was seen.
    pub fn seen(&self) -> &str {
        match self {
            Self::Contained(seen) | Self::WrongCode(seen) | Self::Harmed(seen) => seen,
        }
    }
}

impl Case {
    /// Says in a word how it is made.
    pub fn made(&self) -> &'static str {
        match &self.how {
            How::Refused(component, _) | How::Item(component, ..) => component.made,
            How::Asked(..) | How::BreaksOff(_) => "Rust",
            How::Sent(..) => "bytes",
            How::Special(_) => "test",
        }
    }

    /// Tells whether it is a guest that takes memory or stack, or does what nobody foresaw.
    pub fn is_greedy(&self) -> bool {
        let is_guest = matches!(self.how, How::Item(..) | How::Asked(..) | How::BreaksOff(_));
        is_guest && matches!(self.row, 6 | 11..=24 | 54 | 55)
    }

    /// Says in a word how it is tried.
    pub fn tried(&self) -> &'static str {
        match &self.how {
            How::Refused(..) => "deployed",
            How::Item(..) => "item",
            How::Asked(..) | How::BreaksOff(_) => "request",
            How::Sent(..) => "connection",
            How::Special(Special::Tampering(_)) => "files",
            How::Special(Special::CrashLoop | Special::ManyArtefacts) => "deployed",
            How::Special(_) => "requests",
        }
    }
}
