//! The pages of the book that are to be followed word for word are followed here, line by line, as a reader would.
//!
//! Every line that begins with `$ ` is run, in one shell for each page, against a fleet that `dunlin up` has started;
//! files that a page shows under `<!-- file: PATH -->` are written where they stand. What is not run is listed, with
//! the reason; a line that is neither run nor listed fails the test.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dunlin_e2e::outside;
use dunlin_harness::{eventually, program};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

/// What stands on the pages and is not run, with the reason.
const NOT_RUN: &[(&str, &str)] = &[
    ("cargo x demo", "it is a test of its own: `cargo x demo --once`"),
    ("cargo x test", "it is what runs this test"),
    ("rustup target add wasm32-wasip2", "without the target this test would not have been built"),
    ("cargo build --release", "this test uses the program which it makes"),
    ("export PATH=\"$PWD/target/release:$PATH\"", "the test sets it to where its program is"),
    ("dunlin up guests/examples/quickstart", "the test runs it, but must end it and go on meanwhile"),
    (
        "export COMPONENT=guests/target/wasm32-wasip2/release/hello.wasm",
        "the test sets it to where that component is",
    ),
    ("export INGRESS=http://127.0.0.1:40123", "the test sets it to what `dunlin up` has printed"),
    (
        "dunlin serve target/wasm32-wasip2/release/greeter.wasm",
        "it goes on until Ctrl-C; the tests of `dunlin serve` run it",
    ),
    ("dunlin new service greeter", "`templates.rs` makes a project of each template"),
    ("cd greeter", "`templates.rs` works in each project"),
    ("cargo test", "`templates.rs` runs the tests of each project"),
    ("dunlin up .", "it goes on until Ctrl-C; `templates.rs` deploys each project"),
    ("curl http://127.0.0.1:PORT/ada", "`templates.rs` asks each service"),
    ("dunlin status", "the page `first-component` runs it with the name of an app"),
    ("dunlin logs greeter", "it is run from the page `first-component`"),
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

fn page(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

/// One step of a page.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A line to run.
    Run(String),
    /// A file to write.
    Write { path: String, text: String },
    /// A line of a block that is not run.
    Leave(String),
}

/// Returns the steps of a page, in order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut file = None;
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(path) = line.strip_prefix("<!-- file: ") {
            file = Some(path.trim_end_matches("-->").trim().to_owned());
        }
        let Some(language) = line.strip_prefix("```") else { continue };
        let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        if let Some(path) = file.take() {
            steps.push(Step::Write { path, text: block.join("\n") + "\n" });
            continue;
        }
        let commands = block.iter().filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned);
        steps.extend(commands.map(if language == "console" { Step::Run } else { Step::Leave }));
    }
    steps
}

/// Returns the shell script which does the steps and says which one it is at.
fn script(steps: &[Step]) -> String {
    let mut script = "set -e\n".to_owned();
    for step in steps {
        match step {
            Step::Run(line) => script += &format!("echo '$ {}'\n{line}\n", line.replace('\'', "'\\''")),
            Step::Write { path, text } => {
                script += &format!(
                    "mkdir -p \"$(dirname '{path}')\"\ncat > '{path}' <<'END-OF-FILE'\n{text}END-OF-FILE\n"
                );
            }
            Step::Leave(_) => {}
        }
    }
    script
}

/// A fleet as a reader has it: `dunlin up` with the quickstart, in a terminal of its own.
struct Reader {
    home: tempfile::TempDir,
    up: Child,
    ingress: String,
}

impl Reader {
    async fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str| Stdio::from(std::fs::File::create(home.path().join(name)).unwrap());
        let (out, err) = (file("out"), file("err"));
        let mut command = outside(home.path(), &["up", "guests/examples/quickstart"]);
        tools(&mut command);
        let mut up = command.current_dir(repository()).stdout(out).stderr(err).spawn().unwrap();
        let read = |name: &str| std::fs::read_to_string(home.path().join(name)).unwrap();
        let ingress = eventually("the quickstart runs", || {
            let (out, err) = (read("out"), read("err"));
            assert_eq!(up.try_wait().unwrap(), None, "{err}");
            let mut urls = out.split_whitespace().filter(|word| word.starts_with("http://"));
            let url = urls.next().map(str::to_owned);
            let url = url.filter(|_| err.contains("the fleet runs"));
            async move { url.ok_or(err) }
        })
        .await;
        Self { home, up, ingress: ingress.trim_end_matches('/').to_owned() }
    }

    /// Follows a page in a shell of its own and returns what the reader sees.
    async fn follow(&self, page: &str) -> String {
        let desk = tempfile::tempdir().unwrap();
        let script = script(&steps(page));
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(desk.path()).stdin(Stdio::null()).kill_on_drop(true);
        tools(&mut command);
        let folder = program().parent().unwrap().display().to_string();
        let path = std::env::var("PATH").unwrap();
        let output = command
            .env("PATH", format!("{folder}:{path}"))
            .env("DUNLIN_CONTEXT", self.home.path().join("config/dunlin/context.toml"))
            .env("INGRESS", &self.ingress)
            .env("COMPONENT", repository().join("guests/target/wasm32-wasip2/release/hello.wasm"))
            .env("XDG_CACHE_HOME", self.home.path().join("cache"))
            .output()
            .await
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "a reader is stuck at the last of these lines:\n{out}\n{err}");
        out.into_owned()
    }

    async fn end(mut self) {
        kill(Pid::from_raw(self.up.id().unwrap().try_into().unwrap()), Signal::SIGINT).unwrap();
        assert_eq!(self.up.wait().await.unwrap().code(), Some(0));
    }
}

/// Gives the builds of a page what is already on this machine: crates and what was compiled before.
fn tools(command: &mut Command) {
    // What cargo tells its tests is not for the builds which a reader starts.
    let inner = std::env::vars().map(|(name, _)| name).filter(|name| {
        name.starts_with("CARGO_") && name != "CARGO_HOME" || name == "RUSTFLAGS" || name == "RUSTC_WRAPPER"
    });
    for name in inner {
        command.env_remove(name);
    }
    let user = PathBuf::from(std::env::var_os("HOME").unwrap());
    let or =
        |name: &str, folder: &str| std::env::var_os(name).map_or_else(|| user.join(folder), PathBuf::from);
    command
        .env("CARGO_HOME", or("CARGO_HOME", ".cargo"))
        .env("RUSTUP_HOME", or("RUSTUP_HOME", ".rustup"))
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_BUILD_BUILD_DIR", repository().join("target/book"));
}

#[tokio::test]
async fn the_pages_of_the_start_can_be_followed_word_for_word() {
    let reader = Reader::start().await;
    let seen = reader.follow(&page("book/src/start/quickstart.md")).await;
    for words in ["hello from a", "knock knock", "quickstart", "node-3"] {
        assert!(seen.contains(words), "`{words}` is missing: {seen}");
    }
    let seen = reader.follow(&page("book/src/start/first-component.md")).await;
    for words in ["greetings from node-", "2 of 2 items completed", "greeter"] {
        assert!(seen.contains(words), "`{words}` is missing: {seen}");
    }
    let seen = reader.follow(&page("book/src/guides/run.md")).await;
    for words in ["one: GOOD BYE", "two: GOOD BYE"] {
        assert!(seen.contains(words), "`{words}` is missing: {seen}");
    }
    reader.end().await;
}

#[tokio::test]
async fn the_page_for_operators_can_be_followed_word_for_word() {
    let reader = Reader::start().await;
    let seen = reader.follow(&page("book/src/guides/operating.md")).await;
    for words in [
        "`node-3` runs nothing",
        "`node-3` is used as any other",
        "no zone was held",
        "weight 3, packing pack",
    ] {
        assert!(seen.contains(words), "`{words}` is missing: {seen}");
    }
    reader.end().await;
}

#[tokio::test]
async fn the_page_on_secrets_can_be_followed_word_for_word() {
    let reader = Reader::start().await;
    let seen = reader.follow(&page("book/src/guides/secrets.md")).await;
    for words in
        ["secret `default/DATABASE_URL` is set", "READ BY", "secret `default/DATABASE_URL` is deleted"]
    {
        assert!(seen.contains(words), "`{words}` is missing: {seen}");
    }
    let mut shown = seen.lines().filter(|line| !line.starts_with("$ "));
    assert!(!shown.any(|line| line.contains("hunter2")), "the value of a secret is shown: {seen}");
    reader.end().await;
}

#[tokio::test]
async fn the_page_on_looking_ahead_can_be_followed_word_for_word() {
    let reader = Reader::start().await;
    let seen = reader.follow(&page("book/src/guides/looking-ahead.md")).await;
    for words in [
        "`default/quickstart/hello`, revision 1: 3 of 3 allocations serve",
        "`default/greetings` would be new",
        "node-3 is lost: it was silent for",
        "3/3 -> 5/5",
        "b-1 is lost",
    ] {
        assert!(seen.contains(words), "`{words}` is missing: {seen}");
    }
    reader.end().await;
}

#[tokio::test]
async fn the_page_for_other_programs_can_be_followed_word_for_word() {
    let reader = Reader::start().await;
    let seen = reader.follow(&page("book/src/guides/another-program.md")).await;
    for words in ["wants routes */from-python", "revision 1 runs", "1/1"] {
        assert!(seen.contains(words), "`{words}` is missing: {seen}");
    }
    reader.end().await;
}

#[tokio::test]
async fn the_page_on_backups_can_be_followed_word_for_word() {
    let reader = Reader::start().await;
    let seen = reader.follow(&page("book/src/guides/backups.md")).await;
    for words in ["SHA256SUMS", "2 components and inputs", "the coordinator is not in recovery"] {
        assert!(seen.contains(words), "`{words}` is missing: {seen}");
    }
    reader.end().await;
}

#[test]
fn every_command_is_run_or_has_a_reason_not_to_be() {
    for path in [
        "README.md",
        "book/src/start/quickstart.md",
        "book/src/start/first-component.md",
        "book/src/guides/run.md",
        "book/src/guides/operating.md",
        "book/src/guides/looking-ahead.md",
        "book/src/guides/another-program.md",
        "book/src/guides/backups.md",
    ] {
        for step in steps(&page(path)) {
            if let Step::Leave(line) = step {
                assert!(NOT_RUN.iter().any(|(known, _)| *known == line), "{path}: `{line}` is never run");
            }
        }
    }
    let all: String = std::fs::read_dir(repository().join("book/src/start"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .chain(["README.md", "book/src/guides/run.md", "book/src/guides/another-program.md"].map(page))
        .collect();
    for (line, reason) in NOT_RUN {
        assert!(all.contains(&format!("$ {line}\n")), "`{line}` ({reason}) stands on no page");
    }
}

#[test]
fn a_page_becomes_its_commands_and_files_in_order() {
    let page = "text\n```console\n$ one\nits output\n$ two\n```\n<!-- file: a/b -->\n```toml\nx = 1\n```\n```text\n$ three\n```\n";
    let write = Step::Write { path: "a/b".to_owned(), text: "x = 1\n".to_owned() };
    let run = |line: &str| Step::Run(line.to_owned());
    assert_eq!(steps(page), [run("one"), run("two"), write, Step::Leave("three".to_owned())]);
}
