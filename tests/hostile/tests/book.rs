//! The page of the book on hostile inputs says what is tried; that all of it is contained, `hostile.rs` shows.
//!
//! With `UPDATE_EXPECT=1` the page is written anew.

use std::path::Path;

use dunlin_hostile::{THREATS, all, page};

const PAGE: &str = "../../book/src/reference/hostile.md";
const BEGIN: &str =
    "<!-- The tables are made from the cases: UPDATE_EXPECT=1 cargo test -p dunlin-hostile --test book -->\n";
const END: &str = "<!-- End of the tables. -->\n";

#[test]
fn the_page_of_the_book_is_that_of_the_cases() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let found = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = found.split_once(BEGIN).unwrap();
    let (_, after) = rest.split_once(END).unwrap();
    let expected = format!("{before}{BEGIN}{}\n{END}{after}", page(&all()));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, expected).unwrap();
    } else {
        assert!(found == expected, "the page is not what the cases say; run this test with UPDATE_EXPECT=1");
    }
}

#[test]
fn every_line_of_the_threat_list_is_tried() {
    let cases = all();
    let numbers: Vec<u8> = THREATS.iter().map(|(row, ..)| *row).collect();
    assert_eq!(numbers, (1..=57).collect::<Vec<_>>());
    for (row, _, what) in THREATS {
        assert!(cases.iter().any(|case| case.row == *row), "nothing tries line {row}: {what}");
    }
    assert!(cases.iter().all(|case| numbers.contains(&case.row)));
}
