//! All cases, in the order of the threat list.

mod memory;
mod module;
mod module_bytes;
mod network;
mod output;
mod requests;
mod time;

use dunlin_guest_artifacts as guests;

use crate::case::{Case, Component, How};
use crate::expected::Ends;

/// Returns all cases.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    cases.extend(time::cases());
    cases.extend(memory::cases());
    cases.extend(output::cases());
    cases.extend(network::cases());
    cases.extend(requests::cases());
    cases.extend(module::cases());
    cases.extend(module_bytes::cases());
    cases
}

/// A component of the list, run as an item.
fn item(row: u8, name: &str, component: Component, ends: Ends) -> Case {
    Case { row, name: name.to_owned(), how: How::Item(component, String::new(), ends, &[]) }
}

/// The job fixture with this `CASE`, whose output begins with one of `says`.
fn rust(row: u8, case: &str, ends: Ends, says: &'static [&'static str]) -> Case {
    let component = Component { made: "Rust", bytes: guests::HOSTILE.to_vec() };
    Case { row, name: case.to_owned(), how: How::Item(component, case.to_owned(), ends, says) }
}

/// A component that is refused at deploy.
fn refused(row: u8, name: &str, component: Component, codes: &'static [&'static str]) -> Case {
    Case { row, name: name.to_owned(), how: How::Refused(component, codes) }
}

/// A request to the hostile service.
fn asked(row: u8, path: &'static str, statuses: &'static [u16], says: &'static [&'static str]) -> Case {
    Case { row, name: format!("GET {path}"), how: How::Asked(path, statuses, says) }
}
