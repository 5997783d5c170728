//! Bad input: each mistake is answered with what, why and what to do, has its exit code, and leaves nothing half done.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use dunlin_api::CreateJoinToken;
use dunlin_e2e::{Printed, ended, hello, job, outside, printed, service};
use dunlin_guest_artifacts::{CAT, HELLO, HELLO_V2, MISSING_IMPORT};
use dunlin_harness::{App, Fleet, eventually, http, program};
use dunlin_model::DurationMs;

/// Everything that a refused wish might have changed: the apps, the runs, the nodes, and what is on the disk.
async fn seen(fleet: &Fleet) -> String {
    let mut text = String::new();
    for words in [&["status"][..], &["job", "status"]] {
        text += printed(&fleet.dunlin(words).await.unwrap()).assert_done();
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["components", "inputs"] {
        let entries = std::fs::read_dir(fleet.state().join(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.sort();
    format!("{text}\n{files:?}")
}

async fn run(fleet: &Fleet, folder: &Path, arguments: &[&str]) -> Printed {
    printed(&fleet.dunlin_in(folder, arguments).await.unwrap())
}

/// Deploys `app`, which must be refused with these words and change nothing.
async fn assert_refused(fleet: &Fleet, app: &App, words: &[&str]) {
    let before = seen(fleet).await;
    run(fleet, app.path(), &["deploy", "--no-wait"]).await.assert_failed(1, words);
    assert_eq!(seen(fleet).await, before);
}

/// A fleet without nodes but with an app, so that there is something to be harmed.
async fn fleet_with_app() -> Fleet {
    let fleet = Fleet::start(0).await.unwrap();
    let app = hello(HELLO, 1);
    run(&fleet, app.path(), &["deploy", "--no-wait"]).await.assert_done();
    fleet
}

#[tokio::test]
async fn a_manifest_with_mistakes_names_them_all_with_their_places() {
    let fleet = fleet_with_app().await;
    let with = |lines: &str| {
        let text = format!("[app]\nname = \"other\"\n[service.hello]\ncomponent = \"a.wasm\"\n{lines}\n");
        App::new(&text, &[("a.wasm", HELLO)])
    };
    let mistakes = "has mistakes";
    assert_refused(
        &fleet,
        &with("alocations = 2"),
        &[mistakes, "5:1", "`alocations`", "did you mean `allocations`?"],
    )
    .await;
    assert_refused(&fleet, &with("limits.memory = \"64Mb\""), &[mistakes, "5:", "memory", "64Mb"]).await;
    assert_refused(&fleet, &with("limits.deadline = 30"), &[mistakes, "5:", "deadline"]).await;
    assert_refused(&fleet, &with("limits.memory = \"2GiB\""), &[mistakes, "limit `memory` is 1GiB", "2GiB"])
        .await;
    assert_refused(
        &fleet,
        &with("allocations = 10001"),
        &[mistakes, "limit `allocations` is 10000", "10001"],
    )
    .await;
    assert_refused(&fleet, &with("routes = [{ path = \"/a/../b\" }]"), &[mistakes, "/a/../b"]).await;
    assert_refused(&fleet, &with("alocations = 2\nlimits.fuel = \"1X\""), &["5:1", "6:"]).await;
    assert_refused(&fleet, &App::new("[app\nname =", &[]), &[mistakes, "1:"]).await;
}

#[tokio::test]
async fn a_folder_without_manifest_or_component_says_which_file_is_missing() {
    let fleet = fleet_with_app().await;
    let empty = tempfile::tempdir().unwrap();
    let before = seen(&fleet).await;
    let deploy = run(&fleet, empty.path(), &["deploy"]).await;
    deploy.assert_failed(1, &["cannot read the manifest", "dunlin.toml", "No such file"]);
    assert_eq!(seen(&fleet).await, before);
    let app = App::new("[app]\nname = \"other\"\n[service.hello]\ncomponent = \"gone.wasm\"\n", &[]);
    assert_refused(&fleet, &app, &["cannot read the component", "gone.wasm", "`hello`", "No such file"])
        .await;
}

/// Compiles `component` as a node would.
async fn compiled(component: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("guest.wasm");
    std::fs::write(&path, component).unwrap();
    let mut command = tokio::process::Command::new(program());
    // As the worker starts it: see there for the one variable.
    command
        .arg("compile-component")
        .env_clear()
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .stdin(std::fs::File::open(path).unwrap());
    let output = command.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[tokio::test]
async fn a_file_that_is_no_component_is_refused_with_the_reason() {
    let fleet = fleet_with_app().await;
    let elf: Vec<u8> = b"\x7fELF\x02\x01\x01".iter().copied().chain([0; 4096]).collect();
    let cases: [(&[u8], &[&str]); 6] = [
        (MISSING_IMPORT, &["imports what is not provided", "help: build it without"]),
        (&elf, &["precompiled code is not accepted"]),
        (&compiled(HELLO).await, &["precompiled code is not accepted"]),
        (b"this is a text", &["not a valid WebAssembly component"]),
        (b"", &["not a valid WebAssembly component"]),
        (&HELLO[..HELLO.len() / 2], &["not a valid WebAssembly component"]),
    ];
    for (bytes, words) in cases {
        assert_refused(&fleet, &service("other", "bad", bytes, 1, "/other"), words).await;
    }
}

#[tokio::test]
async fn a_job_is_no_service_and_a_service_without_main_no_job() {
    let fleet = fleet_with_app().await;
    let before = fleet.client().apps().await.unwrap();
    let app = service("other", "bad", CAT, 1, "/other");
    let words = ["does not export `wasi:http/incoming-handler`", "help: build an HTTP handler", "[job.bad]"];
    run(&fleet, app.path(), &["deploy"]).await.assert_failed(1, &words);
    assert_eq!(fleet.client().apps().await.unwrap(), before, "nothing was deployed");
}

#[tokio::test]
async fn an_import_that_nothing_provides_is_named() {
    let fleet = fleet_with_app().await;
    // What it imports is read from its text, so that this test does not depend on which import the fixture has.
    let text = include_str!("../../../../guests/fixtures/wat/missing-import.wat");
    let import = text.split("(import \"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    assert_refused(&fleet, &service("other", "bad", MISSING_IMPORT, 1, "/other"), &[import]).await;
}

#[tokio::test]
async fn a_component_over_the_limit_is_not_even_sent() {
    let fleet = fleet_with_app().await;
    let app = service("other", "big", &[], 1, "/other");
    std::fs::File::create(app.path().join("guest.wasm")).unwrap().set_len(300 << 20).unwrap();
    assert_refused(&fleet, &app, &["limit `component_size` is 256MiB at most", "--release"]).await;
}

#[tokio::test]
async fn a_route_of_another_app_is_not_given_away() {
    let fleet = fleet_with_app().await;
    let app = service("other", "hello", HELLO, 1, "/");
    assert_refused(
        &fleet,
        &app,
        &["cannot deploy `default/other`", "`*/`", "`default/shop/hello`", "another host or path"],
    )
    .await;
}

#[tokio::test]
async fn names_that_mean_nothing_or_too_much_are_refused() {
    let fleet = fleet_with_app().await;
    let batch = job("count", CAT, "", &[]);
    run(&fleet, batch.path(), &["deploy", "--no-wait"]).await.assert_done();
    let other =
        App::new("[app]\nname = \"other\"\n[job.count]\ncomponent = \"a.wasm\"\n", &[("a.wasm", CAT)]);
    run(&fleet, other.path(), &["deploy", "--no-wait"]).await.assert_done();
    let before = seen(&fleet).await;
    let here = fleet.folder();
    let cases: [(&[&str], i32, &[&str]); 15] = [
        (&["job", "run", "nothing", "--items", "1"], 1, &["there is no job `nothing`"]),
        (&["job", "run", "hello", "--items", "1"], 1, &["there is no job `hello`"]),
        (
            &["job", "run", "count", "--items", "1"],
            2,
            &["could be more", "default/batch/count", "default/other/count"],
        ),
        (&["job", "run", "batch/count"], 2, &["cannot tell what a run", "--items"]),
        (&["job", "run", "batch/count", "--input", "no/such/*"], 1, &["no/such/*"]),
        (&["job", "run", "Count!", "--items", "1"], 2, &["cannot tell which workload"]),
        (&["job", "result", "r99"], 1, &["there is no run r99", "`dunlin job status`"]),
        (&["job", "status", "r99"], 1, &["there is no run r99"]),
        (&["job", "cancel", "r99"], 1, &["there is no run r99"]),
        (&["logs", "nothing"], 1, &["there is no app, workload or allocation `nothing`"]),
        (&["status", "nothing"], 1, &["there is no app `default/nothing`"]),
        (&["stop", "nothing"], 1, &["there is no app `default/nothing`"]),
        (&["delete", "nothing", "--yes"], 1, &["there is no app `default/nothing`"]),
        (&["delete", "shop"], 2, &["--yes"]),
        (&["deploy", "no/such/folder"], 1, &["cannot read the manifest"]),
    ];
    for (arguments, code, words) in cases {
        let shown = run(&fleet, here, arguments).await;
        assert_eq!(shown.code, code, "{arguments:?}: {shown:?}");
        shown.assert_failed(code, words);
    }
    assert_eq!(seen(&fleet).await, before);
}

#[tokio::test]
async fn wrong_usage_has_a_code_of_its_own() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [
        &["fly"][..],
        &["deploy", "--timeout", "5"],
        &["job", "run", "sum", "--items", "3", "--input", "a"],
        &["job", "run", "sum", "--items", "2000000"],
        &["job", "result", "seven"],
        &["token", "create", "--uses", "0"],
        &["up", "--nodes", "21"],
        &["agent", "--state", "agent"],
    ] {
        let shown = ended(outside(home.path(), arguments)).await;
        assert!(shown.code == 2 && shown.err.contains("error: "), "{arguments:?}: {shown:?}");
    }
}

/// Returns an address at which nobody listens.
fn nobody() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[tokio::test]
async fn a_coordinator_that_is_not_there_is_told_apart() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    ended(outside(home, &["status"])).await.assert_failed(3, &["no coordinator is known", "dunlin up"]);

    let fleet = Fleet::start(0).await.unwrap();
    let app = hello(HELLO, 1);
    let url = format!("https://{}", nobody());
    for arguments in [&["status"][..], &["nodes"], &["deploy", &app.path().display().to_string()]] {
        let state = fleet.state();
        let mut command = outside(home, arguments);
        command.env("DUNLIN_COORDINATOR", &url);
        command
            .env("DUNLIN_TOKEN_FILE", state.join("admin.token"))
            .env("DUNLIN_CA_FILE", state.join("ca.pem"));
        ended(command)
            .await
            .assert_failed(3, &["could not reach the coordinator at", &url, "is it running?"]);
    }
}

#[tokio::test]
async fn a_stranger_is_told_what_to_show() {
    let (fleet, other) = (fleet_with_app().await, Fleet::start(0).await.unwrap());
    let home = tempfile::tempdir().unwrap();
    let ask = |token: PathBuf, authority: PathBuf| {
        let mut command = outside(home.path(), &["delete", "shop", "--yes"]);
        command.env("DUNLIN_COORDINATOR", fleet.client().url());
        command.env("DUNLIN_TOKEN_FILE", token).env("DUNLIN_CA_FILE", authority);
        ended(command)
    };
    let file = |fleet: &Fleet, name: &str| fleet.state().join(name);
    let before = seen(&fleet).await;
    let wrong_token = ask(file(&other, "admin.token"), file(&fleet, "ca.pem")).await;
    wrong_token.assert_failed(1, &["who asks is not known", "Authorization: Bearer"]);
    let wrong_authority = ask(file(&fleet, "admin.token"), file(&other, "ca.pem")).await;
    wrong_authority.assert_failed(3, &["could not reach the coordinator", "certificate", "--ca-file"]);
    let no_certificate = ask(file(&fleet, "admin.token"), file(&fleet, "admin.token")).await;
    no_certificate.assert_failed(2, &["cannot speak to the coordinator", "--ca-file"]);
    let no_file = ask(home.path().join("nothing"), file(&fleet, "ca.pem")).await;
    let no_context = ended(outside(home.path(), &["--context", "no/such/file", "status"])).await;
    no_context.assert_failed(1, &["cannot read the context", "no/such/file", "dunlin up"]);
    no_file.assert_failed(1, &["cannot read the token", "nothing", "--token-file"]);
    assert_eq!(seen(&fleet).await, before);
}

/// Runs an agent which must not become a node, and returns what it said.
async fn agent_that_fails(fleet: &str, token: &str, more: &[&str]) -> Printed {
    let home = tempfile::tempdir().unwrap();
    let given =
        ["agent", "--state", "agent", "--node", "newcomer", "--fleet", fleet, "--endpoint", "127.0.0.1:0"];
    let ingress = if more.contains(&"--ingress") { &[][..] } else { &["--ingress", "127.0.0.1:0"] };
    let mut command = outside(home.path(), &[&given[..], ingress, more].concat());
    command.env("DUNLIN_JOIN_TOKEN", token);
    let said = ended(command).await;
    assert!(!said.err.contains(token) || token.is_empty(), "the token is a secret: {said:?}");
    said
}

#[tokio::test]
async fn a_token_that_does_not_fit_makes_no_node() {
    let (mut fleet, other) = (Fleet::start(0).await.unwrap(), Fleet::start(0).await.unwrap());
    let address = fleet.fleet_address().to_string();
    let create = async |fleet: &Fleet, lifetime: Option<u64>| {
        let wish = CreateJoinToken { lifetime_ms: lifetime.map(DurationMs), ..CreateJoinToken::default() };
        fleet.client().create_join_token(&wish).await.unwrap().token
    };
    let help = "dunlin token create";
    let expired = create(&fleet, Some(1)).await;
    agent_that_fails(&address, &expired, &[])
        .await
        .assert_failed(1, &["could not join", "token_expired", help]);

    let right = create(&fleet, None).await;
    let typo = format!("{}x{}", &right[..20], &right[21..]);
    let typo = if typo == right { format!("{}y{}", &right[..20], &right[21..]) } else { typo };
    agent_that_fails(&address, &typo, &[]).await.assert_failed(1, &["typing error", help]);
    agent_that_fails(&address, "hello", &[]).await.assert_failed(1, &["not a join token", help]);

    let of_other = create(&other, None).await;
    let said = agent_that_fails(&address, &of_other, &[]).await;
    said.assert_failed(1, &["is not the one this token is for", "secret was not sent", help]);
    assert_eq!(fleet.client().nodes().await.unwrap().nodes, []);

    // The right one is still good for one node, and for no second.
    let node = fleet.add_agent_with(&right).await.unwrap();
    agent_that_fails(&address, &right, &[]).await.assert_failed(1, &["token_used", help]);
    let nodes = fleet.client().nodes().await.unwrap().nodes;
    assert_eq!(nodes.len(), 1, "{nodes:?}");
    assert!(fleet.agent(node).id().is_some());
}

#[tokio::test]
async fn an_agent_without_token_or_coordinator_says_so() {
    let fleet = Fleet::start(0).await.unwrap();
    let address = fleet.fleet_address().to_string();
    let home = tempfile::tempdir().unwrap();
    let arguments = ["agent", "--state", "agent", "--node", "newcomer", "--fleet", &address];
    let said = ended(outside(home.path(), &arguments)).await;
    said.assert_failed(1, &["has no join token", "dunlin token create", "DUNLIN_JOIN_TOKEN"]);
    let token = fleet.client().create_join_token(&CreateJoinToken::default()).await.unwrap().token;
    let said = agent_that_fails(&nobody(), &token, &[]).await;
    said.assert_failed(1, &["could not join the fleet", "did not answer", "--fleet"]);
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_and_another_one_works_with_the_same_state() {
    let home = tempfile::tempdir().unwrap();
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    let (tcp, udp_address) =
        (tcp.local_addr().map(|it| (tcp, it.to_string())).unwrap(), udp.local_addr().unwrap().to_string());
    let any = "127.0.0.1:0";
    for (fleet, api, taken) in [(any, tcp.1.as_str(), &tcp.1), (udp_address.as_str(), any, &udp_address)] {
        let arguments = ["coordinator", "--state", "coordinator", "--fleet", fleet, "--api", api];
        let said = ended(outside(home.path(), &arguments)).await;
        said.assert_failed(1, &["the coordinator cannot run", taken, "another program has this address"]);
    }
    let mut fleet = Fleet::start_with_state(home.path().join("coordinator"), 0).await.unwrap();
    let address = fleet.fleet_address().to_string();
    let token = fleet.client().create_join_token(&CreateJoinToken::default()).await.unwrap().token;
    let said = agent_that_fails(&address, &token, &["--ingress", &tcp.1]).await;
    said.assert_failed(1, &["the agent cannot run", &tcp.1, "another program has this address"]);
    fleet.coordinator().end().await.unwrap();
}

#[tokio::test]
async fn a_state_folder_belongs_to_one_process() {
    let mut fleet = Fleet::start(1).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let state = fleet.state().display().to_string();
    let any = "127.0.0.1:0";
    let second =
        ended(outside(home.path(), &["coordinator", "--state", &state, "--fleet", any, "--api", any])).await;
    second.assert_failed(1, &["the coordinator cannot run", "is in use by the process with pid"]);
    let (state, address) = (fleet.agent(0).folder().display().to_string(), fleet.fleet_address().to_string());
    let arguments = ["agent", "--state", &state, "--node", "node-1", "--fleet", &address, "--ingress", any];
    ended(outside(home.path(), &arguments)).await.assert_failed(1, &["another agent uses this state folder"]);
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
}

/// A small disk of its own, gone with this value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Returns nothing where it may not be made; then the test says so and asserts nothing.
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).unwrap();
        let mut command = std::process::Command::new("mount");
        let mount = command.args(["-t", "tmpfs", "-o", "size=80m", "tmpfs"]).arg(&path).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a process that is just being killed may still hold a file.
        let _no_way_to_tell = std::process::Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_deploys_and_stops_no_service() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path().join("disk")) else {
        eprintln!("skipped: this user may not mount a small disk");
        return;
    };
    let fleet = Fleet::start_with_state(disk.0.join("coordinator"), 1).await.unwrap();
    fleet.deploy(&hello(HELLO, 1)).await.unwrap();
    fleet.until_running("default/shop").await;
    let get = || async {
        let answer = http().get(format!("http://{}/", fleet.ingress(0))).send().await;
        let answer =
            answer.and_then(reqwest::Response::error_for_status).map_err(|error| error.to_string())?;
        answer.text().await.map_err(|error| error.to_string())
    };
    eventually("the service answers", get).await;

    let filler = disk.0.join("filler");
    std::fs::write(&filler, vec![1; 20 << 20]).unwrap();
    let full = ["nothing can be stored", "free disk space on the coordinator's machine", "services go on"];
    // Neither new bytes nor a change which needs none of them.
    assert_refused(&fleet, &hello(HELLO_V2, 1), &full).await;
    assert_refused(&fleet, &service("other", "hello", HELLO, 1, "/other"), &full).await;
    get().await.unwrap();

    std::fs::remove_file(filler).unwrap();
    fleet.deploy(&hello(HELLO_V2, 1)).await.unwrap();
    let status = fleet.until_running("default/shop").await;
    assert_eq!(status.revision.to_string(), "2");
    eventually("the new revision answers", || async {
        let answer = get().await?;
        if answer.contains("again") { Ok(()) } else { Err(answer) }
    })
    .await;
}
