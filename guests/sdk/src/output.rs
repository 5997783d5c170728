//! What the function of a job may give back.

use std::io::{Result, Write};

/// What becomes the output of an item, or the total of a run.
///
/// Of each, 64 KiB are kept.
pub trait Output {
    /// Writes it to standard output.
    ///
    /// # Errors
    ///
    /// As of `stdout`.
    fn write_to(self, stdout: &mut dyn Write) -> Result<()>;
}

/// Nothing, or nothing more than what was printed.
impl Output for () {
    fn write_to(self, _stdout: &mut dyn Write) -> Result<()> {
        Ok(())
    }
}

/// Bytes, as they are.
impl Output for Vec<u8> {
    fn write_to(self, stdout: &mut dyn Write) -> Result<()> {
        stdout.write_all(&self)
    }
}

/// Lines. The last one is ended if it is not: who combines reads the outputs of all items as one text.
impl Output for &str {
    fn write_to(self, stdout: &mut dyn Write) -> Result<()> {
        stdout.write_all(self.as_bytes())?;
        if self.is_empty() || self.ends_with('\n') { Ok(()) } else { stdout.write_all(b"\n") }
    }
}

/// Lines, as of `&str`.
impl Output for String {
    fn write_to(self, stdout: &mut dyn Write) -> Result<()> {
        self.as_str().write_to(stdout)
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {
        $(
            /// A line with the number in it.
            impl Output for $number {
                fn write_to(self, stdout: &mut dyn Write) -> Result<()> {
                    writeln!(stdout, "{self}")
                }
            }
        )*
    };
}

numbers!(u32, u64, usize, i32, i64, f64);

#[cfg(test)]
mod tests {
    use super::*;

    fn written(output: impl Output) -> Vec<u8> {
        let mut bytes = Vec::new();
        output.write_to(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn texts_end_their_last_line_and_bytes_stay_as_they_are() {
        assert_eq!(written("a"), b"a\n");
        assert_eq!(written("a\nb\n"), b"a\nb\n");
        assert_eq!(written(String::new()), b"");
        assert_eq!(written(vec![0, 1]), [0, 1]);
        assert_eq!(written(7_u64), b"7\n");
        assert_eq!(written(()), b"");
    }
}
