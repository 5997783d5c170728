//! The inputs of runs: bytes by their digest, and lists of them, parsed once for many items.
//!
//! All reading here blocks: call it where that is allowed.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::{Digest, ItemInput};
use dunlin_store::{Components, ComponentsError};

/// How many parsed lists are kept: a list has up to a million inputs, and few runs are under way at once.
const MAX_LISTS: usize = 4;

/// A list of inputs, shared by all who look something up in it.
pub(crate) type InputList = Arc<[ItemInput]>;

/// The inputs of runs.
pub(crate) struct Inputs {
    blobs: Arc<Components>,
    /// The last lists that were used, the latest first.
    recent: Mutex<VecDeque<(Digest, InputList)>>,
}

/// Why a list of inputs cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InputListError {
    /// Its bytes cannot be read.
    #[error("could not read list {list} of inputs")]
    Read {
        /// Which.
        list: Digest,
        /// Why.
        source: ComponentsError,
    },
    /// Its bytes are something else.
    #[error("{list} is no list of inputs")]
    Malformed {
        /// Which.
        list: Digest,
        /// What the decoder says.
        source: serde_json::Error,
    },
}

impl Inputs {
    /// Returns the inputs among `blobs`.
    pub(crate) fn new(blobs: Arc<Components>) -> Self {
        Self { blobs, recent: Mutex::default() }
    }

    /// Returns the bytes themselves.
    pub(crate) fn blobs(&self) -> &Arc<Components> {
        &self.blobs
    }

    /// Returns a list of inputs.
    ///
    /// One caller parses while others wait: items of the same run come together, and all want the same list.
    pub(crate) fn list(&self, list: Digest) -> Result<InputList, InputListError> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = recent.iter().position(|(digest, _)| *digest == list) {
            let found = recent.remove(at).expect("the position was just found");
            let inputs = Arc::clone(&found.1);
            recent.push_front(found);
            return Ok(inputs);
        }
        let bytes = self.blobs.read(&list).map_err(|source| InputListError::Read { list, source })?;
        let inputs: Vec<ItemInput> =
            serde_json::from_slice(&bytes).map_err(|source| InputListError::Malformed { list, source })?;
        let inputs = InputList::from(inputs);
        recent.push_front((list, Arc::clone(&inputs)));
        recent.truncate(MAX_LISTS);
        Ok(inputs)
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::Bytes;

    use super::*;

    #[test]
    fn the_last_few_lists_are_parsed_once() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = Arc::new(Components::open_folder(folder.path(), Bytes(1 << 20), Bytes(0)).unwrap());
        let inputs = Inputs::new(Arc::clone(&blobs));
        let input = Digest::of(b"input");
        let lists: Vec<Digest> = (0..=MAX_LISTS)
            .map(|number| {
                let list = serde_json::json!([{ "name": format!("input-{number}"), "digest": input }]);
                blobs.put(list.to_string().as_bytes()).unwrap()
            })
            .collect();
        for list in &lists[..MAX_LISTS] {
            inputs.list(*list).unwrap();
        }
        assert_eq!(inputs.list(lists[0]).unwrap()[0].name, "input-0");
        inputs.list(lists[MAX_LISTS]).unwrap();
        for list in &lists {
            blobs.remove(list).unwrap();
        }
        // The first was used again, so the second one had to go.
        assert_eq!(inputs.list(lists[0]).unwrap()[0].name, "input-0");
        let error = inputs.list(lists[1]).unwrap_err();
        assert!(matches!(error, InputListError::Read { .. }), "{error:?}");

        let odd = blobs.put(b"{}").unwrap();
        assert!(matches!(inputs.list(odd), Err(InputListError::Malformed { .. })));
    }
}
