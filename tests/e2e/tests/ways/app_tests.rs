//! `dunlin test`: what a manifest says must come of a request or an item, and what it may burn.

use dunlin_e2e::{ended, outside};
use dunlin_guest_artifacts::{HELLO, TRAP_HTTP, WORD_COUNT};
use dunlin_harness::App;
use serde_json::Value;

const MANIFEST: &str = r#"
[app]
name = "shop"

[service.hello]
component = "hello.wasm"
limits = { deadline = "10s" }

[service.broken]
component = "trap.wasm"

[job.count]
component = "count.wasm"

[test.greets]
service = "hello"
expect = { contains = ["hello from", "revision 1"], fuel = "10M" }

[test.counts]
job = "count"
item = { file = "text.txt" }
expect = { contains = "text.txt", fuel = "100M" }

[test.too-dear]
service = "hello"
expect = { fuel = "1k" }

[test.breaks]
service = "broken"
"#;

fn shop() -> App {
    let files: [(&str, &[u8]); 4] = [
        ("hello.wasm", HELLO),
        ("trap.wasm", TRAP_HTTP),
        ("count.wasm", WORD_COUNT),
        ("text.txt", b"one two\nthree\n"),
    ];
    App::new(MANIFEST, &files)
}

#[tokio::test]
async fn what_is_as_expected_passes_and_what_is_dearer_says_by_how_much() {
    let app = shop();
    let home = tempfile::tempdir().expect("the temporary folder can be used");
    let told = ended(outside(home.path(), &["test", &app.path().display().to_string()])).await;
    told.assert_failed(1, &["2 of 4 tests failed"]);
    let line = |start: &str| told.out.lines().any(|line| line.starts_with(start));
    for start in ["ok      counts    ", "ok      greets    ", "FAILED  too-dear", "FAILED  breaks"] {
        assert!(line(start), "`{start}` is missing: {}", told.out);
    }
    assert!(
        told.out.contains("burned, at most 1k allowed: ") && told.out.contains(" % more"),
        "{}",
        told.out
    );
    assert!(told.out.contains("status: got 50"), "{}", told.out);

    let path = app.path().display().to_string();
    let told = ended(outside(home.path(), &["test", &path, "greets", "--output", "json"])).await;
    let first: Value = serde_json::from_str(told.assert_done()).expect("it is JSON");
    let again = ended(outside(home.path(), &["test", &path, "greets", "--output", "json"])).await;
    let again: Value = serde_json::from_str(again.assert_done()).expect("it is JSON");
    assert!(first[0]["passed"] == true && first[0]["fuel"].as_u64() > Some(1_000), "{first}");
    // The same component and request burn the same, so a gate is not a matter of luck.
    assert_eq!(first, again);
}

#[tokio::test]
async fn there_must_be_a_test_to_run() {
    let app = shop();
    let home = tempfile::tempdir().expect("the temporary folder can be used");
    let told = ended(outside(home.path(), &["test", &app.path().display().to_string(), "grets"])).await;
    told.assert_failed(
        1,
        &["no test of `default/shop` has `grets` in its name", "breaks, counts, greets, too-dear"],
    );
}
