//! A job: from the arguments, variables and standard input of the process to the author's function, and back.

use std::env;
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;

use crate::log_level::{Level, install};
use crate::{Context, Error, Output, Result, bail, platform};

/// The first argument of the instance that combines.
const COMBINE: &str = "--combine";

/// One item of a job's run, with its input.
///
/// The input is read as [`Read`] or [`BufRead`] piece by piece, or as a whole by [`bytes`](Item::bytes) and
/// [`text`](Item::text).
pub struct Item {
    pub(crate) name: String,
    pub(crate) index: u32,
    pub(crate) attempt: u32,
    pub(crate) run: Option<String>,
    pub(crate) input: Box<dyn BufRead>,
    /// How much of it was last said to be done, in percent.
    pub(crate) told: Option<u8>,
}

impl Item {
    pub(crate) fn new(name: String, input: Box<dyn BufRead>) -> Self {
        Self { name, index: 0, attempt: 1, run: None, input, told: None }
    }

    fn of_this_process(name: String) -> Self {
        let number = |variable| env::var(variable).ok().and_then(|text| text.parse().ok());
        Self {
            index: number("DUNLIN_ITEM").unwrap_or(0),
            attempt: number("DUNLIN_ATTEMPT").unwrap_or(1),
            run: env::var("DUNLIN_RUN").ok(),
            ..Self::new(name, Box::new(io::stdin().lock()))
        }
    }

    /// Returns what it is called: the path of its file relative to the manifest, or its number if the items of the job
    /// are none of files. It is empty under `dunlin run` without an argument.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its number within the run, from 0.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Returns which try this is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Returns the run it belongs to, like `r3`. Under `dunlin run` there is none.
    pub fn run(&self) -> Option<&str> {
        self.run.as_deref()
    }

    /// Reads what is left of its input.
    ///
    /// # Errors
    ///
    /// If the input cannot be read.
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.input
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read the input of item `{}`", self.name))?;
        Ok(bytes)
    }

    /// Reads what is left of its input as text.
    ///
    /// # Errors
    ///
    /// If the input cannot be read, or is not UTF-8.
    pub fn text(&mut self) -> Result<String> {
        let bytes = self.bytes()?;
        String::from_utf8(bytes).with_context(|| format!("the input of item `{}` is no text", self.name))
    }

    /// Says in the log how far it is, once for each percent: `progress: item=4 done=30 total=120 percent=25`.
    pub fn progress(&mut self, done: u64, total: u64) {
        let percent = percent(done, total);
        if self.told.replace(percent) != Some(percent) {
            let line = format!("item={} done={done} total={total} percent={percent}", self.index);
            platform::log(Level::Info, "progress", &line);
        }
    }
}

impl Read for Item {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.input.read(buffer)
    }
}

impl BufRead for Item {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.input.consume(amount);
    }
}

/// Returns what share of `total` is done, in percent. Of nothing, all is done.
fn percent(done: u64, total: u64) -> u8 {
    let share = (u128::from(done) * 100).checked_div(u128::from(total)).unwrap_or(100);
    u8::try_from(share.min(100)).unwrap_or(100)
}

/// The outputs of all items of a run, one after the other in the order of the items.
///
/// Where each output is lines, [`lines`](BufRead::lines) reads the lines of all of them.
pub struct Outputs(pub(crate) Box<dyn BufRead>);

impl Outputs {
    /// Reads what is left of them as text.
    ///
    /// # Errors
    ///
    /// If they cannot be read, or are not UTF-8.
    pub fn text(&mut self) -> Result<String> {
        io::read_to_string(&mut self.0).context("the outputs of the items cannot be read as text")
    }
}

impl Read for Outputs {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl BufRead for Outputs {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.0.consume(amount);
    }
}

/// What `main` of a job does that combines nothing.
pub fn run_job<O: Output, E: Into<Error>>(work: impl FnOnce(Item) -> Result<O, E>) -> ExitCode {
    run_job_with_combine(work, |_| -> Result<()> {
        bail!(
            "this job combines nothing: write `#[dunlin_guest::job(combine = total)]` and a function `total`, or take \
             `combine = true` out of dunlin.toml"
        )
    })
}

/// What `main` of a job does that also combines.
pub fn run_job_with_combine<O, E, P, F>(
    work: impl FnOnce(Item) -> Result<O, E>,
    combine: impl FnOnce(Outputs) -> Result<P, F>,
) -> ExitCode
where
    O: Output,
    E: Into<Error>,
    P: Output,
    F: Into<Error>,
{
    install();
    let name = env::args().nth(1).unwrap_or_default();
    let written = if name == COMBINE {
        combine(Outputs(Box::new(io::stdin().lock()))).map_err(Into::into).and_then(written)
    } else {
        work(Item::of_this_process(name)).map_err(Into::into).and_then(written)
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", format!("{error:#}").replace('\n', "\\n"));
            ExitCode::FAILURE
        }
    }
}

fn written(output: impl Output) -> Result<()> {
    let mut stdout = io::stdout().lock();
    output.write_to(&mut stdout).and_then(|()| stdout.flush()).context("cannot write the output")
}

#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests {
    use super::*;
    use crate::test;

    #[test]
    fn an_input_is_read_in_pieces_or_as_a_whole() {
        let mut item = test::item("a.txt", "one\ntwo\nthree");
        let mut line = String::new();
        item.read_line(&mut line).unwrap();
        assert_eq!((line.as_str(), item.text().unwrap().as_str()), ("one\n", "two\nthree"));
    }

    #[test]
    fn an_input_that_is_no_text_is_an_error_that_names_the_item() {
        let error = test::item("a.bin", [0xff]).text().unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "the input of item `a.bin` is no text: invalid utf-8 sequence of 1 bytes from index 0"
        );
    }

    #[test]
    fn progress_is_told_once_for_each_percent() {
        let host = test::Host::new();
        host.within(|| {
            let mut item = test::item("a", "").with_index(4);
            (0..=1000).for_each(|done| item.progress(done, 1000));
        });
        let log = host.log();
        assert_eq!(log.len(), 101);
        assert_eq!(log[25], "INFO progress: item=4 done=250 total=1000 percent=25");
    }

    #[test]
    fn a_share_is_never_over_all() {
        assert_eq!(
            [percent(0, 3), percent(1, 3), percent(5, 3), percent(0, 0), percent(u64::MAX, u64::MAX)],
            [0, 33, 100, 100, 100]
        );
    }
}
