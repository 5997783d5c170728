//! The API by somebody else's tester, which knows it by its OpenAPI document alone: whatever that allows is answered as it
//! says, and whatever it does not allow is refused.

use dunlin_api::paths;
use dunlin_e2e::toolchains;
use dunlin_harness::Fleet;
use tokio::process::Command;

use crate::api::{plain, token};

/// What fits the document may still be impossible, as a component that nobody has uploaded (422), or may have to wait.
const CONFIG: &str = r#"
    [checks.positive_data_acceptance]
    expected-statuses = ["2xx", 401, 403, 404, 409, 422, 429, 503]
"#;

#[tokio::test]
async fn the_api_is_as_its_document_says() {
    let program = toolchains().join("schemathesis/bin/schemathesis");
    assert!(program.is_file(), "{} is not there: `cargo x setup` installs it", program.display());
    let fleet = Fleet::start(0).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (document, config) = (folder.path().join("openapi.json"), folder.path().join("schemathesis.toml"));
    let url = fleet.client().url().to_owned();
    let described = plain(&fleet).get(format!("{url}{}", paths::OPENAPI)).send().await.unwrap();
    std::fs::write(&document, described.bytes().await.unwrap()).unwrap();
    std::fs::write(&config, CONFIG).unwrap();

    let mut tester = Command::new(program);
    tester.arg("--config-file").arg(&config).arg("run").arg(&document).args(["--url", &url]);
    tester.arg("--tls-verify").arg(fleet.state().join("ca.pem"));
    tester.args(["--header", &format!("Authorization: Bearer {}", token(&fleet))]);
    tester.args(["--phases", "examples,coverage,fuzzing", "--max-examples", "5", "--seed", "1"]);
    tester.args(["--continue-on-failure", "--warnings", "off", "--no-color"]);
    // It knows no way to send what is neither text nor JSON, and waits for the end of what has none.
    tester.args([
        "--exclude-path",
        paths::LOGS,
        "--exclude-path-regex",
        "^/v1/(components|programs|inputs)/",
    ]);
    let output = tester.current_dir(folder.path()).output().await.unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(out.contains("Tested: 4"), "most of the operations were tested: {out}");
}
