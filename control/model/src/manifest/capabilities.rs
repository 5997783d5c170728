//! Reading `[service.NAME.capabilities]` and `[job.NAME.capabilities]`.

use super::reader::{Reader, Section};
use crate::Capabilities;

const FIELDS: [&str; 5] = ["outbound_http", "sockets", "config", "folders", "scratch"];

/// Returns what the workload is granted; nothing if there is no such section.
pub(super) fn capabilities(reader: &mut Reader<'_>, section: &Section<'_>) -> Capabilities {
    let mut capabilities = Capabilities::default();
    let Some(section) = reader.section(section, "capabilities") else { return capabilities };
    let section = &section;
    reader.refuse_unknown(section, &FIELDS);
    let mut list = |key, example| {
        let found = reader.list_of_strings(section, key, example)?;
        Some(found.value.into_iter().map(|found| found.value).collect::<Vec<_>>())
    };
    capabilities.outbound_http = list("outbound_http", "[\"https://api.example.com\"]").unwrap_or_default();
    capabilities.sockets = list("sockets", "[\"db.example.com:5432\"]").unwrap_or_default();
    if let Some((_, entries)) = reader.map_of_strings(section, "config") {
        capabilities.config = entries.into_iter().map(|(key, found)| (key, found.value)).collect();
    }
    capabilities
}
