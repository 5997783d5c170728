//! The processor time of a process as the kernel counts it.

use anyhow::Context as _;

/// Returns how many seconds of processor time a process has taken.
pub(crate) fn cpu(process: Option<u32>) -> anyhow::Result<f64> {
    let process = process.context("the process does not run")?;
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The name of the program may hold anything, and ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(')').context("the kernel's line has no name")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u32>);
    let ticks = ticks.sum::<Result<u32, _>>().context("the kernel's line has no times")?;
    // Linux counts in hundredths of a second for programs, whatever it does inside.
    Ok(f64::from(ticks) / 100.0)
}
