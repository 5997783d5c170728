//! The memory of a process as the kernel counts it.
//!
//! Resident memory counts shared pages fully in each process; proportional memory divides them, so that it may be
//! added up over processes. Both are read, never estimated.

use std::fs;

use anyhow::Context as _;

/// What one process holds, in MiB.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Memory {
    /// `VmRSS`: its pages in memory.
    pub(crate) resident: f64,
    /// `Pss`: the same, with each shared page divided by its users.
    pub(crate) proportional: f64,
    /// `VmHWM`: the most that `resident` ever was.
    pub(crate) peak: f64,
}

impl Memory {
    /// Reads what `process` holds now.
    pub(crate) fn of(process: u32) -> anyhow::Result<Self> {
        let status = read(process, "status")?;
        let rollup = read(process, "smaps_rollup")?;
        Ok(Self {
            resident: mebibytes(&status, "VmRSS:")?,
            proportional: mebibytes(&rollup, "Pss:")?,
            peak: mebibytes(&status, "VmHWM:")?,
        })
    }
}

/// Returns the processes which `process` has started and which still run.
pub(crate) fn children(process: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let list = fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        for id in list.split_whitespace() {
            children.push(id.parse()?);
        }
    }
    children.sort_unstable();
    Ok(children)
}

fn read(process: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{process}/{file}");
    fs::read_to_string(&path).with_context(|| format!("could not read {path}"))
}

/// Returns the value of a line such as `VmRSS:   1234 kB`.
fn mebibytes(text: &str, key: &str) -> anyhow::Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB"));
    let kibibytes: f64 = kibibytes.with_context(|| format!("there is no `{key}` in it"))?.trim().parse()?;
    Ok(kibibytes / 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_proc_is_read_by_its_key() {
        let text = "Pss:                2048 kB\nPss_Dirty:          1024 kB\n";
        assert!((mebibytes(text, "Pss:").unwrap() - 2.0).abs() < f64::EPSILON);
        assert!(mebibytes(text, "VmRSS:").is_err());
    }

    #[test]
    fn this_process_holds_something() {
        let memory = Memory::of(std::process::id()).unwrap();
        assert!(
            memory.resident > 0.0 && memory.proportional > 0.0 && memory.peak >= memory.resident,
            "{memory:?}"
        );
    }
}
