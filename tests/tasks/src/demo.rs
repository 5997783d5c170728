//! `cargo x demo`: the main job, shown on live processes, step by step; each step fails the demo if it is not so.
//!
//! It uses only what a user has: the `dunlin` program, HTTP, and signals to processes.

mod fleet;
mod http;
mod traffic;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::sys::signal::Signal;

use crate::step::{program, root, say};
use fleet::LocalFleet;
use traffic::Traffic;

/// How long the demo waits for something which should happen soon.
const PATIENCE: Duration = Duration::from_secs(90);

/// Shows the main job. With `once` the fleet is then taken down, and it is checked that nothing is left of it.
pub(crate) fn run(once: bool) -> anyhow::Result<()> {
    let fleet = LocalFleet::start(&root().join("guests/examples/quickstart"), once)?;
    let entries = fleet.ingresses()?;
    say_step("three nodes answer for one service");
    three_nodes_answer(&entries)?;
    say_step("a request body is echoed as a stream");
    echo(entries[0])?;

    let traffic = Traffic::begin(entries.clone());
    say_step("guests that misbehave are contained");
    misbehave(&fleet, entries[0])?;
    no_failure(&traffic)?;
    say_step("a batch job counts the words of the book, spread over the nodes");
    count_words(&fleet)?;
    no_failure(&traffic)?;
    say_step("an agent is killed; its work moves while requests go on");
    lose_an_agent(&fleet, &traffic, &entries)?;
    say_step("the coordinator is killed; requests go on, and nothing is forgotten");
    lose_the_coordinator(&fleet, &traffic)?;
    drop(traffic);

    if !once {
        say("\nThe fleet goes on; try these, and end it with Ctrl-C:");
        for entry in &entries {
            say(format_args!("  curl http://{entry}/"));
        }
        let program = program("dunlin");
        say(format_args!("  {} status", program.display()));
        say(format_args!("  {} logs -f", program.display()));
        return fleet.wait();
    }
    say_step("everything is taken down");
    fleet.end_and_check(&entries)?;
    say("\nThe demo is done: all of the above was seen on live processes.");
    Ok(())
}

fn say_step(title: &str) {
    say(format_args!("\n== {title}"));
}

/// Waits until `probe` says yes; it says why not otherwise.
fn eventually<T>(what: &str, mut probe: impl FnMut() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let started = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(error) if started.elapsed() > PATIENCE => {
                return Err(error.context(format!("{what} did not happen within {PATIENCE:?}")));
            }
            Err(_not_yet) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn three_nodes_answer(entries: &[SocketAddr]) -> anyhow::Result<()> {
    let answers: BTreeSet<String> = eventually("an answer from each of three nodes", || {
        let mut seen = BTreeSet::new();
        for entry in entries {
            let answer = http::request(*entry, "GET", "/", b"")?;
            ensure!(answer.status == 200, "the answer was {}: {}", answer.status, answer.body);
            seen.extend(answer.body.lines().filter(|line| line.starts_with("hello from")).map(str::to_owned));
        }
        let nodes: BTreeSet<_> = seen.iter().filter_map(|line| line.split(' ').nth(4)).collect();
        ensure!(nodes.len() == 3, "answers came from {nodes:?} only");
        Ok(seen)
    })?;
    say("each node that is asked answers itself, as it has the service:");
    answers.iter().for_each(|line| say(format_args!("  {line}")));
    Ok(())
}

fn echo(entry: SocketAddr) -> anyhow::Result<()> {
    let body = vec![b'x'; 1 << 20];
    let answer = http::request(entry, "POST", "/echo", &body)?;
    let echoed = answer.body.bytes().filter(|byte| *byte == b'x').count();
    ensure!(answer.status == 200 && echoed == body.len(), "{echoed} of {} bytes came back", body.len());
    say(format_args!("  1 MiB went in and came back through {entry}"));
    Ok(())
}

fn misbehave(fleet: &LocalFleet, entry: SocketAddr) -> anyhow::Result<()> {
    fleet.dunlin(&["deploy", "--no-build", "guests/fixtures"])?;
    for (path, code) in [("/spin", "out_of_fuel"), ("/hog", "out_of_memory")] {
        let answer = eventually(path, || {
            let answer = http::request(entry, "GET", path, b"")?;
            ensure!(answer.body.contains(code), "{path} answered {}: {}", answer.status, answer.body);
            Ok(answer)
        })?;
        let problem = answer.body.lines().find(|line| line.contains(code)).unwrap_or_default();
        say(format_args!("  GET {path} → {} {problem}", answer.status));
    }
    for (job, outcome) in [("spin-job", "OutOfFuel"), ("hog-job", "OutOfMemory")] {
        let run = fleet.start_run(&format!("misbehaving/{job}"))?;
        let status = fleet.until_ended(&run)?;
        ensure!(status == "failed", "{job} is {status}");
        let items = fleet.printed(&["job", "result", &run, "--items"])?;
        ensure!(items.contains(outcome), "the item of {job} did not end as {outcome}: {items}");
        let line = items.lines().find(|line| line.contains(outcome)).unwrap_or_default();
        say(format_args!("  job {job}: {}", line.split_whitespace().collect::<Vec<_>>().join(" ")));
    }
    fleet.dunlin(&["delete", "misbehaving", "--yes"])?;
    Ok(())
}

fn count_words(fleet: &LocalFleet) -> anyhow::Result<()> {
    let run = fleet.start_run_in("guests/examples/quickstart", "word-count")?;
    let status = fleet.until_ended(&run)?;
    ensure!(status == "completed", "the run is {status}");
    let result = fleet.dunlin(&["job", "result", &run])?;
    ensure!(result.contains("total "), "there is no total in: {result}");
    let items = fleet.dunlin(&["job", "result", &run, "--items"])?;
    let nodes: BTreeSet<&str> =
        ["node-1", "node-2", "node-3"].into_iter().filter(|node| items.contains(node)).collect();
    ensure!(nodes.len() > 1, "all items ran on {nodes:?}");
    say(format_args!("  {} (on {nodes:?}; `dunlin job result {run}`)", result.trim()));
    Ok(())
}

fn no_failure(traffic: &Traffic) -> anyhow::Result<()> {
    let count = traffic.count();
    if let Some(failure) = count.first_failure {
        bail!(
            "{} of {} requests to `hello` failed meanwhile, first: {failure}",
            count.failed,
            count.answered
        );
    }
    let slowest = count.slowest;
    say(format_args!(
        "  requests to `hello` meanwhile: {} answered, 0 failed, slowest {slowest:?}",
        count.answered
    ));
    Ok(())
}

fn lose_an_agent(fleet: &LocalFleet, traffic: &Traffic, entries: &[SocketAddr]) -> anyhow::Result<()> {
    // Clients of the dead node's own ingress see it die; all others must not.
    traffic.enter_at(entries[..2].to_vec());
    std::thread::sleep(Duration::from_millis(100));
    let process = fleet.process("node-3")?;
    let killed = Instant::now();
    fleet::signal(process, Signal::SIGKILL)?;
    say(format_args!("  node-3 (process {process}) is killed"));
    let moved = eventually("the allocation of node-3 runs elsewhere", || {
        let nodes = fleet.nodes_of_hello()?;
        ensure!(nodes.len() == 3 && !nodes.contains(&"node-3".to_owned()), "hello runs on {nodes:?}");
        Ok(nodes)
    })?;
    say(format_args!("  after {:.1} s hello runs on {moved:?}", killed.elapsed().as_secs_f64()));
    no_failure(traffic)?;
    eventually("node-3 is started again", || {
        let again = fleet.process("node-3")?;
        ensure!(again != process && fleet.is_alive("node-3")?, "node-3 is still the old process, or lost");
        Ok(())
    })?;
    say("  node-3 was started again and is back in the fleet");
    Ok(())
}

fn lose_the_coordinator(fleet: &LocalFleet, traffic: &Traffic) -> anyhow::Result<()> {
    let before = fleet.apps()?;
    let process = fleet.process("coordinator")?;
    fleet::signal(process, Signal::SIGKILL)?;
    let answered = traffic.count().answered;
    say(format_args!("  the coordinator (process {process}) is killed"));
    eventually("a hundred requests without a coordinator", || {
        ensure!(traffic.count().answered > answered + 100, "requests do not go on");
        Ok(())
    })?;
    no_failure(traffic)?;
    eventually("the coordinator is started again and the state is as it was", || {
        ensure!(fleet.process("coordinator")? != process, "it is still down");
        let after = fleet.apps()?;
        ensure!(after == before, "before: {before}\nafter: {after}");
        Ok(())
    })?;
    say("  it was started again: same revisions, same allocations, all running");
    no_failure(traffic).context("after the coordinator came back")
}
