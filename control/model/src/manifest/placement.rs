//! Reading `[service.NAME.placement]` and `[job.NAME.placement]`.
//!
//! The rules are those of the spec; while the fields are read, the place of each is kept for what the rules will say.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::reader::{Entry, Found, Reader, Section};
use crate::check::{label_text, shown};
use crate::placement::{Home, preference_weight};
use crate::{Affinity, LabelExpression, Placement, Preference, Spread, WorkloadName};

const FIELDS: [&str; 6] = ["require", "prefer", "spread", "near", "apart", "resources"];
const PREFERENCE_FIELDS: [&str; 2] = ["expression", "weight"];
const SPREAD_FIELDS: [&str; 2] = ["over", "weights"];
const AFFINITY_FIELDS: [&str; 3] = ["workload", "over", "required"];
const EXPRESSION_EXAMPLE: &str = "\"disk = ssd\"";
const KEY_EXPECTED: &str = "a string like \"zone\", the key of a label, or \"node\"";

/// Returns what the workload asks of the places where it runs; nothing if there is no such section.
pub(super) fn placement(reader: &mut Reader<'_>, section: &Section<'_>, home: &Home<'_>) -> Placement {
    let Some(section) = reader.section(section, "placement") else { return Placement::default() };
    reader.refuse_unknown(&section, &FIELDS);
    let mut reading = Reading { reader, section: &section, places: BTreeMap::new() };
    let placement = Placement {
        require: reading.require(),
        prefer: reading.prefer(),
        spread: reading.spread(),
        near: reading.affinities("near", home),
        apart: reading.affinities("apart", home),
        resources: reading.resources(),
    };
    let Reading { reader, section, places } = reading;
    placement.check(home, &mut |field, result| match places.get(&field) {
        Some((path, at)) => reader.expect(*at, path, result),
        // Only a list as a whole has no place of its own.
        None => reader.expect(section.place(&field), section.path(&field), result),
    });
    placement
}

/// The section while its fields are read.
struct Reading<'r, 't, 's> {
    reader: &'r mut Reader<'t>,
    section: &'r Section<'s>,
    /// By the path of a field in the spec: its path in the manifest, and where it stands. What could not be read is
    /// not in the spec, so the two may count differently.
    places: BTreeMap<String, (String, usize)>,
}

impl Reading<'_, '_, '_> {
    fn require(&mut self) -> Vec<LabelExpression> {
        let example = "[\"arch = arm64\", \"zone in (a, b)\"]";
        let Some(list) = self.reader.list_of_strings(self.section, "require", example) else {
            return Vec::new();
        };
        let mut require = Vec::new();
        for (index, Found { value, at }) in list.value.into_iter().enumerate() {
            match value.parse() {
                Ok(expression) => require.push(expression),
                Err(error) => {
                    let path = format!("{}[{index}]", self.section.path("require"));
                    self.reader.note(at, path, crate::LabelExpressionError::to_string(&error));
                }
            }
        }
        require
    }

    fn prefer(&mut self) -> Vec<Preference> {
        let example = "{ expression = \"disk = ssd\", weight = 50 }";
        let mut prefer = Vec::new();
        for table in self.reader.list_of_sections(self.section, "prefer", example) {
            self.reader.refuse_unknown(&table, &PREFERENCE_FIELDS);
            for (key, example) in [("expression", EXPRESSION_EXAMPLE), ("weight", "50")] {
                if !table.has(key) {
                    self.reader.missing(&table, key, example);
                }
            }
            let expected = "a string like \"disk = ssd\"";
            let expression = self.reader.parsed(&table, "expression", expected);
            let Some(Found { value: weight, at }) = self.reader.integer(&table, "weight") else { continue };
            let path = table.path("weight");
            match (expression, i8::try_from(weight)) {
                (Some(Found { value: expression, at: _ }), Ok(weight)) => {
                    self.places.insert(format!("prefer[{}].weight", prefer.len()), (path, at));
                    prefer.push(Preference { expression, weight });
                }
                // What is not kept is not seen by the rules.
                (None, _) | (Some(_), Err(_)) => self.reader.expect(at, path, preference_weight(weight)),
            }
        }
        prefer
    }

    fn spread(&mut self) -> Vec<Spread> {
        let mut spread = Vec::new();
        let example = "[\"zone\", { over = \"rack\", weights = { a = 2 } }]";
        for entry in self.reader.list_of_either(self.section, "spread", example) {
            let field = format!("spread[{}]", spread.len());
            let table = match entry {
                Entry::Text { text: over, path, at } => {
                    self.places.insert(format!("{field}.over"), (path, at));
                    spread.push(Spread { over, weights: BTreeMap::new() });
                    continue;
                }
                Entry::Table(table) => table,
            };
            self.reader.refuse_unknown(&table, &SPREAD_FIELDS);
            if !table.has("over") {
                self.reader.missing(&table, "over", "\"zone\"");
            }
            let over = self.reader.string(&table, "over", KEY_EXPECTED);
            let weights = self.counts(&table, "weights", &format!("{field}.weights"));
            if let Some(Found { value: over, at }) = over {
                self.places.insert(format!("{field}.over"), (table.path("over"), at));
                spread.push(Spread { over, weights });
            }
        }
        spread
    }

    fn affinities(&mut self, list: &str, home: &Home<'_>) -> Vec<Affinity> {
        let mut affinities = Vec::new();
        let example = "[\"cache\", { workload = \"cache\", over = \"zone\", required = false }]";
        for entry in self.reader.list_of_either(self.section, list, example) {
            let field = format!("{list}[{}]", affinities.len());
            let table = match entry {
                Entry::Text { text, path, at } => {
                    if let Some(workload) = self.workload(&text, &path, at, home) {
                        self.places.insert(format!("{field}.workload"), (path.clone(), at));
                        self.places.insert(field, (path, at));
                        let over = Placement::EACH_NODE.to_owned();
                        affinities.push(Affinity { workload, over, required: true });
                    }
                    continue;
                }
                Entry::Table(table) => table,
            };
            self.reader.refuse_unknown(&table, &AFFINITY_FIELDS);
            if !table.has("workload") {
                self.reader.missing(&table, "workload", "\"cache\"");
            }
            let over = self.reader.string(&table, "over", KEY_EXPECTED);
            let required = self.reader.truth(&table, "required").unwrap_or(true);
            let workload = self.reader.string(&table, "workload", "a string like \"cache\"");
            let path = table.path("workload");
            let workload =
                workload.and_then(|Found { value, at }| Some((self.workload(&value, &path, at, home)?, at)));
            let Some((workload, at)) = workload else {
                if let Some(Found { value, at }) = over {
                    self.reader.expect(at, table.path("over"), label_text(&value));
                }
                continue;
            };
            self.places.insert(format!("{field}.workload"), (path, at));
            let over_at = over.as_ref().map_or(table.at(), |found| found.at);
            self.places.insert(format!("{field}.over"), (table.path("over"), over_at));
            self.places.insert(field, (table.own_path().to_owned(), table.at()));
            let over = over.map_or_else(|| Placement::EACH_NODE.to_owned(), |found| found.value);
            affinities.push(Affinity { workload, over, required });
        }
        affinities
    }

    fn workload(&mut self, text: &str, path: &str, at: usize, home: &Home<'_>) -> Option<WorkloadName> {
        match home.app.resolve(text) {
            Ok(workload) => Some(workload),
            Err(error) => {
                self.reader.note(at, path, error.to_string());
                None
            }
        }
    }

    fn resources(&mut self) -> BTreeMap<String, u32> {
        let section = self.section;
        self.counts(section, "resources", "resources")
    }

    /// Reads a table of counts, whose path in the spec is `field`.
    fn counts(&mut self, section: &Section<'_>, key: &str, field: &str) -> BTreeMap<String, u32> {
        let Some((inner, entries)) = self.reader.map_of_counts(section, key) else { return BTreeMap::new() };
        self.places.insert(field.to_owned(), (section.path(key), section.place(key)));
        let mut counts = BTreeMap::new();
        for (name, Found { value, at: _ }) in entries {
            let place = (inner.path(&name), inner.place(&name));
            self.places.insert(format!("{field}.{}", shown(&name)), place);
            counts.insert(name, value);
        }
        counts
    }
}
