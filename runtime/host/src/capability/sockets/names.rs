//! Which names an instance knows its addresses by.

use std::collections::VecDeque;
use std::net::IpAddr;

/// How many addresses are remembered; the oldest go first.
const MAX_TOLD: usize = 256;

/// The addresses that an instance was told, each with the name that it had asked for; the latest first.
#[derive(Debug, Default)]
pub(crate) struct Names(VecDeque<(IpAddr, String)>);

impl Names {
    /// Takes note of an address which the instance hears now.
    pub(super) fn told(&mut self, address: IpAddr, name: &str) {
        self.0.retain(|(known, its_name)| *known != address || its_name != name);
        self.0.truncate(MAX_TOLD - 1);
        self.0.push_front((address, name.to_owned()));
    }

    /// Returns the names of `address`, the latest first.
    pub(super) fn of(&self, address: IpAddr) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| *known == address).map(|(_, name)| name.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_the_names_that_were_asked_for_and_the_oldest_are_forgotten() {
        let mut names = Names::default();
        let address = |last| IpAddr::from([10, 0, 0, last]);
        for name in ["a.example", "b.example", "a.example"] {
            names.told(address(1), name);
        }
        assert_eq!(names.of(address(1)).collect::<Vec<_>>(), ["a.example", "b.example"]);
        assert_eq!(names.of(address(2)).count(), 0);
        for number in 0..MAX_TOLD {
            names.told(address(2), &format!("{number}.example"));
        }
        assert_eq!((names.of(address(1)).count(), names.of(address(2)).count()), (0, MAX_TOLD));
    }
}
