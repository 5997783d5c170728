//! The last assignment, kept on disk: with it a node that starts without its coordinator carries on,
//! and knows which orders are too old to obey.
//!
//! | File | What |
//! | --- | --- |
//! | `assignment` | the last assignment, authenticated |
//! | `assignment.before` | the one before it, for a disk that has damaged the last one |
//!
//! What was not written by this node, or is not as it was written, is not believed: the node goes on with the one
//! before, and with none if that is no better. It never waits for a person, who may be far away.

use std::io;
use std::path::PathBuf;

use dunlin_model::Assignment;
use dunlin_planted::{Bug, planted};

use crate::authenticated;

/// Where the last assignment is kept.
#[derive(Clone)]
pub(crate) struct LastAssignment {
    path: PathBuf,
    before: PathBuf,
    key: [u8; 32],
}

impl LastAssignment {
    /// Returns the keeper of the file at `path`, authenticated by a key of this node.
    pub(crate) fn at(path: PathBuf, node_key: &[u8; 32]) -> Self {
        let before = path.with_extension("before");
        Self { path, before, key: blake3::derive_key("dunlin 2026-11-29 last assignment", node_key) }
    }

    /// Returns what was saved last, or before that, if anything was that can be believed; and whether there is a later one
    /// that cannot.
    pub(crate) fn load(&self) -> (Option<Assignment>, bool) {
        // What an earlier build has left is of no use here, and says that there was something.
        let mut is_unsure = self.former().exists();
        for path in [&self.path, &self.before] {
            match authenticated::read(path, &self.key) {
                Ok(Some(assignment)) => return (Some(assignment), is_unsure),
                Ok(None) => {}
                Err(error) if planted(Bug::StopAtDamagedAssignment) => panic!("{error}"),
                Err(error) => {
                    is_unsure = true;
                    tracing::error!(
                        file = %path.display(),
                        error = &error as &dyn std::error::Error,
                        "an assignment that was kept is not believed; the node goes on with an older one, \
                         or waits for its coordinator's"
                    );
                }
            }
        }
        (None, is_unsure)
    }

    /// Where earlier builds kept it.
    fn former(&self) -> PathBuf {
        self.path.with_extension("json")
    }

    /// Saves `assignment`; when this returns, a power cut does not lose it.
    pub(crate) fn save(&self, assignment: &Assignment) -> io::Result<()> {
        match std::fs::rename(&self.path, &self.before) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        authenticated::replace(&self.path, &self.key, assignment)?;
        match std::fs::remove_file(self.former()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use dunlin_model::{Generation, RouteTable, Term};

    use super::*;

    fn of_term(term: u64) -> Assignment {
        Assignment {
            cluster: "c4".parse().unwrap(),
            term: Term(term),
            generation: Generation(1),
            allocations: Vec::new(),
            finishing: BTreeSet::new(),
            kept: BTreeSet::new(),
            secrets: BTreeMap::new(),
            program: None,
            routes: RouteTable::default(),
        }
    }

    fn damage(path: &Path) {
        let mut bytes = std::fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 4;
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn a_damaged_one_is_not_believed_and_the_one_before_is() {
        let folder = tempfile::tempdir().unwrap();
        let kept = LastAssignment::at(folder.path().join("assignment"), &[7; 32]);
        assert_eq!(kept.load(), (None, false));
        kept.save(&of_term(1)).unwrap();
        assert_eq!(kept.load(), (Some(of_term(1)), false));
        kept.save(&of_term(2)).unwrap();
        assert_eq!(kept.load(), (Some(of_term(2)), false));
        damage(&kept.path);
        assert_eq!(kept.load(), (Some(of_term(1)), true));
        damage(&kept.before);
        assert_eq!(kept.load(), (None, true));
        std::fs::write(&kept.path, b"short").unwrap();
        assert_eq!(kept.load(), (None, true));
        kept.save(&of_term(3)).unwrap();
        assert_eq!(kept.load(), (Some(of_term(3)), false));
    }

    #[test]
    fn one_of_an_earlier_build_is_not_believed_and_gone_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let kept = LastAssignment::at(folder.path().join("assignment"), &[7; 32]);
        std::fs::write(folder.path().join("assignment.json"), b"{}").unwrap();
        assert_eq!(kept.load(), (None, true));
        kept.save(&of_term(1)).unwrap();
        assert_eq!(kept.load(), (Some(of_term(1)), false));
    }

    #[test]
    fn one_that_another_node_has_written_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("assignment");
        LastAssignment::at(path.clone(), &[7; 32]).save(&of_term(1)).unwrap();
        assert_eq!(LastAssignment::at(path, &[8; 32]).load(), (None, true));
    }

    #[test]
    fn after_a_power_cut_between_two_renames_the_one_before_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let kept = LastAssignment::at(folder.path().join("assignment"), &[7; 32]);
        kept.save(&of_term(1)).unwrap();
        std::fs::rename(&kept.path, &kept.before).unwrap();
        assert_eq!(kept.load(), (Some(of_term(1)), false));
    }
}
