//! Files of compiled code: what a stranger did to them is always noticed.
//!
//! A file is sealed as the agent does it, then changed as the bytes say; whatever is not, byte for byte, what was
//! sealed for this key, platform and component must not be read.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};

use arbitrary::{Arbitrary, Unstructured};
use dunlin_compiled::{CodeKey, Platform, ReadError, file_name, is_genuine, read, seal};
use dunlin_model::Digest;

const LIMIT: u64 = 4096;

/// What is done to a file.
#[derive(Arbitrary, Debug)]
enum Change {
    Set(u16, u8),
    Flip(u16, u8),
    Cut(u16),
    Append(Vec<u8>),
    Remove(u16, u8),
    Insert(u16, u8),
    /// What was sealed for another component, platform or key.
    Other(u8),
}

#[derive(Arbitrary, Debug)]
struct Input {
    key: u8,
    platform: u8,
    component: u8,
    code: Vec<u8>,
    changes: Vec<Change>,
    name: String,
}

pub(crate) fn run(bytes: &[u8]) {
    let Ok(input) = Input::arbitrary_take_rest(Unstructured::new(bytes)) else { return };
    let (key, platform) = (CodeKey([input.key; 32]), Platform([input.platform; 32]));
    let component = Digest::of(&[input.component]);
    let sealed = [seal(key, platform, component, &input.code).as_slice(), &input.code].concat();
    let mut file = sealed.clone();
    for change in &input.changes {
        apply(change, &mut file, &input, (key, platform, component));
    }
    let is_same = file == sealed;
    with_file(&file, |path| {
        let judged = read(path, key, platform, component, LIMIT);
        let genuine = is_genuine(path, key, platform, component).expect("the file is there");
        match judged {
            Ok(code) => {
                assert!(is_same && code == input.code && genuine, "read, though it was changed: {input:?}")
            }
            Err(ReadError::TooLong { .. }) => assert!(file.len() as u64 > LIMIT),
            Err(ReadError::NotGenuine) => {
                assert!(!is_same && !genuine, "not read, though nothing was changed")
            }
            Err(ReadError::Read(error) | ReadError::Copy(error)) => panic!("the file is there: {error}"),
        }
        for (key, platform, component) in [
            (CodeKey([input.key ^ 1; 32]), platform, component),
            (key, Platform([input.platform ^ 1; 32]), component),
            (key, platform, Digest::of(&[input.component ^ 1])),
        ] {
            if is_same {
                assert!(read(path, key, platform, component, LIMIT).is_err(), "read as what it is not");
            }
        }
    });
    if let Ok(platform) = input.name.parse::<Platform>() {
        assert_eq!(platform.to_string(), input.name.to_ascii_lowercase());
    }
    let name = file_name(platform, component);
    assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'), "{name}");
}

fn apply(change: &Change, file: &mut Vec<u8>, input: &Input, own: (CodeKey, Platform, Digest)) {
    let length = file.len();
    let place = |at: u16| usize::from(at) % length.max(1);
    match change {
        Change::Set(at, byte) if length > 0 => file[place(*at)] = *byte,
        Change::Flip(at, bit) if length > 0 => file[place(*at)] ^= 1 << (bit % 8),
        Change::Set(..) | Change::Flip(..) => {}
        Change::Cut(at) => file.truncate(place(*at)),
        Change::Append(bytes) => file.extend_from_slice(bytes),
        Change::Remove(at, count) => {
            let end = (place(*at) + usize::from(*count)).min(length);
            file.drain(place(*at).min(end)..end);
        }
        Change::Insert(at, byte) => file.insert(place(*at), *byte),
        Change::Other(which) => {
            let (mut key, mut platform, mut component) = own;
            match which % 3 {
                0 => key = CodeKey([input.key.wrapping_add(1); 32]),
                1 => platform = Platform([input.platform.wrapping_add(1); 32]),
                _ => component = Digest::of(&[input.component.wrapping_add(1)]),
            }
            *file = [seal(key, platform, component, &input.code).as_slice(), &input.code].concat();
        }
    }
}

/// Calls `check` with the path of a file of these bytes. There is one such file, in memory where that can be had.
fn with_file(bytes: &[u8], check: impl FnOnce(&std::path::Path)) {
    static FOLDER: OnceLock<Mutex<(tempfile::TempDir, PathBuf)>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder =
            tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder can be made");
        let path = folder.path().join("code");
        Mutex::new((folder, path))
    });
    let folder = folder.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::write(&folder.1, bytes).expect("the folder can be written");
    check(&folder.1);
}
