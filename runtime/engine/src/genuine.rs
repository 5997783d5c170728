//! Compiled code on its way from disk to wasmtime: shown to be genuine, and out of reach of everybody from then on.
//!
//! It is copied into a file that is in memory only and that nobody can write to any more, whatever becomes of the one on
//! disk. wasmtime maps that file, so what is run of it is touched, and nothing is copied again; and the first contents
//! of a guest's memory are mapped from it, too.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dunlin_compiled::{CodeKey, CodeKind, Platform, ReadError};
use dunlin_model::Digest;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::checks::Checks;
use crate::engine::LoadError;
use crate::limits::MAX_COMPILED;

/// How a file of compiled code is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known<'a> {
    pub(crate) path: &'a Path,
    pub(crate) key: CodeKey,
    /// That of the node, for whatever code.
    pub(crate) platform: Platform,
    pub(crate) component: Digest,
    pub(crate) kind: CodeKind,
}

/// Code that is genuine.
#[derive(Debug)]
pub(crate) struct Genuine {
    pub(crate) code: Code,
    pub(crate) checks: Checks,
    /// How many bytes it has.
    pub(crate) size: u64,
}

/// Where it is.
#[derive(Debug)]
pub(crate) enum Code {
    /// In a file in memory that stays as it is.
    Sealed(File),
    /// In memory of this process, where the system gives no such files.
    Bytes(Vec<u8>),
}

impl Genuine {
    /// Takes code from disk.
    pub(crate) fn take(known: Known<'_>) -> Result<Self, LoadError> {
        match new_file() {
            Ok(file) => Self::into_file(known, file),
            Err(error) => {
                tracing::debug!(%error, "no file in memory for compiled code; it is copied twice");
                Self::into_bytes(known)
            }
        }
    }

    fn into_file(known: Known<'_>, mut file: File) -> Result<Self, LoadError> {
        let length = copy(known, &mut file)?;
        seal(&file).map_err(|error| LoadError::Failed(format!("its code cannot be sealed: {error}")))?;
        let mut tag = [0];
        let read = length.checked_sub(1).map(|last| file.read_exact_at(&mut tag, last));
        let checks = Checks::of_tag(tag[0]).filter(|_| matches!(read, Some(Ok(()))));
        Self::of(known, Code::Sealed(file), checks, length)
    }

    fn into_bytes(known: Known<'_>) -> Result<Self, LoadError> {
        let mut bytes = Vec::new();
        let length = copy(known, &mut bytes)?;
        let checks = bytes.last().and_then(|tag| Checks::of_tag(*tag));
        Self::of(known, Code::Bytes(bytes), checks, length)
    }

    fn of(known: Known<'_>, code: Code, checks: Option<Checks>, length: u64) -> Result<Self, LoadError> {
        let checks = checks.filter(|checks| checks.fit(known.kind));
        let checks = checks
            .ok_or_else(|| LoadError::Failed(format!("its compiled code is not that of {:?}", known.kind)))?;
        // At the end stands what the code looks at, which wasmtime does not mind.
        Ok(Self { code, checks, size: length - 1 })
    }
}

/// Returns the path under which a file that this process has open can be opened again.
pub(crate) fn path_of(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

fn copy(known: Known<'_>, to: &mut impl Write) -> Result<u64, LoadError> {
    let Known { path, key, platform, component, kind } = known;
    let copied = dunlin_compiled::copy(path, key, platform.for_code(kind), component, MAX_COMPILED, to);
    copied.map_err(|error: ReadError| LoadError::Failed(format!("its compiled code cannot be used: {error}")))
}

/// Returns an empty file in memory that can be opened by its path.
fn new_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(memfd_create("dunlin-code", flags)?);
    // Behind some walls it cannot, and that is better known before it is filled.
    File::open(path_of(&file))?;
    Ok(file)
}

/// Sees to it that nobody can change `file` any more.
fn seal(file: &File) -> io::Result<()> {
    fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use dunlin_compiled::seal as mac;
    use dunlin_model::Metering;

    use super::*;

    const KEY: CodeKey = CodeKey([1; 32]);
    const PLATFORM: Platform = Platform([2; 32]);

    fn taken(
        code: &[u8],
        by: impl Fn(Known<'_>) -> Result<Genuine, LoadError>,
    ) -> Result<Genuine, LoadError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("code");
        let (component, kind) = (Digest::of(b"component"), CodeKind::from(Metering::Fuel));
        let mac = mac(KEY, PLATFORM.for_code(kind), component, code);
        std::fs::write(&path, [mac.as_slice(), code].concat()).unwrap();
        by(Known { path: &path, key: KEY, platform: PLATFORM, component, kind })
    }

    #[test]
    fn nobody_can_change_code_that_was_found_genuine() {
        let genuine = taken(b"codeF", Genuine::take).unwrap();
        assert_eq!((genuine.checks, genuine.size), (Checks::Fuel, 4));
        let Code::Sealed(file) = genuine.code else { panic!("this system has files in memory") };
        assert!(file.write_all_at(b"x", 0).is_err());
        assert!(file.set_len(0).is_err());
        let again = File::options().write(true).open(path_of(&file));
        assert!(again.and_then(|file| file.write_all_at(b"x", 0)).is_err());
        assert_eq!(std::fs::read(path_of(&file)).unwrap(), b"codeF");
    }

    #[test]
    fn code_is_the_same_where_there_are_no_such_files() {
        let genuine = taken(b"codeF", Genuine::into_bytes).unwrap();
        assert_eq!((genuine.checks, genuine.size), (Checks::Fuel, 4));
        assert!(matches!(genuine.code, Code::Bytes(bytes) if bytes == b"codeF"));
    }

    #[test]
    fn code_that_does_not_say_what_it_looks_at_is_not_taken() {
        for code in [b"".as_slice(), b"code?", b"codeT"] {
            for by in [Genuine::take, Genuine::into_bytes] {
                assert!(taken(code, by).is_err(), "{code:?}");
            }
        }
    }
}
