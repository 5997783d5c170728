//! Compiled components on disk, authenticated.
//!
//! Compiled code runs with the rights of the worker, so a file is used only if its MAC, under a key that only this
//! namespace's workers on this node have, proves that one of them wrote it, for this component, this version of
//! wasmtime and this kind of processor. The bytes that were verified are the bytes that are used.

use std::fs;
use std::hash::{Hash, Hasher};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use dunlin_model::Digest;

use crate::limits::{MAX_CACHE, MAX_COMPILED};

/// Raise this when admission becomes stricter, so that what was let in before is looked at again.
const ADMISSION_RULES: u8 = 1;
const MAC_LENGTH: usize = 32;
const SUFFIX: &str = "compiled";

pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; 32],
    /// Stands for everything but the component that compiled code depends on.
    platform: [u8; 32],
}

impl Cache {
    pub(crate) fn open(folder: PathBuf, key: [u8; 32], engine: &wasmtime::Engine) -> std::io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        Ok(Self { folder, key, platform: platform(engine) })
    }

    /// Returns the compiled form of the component, if a genuine one is there.
    pub(crate) fn read(&self, component: Digest) -> Option<Vec<u8>> {
        let name = self.name(component);
        let path = self.path(&name);
        let mut file = fs::File::open(&path).ok()?;
        let mut mac = [0; MAC_LENGTH];
        let mut body = Vec::new();
        let is_read =
            file.read_exact(&mut mac).is_ok() && file.take(MAX_COMPILED + 1).read_to_end(&mut body).is_ok();
        // Comparing two `blake3::Hash` takes the same time wherever they differ.
        if is_read && self.mac(&name, &body) == blake3::Hash::from_bytes(mac) {
            return Some(body);
        }
        tracing::warn!(path = %path.display(), "compiled component is not genuine; it is compiled again");
        drop(fs::remove_file(&path));
        None
    }

    /// Keeps the compiled form of the component. A file is complete or not there.
    pub(crate) fn write(&self, component: Digest, body: &[u8]) -> std::io::Result<()> {
        let name = self.name(component);
        let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
        file.write_all(self.mac(&name, body).as_bytes())?;
        file.write_all(body)?;
        file.as_file().sync_all()?;
        file.persist(self.path(&name)).map_err(|error| error.error)?;
        self.make_room()
    }

    /// Removes the oldest files until the rest is within the limit.
    fn make_room(&self) -> std::io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_file() {
                let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push((modified, metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, length, _)| length).sum();
        for (_, length, path) in files {
            if total <= MAX_CACHE {
                break;
            }
            fs::remove_file(path)?;
            total -= length;
        }
        Ok(())
    }

    fn name(&self, component: Digest) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.platform);
        hasher.update(component.to_string().as_bytes());
        hasher.finalize()
    }

    fn path(&self, name: &blake3::Hash) -> PathBuf {
        self.folder.join(name.to_hex().as_str()).with_extension(SUFFIX)
    }

    fn mac(&self, name: &blake3::Hash, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(name.as_bytes());
        hasher.update(body);
        hasher.finalize()
    }
}

fn platform(engine: &wasmtime::Engine) -> [u8; 32] {
    let mut hasher = StableHasher(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    ADMISSION_RULES.hash(&mut hasher);
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    std::env::consts::ARCH.hash(&mut hasher);
    processor().hash(&mut hasher);
    hasher.0.finalize().into()
}

/// Returns what the processor can do, as the kernel lists it. A disk may be moved to another machine.
fn processor() -> String {
    let text = fs::read_to_string(Path::new("/proc/cpuinfo")).unwrap_or_default();
    let is_about_features = |line: &&str| line.starts_with("flags") || line.starts_with("Features");
    text.lines().find(is_about_features).unwrap_or_default().to_owned()
}

/// The hashers of the standard library promise no result that holds across programs.
struct StableHasher(blake3::Hasher);

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let hash: [u8; 32] = self.0.finalize().into();
        u64::from_le_bytes(hash[..8].try_into().expect("eight of 32 bytes are eight"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_same_key_wrote_for_the_same_component_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let engine = wasmtime::Engine::new(&crate::config::config()).unwrap();
        let open = |key| Cache::open(folder.path().join("cache"), key, &engine).unwrap();
        let (cache, component, other) = (open([1; 32]), Digest::of(b"a"), Digest::of(b"b"));
        cache.write(component, b"code").unwrap();
        assert_eq!(cache.read(component).as_deref(), Some(b"code".as_slice()));

        // The genuine file of one component does not pass for another's.
        fs::copy(cache.path(&cache.name(component)), cache.path(&cache.name(other))).unwrap();
        assert_eq!(cache.read(other), None);

        let path = cache.path(&cache.name(component));
        let genuine = fs::read(&path).unwrap();
        for position in 0..genuine.len() {
            let mut bytes = genuine.clone();
            bytes[position] ^= 1;
            fs::write(&path, &bytes).unwrap();
            assert_eq!(cache.read(component), None, "byte {position} was changed");
        }
        for length in 0..genuine.len() {
            fs::write(&path, &genuine[..length]).unwrap();
            assert_eq!(cache.read(component), None, "cut at {length}");
        }
        fs::write(&path, &genuine).unwrap();
        assert_eq!(open([2; 32]).read(component), None, "another key");
    }
}
