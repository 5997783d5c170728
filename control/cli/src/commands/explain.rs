//! `dunlin explain`: why things are as they are. Of a workload and an allocation the coordinator's brain says it
//! ([`why`]), of an instance that ended badly its node does.

mod why;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use dunlin_api::{Client, TrapList, TrapsQuery};
use dunlin_model::{AllocationId, CoreDump, InstanceId, Name, TrapOnNode, TrapRecord};

use crate::args::Global;
use crate::error::CommandError;
use crate::output::{Output, escaped, table};
use crate::time::{about, utc};

/// Show why a workload or an allocation is as it is: where and why there, what it waits for, why it ended; or what is
/// known of an instance that ended badly.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin explain shop/cart, dunlin explain a12, dunlin explain a12.3")]
pub(crate) struct ExplainArgs {
    /// A workload (`cart`, `shop/cart`, `default/shop/cart`), an allocation (`a12`), or an instance, as the log and the
    /// answer to a failed request name it (`a12.3`).
    #[arg(value_name = "WORKLOAD|ALLOCATION|INSTANCE")]
    pub(crate) subject: Subject,
    /// Of an instance, also write its core dump to this file, if its workload has `coredump = true` and the node still
    /// has it.
    #[arg(long, value_name = "FILE")]
    pub(crate) coredump: Option<PathBuf>,
}

/// What is to be explained. Its form says which: a workload that is called like an allocation is named with its app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    Instance(InstanceId),
    Allocation(AllocationId),
    Workload(String),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(instance) = text.parse() {
            return Ok(Self::Instance(instance));
        }
        if let Ok(allocation) = text.parse() {
            return Ok(Self::Allocation(allocation));
        }
        let parts: Vec<&str> = text.split('/').collect();
        if (1..=3).contains(&parts.len()) && parts.iter().all(|part| part.parse::<Name>().is_ok()) {
            return Ok(Self::Workload(text.to_owned()));
        }
        Err("it is neither a workload like `shop/cart`, nor an allocation like `a12`, nor an instance like `a12.3`"
            .to_owned())
    }
}

pub(crate) async fn run(global: &Global, args: ExplainArgs, output: &Output) -> Result<(), CommandError> {
    let ExplainArgs { subject, coredump } = args;
    if coredump.is_some() && !matches!(subject, Subject::Instance(_)) {
        return Err(CommandError::usage("cannot fetch a core dump")
            .because("only an instance has one, and this is none")
            .help("`dunlin logs --traps` lists instances that ended badly, like `a12.3`"));
    }
    let client = crate::client::connect(global)?;
    match subject {
        Subject::Instance(instance) => explain_instance(&client, instance, coredump, output).await,
        Subject::Allocation(id) => why::allocation(&client, id, output).await,
        Subject::Workload(text) => why::workload(&client, &text, global.namespace.as_ref(), output).await,
    }
}

async fn explain_instance(
    client: &Client,
    id: InstanceId,
    coredump: Option<PathBuf>,
    output: &Output,
) -> Result<(), CommandError> {
    let InstanceId { allocation, number } = id;
    let query = TrapsQuery { allocation: Some(allocation), instance: Some(number), ..TrapsQuery::default() };
    let cannot = format!("cannot explain instance {id}");
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
    match coredump {
        Some(path) => fetch(client, &latest, &path, output).await,
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
    use dunlin_model::{Bytes, DurationMs, Frame, Fuel, HostCall, HostCalls, Outcome, Revision, Timestamp};
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
    fn the_form_of_a_name_says_what_it_is() {
        let read = |text: &str| text.parse::<Subject>();
        assert!(matches!(read("a12.3"), Ok(Subject::Instance(_))));
        assert!(matches!(read("a12"), Ok(Subject::Allocation(_))));
        for workload in ["cart", "shop/cart", "default/shop/cart", "shop/a12"] {
            assert_eq!(read(workload), Ok(Subject::Workload(workload.to_owned())));
        }
        for nothing in ["", "a/b/c/d", "Cart", "a12.", "shop/"] {
            assert!(read(nothing).is_err(), "{nothing}");
        }
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
