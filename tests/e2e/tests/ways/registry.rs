//! Components and apps in a registry that others have written: pushed, read by others, pulled, deployed, installed.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use std::path::Path;

use bytes::Bytes;
use dunlin_e2e::{answer, ended, outside, printed};
use dunlin_guest_artifacts::{CONFIG_HTTP, HELLO, HELLO_V2, WORD_COUNT};
use dunlin_harness::{App, Fleet, OciRegistry};
use dunlin_model::Digest;
use dunlin_oci::{Artifact, Login, Registry, Trust};
use serde_json::Value;
use tokio::process::Command;

/// Returns `dunlin` as somebody runs it who has logged in.
fn logged_in(registry: &OciRegistry, home: &Path, arguments: &[&str]) -> Command {
    let mut command = outside(home, arguments);
    command.env("DOCKER_CONFIG", registry.docker_config());
    command
}

/// Has `dunlin` speak to the fleet as somebody who has logged in, which must succeed.
async fn done(fleet: &Fleet, registry: &OciRegistry, folder: &Path, arguments: &[&str]) -> String {
    let mut command = fleet.command(folder, arguments);
    command.env("DOCKER_CONFIG", registry.docker_config());
    let printed = printed(&command.output().await.unwrap());
    printed.assert_done();
    format!("{}{}", printed.out, printed.err)
}

#[tokio::test]
async fn a_component_is_pushed_read_by_others_and_pulled() {
    let Some(registry) = OciRegistry::start().await.unwrap() else { return };
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    std::fs::write(home.join("hello.wasm"), HELLO).unwrap();
    let place = format!("{}/team/hello:1.0", registry.address());
    let refused = ended(outside(home, &["push", "hello.wasm", &place])).await;
    refused.assert_failed(1, &["does not let this user in", "docker login"]);

    let pushed = ended(logged_in(&registry, home, &["push", "hello.wasm", &place])).await;
    let pinned = pushed.assert_done().trim().to_owned();
    let (_, digest) = pinned.split_once('@').unwrap();
    let raw = registry.get("team/hello/manifests/1.0").await.unwrap().bytes().await.unwrap();
    assert_eq!(Digest::of(&raw).to_string(), digest);
    let manifest: Value = serde_json::from_slice(&raw).unwrap();
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.wasm.config.v0+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    let config = format!("team/hello/blobs/{}", manifest["config"]["digest"].as_str().unwrap());
    let config: Value = registry.get(&config).await.unwrap().json().await.unwrap();
    assert_eq!((&config["architecture"], &config["os"]), (&"wasm".into(), &"wasip2".into()));
    let exports = config["component"]["exports"].as_array().unwrap();
    assert!(
        exports.iter().any(|it| it.as_str().unwrap().starts_with("wasi:http/incoming-handler@")),
        "{config}"
    );

    let pulled = ended(logged_in(&registry, home, &["pull", &pinned, "again.wasm"])).await;
    assert!(pulled.assert_done().contains("is in again.wasm"));
    assert_eq!(std::fs::read(home.join("again.wasm")).unwrap(), HELLO);
    let there = ended(logged_in(&registry, home, &["pull", &place, "again.wasm"])).await;
    there.assert_failed(1, &["there is something at again.wasm already"]);
    let nothing = ended(logged_in(&registry, home, &["pull", &place.replace("1.0", "2.0")])).await;
    nothing.assert_failed(1, &["has no `oci://", "is its name right"]);
}

#[tokio::test]
async fn a_manifest_names_a_component_in_a_registry_and_a_tag_is_resolved_once() {
    let Some(registry) = OciRegistry::start().await.unwrap() else { return };
    let fleet = Fleet::start(1).await.unwrap();
    let place = format!("oci://{}/team/hello:stable", registry.address());
    let manifest = format!(
        r#"
        [app]
        name = "shop"
        [service.hello]
        component = "{place}"
        routes = [{{ path = "/" }}]
        "#
    );
    let app = App::new(&manifest, &[("v1.wasm", HELLO), ("v2.wasm", HELLO_V2)]);
    let folder = app.path();
    done(&fleet, &registry, folder, &["push", "v1.wasm", &place]).await;
    let told = done(&fleet, &registry, folder, &["deploy", ".", "--timeout", "60s"]).await;
    assert!(told.contains(&format!("`hello` is {place}@sha256:")), "{told}");
    let url = format!("http://{}/", fleet.ingress(0));
    assert!(answer(&url).await.contains("revision 1"));
    // What runs is known by its digest: that the tag has moved is seen by the next deploy, and by nothing before.
    done(&fleet, &registry, folder, &["push", "v2.wasm", &place]).await;
    assert!(answer(&url).await.contains("revision 1"));
    let told = done(&fleet, &registry, folder, &["deploy", ".", "--timeout", "60s"]).await;
    assert!(told.contains("revision 2"), "{told}");
    assert!(answer(&url).await.contains("revision 2"));
}

#[tokio::test]
async fn an_app_is_installed_from_a_registry_with_settings_of_its_own() {
    let Some(registry) = OciRegistry::start().await.unwrap() else { return };
    let fleet = Fleet::start(1).await.unwrap();
    let manifest = r#"
        [app]
        name = "greeter"
        [build]
        command = "exit 7"
        [service.web]
        component = "built/config.wasm"
        routes = [{ path = "/" }]
        capabilities = { config = { greeting = "good day" } }
    "#;
    let app = App::new(manifest, &[]);
    std::fs::create_dir(app.path().join("built")).unwrap();
    std::fs::write(app.path().join("built/config.wasm"), CONFIG_HTTP).unwrap();
    let place = format!("{}/team/greeter:1", registry.address());
    done(&fleet, &registry, app.path(), &["push", ".", &place, "--no-build"]).await;

    let elsewhere = tempfile::tempdir().unwrap();
    let elsewhere = elsewhere.path();
    let mut wrong = fleet.command(elsewhere, &["install", &place, "--set", "greting=x"]);
    wrong.env("DOCKER_CONFIG", registry.docker_config());
    let wrong = printed(&wrong.output().await.unwrap());
    wrong.assert_failed(2, &["nothing that is called `greting`", "web.greeting"]);
    done(&fleet, &registry, elsewhere, &["install", &place, "--set", "greeting=hello", "--timeout", "60s"])
        .await;
    assert!(answer(&format!("http://{}/", fleet.ingress(0))).await.contains("hello"));
    assert_eq!(std::fs::read_dir(elsewhere).unwrap().count(), 0);

    done(&fleet, &registry, elsewhere, &["pull", &place]).await;
    assert_eq!(std::fs::read(elsewhere.join("greeter/components/web.wasm")).unwrap(), CONFIG_HTTP);
    // What was fetched starts no command of whoever has made it.
    let fetched = std::fs::read_to_string(elsewhere.join("greeter/dunlin.toml")).unwrap();
    assert!(!fetched.contains("exit 7"), "{fetched}");
    done(&fleet, &registry, &elsewhere.join("greeter"), &["deploy", "--timeout", "60s"]).await;
}

#[tokio::test]
async fn files_of_this_machine_go_into_no_artifact_and_to_none() {
    let Some(registry) = OciRegistry::start().await.unwrap() else { return };
    let fleet = Fleet::start(1).await.unwrap();
    let manifest = r#"
        [app]
        name = "reader"
        [job.read]
        component = "read.wasm"
        schedule = "0 3 * * *"
        input = ["/etc/host*"]
    "#;
    let app = App::new(manifest, &[("read.wasm", WORD_COUNT)]);
    let place = format!("{}/team/reader:1", registry.address());
    let refused = logged_in(&registry, app.path(), &["push", ".", &place]);
    ended(refused).await.assert_failed(1, &["which no artifact holds"]);
    // Who means harm has other tools.
    let artifact =
        Artifact::app(manifest.into(), [("read.wasm".to_owned(), Bytes::from_static(WORD_COUNT))], []);
    let login = Login::Known(OciRegistry::credentials());
    let pushing = Registry::of(&place.parse().unwrap(), login, Trust::default()).unwrap();
    pushing.push(&artifact).await.unwrap();
    let mut install = fleet.command(app.path(), &["install", &place]);
    install.env("DOCKER_CONFIG", registry.docker_config());
    printed(&install.output().await.unwrap())
        .assert_failed(1, &["cannot be installed", "which no artifact holds"]);
}
