//! Shrinking: the fewest kinds of faults and the smallest fleet with which a seed still fails.
//!
//! With fewer faults a seed is another history, which may fail otherwise or not at all; what is kept is what fails.

use crate::options::{Kind, Options};
use crate::simulation::{Failure, simulate};

/// Returns the failure of the same seed in which the least goes wrong that could be found.
pub fn shrink(failure: Failure) -> Failure {
    let mut least = failure;
    for kind in Kind::ALL {
        let mut options = least.options.clone();
        options.without.push(*kind);
        least = tried(least, options);
    }
    for nodes in [3, 4, 5, 8, 12, 20] {
        let options = Options { most_nodes: Some(nodes), ..least.options.clone() };
        if least.options.most_nodes.is_none_or(|most| nodes < most) {
            least = tried(least, options);
        }
    }
    least
}

/// Returns the failure with these options if there is one, else the one that was known.
fn tried(known: Failure, options: Options) -> Failure {
    simulate(known.seed, &options).err().map_or(known, |failure| *failure)
}
