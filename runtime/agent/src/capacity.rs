//! What guests may use on this node: memory from the system, computing from a short measurement.
//!
//! The measurement is a fixed guest loop, timed in a process of its own in a fraction of a second. It is kept on disk
//! until the processor, the program or the compiler changes, and then made again.

use std::io;
use std::path::Path;
use std::process::Stdio;

use dunlin_model::{Bytes, FuelRate, Resources};
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::compiler::platform_of;
use crate::folders::{self, Folders};

/// What was measured is kept in this file of the node.
const MEASURED_FILE: &str = "fuel-rate.json";
const MILLION: u64 = 1_000_000;
/// Left to the system and to Dunlin itself.
const MEMORY_RESERVE: Bytes = Bytes(128 << 20);

/// Why the node's capacity is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CapacityError {
    /// The system does not tell its memory.
    #[error("could not read the available memory from /proc/meminfo; give --memory")]
    Memory(#[source] io::Error),
    /// The measurement could not be run.
    #[error("could not measure this machine's fuel rate; give --fuel-rate")]
    Calibration(#[source] io::Error),
}

/// What was measured, and for which processor and program that holds.
#[derive(Serialize, Deserialize)]
struct Measured {
    subject: String,
    /// For what the compiler compiles, which its own version and its settings are a part of.
    #[serde(default)]
    platform: String,
    fuel_rate: FuelRate,
}

/// Returns what guests may use on this node.
pub(crate) async fn capacity(config: &Config, folders: &Folders) -> Result<Resources, CapacityError> {
    let memory = match config.memory {
        Some(memory) => memory,
        None => whole_mebibytes(available_memory().map_err(CapacityError::Memory)?.minus(MEMORY_RESERVE)),
    };
    let fuel_rate = match config.fuel_rate {
        Some(fuel_rate) => fuel_rate,
        None => measured_fuel_rate(&config.program, folders).await.map_err(CapacityError::Calibration)?,
    };
    Ok(Resources { memory, fuel_rate })
}

/// Returns what one processor of this node burns in a second: as it was measured, or else its share of what the operator
/// says that the node burns.
pub(crate) fn processor_rate(folders: &Folders, capacity: &Resources) -> FuelRate {
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
    let all = kept(folders).map_or(capacity.fuel_rate, |measured| measured.fuel_rate);
    FuelRate((all.0 / processors).max(1))
}

/// Rounds down to a figure that people can read.
fn whole_mebibytes(memory: Bytes) -> Bytes {
    Bytes(memory.0 >> 20 << 20)
}

fn available_memory() -> io::Result<Bytes> {
    let text = std::fs::read_to_string("/proc/meminfo")?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse().ok())
        .map(|kib: u64| Bytes(kib.saturating_mul(1024)))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no line MemAvailable"))
}

async fn measured_fuel_rate(program: &Path, folders: &Folders) -> io::Result<FuelRate> {
    let platform = platform_of(program).await.map_err(io::Error::other)?.to_string();
    if let Some(measured) = kept(folders).filter(|measured| measured.platform == platform) {
        return Ok(measured.fuel_rate);
    }
    let output = tokio::process::Command::new(program)
        .arg("calibrate")
        .stdin(Stdio::null())
        .env_clear()
        .kill_on_drop(true)
        .output()
        .await?;
    let printed = String::from_utf8_lossy(&output.stdout);
    let fuel_rate =
        printed.trim().parse().map(|rate: u64| FuelRate(rate / MILLION * MILLION)).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            io::Error::other(format!("`dunlin calibrate` ended with {} and said: {said}", output.status))
        })?;
    let bytes = serde_json::to_vec(&Measured { subject: subject(), platform, fuel_rate })?;
    folders::replace(&folders.file(MEASURED_FILE), &bytes)?;
    tracing::info!(%fuel_rate, "fuel rate measured");
    Ok(fuel_rate)
}

/// Returns what was measured before with this program on this machine.
fn kept(folders: &Folders) -> Option<Measured> {
    let bytes = std::fs::read(folders.file(MEASURED_FILE)).ok()?;
    let measured: Measured = serde_json::from_slice(&bytes).ok()?;
    (measured.subject == subject()).then_some(measured)
}

/// Returns for what a measurement holds.
fn subject() -> String {
    format!("{} on {}", env!("CARGO_PKG_VERSION"), processor())
}

/// Returns what tells one kind of machine from another.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} cores of {}", model.map_or(std::env::consts::ARCH, |(_, name)| name.trim()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Stands for the program: compiles for `platform`, and burns `rate`, which it says in a file that it did measure.
    fn program(folder: &Path, platform: char, rate: u64) -> std::path::PathBuf {
        let path = folder.join("program");
        let script = format!(
            "#!/bin/sh\nif [ \"$1\" = calibrate ]; then echo x >>{}; echo {rate}; else echo {}; fi\n",
            folder.join("measured").display(),
            platform.to_string().repeat(64),
        );
        // Another test may be starting a process just now, which would keep a file open that was written here.
        let new = folder.join("new");
        fs::write(&new, script).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o700)).unwrap();
        fs::rename(&new, &path).unwrap();
        path
    }

    /// Asks for the fuel rate, also where the program is still open for writing in a child of another test.
    async fn rate(program: &Path, folders: &Folders) -> u64 {
        loop {
            match measured_fuel_rate(program, folders).await {
                Ok(rate) => return rate.0,
                Err(error) => assert!(error.to_string().contains("busy"), "{error}"),
            }
        }
    }

    #[tokio::test]
    async fn what_was_measured_is_kept_until_the_program_the_compiler_or_the_processor_changes() {
        let folder = tempfile::tempdir().unwrap();
        let folders = Folders::create(folder.path().join("state")).unwrap();
        let measured =
            || fs::read_to_string(folder.path().join("measured")).unwrap_or_default().lines().count();
        let million = |rate: u64| rate * MILLION;

        let first = program(folder.path(), 'a', 2_500_900_000);
        assert_eq!(rate(&first, &folders).await, million(2_500));
        let faster = program(folder.path(), 'a', 3_000_000_000);
        assert_eq!((rate(&faster, &folders).await, measured()), (million(2_500), 1), "it is kept");

        let other_compiler = program(folder.path(), 'b', 3_000_000_000);
        assert_eq!((rate(&other_compiler, &folders).await, measured()), (million(3_000), 2));

        let file = folders.file(MEASURED_FILE);
        let kept = fs::read_to_string(&file).unwrap();
        for (what, other) in
            [(processor(), "1 cores of another"), (env!("CARGO_PKG_VERSION").to_owned(), "0.0.0")]
        {
            let count = measured();
            fs::write(&file, kept.replace(&what, other)).unwrap();
            assert_eq!(
                (rate(&other_compiler, &folders).await, measured()),
                (million(3_000), count + 1),
                "{what}"
            );
        }
        fs::write(&file, "half of a fi").unwrap();
        assert_eq!(
            rate(&other_compiler, &folders).await,
            million(3_000),
            "what cannot be read is measured again"
        );
    }
}
