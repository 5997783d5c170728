//! The life of allocations on one node as scenarios: what happens goes in as lines, what is to be done comes out.
//!
//! An allocation is written `a1:shop/front:c1`, a job's `a2:shop/sum:c1:0..3*2` (items 0..3, two at a time; `+` at
//! the end for the combining instance). A revision other than the first is written `a1:shop/front@2:c1`.

#![expect(
    clippy::unwrap_used,
    reason = "clippy's leave for tests does not reach the functions that tests share"
)]

use std::fmt::Write as _;

use dunlin_model::{
    AllocationId, AssignedAllocation, Assignment, Bytes, Digest, DurationMs, Fuel, Generation, ItemRange,
    JobSpec, Limits, Outcome, Revision, RouteTable, RunId, ServiceSpec, Term, Timestamp, Work, WorkloadKind,
    WorkloadSpec,
};
use dunlin_supervisor::{Action, Config, Event, Supervisor};
use expect_test::{Expect, expect};

struct Scene {
    supervisor: Supervisor,
    config: Config,
    now: Timestamp,
    said: String,
}

fn check(scenario: &str, expected: Expect) {
    check_with(Config::default(), scenario, expected);
}

fn check_with(config: Config, scenario: &str, expected: Expect) {
    let mut scene = Scene {
        supervisor: fresh_supervisor(config),
        config,
        now: Timestamp(1_000_000),
        said: String::new(),
    };
    for line in scenario.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(scene.said, "{line}").unwrap();
        scene.perform(line);
    }
    expected.assert_eq(&scene.said);
}

fn fresh_supervisor(config: Config) -> Supervisor {
    Supervisor::new("fleet".parse().unwrap(), "node".parse().unwrap(), config)
}

impl Scene {
    fn perform(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let now = self.now;
        let actions = match words.as_slice() {
            ["assign", rest @ ..] => match self.supervisor.assign(assignment(rest), now) {
                Ok(actions) => actions,
                Err(stale) => return writeln!(self.said, "  refused: {stale}").unwrap(),
            },
            ["restart", rest @ ..] => {
                self.supervisor = fresh_supervisor(self.config);
                self.supervisor.restore(assignment(rest), now)
            }
            ["wait", milliseconds] => return self.wait(milliseconds.parse().unwrap()),
            ["report"] => return self.report(),
            ["deadline"] => {
                let deadline = self.supervisor.next_deadline().map(|it| it.since(now).to_string());
                return writeln!(self.said, "  {}", deadline.as_deref().unwrap_or("none")).unwrap();
            }
            words => self.supervisor.observe(event(words), now),
        };
        self.say(&actions);
    }

    /// Lets time pass, ticking at each deadline on the way as the agent does.
    fn wait(&mut self, milliseconds: u64) {
        let end = self.now.plus(DurationMs(milliseconds));
        while let Some(deadline) = self.supervisor.next_deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline > self.now, "a deadline has to be in the future, or the agent would spin");
            self.now = deadline;
            let actions = self.supervisor.tick(deadline);
            self.say(&actions);
        }
        self.now = end;
        let actions = self.supervisor.tick(end);
        self.say(&actions);
    }

    fn say(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Save(assignment) => {
                    writeln!(self.said, "  save {} {}", assignment.term, assignment.generation)
                }
                Action::SetRoutes(table) => writeln!(self.said, "  set routes, {} peers", table.peers.len()),
                Action::Fetch { digest } => writeln!(self.said, "  fetch {}", component_name(digest)),
                Action::Start { allocation } => writeln!(self.said, "  start {}", allocation.id),
                Action::Stop { allocation, namespace } => {
                    writeln!(self.said, "  stop {allocation} in {namespace}")
                }
                Action::RunItem { allocation, namespace, run, item, combine } => {
                    let combine = if *combine { ", combining" } else { "" };
                    writeln!(self.said, "  run item {item} of {run} in {allocation} in {namespace}{combine}")
                }
            }
            .unwrap();
        }
    }

    fn report(&mut self) {
        let (term, generation, allocations, items) = self.supervisor.report();
        writeln!(self.said, "  stored {term} {generation}").unwrap();
        for it in allocations {
            write!(self.said, "  {} {}", it.id, it.state).unwrap();
            for (number, unit) in [(u64::from(it.restarts), "restarts"), (it.fuel.0, "fuel")] {
                if number > 0 {
                    write!(self.said, ", {number} {unit}").unwrap();
                }
            }
            writeln!(self.said).unwrap();
        }
        for it in items {
            let record = it.record;
            let (allocation, item, run) = (it.allocation, it.item, it.run);
            let (attempt, node, outcome) = (record.attempt, record.node, record.outcome);
            writeln!(
                self.said,
                "  item {item} of {run} in {allocation} on {node}, attempt {attempt}: {outcome}"
            )
            .unwrap();
        }
    }
}

fn component(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn component_name(digest: &Digest) -> String {
    (0..10).map(|number| format!("c{number}")).find(|name| component(name) == *digest).unwrap()
}

fn event(words: &[&str]) -> Event {
    let id = |text: &&str| text.parse::<AllocationId>().unwrap();
    match words {
        ["fetched", name] => Event::Fetched { digest: component(name) },
        ["fetch-failed", name] => {
            Event::FetchFailed { digest: component(name), reason: "the coordinator is away".to_owned() }
        }
        ["started", allocation] => Event::Started { allocation: id(allocation) },
        ["not-started", allocation] => {
            let reason = "the worker is busy".to_owned();
            Event::NotStarted { allocation: id(allocation), reason, refused: false }
        }
        ["refused", allocation] => {
            let reason = "it imports what it was not granted".to_owned();
            Event::NotStarted { allocation: id(allocation), reason, refused: true }
        }
        ["ended", allocation, item, rest @ ..] => Event::ItemEnded {
            allocation: id(allocation),
            item: item.parse().unwrap(),
            outcome: Outcome::Completed,
            fuel: Fuel(1),
            memory: Bytes(1),
            wall: DurationMs(1),
            output: "x".repeat(rest.first().map_or(0, |length| length.parse().unwrap())),
            output_cut: false,
        },
        ["not-run", allocation, item] => Event::ItemNotRun {
            allocation: id(allocation),
            item: item.parse().unwrap(),
            reason: "its input is away".to_owned(),
        },
        ["recorded", term, allocation, items @ ..] => Event::Recorded {
            term: Term(term.parse().unwrap()),
            items: items.iter().map(|item| (id(allocation), item.parse().unwrap())).collect(),
        },
        ["usage", allocation, fuel] => Event::Usage {
            allocation: id(allocation),
            fuel: Fuel(fuel.parse().unwrap()),
            memory: Bytes(1),
            instances: 1,
        },
        ["died", namespace] => Event::WorkerDied { namespace: namespace.parse().unwrap() },
        other => panic!("{other:?} is not a line of a scenario"),
    }
}

fn assignment(words: &[&str]) -> Assignment {
    let [term, generation, allocations @ ..] = words else {
        panic!("an assignment has a term and a generation")
    };
    let (cluster, term) = term.split_once(':').unwrap_or(("fleet", term));
    let mut routes = RouteTable::default();
    for peer in allocations.iter().filter_map(|word| word.strip_prefix("peer=")) {
        routes.peers.insert(peer.parse().unwrap(), "127.0.0.1:1".parse().unwrap());
    }
    Assignment {
        cluster: cluster.parse().unwrap(),
        term: Term(term.parse().unwrap()),
        generation: Generation(generation.parse().unwrap()),
        allocations: allocations
            .iter()
            .filter(|word| !word.starts_with("peer="))
            .map(|it| assigned(it))
            .collect(),
        routes,
    }
}

fn assigned(text: &str) -> AssignedAllocation {
    let parts: Vec<&str> = text.split(':').collect();
    let (namespace, workload) = parts[1].split_once('/').unwrap();
    let (workload, revision) = workload.split_once('@').unwrap_or((workload, "1"));
    let (kind, work, concurrency) = match parts.get(3) {
        None => (WorkloadKind::Service(ServiceSpec { allocations: 1, routes: Vec::new() }), Work::Serve, 64),
        Some(items) => {
            let combine = items.ends_with('+');
            let (range, concurrency) = items.trim_end_matches('+').split_once('*').unwrap();
            let (start, end) = range.split_once("..").unwrap();
            let range = ItemRange { start: start.parse().unwrap(), end: end.parse().unwrap() };
            let work = Work::Items { run: RunId::new(7), range, attempt: 2, combine };
            let spec = JobSpec { parallelism: 1, attempts: 3, combine };
            (WorkloadKind::Job(spec), work, concurrency.parse().unwrap())
        }
    };
    AssignedAllocation {
        id: parts[0].parse().unwrap(),
        workload: format!("{namespace}/app/{workload}").parse().unwrap(),
        revision: Revision(revision.parse().unwrap()),
        spec: WorkloadSpec {
            component: component(parts[2]),
            kind,
            limits: Limits { concurrency, ..Limits::JOB },
            environment: Default::default(),
            node_labels: Default::default(),
        },
        work,
    }
}

#[test]
fn a_service_is_fetched_started_and_running() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        report
        fetched c1
        report
        started a1
        usage a1 50
        report
        deadline
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            report
              stored 1 1
              a1 fetching
            fetched c1
              start a1
            report
              stored 1 1
              a1 starting
            started a1
            usage a1 50
            report
              stored 1 1
              a1 running, 50 fuel
            deadline
              none
        "#]],
    );
}

#[test]
fn a_component_is_fetched_once_for_all_allocations() {
    check(
        "
        assign 1 1 a1:shop/front:c1 a2:shop/front:c1 a3:shop/cart:c2
        fetched c1
        assign 1 2 a1:shop/front:c1 a2:shop/front:c1 a3:shop/cart:c2 a4:shop/front:c1
        fetched c2
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1 a2:shop/front:c1 a3:shop/cart:c2
              save 1 1
              fetch c1
              fetch c2
            fetched c1
              start a1
              start a2
            assign 1 2 a1:shop/front:c1 a2:shop/front:c1 a3:shop/cart:c2 a4:shop/front:c1
              save 1 2
              start a4
            fetched c2
              start a3
        "#]],
    );
}

#[test]
fn a_failed_fetch_is_tried_again_after_a_growing_wait() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetch-failed c1
        report
        wait 999
        wait 1
        fetch-failed c1
        deadline
        wait 2000
        report
        fetched c1
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetch-failed c1
            report
              stored 1 1
              a1 backing-off: its component could not be fetched: the coordinator is away
            wait 999
            wait 1
              fetch c1
            fetch-failed c1
            deadline
              2s
            wait 2000
              fetch c1
            report
              stored 1 1
              a1 fetching
            fetched c1
              start a1
        "#]],
    );
}

#[test]
fn a_repeated_assignment_changes_nothing() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        assign 1 1 a1:shop/front:c1
        started a1
        assign 1 1 a1:shop/front:c1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            assign 1 1 a1:shop/front:c1
            started a1
            assign 1 1 a1:shop/front:c1
            report
              stored 1 1
              a1 running
        "#]],
    );
}

#[test]
fn an_older_assignment_or_one_of_another_fleet_is_refused() {
    check(
        "
        assign 2 5 a1:shop/front:c1
        assign 2 4
        assign 1 9
        assign other:3 1
        report
        assign 3 1 a1:shop/front:c1
        ",
        expect![[r#"
            assign 2 5 a1:shop/front:c1
              save 2 5
              fetch c1
            assign 2 4
              refused: the assignment is of term 2, generation 4; stored is term 2, generation 5
            assign 1 9
              refused: the assignment is of term 1, generation 9; stored is term 2, generation 5
            assign other:3 1
              refused: the assignment is of fleet other, this node belongs to fleet
            report
              stored 2 5
              a1 fetching
            assign 3 1 a1:shop/front:c1
              save 3 1
        "#]],
    );
}

#[test]
fn what_leaves_the_assignment_is_stopped_before_anything_starts() {
    check(
        "
        assign 1 1 a1:shop/front:c1 a2:shop/cart:c2
        fetched c1
        started a1
        assign 1 2 a3:shop/front:c1 peer=b
        report
        fetched c2
        assign 1 3
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1 a2:shop/cart:c2
              save 1 1
              fetch c1
              fetch c2
            fetched c1
              start a1
            started a1
            assign 1 2 a3:shop/front:c1 peer=b
              save 1 2
              set routes, 1 peers
              stop a1 in shop
              start a3
            report
              stored 1 2
              a3 starting
            fetched c2
            assign 1 3
              save 1 3
              set routes, 0 peers
              stop a3 in shop
            report
              stored 1 3
        "#]],
    );
}

#[test]
fn routes_are_set_only_when_they_change() {
    check(
        "
        assign 1 1 peer=b
        assign 1 2 peer=b
        assign 1 3 peer=b peer=c
        assign 1 4
        ",
        expect![[r#"
            assign 1 1 peer=b
              save 1 1
              set routes, 1 peers
            assign 1 2 peer=b
              save 1 2
            assign 1 3 peer=b peer=c
              save 1 3
              set routes, 2 peers
            assign 1 4
              save 1 4
              set routes, 0 peers
        "#]],
    );
}

#[test]
fn a_restarted_agent_runs_its_last_assignment_without_saving_it() {
    check(
        "
        restart 4 7 a1:shop/front:c1 peer=b
        assign 4 6
        assign 4 7
        fetched c1
        started a1
        assign 5 1 a1:shop/front:c1 peer=b
        report
        ",
        expect![[r#"
            restart 4 7 a1:shop/front:c1 peer=b
              set routes, 1 peers
              fetch c1
            assign 4 6
              refused: the assignment is of term 4, generation 6; stored is term 4, generation 7
            assign 4 7
            fetched c1
              start a1
            started a1
            assign 5 1 a1:shop/front:c1 peer=b
              save 5 1
            report
              stored 5 1
              a1 running
        "#]],
    );
}

#[test]
fn a_restarted_agent_runs_its_items_again() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..2*2
        fetched c1
        started a1
        ended a1 0
        restart 1 1 a1:shop/sum:c1:0..2*2
        fetched c1
        started a1
        recorded 1 a1 0
        ended a1 0
        ended a1 1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..2*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            ended a1 0
            restart 1 1 a1:shop/sum:c1:0..2*2
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            recorded 1 a1 0
            ended a1 0
            ended a1 1
            report
              stored 1 1
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn a_refused_allocation_is_never_tried_again() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        refused a1
        report
        deadline
        wait 10000000
        assign 1 2
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            refused a1
            report
              stored 1 1
              a1 refused: it imports what it was not granted
            deadline
              none
            wait 10000000
            assign 1 2
              save 1 2
        "#]],
    );
}

#[test]
fn a_failed_start_is_tried_again_with_a_component_that_was_looked_at_again() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        not-started a1
        report
        wait 1000
        fetched c1
        not-started a1
        wait 1999
        wait 1
        fetched c1
        started a1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            not-started a1
            report
              stored 1 1
              a1 backing-off: the worker is busy, 1 restarts
            wait 1000
              fetch c1
            fetched c1
              start a1
            not-started a1
            wait 1999
            wait 1
              fetch c1
            fetched c1
              start a1
            started a1
            report
              stored 1 1
              a1 running, 2 restarts
        "#]],
    );
}

#[test]
fn after_the_first_death_of_its_worker_a_service_is_back_at_once() {
    check(
        "
        assign 1 1 a1:shop/front:c1 a2:bank/front:c2
        fetched c1
        fetched c2
        started a1
        started a2
        usage a1 5
        died shop
        started a1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1 a2:bank/front:c2
              save 1 1
              fetch c1
              fetch c2
            fetched c1
              start a1
            fetched c2
              start a2
            started a1
            started a2
            usage a1 5
            died shop
              start a1
            started a1
            report
              stored 1 1
              a1 running, 1 restarts
              a2 running
        "#]],
    );
}

#[test]
fn further_deaths_wait_longer_until_ten_healthy_minutes_have_passed() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        started a1
        died shop
        started a1
        died shop
        report
        deadline
        wait 1000
        started a1
        wait 599999
        died shop
        deadline
        wait 2000
        started a1
        wait 600000
        died shop
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
            died shop
              start a1
            started a1
            died shop
            report
              stored 1 1
              a1 backing-off: its worker process died, 2 restarts
            deadline
              1s
            wait 1000
              start a1
            started a1
            wait 599999
            died shop
            deadline
              2s
            wait 2000
              start a1
            started a1
            wait 600000
            died shop
              start a1
        "#]],
    );
}

#[test]
fn items_run_as_many_at_a_time_as_allowed_and_each_once() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:3..6*2
        fetched c1
        started a1
        ended a1 4
        ended a1 4
        ended a1 3
        report
        ended a1 5
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:3..6*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 3 of r7 in a1 in shop
              run item 4 of r7 in a1 in shop
            ended a1 4
              run item 5 of r7 in a1 in shop
            ended a1 4
            ended a1 3
            report
              stored 1 1
              a1 running
              item 4 of r7 in a1 on node, attempt 2: Completed
              item 3 of r7 in a1 on node, attempt 2: Completed
            ended a1 5
            report
              stored 1 1
              a1 finished
              item 4 of r7 in a1 on node, attempt 2: Completed
              item 3 of r7 in a1 on node, attempt 2: Completed
              item 5 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn item_reports_stay_until_they_are_recorded() {
    check(
        "
        assign 2 1 a1:shop/sum:c1:0..2*2
        fetched c1
        started a1
        ended a1 1
        ended a1 0
        recorded 1 a1 0 1
        report
        recorded 2 a1 1 5
        recorded 3 a1 0
        report
        ",
        expect![[r#"
            assign 2 1 a1:shop/sum:c1:0..2*2
              save 2 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            ended a1 1
            ended a1 0
            recorded 1 a1 0 1
            report
              stored 2 1
              a1 finished
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 0 of r7 in a1 on node, attempt 2: Completed
            recorded 2 a1 1 5
            recorded 3 a1 0
            report
              stored 2 1
              a1 finished
        "#]],
    );
}

#[test]
fn the_reports_of_a_removed_allocation_go_with_it() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..2*1 a2:shop/sum:c1:2..3*1
        fetched c1
        started a1
        started a2
        ended a1 0
        ended a2 2
        assign 1 2 a2:shop/sum:c1:2..3*1
        ended a1 1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..2*1 a2:shop/sum:c1:2..3*1
              save 1 1
              fetch c1
            fetched c1
              start a1
              start a2
            started a1
              run item 0 of r7 in a1 in shop
            started a2
              run item 2 of r7 in a2 in shop
            ended a1 0
              run item 1 of r7 in a1 in shop
            ended a2 2
            assign 1 2 a2:shop/sum:c1:2..3*1
              save 1 2
              stop a1 in shop
            ended a1 1
            report
              stored 1 2
              a2 finished
              item 2 of r7 in a2 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn an_item_without_input_is_tried_again_while_others_go_on() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..3*1
        fetched c1
        started a1
        not-run a1 0
        wait 1000
        ended a1 1
        not-run a1 0
        ended a1 2
        report
        deadline
        wait 2000
        ended a1 0
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..3*1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            not-run a1 0
              run item 1 of r7 in a1 in shop
            wait 1000
            ended a1 1
              run item 0 of r7 in a1 in shop
            not-run a1 0
              run item 2 of r7 in a1 in shop
            ended a1 2
            report
              stored 1 1
              a1 running
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 2 of r7 in a1 on node, attempt 2: Completed
            deadline
              2s
            wait 2000
              run item 0 of r7 in a1 in shop
            ended a1 0
            report
              stored 1 1
              a1 finished
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 2 of r7 in a1 on node, attempt 2: Completed
              item 0 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn after_a_death_each_item_that_was_running_is_tried_again_alone() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..4*2
        fetched c1
        started a1
        died shop
        started a1
        ended a1 0
        ended a1 1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..4*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            died shop
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            ended a1 0
              run item 1 of r7 in a1 in shop
            ended a1 1
              run item 2 of r7 in a1 in shop
              run item 3 of r7 in a1 in shop
            report
              stored 1 1
              a1 running, 1 restarts
              item 0 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn an_item_that_kills_its_worker_three_times_is_given_up() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..3*2
        fetched c1
        started a1
        died shop
        started a1
        died shop
        wait 1000
        started a1
        died shop
        report
        wait 2000
        started a1
        ended a1 1
        ended a1 2
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..3*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            died shop
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            died shop
            wait 1000
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            died shop
            report
              stored 1 1
              a1 backing-off: its worker process died, 3 restarts
              item 0 of r7 in a1 on node, attempt 2: Trapped: the worker process died while running it
            wait 2000
              start a1
            started a1
              run item 1 of r7 in a1 in shop
            ended a1 1
              run item 2 of r7 in a1 in shop
            ended a1 2
            report
              stored 1 1
              a1 finished, 3 restarts
              item 0 of r7 in a1 on node, attempt 2: Trapped: the worker process died while running it
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 2 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn a_finished_allocation_is_not_started_again_when_its_worker_dies() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..1*1
        fetched c1
        started a1
        ended a1 0
        died shop
        report
        deadline
        assign 1 2
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..1*1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            ended a1 0
            died shop
            report
              stored 1 1
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Completed
            deadline
              none
            assign 1 2
              save 1 2
        "#]],
    );
}

#[test]
fn the_combining_instance_has_the_number_after_the_last_item() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:3..4*1+
        fetched c1
        started a1
        ended a1 3
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:3..4*1+
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 3 of r7 in a1 in shop, combining
            ended a1 3
            report
              stored 1 1
              a1 finished
              item 3 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn a_heartbeat_carries_a_bounded_number_of_item_reports_oldest_first() {
    let config = Config { report_items: 2, report_bytes: 100, ..Config::default() };
    check_with(
        config,
        "
        assign 1 1 a1:shop/sum:c1:0..4*4
        fetched c1
        started a1
        ended a1 2
        ended a1 1
        ended a1 0 500
        ended a1 3
        report
        recorded 1 a1 2 1
        report
        recorded 1 a1 0
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..4*4
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
              run item 2 of r7 in a1 in shop
              run item 3 of r7 in a1 in shop
            ended a1 2
            ended a1 1
            ended a1 0 500
            ended a1 3
            report
              stored 1 1
              a1 finished
              item 2 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 2 1
            report
              stored 1 1
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 0
            report
              stored 1 1
              a1 finished
              item 3 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn no_further_item_is_run_while_too_many_wait_to_be_recorded() {
    let config = Config { outbox_items: 2, ..Config::default() };
    check_with(
        config,
        "
        assign 1 1 a1:shop/sum:c1:0..4*1
        fetched c1
        started a1
        ended a1 0
        ended a1 1
        wait 1000
        recorded 1 a1 0
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..4*1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            ended a1 0
              run item 1 of r7 in a1 in shop
            ended a1 1
            wait 1000
            recorded 1 a1 0
              run item 2 of r7 in a1 in shop
        "#]],
    );
}

#[test]
fn events_of_what_is_unknown_or_not_waited_for_are_ignored() {
    check(
        "
        fetched c1
        fetch-failed c1
        started a1
        not-started a1
        refused a1
        ended a1 0
        not-run a1 0
        recorded 1 a1 0
        usage a1 5
        died shop
        assign 1 1 a1:shop/front:c1
        started a1
        refused a1
        died shop
        ended a1 0
        report
        ",
        expect![[r#"
            fetched c1
            fetch-failed c1
            started a1
            not-started a1
            refused a1
            ended a1 0
            not-run a1 0
            recorded 1 a1 0
            usage a1 5
            died shop
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            started a1
            refused a1
            died shop
            ended a1 0
            report
              stored 1 1
              a1 fetching
        "#]],
    );
}

#[test]
fn an_id_that_means_something_else_is_stopped_and_started() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        started a1
        assign 1 2 a1:shop/front:c2
        fetched c2
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
            assign 1 2 a1:shop/front:c2
              save 1 2
              stop a1 in shop
              fetch c2
            fetched c2
              start a1
            report
              stored 1 2
              a1 starting
        "#]],
    );
}

#[test]
fn a_new_revision_that_leaves_the_guest_as_it_is_costs_no_restart() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        started a1
        assign 1 2 a1:shop/front@2:c1
        report
        died shop
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
            assign 1 2 a1:shop/front@2:c1
              save 1 2
            report
              stored 1 2
              a1 running
            died shop
              start a1
        "#]],
    );
}
