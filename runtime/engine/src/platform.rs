//! What compiled code depends on besides its component.

use std::fs;
use std::hash::{Hash, Hasher};
use std::path::Path;

use dunlin_compiled::Platform;

use crate::EngineError;
use crate::checks::Checks;
use crate::config::config;

/// Raise this when admission becomes stricter, so that what was let in before is looked at again.
const ADMISSION_RULES: u8 = 2;

/// Returns the platform for which components are compiled by this program on this machine. It stands for code of every
/// kind; [`Platform::for_code`] tells them apart.
pub fn platform() -> Result<Platform, EngineError> {
    let mut hasher = StableHasher(blake3::Hasher::new());
    let all = Checks::ALL.into_iter().flat_map(|checks| [(checks, false), (checks, true)]);
    for (checks, wasi03) in all {
        let engine = wasmtime::Engine::new(&config(checks, wasi03));
        let engine = engine.map_err(|error| EngineError::Wasmtime(format!("{error:#}")))?;
        engine.precompile_compatibility_hash().hash(&mut hasher);
    }
    ADMISSION_RULES.hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    std::env::consts::ARCH.hash(&mut hasher);
    processor().hash(&mut hasher);
    Ok(Platform(hasher.0.finalize().into()))
}

/// Returns what the processor can do, as the kernel lists it. A disk may be moved to another machine.
fn processor() -> String {
    let text = fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let is_about_features = |line: &&str| line.starts_with("flags") || line.starts_with("Features");
    text.lines().find(is_about_features).unwrap_or_default().to_owned()
}

/// The hashers of the standard library promise no result that holds across programs.
struct StableHasher(blake3::Hasher);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash: [u8; 32] = self.0.finalize().into();
        u64::from_le_bytes(hash[..8].try_into().expect("eight of 32 bytes are eight"))
    }
}
