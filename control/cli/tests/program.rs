//! The program as a shell sees it: exit codes, and what goes to which stream.

#![expect(clippy::unwrap_used, reason = "a test may panic; clippy sees only the test functions as one")]

use std::path::Path;
use std::process::{Command, Output};

fn dunlin(folder: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dunlin"))
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn without_a_coordinator_the_exit_code_is_three() {
    let folder = tempfile::tempdir().unwrap();
    let output = dunlin(folder.path(), &["nodes"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(output.stdout.is_empty());
    assert!(stderr(&output).starts_with("error: no coordinator is known\n  help: "), "{}", stderr(&output));
    let output = dunlin(folder.path(), &["nodes", "--output", "json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(json["exit_code"], 3);
}

#[test]
fn a_coordinator_that_does_not_answer_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "secret").unwrap();
    // Bound and not accepted from again: once dropped, nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let output = dunlin(folder.path(), &["nodes", "--coordinator", &url, "--token-file", "token"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains(&format!("could not reach the coordinator at {url}")));
}

#[test]
fn wrong_usage_is_two_and_a_missing_manifest_is_one() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(dunlin(folder.path(), &["fly"]).status.code(), Some(2));
    assert_eq!(dunlin(folder.path(), &["delete", "shop"]).status.code(), Some(2));
    std::fs::write(folder.path().join("token"), "secret").unwrap();
    let arguments = ["deploy", "--coordinator", "http://127.0.0.1:1", "--token-file", "token"];
    let output = dunlin(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains("cannot read the manifest"));
}

#[test]
fn help_begins_with_an_example_and_has_no_colours_in_a_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let output = dunlin(folder.path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("Example: dunlin new"), "{text}");
    assert!(!text.contains('\u{1b}'));
    let version = dunlin(folder.path(), &["--version"]);
    assert!(String::from_utf8(version.stdout).unwrap().starts_with("dunlin "));
}
