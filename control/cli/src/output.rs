//! The only place that prints.
//!
//! Results go to standard output, everything else to standard error, so that a pipe gets the result alone.
//! Progress is shown on a terminal only; colours too, and not if `NO_COLOR` is set.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::args::Format;
use crate::error::CommandError;

/// Where and how this program prints.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    format: Format,
    quiet: bool,
    colours: bool,
}

impl Output {
    /// Returns the output of this process.
    pub(crate) fn new(format: Format, quiet: bool) -> Self {
        // An empty `NO_COLOR` counts as not set (no-color.org).
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, quiet, colours: !refused && io::stderr().is_terminal() }
    }

    /// Tells whether a program reads the result.
    pub(crate) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Prints a result: the value for programs, the text for people.
    pub(crate) fn result<T: Serialize>(
        &self,
        value: &T,
        text: impl FnOnce() -> String,
    ) -> Result<(), CommandError> {
        match self.format {
            Format::Json => self.json_line(value),
            Format::Table => self.text(&text()),
        }
    }

    /// Prints one value as one line of JSON.
    pub(crate) fn json_line<T: Serialize>(&self, value: &T) -> Result<(), CommandError> {
        let json = serde_json::to_string(value)
            .map_err(|error| CommandError::failed("cannot write the result as JSON").caused_by(&error))?;
        self.text(&json)
    }

    /// Prints lines of a result.
    pub(crate) fn text(&self, text: &str) -> Result<(), CommandError> {
        let mut out = io::stdout().lock();
        let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
        let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(end.as_bytes()));
        match written.and_then(|()| out.flush()) {
            Ok(()) => Ok(()),
            // The reader has seen enough (`dunlin logs | head`); that is no failure of ours.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(error) => Err(CommandError::failed("cannot print the result").caused_by(&error)),
        }
    }

    /// Prints what a guest has written: unchanged into a pipe or if `raw`, harmless on a terminal.
    pub(crate) fn guest_text(&self, text: &str, raw: Raw) -> Result<(), CommandError> {
        match raw {
            Raw::No if io::stdout().is_terminal() => self.text(&escaped(text)),
            Raw::No | Raw::Yes => self.text(text),
        }
    }

    /// Says what is going on, unless it should be quiet.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            self.to_stderr(&format!("{}\n", escaped(text)));
        }
    }

    /// Prints a line beside the result, unless it should be quiet or there is no text: the value for programs, the
    /// text for people.
    pub(crate) fn line_to_stderr<T: Serialize>(&self, value: &T, text: impl FnOnce() -> Option<String>) {
        if self.quiet {
            return;
        }
        let line = text().and_then(|text| match self.format {
            // Nothing that is printed here can fail to be JSON.
            Format::Json => serde_json::to_string(value).ok(),
            // A line end within it would let a guest forge another line.
            Format::Table => Some(escaped(&text).replace('\n', "\\n")),
        });
        if let Some(line) = line {
            self.to_stderr(&format!("{line}\n"));
        }
    }

    /// Says what could not be done.
    pub(crate) fn error(&self, error: &CommandError) {
        match self.format {
            Format::Json => self.to_stderr(&format!("{}\n", error.json())),
            Format::Table => self.to_stderr(&error.rendered(|word| self.coloured(word))),
        }
    }

    /// Returns where the output of a build goes: to standard error, or nowhere.
    pub(crate) fn for_children(&self) -> std::process::Stdio {
        if self.quiet { std::process::Stdio::null() } else { std::process::Stdio::from(io::stderr()) }
    }

    /// Shows progress over `total` bytes until it is dropped.
    pub(crate) fn progress_of_bytes(&self, label: &str, total: u64) -> Progress {
        self.progress(label, total, "{msg} [{bar:30}] {bytes}/{total_bytes}")
    }

    /// Shows progress over `total` things until it is dropped.
    pub(crate) fn progress_of_count(&self, label: &str, total: u64) -> Progress {
        self.progress(label, total, "{msg} [{bar:30}] {pos}/{len}")
    }

    /// Shows progress that says itself how far it has come, until it is dropped.
    pub(crate) fn progress_in_words(&self) -> Progress {
        self.progress("", 0, "[{bar:30}] {msg}")
    }

    fn progress(&self, label: &str, total: u64, template: &str) -> Progress {
        let is_seen = !self.quiet && self.format == Format::Table && io::stderr().is_terminal();
        let target = if is_seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::with_draw_target(Some(total), target).with_style(style.progress_chars("=> "));
        bar.set_message(escaped(label));
        bar.enable_steady_tick(Duration::from_millis(200));
        Progress { bar }
    }

    fn coloured(&self, word: &str) -> String {
        let code = match word {
            _ if !self.colours => return word.to_owned(),
            "error: " => "1;31",
            "help: " => "32",
            _ => "33",
        };
        format!("\u{1b}[{code}m{word}\u{1b}[0m")
    }

    #[expect(clippy::unused_self, reason = "printing goes through an `Output`, never beside it")]
    fn to_stderr(&self, text: &str) {
        // There is nobody left to tell that standard error is closed.
        drop(io::stderr().lock().write_all(text.as_bytes()));
    }
}

/// Whether control characters are printed as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raw {
    Yes,
    No,
}

impl From<bool> for Raw {
    fn from(raw: bool) -> Self {
        if raw { Self::Yes } else { Self::No }
    }
}

/// A bar which disappears when it is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Says how far it has come.
    pub(crate) fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Says how far it has come, of how much, and what else there is to say.
    pub(crate) fn say(&self, position: u64, total: u64, words: &str) {
        self.set_of(position, total);
        self.bar.set_message(escaped(words));
    }

    /// Tells whether there is somebody to see it.
    pub(crate) fn is_seen(&self) -> bool {
        !self.bar.is_hidden()
    }

    /// Says how far it has come, of how much.
    pub(crate) fn set_of(&self, position: u64, total: u64) {
        self.bar.set_length(total);
        self.bar.set_position(position);
    }

    /// Takes the bar away.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Returns a table that fits the terminal; one line per row if there is none.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    let arrangement =
        if io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(arrangement);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.iter().map(|cell| escaped(cell).replace('\n', " ")));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// Returns text with its control characters made visible, except line ends and tabs: an escape sequence in a log
/// line could otherwise rewrite what stands on the screen, and a bidirectional mark could reorder it.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        let is_mark =
            matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (character.is_control() && character != '\n' && character != '\t') || is_mark {
            safe.extend(character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn control_characters_become_visible() {
        let text = escaped("a\u{1b}[2Jb\rc\u{7f}\u{9b}31m\u{202e}\td\né");
        expect![[r#"
            a\u{1b}[2Jb\u{d}c\u{7f}\u{9b}31m\u{202e}	d
            é"#]]
        .assert_eq(&text);
    }

    #[test]
    fn a_table_has_no_borders_and_no_trailing_blanks() {
        let rows = vec![
            vec!["node-1".to_owned(), "alive".to_owned()],
            vec!["n\u{1b}2".to_owned(), "never-seen".to_owned()],
        ];
        expect![[r#"
            NODE      STATE
            node-1    alive
            n\u{1b}2  never-seen"#]]
        .assert_eq(&table(&["NODE", "STATE"], rows));
    }
}
