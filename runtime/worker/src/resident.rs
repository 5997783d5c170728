//! The program's own code, as far as it is in this process's memory.
//!
//! One program is everything: command line, coordinator, agent, worker. What an agent or a worker runs once,
//! to start, it never runs again, but the system counts it as its memory from then on. It can be let go of: it is as on disk, so
//! the system takes it out of the process, and what is wanted after all is back at the next step, from its own cache.

use std::fs;
use std::ops::Range;

use nix::libc;

/// Lets go of the program's code, as far as it is in memory: of a process that has started and now idles.
pub fn let_go_of_code() {
    Resident::of_this_process().let_go();
}

/// Where the program's code, and data that nobody writes, are mapped.
#[derive(Debug, Default)]
pub(crate) struct Resident {
    ranges: Vec<Range<usize>>,
}

impl Resident {
    /// Looks it up. Behind a wall that cannot be done any more.
    pub(crate) fn of_this_process() -> Self {
        let program = fs::read_link("/proc/self/exe").unwrap_or_default();
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self { ranges: program.to_str().map_or_else(Vec::new, |program| ranges(&maps, program)) }
    }

    /// Lets go of what of it is in memory.
    #[expect(unsafe_code, reason = "no safe function takes memory out of a process")]
    pub(crate) fn let_go(&self) {
        for range in &self.ranges {
            // SAFETY: These are mappings of the program's file which can be read or executed and never written, so
            // every page of them is as on disk and comes back from there, unchanged, when it is touched.
            let advised = unsafe { libc::madvise(range.start as *mut _, range.len(), libc::MADV_DONTNEED) };
            if advised != 0 {
                tracing::debug!("the system keeps code in memory that is not needed");
            }
        }
    }
}

/// Returns which mappings in a list of the kernel's are of `program` and never written: its code, and what stands at the
/// beginning of its file. What the linker has written to when the program began, and made read-only then, is not.
fn ranges(maps: &str, program: &str) -> Vec<Range<usize>> {
    let range = |line: &str| {
        let mut fields = line.split_whitespace();
        let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
        let path = fields.nth(2)?;
        let is_code = rights == "r-xp";
        let is_beginning = rights == "r--p" && usize::from_str_radix(offset, 16) == Ok(0);
        let (start, end) = range.split_once('-')?;
        let range = usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?;
        (path == program && (is_code || is_beginning)).then_some(range)
    };
    maps.lines().filter_map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_never_written_is_let_go() {
        let maps = "\
            1000-3000 r--p 00000000 fe:00 17 /bin/dunlin\n\
            3000-9000 r-xp 00002000 fe:00 17 /bin/dunlin\n\
            9000-a000 r--p 00008000 fe:00 17 /bin/dunlin\n\
            a000-b000 rw-p 00009000 fe:00 17 /bin/dunlin\n\
            b000-c000 rw-p 00000000 00:00 0\n\
            d000-e000 r-xp 00000000 fe:00 18 /lib/libc.so.6\n";
        assert_eq!(ranges(maps, "/bin/dunlin"), [0x1000..0x3000, 0x3000..0x9000]);
    }

    #[test]
    fn what_was_let_go_is_there_when_it_is_wanted() {
        let resident = Resident::of_this_process();
        assert!(!resident.ranges.is_empty());
        for _ in 0..3 {
            resident.let_go();
            assert_eq!(format!("{:?}", resident.ranges.len()), resident.ranges.len().to_string());
        }
    }
}
