//! What the end-to-end tests share: apps made of the fixtures, and words for what `dunlin` printed.
//!
//! The tests themselves are in `tests/ways`, one file per way through the house.

mod answer;
mod apps;
mod attic;
mod fetched;
mod language;
mod outside;
mod printed;

pub use answer::answer;
pub use apps::{hello, job, service};
pub use attic::{HalfAsked, in_the_attic};
pub use fetched::{Fetched, fetched};
pub use language::{Language, environment, node_modules, toolchains};
pub use outside::{ended, outside};
pub use printed::{Printed, printed};
