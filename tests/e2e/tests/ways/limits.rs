//! The limits that operators set: on the coordinator for what is uploaded, on a node for what it compiles and runs.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_e2e::{hello, outside, printed, service};
use dunlin_guest_artifacts::{HELLO, HELLO_PATH};
use dunlin_harness::{Fleet, eventually};
use dunlin_model::{Bytes, CompileLimits};

/// Starts a fleet of one node whose config file has these limits.
async fn fleet_with(limits: &str) -> Fleet {
    let mut fleet = Fleet::start(0).await.unwrap();
    let file = fleet.folder().join("node.toml");
    std::fs::write(&file, format!("[limits]\n{limits}\n")).unwrap();
    fleet.add_agent(&["--config", file.to_str().unwrap()]).await.unwrap();
    fleet
}

/// Returns why the only allocation of `shop` does not start.
async fn why_not(fleet: &Fleet) -> String {
    eventually("the allocation says why it does not start", || async {
        let app =
            fleet.client().app(&"default/shop".parse().unwrap()).await.map_err(|error| error.to_string())?;
        let mut allocations = app.workloads.iter().flat_map(|workload| &workload.allocations);
        let why = allocations.find_map(|one| one.reason.clone().filter(|reason| reason.contains("limit `")));
        why.ok_or_else(|| format!("{app:?}"))
    })
    .await
}

#[tokio::test]
async fn a_node_compiles_what_its_operator_allows_and_says_the_limit() {
    for (limit, expected) in [
        ("functions = 7", "limit `functions` is 7, observed "),
        ("component_size = \"10KiB\"", "limit `component_size` is 10KiB, observed more"),
        ("compiled_size = \"20KiB\"", "limit `compiled_size` is 20KiB, observed more"),
    ] {
        let fleet = fleet_with(limit).await;
        let app = hello(HELLO, 1);
        printed(&fleet.dunlin_in(app.path(), &["deploy", "--no-wait"]).await.unwrap()).assert_done();
        let reason = why_not(&fleet).await;
        assert!(reason.contains(expected), "{limit}: {reason}");
    }
}

#[tokio::test]
async fn a_coordinator_takes_what_its_operator_allows() {
    let limits = ["--limit", "functions=7"];
    let fleet = Fleet::start_with(&limits, 0).await.unwrap();
    let app = service("shop", "hello", HELLO, 1, "/");
    let deployed = printed(&fleet.dunlin_in(app.path(), &["deploy"]).await.unwrap());
    deployed.assert_failed(1, &["limit `functions` is 7, observed "]);
    let wrong =
        printed(&fleet.dunlin(&["coordinator", "--state", "x", "--limit", "functions=0"]).await.unwrap());
    assert!(
        wrong.code == 2 && wrong.err.contains("limit `functions` is more than 0 and at most 200000"),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn a_compiler_binds_itself_to_the_memory_that_it_is_told() {
    for (memory, is_enough) in [(1_u64 << 30, true), (130 << 20, false)] {
        let limits = CompileLimits { compile_memory: Bytes(memory), ..CompileLimits::default() };
        let limits = serde_json::to_string(&limits).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut command = outside(folder.path(), &["compile-component", "--limits", &limits]);
        // As an agent starts it: the program's allocator would reserve more than the limit otherwise.
        command.env("MIMALLOC_ARENA_EAGER_COMMIT", "0").stdin(std::fs::File::open(HELLO_PATH).unwrap());
        let output = command.output().await.unwrap();
        assert_eq!(output.status.success(), is_enough, "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.stdout.is_empty(), !is_enough);
    }
}
