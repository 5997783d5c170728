//! Traps: what is known of an instance that ended badly is shown, also when worker, agent and app are gone.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_api::TrapList;
use dunlin_e2e::{job, printed, service};
use dunlin_guest_artifacts::{TRACED_HTTP, TRAP};
use dunlin_harness::{Fleet, eventually, http};
use dunlin_model::{CoreDump, InstanceId, TrapOnNode};
use wasmparser::{KnownCustom, Parser, Payload};

/// Asks the service until it fails, and returns the instance that the answer names.
async fn fail(fleet: &Fleet) -> InstanceId {
    eventually("the answer names the instance that failed", || async {
        let asked = http().get(format!("http://{}/", fleet.ingress(0))).send().await;
        let response = asked.map_err(|error| error.to_string())?;
        let status = response.status();
        let problem: serde_json::Value = response.json().await.map_err(|error| error.to_string())?;
        match problem["instance"].as_str() {
            Some(instance) if status == 502 => instance.parse().map_err(|error| format!("{error}")),
            _ => Err(format!("{status}: {problem}")),
        }
    })
    .await
}

/// Runs `dunlin` with `arguments` until its output has `wanted`, and returns all of it.
async fn until_shown(fleet: &Fleet, arguments: &[&str], wanted: &str) -> String {
    eventually(&format!("{arguments:?} shows {wanted:?}"), || async {
        let shown = printed(&fleet.dunlin(arguments).await.unwrap());
        if shown.out.contains(wanted) { Ok(shown.out) } else { Err(format!("{shown:?}")) }
    })
    .await
}

#[tokio::test]
async fn from_the_failed_answer_an_author_gets_to_the_line_and_it_outlives_worker_and_agent() {
    let mut fleet = Fleet::start(1).await.unwrap();
    fleet.deploy(&service("shop", "pay", TRACED_HTTP, 1, "/")).await.unwrap();
    fleet.until_running("default/shop").await;
    let instance = fail(&fleet).await.to_string();

    let listed = until_shown(&fleet, &["logs", "shop", "--traps"], &instance).await;
    let line = listed.lines().find(|line| line.contains(&format!(" {instance} "))).unwrap();
    for wanted in
        ["default/shop/pay", "Trapped", "traced_http::fail_after at fixtures/src/bin/traced-http.rs:"]
    {
        assert!(line.contains(wanted), "{listed}");
    }
    let explained = until_shown(&fleet, &["explain", &instance], "fail_after").await;
    for wanted in [
        "wasm `unreachable` instruction executed",
        "fixtures/src/bin/traced-http.rs:",
        "wasi:clocks/monotonic-clock.now: ok",
        "about to fail",
        "none of the files is there",
    ] {
        assert!(explained.contains(wanted), "{explained}");
    }
    let json = printed(&fleet.dunlin(&["explain", &instance, "--output", "json"]).await.unwrap());
    let record: TrapOnNode = serde_json::from_str(&json.out).unwrap();
    assert_eq!(record.trap.instance.to_string(), instance);
    assert_eq!(record.node.to_string(), "node-1");
    let json = printed(&fleet.dunlin(&["logs", "--traps", "--output", "json"]).await.unwrap());
    let list: TrapList = serde_json::from_str(&json.out).unwrap();
    assert!(list.traps.contains(&record), "{list:?}");

    printed(&fleet.dunlin(&["delete", "shop", "--yes"]).await.unwrap()).assert_done();
    eventually("the worker is gone", || async {
        let nodes = fleet.client().nodes().await.map_err(|error| error.to_string())?;
        if nodes.nodes.iter().all(|node| node.allocations == 0) { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    assert_eq!(until_shown(&fleet, &["explain", &instance], "fail_after").await, explained);
    fleet.agent(0).kill().await.unwrap();
    fleet.agent(0).start(&[]).await.unwrap();
    assert_eq!(until_shown(&fleet, &["explain", &instance], "fail_after").await, explained);
}

#[tokio::test]
async fn an_item_that_fails_is_explained_and_one_that_is_not_known_is_not() {
    let fleet = Fleet::start(1).await.unwrap();
    let app = job("panic", TRAP, "items = 2\n attempts = 1", &[]);
    fleet.deploy(&app).await.unwrap();
    let run = printed(&fleet.dunlin_in(app.path(), &["job", "run", "panic", "--wait"]).await.unwrap());
    assert_eq!(run.code, 1, "{run:?}");
    let list = eventually("both items are listed", || async {
        let json = printed(&fleet.dunlin(&["logs", "batch", "--traps", "--output", "json"]).await.unwrap());
        let list: TrapList = serde_json::from_str(&json.out).map_err(|error| format!("{json:?}: {error}"))?;
        if list.traps.len() == 2 { Ok(list) } else { Err(json.out) }
    })
    .await;
    let instance = list.traps[0].trap.instance.to_string();
    let explained = until_shown(&fleet, &["explain", &instance], "this fixture always panics").await;
    assert!(explained.contains("wasi:cli/stderr.get-stderr: ok"), "{explained}");
    let unknown = printed(&fleet.dunlin(&["explain", "a99.1"]).await.unwrap());
    unknown.assert_failed(1, &["cannot explain instance a99.1", "no node has a record of it", "--traps"]);
    let wrong = printed(&fleet.dunlin(&["explain", "a1.x"]).await.unwrap());
    assert!(wrong.code == 2 && wrong.err.contains("nor an instance like `a12.3`"), "{wrong:?}");
}

/// Returns what of a core dump a debugger would read: the module's custom sections, in their order, and whether they
/// are what they are called; and the bytes of its memories.
fn sections(dump: &[u8]) -> (Vec<String>, Vec<u8>) {
    let (mut names, mut memory) = (Vec::new(), Vec::new());
    for payload in Parser::new(0).parse_all(dump) {
        match payload.unwrap() {
            Payload::CustomSection(section) => {
                match section.as_known() {
                    KnownCustom::CoreDump(core) => assert!(core.name.starts_with("default/shop/pay a")),
                    KnownCustom::CoreDumpStack(stack) => assert!(stack.frames.len() > 3),
                    KnownCustom::CoreDumpModules(modules) => assert!(!modules.modules.is_empty()),
                    KnownCustom::CoreDumpInstances(instances) => assert!(!instances.instances.is_empty()),
                    _ => panic!("`{}` is not what it is called", section.name()),
                }
                names.push(section.name().to_owned());
            }
            Payload::DataSection(segments) => {
                segments.into_iter().for_each(|segment| memory.extend_from_slice(segment.unwrap().data));
            }
            _ => {}
        }
    }
    (names, memory)
}

#[tokio::test]
async fn the_core_dump_of_what_trapped_is_fetched_from_its_node_and_is_a_module_with_its_memory() {
    let fleet = Fleet::start(1).await.unwrap();
    let app = service("shop", "pay", TRACED_HTTP, 1, "/");
    let manifest = app.path().join("dunlin.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text + "\ncoredump = true\n").unwrap();
    fleet.deploy(&app).await.unwrap();
    fleet.until_running("default/shop").await;
    let instance = fail(&fleet).await.to_string();
    until_shown(&fleet, &["explain", &instance], "A core dump of ").await;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pay.core.wasm");
    let file_name = file.to_str().unwrap();
    let arguments = ["explain", &instance, "--coredump", file_name, "--output", "json"];
    let fetched = printed(&fleet.dunlin(&arguments).await.unwrap());
    assert_eq!(fetched.code, 0, "{fetched:?}");
    let record: TrapOnNode = serde_json::from_str(&fetched.out).unwrap();
    let dump = std::fs::read(&file).unwrap();
    assert_eq!(record.trap.coredump, Some(CoreDump::Made { size: dunlin_model::Bytes(dump.len() as u64) }));
    let (names, memory) = sections(&dump);
    assert_eq!(names, ["core", "coremodules", "coreinstances", "corestack"]);
    let held = b"about to fail";
    assert!(memory.windows(held.len()).any(|bytes| bytes == held), "what the guest held is in its memory");

    let unknown = printed(&fleet.dunlin(&["explain", "a99.1", "--coredump", file_name]).await.unwrap());
    unknown.assert_failed(1, &["no node has a record of it"]);
    fleet.client().coredump(&record.node, "a99.1".parse().unwrap()).await.unwrap_err();
}
