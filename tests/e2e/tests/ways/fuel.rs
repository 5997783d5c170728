//! `fuel_header = true`: a response says what its request burned, before its body or after it, through both doors.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::net::SocketAddr;

use dunlin_guest_artifacts::HELLO;
use dunlin_harness::{App, Fleet, PATIENCE, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const MANIFEST: &str = r#"
[app]
name = "shop"

[service.telling]
component = "guest.wasm"
fuel_header = true
routes = [{ host = "telling.example", path = "/" }]
limits = { memory = "32MiB", fuel = "1G", fuel_rate = "10M/s", fuel_burst = "10G", deadline = "30s" }

[service.silent]
component = "guest.wasm"
routes = [{ host = "silent.example", path = "/" }]
limits = { memory = "32MiB", fuel = "1G", fuel_rate = "10M/s", fuel_burst = "10G", deadline = "30s" }
"#;
/// More than is gathered before a response goes out.
const LONG: usize = 300_000;

/// Sends one request on a connection of its own and returns the head of the response, and all that follows it.
async fn ask(door: SocketAddr, service: &str, more: &str, body: usize) -> (String, String) {
    let mut stream = TcpStream::connect(door).await.unwrap();
    let line = if body == 0 { "GET /" } else { "POST /echo" };
    let head = format!(
        "{line} HTTP/1.1\r\nhost: {service}.example\r\nconnection: close\r\ncontent-length: {body}\r\n{more}\r\n"
    );
    let asking = async {
        let (mut reader, mut writer) = stream.split();
        let sending = async {
            writer.write_all(head.as_bytes()).await.unwrap();
            writer.write_all(&vec![b'y'; body]).await.unwrap();
        };
        let mut answer = Vec::new();
        let (_, read) = tokio::join!(sending, reader.read_to_end(&mut answer));
        read.unwrap();
        String::from_utf8(answer).unwrap()
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await.expect("no answer came");
    let (head, rest) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {answer:?}"));
    (head.to_lowercase(), rest.to_owned())
}

/// Returns the value of a line of a head, or of trailers.
fn field<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    lines.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

async fn check(fleet: &Fleet) {
    fleet.deploy(&App::new(MANIFEST, &[("guest.wasm", HELLO)])).await.unwrap();
    fleet.until_running("default/shop").await;
    let door = fleet.ingress(0);
    let (head, _) = eventually("the first answer", || async {
        let answer = ask(door, "telling", "", 0).await;
        if answer.0.starts_with("http/1.1 200 ") { Ok(answer) } else { Err(answer.0) }
    })
    .await;
    let small: u64 = field(&head, "dunlin-fuel").unwrap().parse().unwrap();
    assert!(small > 0 && field(&head, "trailer").is_none(), "{head}");

    let (head, rest) = ask(door, "telling", "te: trailers\r\n", LONG).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!((field(&head, "dunlin-fuel"), field(&head, "trailer")), (None, Some("dunlin-fuel")), "{head}");
    let (_, trailers) = rest.rsplit_once("\r\n0\r\n").unwrap();
    let large: u64 = field(trailers, "dunlin-fuel").unwrap().parse().unwrap();
    assert!(large > small && trailers.ends_with("\r\n\r\n"), "{trailers:?}");

    let (head, rest) = ask(door, "telling", "", LONG).await;
    assert_eq!(field(&head, "trailer"), None, "{head}");
    assert!(rest.ends_with("\r\n0\r\n\r\n"), "who does not read trailers is sent none");

    for body in [0, LONG] {
        let (head, rest) = ask(door, "silent", "te: trailers\r\n", body).await;
        assert!(head.starts_with("http/1.1 200 ") && !head.contains("dunlin-fuel"), "{head}");
        assert!(!rest.contains("dunlin-fuel"));
    }
}

#[tokio::test]
async fn fuel_is_told_before_or_after_the_body_on_a_connection_that_a_worker_has() {
    check(&Fleet::start(1).await.unwrap()).await;
}

#[tokio::test]
async fn fuel_is_told_before_or_after_the_body_on_a_connection_that_the_agent_keeps() {
    let mut fleet = Fleet::start(0).await.unwrap();
    let config = fleet.folder().join("node.toml");
    std::fs::write(&config, "[ingress]\nhand_off = false\n").unwrap();
    fleet.add_agent(&["--config", &config.display().to_string()]).await.unwrap();
    check(&fleet).await;
}
