//! Fleets that are logged into by name, and which of them is meant.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use dunlin_e2e::{ended, outside};
use dunlin_harness::Fleet;

/// Logs in to a fleet, with the token in this file.
async fn login(fleet: &Fleet, home: &Path, name: &str, token: &Path) -> dunlin_e2e::Printed {
    let coordinator = fleet.client().url().to_owned();
    let (ca, token) = (fleet.state().join("ca.pem").display().to_string(), token.display().to_string());
    let arguments = ["login", name, "--coordinator", &coordinator, "--ca-file", &ca, "--token-file", &token];
    ended(outside(home, &arguments)).await
}

#[tokio::test]
async fn fleets_are_known_by_name_and_one_is_meant() {
    let (north, south) = (Fleet::start(1).await.unwrap(), Fleet::start(0).await.unwrap());
    let home = tempfile::tempdir().unwrap();
    let home = home.path();
    let wrong = home.join("wrong");
    std::fs::write(&wrong, "no-such-token").unwrap();
    let refused = login(&north, home, "north", &wrong).await;
    refused.assert_failed(1, &["cannot log in to `north`"]);
    assert!(!home.join("config/dunlin/contexts").exists(), "nothing is kept of what does not open the door");

    login(&north, home, "north", &north.state().join("admin.token")).await.assert_done();
    login(&south, home, "south", &south.state().join("admin.token")).await.assert_done();
    let list = ended(outside(home, &["context"])).await;
    let lines: Vec<&str> = list.assert_done().lines().collect();
    assert!(lines[1].contains("north") && !lines[1].contains('*'), "{lines:?}");
    assert!(lines[2].contains("south") && lines[2].contains('*'), "{lines:?}");
    for kept in ["north.toml", "north.token", "north.pem"] {
        let mode =
            std::fs::metadata(home.join("config/dunlin/contexts").join(kept)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{kept}");
    }

    let nodes =
        async |arguments: &[&str]| ended(outside(home, arguments)).await.assert_done().contains("node-1");
    assert!(!nodes(&["nodes"]).await);
    assert!(nodes(&["--context", "north", "nodes"]).await);
    ended(outside(home, &["context", "use", "north"])).await.assert_done();
    assert!(nodes(&["nodes"]).await);
    ended(outside(home, &["context", "use", "west"])).await.assert_failed(2, &["there are: north, south"]);

    ended(outside(home, &["context", "delete", "north"])).await.assert_failed(2, &["would be gone", "--yes"]);
    ended(outside(home, &["context", "delete", "north", "--yes"])).await.assert_done();
    ended(outside(home, &["nodes"])).await.assert_failed(3, &["no coordinator is known"]);
    assert!(!nodes(&["--context", "south", "nodes"]).await);
}
