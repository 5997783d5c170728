//! `dunlin up`: a whole fleet by one command, which leaves nothing behind but its state, and is back with it.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use dunlin_e2e::{answer, ended, hello, outside};
use dunlin_guest_artifacts::{HELLO, HELLO_V2};
use dunlin_harness::{App, PATIENCE, eventually, http, is_running};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tokio::process::Child;

/// A `dunlin up` with a user of its own; what it prints goes into files.
struct Up {
    home: PathBuf,
    child: Child,
}

impl Up {
    /// Starts it on the state folder of `home` and waits until it says that the fleet runs.
    async fn start(home: &Path, app: Option<&App>) -> Self {
        Self::start_with(home, app, &["--no-build"]).await
    }

    async fn start_with(home: &Path, app: Option<&App>, more: &[&str]) -> Self {
        let state = state(home).display().to_string();
        let mut arguments = vec!["up".to_owned()];
        arguments.extend(app.map(|app| app.path().display().to_string()));
        arguments.extend(["--nodes", "2", "--state", &state].iter().chain(more).map(|&word| word.to_owned()));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let file = |name: &str| Stdio::from(std::fs::File::create(home.join(name)).unwrap());
        let mut command = outside(home, &arguments);
        let child = command.stdout(file("out")).stderr(file("err")).spawn().unwrap();
        let mut up = Self { home: home.to_owned(), child };
        eventually("the fleet runs", || {
            let (err, ended) = (up.read("err"), up.child.try_wait().unwrap());
            assert_eq!(ended, None, "{err}");
            async move { if err.contains("the fleet runs") { Ok(()) } else { Err(err) } }
        })
        .await;
        up
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.home.join(name)).unwrap()
    }

    /// The address of each node's ingress, from what it printed.
    fn ingresses(&self) -> Vec<String> {
        let out = self.read("out");
        let lines = out.lines().filter(|line| line.starts_with("node-"));
        let urls = lines.filter_map(|line| line.split_whitespace().nth(1));
        urls.filter(|url| url.starts_with("http://")).map(str::to_owned).collect()
    }

    /// Its coordinator and agents with all that these have started.
    fn processes(&self) -> Vec<i32> {
        let written: BTreeMap<String, Value> =
            serde_json::from_slice(&std::fs::read(state(&self.home).join("processes.json")).unwrap())
                .unwrap();
        assert_eq!(written.keys().collect::<Vec<_>>(), ["coordinator", "node-1", "node-2"]);
        let members =
            written.values().map(|entry| i32::try_from(entry["process"].as_i64().unwrap()).unwrap());
        members.flat_map(with_descendants).collect()
    }

    async fn signalled(mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(self.child.id().unwrap().try_into().unwrap()), signal).unwrap();
        tokio::time::timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap()
    }
}

fn state(home: &Path) -> PathBuf {
    home.join("fleet")
}

fn with_descendants(process: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let lists =
        tasks.map(|task| std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default());
    let children: Vec<i32> = lists
        .flat_map(|list| list.split_whitespace().map(|id| id.parse().unwrap()).collect::<Vec<i32>>())
        .collect();
    [process].into_iter().chain(children.into_iter().flat_map(with_descendants)).collect()
}

async fn until_gone(processes: &[i32]) {
    eventually("all processes are gone", || async {
        let left: Vec<i32> = processes.iter().copied().filter(|process| is_running(*process)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

fn ready(home: &Path, member: &str) -> BTreeMap<String, Value> {
    serde_json::from_slice(&std::fs::read(state(home).join(member).join("ready.json")).unwrap()).unwrap()
}

fn address(home: &Path, member: &str, key: &str) -> SocketAddr {
    ready(home, member)[key].as_str().unwrap().parse().unwrap()
}

/// Waits until everything the fleet listened on can be had again: a process that was left behind would never let it go.
/// For a moment it may also be lent to a connection of somebody else, who asked the system for any port.
async fn until_ports_are_free(home: &Path) {
    let members = [
        ("coordinator", "api", "fleet"),
        ("node-1", "ingress", "endpoint"),
        ("node-2", "ingress", "endpoint"),
    ];
    for (member, tcp, udp) in members {
        let (tcp, udp) = (address(home, member, tcp), address(home, member, udp));
        eventually("the ports are free", || async move {
            TcpListener::bind(tcp).map_err(|error| format!("{tcp}: {error}"))?;
            UdpSocket::bind(udp).map_err(|error| format!("{udp}: {error}"))
        })
        .await;
    }
}

async fn json(home: &Path, arguments: &[&str]) -> Value {
    let shown = ended(outside(home, &[arguments, &["--output", "json"]].concat())).await;
    serde_json::from_str(shown.assert_done()).unwrap()
}

#[tokio::test]
async fn up_serves_and_leaves_nothing_but_its_state_with_which_it_is_back() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let up = Up::start(home, Some(&hello(HELLO, 2))).await;
    let out = up.read("out");
    let table: Vec<Vec<&str>> = out.lines().take(3).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(table[0][..4], ["NODE", "ALLOCATION", "WORKLOAD", "STATE"], "{out}");
    for row in &table[1..] {
        assert_eq!(row[2..4], ["hello", "running"], "{out}");
    }
    let first_ingresses = up.ingresses();
    assert_eq!(first_ingresses.len(), 2, "{out}");
    for url in &first_ingresses {
        assert!(answer(url).await.starts_with("hello from "));
    }
    let context = home.join("config/dunlin/context.toml");
    let mode = std::fs::metadata(&context).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the context of the user, and for nobody else");
    let before = json(home, &["status", "shop"]).await;
    let processes = up.processes();
    assert!(processes.len() >= 5, "a coordinator, two agents, two workers: {processes:?}");
    let cluster = ready(home, "coordinator")["cluster"].clone();

    assert_eq!(up.signalled(Signal::SIGINT).await.code(), Some(0));
    let left: Vec<i32> = processes.into_iter().filter(|process| is_running(*process)).collect();
    assert_eq!(left, Vec::<i32>::new(), "it ends after its processes, not before them");
    until_ports_are_free(home).await;
    assert!(!state(home).join("processes.json").exists());

    let up = Up::start(home, None).await;
    assert_eq!(ready(home, "coordinator")["cluster"], cluster, "the same fleet");
    assert_eq!(up.ingresses(), first_ingresses, "where it was before");
    for url in &first_ingresses {
        assert!(answer(url).await.starts_with("hello from "));
    }
    let after = json(home, &["status", "shop"]).await;
    assert_eq!(after["revision"], before["revision"]);
    assert_eq!(up.signalled(Signal::SIGTERM).await.code(), Some(0));
}

#[tokio::test]
async fn two_cannot_share_a_state_folder_and_the_first_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let up = Up::start(home, Some(&hello(HELLO, 1))).await;
    let folder = state(home).display().to_string();
    let second = ended(outside(home, &["up", "--nodes", "1", "--state", &folder])).await;
    second.assert_failed(1, &["cannot start a fleet", "another `dunlin up` runs on", &folder, "--state"]);
    answer(&up.ingresses()[0]).await;
    assert_eq!(up.signalled(Signal::SIGINT).await.code(), Some(0));
}

#[tokio::test]
async fn a_killed_up_leaves_no_orphan() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let up = Up::start(home, Some(&hello(HELLO, 2))).await;
    let processes = up.processes();
    up.signalled(Signal::SIGKILL).await;
    until_gone(&processes).await;
    until_ports_are_free(home).await;
    let up = Up::start(home, None).await;
    answer(&up.ingresses()[0]).await;
    assert_eq!(up.signalled(Signal::SIGINT).await.code(), Some(0));
}

#[tokio::test]
async fn an_app_that_cannot_be_deployed_ends_up_and_all_its_processes() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let app = App::new("[app]\nname = \"shop\"\n[service.hello]\ncomponent = \"nothing.wasm\"\n", &[]);
    let (path, folder) = (app.path().display().to_string(), state(home).display().to_string());
    let up = ended(outside(home, &["up", &path, "--nodes", "2", "--state", &folder])).await;
    up.assert_failed(1, &["cannot read the component", "nothing.wasm"]);
    until_ports_are_free(home).await;
}

#[tokio::test]
async fn an_app_that_is_watched_follows_its_sources_and_waits_where_they_are_wrong() {
    let manifest = r#"
        [app]
        name = "shop"

        [build]
        command = "test -s source.wasm && cp source.wasm built.wasm"

        [service.hello]
        component = "built.wasm"
        routes = [{ path = "/" }]
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
    "#;
    let home = tempfile::tempdir().unwrap();
    let app = App::new(manifest, &[("source.wasm", HELLO)]);
    let up = Up::start_with(home.path(), Some(&app), &["--watch"]).await;
    let url = up.ingresses().remove(0);
    let answers = async |revision: &str| {
        eventually(&format!("an answer of {revision}"), || async {
            let response = http().get(&url).send().await.map_err(|error| error.to_string())?;
            let text = response.text().await.map_err(|error| error.to_string())?;
            if text.contains(revision) { Ok(()) } else { Err(text) }
        })
        .await;
    };
    answers("revision 1").await;
    std::fs::write(app.path().join("source.wasm"), "").unwrap();
    eventually("it says what is wrong", || async {
        let err = up.read("err");
        if err.contains("source.wasm has changed") && err.contains("the build `") { Ok(()) } else { Err(err) }
    })
    .await;
    answers("revision 1").await;
    std::fs::write(app.path().join("source.wasm"), HELLO_V2).unwrap();
    answers("revision 2").await;
    // The first answer comes before the deploy has seen all nodes run it.
    eventually("it says that the app is up to date", || async {
        let err = up.read("err");
        if err.contains("default/shop is up to date after") { Ok(()) } else { Err(err) }
    })
    .await;
    assert!(up.signalled(Signal::SIGINT).await.success());
}
