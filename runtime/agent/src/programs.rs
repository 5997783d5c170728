//! The programs that the fleet brings to this machine: fetched, checked, and become.
//!
//! A program is taken when it is signed by a key which the node's own config names, and when it says itself that it would
//! run with this command line and config file. Then the agent becomes it, as it does at SIGHUP.
//!
//! Not here: what is tried and when it goes back (`runtime/supervisor`).

mod chosen;
mod hand;

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use dunlin_model::{Digest, MAX_PROGRAM, Program, ProgramOrder};
use dunlin_protocol::StreamRequest;
use dunlin_supervisor::{Event, KeptProgram};
use minisign_verify::{PublicKey, Signature};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use crate::authenticated;
use crate::folders;
use crate::link::Link;
use crate::programs::chosen::{Chosen, Stamp};

pub(crate) use crate::programs::hand::ProgramHand;

/// How long a program may take to say whether it would run.
const CHECK_TIME: Duration = Duration::from_secs(10);
/// How long a program may take to be ready that may be no good. Slow boards measure themselves first.
const READY_TIME: Duration = Duration::from_secs(180);
const NOT_STARTED: &str = "the system could not start it";
const NOT_READY: &str = "it ended again and again before it was ready";
/// How much of a program is in memory at a time.
const PIECE: usize = 64 << 10;

/// What this machine can run as its agent.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    /// The file of the program that is installed.
    installed: PathBuf,
    /// Which program of the fleet this process is.
    running: Option<Digest>,
}

/// What to become, and how it knows what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The file.
    pub program: PathBuf,
    /// The variables of its environment; one without a value must not be there.
    pub environment: [(&'static str, Option<String>); 2],
    /// Whether this process is it already.
    pub is_here: bool,
    /// Within which time it must be ready, as it may be no good: set as an alarm for the process, which it takes back.
    pub ready_within: Option<Duration>,
}

impl Programs {
    /// The variable that says which program of the fleet a process is.
    const RUNNING: &str = "DUNLIN_PROGRAM";
    /// The variable that says where the installed one is.
    const INSTALLED: &str = "DUNLIN_INSTALLED";

    /// Finds those of an agent that has its files in `state`. To be called early: the file of this process may be replaced.
    pub fn find(state: &Path) -> Self {
        let running = std::env::var(Self::RUNNING).ok().and_then(|text| text.parse().ok());
        // Without `/proc` there would be no workers either.
        let own = || std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let installed = running.and_then(|_: Digest| std::env::var_os(Self::INSTALLED)).map(PathBuf::from);
        Self { folder: state.join("programs"), installed: installed.unwrap_or_else(own), running }
    }

    /// Returns what the machine is to run as its agent now, when it starts one.
    pub fn at_start(&self) -> Choice {
        let before = self.load();
        let chosen = before.clone().now(self.stamp());
        // Who is the chosen one was counted by who became it.
        let is_here = chosen.program.is_some() && chosen.program == self.running;
        let (chosen, program) = if is_here { (chosen, self.running) } else { chosen.at_start() };
        self.checked(&before, chosen, program)
    }

    /// Returns what this process is to become when it starts again. It reads the whole program.
    pub fn next(&self) -> Choice {
        let before = self.load();
        let chosen = before.clone().now(self.stamp());
        let program = chosen.program;
        self.checked(&before, chosen, program)
    }

    /// Chooses what this process is, as the system could not start what was chosen; returns it, to be begun anew.
    pub fn stay(&self) -> Choice {
        let before = self.load();
        let chosen = before.clone().settled(self.running, NOT_STARTED);
        Choice { program: "/proc/self/exe".into(), ..self.checked(&before, chosen, self.running) }
    }

    /// Keeps what is chosen, and returns it if its file is whole, else what was before it.
    fn checked(&self, before: &Chosen, mut chosen: Chosen, mut program: Option<Digest>) -> Choice {
        while let Some(damaged) =
            program.filter(|digest| Some(*digest) != self.running && !self.is_whole(digest))
        {
            chosen = chosen.back(format!("the file of program {damaged} is damaged or gone"));
            program = chosen.program;
        }
        if chosen != *before && !self.note(&chosen) {
            program = self.running;
        }
        let installed = self.installed.to_string_lossy().into_owned();
        let (file, running, installed) = match &program {
            Some(digest) => (self.file(digest), Some(digest.to_string()), Some(installed)),
            None => (self.installed.clone(), None, None),
        };
        Choice {
            program: file,
            environment: [(Self::RUNNING, running), (Self::INSTALLED, installed)],
            is_here: program == self.running,
            ready_within: (program.is_some() || chosen.is_on_trial).then_some(READY_TIME),
        }
    }

    /// Returns what an agent goes on from that takes programs from the fleet.
    pub(crate) fn kept(&self) -> KeptProgram {
        let Chosen { tried, program: digest, failed, is_on_trial, .. } = self.settled();
        KeptProgram { tried, digest, failed, is_on_trial }
    }

    /// Returns what is chosen, which is what this process is: it has come so far.
    fn settled(&self) -> Chosen {
        let chosen = self.load();
        let reason = if chosen.starts > 1 { NOT_READY } else { NOT_STARTED };
        chosen.settled(self.running, reason)
    }

    /// Notes that this process is ready: it serves.
    pub(crate) fn is_ready(&self) {
        let _none_was_set = nix::unistd::alarm::cancel();
        let (before, chosen) = (self.load(), self.settled().ready());
        if chosen != before {
            self.note(&chosen);
        }
    }

    /// Finds out whether this process is still signed by a key that counts; if not, chooses the installed program, and has
    /// this process start again.
    pub(crate) async fn vouch(self, keys: Vec<PublicKey>, start_again: CancellationToken) {
        let Some(digest) = self.running else { return };
        let own = self.clone();
        let checked = tokio::task::spawn_blocking(move || {
            let signature = fs::read_to_string(own.signature(&digest))?;
            check_signature(&own.file(&digest), &Program { digest, signature }, &keys)
        });
        if let Err(error) = checked.await.map_err(anyhow::Error::from).flatten() {
            let chosen = Chosen { former: None, ..self.load() };
            if self.note(&chosen.back(format!("{error:#}"))) {
                tracing::error!(error = format!("{error:#}"), "the agent becomes the installed program");
                start_again.cancel();
            }
        }
    }

    /// Keeps what came of an upgrade, and no program that is not needed any more.
    pub(crate) fn keep_tried(&self, number: u64, failed: Option<String>) {
        match &failed {
            None => tracing::info!(upgrade = number, "the agent is what it was to become"),
            Some(reason) => {
                tracing::error!(upgrade = number, reason, "the agent is not what it was to become")
            }
        }
        let chosen = self.load().tried(number, failed);
        self.note(&chosen);
        self.forget_others(&[chosen.program, chosen.former]);
    }

    /// Chooses what was before; true if that is known.
    pub(crate) fn back(&self, reason: String) -> bool {
        tracing::error!(reason, "the agent becomes again what it was before");
        self.note(&self.load().back(reason))
    }

    /// Takes a program: has it here, checked, chosen, and this process told to start again. Returns why not.
    pub(crate) async fn take(
        &self,
        order: ProgramOrder,
        keys: &[PublicKey],
        link: &Link,
        start_again: &CancellationToken,
    ) -> Option<Event> {
        let number = order.number;
        let not_taken =
            |error: &anyhow::Error, again| Event::NotTaken { number, reason: format!("{error:#}"), again };
        if let Some(program) = &order.program {
            match self.fetch(program, link).await {
                Ok(()) => {}
                Err(Fetch::Again(error)) => {
                    tracing::warn!(
                        upgrade = number,
                        error = format!("{error:#}"),
                        "program not fetched; will retry"
                    );
                    return Some(not_taken(&error, true));
                }
                Err(Fetch::Disk(error)) => {
                    return Some(not_taken(&error.context("the program could not be kept on disk"), false));
                }
            }
        }
        match self.choose(&order, keys).await {
            Ok(()) => start_again.cancel(),
            Err(error) => return Some(not_taken(&error, false)),
        }
        None
    }

    async fn choose(&self, order: &ProgramOrder, keys: &[PublicKey]) -> anyhow::Result<()> {
        let digest = order.program.as_ref().map(|program| program.digest);
        let path = match &order.program {
            Some(program) => {
                let path = self.file(&program.digest);
                let (checked, of, keys) = (path.clone(), program.clone(), keys.to_vec());
                tokio::task::spawn_blocking(move || check_signature(&checked, &of, &keys)).await??;
                folders::replace(&self.signature(&program.digest), program.signature.as_bytes())
                    .context("the signature could not be kept on disk")?;
                path
            }
            None => self.installed.clone(),
        };
        check(&path).await?;
        let chosen = self.load().now(self.stamp()).take(order.number, digest, self.stamp());
        self.save(&chosen).context("it could not be kept on disk that the program is chosen")?;
        tracing::info!(upgrade = order.number, program = %path.display(), "the agent becomes another program");
        Ok(())
    }

    async fn fetch(&self, program: &Program, link: &Link) -> Result<(), Fetch> {
        let digest = program.digest;
        let own = self.clone();
        if tokio::task::spawn_blocking(move || own.is_whole(&digest)).await.unwrap_or(false) {
            return Ok(());
        }
        link.connected().await.map_err(Fetch::Again)?;
        let (stream, _) = link.fetch(&StreamRequest::Program { digest }).await.map_err(Fetch::Again)?;
        let partial = self.folder.join("partial");
        self.make_folder()?;
        let mut options = tokio::fs::OpenOptions::new();
        let options = options.write(true).create(true).truncate(true).mode(0o700);
        let mut file = options.open(&partial).await?;
        let (mut hash, mut length) = (Sha256::new(), 0);
        let mut stream = stream.take(MAX_PROGRAM.0 + 1);
        let mut buffer = vec![0; PIECE];
        loop {
            let count = stream.read(&mut buffer).await.map_err(|error| Fetch::Again(error.into()))?;
            if count == 0 {
                break;
            }
            length += count as u64;
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count]).await?;
        }
        let received = Digest::from_sha256(hash.finalize().into());
        if received != digest || length > MAX_PROGRAM.0 {
            return Err(Fetch::Again(anyhow::anyhow!("asked for program {digest} but received {received}")));
        }
        file.sync_all().await?;
        drop(file);
        tokio::fs::rename(&partial, self.file(&digest)).await?;
        Ok(())
    }

    fn file(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    fn signature(&self, digest: &Digest) -> PathBuf {
        self.folder.join(format!("{}.minisig", digest.hex()))
    }

    fn stamp(&self) -> Stamp {
        // A file that is gone is what no operator has installed.
        Stamp::of(&self.installed).unwrap_or_default()
    }

    fn is_whole(&self, digest: &Digest) -> bool {
        let hashed = || {
            let mut hash = Sha256::new();
            io::copy(&mut File::open(self.file(digest))?, &mut hash)?;
            Ok::<_, io::Error>(Digest::from_sha256(hash.finalize().into()))
        };
        hashed().is_ok_and(|found| found == *digest)
    }

    /// Returns the key of the node, by which it is known that this machine has written a file.
    fn key(&self) -> Option<[u8; 32]> {
        fs::read(self.folder.parent()?.join("node.key")).ok()?.try_into().ok()
    }

    fn load(&self) -> Chosen {
        let Some(key) = self.key() else { return Chosen::default() };
        authenticated::read(&self.folder.join("chosen"), &key)
            .unwrap_or_else(|error| {
                let error = &error as &dyn std::error::Error;
                tracing::error!(
                    error,
                    "it is not known which program was chosen; the agent is the installed one"
                );
                None
            })
            .unwrap_or_default()
    }

    fn save(&self, chosen: &Chosen) -> io::Result<()> {
        let key = self.key().ok_or_else(|| io::Error::other("the node has no key"))?;
        self.make_folder()?;
        authenticated::replace(&self.folder.join("chosen"), &key, chosen)
    }

    fn note(&self, chosen: &Chosen) -> bool {
        let saved = self.save(chosen);
        if let Err(error) = &saved {
            tracing::error!(%error, "it cannot be kept what came of the upgrade");
        }
        saved.is_ok()
    }

    fn make_folder(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    fn forget_others(&self, kept: &[Option<Digest>]) {
        let kept: Vec<String> = kept.iter().flatten().map(Digest::hex).collect();
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for file in files.filter(|file| file.file_name() != "chosen") {
            let name = file.file_name();
            if !kept.iter().any(|kept| name.as_encoded_bytes().starts_with(kept.as_bytes())) {
                let _gone = fs::remove_file(file.path());
            }
        }
    }
}

/// Why a program is not here.
enum Fetch {
    /// Nobody gives it at the moment.
    Again(anyhow::Error),
    /// There is no room for it, or the disk has failed.
    Disk(anyhow::Error),
}

impl From<io::Error> for Fetch {
    fn from(error: io::Error) -> Self {
        Self::Disk(error.into())
    }
}

/// Finds out whether a file is signed by one of these keys.
fn check_signature(path: &Path, program: &Program, keys: &[PublicKey]) -> anyhow::Result<()> {
    let signature = Signature::decode(&program.signature);
    let signature =
        signature.map_err(|error| anyhow::anyhow!("its signature is none of minisign: {error}"))?;
    let unknown = "it is not signed by a key that this node's config names in `[upgrade] keys`";
    let mut verifiers: Vec<_> = keys.iter().filter_map(|key| key.verify_stream(&signature).ok()).collect();
    ensure!(!verifiers.is_empty(), unknown);
    let mut file = File::open(path)?;
    let mut buffer = vec![0; PIECE];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        verifiers.iter_mut().for_each(|verifier| verifier.update(&buffer[..count]));
    }
    ensure!(verifiers.iter_mut().any(|verifier| verifier.finalize().is_ok()), unknown);
    Ok(())
}

/// Finds out whether a program would run with the command line of this process.
pub async fn check(program: &Path) -> anyhow::Result<()> {
    let mut command = tokio::process::Command::new(program);
    command.args(std::env::args_os().skip(1)).arg("--check");
    command.stdin(Stdio::null()).kill_on_drop(true);
    let checked = tokio::time::timeout(CHECK_TIME, command.output()).await;
    let output = checked
        .with_context(|| format!("{} says nothing within {CHECK_TIME:?}", program.display()))?
        .with_context(|| format!("could not run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} would not run: {}", program.display(), said.trim_end());
    Ok(())
}
