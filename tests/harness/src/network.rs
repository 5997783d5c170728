//! Hosts with a network of their own, whose ways to each other can be cut.
//!
//! Each host is a network namespace with one link to this process, which stands in the middle and passes packets on.
//! A way is cut by a rule that drops what comes from one host and goes to another: who sends does not hear of it, as
//! when a cable is out. The middle itself reaches every host at any time.
//!
//! Nobody else's network is touched: the process must have a network namespace of its own, see [`Network::of_its_own`].

use std::net::Ipv4Addr;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use tokio::process::{Child, Command};

use crate::place::Place;

/// The hosts.
pub struct Network {
    /// Each keeps its host's namespace, and ends with this process.
    holders: Vec<Child>,
}

impl Network {
    /// Returns the command that runs `words` in a network of its own; the one that is in there says so by finding
    /// `DUNLIN_OWN_NETWORK` set.
    pub fn of_its_own(words: &[String]) -> std::process::Command {
        let mut command = std::process::Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.arg("--net").args(words).env("DUNLIN_OWN_NETWORK", "1");
        command
    }

    /// Tells whether such networks can be made here.
    pub fn can_be_made() -> bool {
        let make = ["sh", "-c", "ip link add name one type veth peer name other"].map(str::to_owned);
        let mut command = Self::of_its_own(&make);
        command.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    /// Tells whether this process is in a network of its own.
    pub fn is_of_its_own() -> bool {
        std::env::var_os("DUNLIN_OWN_NETWORK").is_some()
    }

    /// Makes so many hosts, which all reach each other.
    pub async fn start(hosts: u8) -> anyhow::Result<Self> {
        ensure!(Self::is_of_its_own(), "this process has no network of its own");
        ip("link set lo up").await?;
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("packets cannot be passed on")?;
        let mut network = Self { holders: Vec::new() };
        for host in 0..hosts {
            let mut holder = Command::new("unshare");
            holder.args(["--net", "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
            let mut holder = holder.spawn().context("could not make a network namespace")?;
            // It is in there as soon as it answers.
            echo(&mut holder).await?;
            let id = holder.id().context("a host's process has ended")?;
            network.holders.push(holder);
            let (outside, inside) = (format!("host{host}"), "eth0");
            ip(&format!("link add name {outside} type veth peer name {inside} netns {id}")).await?;
            ip(&format!("address add {}/24 dev {outside}", middle(host))).await?;
            ip(&format!("link set {outside} up")).await?;
            for line in [
                "link set lo up".to_owned(),
                format!("address add {}/24 dev {inside}", address(host)),
                format!("link set {inside} up"),
                format!("route add default via {}", middle(host)),
            ] {
                run("nsenter", &format!("--net=/proc/{id}/ns/net ip {line}")).await?;
            }
        }
        Ok(network)
    }

    /// A host, as the place of a process.
    pub fn place(&self, host: u8) -> anyhow::Result<Place> {
        let holder = self.holders.get(usize::from(host)).context("there is no such host")?;
        let id = holder.id().context("a host's process has ended")?;
        let enter = vec!["nsenter".to_owned(), format!("--net=/proc/{id}/ns/net")];
        Ok(Place::at(address(host).into(), enter))
    }

    /// Drops what one host sends to another from now on; not what comes back.
    pub async fn cut(&self, from: u8, to: u8) -> anyhow::Result<()> {
        ip(&format!("rule add from {} to {} blackhole", address(from), address(to))).await
    }

    /// Mends one such way.
    pub async fn mend(&self, from: u8, to: u8) -> anyhow::Result<()> {
        ip(&format!("rule delete from {} to {} blackhole", address(from), address(to))).await
    }
}

/// A host's address.
fn address(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, host, 1)
}

/// The address of the middle, toward a host.
fn middle(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, host, 254)
}

async fn echo(holder: &mut Child) -> anyhow::Result<()> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let (stdin, stdout) = (holder.stdin.as_mut(), holder.stdout.as_mut());
    stdin.context("it has an input")?.write_all(b"?").await.context("a network namespace ended at once")?;
    let mut answer = [0];
    stdout
        .context("it has an output")?
        .read_exact(&mut answer)
        .await
        .context("a network namespace ended at once")?;
    Ok(())
}

async fn ip(line: &str) -> anyhow::Result<()> {
    run("ip", line).await
}

async fn run(program: &str, line: &str) -> anyhow::Result<()> {
    let output = Command::new(program).args(line.split(' ')).stdin(Stdio::null()).output().await;
    let output = output.with_context(|| format!("could not run {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`{program} {line}` failed: {said}");
    Ok(())
}
