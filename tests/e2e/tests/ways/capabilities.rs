//! What guests may touch: nothing without a grant, and with one what it says and nothing beside.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use dunlin_e2e::printed;
use dunlin_guest_artifacts::{CONFIG, FETCH_HTTP, FILES_HTTP};
use dunlin_harness::{App, Fleet, eventually, http};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Starts one node whose operator has written `config`.
async fn fleet(config: &str) -> Fleet {
    let mut fleet = Fleet::start(0).await.unwrap();
    let path = fleet.folder().join("node.toml");
    std::fs::write(&path, config).unwrap();
    fleet.add_agent(&["--config", path.to_str().unwrap()]).await.unwrap();
    fleet
}

fn service(component: &[u8], more: &str, capabilities: &str) -> App {
    let manifest = format!(
        r#"
        [app]
        name = "shop"

        [service.guest]
        component = "guest.wasm"
        routes = [{{ path = "/" }}]
        limits = {{ memory = "64MiB", fuel = "10G", fuel_rate = "100M/s", fuel_burst = "20G", deadline = "30s", {more} }}

        [service.guest.capabilities]
        {capabilities}
        "#
    );
    App::new(&manifest, &[("guest.wasm", component)])
}

/// Deploys a service on `fleet` and waits until it runs.
async fn deployed(fleet: &Fleet, component: &[u8], more: &str, capabilities: &str) {
    fleet.deploy(&service(component, more, capabilities)).await.unwrap();
    fleet.until_running("default/shop").await;
}

async fn post(fleet: &Fleet, body: &str) -> String {
    eventually("an answer", || async {
        let url = format!("http://{}/", fleet.ingress(0));
        let response =
            http().post(url).body(body.to_owned()).send().await.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = response.text().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
    })
    .await
}

/// Answers each connection with what it was asked, or with a redirect to `/elsewhere` for `/redirect`.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let text = String::from_utf8_lossy(&head).into_owned();
            let head = match text.starts_with("GET /redirect ") {
                true => "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\n",
                false => "HTTP/1.1 200 OK\r\n",
            };
            let answer = format!("{head}content-length: {}\r\n\r\n{text}", text.len());
            let _gone = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

async fn log(fleet: &Fleet) -> String {
    let output = fleet.dunlin(&["logs", "shop"]).await.unwrap();
    printed(&output).assert_done().to_owned()
}

#[tokio::test]
async fn a_granted_host_is_reached_where_the_operator_opens_its_addresses() {
    let port = server().await;
    let fleet = fleet("[egress]\nallow = [\"127.0.0.0/8\"]\n").await;
    let grants = format!("outbound_http = [\"http://localhost:{port}\"]");
    deployed(&fleet, FETCH_HTTP, "connections = 8", &grants).await;
    let heard = post(&fleet, &format!("http://LOCALHOST.:{port}/path?query")).await;
    assert!(heard.starts_with("200 OK\nGET /path?query HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains(&format!("host: localhost:{port}\r\n")), "{heard}");
    // A redirect is an answer, and nothing follows it.
    let heard = post(&fleet, &format!("http://localhost:{port}/redirect")).await;
    assert!(heard.starts_with("302 Found\n"), "{heard}");
    // Another name of the same server is another host.
    for url in [format!("http://127.0.0.1:{port}/"), format!("https://localhost:{port}/")] {
        let heard = post(&fleet, &url).await;
        assert!(heard.contains("HttpRequestDenied"), "{url}: {heard}");
    }
    for url in [format!("http://user@localhost:{port}/"), format!("http://0x7f.1:{port}/")] {
        let heard = post(&fleet, &url).await;
        assert!(heard.starts_with("error") && !heard.contains("200 OK"), "{url}: {heard}");
    }
    let wanted = format!("to allow it, write `outbound_http = [\"http://127.0.0.1:{port}\"]`");
    eventually("the log says what would grant it", || async {
        let log = log(&fleet).await;
        if log.contains(&wanted) { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn inner_addresses_are_denied_whatever_the_manifest_grants() {
    let port = server().await;
    let fleet = fleet("").await;
    let ports = [80, port].map(|port| format!("\"http://*:{port}\"")).join(", ");
    deployed(&fleet, FETCH_HTTP, "connection_rate = 100", &format!("outbound_http = [{ports}]")).await;
    for host in [
        "127.0.0.1",
        "localhost",
        "localhost.",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
        "[::ffff:7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
    ] {
        let heard = post(&fleet, &format!("http://{host}:{port}/")).await;
        assert!(heard.contains("HttpRequestDenied"), "{host}: {heard}");
    }
    for host in ["169.254.169.254", "[fd00:ec2::254]", "10.0.0.1", "192.168.0.1", "100.64.0.1", "224.0.0.1"] {
        let heard = post(&fleet, &format!("http://{host}/latest/meta-data")).await;
        assert!(heard.contains("HttpRequestDenied"), "{host}: {heard}");
    }
    eventually("the log names the rule", || async {
        let log = log(&fleet).await;
        let rule = "egress_denied: 169.254.169.254 is the address of a cloud's metadata";
        if log.contains(rule) { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn a_program_that_asks_for_more_than_it_is_granted_is_told_at_deploy() {
    let fleet = fleet("").await;
    let app = service(FETCH_HTTP, "", "");
    let deployed = printed(&fleet.dunlin(&["deploy", &app.path().display().to_string()]).await.unwrap());
    deployed.assert_done();
    let note = "`guest` imports outbound HTTP, which is denied: to allow it, add \
                `outbound_http = [\"https://api.example.com\"]` under `[service.guest.capabilities]`";
    assert!(deployed.err.contains(note), "{deployed:?}");
    fleet.until_running("default/shop").await;
    let heard = post(&fleet, "https://api.example.com/").await;
    assert!(heard.contains("HttpRequestDenied"), "{heard}");
}

/// Checks the answer to each command.
async fn expect(fleet: &Fleet, table: &[(&str, &str)]) {
    let commands: Vec<_> = table.iter().map(|(command, _)| *command).collect();
    let answer = post(fleet, &commands.join("\n")).await;
    let answers: Vec<_> = answer.lines().collect();
    assert_eq!(answers.len(), table.len(), "{answer}");
    for ((command, expected), answer) in table.iter().zip(answers) {
        let is_met = expected.split('|').any(|one| one == answer.trim_end());
        assert!(is_met, "`{command}`: expected {expected}, got {answer}");
    }
}

/// The C library of guests knows no other error of a stream than EIO, whatever the host says.
const FULL: &str = "StorageFull|Uncategorized";
const DENIED: &str =
    "PermissionDenied|NotFound|InvalidInput|Uncategorized|Other|FilesystemLoop|NotADirectory";

/// Makes a folder which every user may use.
fn open_folder(path: &Path) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

#[tokio::test]
async fn without_a_grant_there_are_no_files_and_no_sockets() {
    let fleet = fleet("").await;
    deployed(&fleet, FILES_HTTP, "", "").await;
    for command in [
        "read /etc/passwd",
        "list /",
        "list .",
        "write /tmp/a x",
        "connect 127.0.0.1:80",
        "listen 127.0.0.1:0",
        "udp 127.0.0.1:0",
    ] {
        let answer = post(&fleet, command).await;
        assert!(!answer.starts_with("ok"), "`{command}`: {answer}");
    }
    // The worker is the same that it was: a guest that asks for a socket does not end it.
    assert_eq!(post(&fleet, "read /nowhere").await.lines().count(), 1);
    let status = fleet.until_running("default/shop").await;
    assert_eq!(status.workloads[0].allocations.len(), 1, "{status:?}");
}

#[tokio::test]
async fn a_folder_for_reading_is_read_and_nothing_else() {
    let outside = tempfile::tempdir().unwrap();
    let (texts, canary) = (outside.path().join("texts"), outside.path().join("canary"));
    open_folder(&texts.join("inner"));
    std::fs::write(&canary, "canary").unwrap();
    std::fs::write(texts.join("a.txt"), "hello").unwrap();
    symlink(&canary, texts.join("absolute")).unwrap();
    symlink("../canary", texts.join("relative")).unwrap();
    symlink("..", texts.join("inner/up")).unwrap();
    let fleet = fleet(&format!(
        "[folders.texts]\npath = {:?}\nnamespaces = [\"default\"]\n",
        texts.to_str().unwrap()
    ))
    .await;
    deployed(&fleet, FILES_HTTP, "", "folders = { \"/texts\" = { folder = \"texts\" } }").await;
    expect(
        &fleet,
        &[
            ("read /texts/a.txt", "ok hello"),
            ("list /texts", "ok a.txt absolute inner relative"),
            ("read /texts/inner/up/a.txt", "ok hello"),
            ("read /texts/inner/../a.txt", "ok hello"),
            ("read /texts/absolute", DENIED),
            ("read /texts/relative", DENIED),
            ("read /texts/../canary", DENIED),
            ("read /texts/inner/up/../canary", DENIED),
            ("read /texts/inner/../../canary", DENIED),
            ("read //texts/..//canary/", DENIED),
            ("read /etc/passwd", DENIED),
            ("write /texts/b.txt x", DENIED),
            ("write /texts/a.txt x", DENIED),
            ("append /texts/a.txt x", DENIED),
            ("truncate /texts/a.txt", DENIED),
            ("length /texts/a.txt 0", DENIED),
            ("remove /texts/a.txt", DENIED),
            ("make /texts/c", DENIED),
            ("rename /texts/a.txt /texts/b.txt", DENIED),
            ("link /texts/a.txt /texts/b.txt", DENIED),
            ("symlink /etc/passwd /texts/d", DENIED),
            ("read /texts/a.txt", "ok hello"),
        ],
    )
    .await;
    let long = format!("read /texts/{}", "x".repeat(5000));
    expect(&fleet, &[(&long, "InvalidFilename|NotFound|InvalidInput|Uncategorized|Other")]).await;
    assert_eq!(std::fs::read_to_string(canary).unwrap(), "canary");
    assert_eq!(std::fs::read_to_string(texts.join("a.txt")).unwrap(), "hello");
}

#[tokio::test]
async fn a_folder_for_writing_keeps_what_is_written_within_its_quota() {
    let outside = tempfile::tempdir().unwrap();
    // The worker has a user of its own, which must be let in.
    std::fs::set_permissions(outside.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let data = outside.path().join("data");
    open_folder(&data);
    std::fs::write(data.join("before"), vec![0; 1 << 20]).unwrap();
    let fleet = fleet(&format!(
        "[folders.data]\npath = {:?}\nwritable = true\nquota = \"4MiB\"\nnamespaces = [\"default\"]\n",
        data.to_str().unwrap()
    ))
    .await;
    deployed(&fleet, FILES_HTTP, "", "folders = { \"/data\" = { folder = \"data\", writable = true } }")
        .await;
    expect(
        &fleet,
        &[
            ("write /data/a.txt kept", "ok"),
            ("append /data/a.txt , too", "ok"),
            ("read /data/a.txt", "ok kept, too"),
            ("fill /data/large 2097152", "ok"),
            ("fill /data/more 2097152", FULL),
            ("remove /data/more", "ok"),
            ("rename /data/large /data/moved", "ok"),
            ("fill /data/moved 2800000", "ok"),
            ("symlink ../../etc/passwd /data/link", "ok"),
            ("read /data/link", DENIED),
            ("symlink /etc/passwd /data/absolute", DENIED),
            ("link /data/a.txt /data/b.txt", DENIED),
        ],
    )
    .await;
    assert_eq!(std::fs::read_to_string(data.join("a.txt")).unwrap(), "kept, too");
}

#[tokio::test]
async fn scratch_is_empty_at_first_bounded_and_gone_at_the_end() {
    let fleet = fleet("").await;
    deployed(&fleet, FILES_HTTP, "scratch = \"8MiB\", concurrency = 1", "scratch = \"/tmp\"").await;
    for _ in 0..2 {
        expect(
            &fleet,
            &[
                ("list /tmp", "ok"),
                ("fill /tmp/fits 8388608", "ok"),
                ("write /tmp/b x", FULL),
                ("remove /tmp/fits", "ok"),
                ("remove /tmp/b", "ok"),
                ("length /tmp/sparse 1099511627776", "StorageFull"),
                ("far /tmp/sparse 1099511627776", FULL),
                ("held /tmp 20", "ok 8 StorageFull|ok 8 Uncategorized"),
                ("held /tmp 20", "ok 8 StorageFull|ok 8 Uncategorized"),
                ("fill /tmp/sparse 8388608", "ok"),
                ("read /tmp/../etc/passwd", DENIED),
            ],
        )
        .await;
    }
    let many = post(&fleet, "many /tmp 1000000").await;
    assert!(many.starts_with("ok 10000 "), "{many}");
    // What the instance before it left behind is being removed, and counts until it is.
    eventually("room for a deep tree", || async {
        let deep = post(&fleet, "deep /tmp 3000").await;
        if deep.starts_with("ok 3000") { Ok(()) } else { Err(deep) }
    })
    .await;
    // Each instance is gone, and its folder is soon.
    let node = fleet.folder().join("node-1");
    eventually("the scratch folders are gone", || {
        let left = scratch_entries(&node);
        async move { if left == 0 { Ok(()) } else { Err(format!("{left} are left")) } }
    })
    .await;
    expect(&fleet, &[("list /tmp", "ok"), ("fill /tmp/fits 8388608", "ok")]).await;
}

/// Counts the files and folders of instances below the scratch folders of a node.
fn scratch_entries(folder: &Path) -> usize {
    let mut found = 0;
    let mut open = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let is_scratch = folder.file_name().is_some_and(|name| name == "scratch");
            // In a scratch folder are those of allocations, and in these those of instances.
            match (is_scratch, depth) {
                (true, _) => found += std::fs::read_dir(entry.path()).into_iter().flatten().count(),
                (false, depth) if depth < 6 => open.push((entry.path(), depth + 1)),
                _ => {}
            }
        }
    }
    found
}

#[tokio::test]
async fn a_folder_that_the_node_does_not_offer_keeps_the_allocation_from_starting() {
    let fleet = fleet("[folders.data]\npath = \"/\"\nnamespaces = [\"other\"]\n").await;
    let app = service(FILES_HTTP, "", "folders = { \"/data\" = { folder = \"data\" } }");
    let path = app.path().display().to_string();
    printed(&fleet.dunlin(&["deploy", "--no-wait", &path]).await.unwrap()).assert_done();
    eventually("the status says why", || async {
        let status = printed(&fleet.dunlin(&["status", "shop"]).await.unwrap());
        if status.out.contains("does not offer the folder `data`") {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn configuration_is_what_the_manifest_says() {
    let fleet = fleet("").await;
    for (config, state) in [
        ("config = { greeting = \"hello\" }", "completed"),
        ("config = { greeting = \"other\" }", "failed"),
        ("", "failed"),
    ] {
        let manifest = format!(
            "[app]\nname = \"batch\"\n[job.read]\ncomponent = \"guest.wasm\"\nitems = 1\nattempts = 1\n\
             [job.read.capabilities]\n{config}\n"
        );
        let app = App::new(&manifest, &[("guest.wasm", CONFIG)]);
        fleet.deploy(&app).await.unwrap();
        let run = fleet.dunlin_in(app.path(), &["job", "run", "read", "--output", "json"]).await.unwrap();
        let started: serde_json::Value = serde_json::from_str(printed(&run).assert_done()).unwrap();
        let run = started["run"].as_str().unwrap().parse().unwrap();
        let ended = eventually("the run ends", || async {
            let status = fleet.client().run(run).await.map_err(|error| error.to_string())?;
            if status.state.is_ended() { Ok(status) } else { Err(format!("{status:?}")) }
        })
        .await;
        assert_eq!(ended.state.name(), state, "{config}: {ended:?}");
    }
}
