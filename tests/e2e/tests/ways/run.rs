//! `dunlin run` and `dunlin serve`: one component on this machine, in the sandbox of a fleet's nodes and with no fleet.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use dunlin_e2e::{Printed, outside, printed};
use dunlin_guest_artifacts::{
    CAT_PATH, CONFIG_PATH, CORE_MODULE_PATH, ENV_PATH, EXIT_CODE_PATH, FETCH_HTTP_PATH, FILES_HTTP_PATH,
    HELLO_PATH, HOG_PATH, MISSING_IMPORT_PATH, SLEEP_PATH, SOCKETS_HTTP_PATH, SPIN_PATH, TRAP_HTTP_PATH,
    TRAP_PATH, WORD_COUNT_PATH,
};
use dunlin_harness::{PATIENCE, eventually, http};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

/// A user with a home of his own. All tests share one cache, as a user's programs do.
fn dunlin(home: &Path, arguments: &[&str]) -> Command {
    let mut command = outside(home, arguments);
    command.env("XDG_CACHE_HOME", cache());
    command
}

fn cache() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("cache-of-run")
}

async fn output(mut command: Command) -> Output {
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    output.unwrap_or_else(|_| panic!("this did not end: {command:?}")).unwrap()
}

async fn ran(arguments: &[&str]) -> Printed {
    let home = tempfile::tempdir().unwrap();
    printed(&output(dunlin(home.path(), arguments)).await)
}

/// Runs a component with `input` as its standard input.
async fn fed(arguments: &[&str], input: &[u8]) -> Output {
    let home = tempfile::tempdir().unwrap();
    let mut command = dunlin(home.path(), arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let feeding = tokio::spawn(async move {
        // Who reads no more is seen by the output.
        drop(stdin.write_all(&input).await);
    });
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await.unwrap().unwrap();
    feeding.await.unwrap();
    output
}

#[tokio::test]
async fn standard_input_goes_in_and_every_byte_of_the_output_comes_out() {
    let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(1 << 20).collect();
    let output = fed(&["run", CAT_PATH], &bytes).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout == bytes, "{} bytes came back of {}", output.stdout.len(), bytes.len());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.lines().count(), 1, "{said}");
    for part in ["Completed: ", " fuel burned", " of memory"] {
        assert!(said.contains(part), "`{part}` is missing: {said}");
    }
    let quiet = fed(&["run", CAT_PATH, "--quiet"], b"words").await;
    assert_eq!((quiet.stdout.as_slice(), quiet.stderr.as_slice()), (&b"words"[..], &b""[..]));
}

#[tokio::test]
async fn a_file_is_read_no_further_than_the_guest_reads() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("words"), "one two three\n").unwrap();
    let file = std::fs::File::open(home.path().join("words")).unwrap();
    let mut command = dunlin(home.path(), &["run", EXIT_CODE_PATH]);
    command.stdin(file.try_clone().unwrap());
    output(command).await;
    let mut command = dunlin(home.path(), &["run", WORD_COUNT_PATH]);
    command.stdin(file);
    let counted = printed(&output(command).await);
    assert!(counted.assert_done().starts_with('3'), "{counted:?}");
}

#[tokio::test]
async fn the_core_dump_of_what_traps_is_written_where_the_caller_wants_it() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("core.wasm");
    let dump = |arguments: [&str; 2]| {
        let arguments = [&arguments[..], &["--coredump", file.to_str().unwrap()]].concat();
        dunlin(home.path(), &arguments)
    };
    let trapped = printed(&output(dump(["run", TRAP_PATH])).await);
    assert_eq!(trapped.code, 134, "{trapped:?}");
    assert!(trapped.err.contains(&format!("its core dump is in {}: ", file.display())), "{trapped:?}");
    assert!(std::fs::read(&file).unwrap().starts_with(b"\0asm"));
    std::fs::remove_file(&file).unwrap();
    let exited = printed(&output(dump(["run", EXIT_CODE_PATH])).await);
    assert!(exited.code == 1 && !file.exists() && !exited.err.contains("core dump"), "{exited:?}");
}

#[tokio::test]
async fn the_exit_code_is_the_guests_own_or_names_the_limit() {
    for (arguments, code, said) in [
        (vec![EXIT_CODE_PATH], 1, vec!["Exited with 1"]),
        (vec![SPIN_PATH, "--fuel", "50M"], 121, vec!["limit `fuel` is 50M", "help: ", "--fuel 100M"]),
        (vec![HOG_PATH, "--memory", "8MiB"], 122, vec!["limit `memory` is 8MiB", "help: ", "--memory 16MiB"]),
        (vec![SLEEP_PATH, "--deadline", "200ms"], 124, vec!["limit `deadline` is 200ms", "help: "]),
        (vec![TRAP_PATH], 134, vec!["ended as Trapped", "cause: ", "help: "]),
    ] {
        let arguments: Vec<&str> = ["run"].into_iter().chain(arguments).collect();
        let ran = ran(&arguments).await;
        assert_eq!(ran.code, code, "{arguments:?}: {ran:?}");
        for part in said {
            assert!(ran.err.contains(part), "`{part}` is missing: {}", ran.err);
        }
    }
}

#[tokio::test]
async fn a_program_gets_its_end_as_json() {
    let ran = ran(&["run", EXIT_CODE_PATH, "--output", "json"]).await;
    assert_eq!(ran.code, 1);
    let last = ran.err.lines().last().unwrap_or_default();
    let summary: Value = serde_json::from_str(last).unwrap_or_else(|_| panic!("{ran:?}"));
    assert_eq!(summary["outcome"]["kind"], "exited");
    assert!(summary["fuel"].as_u64().unwrap() > 0 && summary["memory"].as_u64().unwrap() > 0, "{summary}");
}

#[tokio::test]
async fn a_guest_sees_its_arguments_and_its_environment_and_nothing_else() {
    let home = tempfile::tempdir().unwrap();
    let mut command =
        dunlin(home.path(), &["run", ENV_PATH, "--env", "A=b", "--env", "HERE", "--", "x", "--y"]);
    command.env("HERE", "there");
    let seen = printed(&output(command).await);
    let seen = seen.assert_done();
    for line in
        ["argument env\n", "argument x\n", "argument --y\n", "variable A=b\n", "variable HERE=there\n"]
    {
        assert!(seen.contains(line), "`{line}` is missing: {seen}");
    }
    assert!(!seen.contains("PATH=") && !seen.contains("HOME="), "{seen}");
    let configured = ran(&["run", CONFIG_PATH, "--config", "greeting=hello"]).await;
    configured.assert_done();
    let bare = ran(&["run", CONFIG_PATH]).await;
    assert_ne!(bare.code, 0);
    assert!(bare.err.contains("`--config key=value` would allow it"), "{}", bare.err);
}

#[tokio::test]
async fn what_cannot_be_run_says_what_to_do() {
    let home = tempfile::tempdir().unwrap();
    let text = home.path().join("text.wasm");
    std::fs::write(&text, "this is no component").unwrap();
    let text = text.to_str().unwrap();
    let module = home.path().join("module.wasm");
    std::fs::write(&module, b"\0asm\x01\0\0\0").unwrap();
    let module = module.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (arguments, code, parts) in [
        (vec!["run", "none.wasm"], 1, vec!["cannot run none.wasm", "No such file"]),
        (vec!["run", text], 1, vec!["not a valid WebAssembly component"]),
        (vec!["run", HELLO_PATH], 134, vec!["should be run with `handle`", "a service is for `dunlin serve"]),
        (vec!["serve", CAT_PATH, "--addr", "127.0.0.1:0"], 1, vec!["this is a program", "use `dunlin run "]),
        (vec!["run", MISSING_IMPORT_PATH], 1, vec!["imports what is not provided"]),
        (vec!["run", module], 1, vec!["core module", "WASI preview 1"]),
        (vec!["serve", HELLO_PATH, "--addr", &address], 1, vec!["could not listen on", "port 0"]),
        (vec!["run", CAT_PATH, "--memory", "1TiB"], 2, vec!["limit `memory` is 1GiB"]),
        (vec!["run", CAT_PATH, "--allow-http", "example.com"], 2, vec!["`capabilities.outbound_http[0]`"]),
        (vec!["run", CAT_PATH, "--allow-socket", "example.com"], 2, vec!["`capabilities.sockets[0]`"]),
    ] {
        let failed = ran(&arguments).await;
        failed.assert_failed(code, &parts);
    }
}

#[tokio::test]
async fn an_old_core_module_runs_as_it_is() {
    let ran = ran(&["run", CORE_MODULE_PATH]).await;
    ran.assert_done();
    assert!(ran.err.starts_with("Completed: "), "{}", ran.err);
}

/// A `dunlin serve` that has printed its URL.
struct Serving {
    _home: tempfile::TempDir,
    child: Child,
    url: String,
}

impl Serving {
    async fn start(arguments: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let all: Vec<&str> = ["serve"].into_iter().chain(arguments.iter().copied()).collect();
        let mut command = dunlin(home.path(), &[all.as_slice(), &["--addr", "127.0.0.1:0"]].concat());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        tokio::time::timeout(PATIENCE, out.read_line(&mut line)).await.unwrap().unwrap();
        let url = line.trim().to_owned();
        assert!(url.starts_with("http://127.0.0.1:"), "{line}");
        Self { _home: home, child, url }
    }

    async fn get(&self) -> String {
        http().get(&self.url).send().await.unwrap().text().await.unwrap()
    }

    async fn post(&self, body: String) -> String {
        http().post(&self.url).body(body).send().await.unwrap().text().await.unwrap()
    }

    /// Its worker, and whatever else it has started.
    fn children(&self) -> Vec<i32> {
        let process = self.child.id().unwrap();
        let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let lists = tasks
            .map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default());
        lists
            .flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<i32>>())
            .collect()
    }

    /// Presses Ctrl-C and returns what was said on standard error.
    async fn end(mut self) -> String {
        kill(Pid::from_raw(self.child.id().unwrap().try_into().unwrap()), Signal::SIGINT).unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap();
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
        assert_eq!(status.code(), Some(0), "{said}");
        said
    }
}

#[tokio::test]
async fn a_service_answers_until_ctrl_c_which_leaves_no_process() {
    let serving = Serving::start(&[HELLO_PATH, "--fuel-header"]).await;
    assert!(serving.get().await.starts_with("hello "), "{}", serving.get().await);
    let answer = http().get(&serving.url).send().await.unwrap();
    assert!(answer.headers().contains_key("dunlin-fuel"), "{answer:?}");
    let children = serving.children();
    assert!(!children.is_empty(), "a service runs in a process of its own");
    let said = serving.end().await;
    assert!(said.contains("requests: ") && said.contains(" fuel burned"), "{said}");
    eventually("the worker is gone", || async {
        let left: Vec<&i32> =
            children.iter().filter(|child| Path::new(&format!("/proc/{child}")).exists()).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[tokio::test]
async fn what_a_service_prints_is_on_standard_error() {
    let serving = Serving::start(&[dunlin_guest_artifacts::SAY_HTTP_PATH, "--reuse"]).await;
    for _ in 0..2 {
        assert_eq!(serving.post("words of mine".to_owned()).await, "said\n");
    }
    let said = serving.end().await;
    for part in ["2 requests: ", " stdout | words of mine\n", " stderr | words of mine\n"] {
        assert!(said.contains(part), "`{part}` is missing: {said}");
    }
}

#[tokio::test]
async fn folders_and_scratch_are_there_as_they_were_granted() {
    let home = tempfile::tempdir().unwrap();
    let (inside, outside) = (home.path().join("in"), home.path().join("out"));
    std::fs::create_dir(&inside).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(inside.join("words"), "knock knock").unwrap();
    let (read, write) = (format!("/in={}", inside.display()), format!("/out={}:rw", outside.display()));
    let serving =
        Serving::start(&[FILES_HTTP_PATH, "--folder", &read, "--folder", &write, "--scratch", "/tmp"]).await;
    let commands = "read /in/words\nwrite /in/more x\nwrite /out/more fine\nwrite /tmp/a b\nread /tmp/a\nread /etc/passwd\n";
    let answer = serving.post(commands.to_owned()).await;
    let lines: Vec<&str> = answer.lines().collect();
    assert_eq!(lines[0], "ok knock knock", "{answer}");
    assert!(!lines[1].starts_with("ok"), "{answer}");
    assert_eq!((lines[2].trim(), lines[3].trim(), lines[4]), ("ok", "ok", "ok b"), "{answer}");
    assert!(!lines[5].starts_with("ok"), "{answer}");
    assert_eq!(std::fs::read_to_string(outside.join("more")).unwrap(), "fine");
    serving.end().await;
}

#[tokio::test]
async fn outbound_http_goes_where_it_was_allowed_and_to_public_addresses_unless_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let _head = stream.read(&mut head).await;
                let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\nconnection: close\r\n\r\noutside";
                drop(stream.write_all(answer).await);
            });
        }
    });
    let open =
        Serving::start(&[FETCH_HTTP_PATH, "--allow-http", &url, "--allow-address", "127.0.0.0/8"]).await;
    let answer = open.post(format!("{url}/")).await;
    assert!(answer.contains("outside"), "{answer}");
    open.end().await;
    let closed = Serving::start(&[FETCH_HTTP_PATH, "--allow-http", &url]).await;
    let answer = closed.post(format!("{url}/")).await;
    assert!(!answer.contains("outside"), "{answer}");
    closed.end().await;
    answering.abort();
}

#[tokio::test]
async fn sockets_lead_where_they_were_allowed_and_to_public_addresses_unless_told() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    let answering = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (mut reader, mut writer) = stream.split();
            drop(tokio::io::copy(&mut reader, &mut writer).await);
        }
    });
    let (socket, name) = (place.to_string(), format!("localhost:{}", place.port()));
    let allowed = [SOCKETS_HTTP_PATH, "--allow-socket", &socket, "--allow-socket", &name];
    let open = Serving::start(&[&allowed[..], &["--allow-address", "127.0.0.0/8"]].concat()).await;
    for place in [&socket, &name] {
        let answer = open.post(format!("echo {place} me")).await;
        assert!(answer.starts_with("ok me from "), "{place}: {answer}");
    }
    open.end().await;
    for (options, said) in [(&allowed[..], "is a loopback address"), (&allowed[..1], "`sockets` grant")] {
        let closed = Serving::start(options).await;
        let answer = closed.post(format!("echo {socket} me")).await;
        assert!(answer.starts_with("PermissionDenied"), "{answer}");
        let told = closed.end().await;
        assert!(told.contains(said), "{told}");
    }
    answering.abort();
}

#[tokio::test]
async fn what_was_compiled_once_is_not_compiled_again() {
    let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = async || {
        let mut command = dunlin(home.path(), &["run", EXIT_CODE_PATH]);
        command.env("XDG_CACHE_HOME", cache.path());
        assert_eq!(printed(&output(command).await).code, 1);
        compiled(cache.path())
    };
    let first = run().await;
    assert_eq!(first.len(), 1, "{first:?}");
    let inode =
        |files: &[PathBuf]| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&files[0]).unwrap());
    let before = inode(&first);
    let second = run().await;
    assert_eq!((&second, inode(&second)), (&first, before), "the file with the code is the same one");
}

/// Returns the files with compiled code in a cache.
fn compiled(cache: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![cache.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => folders.push(entry.path()),
                false if folder.ends_with("compiled") => found.push(entry.path()),
                false => {}
            }
        }
    }
    found
}

#[tokio::test]
async fn the_core_dump_of_a_served_request_that_traps_is_written_as_well() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("core.wasm");
    let serving = Serving::start(&[TRAP_HTTP_PATH, "--coredump", file.to_str().unwrap()]).await;
    assert!(serving.get().await.contains("guest_trapped"));
    eventually("the core dump is written", || async {
        match std::fs::read(&file) {
            Ok(bytes) if bytes.starts_with(b"\0asm") => Ok(()),
            other => Err(format!("{:?}", other.map(|bytes| bytes.len()))),
        }
    })
    .await;
}
