//! The manifests that stand in the project are ones that Dunlin accepts.

use dunlin_model::Manifest;
use dunlin_tidy::{assert_none, files_under};

#[test]
fn every_manifest_in_the_project_is_accepted() {
    let mut violations = Vec::new();
    let manifests = files_under("", "dunlin.toml");
    assert!(!manifests.is_empty(), "guests/ should hold the manifest of the quickstart at least");
    for file in manifests {
        if let Err(mistakes) = Manifest::parse(&file.text) {
            violations.extend(mistakes.0.iter().map(|mistake| format!("{}:{mistake}", file.path)));
        }
    }
    assert_none(&violations, "correct the manifest as the message says");
}

#[test]
fn the_manifest_of_every_template_is_accepted_once_it_has_a_name() {
    let mut violations = Vec::new();
    let manifests = files_under("guests/templates/", "/dunlin.toml.in");
    assert!(!manifests.is_empty(), "guests/templates/ should hold the templates of `dunlin new`");
    for file in manifests {
        if let Err(mistakes) = Manifest::parse(&file.text.replace("{{name}}", "shop")) {
            violations.extend(mistakes.0.iter().map(|mistake| format!("{}:{mistake}", file.path)));
        }
    }
    assert_none(&violations, "correct the manifest as the message says");
}
