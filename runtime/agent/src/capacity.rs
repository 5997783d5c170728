//! What guests may use on this node: memory from the system, computing from a short measurement.
//!
//! The measurement is a fixed guest loop, timed in a process of its own, and kept on disk until the processor or
//! the program changes.

use std::io;
use std::process::Stdio;

use dunlin_model::{Bytes, FuelRate, Resources};
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::folders::{self, Folders};

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
        None => measured_fuel_rate(config, folders).await.map_err(CapacityError::Calibration)?,
    };
    Ok(Resources { memory, fuel_rate })
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

async fn measured_fuel_rate(config: &Config, folders: &Folders) -> io::Result<FuelRate> {
    let path = folders.file("fuel-rate.json");
    let subject = format!("{} on {}", env!("CARGO_PKG_VERSION"), processor());
    let kept = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<Measured>(&bytes).ok());
    if let Some(measured) = kept.filter(|measured| measured.subject == subject) {
        return Ok(measured.fuel_rate);
    }
    let output = tokio::process::Command::new(&config.program)
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
    let bytes = serde_json::to_vec(&Measured { subject, fuel_rate })?;
    folders::replace(&path, &bytes)?;
    tracing::info!(%fuel_rate, "fuel rate measured");
    Ok(fuel_rate)
}

/// Returns what tells one kind of machine from another.
fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    format!("{cores} cores of {}", model.map_or(std::env::consts::ARCH, |(_, name)| name.trim()))
}
