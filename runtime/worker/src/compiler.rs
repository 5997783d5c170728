//! The process `dunlin compile-component`: the engine's compiler behind the wall of a worker, with no files at all.

use std::io::Write;

use dunlin_compiled::CodeKind;
use dunlin_engine::{EXIT_FAILED, EngineError};
use dunlin_model::CompileLimits;
use dunlin_protocol::{WallFinding, WallSetup};

use crate::confine::{close_inherited, confine};

/// The wall of a process that needs nothing but what it has open.
#[derive(Clone, Copy, Debug)]
pub struct BareWall {
    /// The user and group which it becomes, if its agent may give it one.
    pub user: Option<u32>,
    /// Whether it ends where a part of the wall is missing.
    pub required: bool,
    /// The process that started it.
    pub agent: u32,
}

impl BareWall {
    fn setup(self) -> WallSetup {
        let Self { user, required, agent } = self;
        let (read, write) = (Vec::new(), Vec::new());
        WallSetup { user, folder: "/".into(), read, write, agent, required }
    }
}

/// Confines this process, compiles what comes on standard input within `limits`, to code of this kind, and writes the
/// result to standard output. This is the whole of the process, and the result is its exit code.
pub fn compile_component(wall: BareWall, kind: CodeKind, limits: &CompileLimits) -> u8 {
    close_inherited();
    match confine(&wall.setup()) {
        Ok(_) => dunlin_engine::compile_child(kind, limits),
        Err(error) => {
            // There is nobody left to tell if this fails.
            drop(write!(std::io::stderr(), "{error:#}"));
            EXIT_FAILED
        }
    }
}

/// Returns the platform for which this program compiles, in the form which `--platform` prints.
pub fn platform() -> Result<String, EngineError> {
    dunlin_engine::platform().map(|platform| platform.to_string())
}

/// Builds the wall around this process, which must have one thread and nothing open, and returns what was found of it.
pub fn probe(wall: BareWall) -> anyhow::Result<Vec<WallFinding>> {
    close_inherited();
    confine(&wall.setup())
}
