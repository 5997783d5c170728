//! How components come to nodes: from neighbours first, and without what is there already.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_e2e::{Fetched, fetched, hello};
use dunlin_guest_artifacts::{HELLO, HELLO_V2};
use dunlin_harness::{App, Fleet, eventually, with_ballast};
use nix::sys::signal::Signal;

/// Bytes of a component that cannot be made smaller.
const BALLAST: usize = 3 << 20;

/// Returns what the logs say of what each node has fetched.
fn of_nodes(fleet: &Fleet) -> Vec<(String, Vec<Fetched>)> {
    let name = |path: std::path::PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let logs = fleet.logs().into_iter().map(|(path, log)| (name(path), fetched(&log)));
    logs.filter(|(name, _)| name.starts_with("node-")).collect()
}

#[tokio::test]
async fn of_a_new_revision_only_what_has_changed_is_sent_and_that_compressed() {
    let fleet = Fleet::start(1).await.unwrap();
    let deploy = async |component: &[u8]| {
        fleet.deploy(&hello(component, 1)).await.unwrap();
        fleet.until_running("default/shop").await;
        of_nodes(&fleet).remove(0).1.pop().unwrap()
    };
    let small = deploy(HELLO).await;
    assert_eq!((small.bytes, small.here_before), (HELLO.len() as u64, 0));
    assert!(small.from_coordinator < small.bytes * 6 / 10, "{small:?}");

    let large = deploy(&with_ballast(HELLO, BALLAST, 0)).await;
    assert!(large.here_before > 100_000 && large.from_coordinator > BALLAST as u64, "{large:?}");

    // What is before the ballast has another length: the same bytes are at other places.
    let next = deploy(&with_ballast(HELLO_V2, BALLAST, 0)).await;
    assert!(next.here_before > BALLAST as u64 * 9 / 10, "{next:?}");
    assert!(next.from_coordinator < 400_000, "{next:?}");
}

/// Returns an app with a service that has an allocation on every node.
fn everywhere(component: &[u8]) -> App {
    let manifest = r#"
        [app]
        name = "shop"

        [service.hello]
        component = "guest.wasm"
        routes = [{ path = "/" }]
        everywhere = true
        limits = { memory = "32MiB", fuel = "100M", fuel_rate = "10M/s", deadline = "10s" }
    "#;
    App::new(manifest, &[("guest.wasm", component)])
}

async fn until_each_has_it(fleet: &Fleet, nodes: usize) {
    eventually("each node has the component", || async {
        let of_nodes = of_nodes(fleet);
        let count = of_nodes.iter().filter(|(_, fetched)| !fetched.is_empty()).count();
        if count == nodes { Ok(()) } else { Err(format!("{count} of {nodes} nodes")) }
    })
    .await;
}

#[tokio::test]
async fn nodes_of_a_site_bring_a_component_there_once() {
    let mut fleet = Fleet::start(0).await.unwrap();
    for _ in 0..3 {
        fleet.add_agent(&["--label", "site=harbour"]).await.unwrap();
    }
    let component = with_ballast(HELLO, BALLAST, 0);
    let size = component.len() as u64;
    fleet.deploy(&everywhere(&component)).await.unwrap();
    until_each_has_it(&fleet, 3).await;
    let all = of_nodes(&fleet);
    let brought: u64 = all.iter().map(|(_, fetched)| fetched[0].from_coordinator).sum();
    let given: u64 = all.iter().map(|(_, fetched)| fetched[0].from_neighbours).sum();
    // Who is told a moment earlier than the others may bring more than its share.
    assert!(brought < size * 2 && given > size, "{all:?}");

    // Who comes later takes it from those who have it, and who is elsewhere from the coordinator.
    fleet.add_agent(&["--label", "site=harbour"]).await.unwrap();
    fleet.add_agent(&["--label", "site=light-house"]).await.unwrap();
    fleet.add_agent(&[]).await.unwrap();
    until_each_has_it(&fleet, 6).await;
    let all = of_nodes(&fleet);
    let of = |node: &str| &all.iter().find(|(name, _)| name == node).unwrap().1[0];
    assert_eq!(of("node-4").from_coordinator, 0, "{all:?}");
    assert_eq!((of("node-5").from_neighbours, of("node-6").from_neighbours), (0, 0), "{all:?}");

    // Of those who have it one is silent, and the coordinator does not know yet.
    fleet.agent(0).signal(Signal::SIGSTOP).unwrap();
    fleet.add_agent(&["--label", "site=harbour"]).await.unwrap();
    until_each_has_it(&fleet, 7).await;
    fleet.agent(0).signal(Signal::SIGCONT).unwrap();
    fleet.until_running("default/shop").await;
}
