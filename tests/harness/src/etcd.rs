//! A real etcd: as many members as wanted, on loopback, each in a folder of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::process::Child;

use crate::toolchain::toolchain;
use crate::{PATIENCE, Place, http};

/// An etcd cluster.
pub struct Etcd {
    folder: TempDir,
    members: Vec<Member>,
    /// Whether it asks for certificates.
    is_closed: bool,
}

struct Member {
    place: Place,
    arguments: Vec<String>,
    client: SocketAddr,
    child: Option<Child>,
}

impl Etcd {
    /// Starts a cluster of so many members; nothing, with a word to whoever watches, where there is no etcd.
    pub async fn start(members: usize) -> anyhow::Result<Option<Self>> {
        Self::start_at(&vec![Place::here(); members], None).await
    }

    /// Makes an authority `ca.pem`, and by it `server.pem`, good at these places, and `client.pem`, each with its key. Needs
    /// `openssl`.
    pub fn make_certificates(folder: &Path, places: &[Place]) -> anyhow::Result<()> {
        let script = r#"
            set -e
            new="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
            openssl req -x509 $new -keyout ca.key -out ca.pem -subj /CN=etcd-ca -days 2
            printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\n' "$0" > extensions
            for name in server client; do
                openssl req $new -keyout $name.key -out $name.csr -subj /CN=$name
                openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
                    -out $name.pem -days 2 -extfile extensions
            done
        "#;
        let names: Vec<String> = places.iter().map(|place| format!("IP:{}", place.address())).collect();
        let mut command = std::process::Command::new("sh");
        let made = command.args(["-c", script, &names.join(",")]).current_dir(folder).output()?;
        let said = String::from_utf8_lossy(&made.stderr);
        anyhow::ensure!(made.status.success(), "certificates could not be made: {said}");
        Ok(())
    }

    /// The same, of members that ask who dials them for a certificate of this folder's `ca.pem`, and show `server.pem`.
    pub async fn start_closed(members: usize, certificates: &Path) -> anyhow::Result<Option<Self>> {
        Self::start_at(&vec![Place::here(); members], Some(certificates)).await
    }

    /// The same, one member at each place.
    pub(crate) async fn start_at(
        places: &[Place],
        certificates: Option<&Path>,
    ) -> anyhow::Result<Option<Self>> {
        let Some(program) = toolchain("etcd") else {
            #[expect(
                clippy::print_stderr,
                reason = "who runs the tests must see that something was left out"
            )]
            {
                eprintln!("skipped: there is no etcd on this machine; `cargo x setup` says how to get it");
            }
            return Ok(None);
        };
        let folder = tempfile::Builder::new().prefix("dunlin-etcd-").tempdir()?;
        // The members must know of each other before any of them is started.
        let (clients, peers) = (free_addresses(places)?, free_addresses(places)?);
        let all = peers.iter().enumerate().map(|(index, peer)| format!("member-{index}=http://{peer}"));
        let all = all.collect::<Vec<_>>().join(",");
        let members =
            places.iter().zip(clients).zip(&peers).enumerate().map(|(index, ((place, client), peer))| {
                let data = folder.path().join(format!("member-{index}"));
                let scheme = if certificates.is_some() { "https" } else { "http" };
                let (client_url, peer_url) = (format!("{scheme}://{client}"), format!("http://{peer}"));
                let arguments = [
                    ("--name", format!("member-{index}")),
                    ("--data-dir", data.display().to_string()),
                    ("--listen-client-urls", client_url.clone()),
                    ("--advertise-client-urls", client_url),
                    ("--listen-peer-urls", peer_url.clone()),
                    ("--initial-advertise-peer-urls", peer_url),
                    ("--initial-cluster", all.clone()),
                    ("--logger", "zap".to_owned()),
                    ("--log-level", "error".to_owned()),
                ];
                let arguments = arguments.into_iter().flat_map(|(name, value)| [name.to_owned(), value]);
                let mut arguments: Vec<String> = arguments.collect();
                if let Some(folder) = certificates {
                    let file = |name: &str| folder.join(name).display().to_string();
                    arguments.push("--client-cert-auth".to_owned());
                    arguments.extend(["--trusted-ca-file".to_owned(), file("ca.pem")]);
                    arguments.extend(["--cert-file".to_owned(), file("server.pem")]);
                    arguments.extend(["--key-file".to_owned(), file("server.key")]);
                }
                Member { place: place.clone(), arguments, client, child: None }
            });
        let is_closed = certificates.is_some();
        let mut etcd = Self { members: members.collect(), folder, is_closed };
        for index in 0..etcd.members.len() {
            etcd.launch(&program, index)?;
        }
        for index in 0..etcd.members.len() {
            etcd.wait(index).await?;
        }
        Ok(Some(etcd))
    }

    /// Where it is, as `dunlin coordinator --store` takes it.
    pub fn url(&self) -> String {
        let members: Vec<String> = self.members.iter().map(|member| member.client.to_string()).collect();
        format!("etcd://{}", members.join(","))
    }

    /// Sends a member a signal.
    pub fn signal(&self, index: usize, signal: Signal) -> anyhow::Result<()> {
        let id = self.members[index].child.as_ref().and_then(Child::id).context("the member does not run")?;
        Ok(kill(Pid::from_raw(id.try_into()?), signal)?)
    }

    /// Kills a member with SIGKILL.
    pub async fn kill(&mut self, index: usize) -> anyhow::Result<()> {
        self.members[index].child.take().context("the member does not run")?.kill().await?;
        Ok(())
    }

    /// Starts a member again, and waits until it answers.
    pub async fn start_again(&mut self, index: usize) -> anyhow::Result<()> {
        self.launch_again(index)?;
        self.wait(index).await
    }

    /// Starts a member again, and waits for nothing: one without the others answers nothing.
    pub fn launch_again(&mut self, index: usize) -> anyhow::Result<()> {
        self.launch(&toolchain("etcd").context("there was an etcd")?, index)
    }

    fn launch(&mut self, program: &Path, index: usize) -> anyhow::Result<()> {
        let log = self.folder.path().join(format!("member-{index}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut command = self.members[index].place.command(program);
        command
            .args(&self.members[index].arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        self.members[index].child = Some(command.kill_on_drop(true).spawn().context("could not start etcd")?);
        Ok(())
    }

    async fn wait(&mut self, index: usize) -> anyhow::Result<()> {
        let started = Instant::now();
        let health = format!("http://{}/health", self.members[index].client);
        loop {
            let answer = http().get(&health).timeout(Duration::from_secs(2)).send().await;
            // One that wants certificates hangs up on who has none.
            let hangs_up = self.is_closed && answer.as_ref().is_err_and(|error| !error.is_connect());
            if hangs_up || answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            let child = self.members[index].child.as_mut().context("it was just started")?;
            let log = self.folder.path().join(format!("member-{index}.log"));
            if let Some(status) = child.try_wait()? {
                bail!("etcd ended with {status}:\n{}", std::fs::read_to_string(log)?);
            }
            if started.elapsed() > PATIENCE {
                bail!("etcd did not answer within {PATIENCE:?}:\n{}", std::fs::read_to_string(log)?);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

/// Returns an address at each place that was free a moment ago, for TCP.
pub(crate) fn free_addresses(places: &[Place]) -> std::io::Result<Vec<SocketAddr>> {
    // Ports that are free here are as good elsewhere. All of them at once, so that no two are the same.
    let free = places.iter().map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let free = free.collect::<Result<Vec<_>, _>>()?;
    let address = |(place, listener): (&Place, &TcpListener)| {
        listener.local_addr().map(|local| SocketAddr::new(place.address(), local.port()))
    };
    places.iter().zip(&free).map(address).collect()
}
