//! Each example of `guests/examples` that is written with the SDK, as somebody would who reads it: built and deployed by its
//! own manifest, and used as its README says.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use dunlin_api::ItemsQuery;
use dunlin_e2e::{Printed, printed};
use dunlin_harness::{Fleet, PATIENCE, eventually, http};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

const TOKEN: &str = "correct-horse";

fn folder(example: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guests/examples").join(example)
}

/// Builds an example and brings it into the fleet.
async fn deploy(fleet: &Fleet, example: &str) -> Printed {
    let mut command = fleet.command(&folder(example), &["deploy", "--timeout", "120s"]);
    // Whoever runs the tests may have another folder for what is compiled, which holds for that and not for this.
    command.env_remove("CARGO_TARGET_DIR");
    printed(&command.output().await.unwrap())
}

/// Runs `dunlin` in the folder of an example.
async fn dunlin(fleet: &Fleet, example: &str, arguments: &[&str]) -> Printed {
    printed(&fleet.dunlin_in(&folder(example), arguments).await.unwrap())
}

/// Sends a request as it stands here on a connection of its own, and returns all of the answer.
async fn exchange(fleet: &Fleet, request: &str) -> String {
    let mut client = TcpStream::connect(fleet.ingress(0)).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("an answer ends").unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// Asks for a path and follows nothing.
async fn get(fleet: &Fleet, path: &str) -> String {
    exchange(fleet, &format!("GET {path} HTTP/1.1\r\nhost: links.example\r\nconnection: close\r\n\r\n")).await
}

/// Waits until the answer to a path begins so, and returns it.
async fn until(fleet: &Fleet, path: &str, start: &str) -> String {
    eventually(&format!("{path} is answered with {start}"), async || {
        let answer = get(fleet, path).await;
        if answer.starts_with(start) { Ok(answer) } else { Err(answer) }
    })
    .await
}

#[tokio::test]
async fn access_logs_are_counted_and_a_broken_line_with_them() {
    let fleet = Fleet::start(1).await.unwrap();
    let example = "log-analyser";
    deploy(&fleet, example).await.assert_done();
    let run = ["job", "run", "report", "--wait", "--timeout", "60s"];
    dunlin(&fleet, example, &run).await.assert_done();
    let report = dunlin(&fleet, example, &["job", "result", "r1"]).await;
    assert_eq!(report.assert_done(), std::fs::read_to_string(folder(example).join("report.txt")).unwrap());
    let told = dunlin(&fleet, example, &["job", "result", "r1", "--item", "1"]).await;
    assert!(told.assert_done().starts_with("requests 7\nbroken 1\n"), "{told:?}");
}

/// Returns the bytes that a line of base64 stands for.
fn decoded(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0_u32, 0_u32);
    for letter in text.trim_end().trim_end_matches('=').bytes() {
        let value = LETTERS.iter().position(|known| *known == letter).expect("it is a letter of base64");
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes
}

/// Returns width and height of a JPEG, as its frame says.
fn size_of_jpeg(bytes: &[u8]) -> (u16, u16) {
    assert!(bytes.starts_with(&[0xff, 0xd8]) && bytes.ends_with(&[0xff, 0xd9]), "it is a whole JPEG");
    let frame = bytes.windows(9).find(|part| part[..4] == [0xff, 0xc0, 0, 17]);
    let frame = frame.expect("it has a frame with three colours");
    (u16::from_be_bytes([frame[7], frame[8]]), u16::from_be_bytes([frame[5], frame[6]]))
}

#[tokio::test]
async fn pictures_have_thumbnails_and_damaged_ones_a_reason() {
    let fleet = Fleet::start(1).await.unwrap();
    let example = "thumbnailer";
    deploy(&fleet, example).await.assert_done();
    let run = ["job", "run", "thumbnails", "--wait", "--timeout", "60s"];
    dunlin(&fleet, example, &run).await.assert_done();
    let page = fleet.client().run_items("r1".parse().unwrap(), &ItemsQuery::default()).await.unwrap();
    let made: Vec<_> = page
        .items
        .iter()
        .map(|item| {
            assert!(!item.record.output_cut, "{:?} is too long", item.name);
            (item.name.clone().unwrap(), size_of_jpeg(&decoded(&item.record.output)))
        })
        .collect();
    let expected = [
        ("pictures/lighthouse.jpg", (160, 100)),
        ("pictures/mark.png", (160, 160)),
        ("pictures/tree.jpg", (114, 160)),
    ];
    assert_eq!(made, expected.map(|(name, size)| (name.to_owned(), size)));
    // What is printed is what was kept.
    let shown = dunlin(&fleet, example, &["job", "result", "r1", "--item", "2"]).await;
    assert_eq!(shown.assert_done(), page.items[2].record.output);

    let run = ["job", "run", "thumbnails", "--input", "damaged/*", "--wait", "--timeout", "60s"];
    assert_eq!(dunlin(&fleet, example, &run).await.code, 1);
    let page = fleet.client().run_items("r2".parse().unwrap(), &ItemsQuery::default()).await.unwrap();
    let ends: Vec<_> =
        page.items.iter().map(|item| (item.record.outcome.name(), item.record.attempt)).collect();
    assert_eq!(ends, [("Exited", 1), ("Exited", 1)]);
    let reasons = [
        "error: cannot make a thumbnail of `damaged/half.jpg`: the JPEG is cut off",
        "error: cannot make a thumbnail of `damaged/huge.png`: 20000 x 20000 pixels are 1200000000 bytes",
    ];
    // The allocations have ended by then, whose lines are found by their ids alone; what ended badly is kept by itself.
    eventually("it is known what was wrong with both", async || {
        let ended = dunlin(&fleet, example, &["logs", example, "--traps", "--output", "json"]).await;
        let has_all = reasons.iter().all(|reason| ended.out.contains(reason));
        if has_all { Ok(()) } else { Err(format!("{ended:?}")) }
    })
    .await;
}

/// Sets the secret of the gate as users do, through a pipe.
async fn set_token(fleet: &Fleet, token: &str) {
    let mut command = fleet.command(fleet.folder(), &["secret", "set", "GATE_TOKEN"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(token.as_bytes()).await.unwrap();
    printed(&child.wait_with_output().await.unwrap()).assert_done();
}

#[tokio::test]
async fn a_gate_lets_through_who_shows_the_token() {
    let fleet = Fleet::start(1).await.unwrap();
    let example = "auth-proxy";
    deploy(&fleet, example).await.assert_failed(1, &["GATE_TOKEN", "set it first"]);
    set_token(&fleet, TOKEN).await;
    deploy(&fleet, example).await.assert_done();
    until(&fleet, "/", "HTTP/1.1 401").await;

    let url = format!("http://{}/a/b?c=d", fleet.ingress(0));
    for request in [
        http().get(&url),
        http().get(&url).bearer_auth("wrong"),
        http().get(&url).basic_auth("ada", Some("")),
    ] {
        let response = request.header("host", "inner.auth-proxy.internal").send().await.unwrap();
        assert_eq!(response.status(), 401);
        let asked: Vec<_> = response.headers().get_all("www-authenticate").iter().collect();
        assert_eq!(asked, ["Basic realm=\"inner\"", "Bearer realm=\"inner\""]);
        assert_eq!(response.text().await.unwrap(), "show the token of this service\n");
    }
    for request in [http().put(&url).bearer_auth(TOKEN), http().put(&url).basic_auth("ada", Some(TOKEN))] {
        let request = request.header("x-mine", "1").header("te", "trailers").body("what is sent");
        let response = request.header("dunlin-caller", "default/shop/somebody").send().await.unwrap();
        assert_eq!(response.status(), 200);
        let told = response.text().await.unwrap();
        let (head, body) = told.split_once("\n\n").expect("it tells a head and a body");
        assert!(head.starts_with("called by default/auth-proxy/gate\nPUT /a/b?c=d\n"), "{told}");
        assert!(head.contains("\nx-mine: 1") && head.contains("\ncontent-length: 12"), "{told}");
        for line in ["\nauthorization: ", "\nte: ", "\nconnection: ", TOKEN] {
            assert!(!head.contains(line), "{line:?} is passed on: {told}");
        }
        assert_eq!(body, "what is sent");
    }
}

#[tokio::test]
async fn a_gate_streams_and_takes_a_new_token_without_a_deploy() {
    let fleet = Fleet::start(1).await.unwrap();
    set_token(&fleet, TOKEN).await;
    deploy(&fleet, "auth-proxy").await.assert_done();
    until(&fleet, "/", "HTTP/1.1 401").await;

    // The answer begins, and gives back what has come, while the other half is still to be sent.
    let mut client = TcpStream::connect(fleet.ingress(0)).await.unwrap();
    let head = format!(
        "POST / HTTP/1.1\r\nhost: gate.example\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 10\r\nconnection: close\r\n\r\n"
    );
    client.write_all(format!("{head}first").as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let half = async {
        while !String::from_utf8_lossy(&answer).contains("first") {
            let read = client.read_buf(&mut answer).await.unwrap();
            assert_ne!(read, 0, "closed after {:?}", String::from_utf8_lossy(&answer));
        }
    };
    timeout(PATIENCE, half).await.expect("the first half comes back");
    client.write_all(b"later").await.unwrap();
    timeout(PATIENCE, client.read_to_end(&mut answer)).await.expect("the answer ends").unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("called by default/auth-proxy/gate") && answer.contains("later"), "{answer}");

    set_token(&fleet, "another-token").await;
    let url = format!("http://{}/", fleet.ingress(0));
    eventually("the new token is the one that counts", async || {
        let status =
            async |token: &str| http().get(&url).bearer_auth(token).send().await.unwrap().status().as_u16();
        let seen = (status(TOKEN).await, status("another-token").await);
        if seen == (401, 200) { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
}

#[tokio::test]
async fn short_names_lead_to_their_addresses() {
    let fleet = Fleet::start(1).await.unwrap();
    deploy(&fleet, "url-shortener").await.assert_done();
    let list = until(&fleet, "/", "HTTP/1.1 200").await;
    let (_, list) = list.split_once("\r\n\r\n").expect("an answer has a head");
    let expected = [
        "rust https://www.rust-lang.org/",
        "search https://duckduckgo.com/?q=webassembly",
        "wasi https://github.com/WebAssembly/WASI",
    ];
    assert_eq!(list.lines().collect::<Vec<_>>(), expected);
    let link = get(&fleet, "/wasi?from=here").await;
    assert!(link.starts_with("HTTP/1.1 308"), "{link}");
    assert!(link.contains("\r\nlocation: https://github.com/WebAssembly/WASI\r\n"), "{link}");
    assert!(link.ends_with("\r\n\r\nhttps://github.com/WebAssembly/WASI\n"), "{link}");
    for path in ["/nothing", "/wasi/", "/WASI"] {
        let answer = get(&fleet, path).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let request =
        "POST /wasi HTTP/1.1\r\nhost: links.example\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let answer = exchange(&fleet, request).await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
}
