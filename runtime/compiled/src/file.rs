//! One file of compiled code: its name, how it is written and how it is read.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use dunlin_model::Digest;

use crate::{CodeKey, Platform};

const MAC_LENGTH: usize = 32;
/// How many bytes are authenticated at a time.
const CHUNK: usize = 64 << 10;

/// Why compiled code cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    /// It cannot be passed on.
    #[error("it cannot be copied: {0}")]
    Copy(io::Error),
    /// It is longer than compiled code may be.
    #[error("limit `compiled size` is {limit} bytes, observed more")]
    TooLong {
        /// The limit.
        limit: u64,
    },
    /// It was not written with this key for this component and platform, or was changed since.
    #[error("it is not genuine")]
    NotGenuine,
}

/// Returns the name of the file with a component's code for a platform.
pub fn file_name(platform: Platform, component: Digest) -> String {
    format!("{}.compiled", identity(platform, component).to_hex())
}

/// Returns what stands before `code` in its file.
pub fn seal(key: CodeKey, platform: Platform, component: Digest, code: &[u8]) -> [u8; MAC_LENGTH] {
    *begun(key, platform, component).update(code).finalize().as_bytes()
}

/// Returns the code in the file `path`, if it is genuine and has at most `limit` bytes.
pub fn read(
    path: &Path,
    key: CodeKey,
    platform: Platform,
    component: Digest,
    limit: u64,
) -> Result<Vec<u8>, ReadError> {
    let mut code = Vec::new();
    copy(path, key, platform, component, limit, &mut code)?;
    Ok(code)
}

/// Writes the code in the file `path` to `to` and returns how many bytes it has. What was written is of no use if that
/// fails: only at the end it is known whether it is genuine.
pub fn copy(
    path: &Path,
    key: CodeKey,
    platform: Platform,
    component: Digest,
    limit: u64,
    to: &mut impl Write,
) -> Result<u64, ReadError> {
    let mut file = File::open(path).map_err(ReadError::Read)?;
    let mac = read_mac(&mut file)?;
    let mut hasher = begun(key, platform, component);
    let (mut chunk, mut length) = (vec![0; CHUNK], 0);
    loop {
        let count = file.read(&mut chunk).map_err(ReadError::Read)?;
        length += count as u64;
        if length > limit {
            return Err(ReadError::TooLong { limit });
        }
        // Comparing two `blake3::Hash` takes the same time wherever they differ.
        match count {
            0 if hasher.finalize() == mac => return Ok(length),
            0 => return Err(ReadError::NotGenuine),
            _ => hasher.update(&chunk[..count]),
        };
        to.write_all(&chunk[..count]).map_err(ReadError::Copy)?;
    }
}

/// Tells whether the file `path` is genuine, without keeping its code.
pub fn is_genuine(path: &Path, key: CodeKey, platform: Platform, component: Digest) -> io::Result<bool> {
    let mut file = File::open(path)?;
    let Ok(mac) = read_mac(&mut file) else { return Ok(false) };
    let mut hasher = begun(key, platform, component);
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(hasher.finalize() == mac),
            count => hasher.update(&chunk[..count]),
        };
    }
}

fn read_mac(file: &mut File) -> Result<blake3::Hash, ReadError> {
    let mut mac = [0; MAC_LENGTH];
    match file.read_exact(&mut mac) {
        Ok(()) => Ok(blake3::Hash::from_bytes(mac)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(ReadError::NotGenuine),
        Err(error) => Err(ReadError::Read(error)),
    }
}

fn identity(platform: Platform, component: Digest) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&platform.0);
    hasher.update(component.to_string().as_bytes());
    hasher.finalize()
}

fn begun(key: CodeKey, platform: Platform, component: Digest) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new_keyed(&key.0);
    hasher.update(identity(platform, component).as_bytes());
    hasher
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::CodeKind;

    #[test]
    fn only_what_the_same_key_wrote_for_the_same_component_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        let (key, platform, component) = (CodeKey([1; 32]), Platform([2; 32]), Digest::of(b"a"));
        let sealed = [seal(key, platform, component, b"code").as_slice(), b"code"].concat();
        let read_as = |key, platform, component| {
            let code = read(&path, key, platform, component, 100).ok();
            let genuine = is_genuine(&path, key, platform, component).unwrap();
            assert_eq!(genuine, code.is_some(), "both ways to look come to one judgement");
            code
        };
        std::fs::write(&path, &sealed).unwrap();
        assert_eq!(read_as(key, platform, component).as_deref(), Some(b"code".as_slice()));
        assert_eq!(read_as(key, platform, Digest::of(b"b")), None, "another component");
        assert_eq!(read_as(key, Platform([3; 32]), component), None, "another platform");
        assert_eq!(read_as(CodeKey([2; 32]), platform, component), None, "another key");

        for position in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[position] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read_as(key, platform, component), None, "byte {position} was changed");
        }
        for length in 0..sealed.len() {
            std::fs::write(&path, &sealed[..length]).unwrap();
            assert_eq!(read_as(key, platform, component), None, "cut at {length}");
        }
    }

    #[test]
    fn more_than_the_limit_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        std::fs::write(&path, [0; 100]).unwrap();
        let read = read(&path, CodeKey([1; 32]), Platform([2; 32]), Digest::of(b"a"), 67);
        assert!(matches!(read, Err(ReadError::TooLong { limit: 67 })));
    }

    #[test]
    fn code_of_one_kind_is_not_read_as_that_of_another() {
        let (key, platform, component) = (CodeKey([1; 32]), Platform([2; 32]), Digest::of(b"a"));
        let names: BTreeSet<String> =
            CodeKind::ALL.map(|kind| file_name(platform.for_code(kind), component)).into();
        assert_eq!(names.len(), CodeKind::ALL.len());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        for kind in CodeKind::ALL {
            let sealed = seal(key, platform.for_code(kind), component, b"code");
            std::fs::write(&path, [sealed.as_slice(), b"code"].concat()).unwrap();
            for other in CodeKind::ALL {
                let read = read(&path, key, platform.for_code(other), component, 100);
                match kind == other {
                    true => assert!(read.is_ok(), "{kind:?}"),
                    false => assert!(matches!(read, Err(ReadError::NotGenuine)), "{kind:?} as {other:?}"),
                }
            }
        }
    }

    #[test]
    fn names_tell_platforms_and_components_apart() {
        let name = |platform, component: &[u8]| file_name(Platform([platform; 32]), Digest::of(component));
        let names = [name(1, b"a"), name(1, b"b"), name(2, b"a")];
        assert!(names[0] != names[1] && names[0] != names[2] && names[1] != names[2]);
        assert_eq!(names[0], name(1, b"a"));
        let platform = Platform([9; 32]);
        assert_eq!(platform.to_string().parse(), Ok(platform));
        assert_eq!("12".parse::<Platform>(), Err(crate::NotAPlatform));
    }
}
