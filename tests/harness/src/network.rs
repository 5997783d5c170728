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

    /// Runs the test of this name once more, alone and in a network of its own, and fails as it does. Tells whether this is
    /// that run; where such networks cannot be made, a word says that the test is skipped.
    ///
    /// `test` is its whole name, with the modules that it is in.
    ///
    /// # Panics
    ///
    /// When the test fails in there.
    pub fn around(test: &str) -> bool {
        if Self::is_of_its_own() {
            return true;
        }
        if !Self::can_be_made() {
            say("skipped: this user may make no network namespaces here; root may");
            return false;
        }
        let program = std::env::current_exe().expect("a running test has a file").display().to_string();
        let words = [&program, "--exact", test, "--nocapture"].map(str::to_owned);
        let output = Self::of_its_own(&words).output().expect("what has just run can be run again");
        let told = [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned());
        say(&told.concat());
        // Of a name that no test has none would fail.
        let has_passed = output.status.success() && told[0].contains("1 passed");
        assert!(has_passed, "{test} has failed in a network of its own");
        false
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

    /// Puts a host behind a router that rewrites addresses: what it sends seems to come from the router, and nothing comes
    /// to it but answers. Needs `nft`; without it nothing comes from `others` and nothing gets there, which is less.
    pub async fn hide(&self, host: u8, others: &[u8]) -> anyhow::Result<()> {
        if !has_nft() {
            say(&format!(
                "there is no nft here: host {host} is cut from {others:?} and no address is rewritten"
            ));
            for other in others {
                self.cut(host, *other).await?;
                self.cut(*other, host).await?;
            }
            return Ok(());
        }
        let of_host = address(host);
        for rule in [
            "add table ip router".to_owned(),
            "add chain ip router out { type nat hook postrouting priority srcnat ; }".to_owned(),
            format!("add rule ip router out ip saddr {of_host} masquerade"),
            "add chain ip router in { type filter hook forward priority filter ; }".to_owned(),
            format!("add rule ip router in ip daddr {of_host} ct state new drop"),
        ] {
            run("nft", &rule).await?;
        }
        Ok(())
    }

    /// Lets so many bits per second through between a host and the middle, in each direction.
    pub async fn slow_down(&self, host: u8, rate: &str) -> anyhow::Result<()> {
        let shaped = format!("root tbf rate {rate} burst 4kb latency 200ms");
        run("tc", &format!("qdisc add dev host{host} {shaped}")).await?;
        self.within(host, &format!("tc qdisc add dev eth0 {shaped}")).await
    }

    /// Lets no UDP through that a host sends or that is for it, as firewalls do that know the web alone.
    pub async fn let_no_udp(&self, host: u8) -> anyhow::Result<()> {
        let host = address(host);
        ip(&format!("rule add from {host} ipproto udp blackhole")).await?;
        ip(&format!("rule add to {host} ipproto udp blackhole")).await
    }

    /// Lets it through again.
    pub async fn let_udp(&self, host: u8) -> anyhow::Result<()> {
        let host = address(host);
        ip(&format!("rule delete from {host} ipproto udp blackhole")).await?;
        ip(&format!("rule delete to {host} ipproto udp blackhole")).await
    }

    /// Gives a host another address in place of the one it has, as when it has moved to another network. It keeps no
    /// connection that is bound to the former one.
    pub async fn move_away(&self, host: u8) -> anyhow::Result<()> {
        for line in [
            format!("ip address delete {}/24 dev eth0", address(host)),
            format!("ip address add {}/24 dev eth0", moved(host)),
            format!("ip route add default via {}", middle(host)),
        ] {
            self.within(host, &line).await?;
        }
        Ok(())
    }

    /// Returns how many bytes a host has sent until now, headers included.
    pub fn sent(&self, host: u8) -> anyhow::Result<u64> {
        let all = std::fs::read_to_string("/proc/net/dev")?;
        let of_host = all.lines().find_map(|line| line.trim().strip_prefix(&format!("host{host}:")));
        // To the middle it is what has been received.
        let received =
            of_host.and_then(|line| line.split_whitespace().next()).context("there is no such host")?;
        Ok(received.parse()?)
    }

    /// Runs a command on a host.
    async fn within(&self, host: u8, line: &str) -> anyhow::Result<()> {
        let holder = self.holders.get(usize::from(host)).context("there is no such host")?;
        let id = holder.id().context("a host's process has ended")?;
        run("nsenter", &format!("--net=/proc/{id}/ns/net {line}")).await
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

/// A host's address after it has moved.
fn moved(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, host, 2)
}

/// Tells whether there is a program that sets up the kernel's rewriting of addresses.
fn has_nft() -> bool {
    let mut nft = std::process::Command::new("nft");
    nft.arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The address of the middle, toward a host.
fn middle(host: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, host, 254)
}

#[expect(clippy::print_stderr, reason = "who runs the tests must see what was left out")]
fn say(text: &str) {
    eprintln!("{text}");
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
