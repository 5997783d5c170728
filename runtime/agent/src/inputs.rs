//! The inputs of items which are about to run: brought from the coordinator, kept only as long as they are needed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context as _;
use dunlin_model::{AllocationId, Name, RunId};
use dunlin_protocol::{StreamRequest, ToWorker};
use tokio::io::AsyncReadExt as _;

use crate::homes::{Home, Homes, share};
use crate::link::Link;

/// The most bytes of one input.
const MAX_INPUT: u64 = 64 << 20;

/// The inputs on this node's disk.
pub(crate) struct Inputs {
    homes: Arc<Homes>,
    link: Link,
    /// The files of each item. One for each try: a try that comes late must not change what another one reads.
    files: Mutex<BTreeMap<(AllocationId, u32), Vec<PathBuf>>>,
    tries: AtomicU64,
}

impl Inputs {
    /// Returns the inputs in `homes`, where there are none yet.
    pub(crate) fn new(homes: Arc<Homes>, link: Link) -> Self {
        Self { homes, link, files: Mutex::default(), tries: AtomicU64::new(0) }
    }

    /// Brings the input of an item of `namespace` and returns what its worker is to be told.
    pub(crate) async fn prepare(
        &self,
        namespace: &Name,
        allocation: AllocationId,
        run: RunId,
        item: u32,
        combine: bool,
    ) -> anyhow::Result<ToWorker> {
        let (stream, name) = self.link.fetch(&StreamRequest::Input { run, item }).await?;
        let home = self.homes.home(&self.homes.owner(namespace)).context("could not keep the input")?;
        let path = self.new_path(&home, allocation, item);
        let mut file = tokio::fs::File::create(&path).await.context("could not keep the input")?;
        // One byte more than allowed tells a large input from one that is too large.
        let mut stream = stream.take(MAX_INPUT + 1);
        let copied = tokio::io::copy(&mut stream, &mut file).await.context("could not bring the input")?;
        anyhow::ensure!(copied <= MAX_INPUT, "limit `input_size` is 64MiB, observed more");
        tokio::io::AsyncWriteExt::flush(&mut file).await.context("could not keep the input")?;
        share(&file.into_std().await).context("could not keep the input")?;
        let arguments = match (combine, name) {
            (true, _) => vec!["--combine".to_owned()],
            (false, Some(name)) => vec![name],
            (false, None) => vec![item.to_string()],
        };
        Ok(ToWorker::RunItem { allocation, item, arguments, input: Some(home.seen_within(&path)) })
    }

    /// Forgets the input of an item that was run.
    pub(crate) fn forget(&self, allocation: AllocationId, item: u32) {
        let files = self.files().remove(&(allocation, item));
        for path in files.into_iter().flatten() {
            // It is not there if the item was given up before its input came.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Forgets the inputs of all items of an allocation that was stopped.
    pub(crate) fn forget_all(&self, allocation: AllocationId) {
        let items: Vec<u32> = {
            let files = self.files();
            files.range((allocation, 0)..=(allocation, u32::MAX)).map(|((_, item), _)| *item).collect()
        };
        items.into_iter().for_each(|item| self.forget(allocation, item));
    }

    fn new_path(&self, home: &Home, allocation: AllocationId, item: u32) -> PathBuf {
        let number = self.tries.fetch_add(1, Ordering::Relaxed);
        let path = home.input(&format!("{allocation}-{item}-{number}"));
        self.files().entry((allocation, item)).or_default().push(path.clone());
        path
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<(AllocationId, u32), Vec<PathBuf>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
