//! The file of an access log: what is too long gets another name, and what somebody else has renamed is made anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant, SystemTime};

use dunlin_model::Timestamp;
use serde::Serialize;

use super::Message;
use crate::rarely::Rarely;

/// How large a file becomes before it gets another name.
const MAX_FILE: u64 = 64 << 20;
/// How many files with other names are kept, `.1` being the latest.
const KEPT: u32 = 4;
/// How often it is looked whether the file is still the one that has the name.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most bytes that are written at once.
const BATCH: usize = 64 << 10;

/// An open file, and how it is called.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    length: u64,
    looked: Instant,
    /// Whether the last line may be a part of one.
    is_torn: bool,
    /// That it cannot be written.
    failures: Rarely,
}

/// That lines are missing.
#[derive(Serialize)]
struct Missing {
    time: String,
    dropped: u64,
}

/// Writes what comes until nobody sends any more.
pub(super) fn write(mut file: LogFile, messages: &Receiver<Message>, dropped: &AtomicU64) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = messages.recv() {
        let (mut lines, mut flushed) = (0, Vec::new());
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    add(&mut batch, &line);
                    lines += 1;
                }
                Message::Flush(waiting) => flushed.push(waiting),
            }
            next = if batch.len() < BATCH { messages.try_recv().ok() } else { None };
        }
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let time = Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX)).rfc3339();
            add(&mut batch, &Missing { time, dropped: missing });
        }
        if let Err(error) = file.append(&batch) {
            dropped.fetch_add(missing + lines, Ordering::Relaxed);
            file.complain(&error);
        }
        batch.clear();
        for waiting in flushed {
            let _gone = waiting.send(());
        }
    }
}

fn add(batch: &mut Vec<u8>, line: &impl Serialize) {
    let length = batch.len();
    match serde_json::to_writer(&mut *batch, line) {
        Ok(()) => batch.push(b'\n'),
        // Nothing in a line can fail; if it did, the others are none the worse.
        Err(_) => batch.truncate(length),
    }
}

impl LogFile {
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&path)?;
        let length = file.metadata()?.len();
        let (looked, failures) = (Instant::now(), Rarely::default());
        Ok(Self { path, file, length, looked, is_torn: false, failures })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.length > 0 && self.length + bytes.len() as u64 > MAX_FILE {
            // What cannot be renamed grows on, until as much again has come.
            self.length = 0;
            if let Err(error) = self.rename() {
                self.complain(&error);
            }
        } else if self.looked.elapsed() >= LOOK_EVERY {
            self.look()?;
        }
        if self.is_torn {
            self.file.write_all(b"\n")?;
        }
        self.is_torn = true;
        self.file.write_all(bytes)?;
        self.is_torn = false;
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn complain(&self, error: &io::Error) {
        if self.failures.is_due(Instant::now()) {
            let path = self.path.display();
            tracing::warn!(
                %path, %error,
                "the access log cannot be written, or not be renamed; requests are answered and may not be logged"
            );
        }
    }

    /// Opens the file anew if what has its name is another one, or nothing.
    fn look(&mut self) -> io::Result<()> {
        self.looked = Instant::now();
        let own = self.file.metadata()?;
        let named = fs::metadata(&self.path);
        let is_same = named.is_ok_and(|named| (named.dev(), named.ino()) == (own.dev(), own.ino()));
        if is_same {
            // It may have been cut.
            self.length = self.length.min(own.len());
            return Ok(());
        }
        self.open_again()
    }

    fn open_again(&mut self) -> io::Result<()> {
        let again = Self::open(self.path.clone())?;
        (self.file, self.length) = (again.file, again.length);
        Ok(())
    }

    fn rename(&mut self) -> io::Result<()> {
        for number in (1..=KEPT).rev() {
            let from = if number == 1 { self.path.clone() } else { self.numbered(number - 1) };
            match fs::rename(from, self.numbered(number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                renamed => renamed?,
            }
        }
        self.open_again()
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_full_is_renamed_and_the_oldest_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let mut file = LogFile::open(path.clone()).unwrap();
        let large = vec![b'x'; usize::try_from(MAX_FILE).unwrap() / 2 + 1];
        for _ in 0..7 {
            file.append(&large).unwrap();
        }
        let mut names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
        names.sort();
        let expected = ["access.log", "access.log.1", "access.log.2", "access.log.3", "access.log.4"];
        assert_eq!(names, expected);
        assert_eq!(fs::metadata(path).unwrap().len(), large.len() as u64);
    }

    #[test]
    fn what_cannot_be_renamed_grows_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        // A file does not take the place of a folder.
        fs::create_dir(folder.path().join("access.log.4")).unwrap();
        fs::write(folder.path().join("access.log.3"), "").unwrap();
        let mut file = LogFile::open(path.clone()).unwrap();
        let large = vec![b'x'; usize::try_from(MAX_FILE).unwrap() / 2 + 1];
        for _ in 0..3 {
            file.append(&large).unwrap();
        }
        assert_eq!(fs::metadata(path).unwrap().len(), 3 * large.len() as u64);
    }

    #[test]
    fn a_file_that_was_renamed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("access.log"), folder.path().join("old"));
        let mut file = LogFile::open(path.clone()).unwrap();
        file.append(b"one").unwrap();
        fs::rename(&path, &old).unwrap();
        file.append(b" two").unwrap();
        file.looked = Instant::now().checked_sub(LOOK_EVERY).unwrap();
        file.append(b"three").unwrap();
        assert_eq!(fs::read(&old).unwrap(), b"one two");
        assert_eq!(fs::read(&path).unwrap(), b"three");
    }
}
