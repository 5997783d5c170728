//! Sockets of guests: to what the manifest grants and the node's operator opens, and nowhere else.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::net::SocketAddr;
use std::time::Duration;

use dunlin_e2e::printed;
use dunlin_guest_artifacts::SOCKETS_HTTP;
use dunlin_harness::{App, Fleet, eventually, http};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

const OPEN: &str = "[egress]\nallow = [\"127.0.0.0/8\"]\n";

/// A node whose operator has written `config`, with a service on it that is granted `sockets`.
async fn fleet(config: &str, more: &str, limits: &str, sockets: &[String]) -> Fleet {
    let mut fleet = Fleet::start(0).await.unwrap();
    let path = fleet.folder().join("node.toml");
    std::fs::write(&path, config).unwrap();
    fleet.add_agent(&["--config", path.to_str().unwrap()]).await.unwrap();
    fleet.deploy(&app(more, limits, sockets)).await.unwrap();
    fleet.until_running("default/shop").await;
    fleet
}

fn app(more: &str, limits: &str, sockets: &[String]) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.guest]
        component = "guest.wasm"
        routes = [{{ path = "/" }}]
        {more}
        limits = {{ memory = "64MiB", fuel = "10G", fuel_rate = "100M/s", fuel_burst = "20G", deadline = "30s", {limits} }}

        [service.guest.capabilities]
        sockets = {sockets:?}
        "#
    );
    App::new(&manifest, &[("guest.wasm", SOCKETS_HTTP)])
}

async fn post(fleet: &Fleet, body: &str) -> String {
    eventually("an answer", || async {
        let url = format!("http://{}/", fleet.ingress(0));
        let response =
            http().post(url).body(body.to_owned()).send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = response.text().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(text.trim_end().to_owned()) } else { Err(format!("{status}: {text}")) }
    })
    .await
}

/// Waits until the log says `text`.
async fn until_said(fleet: &Fleet, text: &str) {
    eventually("the log says it", || async {
        let output = fleet.dunlin(&["logs", "shop"]).await.unwrap();
        let log = printed(&output).assert_done().to_owned();
        if log.contains(text) { Ok(()) } else { Err(log) }
    })
    .await;
}

/// Says to each client what he says.
async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                let _gone = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_granted_host_is_reached_by_its_name_and_by_its_address() {
    let server = echo_server().await;
    let port = server.port();
    let grants = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let fleet = fleet(OPEN, "", "", &grants).await;
    let by_address = post(&fleet, &format!("echo {server} hello you")).await;
    assert_eq!(by_address, format!("ok hello you from {server}"));
    let by_name = post(&fleet, &format!("lookup localhost\necho localhost:{port} hello again")).await;
    assert_eq!(by_name, format!("ok 127.0.0.1\nok hello again from {server}"));
    let much = post(&fleet, &format!("move {server} 5000000")).await;
    assert_eq!(much, "ok 5000000");
    let options = post(&fleet, &format!("options {server}")).await;
    assert_eq!(options, "ok true 17; 20 3 4 33 32768 32768");
}

#[tokio::test]
async fn a_name_grants_its_own_addresses_and_ports_only() {
    let (server, other) = (echo_server().await, echo_server().await);
    let fleet = fleet(OPEN, "", "", &[format!("localhost:{}", server.port())]).await;
    // The name was not asked for in this instance, so nobody knows that it is meant.
    assert!(post(&fleet, &format!("echo {server} x")).await.starts_with("PermissionDenied"));
    let answers = post(
        &fleet,
        &format!(
            "lookup localhost\necho {server} x\necho localhost:{} x\necho 127.0.0.2:{} x\nlookup example.com",
            other.port(),
            server.port()
        ),
    )
    .await;
    let answers: Vec<_> = answers.lines().collect();
    assert_eq!(answers[..2], ["ok 127.0.0.1", &format!("ok x from {server}")]);
    for answer in &answers[2..] {
        assert!(answer.starts_with("PermissionDenied"), "{answers:?}");
    }
    until_said(&fleet, &format!("to allow it, write `sockets = [\"localhost:{}\"]`", other.port())).await;
    until_said(&fleet, "no `sockets` grant names example.com").await;
}

#[tokio::test]
async fn without_a_grant_there_are_no_sockets_and_deploy_says_so() {
    let server = echo_server().await;
    let fleet = fleet(OPEN, "", "", &[]).await;
    for command in [format!("connect {server}"), "lookup localhost".to_owned()] {
        let answer = post(&fleet, &command).await;
        assert!(answer.starts_with("PermissionDenied"), "`{command}`: {answer}");
    }
    until_said(&fleet, &format!("to allow it, write `sockets = [\"{server}\"]`")).await;
    let app = app("", "", &[]);
    let deployed = printed(&fleet.dunlin(&["deploy", &app.path().display().to_string()]).await.unwrap());
    deployed.assert_done();
    let note = "`guest` imports TCP connections, which is denied: to allow it, add \
                `sockets = [\"db.example.com:5432\"]` under `[service.guest.capabilities]`";
    assert!(deployed.err.contains(note), "{deployed:?}");
}

#[tokio::test]
async fn inner_addresses_are_denied_whatever_the_manifest_grants() {
    let server = echo_server().await;
    let grants = [format!("*:{}", server.port()), "*:80".to_owned()];
    let fleet = fleet("", "", "connection_rate = 100", &grants).await;
    for command in [
        format!("connect {server}"),
        format!("connect localhost:{}", server.port()),
        "lookup localhost".to_owned(),
        "connect 169.254.169.254:80".to_owned(),
        "connect 10.0.0.1:80".to_owned(),
        "connect [fd00:ec2::254]:80".to_owned(),
        "connect [::1]:80".to_owned(),
    ] {
        let answer = post(&fleet, &command).await;
        assert!(answer.starts_with("PermissionDenied"), "`{command}`: {answer}");
    }
    until_said(&fleet, "egress_denied: 169.254.169.254 is the address of a cloud's metadata").await;
    until_said(&fleet, "name lookup denied: egress_denied: ").await;
}

#[tokio::test]
async fn a_guest_can_connect_and_nothing_else() {
    let fleet = fleet(OPEN, "", "", &["*:80".to_owned()]).await;
    assert_eq!(
        post(&fleet, "rogue").await,
        "ok bind access-denied, port access-denied, listen access-denied, listening not-in-progress, \
         accept not-supported, udp access-denied, udp6 access-denied"
    );
    for command in
        ["listen 127.0.0.1:0", "listen 0.0.0.0:0", "listen [::]:8080", "udp 127.0.0.1:0", "udp [::]:0"]
    {
        let answer = post(&fleet, command).await;
        assert!(answer.starts_with("PermissionDenied"), "`{command}`: {answer}");
    }
}

#[tokio::test]
async fn no_more_connections_are_open_at_once_than_the_limit_says() {
    let server = echo_server().await;
    let fleet = fleet(OPEN, "", "connections = 3", &[server.to_string()]).await;
    // Each request has an instance of its own, and what it holds goes with it.
    for _ in 0..3 {
        let answer = post(&fleet, &format!("many {server} 5")).await;
        assert!(answer.starts_with("ok 3 "), "{answer}");
    }
    until_said(&fleet, "limit `connections` is 3").await;
}

/// A server that never answers: its queue of connections is full. Returns what keeps it so.
async fn silent_server() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut queued = Vec::new();
    while let Ok(stream) = timeout(Duration::from_millis(300), TcpStream::connect(address)).await {
        queued.push(stream.unwrap());
        assert!(queued.len() < 100, "its queue is never full");
    }
    (address, (listener, queued))
}

#[tokio::test]
async fn who_does_not_answer_in_time_is_given_up() {
    let (server, _silent) = silent_server().await;
    let fleet = fleet(OPEN, "", "connect_timeout = \"1s\"", &[server.to_string()]).await;
    let answer = post(&fleet, &format!("connect {server}")).await;
    assert!(answer.starts_with("TimedOut"), "{answer}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    fleet.deploy(&app("", "", &[nobody.to_string()])).await.unwrap();
    eventually("the new revision answers", || async {
        let answer = post(&fleet, &format!("connect {nobody}")).await;
        if answer.starts_with("ConnectionRefused") { Ok(()) } else { Err(answer) }
    })
    .await;
}

#[tokio::test]
async fn an_instance_with_an_open_socket_is_not_used_again_and_its_socket_is_closed() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    let reused = "instances = \"reused\"";
    let fleet = fleet(OPEN, reused, "concurrency = 1", &[server.to_string()]).await;
    // One that closes what it opened can go on.
    let connect = format!("connect {server}\nrequests");
    let used = eventually("an instance is used again", || async {
        let answer = post(&fleet, &connect).await;
        let used: u32 = answer.rsplit(' ').next().unwrap().parse().unwrap();
        if used > 1 { Ok(used) } else { Err(answer) }
    })
    .await;
    assert_eq!(post(&fleet, &connect).await, format!("ok \nok {}", used + 1));
    assert_eq!(post(&fleet, &format!("keep {server}")).await, "ok");
    assert_eq!(post(&fleet, "requests").await, "ok 1");
    // Whoever is gone has left nothing open, and three have connected at least.
    let mut ended = 0;
    while let Ok(accepted) = timeout(Duration::from_millis(500), listener.accept()).await {
        let mut heard = Vec::new();
        let (mut stream, _) = accepted.unwrap();
        let closed = timeout(Duration::from_secs(10), stream.read_to_end(&mut heard)).await;
        assert!(closed.is_ok(), "the socket of an instance that is gone is still open");
        ended += 1;
    }
    assert!(ended >= 3, "{ended}");
}
