//! Runs many histories, or one: `cargo x simulate --seeds 1000000`.
//!
//! Arguments: `--seeds N`, `--from S`, `--threads T`, and what a shrunk failure was found with: `--without KIND,KIND`,
//! `--nodes N`. `cargo x simulate` reads them from people and gives them all.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use dunlin_simulation::{Campaign, Found, Options, run, shrink};

/// How often it is said how far it is.
const TELL_EVERY: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let campaign = match campaign(std::env::args().skip(1)) {
        Ok(campaign) => campaign,
        Err(reason) => {
            say(&format!("error: {reason}"));
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let told = Mutex::new(Told { last: started, failures: 0 });
    let found = run(&campaign, |found| tell(&campaign, found, started, &told));
    say(&progress(&campaign, &found, started));
    say(&format!(
        "recovery took {} (half), {} (99 of 100), {} (all)\n{:?}",
        found.recovery(500),
        found.recovery(990),
        found.recovery(1_000),
        found.counts
    ));
    let Some(first) = found.failures.into_iter().next() else { return ExitCode::SUCCESS };
    say(&format!("\n{first}\n\nwith less that goes wrong:\n{}", shrink(first.clone())));
    ExitCode::FAILURE
}

/// What was said already.
struct Told {
    last: Instant,
    failures: usize,
}

/// Says now and then how far it is, and at once which seeds fail.
fn tell(campaign: &Campaign, found: &Found, started: Instant, told: &Mutex<Told>) {
    let mut told = told.lock().expect("who tells does not panic");
    for failure in &found.failures[told.failures..] {
        say(&format!("seed {} fails: {}", failure.seed, failure.reason));
    }
    told.failures = found.failures.len();
    if told.last.elapsed() >= TELL_EVERY {
        told.last = Instant::now();
        say(&progress(campaign, found, started));
    }
}

fn progress(campaign: &Campaign, found: &Found, started: Instant) -> String {
    let seconds = started.elapsed().as_secs_f64();
    let rate = found.seeds as f64 / seconds.max(0.001);
    let (done, all, failed) = (found.seeds, campaign.seeds, found.failures.len());
    format!("{done} of {all} seeds in {seconds:.0} s, {rate:.1} a second, {failed} failed")
}

/// Reads the arguments.
fn campaign(arguments: impl Iterator<Item = String>) -> Result<Campaign, String> {
    let threads = std::thread::available_parallelism().map_or(1, |it| it.get());
    let mut campaign = Campaign { from: 0, seeds: 2_000, threads, options: Options::default() };
    let mut arguments = arguments;
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("`{name}` needs a value"))?;
        match name.as_str() {
            "--seeds" => campaign.seeds = number(&name, &value)?,
            "--from" => campaign.from = number(&name, &value)?,
            "--threads" => campaign.threads = number(&name, &value)?,
            "--nodes" => campaign.options.most_nodes = Some(number(&name, &value)?),
            "--without" => {
                campaign.options.without = value.split(',').map(str::parse).collect::<Result<_, _>>()?;
            }
            _ => return Err(format!("there is no `{name}`")),
        }
    }
    Ok(campaign)
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("`{name}` needs a number, `{value}` is none"))
}

/// Says something on standard output, where a long run is read or kept.
fn say(text: &str) {
    // Who closes the pipe has read enough.
    let _ = writeln!(io::stdout(), "{text}");
}
