//! Services over TLS, asked by clients of other people: curl, Python and reqwest.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dunlin_e2e::hello;
use dunlin_guest_artifacts::{HELLO, HELLO_V2, TELL_HTTP};
use dunlin_harness::{App, Fleet, PATIENCE, eventually, http};
use nix::sys::signal::Signal;
use rcgen::{CertificateParams, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const NAME: &str = "shop.example";

/// Makes a certificate which is its own authority, and puts it where the node's config file says.
fn certificate(folder: &Path) -> PathBuf {
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(vec![NAME.to_owned()]).unwrap().self_signed(&key).unwrap();
    let chain = folder.join("shop.pem");
    std::fs::write(&chain, made.pem()).unwrap();
    std::fs::write(folder.join("shop.key"), key.serialize_pem()).unwrap();
    chain
}

/// Starts a fleet of one node, with a service that is asked over TLS.
async fn start() -> (Fleet, PathBuf) {
    start_with("", &hello(HELLO, 1)).await
}

/// The same, with more lines of `[ingress]` and another app.
async fn start_with(more: &str, app: &App) -> (Fleet, PathBuf) {
    let mut fleet = Fleet::start(0).await.unwrap();
    let chain = certificate(fleet.folder());
    let config = fleet.folder().join("node.toml");
    let text = format!(
        "[ingress]\n{more}\n[ingress.tls]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ chain = \"{}\", key = \"{}\" }}]\n",
        chain.display(),
        fleet.folder().join("shop.key").display(),
    );
    std::fs::write(&config, text).unwrap();
    fleet.add_agent(&["--config", config.to_str().unwrap()]).await.unwrap();
    fleet.deploy(app).await.unwrap();
    fleet.until_running("default/shop").await;
    (fleet, chain)
}

/// Asks with curl; returns the version of HTTP, and the body.
async fn curl(address: SocketAddr, authority: &Path, flags: &[&str]) -> Result<(String, String), String> {
    let url = format!("https://{NAME}:{}/", address.port());
    let resolve = format!("{NAME}:{}:{}", address.port(), address.ip());
    let output = tokio::process::Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--resolve", &resolve])
        .args(flags)
        .args(["--write-out", "\n%{http_version}", "--cacert"])
        .arg(authority)
        .arg(url)
        .output()
        .await
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let (body, version) = text.rsplit_once('\n').unwrap();
    Ok((version.to_owned(), body.to_owned()))
}

#[tokio::test]
async fn other_peoples_clients_are_served_and_a_new_certificate_is_taken() {
    let (mut fleet, chain) = start().await;
    let address = fleet.agent(0).address("ingress_tls");
    for (flags, version) in
        [(&["--http1.1"][..], "1.1"), (&["--http2"], "2"), (&["--http2", "--tls-max", "1.2"], "2")]
    {
        let (spoken, body) = curl(address, &chain, flags).await.unwrap();
        assert_eq!((spoken.as_str(), body.contains("hello")), (version, true), "{flags:?}: {body}");
    }
    let script = format!(
        "import http.client, socket, ssl\n\
         context = ssl.create_default_context(cafile='{}')\n\
         raw = socket.create_connection(('{}', {}), timeout=20)\n\
         connection = http.client.HTTPSConnection('{NAME}')\n\
         connection.sock = context.wrap_socket(raw, server_hostname='{NAME}')\n\
         for _ in range(2):\n\
         \x20   connection.request('GET', '/')\n\
         \x20   response = connection.getresponse()\n\
         \x20   print(response.status, response.read().decode())\n",
        chain.display(),
        address.ip(),
        address.port(),
    );
    let output = tokio::process::Command::new("python3").args(["-c", &script]).output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text.matches("200 hello").count(), 2, "{text} {}", String::from_utf8_lossy(&output.stderr));

    // In the clear, and below a name that a route takes whole.
    let wild = r#"
        [app]
        name = "wild"
        [service.hello]
        component = "guest.wasm"
        routes = [{ host = "*.shop.example", path = "/" }]
    "#;
    fleet.deploy(&App::new(wild, &[("guest.wasm", HELLO_V2)])).await.unwrap();
    for (host, is_wild) in [("a.b.shop.example", true), ("shop.example", false)] {
        eventually("an answer of the service whose route it is", || async {
            let asking = http().get(format!("http://{}/", fleet.ingress(0))).header("host", host).send();
            let text = asking.await.unwrap().text().await.unwrap();
            if text.contains("hello") && text.contains("again") == is_wild { Ok(()) } else { Err(text) }
        })
        .await;
    }

    let former = fleet.folder().join("former.pem");
    std::fs::copy(&chain, &former).unwrap();
    certificate(fleet.folder());
    eventually("the new certificate is served", || async { curl(address, &chain, &[]).await.map(drop) })
        .await;
    let refused = curl(address, &former, &[]).await.unwrap_err();
    assert!(refused.contains("certificate"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_becomes_the_next_program_and_no_request_over_tls_fails() {
    let (mut fleet, chain) = start().await;
    let address = fleet.agent(0).address("ingress_tls");
    // Its cryptography is chosen with the first client.
    let _plain = http();
    let authority = reqwest::Certificate::from_pem(&std::fs::read(&chain).unwrap()).unwrap();
    let (answered, is_over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let builder = reqwest::Client::builder().no_proxy().resolve(NAME, address);
            let builder = builder.tls_certs_only([authority.clone()]).timeout(PATIENCE);
            let builder = if number % 2 == 0 { builder.http1_only() } else { builder };
            let client = builder.build().unwrap();
            let (answered, is_over) = (Arc::clone(&answered), Arc::clone(&is_over));
            let url = format!("https://{NAME}:{}/", address.port());
            tokio::spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let response = client.get(&url).send().await.map_err(|error| format!("{error:?}"))?;
                    let status = response.status();
                    let body = response.text().await.map_err(|error| format!("{error:?}"))?;
                    if !status.is_success() {
                        return Err(format!("{status}: {body}"));
                    }
                    answered.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    let more = async |count: u64| {
        let wanted = answered.load(Ordering::Relaxed) + count;
        while answered.load(Ordering::Relaxed) < wanted && !clients.iter().any(|it| it.is_finished()) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    more(100).await;
    for starts in 2..4 {
        fleet.agent(0).signal(Signal::SIGHUP).unwrap();
        let log = fleet.folder().join("node-1/process.log");
        eventually("the agent starts again", || async {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            if log.matches("agent ready").count() == starts { Ok(()) } else { Err(log) }
        })
        .await;
        more(100).await;
    }
    is_over.store(true, Ordering::Relaxed);
    for client in clients {
        assert_eq!(
            client.await.unwrap(),
            Ok(()),
            "beside {} that were answered",
            answered.load(Ordering::Relaxed)
        );
    }
}

#[tokio::test]
async fn another_port_is_taken_up_and_one_that_is_taken_ends_nothing() {
    let (mut fleet, chain) = start().await;
    let config = fleet.folder().join("node.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let log = fleet.folder().join("node-1/process.log");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    for (starts, port) in [(2, taken.local_addr().unwrap().port()), (3, 0)] {
        // At first nobody may listen there, and then anybody: then the former one is as good as another.
        let listen = format!("listen = \"127.0.0.1:{port}\"");
        std::fs::write(&config, text.replace("listen = \"127.0.0.1:0\"", &listen)).unwrap();
        fleet.agent(0).signal(Signal::SIGHUP).unwrap();
        eventually("the agent starts again", || async {
            let log = read(&log);
            if log.matches("agent ready").count() == starts { Ok(()) } else { Err(log) }
        })
        .await;
        let plain = http().get(format!("http://{}/", fleet.ingress(0))).send().await.unwrap();
        assert!(plain.status().is_success());
    }
    assert!(read(&log).contains("nobody is served over TLS until the agent starts again"), "{}", read(&log));
    let ready: serde_json::Value =
        serde_json::from_str(&read(&fleet.agent(0).folder().join("ready.json"))).unwrap();
    let address: SocketAddr = ready["ingress_tls"].as_str().unwrap().parse().unwrap();
    curl(address, &chain, &[]).await.unwrap();
}

#[tokio::test]
async fn an_agent_says_which_certificate_it_cannot_use() {
    let (mut fleet, chain) = start().await;
    std::fs::write(&chain, "nothing").unwrap();
    let config = fleet.folder().join("node.toml");
    let state = fleet.agent(0).folder().display().to_string();
    let config = config.to_str().unwrap();
    let arguments =
        ["agent", "--state", &state, "--node", "node-1", "--fleet", "127.0.0.1:1", "--config", config];
    let checked = fleet.dunlin(&[&arguments[..], &["--check"]].concat()).await.unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(!checked.status.success(), "{said}");
    for part in
        ["`[ingress.tls] certificates` cannot be used", "shop.pem is wrong: it has no certificate in PEM"]
    {
        assert!(said.contains(part), "{part:?} is missing in {said}");
    }
}

/// Sends these bytes to a node and returns what comes until the node closes the connection.
async fn raw(address: SocketAddr, bytes: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let reading = stream.read_to_string(&mut answer);
    // Closed before all was read, a connection may be reset.
    let _read = tokio::time::timeout(PATIENCE, reading).await.expect("the node closes the connection");
    answer
}

#[tokio::test]
async fn a_balancer_says_for_whom_it_passes_bytes_on_and_must_say_so() {
    let manifest = r#"
        [app]
        name = "shop"

        [service.web]
        component = "tell.wasm"
        routes = [{ path = "/" }]
        limits = { memory = "32MiB", fuel = "1G", fuel_rate = "100M/s", deadline = "20s" }
    "#;
    let app = App::new(manifest, &[("tell.wasm", TELL_HTTP)]);
    let (mut fleet, chain) = start_with("proxy_protocol = [\"127.0.0.0/8\"]", &app).await;
    let (plain, tls) = (fleet.ingress(0), fleet.agent(0).address("ingress_tls"));
    let request = "GET / HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n\r\n";
    let told = raw(plain, &format!("PROXY TCP4 192.0.2.7 10.0.0.1 8080 80\r\n{request}")).await;
    assert!(told.starts_with("HTTP/1.1 200") && told.contains("for=192.0.2.7;proto=http"), "{told}");
    // One that looks whether the node is there.
    let told = raw(plain, &format!("PROXY UNKNOWN\r\n{request}")).await;
    assert!(told.contains("for=127.0.0.1;proto=http"), "{told}");
    assert_eq!(raw(plain, request).await, "");
    let (_, told) = curl(tls, &chain, &["--haproxy-protocol"]).await.unwrap();
    assert!(told.contains("for=127.0.0.1;proto=https"), "{told}");
    curl(tls, &chain, &[]).await.unwrap_err();
    let log = fleet.logs().into_iter().map(|(_, log)| log).collect::<String>();
    assert_eq!(log.matches("does not begin with a header of the PROXY protocol").count(), 1, "{log}");
}
