//! Guests of every language that the book names, built from source and brought to an answer on a real fleet.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]

use dunlin_e2e::{Language, job, printed, service};
use dunlin_guest_artifacts::{CORE_MODULE, QUICKSTART_FOLDER};
use dunlin_harness::{App, Fleet, http};
use dunlin_model::Digest;

/// Says that a core module was made into a component.
const WRAPPED: &str = "wrapped the core module ./word-count.wasm as a component";

async fn answer(fleet: &Fleet, path: &str) -> String {
    dunlin_e2e::answer(&format!("http://{}{path}", fleet.ingress(0))).await
}

/// Runs the job over three files and returns what its items gave.
async fn counted(fleet: &Fleet, job: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("a.txt", "one"), ("b.txt", "one two\n"), ("c.txt", " one\ttwo\n\nthree ")] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let arguments = ["job", "run", job, "--input", "*.txt", "--wait", "--timeout", "60s"];
    let run = printed(&fleet.dunlin_in(folder.path(), &arguments).await.unwrap());
    let seen = run.assert_done().to_owned() + &run.err;
    let result = printed(&fleet.dunlin(&["job", "result", "r1"]).await.unwrap());
    format!("{seen}\n{}", result.assert_done())
}

fn assert_counted(result: &str) {
    for line in ["1 a.txt", "2 b.txt", "3 c.txt"] {
        assert!(result.contains(line), "`{line}` is missing: {result}");
    }
}

async fn a_job_counts(language: Language, job: &str) {
    let fleet = Fleet::start(1).await.unwrap();
    let deployed = language.deploy(&fleet).await;
    assert_eq!(deployed.err.matches(WRAPPED).count(), 1, "{}", deployed.err);
    assert_counted(&counted(&fleet, job).await);
}

#[tokio::test]
async fn a_program_in_c_is_a_job() {
    a_job_counts(Language::C, "words-in-c/word-count").await;
}

#[tokio::test]
async fn a_program_in_zig_is_a_job() {
    a_job_counts(Language::Zig, "words-in-zig/word-count").await;
}

#[tokio::test]
async fn a_program_in_go_is_a_job() {
    a_job_counts(Language::Go, "words-in-go/word-count").await;
}

#[tokio::test]
async fn a_handler_in_javascript_is_a_service() {
    let fleet = Fleet::start(1).await.unwrap();
    Language::JavaScript.deploy(&fleet).await;
    assert_eq!(answer(&fleet, "/javascript").await, "hello from JavaScript on /javascript\n");
    let posted =
        http().post(format!("http://{}/javascript", fleet.ingress(0))).body("knock knock").send().await;
    let heard = posted.unwrap().text().await.unwrap();
    assert_eq!(heard, "/javascript in JavaScript heard 11 characters\n");
}

#[tokio::test]
async fn a_handler_in_python_is_a_service() {
    let fleet = Fleet::start(1).await.unwrap();
    Language::Python.deploy(&fleet).await;
    assert_eq!(answer(&fleet, "/python/x?y=1").await, "hello from Python on /python/x?y=1\n");
}

#[tokio::test]
async fn rust_with_and_without_a_library_is_a_service_and_a_job() {
    let fleet = Fleet::start(1).await.unwrap();
    // The artifacts of the guests are built from these very sources before any test runs.
    let deployed = fleet.dunlin(&["deploy", "--no-build", QUICKSTART_FOLDER]).await.unwrap();
    let deployed = printed(&deployed);
    deployed.assert_done();
    assert!(!deployed.err.contains("wrapped"), "{}", deployed.err);
    assert!(answer(&fleet, "/").await.starts_with("hello from "));
}

#[tokio::test]
async fn a_core_module_is_wrapped_by_the_program_and_refused_by_the_coordinator() {
    let fleet = Fleet::start(1).await.unwrap();
    let said = fleet.client().upload_component(&Digest::of(CORE_MODULE), CORE_MODULE.into(), |_| {}).await;
    let said = said.unwrap_err().to_string();
    assert!(said.contains("this is a core module, not a component"), "{said}");

    let app = job("empty", CORE_MODULE, "items = 1", &[]);
    let deployed = printed(&fleet.dunlin(&["deploy", &app.path().display().to_string()]).await.unwrap());
    deployed.assert_done();
    assert!(deployed.err.contains("wrapped the core module"), "{}", deployed.err);
}

#[tokio::test]
async fn a_core_module_that_wants_more_than_preview_1_is_refused_with_what_it_wants() {
    let fleet = Fleet::start(1).await.unwrap();
    // (module (import "env" "abort" (func)) (export "_start" (func 0)))
    let module =
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x0d\x01\x03env\x05abort\0\0\x07\x0a\x01\x06_start\0\0";
    let app: App = service("foreign", "foreign", module, 1, "/");
    let deployed = printed(&fleet.dunlin(&["deploy", &app.path().display().to_string()]).await.unwrap());
    deployed.assert_failed(1, &["env.abort", "Emscripten", "cannot make a component of the core module"]);
}

#[test]
fn the_page_for_authors_has_the_commands_that_are_run_here() {
    let page = include_str!("../../../../book/src/guides/languages.md");
    for language in Language::ALL {
        let command = language.build_command();
        assert!(page.contains(&format!("$ {command}\n")), "`{command}` is not on the page");
    }
    let pins = include_str!("../../../../guests/examples/languages/requirements.txt");
    for pin in pins.lines().filter(|line| !line.starts_with('#')) {
        assert!(page.contains(&format!("pip install {pin}")), "`{pin}` is not on the page");
    }
}
