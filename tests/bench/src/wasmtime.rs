//! The peer with the same engine: `wasmtime serve`, if the machine has the program.
//!
//! It runs the same component with a fresh instance for each request, but without an agent, without a front door of
//! its own process, and without limits.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// How long it may take to compile the component and listen.
const START: Duration = Duration::from_secs(60);

/// The process.
pub(crate) struct Wasmtime {
    address: SocketAddr,
    version: String,
    _child: Child,
}

impl Wasmtime {
    /// Starts it for the component in this file with these variables and with more `flags`; nothing if there is no
    /// such program.
    pub(crate) async fn start(
        component: &Path,
        variables: &[(&str, &str)],
        flags: &[&str],
    ) -> anyhow::Result<Option<Self>> {
        let version = match Command::new("wasmtime").arg("--version").output().await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => String::from_utf8_lossy(&other?.stdout).trim().to_owned(),
        };
        let mut command = Command::new("wasmtime");
        command.args(["serve", "-Scli", "--addr", "127.0.0.1:0"]).args(flags);
        for (name, value) in variables {
            command.arg("--env").arg(format!("{name}={value}"));
        }
        command.arg(component);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().context("could not start wasmtime")?;
        let mut lines = BufReader::new(child.stderr.take().context("its standard error is a pipe")?).lines();
        let mut said = Vec::new();
        let listening = async {
            while let Some(line) = lines.next_line().await? {
                if let Some(address) = address(&line) {
                    return Ok(address);
                }
                said.push(line);
            }
            bail!("`wasmtime serve` ended: {}", said.join("; "))
        };
        let address = timeout(START, listening).await.context("`wasmtime serve` does not listen")??;
        // It must never wait for a reader of what it says.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Some(Self { address, version, _child: child }))
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it calls itself.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }
}

/// Returns the address in a line such as `Serving HTTP on http://127.0.0.1:8080/`.
fn address(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("http://")?;
    rest.trim_end().trim_end_matches('/').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_what_wasmtime_says() {
        let expected = Some("127.0.0.1:8080".parse().unwrap());
        assert_eq!(address("Serving HTTP on http://127.0.0.1:8080/"), expected);
        assert_eq!(address("warning: something else"), None);
    }
}
