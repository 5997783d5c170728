//! Bytes by their digest: components, and the inputs of items.
//!
//! A file is written under another name while its digest is computed, and gets its own name when it is whole and
//! durable; so a file with a digest for a name is complete. What an interrupted writing left is removed at the start.
//!
//! Several coordinators share an object store: what one of them keeps is put there before it gets its name here, and
//! what is not here is fetched from there. The folder holds what was used here.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dunlin_model::{Bytes, Digest, LimitHit};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use crate::folder;
use crate::objects::{Objects, ObjectsError};
use crate::space::{self, NoSpace};

const PARTIAL: &str = ".partial-";
/// How many bytes are written between two looks at the free space.
const SPACE_CHECK: u64 = 8 << 20;

/// Bytes by their digest, in one folder, and in an object store that others share if there is one.
#[derive(Clone, Debug)]
pub struct Components {
    folder: PathBuf,
    max_size: Bytes,
    reserve: Bytes,
    shared: Option<Shared>,
}

/// The part of an object store that holds these bytes.
#[derive(Clone, Debug)]
struct Shared {
    objects: Arc<Objects>,
    folder: &'static str,
}

impl Shared {
    fn name(&self, digest: &Digest) -> String {
        format!("{}/{}", self.folder, digest.hex())
    }
}

/// Why bytes could not be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum ComponentsError {
    /// They are not here.
    #[error("{digest} is not in the store")]
    Missing {
        /// Which.
        digest: Digest,
    },
    /// They are not what they were said to be, or the disk has changed them.
    #[error("expected the bytes of {expected} but found those of {found}")]
    WrongDigest {
        /// What they should be.
        expected: Digest,
        /// What they are.
        found: Digest,
    },
    /// They are too many.
    #[error("{0}")]
    TooLarge(LimitHit),
    /// The object store that others share cannot be had.
    #[error("could not use the bytes that all coordinators share")]
    Shared(#[from] ObjectsError),
    /// There is no room.
    #[error("could not keep the bytes: the storage is full")]
    StorageFull(#[source] NoSpace),
    /// The disk failed.
    #[error("could not use {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ComponentsError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        if space::is_full(&source) {
            return Self::StorageFull(NoSpace::Refused(source));
        }
        Self::Io { path: path.to_owned(), source }
    }
}

impl Components {
    /// Opens `folder`, and makes it if it is not there. No single blob may be larger than `max_size`, and `reserve`
    /// stays free on the disk.
    pub fn open_folder(folder: &Path, max_size: Bytes, reserve: Bytes) -> Result<Self, ComponentsError> {
        let failed = |source| ComponentsError::io(folder, source);
        fs::create_dir_all(folder).map_err(failed)?;
        for entry in fs::read_dir(folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().as_encoded_bytes().starts_with(PARTIAL.as_bytes()) {
                fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        Ok(Self { folder: folder.to_owned(), max_size, reserve, shared: None })
    }

    /// Returns the same, shared with others as the folder `name` of an object store.
    pub fn shared(self, objects: Arc<Objects>, name: &'static str) -> Self {
        Self { shared: Some(Shared { objects, folder: name }), ..self }
    }

    /// Tells whether the bytes can be had.
    pub fn contains(&self, digest: &Digest) -> Result<bool, ComponentsError> {
        match &self.shared {
            _ if self.is_here(digest) => Ok(true),
            Some(shared) => Ok(shared.objects.contains(&shared.name(digest))?),
            None => Ok(false),
        }
    }

    /// Returns the first of these bytes that cannot be had.
    pub fn first_missing<'a>(
        &self,
        digests: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<Option<&'a Digest>, ComponentsError> {
        let mut missing = digests.into_iter().filter(|digest| !self.is_here(digest)).peekable();
        if missing.peek().is_none() {
            return Ok(None);
        }
        // There may be a million of them: one list of all costs less than many questions.
        let there = match &self.shared {
            Some(_) => self.all()?,
            None => BTreeSet::new(),
        };
        Ok(missing.find(|digest| !there.contains(digest)))
    }

    fn is_here(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// Returns where the bytes are, if they are here.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.hex())
    }

    /// Returns the digests of all bytes that can be had, in order.
    pub fn all(&self) -> Result<BTreeSet<Digest>, ComponentsError> {
        let digest = |name: &str| format!("sha256:{name}").parse::<Digest>().ok();
        if let Some(shared) = &self.shared {
            let names = shared.objects.all(shared.folder)?;
            return Ok(names.iter().filter_map(|name| digest(name)).collect());
        }
        let failed = |source| ComponentsError::io(&self.folder, source);
        let mut all = BTreeSet::new();
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            // What is being written has another name.
            all.extend(name.to_str().and_then(digest));
        }
        Ok(all)
    }

    /// Begins to write bytes whose digest is known at their end.
    pub fn begin(&self) -> Result<PartialBlob, ComponentsError> {
        self.check_space()?;
        let file = tempfile::Builder::new()
            .prefix(PARTIAL)
            .tempfile_in(&self.folder)
            .map_err(|source| ComponentsError::io(&self.folder, source))?;
        Ok(PartialBlob { components: self.clone(), file, hash: Sha256::new(), length: 0, checked: 0 })
    }

    /// Keeps bytes that are in memory.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, ComponentsError> {
        let digest = Digest::of(bytes);
        if self.contains(&digest)? {
            return Ok(digest);
        }
        let mut blob = self.begin()?;
        blob.write(bytes)?;
        blob.finish(Some(digest))
    }

    /// Opens the bytes for reading, and tells how many they are. They are not checked against their digest again:
    /// whoever receives them does.
    pub fn open(&self, digest: &Digest) -> Result<(File, u64), ComponentsError> {
        let path = self.path(digest);
        if let Some(shared) = self.shared.as_ref().filter(|_| !self.is_here(digest)) {
            self.fetch(shared, digest)?;
        }
        let file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => ComponentsError::Missing { digest: *digest },
            _ => ComponentsError::io(&path, source),
        })?;
        let length = file.metadata().map_err(|source| ComponentsError::io(&path, source))?.len();
        Ok((file, length))
    }

    /// Returns the bytes themselves, checked against their digest.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>, ComponentsError> {
        let (file, length) = self.open(digest)?;
        self.check_size(length)?;
        let mut bytes = Vec::new();
        file.take(self.max_size.0)
            .read_to_end(&mut bytes)
            .map_err(|source| ComponentsError::io(&self.path(digest), source))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(ComponentsError::WrongDigest { expected: *digest, found });
        }
        Ok(bytes)
    }

    /// Puts into the folder what is in the object store.
    fn fetch(&self, shared: &Shared, digest: &Digest) -> Result<(), ComponentsError> {
        let mut blob = self.begin()?;
        let got =
            shared.objects.get(&shared.name(digest), |piece| blob.write(piece).map_err(io::Error::other))?;
        if !got {
            return Err(ComponentsError::Missing { digest: *digest });
        }
        blob.keep(Some(*digest)).map(drop)
    }

    /// Puts bytes that are here into the object store that others share, if they are not there.
    pub fn share(&self, digest: &Digest) -> Result<(), ComponentsError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let name = shared.name(digest);
        if !shared.objects.contains(&name)? {
            let (file, length) = self.open(digest)?;
            shared.objects.put(&name, file, length)?;
        }
        Ok(())
    }

    /// Deletes the bytes, if they are somewhere.
    pub fn remove(&self, digest: &Digest) -> Result<(), ComponentsError> {
        if let Some(shared) = &self.shared {
            shared.objects.remove(&shared.name(digest))?;
        }
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(ComponentsError::io(&path, source))
            }
            _ => Ok(()),
        }
    }

    fn check_size(&self, length: u64) -> Result<(), ComponentsError> {
        if length > self.max_size.0 {
            let hit = LimitHit::new("component_size", self.max_size, Bytes(length));
            return Err(ComponentsError::TooLarge(hit));
        }
        Ok(())
    }

    fn check_space(&self) -> Result<(), ComponentsError> {
        space::check(&self.folder, self.reserve)
            .map_err(|source| ComponentsError::io(&self.folder, source))?
            .map_err(ComponentsError::StorageFull)
    }
}

/// Bytes that are being written. Dropped before [`PartialBlob::finish`], they are gone.
#[derive(Debug)]
pub struct PartialBlob {
    components: Components,
    file: NamedTempFile,
    hash: Sha256,
    length: u64,
    /// How many bytes there were at the last look at the free space.
    checked: u64,
}

impl PartialBlob {
    /// Adds some bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), ComponentsError> {
        let length = self.length + bytes.len() as u64;
        self.components.check_size(length)?;
        if length - self.checked > SPACE_CHECK {
            self.components.check_space()?;
            self.checked = length;
        }
        self.file.write_all(bytes).map_err(|source| ComponentsError::io(self.file.path(), source))?;
        self.hash.update(bytes);
        self.length = length;
        Ok(())
    }

    /// Makes the bytes durable under their digest, unless that is another than the `expected` one.
    pub fn finish(mut self, expected: Option<Digest>) -> Result<Digest, ComponentsError> {
        if let Some(shared) = self.components.shared.clone() {
            let digest = self.digest(expected)?;
            let io = |source| ComponentsError::io(&self.components.folder, source);
            let (length, file) = (self.length, self.file.as_file_mut());
            file.rewind().map_err(io)?;
            shared.objects.put(&shared.name(&digest), file, length)?;
        }
        self.keep(expected)
    }

    /// Returns the digest of what was written, unless that is another than the `expected` one.
    fn digest(&self, expected: Option<Digest>) -> Result<Digest, ComponentsError> {
        let found = Digest::from_sha256(self.hash.clone().finalize().into());
        match expected.filter(|expected| *expected != found) {
            Some(expected) => Err(ComponentsError::WrongDigest { expected, found }),
            None => Ok(found),
        }
    }

    /// Makes the bytes durable in the folder.
    fn keep(self, expected: Option<Digest>) -> Result<Digest, ComponentsError> {
        let found = self.digest(expected)?;
        let path = self.components.path(&found);
        self.file.as_file().sync_all().map_err(|source| ComponentsError::io(self.file.path(), source))?;
        // A file that is already there is replaced: should the disk have changed it, that heals it.
        self.file.persist(&path).map_err(|error| ComponentsError::io(&path, error.error))?;
        folder::sync(&self.components.folder).map_err(|source| ComponentsError::io(&path, source))?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn components(max_size: u64) -> (tempfile::TempDir, Components) {
        let folder = tempfile::tempdir().unwrap();
        let components =
            Components::open_folder(&folder.path().join("c"), Bytes(max_size), Bytes(0)).unwrap();
        (folder, components)
    }

    fn files(components: &Components) -> usize {
        fs::read_dir(&components.folder).unwrap().count()
    }

    #[test]
    fn bytes_are_had_back_by_their_digest() {
        let (_folder, components) = components(1 << 20);
        let mut blob = components.begin().unwrap();
        blob.write(b"hello ").unwrap();
        blob.write(b"world").unwrap();
        let digest = blob.finish(None).unwrap();
        assert_eq!(digest, Digest::of(b"hello world"));
        assert!(components.contains(&digest).unwrap());
        assert_eq!(components.read(&digest).unwrap(), b"hello world");
        assert_eq!(components.open(&digest).unwrap().1, 11);
        assert_eq!(components.put(b"hello world").unwrap(), digest);
        assert_eq!(files(&components), 1);
        components.remove(&digest).unwrap();
        components.remove(&digest).unwrap();
        assert!(matches!(components.read(&digest), Err(ComponentsError::Missing { .. })));
    }

    #[test]
    fn a_wrong_digest_is_refused_and_nothing_is_left() {
        let (_folder, components) = components(1 << 20);
        let mut blob = components.begin().unwrap();
        blob.write(b"hello").unwrap();
        let result = blob.finish(Some(Digest::of(b"other")));
        assert!(matches!(result, Err(ComponentsError::WrongDigest { .. })), "{result:?}");
        assert_eq!(files(&components), 0);
    }

    #[test]
    fn too_many_bytes_are_refused_and_nothing_is_left() {
        let (_folder, components) = components(4);
        assert!(components.put(b"four").is_ok());
        let result = components.put(b"fives").unwrap_err();
        assert_eq!(result.to_string(), "limit `component_size` is 4B, observed 5B");
        assert_eq!(files(&components), 1);
    }

    #[test]
    fn changed_bytes_are_noticed_and_healed_by_writing_them_again() {
        let (_folder, components) = components(1 << 20);
        let digest = components.put(b"hello").unwrap();
        fs::write(components.path(&digest), b"jello").unwrap();
        assert!(matches!(components.read(&digest), Err(ComponentsError::WrongDigest { .. })));
        let mut blob = components.begin().unwrap();
        blob.write(b"hello").unwrap();
        blob.finish(Some(digest)).unwrap();
        assert_eq!(components.read(&digest).unwrap(), b"hello");
    }

    #[test]
    fn what_an_interrupted_writing_left_is_removed_at_the_start() {
        let (_folder, components) = components(1 << 20);
        let mut blob = components.begin().unwrap();
        blob.write(b"half").unwrap();
        // As after a crash: the file stays though nobody writes it any more.
        blob.file.keep().unwrap();
        assert_eq!(files(&components), 1);
        Components::open_folder(&components.folder, Bytes(1), Bytes(0)).unwrap();
        assert_eq!(files(&components), 0);
    }

    #[test]
    fn the_reserve_is_not_touched() {
        let (_folder, components) = components(1 << 20);
        let components = Components { reserve: Bytes(u64::MAX), ..components };
        assert!(matches!(components.put(b"hello"), Err(ComponentsError::StorageFull(_))));
        assert_eq!(files(&components), 0);
    }
}
