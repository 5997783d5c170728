//! Reading `[service.NAME.capabilities]` and `[job.NAME.capabilities]`.

use std::collections::{BTreeMap, BTreeSet};

use super::reader::{Found, Reader, Section};
use crate::capability::{
    MAX_CONFIG, MAX_FOLDERS, MAX_PATTERNS, config_value, guest_path, http_pattern, not_a_folder,
    not_in_config, socket_pattern,
};
use crate::check::{Broken, at_most};
use crate::secret::{MAX_GRANTED, secret_name};
use crate::{Capabilities, FolderGrant, SecretName};

const FIELDS: [&str; 6] = ["outbound_http", "sockets", "config", "secrets", "folders", "scratch"];
const FOLDER_FIELDS: [&str; 2] = ["folder", "writable"];
const FOLDER_EXAMPLE: &str = "\"data\"";

/// Returns what the workload is granted; nothing if there is no such section.
pub(super) fn capabilities(reader: &mut Reader<'_>, section: &Section<'_>) -> Capabilities {
    let Some(section) = reader.section(section, "capabilities") else { return Capabilities::default() };
    let section = &section;
    reader.refuse_unknown(section, &FIELDS);
    let outbound_http =
        patterns(reader, section, "outbound_http", "[\"https://api.example.com\"]", http_pattern);
    let sockets = patterns(reader, section, "sockets", "[\"db.example.com:5432\"]", socket_pattern);
    let config = config(reader, section);
    let secrets = secrets(reader, section, &config);
    let folders = folders(reader, section);
    let scratch = reader.string(section, "scratch", "a string like \"/tmp\"").map(|Found { value, at }| {
        reader.expect(at, section.path("scratch"), guest_path(&value));
        reader.expect(at, section.path("scratch"), not_a_folder(&value, &folders));
        value
    });
    Capabilities { outbound_http, sockets, config, secrets, folders, scratch }
}

fn patterns(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    key: &str,
    example: &str,
    rule: fn(&str) -> Result<(), Broken>,
) -> Vec<String> {
    let Some(Found { value: list, at }) = reader.list_of_strings(section, key, example) else {
        return Vec::new();
    };
    reader.expect(at, section.path(key), at_most(key, MAX_PATTERNS, list.len()));
    for (index, found) in list.iter().enumerate() {
        reader.expect(found.at, format!("{}[{index}]", section.path(key)), rule(&found.value));
    }
    list.into_iter().map(|found| found.value).collect()
}

fn config(reader: &mut Reader<'_>, section: &Section<'_>) -> BTreeMap<String, String> {
    let Some((inner, entries)) = reader.map_of_strings(section, "config") else { return BTreeMap::new() };
    reader.expect(
        section.place("config"),
        section.path("config"),
        at_most("config", MAX_CONFIG, entries.len()),
    );
    for (key, found) in &entries {
        reader.expect(inner.place(key), inner.path(key), config_value(key, &found.value));
    }
    entries.into_iter().map(|(key, found)| (key, found.value)).collect()
}

fn secrets(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    config: &BTreeMap<String, String>,
) -> BTreeSet<SecretName> {
    let Some(Found { value: list, at }) = reader.list_of_strings(section, "secrets", "[\"DATABASE_URL\"]")
    else {
        return BTreeSet::new();
    };
    reader.expect(at, section.path("secrets"), at_most("secrets", MAX_GRANTED, list.len()));
    let mut names = BTreeSet::new();
    for (index, Found { value, at }) in list.into_iter().enumerate() {
        let path = format!("{}[{index}]", section.path("secrets"));
        reader.expect(at, path.clone(), secret_name(&value));
        reader.expect(at, path, not_in_config(&value, config));
        names.extend(value.parse::<SecretName>());
    }
    names
}

fn folders(reader: &mut Reader<'_>, section: &Section<'_>) -> BTreeMap<String, FolderGrant> {
    let mut folders = BTreeMap::new();
    let Some(inner) = reader.section(section, "folders") else { return folders };
    for (path, grant) in reader.sections(&inner) {
        reader.expect(inner.place(path), inner.path(path), guest_path(path));
        reader.refuse_unknown(&grant, &FOLDER_FIELDS);
        if !grant.has("folder") {
            reader.missing(&grant, "folder", FOLDER_EXAMPLE);
        }
        let folder = reader.parsed(&grant, "folder", "a string like \"data\"");
        let writable = reader.truth(&grant, "writable").unwrap_or(false);
        if let Some(Found { value: folder, at: _ }) = folder {
            folders.insert(path.to_owned(), FolderGrant { folder, writable });
        }
    }
    reader.expect(
        section.place("folders"),
        section.path("folders"),
        at_most("folders", MAX_FOLDERS, folders.len()),
    );
    folders
}
