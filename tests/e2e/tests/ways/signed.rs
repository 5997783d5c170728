//! Signed components: what nobody vouches for is refused by the coordinator, and by a node whose operator says so, whoever
//! speaks through the coordinator.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::Path;

use dunlin_e2e::{Printed, answer, hello, printed, service};
use dunlin_guest_artifacts::{HELLO, HELLO_V2};
use dunlin_harness::{Fleet, OciRegistry, eventually};
use minisign::KeyPair;

/// Writes a pair of keys into a folder and returns the public one.
fn keys(folder: &Path) -> String {
    let KeyPair { pk, sk } = KeyPair::generate_encrypted_keypair(Some("swordfish".to_owned())).unwrap();
    std::fs::write(folder.join("release.key"), sk.to_box(None).unwrap().into_string()).unwrap();
    std::fs::write(folder.join("release.pub"), pk.to_box().unwrap().into_string()).unwrap();
    pk.to_base64()
}

/// Runs `dunlin` in the namespace `prod`, as somebody who knows the password of the key.
async fn dunlin(fleet: &Fleet, folder: &Path, arguments: &[&str]) -> Printed {
    let mut command = fleet.command(folder, arguments);
    command.env("DUNLIN_SIGN_PASSWORD", "swordfish").args(["--namespace", "prod"]);
    printed(&command.output().await.unwrap())
}

#[tokio::test]
async fn only_what_is_signed_runs_where_a_namespace_and_a_node_ask_for_it() {
    let mut fleet = Fleet::start(0).await.unwrap();
    let folder = fleet.folder().to_owned();
    let key = keys(&folder);
    let config = folder.join("node.toml");
    std::fs::write(&config, format!("[signers]\nprod = [\"{key}\"]\n")).unwrap();
    fleet.add_agent(&["--config", config.to_str().unwrap()]).await.unwrap();
    let set = dunlin(&fleet, &folder, &["namespace", "set", "prod", "--signer", "release.pub"]).await;
    assert!(set.assert_done().contains(&key), "{}", set.out);

    let app = hello(HELLO, 1);
    let refused = dunlin(&fleet, app.path(), &["deploy"]).await;
    refused.assert_failed(
        1,
        &["signed", "`prod/shop/hello` may not run there: it is not signed", "dunlin sign"],
    );
    let key = folder.join("release.key").display().to_string();
    let sign = async |version: &str| {
        let signed = dunlin(&fleet, app.path(), &["sign", "--key", &key, "--version", version]).await;
        assert!(signed.assert_done().contains("signatures/hello.toml"), "{}", signed.out);
    };
    sign("1.0.0").await;
    dunlin(&fleet, app.path(), &["deploy"]).await.assert_done();
    let root = format!("http://{}/", fleet.ingress(0));
    assert!(answer(&root).await.starts_with("hello"));

    // Another component, with what was signed of the one before.
    std::fs::write(app.path().join("guest.wasm"), HELLO_V2).unwrap();
    let refused = dunlin(&fleet, app.path(), &["deploy"]).await;
    refused.assert_failed(1, &["its statement is for component sha256:", "sign what is to be deployed"]);
    sign("1.1.0").await;
    dunlin(&fleet, app.path(), &["deploy"]).await.assert_done();
    sign("1.0.9").await;
    let refused = dunlin(&fleet, app.path(), &["deploy"]).await;
    refused.assert_failed(1, &["version 1.0.9, and version 1.1.0 was deployed before", "dunlin rollback"]);

    // Whoever speaks through the coordinator can have it take anything; the node goes by what its operator says.
    dunlin(&fleet, &folder, &["namespace", "set", "prod", "--signer", "none"]).await.assert_done();
    let unsigned = service("other", "guest", HELLO, 1, "/other");
    dunlin(&fleet, unsigned.path(), &["deploy", "--no-wait"]).await.assert_done();
    eventually("the node does not start what is not signed", async || {
        let told = dunlin(&fleet, &folder, &["explain", "prod/other/guest"]).await;
        let text = format!("{}{}", told.out, told.err);
        let is_told = text.contains("this node runs only signed components in namespace `prod`");
        if is_told { Ok(()) } else { Err(text) }
    })
    .await;
    assert!(answer(&root).await.starts_with("hello"));
    // The same component, signed now: it is the same allocation, which the node tries again.
    dunlin(&fleet, unsigned.path(), &["sign", "--key", &key, "--version", "1.0.0"]).await.assert_done();
    dunlin(&fleet, unsigned.path(), &["deploy", "--no-wait"]).await.assert_done();
    fleet.until_running("prod/other").await;
}

#[tokio::test]
async fn what_is_signed_goes_with_an_app_into_a_registry_and_out_again() {
    let Some(registry) = OciRegistry::start().await.unwrap() else { return };
    let fleet = Fleet::start(1).await.unwrap();
    let folder = fleet.folder().to_owned();
    keys(&folder);
    dunlin(&fleet, &folder, &["namespace", "set", "prod", "--signer", "release.pub"]).await.assert_done();
    let app = hello(HELLO, 1);
    let key = folder.join("release.key").display().to_string();
    dunlin(&fleet, app.path(), &["sign", "--key", &key, "--version", "1.0.0"]).await.assert_done();
    let place = format!("{}/team/shop:1.0.0", registry.address());
    for arguments in [["push", ".", &place].as_slice(), &["install", &place]] {
        let mut command = fleet.command(app.path(), arguments);
        command.env("DOCKER_CONFIG", registry.docker_config()).args(["--namespace", "prod"]);
        printed(&command.output().await.unwrap()).assert_done();
    }
    assert!(answer(&format!("http://{}/", fleet.ingress(0))).await.starts_with("hello"));
}
