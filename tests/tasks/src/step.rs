//! A step: one program that a chore runs, with its progress shown.
//!
//! On a terminal a quiet step is a line with a spinner, and its output appears only if it fails. Elsewhere (in CI, in
//! a file) there are plain lines, and the output streams.

use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal, Read as _, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One program to run, and what it is for.
pub(crate) struct Step {
    title: String,
    command: Command,
}

impl Step {
    pub(crate) fn new(title: impl Into<String>, command: Command) -> Self {
        Self { title: title.into(), command }
    }

    /// Runs it to its end; fails if it fails.
    pub(crate) fn run(mut self) -> anyhow::Result<()> {
        if !std::io::stderr().is_terminal() {
            let started = Instant::now();
            say(format_args!("==> {}: {}", self.title, shown(&self.command)));
            self.wait()?;
            say(format_args!("    {} done in {:.1} s", self.title, started.elapsed().as_secs_f64()));
            return Ok(());
        }
        let spinner = spinner(&self.title);
        let output = self.command.stdin(Stdio::null()).output().with_context(|| self.not_started())?;
        let seconds = spinner.elapsed().as_secs_f64();
        spinner.finish_and_clear();
        if !output.status.success() {
            // Both streams, unchanged: cargo's colours and line ends are meant for this terminal.
            let _ = std::io::stderr().write_all(&output.stdout);
            let _ = std::io::stderr().write_all(&output.stderr);
            bail!("{} failed ({}): {}", self.title, output.status, shown(&self.command));
        }
        say(format_args!("✓ {} ({seconds:.1} s)", self.title));
        Ok(())
    }

    /// Runs it with its output passed on as it comes, and says nothing after it.
    pub(crate) fn streamed(mut self) -> anyhow::Result<()> {
        say(format_args!("==> {}: {}", self.title, shown(&self.command)));
        self.wait()
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let status = self.command.status().with_context(|| self.not_started())?;
        if !status.success() {
            bail!("{} failed ({status}): {}", self.title, shown(&self.command));
        }
        Ok(())
    }

    fn not_started(&self) -> String {
        format!("could not start {}", self.command.get_program().display())
    }
}

/// A step that goes on while others do, with what they leave of the processors. It is ended if nobody waits for it.
pub(crate) struct Beside {
    title: String,
    shown: String,
    child: Child,
    output: File,
    path: PathBuf,
}

impl Beside {
    /// Starts it. What it says is kept for [`Self::end`]: between the lines of others nobody could read it.
    pub(crate) fn start(title: impl Into<String>, command: &Command) -> anyhow::Result<Self> {
        let (title, shown) = (title.into(), shown(command));
        say(format_args!("==> beside what follows: {title}: {shown}"));
        let path = root().join("target").join(format!("{}.log", title.replace(' ', "-")));
        let output = File::options().create(true).truncate(true).read(true).write(true).open(&path);
        let output = output.with_context(|| format!("could not write {}", path.display()))?;
        let mut nice = Command::new("nice");
        nice.args(["-n", "19"]).arg(command.get_program()).args(command.get_args()).current_dir(root());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => nice.env(name, value),
                None => nice.env_remove(name),
            };
        }
        // Of our own group, so that Ctrl-C ends it as all else.
        nice.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?);
        let child = nice.spawn().context("could not start nice")?;
        Ok(Self { title, shown, child, output, path })
    }

    /// Waits for its end and says what it said; fails if it fails.
    pub(crate) fn end(mut self) -> anyhow::Result<()> {
        let status = self.child.wait()?;
        say(format_args!("==> {}: {}", self.title, self.shown));
        let mut output = Vec::new();
        self.output.rewind()?;
        self.output.read_to_end(&mut output)?;
        std::io::stderr().write_all(&output)?;
        if !status.success() {
            bail!("{} failed ({status}): {}", self.title, self.shown);
        }
        Ok(())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Cargo first, so that it starts nothing more.
            let process = self.child.id();
            let below = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
            let _gone = self.child.kill();
            let _gone = self.child.wait();
            let below = below.unwrap_or_default();
            for process in below.split_whitespace().filter_map(|process| process.parse().ok()) {
                let _gone = kill(Pid::from_raw(process), Signal::SIGKILL);
            }
            say(format_args!("{} was broken off; what it said is in {}", self.title, self.path.display()));
        }
    }
}

/// Returns the path of a program that [`built`] has made.
pub(crate) fn program(name: &str) -> PathBuf {
    let profile = profile();
    // The one profile whose folder has another name.
    let folder = if profile == "dev" { "debug" } else { &profile };
    root().join("target").join(folder).join(name)
}

/// Returns the profile that everything is built in: that of users, or what is named, for who cannot wait for that.
fn profile() -> String {
    std::env::var("DUNLIN_PROFILE").unwrap_or_else(|_| "release".to_owned())
}

/// Cargo for the programs and tests of the workspace, with `verb` and its arguments, in the profile that is to be used.
pub(crate) fn built<const N: usize>(verb: [&str; N]) -> Command {
    let mut command = cargo(verb);
    command.args(["--profile", &profile()]);
    command
}

/// The folder of the whole project.
pub(crate) fn root() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    folder.canonicalize().unwrap_or(folder)
}

/// Cargo, to be run in the folder of the project.
///
/// What `cargo run` told this program about itself is taken away again: build scripts which watch such variables
/// (that of `ring` does) would otherwise run anew each time `cargo x` and plain `cargo` take turns.
pub(crate) fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| {
            ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|own| name.starts_with(own))
        }) {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(root());
    command
}

fn spinner(title: &str) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{spinner} {msg} ({elapsed})").expect("the template is a constant");
    let spinner = ProgressBar::new_spinner().with_style(style).with_message(title.to_owned());
    spinner.enable_steady_tick(Duration::from_millis(100));
    spinner
}

/// The command as one would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Says why a chore could not be done, outermost cause first.
pub(crate) fn say_failure(error: &anyhow::Error) {
    say(format_args!("error: {error}"));
    for cause in error.chain().skip(1) {
        say(format_args!("  cause: {cause}"));
    }
}

#[expect(clippy::print_stderr, reason = "this is a program for people, and here is its one mouth")]
pub(crate) fn say(line: impl Display) {
    eprintln!("{line}");
}
