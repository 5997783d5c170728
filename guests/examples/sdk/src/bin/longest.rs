//! A job that finds the longest word of each text, and of all of them.

// ANCHOR: job
use std::io::BufRead;

use dunlin_guest::{Item, Outputs, Result};

#[dunlin_guest::job(combine = longest_of_all)]
fn longest(mut item: Item) -> Result<String> {
    let text = item.text()?;
    let word = text.split_whitespace().max_by_key(|word| word.chars().count()).unwrap_or_default();
    Ok(format!("{word} {}", item.name()))
}

/// Reads the lines of all items, and gives the one with the longest word.
fn longest_of_all(outputs: Outputs) -> Result<String> {
    let mut longest = String::new();
    for line in outputs.lines() {
        let line = line?;
        if length(&line) > length(&longest) {
            longest = line;
        }
    }
    Ok(longest)
}
// ANCHOR_END: job

fn length(line: &str) -> usize {
    line.split(' ').next().unwrap_or_default().chars().count()
}

// ANCHOR: tests
#[cfg(test)]
mod tests {
    use dunlin_guest::test;

    use super::*;

    #[test]
    fn the_longest_word_is_found() {
        assert_eq!(longest(test::item("a.txt", "a longer word")).unwrap(), "longer a.txt");
    }

    #[test]
    fn the_longest_of_all_is_found() {
        assert_eq!(longest_of_all(test::outputs("word a.txt\nlonger b.txt\n")).unwrap(), "longer b.txt");
    }
}
// ANCHOR_END: tests
