//! Programs: what agents are to become, which the fleet brings to its nodes.
//!
//! A node takes none that is not signed by a key which its own config names, so neither a coordinator nor who has its key
//! can have a program run there.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::check::shown;
use crate::{Bytes, Digest, DurationMs};

/// The most bytes of one program.
pub const MAX_PROGRAM: Bytes = Bytes(512 << 20);
/// The most bytes of its signature, which is four lines of text.
pub const MAX_SIGNATURE: usize = 2 << 10;

/// What a program's instructions are for: `x86_64`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Architecture(SmolStr);

/// A text does not name an architecture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no architecture: use up to 32 of `a-z`, `0-9` and `_`, as in `x86_64` or `aarch64`")]
pub struct ArchitectureError {
    /// The text, shortened and with control characters escaped.
    pub text: String,
}

impl Architecture {
    const MAX_LENGTH: usize = 32;

    /// Returns the one that this code was made for.
    pub fn own() -> Self {
        Self(SmolStr::new_static(std::env::consts::ARCH))
    }
}

impl FromStr for Architecture {
    type Err = ArchitectureError;

    fn from_str(text: &str) -> Result<Self, ArchitectureError> {
        let is_of_it = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if text.is_empty() || text.len() > Self::MAX_LENGTH || !text.bytes().all(is_of_it) {
            return Err(ArchitectureError { text: shown(text) });
        }
        Ok(Self(text.into()))
    }
}

impl TryFrom<String> for Architecture {
    type Error = ArchitectureError;

    fn try_from(text: String) -> Result<Self, ArchitectureError> {
        text.parse()
    }
}

impl From<Architecture> for String {
    fn from(architecture: Architecture) -> Self {
        architecture.0.into()
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A program that the fleet has, for one architecture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Program {
    /// Which.
    pub digest: Digest,
    /// Its signature in the form of minisign: the text of a `.minisig` file, of at most 2 KiB.
    pub signature: String,
}

/// What an agent is to become, once: it remembers the number, also when it could not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramOrder {
    /// Counts the upgrades of the fleet. An agent that has tried one with this number, or a later one, does nothing.
    pub number: u64,
    /// The program; without one, that which is installed on the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
}

/// What an agent says of the program that it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramReport {
    /// What programs must be for to run there.
    pub architecture: Architecture,
    /// The number of the last upgrade that it has tried; 0 if none.
    #[serde(default)]
    pub tried: u64,
    /// Which program of the fleet it is; none if it is the one that is installed on the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Why it is not what the last upgrade wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// How an upgrade goes over the fleet: ring by ring, and it goes on only when all of a ring are well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct UpgradePlan {
    /// How many of the nodes are to have it by the end of each ring, in per cent: rising, the last one 100. A ring is one
    /// node at least.
    pub rings: Vec<u8>,
    /// How many nodes become it at a time.
    pub at_once: u32,
    /// How long the nodes of a ring must be well before the next one begins.
    #[serde(rename = "bake_ms")]
    pub bake: DurationMs,
    /// How long a node may take to become it.
    #[serde(rename = "patience_ms")]
    pub patience: DurationMs,
}

impl UpgradePlan {
    const MOST_RINGS: usize = 16;
    const MOST_AT_ONCE: u32 = 1_000;
    const MOST_BAKE: DurationMs = DurationMs(7 * 86_400_000);
    const LEAST_PATIENCE: DurationMs = DurationMs(10_000);
    const MOST_PATIENCE: DurationMs = DurationMs(86_400_000);

    /// Says what is wrong with it, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let Self { rings, at_once, bake, patience } = self;
        let rise =
            rings.windows(2).all(|pair| pair[0] < pair[1]) && rings.first().is_some_and(|first| *first > 0);
        if !rise || rings.last() != Some(&100) || rings.len() > Self::MOST_RINGS {
            let most = Self::MOST_RINGS;
            return Err(format!(
                "`rings` must be 1 to {most} shares in per cent that rise to 100, as in 1, 10, 50, 100"
            ));
        }
        if !(1..=Self::MOST_AT_ONCE).contains(at_once) {
            return Err(format!("`at_once` is {at_once}, and must be from 1 to {}", Self::MOST_AT_ONCE));
        }
        if *bake > Self::MOST_BAKE {
            return Err(format!("`bake` is {bake}, and may be {} at most", Self::MOST_BAKE));
        }
        if *patience < Self::LEAST_PATIENCE || *patience > Self::MOST_PATIENCE {
            let (least, most) = (Self::LEAST_PATIENCE, Self::MOST_PATIENCE);
            return Err(format!("`patience` is {patience}, and must be from {least} to {most}"));
        }
        Ok(())
    }
}

impl Default for UpgradePlan {
    fn default() -> Self {
        Self {
            rings: vec![1, 10, 50, 100],
            at_once: 10,
            bake: DurationMs(60_000),
            patience: DurationMs(600_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_rises_to_all_nodes_in_bounded_steps() {
        let plan = UpgradePlan::default();
        assert_eq!(plan.check(), Ok(()));
        for rings in [vec![], vec![0, 100], vec![50], vec![50, 50, 100], vec![100, 50], (84..=100).collect()]
        {
            assert!(UpgradePlan { rings: rings.clone(), ..plan.clone() }.check().is_err(), "{rings:?}");
        }
        assert_eq!(UpgradePlan { rings: vec![100], ..plan.clone() }.check(), Ok(()));
        assert!(UpgradePlan { at_once: 0, ..plan.clone() }.check().is_err());
        assert!(UpgradePlan { at_once: 1_001, ..plan.clone() }.check().is_err());
        assert!(UpgradePlan { bake: DurationMs(u64::MAX), ..plan.clone() }.check().is_err());
        assert!(UpgradePlan { patience: DurationMs(9_999), ..plan.clone() }.check().is_err());
        assert!(UpgradePlan { patience: DurationMs(86_400_001), ..plan }.check().is_err());
    }

    #[test]
    fn an_architecture_is_a_short_plain_word() {
        for text in ["x86_64", "aarch64", "riscv64"] {
            assert_eq!(text.parse::<Architecture>().unwrap().to_string(), text);
        }
        for text in ["", "X86", "arm/v7", "a".repeat(33).as_str()] {
            assert!(text.parse::<Architecture>().is_err(), "{text}");
        }
        assert_eq!(Architecture::own().to_string().parse(), Ok(Architecture::own()));
    }
}
