//! Checks of Markdown text. What stands in a fenced block is an example, and is not looked at.

use std::collections::BTreeSet;

/// Returns the lines with a heading of the first level.
pub fn first_headings(text: &str) -> Vec<usize> {
    prose(text).filter(|(_, line)| line.starts_with("# ")).map(|(number, _)| number).collect()
}

/// Returns the relative targets of all links and includes, without their anchors, each with its line.
pub fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        let line = without_code(line);
        for (place, start) in line.match_indices("](") {
            let rest = &line[place + start.len()..];
            let target = rest.split([')', ' ', '#']).next().unwrap_or_default();
            if !target.is_empty() && !target.contains(':') {
                found.push((number, target.to_owned()));
            }
        }
    }
    for (index, line) in text.lines().enumerate() {
        // Includes work inside of fenced blocks too.
        let include = ["{{#include ", "{{#rustdoc_include "].iter().find_map(|start| line.split_once(start));
        if let Some((_, rest)) = include {
            let target = rest.split([':', '}']).next().unwrap_or_default().trim();
            found.push((index + 1, target.to_owned()));
        }
    }
    found
}

/// Returns the folders in the first column of the tables of the code map.
pub fn code_map(text: &str) -> BTreeSet<String> {
    let first_cell = |line: &str| {
        let cell = line.trim().strip_prefix('|')?.split('|').next()?.trim().strip_prefix('`')?;
        cell.split('`').next().map(|folder| folder.trim_end_matches('/').to_owned())
    };
    let is_room =
        |folder: &String| ["control/", "runtime/", "tests/"].iter().any(|top| folder.starts_with(top));
    prose(text).filter_map(|(_, line)| first_cell(line)).filter(is_room).collect()
}

fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```") || line.trim_start().starts_with("~~~");
        fenced ^= is_fence;
        (!fenced && !is_fence).then_some((index + 1, line))
    })
}

/// Blanks what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect::<Vec<_>>().join("``")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# A\n[b](b.md#x) and [c](https://c.example/) `[d](d.md)`\n```text\n# no\n[e](e.md)\n{{#include ../e.rs:part}}\n```\n| `control/model` | x |\n| `not/one` | y |\n# B\n";

    #[test]
    fn headings_and_links_in_examples_do_not_count() {
        assert_eq!(first_headings(PAGE), [1, 10]);
        assert_eq!(links(PAGE), [(2, "b.md".to_owned()), (6, "../e.rs".to_owned())]);
    }

    #[test]
    fn the_code_map_is_the_first_column() {
        assert_eq!(code_map(PAGE), BTreeSet::from(["control/model".to_owned()]));
    }
}
