//! The rules of the house as tests.
//!
//! Here is what the rules share: the files of the project, its crates, the dependency table as data, and the pure
//! checks, which take text and return what is wrong with it. The rules themselves are the tests in `tests/`.

mod files;
mod markdown;
mod rust;
mod table;
mod workspace;

pub use files::{File, assert_none, files, files_under, root};
pub use markdown::{code_map, first_headings, links};
pub use rust::{absolute_paths, forbidden_tests, stray_items, unsafe_lines};
pub use table::{BRAINS, FOR_TESTS, OWN, RESERVED, Reserved, Room, UNSAFE, WORDS_OF_CLIPPY};
pub use workspace::{Dependency, Kind, Member, members, tree};
