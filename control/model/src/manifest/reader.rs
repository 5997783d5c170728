//! Reading a TOML document field by field, with the place of every mistake.
//!
//! A [`Section`] is a table with its dotted path; [`Reader`] takes values out of it. What is wrong is noted, and
//! the reading goes on, so that all mistakes come to light at once.

use std::fmt::Display;
use std::str::FromStr;

use toml_edit::{Item, Key, TableLike};

use super::{ManifestError, ManifestErrors};
use crate::Amount;
use crate::check::{Broken, nearest, shown};

/// The most mistakes that are shown; a text that is no manifest at all should not fill the screen.
const MAX_SHOWN: usize = 50;

/// A table and where it stands.
pub(super) struct Section<'a> {
    table: &'a dyn TableLike,
    path: String,
    at: usize,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: &'a dyn TableLike) -> Self {
        Self { table, path: String::new(), at: 0 }
    }

    /// Returns the dotted path of one of its fields.
    pub(super) fn path(&self, key: &str) -> String {
        let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_bare = !key.is_empty() && key.len() <= 80 && key.bytes().all(is_bare);
        let key = if is_bare { key.to_owned() } else { format!("\"{}\"", shown(key)) };
        if self.path.is_empty() { key } else { format!("{}.{key}", self.path) }
    }

    /// Returns its own dotted path.
    pub(super) fn own_path(&self) -> &str {
        &self.path
    }

    pub(super) fn at(&self) -> usize {
        self.at
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Tells whether a field is there and is a table.
    pub(super) fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(Item::is_table_like)
    }

    /// Returns where a field stands, or the section itself if it has no such field.
    pub(super) fn place(&self, key: &str) -> usize {
        self.table.get_key_value(key).map_or(self.at, |(key, _)| start(key.span()).unwrap_or(self.at))
    }

    fn fields(&self) -> impl Iterator<Item = (&'a Key, &'a Item)> + use<'a> {
        let table = self.table;
        table.iter().filter_map(|(name, _)| table.get_key_value(name))
    }
}

/// A value and where it stands.
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// An entry of a list, with its path and where it stands.
pub(super) enum Entry<'a> {
    /// Text alone.
    Text { text: String, path: String, at: usize },
    /// A table.
    Table(Section<'a>),
}

/// The fields of a table of strings, each with its key.
pub(super) type Strings = Vec<(String, Found<String>)>;

/// The fields of a table of counts, each with its key.
pub(super) type Counts = Vec<(String, Found<u32>)>;

/// Takes values out of sections and notes what is wrong with them.
pub(super) struct Reader<'a> {
    text: &'a str,
    mistakes: Vec<(usize, String, String)>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, mistakes: Vec::new() }
    }

    /// Notes a mistake at a byte of the text.
    pub(super) fn note(&mut self, at: usize, field: impl Into<String>, message: impl Into<String>) {
        self.mistakes.push((at, field.into(), message.into()));
    }

    /// Notes a rule that is broken.
    pub(super) fn expect(&mut self, at: usize, field: impl Into<String>, result: Result<(), Broken>) {
        if let Err(broken) = result {
            self.note(at, field, broken.message);
        }
    }

    /// Returns all mistakes in the order of their places; nothing if there are none.
    pub(super) fn finish(mut self) -> Result<(), ManifestErrors> {
        if self.mistakes.is_empty() {
            return Ok(());
        }
        self.mistakes.sort();
        let hidden = self.mistakes.len().saturating_sub(MAX_SHOWN);
        self.mistakes.truncate(MAX_SHOWN);
        let mut errors: Vec<ManifestError> = std::mem::take(&mut self.mistakes)
            .into_iter()
            .map(|(at, field, message)| {
                let (line, column) = self.line_and_column(at);
                ManifestError { line, column, field, message }
            })
            .collect();
        if let (Some(last), 1..) = (errors.last(), hidden) {
            let (line, column) = (last.line, last.column);
            let message = format!("{hidden} more mistakes follow");
            errors.push(ManifestError { line, column, field: String::new(), message });
        }
        Err(ManifestErrors(errors))
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let mut end = at.min(self.text.len());
        while !self.text.is_char_boundary(end) {
            end -= 1;
        }
        let before = &self.text[..end];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// Notes every field of the section that is not one of `known`.
    pub(super) fn refuse_unknown(&mut self, section: &Section<'_>, known: &[&str]) {
        for (key, _) in section.fields() {
            let name = key.get();
            if known.contains(&name) {
                continue;
            }
            let at = start(key.span()).unwrap_or(section.at);
            self.note(
                at,
                section.path(name),
                format!("unknown field `{}`; {}", shown(name), nearest(name, known)),
            );
        }
    }

    /// Notes that a field is missing.
    pub(super) fn missing(&mut self, section: &Section<'_>, key: &str, example: &str) {
        self.note(section.at, section.path(key), format!("this field is missing; write `{key} = {example}`"));
    }

    pub(super) fn string(
        &mut self,
        section: &Section<'_>,
        key: &str,
        expected: &str,
    ) -> Option<Found<String>> {
        let (at, item) = self.field(section, key)?;
        let Some(text) = item.as_str() else {
            self.wrong_type(at, section.path(key), expected, item);
            return None;
        };
        Some(Found { value: text.to_owned(), at })
    }

    /// Returns a text read as `T`, whose own words say what is wrong with it.
    pub(super) fn parsed<T>(&mut self, section: &Section<'_>, key: &str, expected: &str) -> Option<Found<T>>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Found { value, at } = self.string(section, key, expected)?;
        match value.parse() {
            Ok(value) => Some(Found { value, at }),
            Err(error) => {
                self.note(at, section.path(key), T::Err::to_string(&error));
                None
            }
        }
    }

    /// Returns a whole number, which may be negative.
    pub(super) fn integer(&mut self, section: &Section<'_>, key: &str) -> Option<Found<i64>> {
        let (at, item) = self.field(section, key)?;
        let Some(value) = item.as_integer() else {
            self.wrong_type(at, section.path(key), "a whole number", item);
            return None;
        };
        Some(Found { value, at })
    }

    pub(super) fn count(&mut self, section: &Section<'_>, key: &str) -> Option<Found<u32>> {
        let Found { value: number, at } = self.integer(section, key)?;
        let Ok(value) = u32::try_from(number) else {
            let message = format!("expected a whole number from 0 to {}, got {number}", u32::MAX);
            self.note(at, section.path(key), message);
            return None;
        };
        Some(Found { value, at })
    }

    /// Returns a number of allocations or a share of them: `2` or `"25%"`.
    pub(super) fn amount(&mut self, section: &Section<'_>, key: &str) -> Option<Found<Amount>> {
        let (_, item) = self.field(section, key)?;
        if item.is_str() {
            let found = self.parsed(section, key, "a number or a share like \"25%\"")?;
            return Some(Found { value: Amount::Share(found.value), at: found.at });
        }
        let found = self.count(section, key)?;
        Some(Found { value: Amount::Count(found.value), at: found.at })
    }

    pub(super) fn truth(&mut self, section: &Section<'_>, key: &str) -> Option<bool> {
        let (at, item) = self.field(section, key)?;
        if item.as_bool().is_none() {
            self.wrong_type(at, section.path(key), "`true` or `false`", item);
        }
        item.as_bool()
    }

    pub(super) fn section<'s>(&mut self, section: &Section<'s>, key: &str) -> Option<Section<'s>> {
        let (key, item) = section.table.get_key_value(key)?;
        self.open(section.path(key.get()), start(key.span()).unwrap_or(section.at), item)
    }

    /// Returns each field of a section as a section of its own, with its key: `[service.NAME]`.
    pub(super) fn sections<'s>(&mut self, section: &Section<'s>) -> Vec<(&'s str, Section<'s>)> {
        let mut opened = Vec::new();
        for (key, item) in section.fields() {
            let at = start(key.span()).unwrap_or(section.at);
            if let Some(inner) = self.open(section.path(key.get()), at, item) {
                opened.push((key.get(), inner));
            }
        }
        opened
    }

    /// Returns each table of an array, written either way: `[{ ... }]` or `[[...]]`.
    pub(super) fn list_of_sections<'s>(
        &mut self,
        section: &Section<'s>,
        key: &str,
        example: &str,
    ) -> Vec<Section<'s>> {
        let element = format!("a table like {example}");
        let entries = self.entries(section, key, &format!("a list of tables like {example}"), &element);
        let mut opened = Vec::new();
        for entry in entries {
            match entry {
                Entry::Table(section) => opened.push(section),
                Entry::Text { path, at, .. } => {
                    self.note(at, path, format!("expected {element}, got string"));
                }
            }
        }
        opened
    }

    /// Returns each entry of a list that may be text or a table: `["zone", { over = "zone" }]`.
    pub(super) fn list_of_either<'s>(
        &mut self,
        section: &Section<'s>,
        key: &str,
        example: &str,
    ) -> Vec<Entry<'s>> {
        let (list, element) =
            (format!("a list like {example}"), format!("a string or a table like those of {example}"));
        self.entries(section, key, &list, &element)
    }

    fn entries<'s>(&mut self, section: &Section<'s>, key: &str, list: &str, element: &str) -> Vec<Entry<'s>> {
        let Some((at, item)) = self.field(section, key) else { return Vec::new() };
        let path = |index: usize| format!("{}[{index}]", section.path(key));
        if let Some(tables) = item.as_array_of_tables() {
            let open = |(index, table): (usize, &'s toml_edit::Table)| {
                let at = start(table.span()).unwrap_or(at);
                Entry::Table(Section { table, path: path(index), at })
            };
            return tables.iter().enumerate().map(open).collect();
        }
        let Some(array) = item.as_array() else {
            self.wrong_type(at, section.path(key), list, item);
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (index, value) in array.iter().enumerate() {
            let (path, at) = (path(index), start(value.span()).unwrap_or(at));
            match (value.as_inline_table(), value.as_str()) {
                (Some(table), _) => entries.push(Entry::Table(Section { table, path, at })),
                (None, Some(text)) => entries.push(Entry::Text { text: text.to_owned(), path, at }),
                (None, None) => {
                    self.note(at, path, format!("expected {element}, got {}", value.type_name()));
                }
            }
        }
        entries
    }

    pub(super) fn list_of_strings(
        &mut self,
        section: &Section<'_>,
        key: &str,
        example: &str,
    ) -> Option<Found<Vec<Found<String>>>> {
        let (at, item) = self.field(section, key)?;
        let Some(array) = item.as_array() else {
            self.wrong_type(at, section.path(key), &format!("a list of strings like {example}"), item);
            return None;
        };
        let mut strings = Vec::new();
        for (index, value) in array.iter().enumerate() {
            let at = start(value.span()).unwrap_or(at);
            match value.as_str() {
                Some(text) => strings.push(Found { value: text.to_owned(), at }),
                None => {
                    let path = format!("{}[{index}]", section.path(key));
                    self.note(at, path, format!("expected a string, got {}", value.type_name()));
                }
            }
        }
        Some(Found { value: strings, at })
    }

    /// Returns the strings of a field that is one string or a list of them; none if it is absent.
    pub(super) fn one_or_more_strings(
        &mut self,
        section: &Section<'_>,
        key: &str,
        example: &str,
    ) -> Vec<String> {
        let is_one = section.table.get(key).is_some_and(Item::is_str);
        if is_one {
            return self.string(section, key, example).map(|found| found.value).into_iter().collect();
        }
        let list = self.list_of_strings(section, key, example);
        list.into_iter().flat_map(|list| list.value).map(|found| found.value).collect()
    }

    /// Returns a table of strings as a section, and its fields with their keys.
    pub(super) fn map_of_strings<'s>(
        &mut self,
        section: &Section<'s>,
        key: &str,
    ) -> Option<(Section<'s>, Strings)> {
        let inner = self.section(section, key)?;
        let mut entries = Vec::new();
        for (key, _) in inner.fields() {
            if let Some(value) = self.string(&inner, key.get(), "a string") {
                entries.push((key.get().to_owned(), value));
            }
        }
        Some((inner, entries))
    }

    /// Returns a table of counts as a section, and its fields with their keys.
    pub(super) fn map_of_counts<'s>(
        &mut self,
        section: &Section<'s>,
        key: &str,
    ) -> Option<(Section<'s>, Counts)> {
        let inner = self.section(section, key)?;
        let mut entries = Vec::new();
        for (key, _) in inner.fields() {
            if let Some(value) = self.count(&inner, key.get()) {
                entries.push((key.get().to_owned(), value));
            }
        }
        Some((inner, entries))
    }

    fn open<'s>(&mut self, path: String, key_at: usize, item: &'s Item) -> Option<Section<'s>> {
        let Some(table) = item.as_table_like() else {
            self.wrong_type(start(item.span()).unwrap_or(key_at), path, "a table", item);
            return None;
        };
        // The header of a table says more than its last key, which is where a dotted key begins.
        let header = if item.is_table() { start(item.span()) } else { None };
        Some(Section { table, path, at: header.unwrap_or(key_at) })
    }

    fn field<'s>(&mut self, section: &Section<'s>, key: &str) -> Option<(usize, &'s Item)> {
        let (key, item) = section.table.get_key_value(key)?;
        let at = start(item.span()).or_else(|| start(key.span())).unwrap_or(section.at);
        Some((at, item))
    }

    fn wrong_type(&mut self, at: usize, field: String, expected: &str, item: &Item) {
        self.note(at, field, format!("expected {expected}, got {}", item.type_name()));
    }
}

fn start(span: Option<std::ops::Range<usize>>) -> Option<usize> {
    span.map(|span| span.start)
}
