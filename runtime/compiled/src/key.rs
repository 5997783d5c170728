//! What a file of compiled code is bound to: a key, and a platform.

use std::fmt;
use std::str::FromStr;

use dunlin_model::Metering;

/// The key that authenticates the compiled code of one namespace on one node.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CodeKey(pub [u8; 32]);

impl fmt::Debug for CodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CodeKey(..)")
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
    /// Returns what stands for the same, and for code that is metered so. Code of one way is never read as that of the
    /// other: neither its file nor its MAC is the same.
    #[must_use]
    pub fn metered(self, metering: Metering) -> Self {
        match metering {
            Metering::Fuel => self,
            Metering::Time => Self(*blake3::keyed_hash(&self.0, b"metered by time").as_bytes()),
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
