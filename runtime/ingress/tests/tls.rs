//! Clients that speak TLS: which certificate they see, which protocol they get, and what guests are told of them.

#![expect(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

mod support;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dunlin_ingress::{
    CertificateError, CertificateFiles, Certificates, Doors, Ingress, IngressConfig, TlsDoor,
};
use http::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use support::{Behaviour, Door, Fleet, Worker, config, full, receive, routes, wait_until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Makes a certificate that is its own authority, and puts it and its key into `folder`.
fn certificate(folder: &Path, file: &str, names: &[&str]) -> (CertificateFiles, CertificateDer<'static>) {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let files = CertificateFiles {
        chain: folder.join(format!("{file}.pem")),
        key: folder.join(format!("{file}.key")),
    };
    std::fs::write(&files.chain, made.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    (files, made.der().clone())
}

/// An ingress with both doors. Of the door, the address is that of TLS.
async fn open(ingress: Ingress, certificates: Certificates) -> Door {
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let certificates = Arc::new(certificates);
    tokio::spawn(Arc::clone(&certificates).keep_current());
    let doors = Doors { plain, tls: Some(TlsDoor::new(listener, certificates)) };
    let (closing, closed) = tokio::sync::oneshot::channel();
    let served = tokio::spawn(async move {
        ingress.serve(doors, async { drop(closed.await) }).await.finish().await;
    });
    Door { address, closing: Some(closing), served }
}

/// Speaks TLS with `address`, as a client that believes `root` and speaks `protocol`.
async fn connect(
    address: SocketAddr,
    name: &str,
    root: &CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

#[tokio::test]
async fn both_protocols_are_spoken_and_guests_are_told_of_the_client() {
    let folder = tempfile::tempdir().unwrap();
    let (files, root) = certificate(folder.path(), "a", &["shop.example"]);
    let fleet = Fleet::new(&[Behaviour::Tell]);
    let door = open(fleet.ingresses[0].clone(), Certificates::read([files]).unwrap()).await;
    let request = |uri: &str| {
        let request = Request::get(uri).header("x-forwarded-for", "10.0.0.1");
        request.header("host", "shop.example").body(full("")).unwrap()
    };

    let stream = connect(door.address, "shop.example", &root, b"h2").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let second = receive(sender.send_request(request("https://shop.example/x")).await.unwrap()).await;

    let stream = connect(door.address, "shop.example", &root, b"http/1.1").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let first = receive(sender.send_request(request("/x")).await.unwrap()).await;

    for (status, _, told) in [first, second] {
        assert_eq!(status, StatusCode::OK);
        for line in [
            "node: n1\nGET /x\n",
            "forwarded: for=127.0.0.1;proto=https\n",
            "x-forwarded-for: 127.0.0.1\n",
            "x-forwarded-proto: https\n",
            "host: shop.example\n",
        ] {
            assert!(told.contains(line), "{line:?} is missing in {told}");
        }
    }
}

#[tokio::test]
async fn each_name_has_its_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let (first, root_of_first) = certificate(folder.path(), "a", &["shop.example"]);
    let (second, root_of_second) = certificate(folder.path(), "b", &["other.example", "*.wild.example"]);
    let fleet = Fleet::new(&[Behaviour::Tell]);
    let door = open(fleet.ingresses[0].clone(), Certificates::read([first, second]).unwrap()).await;
    for (name, root, is_good) in [
        ("shop.example", &root_of_first, true),
        ("SHOP.example", &root_of_first, true),
        ("other.example", &root_of_second, true),
        ("a.wild.example", &root_of_second, true),
        ("other.example", &root_of_first, false),
        ("a.b.wild.example", &root_of_second, false),
        // The first one, which is not for this name.
        ("nobody.example", &root_of_first, false),
    ] {
        let connected = connect(door.address, name, root, b"h2").await;
        assert_eq!(connected.is_ok(), is_good, "{name}: {connected:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_changes_is_served_and_a_wrong_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (files, _) = certificate(folder.path(), "a", &["shop.example"]);
    let certificates = Certificates::read([files.clone()]).unwrap();
    let fleet = Fleet::new(&[Behaviour::Tell]);
    let door = open(fleet.ingresses[0].clone(), certificates).await;
    let (_, new) = certificate(folder.path(), "a", &["shop.example"]);
    let is_served = async || {
        let trying = async {
            while connect(door.address, "shop.example", &new, b"h2").await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), trying).await
    };
    is_served().await.expect("the new certificate is served");
    // What is wrong now is seen at the next look, and the third certificate at one after that.
    std::fs::write(&files.key, "no key").unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    is_served().await.expect("the certificate before is still served");
}

#[test]
fn why_a_certificate_cannot_be_used_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (good, _) = certificate(folder.path(), "a", &["shop.example"]);
    let (other, _) = certificate(folder.path(), "b", &["shop.example"]);
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let error = |chain: &Path, key: &Path| {
        let files = CertificateFiles { chain: chain.to_owned(), key: key.to_owned() };
        Certificates::read([files]).unwrap_err()
    };
    assert!(matches!(error(&folder.path().join("none"), &good.key), CertificateError::Read { .. }));
    assert!(matches!(error(&good.chain, &other.key), CertificateError::Mismatch { .. }));
    let empty = error(&file("empty", ""), &good.key).to_string();
    assert!(empty.contains("it has no certificate in PEM"), "{empty}");
    let torn = error(&file("torn", "-----BEGIN CERTIFICATE-----\nMIIB\n"), &good.key).to_string();
    assert!(torn.contains("torn is wrong: "), "{torn}");
    let garbage = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
    let garbage = error(&file("garbage", garbage), &good.key).to_string();
    assert!(garbage.contains("its first certificate is none of X.509"), "{garbage}");
    let no_key = error(&good.chain, &good.chain).to_string();
    assert!(no_key.contains("a.pem is wrong: "), "{no_key}");
}

#[tokio::test]
async fn who_does_not_speak_tls_or_does_not_begin_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let (files, root) = certificate(folder.path(), "a", &["shop.example"]);
    let fleet = Fleet::new(&[Behaviour::Tell]);
    let door = open(fleet.ingresses[0].clone(), Certificates::read([files]).unwrap()).await;
    for bytes in [&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..], b"", b"\x16\x03\x01"] {
        let mut stream = TcpStream::connect(door.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        let _reset = tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it ends");
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    let silent = connect(door.address, "shop.example", &root, b"http/1.1").await.unwrap();
    let (mut reader, _writer) = tokio::io::split(silent);
    let reading = async { reader.read_to_end(&mut Vec::new()).await };
    let _end = tokio::time::timeout(Duration::from_secs(10), reading).await.expect("it ends");
    assert_eq!(fleet.workers[0].requests(), 0);
}

#[tokio::test]
async fn at_the_end_each_connection_has_one_more_response() {
    let folder = tempfile::tempdir().unwrap();
    let (files, root) = certificate(folder.path(), "a", &["shop.example"]);
    let fleet = Fleet::new(&[Behaviour::Tell]);
    let mut door = open(fleet.ingresses[0].clone(), Certificates::read([files]).unwrap()).await;
    let mut asked = Vec::new();
    for has_asked in [true, false] {
        let stream = connect(door.address, "shop.example", &root, b"http/1.1").await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = || Request::get("/").header("host", "shop.example").body(full("")).unwrap();
        if has_asked {
            receive(sender.send_request(request()).await.unwrap()).await;
        }
        asked.push((sender, request()));
    }
    drop(door.closing.take());
    for (mut sender, request) in asked {
        let (status, headers, _) = receive(sender.send_request(request).await.unwrap()).await;
        assert_eq!((status, headers["connection"].to_str().unwrap()), (StatusCode::OK, "close"));
    }
    tokio::time::timeout(Duration::from_secs(10), door.served).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_trusted_proxy_speaks_for_its_clients_also_in_the_clear() {
    let worker = Worker::new("n1", Behaviour::Tell);
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    let config = IngressConfig { trusted_proxies, ..config() };
    let wires = Arc::new(support::Wires::default());
    let ingress = Ingress::with_config("n1".parse().unwrap(), Arc::clone(&worker) as _, wires, config);
    ingress.set_routes(&routes(&[("n1", 1)]));
    let door = Door::open(ingress).await;
    let request = Request::get("/").header("host", "a").header("x-forwarded-for", "192.0.2.1");
    let request = request.header("x-forwarded-proto", "https").body(full("")).unwrap();
    let (_, _, told) = door.send(request).await;
    for line in [
        "forwarded: for=127.0.0.1;proto=http\n",
        "x-forwarded-for: 192.0.2.1, 127.0.0.1\n",
        "x-forwarded-proto: https\n",
    ] {
        assert!(told.contains(line), "{line:?} is missing in {told}");
    }
    wait_until("the request was answered by the worker", || worker.requests() == 1).await;
}

#[tokio::test]
async fn clients_in_the_clear_are_sent_to_tls_if_that_is_wanted() {
    let worker = Worker::new("n1", Behaviour::Tell);
    for (redirect_port, authority, place) in [
        (443, "shop.example:80", "https://shop.example/a?b"),
        (7443, "Shop.example", "https://shop.example:7443/a?b"),
        (7443, "[::1]:80", "https://[::1]:7443/a?b"),
    ] {
        let config = IngressConfig { redirect_port: Some(redirect_port), ..config() };
        let wires = Arc::new(support::Wires::default());
        let ingress = Ingress::with_config("n1".parse().unwrap(), Arc::clone(&worker) as _, wires, config);
        ingress.set_routes(&routes(&[("n1", 1)]));
        let door = Door::open(ingress).await;
        let request = Request::post("/a?b").header("host", authority).body(full("hello")).unwrap();
        let (status, headers, _) = door.send(request).await;
        assert_eq!((status.as_u16(), headers["location"].to_str().unwrap()), (308, place));
    }
    assert_eq!(worker.requests(), 0);
}
