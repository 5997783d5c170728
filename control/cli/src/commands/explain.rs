//! `dunlin explain`: everything that is known of an instance that ended badly.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use dunlin_api::{Client, TrapList, TrapsQuery};
use dunlin_model::{CoreDump, InstanceId, TrapOnNode, TrapRecord};

use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, escaped, table};
use crate::time::{about, utc};

/// Show what is known of an instance that ended badly: its stack, its last calls into the host, its last words.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin explain a12.3")]
pub(crate) struct ExplainArgs {
    /// The instance, as the log and the answer to a failed request name it: `a12.3`.
    #[arg(value_name = "INSTANCE")]
    pub(crate) instance: InstanceId,
    /// Also write its core dump to this file, if its workload has `coredump = true` and the node still has it.
    #[arg(long, value_name = "FILE")]
    pub(crate) coredump: Option<PathBuf>,
}

pub(crate) async fn run(global: &Global, args: ExplainArgs, output: &Output) -> Result<(), CommandError> {
    let client = crate::client::connect(global)?;
    let InstanceId { allocation, number } = args.instance;
    let query = TrapsQuery { allocation: Some(allocation), instance: Some(number), ..TrapsQuery::default() };
    let cannot = format!("cannot explain instance {}", args.instance);
    let mut list = client.traps(&query).await.map_err(|error| CommandError::client(&cannot, &error))?;
    // A worker that was started again counts its instances anew.
    let Some(latest) = list.traps.pop() else {
        let error = match list.unheard.as_slice() {
            [] => CommandError::failed(&cannot).because("no node has a record of it".to_owned()),
            unheard => {
                let unheard: Vec<String> = unheard.iter().map(ToString::to_string).collect();
                let why =
                    format!("no node has a record of it, but {} could not be asked", unheard.join(", "));
                CommandError::failed(&cannot).because(why)
            }
        };
        return Err(error.help(
            "only instances that ended badly are kept, the latest of each workload; `dunlin logs --traps` lists them",
        ));
    };
    output.result(&latest, || shown(&latest))?;
    match args.coredump {
        Some(path) => fetch(&client, &latest, &path, output).await,
        None => Ok(()),
    }
}

/// Writes the core dump of an instance to a file, which is complete or not there.
async fn fetch(
    client: &Client,
    TrapOnNode { node, trap }: &TrapOnNode,
    path: &Path,
    output: &Output,
) -> Result<(), CommandError> {
    let cannot = format!("cannot fetch the core dump of {}", trap.instance);
    let size = match &trap.coredump {
        Some(CoreDump::Made { size }) => size,
        Some(CoreDump::NotMade { reason }) => {
            return Err(CommandError::failed(&cannot).because(format!("none was made: {reason}")).help(
                "the book's guide on debugging says of what a core dump is made, and how large it may be",
            ));
        }
        None => {
            return Err(CommandError::failed(&cannot).because("none was made".to_owned()).help(
                "write `coredump = true` into the workload's section of the manifest and deploy again",
            ));
        }
    };
    let mut stream =
        client.coredump(node, trap.instance).await.map_err(|error| CommandError::client(&cannot, &error))?;
    let unwritten = |error: &io::Error| {
        CommandError::failed(&cannot).caused_by(error).help("give another file: `--coredump FILE`")
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Readable by its owner alone: it holds all that the guest did.
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(|error| unwritten(&error))?;
    while let Some(bytes) = stream.next().await.map_err(|error| CommandError::client(&cannot, &error))? {
        file.write_all(&bytes).map_err(|error| unwritten(&error))?;
    }
    file.persist(path).map_err(|error| unwritten(&error.error))?;
    output.note(&format!("its core dump is in {}: {size}", path.display()));
    Ok(())
}

/// Returns all of a record, for people.
fn shown(TrapOnNode { node, trap }: &TrapOnNode) -> String {
    let TrapRecord { at, instance, workload, revision, outcome, fuel, memory, wall, host, .. } = trap;
    let mut text = String::new();
    let mut line = |line: String| {
        // All of it may hold what a guest has chosen.
        text.push_str(&escaped(&line).replace('\n', "\\n"));
        text.push('\n');
    };
    line(format!("{instance} of {workload}, revision {revision}, on {node}, {}", utc(*at)));
    line(outcome.to_string());
    line(String::new());
    let used = format!("burned {fuel} of fuel, held {memory} at most, took {}", about(*wall));
    line(format!("It {used}, called the host {} times.", host.calls));
    if trap.missed > 0 {
        line(format!(
            "{} more of its allocation ended so before it without a record of their own.",
            trap.missed
        ));
    }
    if !trap.frames.is_empty() {
        line(String::new());
        line("Stack, innermost call first:".to_owned());
        for (number, frame) in trap.frames.iter().enumerate() {
            line(format!("  {number:>2}  {frame}"));
        }
    }
    if !trap.host_calls.is_empty() {
        line(String::new());
        line("Last calls into the host, the latest last:".to_owned());
        for call in &trap.host_calls {
            line(format!("  {}: {}", call.name, call.outcome));
        }
    }
    match &trap.coredump {
        None => {}
        Some(CoreDump::Made { size }) => {
            line(String::new());
            line(format!("A core dump of {size} was made: `--coredump FILE` fetches it."));
        }
        Some(CoreDump::NotMade { reason }) => {
            line(String::new());
            line(format!("No core dump was made: {reason}."));
        }
    }
    if !trap.stderr.is_empty() {
        line(String::new());
        line("Last lines on standard error:".to_owned());
        for said in &trap.stderr {
            line(format!("  {said}"));
        }
    }
    text
}

/// Returns the list of records as `dunlin logs --traps` shows it.
pub(crate) fn listed(list: &TrapList) -> String {
    if list.traps.is_empty() {
        return "no instance ended badly, as far as the nodes remember\n".to_owned();
    }
    let row = |TrapOnNode { trap, .. }: &TrapOnNode| {
        let frame = trap.first_frame().map(ToString::to_string).unwrap_or_default();
        let cells = [
            utc(trap.at),
            trap.instance.to_string(),
            trap.workload.to_string(),
            trap.outcome.name().to_owned(),
            frame,
        ];
        cells.to_vec()
    };
    table(&["TIME", "INSTANCE", "WORKLOAD", "OUTCOME", "WHERE"], list.traps.iter().map(row).collect())
}

#[cfg(test)]
mod tests {
    use dunlin_model::{
        AllocationId, Bytes, DurationMs, Frame, Fuel, HostCall, HostCalls, Outcome, Revision, Timestamp,
    };
    use expect_test::expect;

    use super::*;

    fn record() -> TrapOnNode {
        let call =
            |name: &str, outcome: &str| HostCall { name: name.to_owned(), outcome: outcome.to_owned() };
        let frame = |function: &str| Frame { function: function.to_owned(), ..Frame::default() };
        let own = Frame {
            file: Some("shop/src/pay.rs".to_owned()),
            line: Some(41),
            column: Some(9),
            ..frame("shop::pay\u{1b}[2J")
        };
        let trap = TrapRecord {
            at: Timestamp(1_763_870_400_123),
            instance: InstanceId { allocation: AllocationId::new(12), number: 3 },
            workload: "default/shop/cart".parse().unwrap(),
            revision: Revision(4),
            outcome: Outcome::Trapped {
                reason: "wasm trap: wasm `unreachable` instruction executed".to_owned(),
            },
            fuel: Fuel(1_204_331),
            memory: Bytes(1 << 20),
            wall: DurationMs(12),
            host: HostCalls { calls: 7, bytes: Bytes(90) },
            frames: vec![frame("std::panicking::begin"), own],
            host_calls: vec![
                call("wasi:cli/stderr.get-stderr", "ok"),
                call("wasi:io/streams.output-stream.check-write", "error: Closed"),
            ],
            stderr: vec!["thread 'main' panicked\na1.1 host | forged".to_owned()],
            missed: 2,
            coredump: None,
        };
        TrapOnNode { node: "node-1".parse().unwrap(), trap }
    }

    #[test]
    fn all_of_a_record_is_shown_and_a_guest_can_forge_none_of_it() {
        expect![[r#"
            a12.3 of default/shop/cart, revision 4, on node-1, 2025-11-23T04:00:00.123Z
            Trapped: wasm trap: wasm `unreachable` instruction executed

            It burned 1204331 of fuel, held 1MiB at most, took 12ms, called the host 7 times.
            2 more of its allocation ended so before it without a record of their own.

            Stack, innermost call first:
               0  std::panicking::begin
               1  shop::pay\u{1b}[2J at shop/src/pay.rs:41:9

            Last calls into the host, the latest last:
              wasi:cli/stderr.get-stderr: ok
              wasi:io/streams.output-stream.check-write: error: Closed

            Last lines on standard error:
              thread 'main' panicked\na1.1 host | forged
        "#]]
        .assert_eq(&shown(&record()));
    }

    #[test]
    fn the_list_names_the_place_that_an_author_knows() {
        let list = TrapList { traps: vec![record()], unheard: Vec::new() };
        expect![[r#"
            TIME                      INSTANCE  WORKLOAD           OUTCOME  WHERE
            2025-11-23T04:00:00.123Z  a12.3     default/shop/cart  Trapped  shop::pay\u{1b}[2J at shop/src/pay.rs:41:9"#]]
        .assert_eq(&listed(&list));
        expect![[r#"
            no instance ended badly, as far as the nodes remember
        "#]]
        .assert_eq(&listed(&TrapList::default()));
    }
}
