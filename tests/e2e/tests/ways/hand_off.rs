//! A client's connection in the hands of a worker: it carries many requests, comes back, and is lost with its worker.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::net::SocketAddr;
use std::time::Duration;

use dunlin_guest_artifacts::{HELLO, HELLO_V2};
use dunlin_harness::{App, Fleet, PATIENCE, children, eventually, is_running};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Returns an app in a namespace of its own, with the service `hello` at a host of its own.
fn app(namespace: &str, component: &[u8]) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "shop"
        namespace = "{namespace}"

        [service.hello]
        component = "guest.wasm"
        allocations = 1
        routes = [{{ host = "{namespace}.example", path = "/" }}]
        limits = {{ memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }}
        "#
    );
    App::new(&manifest, &[("guest.wasm", component)])
}

/// One connection that is kept.
struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    async fn open(ingress: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(ingress).await.unwrap(), read: Vec::new() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn send_get(&mut self, namespace: &str) {
        self.send(format!("GET / HTTP/1.1\r\nHost: {namespace}.example\r\n\r\n").as_bytes()).await;
    }

    /// Returns the next response, or nothing if the connection ends before its end.
    async fn receive(&mut self) -> Option<String> {
        let receiving = async {
            loop {
                if let Some(length) = response_length(&self.read) {
                    let response: Vec<u8> = self.read.drain(..length).collect();
                    return Some(String::from_utf8_lossy(&response).into_owned());
                }
                match self.stream.read_buf(&mut self.read).await {
                    Ok(0) | Err(_) => return None,
                    Ok(_) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, receiving).await.expect("neither a response nor an end came")
    }

    async fn get(&mut self, namespace: &str) -> String {
        self.send_get(namespace).await;
        self.receive().await.expect("the connection ended before the response")
    }
}

/// Returns how many bytes the response has with which `bytes` begin, if it is there as a whole.
fn response_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    if let Some(length) = head.lines().find_map(|line| line.strip_prefix("content-length: ")) {
        let whole = end + length.parse::<usize>().unwrap();
        return (bytes.len() >= whole).then_some(whole);
    }
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    let mut at = end;
    loop {
        let line = bytes[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).unwrap(), 16).unwrap();
        at += line + 2 + size + 2;
        if bytes.len() < at {
            return None;
        }
        if size == 0 {
            return Some(at);
        }
    }
}

/// Starts the app of `namespace` on a fleet of one node and returns its worker.
async fn deploy(fleet: &mut Fleet, namespace: &str) -> i32 {
    let agent = fleet.agent(0).id().unwrap();
    let before = children(agent);
    fleet.deploy(&app(namespace, HELLO)).await.unwrap();
    fleet.until_running(&format!("{namespace}/shop")).await;
    let ingress = fleet.ingress(0);
    eventually("the first answer", || async {
        let answer = Connection::open(ingress).await.get(namespace).await;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(()) } else { Err(answer) }
    })
    .await;
    children(agent).into_iter().find(|process| !before.contains(process)).unwrap()
}

/// Kills a worker and tells whether `connection` ended with it.
async fn ends_with(connection: &mut Connection, worker: i32, namespace: &str) -> bool {
    kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
    eventually("the worker is gone", || async {
        if is_running(worker) { Err(worker.to_string()) } else { Ok(()) }
    })
    .await;
    let request = format!("GET / HTTP/1.1\r\nHost: {namespace}.example\r\n\r\n");
    connection.stream.write_all(request.as_bytes()).await.is_err() || connection.receive().await.is_none()
}

#[tokio::test]
async fn a_killed_worker_takes_its_clients_connections_with_it_and_no_others() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let mine = deploy(&mut fleet, "mine").await;
    deploy(&mut fleet, "theirs").await;
    let ingress = fleet.ingress(0);
    let (mut own, mut other) = (Connection::open(ingress).await, Connection::open(ingress).await);
    for _ in 0..100 {
        assert!(own.get("mine").await.starts_with("HTTP/1.1 200 "));
        assert!(other.get("theirs").await.starts_with("HTTP/1.1 200 "));
    }
    assert!(ends_with(&mut own, mine, "mine").await, "it was in the worker's hands");
    assert!(other.get("theirs").await.starts_with("HTTP/1.1 200 "));
    eventually("the next connection is served", || async {
        // One that was passed to the worker just before it was killed is gone with it.
        let mut connection = Connection::open(ingress).await;
        connection.send_get("mine").await;
        match connection.receive().await {
            Some(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_used_for_two_namespaces_comes_back_and_its_client_is_not_handed_off_again() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let mine = deploy(&mut fleet, "mine").await;
    deploy(&mut fleet, "theirs").await;
    let mut connection = Connection::open(fleet.ingress(0)).await;
    assert!(connection.get("mine").await.starts_with("HTTP/1.1 200 "));
    let body = vec![b'y'; 4_000_000];
    let head =
        format!("POST /echo HTTP/1.1\r\nHost: theirs.example\r\nContent-Length: {}\r\n\r\n", body.len());
    let all = [head.as_bytes(), &body, b"GET / HTTP/1.1\r\nHost: mine.example\r\n\r\n"].concat();
    let (mut reader, mut writer) = connection.stream.into_split();
    let writing = tokio::spawn(async move {
        writer.write_all(&all).await.unwrap();
        writer
    });
    let mut read = Vec::new();
    let echoed = loop {
        if let Some(length) = response_length(&read) {
            break read.drain(..length).collect::<Vec<u8>>();
        }
        assert!(reader.read_buf(&mut read).await.unwrap() > 0, "the connection ended");
    };
    assert!(echoed.starts_with(b"HTTP/1.1 200 "));
    assert!(echoed.iter().filter(|byte| **byte == b'y').count() >= body.len(), "the body comes back whole");
    let stream = writing.await.unwrap().reunite(reader).unwrap();
    let mut connection = Connection { stream, read };
    let last = connection.receive().await.unwrap();
    assert!(last.starts_with("HTTP/1.1 200 "), "{last}");

    let mut next = Connection::open(fleet.ingress(0)).await;
    assert!(next.get("mine").await.starts_with("HTTP/1.1 200 "));
    assert!(!ends_with(&mut next, mine, "mine").await, "it was not in the worker's hands");
}

#[tokio::test]
async fn a_node_whose_config_says_so_hands_nothing_off() {
    let mut fleet = Fleet::start(0).await.unwrap();
    let config = fleet.folder().join("node.toml");
    std::fs::write(&config, "[ingress]\nhand_off = false\n").unwrap();
    fleet.add_agent(&["--config", &config.display().to_string()]).await.unwrap();
    let mine = deploy(&mut fleet, "mine").await;
    let mut connection = Connection::open(fleet.ingress(0)).await;
    assert!(connection.get("mine").await.starts_with("HTTP/1.1 200 "));
    assert!(!ends_with(&mut connection, mine, "mine").await);
}

#[tokio::test]
async fn a_rollout_loses_no_request_on_connections_that_are_kept() {
    let mut fleet = Fleet::start(1).await.unwrap();
    deploy(&mut fleet, "mine").await;
    let ingress = fleet.ingress(0);
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let mut connection = Connection::open(ingress).await;
                let mut last = String::new();
                while !*stopped.borrow() {
                    last = connection.get("mine").await;
                    assert!(last.starts_with("HTTP/1.1 200 "), "{last}");
                }
                last
            })
        })
        .collect();
    fleet.deploy(&app("mine", HELLO_V2)).await.unwrap();
    fleet.until_running("mine/shop").await;
    eventually("an answer of the second revision", || async {
        let answer = Connection::open(ingress).await.get("mine").await;
        if answer.contains("again") { Ok(()) } else { Err(answer) }
    })
    .await;
    stop.send(true).unwrap();
    for client in clients {
        let last = tokio::time::timeout(Duration::from_secs(30), client).await.unwrap().unwrap();
        assert!(!last.is_empty());
    }
}

#[tokio::test]
async fn connections_outlive_the_last_allocation_of_their_namespace() {
    let mut fleet = Fleet::start(1).await.unwrap();
    deploy(&mut fleet, "mine").await;
    let mut connection = Connection::open(fleet.ingress(0)).await;
    assert!(connection.get("mine").await.starts_with("HTTP/1.1 200 "));
    let output = fleet.dunlin(&["--namespace", "mine", "stop", "shop"]).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let agent = fleet.agent(0).id().unwrap();
    eventually("the worker ends", || async {
        let left = children(agent);
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let answer = connection.get("mine").await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("no_endpoint"), "{answer}");
    fleet.deploy(&app("mine", HELLO)).await.unwrap();
    fleet.until_running("mine/shop").await;
    let started = std::time::Instant::now();
    while !connection.get("mine").await.starts_with("HTTP/1.1 200 ") {
        assert!(started.elapsed() < PATIENCE, "the service came back, and the connection is still good");
    }
}
