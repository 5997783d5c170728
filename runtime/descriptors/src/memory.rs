//! A file that is in memory only, for what is too long for a message.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};

/// Returns a file with `bytes`, to be read from its beginning. It goes when nobody has it open any more.
pub fn file_in_memory(bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(memfd_create("dunlin", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut read = String::new();
        File::from(file_in_memory(b"a dump").unwrap()).read_to_string(&mut read).unwrap();
        assert_eq!(read, "a dump");
    }
}
