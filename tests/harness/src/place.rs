//! Where a process of a fleet under test runs: on this machine's loopback, or on a host of a network of its own.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use tokio::process::Command;

/// Where a process runs.
#[derive(Clone, Debug)]
pub struct Place {
    address: IpAddr,
    /// What leads there: words before those of the program.
    enter: Vec<String>,
}

impl Place {
    /// Where the test itself runs.
    pub fn here() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), enter: Vec::new() }
    }

    pub(crate) fn at(address: IpAddr, enter: Vec<String>) -> Self {
        Self { address, enter }
    }

    /// The address that others reach it by.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub(crate) fn enter(&self) -> Vec<String> {
        self.enter.clone()
    }

    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut words = self.enter.iter().map(std::ffi::OsStr::new).chain([program.as_os_str()]);
        let mut command = Command::new(words.next().unwrap_or(program.as_os_str()));
        command.args(words);
        command
    }
}
