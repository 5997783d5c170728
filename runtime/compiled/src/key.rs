//! What a file of compiled code is bound to: a key, and a platform.

use std::fmt;
use std::str::FromStr;

use dunlin_model::{Feature, Metering, WorkloadSpec};

/// The key that authenticates the compiled code of one namespace on one node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CodeKey(pub [u8; 32]);

impl fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeKey(..)")
    }
}

/// What is in compiled code beside the component itself, and so for which engine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CodeKind {
    /// How what it computes is counted.
    pub metering: Metering,
    /// Whether it is a component of WASI 0.3, for which the engine has the asynchronous part of the component model.
    pub wasi03: bool,
}

impl CodeKind {
    /// Every kind there is.
    pub const ALL: [Self; 4] = [
        Self { metering: Metering::Fuel, wasi03: false },
        Self { metering: Metering::Time, wasi03: false },
        Self { metering: Metering::Fuel, wasi03: true },
        Self { metering: Metering::Time, wasi03: true },
    ];

    /// Returns the kind of code by which `spec` is run.
    pub fn of(spec: &WorkloadSpec) -> Self {
        Self { metering: spec.metering, wasi03: spec.needs(Feature::Wasi03) }
    }
}

impl From<Metering> for CodeKind {
    /// Returns the kind of everything but WASI 0.3.
    fn from(metering: Metering) -> Self {
        Self { metering, wasi03: false }
    }
}

/// Stands for everything but the component that compiled code depends on: the compiler, its settings, the rules by
/// which components are admitted, and what the processor can do. Written as 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Platform(pub [u8; 32]);

/// Why a text is not a [`Platform`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a platform is 64 hexadecimal digits")]
pub struct NotAPlatform;

impl Platform {
    /// Returns what stands for the same, and for code of this kind. Code of one kind is never read as that of another:
    /// neither its file nor its MAC is the same.
    #[must_use]
    pub fn for_code(self, kind: impl Into<CodeKind>) -> Self {
        let derived = |what: &[u8]| Self(*blake3::keyed_hash(&self.0, what).as_bytes());
        let CodeKind { metering, wasi03 } = kind.into();
        match (metering, wasi03) {
            (Metering::Fuel, false) => self,
            (Metering::Time, false) => derived(b"metered by time"),
            (Metering::Fuel, true) => derived(b"wasi 0.3, metered by fuel"),
            (Metering::Time, true) => derived(b"wasi 0.3, metered by time"),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for Platform {
    type Err = NotAPlatform;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| NotAPlatform)?;
        Ok(Self(bytes))
    }
}
