//! What every file keeps to: Rust sources, Markdown pages, and all text.

use std::path::Path;

use dunlin_tidy::{
    File, UNSAFE, absolute_paths, assert_none, files, files_under, first_headings, forbidden_tests, links,
    root, stray_items, unsafe_lines,
};

#[test]
fn every_source_file_says_first_what_it_is_for() {
    let silent = files_under("", ".rs").into_iter().filter(|file| !file.text.starts_with("//!"));
    let violations: Vec<String> =
        silent.map(|file| format!("{}:1: does not start with `//!`", file.path)).collect();
    assert_none(&violations, "say what the file is for, the one idea, and what is not here");
}

#[test]
fn no_source_file_is_longer_than_800_lines() {
    let length = |file: &File| file.text.lines().count();
    let long = files_under("", ".rs").into_iter().filter(|file| length(file) > 800);
    let violations: Vec<String> =
        long.map(|file| format!("{}: has {} lines", file.path, length(&file))).collect();
    assert_none(&violations, "cut it at a noun");
}

#[test]
fn lib_files_hold_documentation_modules_and_exports_only() {
    let mut violations = Vec::new();
    for file in files_under("", "src/lib.rs") {
        let stray = stray_items(&file.text);
        violations.extend(stray.iter().map(|(line, text)| format!("{}:{line}: {text}", file.path)));
    }
    assert_none(&violations, "move it to a file named for the type or verb it holds");
}

#[test]
fn code_beyond_the_compilers_word_is_only_where_it_is_listed() {
    let mut violations = Vec::new();
    let sources = files_under("", ".rs");
    for file in &sources {
        if UNSAFE.iter().all(|(listed, _)| *listed != file.path) {
            violations.extend(
                unsafe_lines(&file.text).iter().map(|line| format!("{}:{line}: not listed", file.path)),
            );
        }
    }
    for (listed, _) in UNSAFE {
        if !sources.iter().any(|file| file.path == *listed && !unsafe_lines(&file.text).is_empty()) {
            violations.push(format!("{listed}: listed in table.rs without need"));
        }
    }
    assert_none(
        &violations,
        "do without, or list the file with its reason as UNSAFE in tests/tidy/src/table.rs",
    );
}

#[test]
fn nothing_of_the_hosts_is_inherited_by_guests() {
    let word = concat!("inherit", "_");
    let mut violations = Vec::new();
    for file in files_under("runtime", ".rs").iter().chain(&files_under("control", ".rs")) {
        let calls = file.text.lines().enumerate().filter(|(_, line)| {
            line.match_indices(word)
                .any(|(place, _)| line[..place].ends_with('.') && line[place..].contains('('))
        });
        violations.extend(calls.map(|(index, line)| format!("{}:{}: {}", file.path, index + 1, line.trim())));
    }
    assert_none(&violations, "give a guest what its manifest says, each thing by name");
}

#[test]
fn no_test_is_left_out_or_expects_a_panic() {
    let mut violations = Vec::new();
    for file in files_under("", ".rs") {
        violations.extend(forbidden_tests(&file.text).iter().map(|line| format!("{}:{line}", file.path)));
    }
    assert_none(
        &violations,
        "mend or remove the test; assert on a returned error, or on what `catch_unwind` caught",
    );
}

#[test]
fn no_file_names_a_folder_of_one_machine() {
    let mut violations = Vec::new();
    for file in files() {
        violations.extend(absolute_paths(&file.text).iter().map(|line| format!("{}:{line}", file.path)));
    }
    assert_none(&violations, "write the path relative to the project, or take it from the environment");
}

#[test]
fn every_page_has_one_title() {
    let mut violations = Vec::new();
    for file in files_under("", ".md") {
        let titles = first_headings(&file.text);
        if titles.len() != 1 {
            violations.push(format!(
                "{}: {} headings of the first level, at {titles:?}",
                file.path,
                titles.len()
            ));
        }
    }
    assert_none(&violations, "begin with one `# Title`; everything below has two or more `#`");
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut violations = Vec::new();
    for file in files_under("", ".md") {
        let path = root().join(&file.path);
        let folder = path.parent().unwrap_or(Path::new("."));
        let dead = links(&file.text).into_iter().filter(|(_, target)| !folder.join(target).exists());
        violations
            .extend(dead.map(|(line, target)| format!("{}:{line}: {target} does not exist", file.path)));
    }
    assert_none(&violations, "correct the link, or write the page");
}

#[test]
fn every_page_of_the_book_is_in_its_summary() {
    let pages = files_under("book/src/", ".md");
    let summary = pages.iter().find(|file| file.path == "book/src/SUMMARY.md");
    let listed: Vec<String> = summary
        .map(|file| {
            links(&file.text)
                .into_iter()
                .map(|(_, target)| target.trim_start_matches("./").to_owned())
                .collect()
        })
        .unwrap_or_default();
    let is_listed = |path: &str| listed.iter().any(|target| path.strip_prefix("book/src/") == Some(target));
    let missing = pages.iter().filter(|file| !file.path.ends_with("/SUMMARY.md") && !is_listed(&file.path));
    let violations: Vec<String> = missing.map(|file| format!("{}: not in the summary", file.path)).collect();
    assert_none(&violations, "add it to book/src/SUMMARY.md");
}

#[test]
fn the_sdk_has_the_interfaces_that_the_host_gives() {
    let mut violations = Vec::new();
    for (original, copy) in
        [("wasi-config/store.wit", "config/store.wit"), ("wasi-logging/logging.wit", "logging/logging.wit")]
    {
        let text = |path: String| files().into_iter().find(|file| file.path == path).map(|file| file.text);
        if text(format!("wit/{original}")) != text(format!("guests/sdk/wit/{copy}")) {
            violations.push(format!("guests/sdk/wit/{copy}: is not what wit/{original} is"));
        }
    }
    assert_none(&violations, "copy it; the SDK is itself copied into other projects, so it cannot read wit/");
}
