//! Why a workload or an allocation is as it is, for people.

use dunlin_api::Client;
use dunlin_model::{
    AllocationExplanation, AllocationFailure, AllocationId, EndedAllocation, ExplainedAllocation,
    ExplainedWait, Explanation, Name,
};

use crate::error::CommandError;
use crate::names;
use crate::output::{Output, escaped, table};
use crate::time::{about, utc};

pub(super) async fn workload(
    client: &Client,
    text: &str,
    namespace: Option<&Name>,
    output: &Output,
) -> Result<(), CommandError> {
    let cannot = format!("cannot explain `{text}`");
    let apps = client.apps().await.map_err(|error| CommandError::client(&cannot, &error))?.apps;
    let name = names::workload(text, namespace, &names::of_apps(&apps))?;
    let told = client.explain(&name).await.map_err(|error| CommandError::client(&cannot, &error))?;
    output.result(&told, || of_workload(&told))
}

pub(super) async fn allocation(
    client: &Client,
    id: AllocationId,
    output: &Output,
) -> Result<(), CommandError> {
    let told = client
        .explain_allocation(id)
        .await
        .map_err(|error| CommandError::client(format!("cannot explain allocation {id}"), &error))?;
    output.result(&told, || of_allocation(&told))
}

fn of_workload(told: &Explanation) -> String {
    let Explanation { workload, revision, desired, running, requires, .. } = told;
    let mut text = match revision {
        Some(revision) if *desired > 0 => {
            format!("`{workload}`, revision {revision}: {running} of {desired} allocations serve\n")
        }
        Some(revision) => format!("`{workload}`, revision {revision}\n"),
        None => format!("`{workload}` is not there any more\n"),
    };
    if !requires.is_empty() {
        text.push_str(&format!("on a node it needs {}\n", requires.join(", ")));
    }
    if !told.allocations.is_empty() {
        let rows = told.allocations.iter().map(|it| {
            let ExplainedAllocation { id, node, revision, state, because, .. } = it;
            [id.to_string(), node.to_string(), revision.to_string(), state.clone(), because.clone()].to_vec()
        });
        let header = ["ALLOCATION", "NODE", "REVISION", "STATE", "WHY THERE"];
        text.push_str(&format!("\n{}\n", table(&header, rows.collect())));
    }
    if told.more > 0 {
        text.push_str(&format!("and {} more; `dunlin explain` tells of each by its id\n", told.more));
    }
    text.push_str(&told.waiting.as_ref().map(waits).unwrap_or_default());
    text.push_str(&failed(&told.failures));
    text.push_str(&ended(&told.ended));
    text
}

fn of_allocation(told: &AllocationExplanation) -> String {
    let mut text = String::new();
    if let Some(allocation) = &told.allocation {
        let ExplainedAllocation { id, node, revision, state, because, placed, .. } = allocation;
        text.push_str(&format!("{id} of `{}`, revision {revision}, on {node}\n", told.workload));
        text.push_str(&format!("placed {}; now {}\n", utc(*placed), escaped(state)));
        text.push_str(&format!("why there: {because}\n"));
    }
    if let Some(it) = &told.ended {
        let EndedAllocation { id, node, revision, at, lasted, because, last_said, .. } = it;
        text.push_str(&format!("{id} of `{}`, revision {revision}, was on {node}\n", told.workload));
        text.push_str(&format!("ended {} after {}: {because}\n", utc(*at), about(*lasted)));
        if let Some(said) = last_said {
            text.push_str(&format!("its node last said: {}\n", escaped(said)));
        }
    }
    text + &failed(&told.failures)
}

fn waits(told: &ExplainedWait) -> String {
    let ExplainedWait { missing, ready_items, reason, nodes, able, filters, remedies, nearest } = told;
    let what = match (missing, ready_items) {
        (0, 1) => "1 item could be worked on and is not".to_owned(),
        (0, items) => format!("{items} items could be worked on and are not"),
        (1, _) => "1 allocation waits".to_owned(),
        (missing, _) => format!("{missing} allocations wait"),
    };
    let mut text = format!("\n{what}: {}\n", escaped(reason));
    if !filters.is_empty() {
        text.push_str(&format!("{able} of {nodes} nodes could take one more; of the others\n"));
        for filter in filters {
            let verb = if filter.nodes == 1 { "is" } else { "are" };
            text.push_str(&format!("  {} {verb} {}\n", filter.nodes, escaped(&filter.filter)));
        }
    }
    match remedies.as_slice() {
        [] => {}
        [one] => text.push_str(&format!("this would let one more be placed: {}\n", escaped(&one.text))),
        several => {
            text.push_str("each of these alone would let one more be placed:\n");
            several.iter().for_each(|it| text.push_str(&format!("  {}\n", escaped(&it.text))));
        }
    }
    if let Some(nearest) = nearest {
        text.push_str(&format!("no single change would do; the nearest is: {}\n", escaped(nearest)));
    }
    text
}

fn failed(failures: &[AllocationFailure]) -> String {
    if failures.is_empty() {
        return String::new();
    }
    let rows = failures.iter().map(|failure| {
        let AllocationFailure { id, node, at, said } = failure;
        vec![utc(*at), id.to_string(), node.to_string(), said.clone()]
    });
    format!("\nfailed lately\n{}\n", table(&["TIME", "ALLOCATION", "NODE", "SAID"], rows.collect()))
}

fn ended(ended: &[EndedAllocation]) -> String {
    if ended.is_empty() {
        return String::new();
    }
    let rows = ended.iter().map(|it| {
        let EndedAllocation { id, revision, node, at, lasted, because, last_said, why: _ } = it;
        let said = last_said.as_ref().map(|said| format!("; it was {said}")).unwrap_or_default();
        let why = format!("{because}{said}");
        vec![utc(*at), id.to_string(), node.to_string(), revision.to_string(), about(*lasted), why]
    });
    let header = ["TIME", "ALLOCATION", "NODE", "REVISION", "LASTED", "WHY"];
    format!("\nended lately\n{}\n", table(&header, rows.collect()))
}

#[cfg(test)]
mod tests {
    use dunlin_model::{
        Decision, DurationMs, EndReason, FilterCount, Remedy, RemedyKind, Revision, Timestamp,
    };
    use expect_test::expect;

    use super::*;

    fn told() -> Explanation {
        let remedy = |kind, text: &str| Remedy { kind, text: text.to_owned(), nodes: 1 };
        let filter = |nodes, filter: &str| FilterCount { filter: filter.to_owned(), nodes };
        Explanation {
            workload: "default/shop/cart".parse().unwrap(),
            revision: Some(Revision(3)),
            desired: 2,
            running: 1,
            requires: vec!["zone = b".to_owned(), "64MiB of memory".to_owned()],
            allocations: vec![ExplainedAllocation {
                id: AllocationId::new(7),
                revision: Revision(3),
                node: "b1".parse().unwrap(),
                placed: Timestamp(1_763_870_400_123),
                state: "running".to_owned(),
                decided_by: Decision::OnlyNode,
                runner_up: None,
                because: "no other node can take it".to_owned(),
            }],
            more: 0,
            waiting: Some(ExplainedWait {
                missing: 1,
                ready_items: 0,
                reason: "needs 64MiB; the freest of 1 node has 48MiB".to_owned(),
                nodes: 4,
                able: 0,
                filters: vec![filter(3, "not `zone = b`"), filter(1, "too full")],
                remedies: vec![
                    remedy(RemedyKind::Free, "free 16MiB of memory on b1"),
                    remedy(RemedyKind::Drop, "drop `zone = b`"),
                ],
                nearest: None,
            }),
            failures: vec![AllocationFailure {
                id: AllocationId::new(6),
                node: "b1".parse().unwrap(),
                at: Timestamp(1_763_870_300_000),
                said: "backing-off: \u{1b}[2J".to_owned(),
            }],
            ended: vec![EndedAllocation {
                id: AllocationId::new(6),
                revision: Revision(2),
                node: "b1".parse().unwrap(),
                at: Timestamp(1_763_870_400_000),
                lasted: DurationMs(61_000),
                why: EndReason::Replaced,
                because: "revision 3 took its place".to_owned(),
                last_said: Some("backing-off: no such file".to_owned()),
            }],
        }
    }

    #[test]
    fn a_workload_is_told_with_where_why_and_what_would_help() {
        expect![[r#"
            `default/shop/cart`, revision 3: 1 of 2 allocations serve
            on a node it needs zone = b, 64MiB of memory

            ALLOCATION  NODE  REVISION  STATE    WHY THERE
            a7          b1    3         running  no other node can take it

            1 allocation waits: needs 64MiB; the freest of 1 node has 48MiB
            0 of 4 nodes could take one more; of the others
              3 are not `zone = b`
              1 is too full
            each of these alone would let one more be placed:
              free 16MiB of memory on b1
              drop `zone = b`

            failed lately
            TIME                      ALLOCATION  NODE  SAID
            2025-11-23T03:58:20.000Z  a6          b1    backing-off: \u{1b}[2J

            ended lately
            TIME                      ALLOCATION  NODE  REVISION  LASTED  WHY
            2025-11-23T04:00:00.000Z  a6          b1    2         1m01s   revision 3 took its place; it was backing-off: no such file
        "#]].assert_eq(&of_workload(&told()));
    }

    #[test]
    fn an_allocation_is_told_while_it_is_there_and_when_it_has_ended() {
        let Explanation { workload, allocations, failures, ended, .. } = told();
        let there = AllocationExplanation {
            workload: workload.clone(),
            allocation: allocations.into_iter().next(),
            ended: None,
            failures: Vec::new(),
        };
        let gone =
            AllocationExplanation { workload, allocation: None, ended: ended.into_iter().next(), failures };
        expect![[r#"
            a7 of `default/shop/cart`, revision 3, on b1
            placed 2025-11-23T04:00:00.123Z; now running
            why there: no other node can take it

            a6 of `default/shop/cart`, revision 2, was on b1
            ended 2025-11-23T04:00:00.000Z after 1m01s: revision 3 took its place
            its node last said: backing-off: no such file

            failed lately
            TIME                      ALLOCATION  NODE  SAID
            2025-11-23T03:58:20.000Z  a6          b1    backing-off: \u{1b}[2J
        "#]]
        .assert_eq(&format!("{}\n{}", of_allocation(&there), of_allocation(&gone)));
    }
}
