//! What a command printed, and how it ended.

use std::process::Output;

/// What a command printed, and how it ended.
#[derive(Debug)]
pub struct Printed {
    /// Its exit code; -1 if a signal ended it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Printed {
    /// Asserts that it failed with `code` and said all of `parts` on standard error, in the three-part form.
    ///
    /// # Panics
    ///
    /// If it did not.
    pub fn assert_failed(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(
            self.err.contains("error: ") && self.err.contains("help: "),
            "an error has three parts: {self:?}"
        );
        for part in parts {
            assert!(self.err.contains(part), "`{part}` is missing: {}", self.err);
        }
    }

    /// Asserts that it succeeded, and returns its standard output.
    ///
    /// # Panics
    ///
    /// If it did not.
    pub fn assert_done(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.out
    }
}

/// Returns what a command printed.
pub fn printed(output: &Output) -> Printed {
    Printed {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
