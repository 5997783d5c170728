//! A job: counts the lines and words of one file.
//!
//! It may run twice for the same item, after a failure; its output is recorded once. So it computes from the input to
//! the output, and does nothing else.

use dunlin_guest::{Item, Result, log};

#[dunlin_guest::job]
fn count(mut item: Item) -> Result<String> {
    let text = item.text()?;
    let (lines, words) = (text.lines().count(), text.split_whitespace().count());
    // Into the log. What the function gives back is the output of the item.
    log::info!(
        "item {} of run {}, attempt {}",
        item.index(),
        item.run().unwrap_or("-"),
        item.attempt()
    );
    Ok(format!("{lines} {words} {}", item.name()))
}

#[cfg(test)]
mod tests {
    use dunlin_guest::test;

    use super::*;

    #[test]
    fn lines_and_words_are_counted() {
        assert_eq!(
            count(test::item("a.txt", "one two\nthree\n")).unwrap(),
            "2 3 a.txt"
        );
    }

    #[test]
    fn an_empty_file_has_none() {
        assert_eq!(count(test::item("a.txt", "")).unwrap(), "0 0 a.txt");
    }

    #[test]
    fn what_is_no_text_is_an_error() {
        assert!(count(test::item("a.png", [0xff])).is_err());
    }
}
