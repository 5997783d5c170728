//! The limits table of the book is the one of the code, and each of its rows names a test that there is.
//!
//! With `UPDATE_EXPECT=1` the page is written anew.

use std::fs;

use dunlin_model::LimitRow;
use dunlin_tidy::{assert_none, files_under, root};

const PAGE: &str = "book/src/reference/limits.md";
const BEGIN: &str =
    "<!-- The table is made from the code: UPDATE_EXPECT=1 cargo test -p dunlin-tidy --test limits -->\n";
const END: &str = "<!-- End of the table. -->\n";

#[test]
fn the_limits_table_of_the_book_is_that_of_the_code() {
    let path = root().join(PAGE);
    let page = fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = page.split_once(BEGIN).expect("the page has a place for the table");
    let (_, after) = rest.split_once(END).expect("the table has an end");
    let expected = format!("{before}{BEGIN}\n{}\n{END}{after}", LimitRow::markdown());
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(&path, &expected).expect("the page can be written");
    } else if page != expected {
        assert_none(&[format!("{PAGE}: is not what the code says")], "run this test with UPDATE_EXPECT=1");
    }
}

#[test]
fn every_limit_has_a_test_that_hits_it() {
    let sources = files_under("", ".rs");
    let is_there = |test: &str| {
        let function = format!("fn {test}(");
        sources.iter().any(|file| file.text.contains(&function))
    };
    let missing = LimitRow::TABLE.iter().filter(|row| !is_there(row.test));
    let violations: Vec<String> =
        missing.map(|row| format!("`{}`: there is no test `{}`", row.name, row.test)).collect();
    assert_none(
        &violations,
        "a limit without a test that hits it does not exist: write it, and name it in the table",
    );
}
