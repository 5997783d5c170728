//! Measures against peers: prints a table and writes JSON.
//!
//! `dunlin-bench [NAME]...` runs the named benches, all of them if none is named; `cargo x bench` starts it. A bench is
//! a function in a file of its own which returns a [`report::Report`]; what it shares with others is in `report`
//! (rounds, rows, the table and the JSON), `load` (requests) and `memory`. A long bench has parts, of which one is run
//! alone as `NAME:PART`.
//!
//! Not here: tests. Nothing in this crate asserts a time, since a busy machine is no fault of the product.

mod cpu;
mod engine;
mod fuel_rate;
mod http;
mod items;
mod load;
mod memory;
mod native;
mod network;
mod processor;
mod report;
mod sandbox;
mod scheduler;
mod site;
mod store;
mod subject;
mod wasmtime;

use std::io::{self, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use dunlin_harness::Network;

// As in the program that is measured.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Every bench and what it measures.
const BENCHES: &[(&str, &str)] = &[
    ("cpu", "what metering costs guests that only compute, against plain wasmtime"),
    ("engine", "what an instance costs in time and memory, without a network"),
    ("fuel-rate", "whether busy guests get their fuel rates, and what calls into the host should cost"),
    ("http", "requests to a service through one agent, deploy to first answer, and memory"),
    ("items", "items of a job that do nothing, from submission to the last durable record"),
    ("network", "requests from node to node, calls of services, and clients that are idle"),
    ("scheduler", "what the coordinator's brain costs at ten thousand nodes, and how well it fills them"),
    (
        "store",
        "a store of ten thousand nodes and a million allocations: its size, in a file and in etcd, and how fast a \
               coordinator starts on it",
    ),
    ("sandbox", "what a sandbox costs: requests, wall, first answers and memory, against `wasmtime serve`"),
    ("site", "a component that goes to twenty nodes which share a slow link; needs network namespaces"),
];

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if names == [native::SUBCOMMAND] {
        return ended(native::serve());
    }
    let chosen = names.iter().map(|name| Chosen::parse(name).ok_or(*name)).collect::<Result<Vec<_>, _>>();
    match chosen {
        Ok(chosen) if chosen.is_empty() => {
            let all = BENCHES.iter().map(|(name, _)| Chosen { name, part: None });
            ended(run(&all.collect::<Vec<_>>()))
        }
        Ok(chosen) => ended(run(&chosen)),
        Err(unknown) => {
            let list: String = BENCHES.iter().map(|(name, what)| format!("\n  {name}: {what}")).collect();
            let parts: String = sandbox::PARTS.iter().map(|part| format!("\n  sandbox:{part}")).collect();
            warn(&format!("error: there is no bench `{unknown}`\nhelp: these are there:{list}{parts}"));
            ExitCode::from(2)
        }
    }
}

/// A bench to be run, or one part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Chosen {
    name: &'static str,
    part: Option<&'static str>,
}

impl Chosen {
    /// Reads `NAME` or `NAME:PART`; nothing if there is no such bench.
    fn parse(text: &str) -> Option<Self> {
        let (name, part) = text.split_once(':').map_or((text, None), |(name, part)| (name, Some(part)));
        let (name, _) = *BENCHES.iter().find(|(known, _)| *known == name)?;
        let known = if name == "sandbox" { sandbox::PARTS } else { &[] };
        let part = match part {
            Some(part) => Some(*known.iter().find(|known| **known == part)?),
            None => None,
        };
        Some(Self { name, part })
    }
}

/// One thread for all of a bench: what measures should take as little as it can of what is measured.
fn run(chosen: &[Chosen]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for Chosen { name, part } in chosen {
        if *name == "site" && !Network::is_of_its_own() {
            let program = std::env::current_exe()?.display().to_string();
            let ended = Network::of_its_own(&[program, (*name).to_owned()]).status()?;
            anyhow::ensure!(
                ended.success(),
                "bench `{name}` failed, or this user may make no network namespaces"
            );
            continue;
        }
        let report = match *name {
            "cpu" => runtime.block_on(cpu::run()),
            "engine" => runtime.block_on(engine::run()),
            "fuel-rate" => runtime.block_on(fuel_rate::run()),
            "http" => runtime.block_on(http::run()),
            "items" => runtime.block_on(items::run()),
            "network" => runtime.block_on(network::run()),
            "sandbox" => runtime.block_on(sandbox::run(*part)),
            "scheduler" => runtime.block_on(scheduler::run()),
            "site" => runtime.block_on(site::run()),
            "store" => runtime.block_on(store::run()),
            other => unreachable!("`{other}` is not in the list of benches"),
        };
        let report = report.with_context(|| format!("bench `{name}` failed"))?;
        say(&report.text());
        let path = report.write()?;
        say(&format!("written to {}", path.display()));
    }
    Ok(())
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            warn(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Prints a line of the result. Who closed the pipe does not want it.
fn say(line: &str) {
    drop(writeln!(io::stdout(), "{line}"));
}

/// Prints a line beside the result.
fn warn(line: &str) {
    drop(writeln!(io::stderr(), "{line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bench_is_named_alone_or_with_one_of_its_parts() {
        assert_eq!(Chosen::parse("http"), Some(Chosen { name: "http", part: None }));
        let part = Some("services");
        assert_eq!(Chosen::parse("sandbox:services"), Some(Chosen { name: "sandbox", part }));
        for unknown in ["", "htt", "http:", "http:services", "sandbox:", "sandbox:none"] {
            assert_eq!(Chosen::parse(unknown), None, "{unknown}");
        }
    }
}
