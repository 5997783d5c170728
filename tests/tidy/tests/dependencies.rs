//! Who may use whom: the dependency table, held against what cargo sees.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context;
use dunlin_tidy::{
    BRAINS, FOR_TESTS, Kind, OWN, RESERVED, WORDS_OF_CLIPPY, assert_none, code_map, members, root, tree,
};

const MAP: &str = "book/src/internals/architecture.md";

#[test]
fn crates_use_only_those_which_the_table_allows() -> anyhow::Result<()> {
    let members = members()?;
    let folders: BTreeMap<&str, &str> =
        members.iter().map(|member| (member.package.as_str(), member.folder.as_str())).collect();
    let mut violations = Vec::new();
    for member in members.iter().filter(|member| !member.folder.starts_with("tests/")) {
        let Some(room) = OWN.iter().find(|room| room.folder == member.folder) else {
            violations.push(format!("{}: not in the table", member.folder));
            continue;
        };
        for dependency in &member.dependencies {
            let Some(used) = folders.get(dependency.package.as_str()) else { continue };
            let granted = FOR_TESTS.iter().any(|(room, other, _)| *room == member.folder && other == used);
            let for_tests = dependency.kind == Kind::Tests && (granted || used.starts_with("tests/"));
            if !for_tests && !room.may_use.contains(used) {
                violations.push(format!("{}/Cargo.toml: uses {used}", member.folder));
            }
        }
    }
    assert_none(
        &violations,
        "take the dependency out, or decide otherwise in tests/tidy/src/table.rs and the book",
    );
    Ok(())
}

#[test]
fn the_table_names_only_rooms_that_exist() -> anyhow::Result<()> {
    let members = members()?;
    let rooms = OWN.iter().map(|room| room.folder).chain(OWN.iter().flat_map(|room| room.may_use).copied());
    let rooms = rooms
        .chain(RESERVED.iter().flat_map(|reserved| reserved.rooms).copied())
        .chain(BRAINS.iter().copied());
    let unknown = rooms.filter(|room| members.iter().all(|member| member.folder != *room));
    let violations: Vec<String> = unknown.map(|room| format!("table.rs: there is no {room}")).collect();
    assert_none(&violations, "correct tests/tidy/src/table.rs");
    Ok(())
}

#[test]
fn outside_crates_stay_in_the_rooms_they_are_reserved_to() -> anyhow::Result<()> {
    let mut violations = Vec::new();
    for member in members()? {
        for dependency in member.dependencies.iter().filter(|dependency| dependency.kind != Kind::Tests) {
            for reserved in RESERVED {
                let is_it = match reserved.package.strip_suffix('*') {
                    Some(start) => dependency.package.starts_with(start),
                    None => dependency.package == reserved.package,
                };
                if is_it && !reserved.rooms.contains(&member.folder.as_str()) {
                    let reason = reserved.reason;
                    violations
                        .push(format!("{}/Cargo.toml: uses {}: {reason}", member.folder, dependency.package));
                }
            }
        }
    }
    assert_none(
        &violations,
        "ask one of its rooms for what is needed, or decide otherwise in tests/tidy/src/table.rs",
    );
    Ok(())
}

#[test]
fn brains_have_no_runtime_in_their_tree() -> anyhow::Result<()> {
    let runtimes = ["tokio", "async-std", "smol", "mio", "socket2", "quinn", "hyper", "wasmtime"];
    let mut violations = Vec::new();
    for member in members()?.iter().filter(|member| BRAINS.contains(&member.folder.as_str())) {
        let tree = tree(&member.package)?;
        let found = runtimes.iter().filter(|runtime| tree.iter().any(|package| package == *runtime));
        violations
            .extend(found.map(|runtime| format!("{}/Cargo.toml: {runtime} is in its tree", member.folder)));
    }
    assert_none(
        &violations,
        "`cargo tree --edges normal --invert` shows who brings it; a brain decides, a shell acts",
    );
    Ok(())
}

#[test]
fn brains_ban_clocks_environment_threads_and_files() -> anyhow::Result<()> {
    let common: toml::Table = fs::read_to_string(root().join("clippy.toml"))?.parse()?;
    let mut violations = Vec::new();
    for brain in BRAINS {
        let path = format!("{brain}/clippy.toml");
        let Ok(text) = fs::read_to_string(root().join(&path)) else {
            violations.push(format!("{path}: is missing"));
            continue;
        };
        let own: toml::Table = text.parse().with_context(|| path.clone())?;
        // Clippy reads the nearest file only, so a crate's own file must repeat the common one.
        let lost = common.iter().filter(|(key, value)| own.get(*key) != Some(value));
        violations.extend(
            lost.map(|(key, value)| format!("{path}: lacks `{key} = {value}` of the common clippy.toml")),
        );
        let banned =
            own.get("disallowed-methods").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        let path_of =
            |entry: &toml::Value| entry.as_str().or_else(|| entry.get("path")?.as_str()).map(str::to_owned);
        let banned: Vec<String> = banned.iter().filter_map(path_of).collect();
        if !text.contains("std::collections::HashMap") {
            violations.push(format!("{path}: `disallowed-types` lacks std::collections::HashMap"));
        }
        let missing = WORDS_OF_CLIPPY.iter().filter(|word| !banned.iter().any(|path| path == *word));
        violations.extend(missing.map(|word| format!("{path}: `disallowed-methods` lacks {word}")));
    }
    assert_none(&violations, "add it; a brain gets time, names and bytes as arguments");
    Ok(())
}

#[test]
fn the_code_map_shows_every_crate_and_no_other() -> anyhow::Result<()> {
    let text =
        fs::read_to_string(root().join(MAP)).with_context(|| format!("{MAP} should hold the code map"))?;
    let map = code_map(&text);
    let members = members()?;
    let mut violations = Vec::new();
    for member in &members {
        if !map.contains(&member.folder) {
            violations.push(format!("{MAP}: no row for `{}`", member.folder));
        }
    }
    for folder in map.iter().filter(|folder| members.iter().all(|member| member.folder != **folder)) {
        violations.push(format!("{MAP}: a row for `{folder}`, which is no crate"));
    }
    assert_none(&violations, "the first column of the code map is the folder of each member, in backticks");
    Ok(())
}

#[test]
fn every_crate_inherits_the_lints() -> anyhow::Result<()> {
    let mut manifests: Vec<String> =
        members()?.iter().map(|member| format!("{}/Cargo.toml", member.folder)).collect();
    let guests = table("guests/Cargo.toml")?;
    let guests = guests["workspace"]["members"].as_array().context("guests/Cargo.toml lists its members")?;
    manifests
        .extend(guests.iter().filter_map(|guest| Some(format!("guests/{}/Cargo.toml", guest.as_str()?))));
    let mut violations = Vec::new();
    for manifest in manifests.iter().filter(|manifest| !COPIED.contains(&manifest.as_str())) {
        let inherits = table(manifest)?
            .get("lints")
            .and_then(|lints| lints.get("workspace"))
            .and_then(toml::Value::as_bool);
        if inherits != Some(true) {
            violations.push(format!("{manifest}: does not inherit the lints"));
        }
    }
    assert_none(&violations, "add `[lints]` with `workspace = true`");
    Ok(())
}

/// The crates that `dunlin new` copies into other projects, where there is no workspace to inherit from.
const COPIED: [&str; 2] = ["guests/sdk/Cargo.toml", "guests/sdk/macros/Cargo.toml"];

#[test]
fn crates_that_are_copied_write_out_the_lints_of_the_guests() -> anyhow::Result<()> {
    let guests = table("guests/Cargo.toml")?;
    let mut violations = Vec::new();
    for manifest in COPIED {
        let copied = table(manifest)?;
        for (tool, lints) in guests["workspace"]["lints"].as_table().context("the guests have lints")? {
            let lints = lints.as_table().context("the lints of a tool are a table")?;
            let missing = lints.iter().filter(|(lint, level)| {
                let own = copied.get("lints").and_then(|own| own.get(tool)).and_then(|own| own.get(lint));
                own != Some(level)
            });
            violations.extend(
                missing.map(|(lint, level)| format!("{manifest}: lints.{tool}.{lint} is not {level}")),
            );
        }
    }
    assert_none(&violations, "write it as it stands in guests/Cargo.toml");
    Ok(())
}

fn table(manifest: &str) -> anyhow::Result<toml::Table> {
    Ok(fs::read_to_string(root().join(manifest))?.parse()?)
}

#[test]
fn only_who_looks_for_planted_bugs_can_plant_them() -> anyhow::Result<()> {
    let feature = "planted-bugs";
    let mut violations = Vec::new();
    for member in members()? {
        let manifest = format!("{}/Cargo.toml", member.folder);
        let table: toml::Table = fs::read_to_string(root().join(&manifest))?.parse()?;
        let allowed: &[&str] = match member.folder.as_str() {
            "control/scheduler" | "tests/simulation" => &["features", "test"],
            // For the program that `cargo x teeth` builds.
            "control/cli" => &["features"],
            _ => &[],
        };
        let named = table.iter().filter(|(_, value)| value.to_string().contains(feature));
        let stray = named.filter(|(section, _)| !allowed.contains(&section.as_str()));
        violations.extend(stray.map(|(section, _)| format!("{manifest}: [{section}] names {feature}")));
        let planted = table.get("dependencies").and_then(|all| all.get("dunlin-planted"));
        let planted = planted.filter(|planted| planted.get("features").is_some());
        violations.extend(planted.map(|_| format!("{manifest}: switches on what dunlin-planted has")));
        let default = table.get("features").and_then(|features| features.get("default"));
        let default = default.filter(|default| default.to_string().contains(feature));
        violations.extend(default.map(|_| format!("{manifest}: has {feature} by default")));
    }
    assert_none(&violations, "what is built for users must not have planted mistakes in it");
    Ok(())
}
