//! The list of targets, and where their seeds are.

use std::path::{Path, PathBuf};

/// One fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its folder of seeds.
    pub name: &'static str,
    /// What it tries, and what must never happen.
    pub about: &'static str,
    /// Tries it with these bytes; panics where a promise is broken.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        name: "admission-bytes",
        about: "any bytes as a component: refused or admitted with a printable reason, never a panic",
        run: crate::raw::run,
    },
    Target {
        name: "admission-modules",
        about: "generated core modules in a component: valid ones of the allowed features are not refused",
        run: crate::modules::run,
    },
    Target {
        name: "admission-components",
        about: "generated components, also nonsense of the right grammar: as for any bytes",
        run: crate::components::run,
    },
    Target {
        name: "ingress",
        about: "requests through an ingress: what reaches the worker is what a second, strict reader sees",
        run: crate::ingress::run,
    },
    Target {
        name: "host-calls",
        about: "sequences of host calls by a guest that keeps all it gets: never more than its limits",
        run: crate::host_calls::run,
    },
    Target {
        name: "cache",
        about: "files of compiled code: only what was sealed for this component is read, whatever was done to it",
        run: crate::cache::run,
    },
];

/// Returns the target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Returns the folder with the seeds of a target.
pub fn corpus(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}
