//! What clients can do to the front door: protocols, hostile bytes, slowness, and the end.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod support;

use std::time::Duration;

use http::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::{Behaviour, Fleet, full, receive, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn http2_without_tls_is_spoken() {
    let fleet = Fleet::new(&[Behaviour::Tell, Behaviour::Tell, Behaviour::Tell]);
    fleet.ingresses[0].set_routes(&support::routes(&[("n2", 2), ("n3", 3)]));
    let door = fleet.open().await;
    let stream = TcpStream::connect(door.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for number in 2..=3 {
        let request = Request::post("http://shop.example/x")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("dunlin-allocation", "a9")
            .body(full("hello"))
            .unwrap();
        let (status, _, told) = receive(sender.send_request(request).await.unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        assert!(told.starts_with(&format!("node: n{number}\nPOST /x\n")), "{told}");
        for line in ["cookie: a=1; b=2\n", "host: shop.example\n", "body: 5\n"] {
            assert!(told.contains(line), "{line:?} is missing in {told}");
        }
        assert!(told.contains(&format!("dunlin-allocation: a{number}\n")), "{told}");
    }
}

#[tokio::test]
async fn what_is_not_served_has_a_defined_answer() {
    let fleet = Fleet::new(&[Behaviour::Tell]);
    let door = fleet.open().await;
    for (head, status, code) in [
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1", "501", "connect_unsupported"),
        ("GET http://a/ HTTP/1.1\r\nHost: a", "400", "bad_target"),
        ("OPTIONS * HTTP/1.1\r\nHost: a", "400", "bad_target"),
        ("GET / HTTP/1.1", "400", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b", "400", "bad_host"),
        ("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket", "501", "upgrade_unsupported"),
    ] {
        let answer = door.raw(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?} was answered {answer:?}");
        assert!(answer.contains(&format!("dunlin-failure: {code}\r\n")), "{head:?} was answered {answer:?}");
    }
    assert_eq!(fleet.workers[0].requests(), 0);
}

#[tokio::test]
async fn a_request_of_two_lengths_is_refused() {
    let fleet = Fleet::new(&[Behaviour::Tell]);
    let door = fleet.open().await;
    for lengths in [
        "Content-Length: 4\r\nContent-Length: 5",
        "Content-Length: 4, 5",
        "Content-Length: +4",
        "Content-Length: -1",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n");
        let answer = door.raw(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{lengths:?} was answered {answer:?}");
    }
    assert_eq!(fleet.workers[0].requests(), 0);
}

#[tokio::test]
async fn chunks_go_before_a_length_and_nothing_after_them_is_a_request() {
    for lengths in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 4"]
    {
        let fleet = Fleet::new(&[Behaviour::Tell]);
        let door = fleet.open().await;
        let request = format!(
            "POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n2\r\nhi\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = door.raw(request.as_bytes()).await;
        assert!(answer.contains("body: 2\n") && !answer.contains("content-length: 4\n"), "{answer}");
        assert_eq!(fleet.workers[0].requests(), 1, "{answer}");
    }
}

#[tokio::test]
async fn heads_beyond_the_limits_are_refused() {
    let fleet = Fleet::new(&[Behaviour::Tell]);
    let door = fleet.open().await;
    let long = format!("x: {}\r\n", "y".repeat(40 << 10));
    let many: String = (0..101).map(|number| format!("x{number}: y\r\n")).collect();
    for lines in [long, many] {
        let answer = door.raw(format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer:?}");
    }
}

#[tokio::test]
async fn slow_clients_are_closed_and_hold_up_nobody() {
    let fleet = Fleet::new(&[Behaviour::Tell]);
    let door = fleet.open().await;
    let beginnings: [&[u8]; 5] =
        [b"", b"G", b"GET / HTTP/1.1\r\nHost: a\r\nX", b"PRI", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"];
    let mut slow = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        stream.write_all(beginnings[number % beginnings.len()]).await.unwrap();
        slow.push(stream);
    }
    let answered = tokio::time::timeout(Duration::from_secs(5), door.get("/")).await;
    assert_eq!(answered.expect("others should be served meanwhile").0, StatusCode::OK);
    for (number, stream) in slow.iter_mut().enumerate() {
        let mut rest = Vec::new();
        let closing = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut rest)).await;
        let beginning = String::from_utf8_lossy(beginnings[number % beginnings.len()]);
        assert!(closing.is_ok(), "a client that stops after {beginning:?} should be closed");
    }
}

#[tokio::test]
async fn a_shutdown_lets_requests_end() {
    let fleet = Fleet::new(&[Behaviour::Echo]);
    let mut door = fleet.open().await;
    let mut stream = TcpStream::connect(door.address).await.unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nhi").await.unwrap();
    wait_until("the request should reach the worker", || fleet.workers[0].requests() == 1).await;
    let idle = TcpStream::connect(door.address).await.unwrap();
    door.closing.take().unwrap().send(()).unwrap();
    stream.write_all(b"ho").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("hiho"), "{answer}");
    let ended = tokio::time::timeout(Duration::from_secs(5), &mut door.served).await;
    ended.expect("the idle connection should not hold it up").unwrap();
    drop(idle);
}
