//! How runs, their items and their outputs are shown.

use dunlin_api::{Client, ItemPage, ItemStatus, ItemsQuery, MAX_ITEM_PAGE, RunState, RunStatus};
use serde::Serialize;

use super::{ResultArgs, is_completed};
use crate::error::CommandError;
use crate::output::{Output, Raw, table};
use crate::time::{about, utc};

/// How many characters of an item's output stand in the table.
const OUTPUT_SHOWN: usize = 60;

/// Prints the combined output if there is one, or the output of the only item, or of one that is asked for; else a line
/// for each item.
pub(super) async fn result(client: &Client, args: &ResultArgs, output: &Output) -> Result<(), CommandError> {
    let run = args.run;
    let failed = |error| CommandError::client(format!("cannot show what {run} gave"), &error);
    let status = client.run(run).await.map_err(failed)?;
    if !status.state.is_ended() {
        return Err(not_ended(&status));
    }
    if let Some(item) = args.item {
        return one_item(client, (&status, item), Raw::from(args.raw), output).await;
    }
    match &status.total_output {
        None if status.items == 1 && !args.items && !output.is_json() && is_completed(&status) => {
            return one_item(client, (&status, 0), Raw::from(args.raw), output).await;
        }
        Some(total) if !args.items => {
            if output.is_json() {
                output.json_line(&status)?;
            } else {
                output.guest_text(total, Raw::from(args.raw))?;
            }
        }
        _ => {
            let items = all_items(client, &status).await?;
            let result = RunResult { status: &status, items };
            output.result(&result, || items_table(&result.items))?;
        }
    }
    success(&status)
}

/// Prints what one item gave, whole.
async fn one_item(
    client: &Client,
    (status, item): (&RunStatus, u32),
    raw: Raw,
    output: &Output,
) -> Result<(), CommandError> {
    let RunStatus { run, items, .. } = status;
    let query = ItemsQuery { after: item.checked_sub(1), limit: Some(1) };
    let page = client.run_items(*run, &query).await;
    let page =
        page.map_err(|error| CommandError::client(format!("cannot show item {item} of {run}"), &error))?;
    let Some(own) = page.items.into_iter().find(|known| known.item == item) else {
        return Err(CommandError::failed(format!("item {item} of {run} has no record"))
            .because(format!("{run} has {items} items, which count from 0, and {} have one", status.recorded))
            .help(format!("`dunlin job result {run} --items` lists them")));
    };
    if output.is_json() {
        output.json_line(&own)?;
    } else {
        output.guest_text(&own.record.output, raw)?;
    }
    if own.record.output_cut {
        output.note(&format!("item {item} printed more than is kept"));
    }
    if own.record.outcome.is_completed() {
        return Ok(());
    }
    Err(CommandError::failed(format!("item {item} of {run} did not complete"))
        .because(own.record.outcome.to_string())
        .help(format!("`dunlin job result {run} --items` shows how each ended")))
}

#[derive(Serialize)]
struct RunResult<'a> {
    #[serde(flatten)]
    status: &'a RunStatus,
    /// What follows is called `records`, as the run itself counts its `items`.
    #[serde(rename = "records")]
    items: Vec<ItemStatus>,
}

async fn all_items(client: &Client, status: &RunStatus) -> Result<Vec<ItemStatus>, CommandError> {
    let run = status.run;
    let mut items = Vec::new();
    let mut after = None;
    loop {
        let query = ItemsQuery { after, limit: Some(MAX_ITEM_PAGE) };
        let page = client
            .run_items(run, &query)
            .await
            .map_err(|error| CommandError::client(format!("cannot list the items of {run}"), &error))?;
        let ItemPage { items: more, next } = page;
        items.extend(more);
        // A page which does not go forward would be asked for without end.
        match next {
            Some(next) if after.is_none_or(|after| next > after) => after = Some(next),
            Some(_) | None => return Ok(items),
        }
    }
}

/// Succeeds if the run did what it was started for.
pub(super) fn success(status: &RunStatus) -> Result<(), CommandError> {
    if is_completed(status) {
        return Ok(());
    }
    let RunStatus { run, items, failed, .. } = status;
    let error = CommandError::failed(format!("{run} of `{}` is {}", status.workload, status.state.name()));
    if let Some(reason) = &status.reason {
        return Err(error
            .because(reason.clone())
            .because(format!("{} of {items} items have a record", status.recorded))
            .help(format!(
                "`dunlin job status` shows its chain, `dunlin job result {run} --items` its items"
            )));
    }
    Err(match status.state {
        RunState::Cancelled => error
            .because(format!("{} of {items} items have a record", status.recorded))
            .help(format!("`dunlin job result {run} --items` shows them")),
        RunState::Failed if *failed == 0 => error
            .because("all items completed, but the instance which combines them did not")
            .help(format!("`dunlin logs {}` shows what it printed", status.workload)),
        RunState::Failed
        | RunState::Waiting
        | RunState::Running
        | RunState::Completed
        | RunState::Unknown => error
            .because(format!("{failed} of {items} items did not complete"))
            .help(format!("`dunlin job result {run} --items` shows how each ended")),
    })
}

/// Returns the error of one who wants the end of a run that goes on.
pub(super) fn not_ended(status: &RunStatus) -> CommandError {
    let RunStatus { run, items, recorded, waiting, .. } = status;
    let error = CommandError::failed(format!("{run} of `{}` has not ended", status.workload))
        .because(format!("{recorded} of {items} items have a record"));
    let error = match waiting {
        Some(waiting) => error.because(waiting.clone()),
        None => error,
    };
    error.help(format!("it goes on; `dunlin job status {run}` shows how it stands"))
}

/// Returns what is said of a run that was waited for.
pub(super) fn ended(status: &RunStatus) -> String {
    let RunStatus { run, items, succeeded, fuel, .. } = status;
    let took = status.ended.map(|ended| about(ended.since(status.created))).unwrap_or_default();
    let mut text = format!(
        "{run} is {}: {succeeded} of {items} items completed, {fuel} fuel, {took}\n",
        status.state.name()
    );
    if status.total_output.is_some() {
        text.push_str(&format!("`dunlin job result {run}` prints what it gave\n"));
    }
    text
}

/// Returns one run in detail.
pub(super) fn one(status: &RunStatus) -> String {
    let mut text = all(std::slice::from_ref(status));
    text.push_str(&format!("\n\nstarted {}", utc(status.created)));
    if let Some(ended) = status.ended {
        text.push_str(&format!("\nended   {} after {}", utc(ended), about(ended.since(status.created))));
    }
    if let Some(due) = status.due {
        text.push_str(&format!("\ndue     {}", utc(due)));
    }
    if !status.after.is_empty() {
        let after: Vec<String> = status.after.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\nafter   {}", after.join(" and ")));
    }
    if let Some(reason) = &status.reason {
        text.push_str(&format!("\nreason: {}", crate::output::escaped(reason)));
    }
    if let Some(waiting) = &status.waiting {
        text.push_str(&format!("\nwaiting: {}", crate::output::escaped(waiting)));
    }
    text.push('\n');
    text
}

/// Returns the table of runs.
pub(super) fn all(runs: &[RunStatus]) -> String {
    if runs.is_empty() {
        return "no runs yet; `dunlin job run JOB` starts one\n".to_owned();
    }
    let row = |run: &RunStatus| {
        vec![
            run.run.to_string(),
            run.workload.to_string(),
            run.state.name().to_owned(),
            format!("{}/{}", run.recorded, run.items),
            run.failed.to_string(),
            run.fuel.to_string(),
            run.ended.map(|ended| about(ended.since(run.created))).unwrap_or_default(),
        ]
    };
    table(&["RUN", "JOB", "STATE", "RECORDED", "FAILED", "FUEL", "TOOK"], runs.iter().map(row).collect())
}

fn items_table(items: &[ItemStatus]) -> String {
    let row = |ItemStatus { item, name, record }: &ItemStatus| {
        let mut output: String = record.output.trim_end().chars().take(OUTPUT_SHOWN).collect();
        if record.output_cut || record.output.trim_end().chars().nth(OUTPUT_SHOWN).is_some() {
            output.push('…');
        }
        vec![
            item.to_string(),
            name.clone().unwrap_or_default(),
            record.outcome.name().to_owned(),
            record.attempt.to_string(),
            record.node.to_string(),
            record.fuel.to_string(),
            record.memory.to_string(),
            about(record.wall),
            if record.outcome.is_completed() { output } else { record.outcome.to_string() },
        ]
    };
    table(
        &["ITEM", "INPUT", "OUTCOME", "ATTEMPT", "NODE", "FUEL", "MEMORY", "TOOK", "OUTPUT"],
        items.iter().map(row).collect(),
    )
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn run(state: &str) -> RunStatus {
        let json = format!(
            r#"{{"run":"r3","workload":"default/shop/sum","state":"{state}","items":4,"recorded":4,"succeeded":3,
            "failed":1,"fuel":7000000,"created":1763870400000,"ended":1763870412300,"waiting":"no node has room"}}"#
        );
        serde_json::from_str(&json).unwrap()
    }

    #[test]
    fn runs_are_shown() {
        expect![[r#"
            RUN  JOB               STATE   RECORDED  FAILED  FUEL  TOOK
            r3   default/shop/sum  failed  4/4       1       7M    12.3s

            started 2025-11-23T04:00:00.000Z
            ended   2025-11-23T04:00:12.300Z after 12.3s
            waiting: no node has room
        "#]]
        .assert_eq(&one(&run("failed")));
        expect![[r#"
            r3 is completed: 3 of 4 items completed, 7M fuel, 12.3s
        "#]]
        .assert_eq(&ended(&run("completed")));
        expect![[r#"
            no runs yet; `dunlin job run JOB` starts one
        "#]]
        .assert_eq(&all(&[]));
    }

    #[test]
    fn a_run_that_did_not_complete_says_why() {
        assert!(success(&run("completed")).is_ok());
        let errors = [
            success(&run("failed")).unwrap_err(),
            success(&RunStatus { failed: 0, ..run("failed") }).unwrap_err(),
            success(&run("cancelled")).unwrap_err(),
            not_ended(&run("running")),
        ];
        let lines: String = errors.iter().map(ToString::to_string).collect();
        expect![[r#"
            error: r3 of `default/shop/sum` is failed
              cause: 1 of 4 items did not complete
              help: `dunlin job result r3 --items` shows how each ended
            error: r3 of `default/shop/sum` is failed
              cause: all items completed, but the instance which combines them did not
              help: `dunlin logs default/shop/sum` shows what it printed
            error: r3 of `default/shop/sum` is cancelled
              cause: 4 of 4 items have a record
              help: `dunlin job result r3 --items` shows them
            error: r3 of `default/shop/sum` has not ended
              cause: 4 of 4 items have a record
              cause: no node has room
              help: it goes on; `dunlin job status r3` shows how it stands
        "#]]
        .assert_eq(&lines);
    }

    #[test]
    fn items_are_shown_and_programs_get_them_whole() {
        let record = |outcome: &str, output: &str| {
            format!(
                r#"{{"outcome":{outcome},"node":"node-1","attempt":1,"fuel":1000,"memory":65536,"wall":120,
                "output":"{output}","output_cut":false}}"#
            )
        };
        let json = format!(
            r#"{{"items":[{{"item":0,"name":"a.md","record":{}}},{{"item":1,"record":{}}}]}}"#,
            record(r#"{"kind":"completed"}"#, &"x".repeat(70)),
            record(r#"{"kind":"out-of-fuel","limit":60000}"#, "")
        );
        let page: ItemPage = serde_json::from_str(&json).unwrap();
        expect![[r#"
            ITEM  INPUT  OUTCOME    ATTEMPT  NODE    FUEL  MEMORY  TOOK   OUTPUT
            0     a.md   Completed  1        node-1  1k    64KiB   120ms  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…
            1            OutOfFuel  1        node-1  1k    64KiB   120ms  OutOfFuel: limit `fuel` is 60k, all of it burned"#]].assert_eq(&items_table(&page.items));
        let result = RunResult { status: &run("failed"), items: page.items[1..].to_vec() };
        expect![[r#"
            {
              "run": "r3",
              "workload": "default/shop/sum",
              "state": "failed",
              "items": 4,
              "recorded": 4,
              "succeeded": 3,
              "failed": 1,
              "fuel": 7000000,
              "created": 1763870400000,
              "ended": 1763870412300,
              "waiting": "no node has room",
              "records": [
                {
                  "item": 1,
                  "record": {
                    "outcome": {
                      "kind": "out-of-fuel",
                      "limit": 60000
                    },
                    "node": "node-1",
                    "attempt": 1,
                    "fuel": 1000,
                    "memory": 65536,
                    "wall": 120,
                    "host": {
                      "calls": 0,
                      "bytes": 0
                    },
                    "output": "",
                    "output_cut": false
                  }
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&result).unwrap());
    }
}
