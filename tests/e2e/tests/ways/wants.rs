//! What is newly wanted: shown by plan and deploy, and refused where the namespace asks, until it is accepted.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::Path;

use dunlin_e2e::{Printed, answer, hello, printed};
use dunlin_guest_artifacts::{HELLO, HELLO_V2};
use dunlin_harness::Fleet;

/// Runs `dunlin` in the namespace `prod`.
async fn dunlin(fleet: &Fleet, folder: &Path, arguments: &[&str]) -> Printed {
    let mut command = fleet.command(folder, arguments);
    command.args(["--namespace", "prod"]);
    printed(&command.output().await.unwrap())
}

#[tokio::test]
async fn what_is_new_is_shown_and_deployed_by_who_accepts_it_where_a_namespace_asks() {
    let fleet = Fleet::start(1).await.unwrap();
    let app = hello(HELLO, 1);
    let folder = app.path();
    // Where nobody asks it is only said.
    let deployed = dunlin(&fleet, folder, &["deploy"]).await;
    assert!(deployed.assert_done().contains("it newly has:\n  hello.routes: */\n"), "{}", deployed.out);

    let set = dunlin(&fleet, folder, &["namespace", "set", "prod", "--new-wants", "ask"]).await;
    assert!(set.assert_done().contains("deployed with `--accept` alone"), "{}", set.out);
    // Another component that wants nothing new is nobody's business.
    std::fs::write(folder.join("guest.wasm"), HELLO_V2).unwrap();
    dunlin(&fleet, folder, &["deploy"]).await.assert_done();

    let manifest = folder.join("dunlin.toml");
    let before = std::fs::read_to_string(&manifest).unwrap();
    let more = "\n[service.hello.capabilities]\noutbound_http = [\"https://api.example.com\"]\n";
    std::fs::write(&manifest, before.clone() + more).unwrap();
    let refused = dunlin(&fleet, folder, &["deploy"]).await;
    let want = "hello.capabilities.outbound_http: https://api.example.com";
    refused.assert_failed(1, &["`prod/shop` newly wants", want, "dunlin plan", "--accept"]);
    let plan = dunlin(&fleet, folder, &["plan"]).await;
    let told = format!("which `dunlin deploy --accept` accepts:\n  {want}\n");
    assert!(plan.code == 2 && plan.out.contains(&told), "{:?}: {}", plan.code, plan.out);
    let deployed = dunlin(&fleet, folder, &["deploy", "--accept", "--output", "json"]).await;
    let json: serde_json::Value = serde_json::from_str(deployed.assert_done()).unwrap();
    assert_eq!(json["wants"][0]["to"], "https://api.example.com", "{json}");
    assert!(answer(&format!("http://{}/", fleet.ingress(0))).await.starts_with("hello"));

    // What was accepted once is no new wish, and less never is.
    dunlin(&fleet, folder, &["deploy"]).await.assert_done();
    std::fs::write(&manifest, before).unwrap();
    dunlin(&fleet, folder, &["deploy"]).await.assert_done();
    dunlin(&fleet, folder, &["rollback", "shop"]).await.assert_done();
}
