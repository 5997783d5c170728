//! The life of allocations on one node as scenarios: what happens goes in as lines, what is to be done comes out.
//!
//! An allocation is written `a1:shop/front:c1`, a job's `a2:shop/sum:c1:0..3*2` (items 0..3, two at a time; `+` at
//! the end for the combining instance, `!` for items that may be started once). A revision other than the first is written `a1:shop/front@2:c1`;
//! `a1:shop/front:c1:stop=5000` stops after so many milliseconds without word, and `a1:shop/front:c1:singleton` is one;
//! `a1:shop/front:c1:health=2,4` is unwell after two bad checks, and started again after four; and
//! `a1:shop/front:c1:secrets=URL,KEY` reads these secrets, of which `secret=shop/URL@3` says the value that is meant.

#![expect(
    clippy::unwrap_used,
    reason = "clippy's leave for tests does not reach the functions that tests share"
)]

mod allocations;
mod alone;
mod fallback;
mod items;
mod kept_items;
mod leaving;
mod making_way;
mod partitions;
mod programs;
mod secrets;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use dunlin_model::{
    AllocationId, AssignedAllocation, Assignment, Begun, Bytes, Capabilities, Digest, DurationMs, Endpoint,
    Fuel, Generation, HealthSpec, ItemRange, ItemReport, JobSpec, Limits, OnPartition, Outcome, Revision,
    RouteTable, RunId, SecretId, SecretVersion, Semantics, ServiceSpec, Term, Timestamp, Work, WorkloadKind,
    WorkloadSpec,
};
use dunlin_supervisor::{Action, Config, Event, Kept, Supervisor};
use expect_test::{Expect, expect};

struct Scene {
    supervisor: Supervisor,
    config: Config,
    now: Timestamp,
    said: String,
    /// The reports of items that are on disk.
    kept: Vec<ItemReport>,
    begun: Vec<Begun>,
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
        kept: Vec::new(),
        begun: Vec::new(),
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
                let begun = std::mem::take(&mut self.begun);
                let items = self.kept.clone();
                let kept = Kept {
                    assignment: Some(assignment(rest)),
                    items,
                    begun,
                    is_unsure: false,
                    program: None,
                };
                self.supervisor.restore(kept, now)
            }
            // `doubt [TERM GENERATION ALLOCATION ..]`: a restart where a later assignment is not believed.
            ["doubt", rest @ ..] => {
                self.supervisor = fresh_supervisor(self.config);
                let assignment = (!rest.is_empty()).then(|| assignment(rest));
                let begun = std::mem::take(&mut self.begun);
                let kept =
                    Kept { assignment, items: self.kept.clone(), begun, is_unsure: true, program: None };
                self.supervisor.restore(kept, now)
            }
            ["wait", milliseconds] => return self.wait(milliseconds.parse().unwrap()),
            ["report"] => return self.report(),
            ["leave"] => return self.supervisor.leave(now),
            ["may-leave"] => {
                let answer = if self.supervisor.may_leave() { "yes" } else { "not yet" };
                return writeln!(self.said, "  {answer}").unwrap();
            }
            ["last-actions"] => self.supervisor.last_actions(now),
            ["deadline"] => {
                let deadline = self.supervisor.next_deadline().map(|it| it.since(now).to_string());
                return writeln!(self.said, "  {}", deadline.as_deref().unwrap_or("none")).unwrap();
            }
            // `heard TERM MILLISECONDS-AGO ALLOCATION=LEASE ..`
            ["heard", term, ago, leases @ ..] => {
                let lease = |text: &&str| {
                    let (id, lease) = text.split_once('=').unwrap();
                    (id.parse().unwrap(), DurationMs(lease.parse().unwrap()))
                };
                let sent = Timestamp(now.0 - ago.parse::<u64>().unwrap());
                let (term, leases) = (Term(term.parse().unwrap()), leases.iter().map(lease).collect());
                self.supervisor.observe(Event::Heard { term, sent, leases }, now)
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
                Action::KeepItems { reports, in_place } => {
                    if *in_place {
                        self.kept.clear();
                    }
                    self.kept.extend(reports.iter().cloned());
                    let items: Vec<String> = reports.iter().map(|it| it.item.to_string()).collect();
                    let how = if *in_place { "only " } else { "" };
                    writeln!(self.said, "  keep {how}items [{}] on disk", items.join(" "))
                }
                Action::KeepBegun(begun) => {
                    self.begun.clone_from(begun);
                    for it in begun {
                        let Begun { allocation, next, running, again, .. } = it;
                        write!(self.said, "  {allocation} has come to item {next}").unwrap();
                        write!(self.said, ", runs {running:?}, again {again:?}").unwrap();
                        writeln!(self.said).unwrap();
                    }
                    Ok(())
                }
                Action::SetRoutes(table) => {
                    write!(self.said, "  set routes, {} peers", table.peers.len()).unwrap();
                    for (workload, endpoints) in &table.endpoints {
                        let ids: Vec<String> = endpoints.iter().map(|it| it.allocation.to_string()).collect();
                        write!(self.said, "; {workload} to [{}]", ids.join(" ")).unwrap();
                    }
                    writeln!(self.said)
                }
                Action::KeepCode { components } => {
                    let names: Vec<String> = components.iter().map(component_name).collect();
                    writeln!(self.said, "  keep code [{}]", names.join(" "))
                }
                Action::KeepSecrets { secrets } => {
                    let ids: Vec<String> = secrets.iter().map(ToString::to_string).collect();
                    writeln!(self.said, "  keep secrets [{}]", ids.join(" "))
                }
                Action::FetchSecret { secret, version } => {
                    writeln!(self.said, "  fetch secret {secret}@{}", version.0)
                }
                // Those have scenarios of their own.
                Action::TakeProgram { .. } | Action::KeepTried { .. } | Action::ReturnProgram { .. } => {
                    Ok(())
                }
                Action::GiveSecrets { allocation } => {
                    writeln!(self.said, "  give secrets to {}", allocation.id)
                }
                Action::Fetch { digest } => writeln!(self.said, "  fetch {}", component_name(digest)),
                Action::Start { allocation } => writeln!(self.said, "  start {}", allocation.id),
                Action::Stop { allocation, namespace, at_once } => {
                    let how = if *at_once { " at once" } else { "" };
                    writeln!(self.said, "  stop {allocation} in {namespace}{how}")
                }
                Action::RunItems { allocation, namespace, run, range, combine, inputs: _ } => {
                    let combine = if *combine { ", combining" } else { "" };
                    let items = match range.len() {
                        1 => format!("item {}", range.start),
                        _ => format!("items {range}"),
                    };
                    writeln!(self.said, "  run {items} of {run} in {allocation} in {namespace}{combine}")
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
        for it in items.iter() {
            let record = &it.record;
            let (allocation, item, run) = (it.allocation, it.item, it.run);
            let (attempt, node, outcome) = (record.attempt, &record.node, &record.outcome);
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

/// One value of a secret: `shop/URL@3`.
fn value(text: &str) -> (SecretId, SecretVersion) {
    let (id, version) = text.split_once('@').unwrap();
    (id.parse().unwrap(), SecretVersion(version.parse().unwrap()))
}

fn event(words: &[&str]) -> Event {
    let id = |text: &&str| text.parse::<AllocationId>().unwrap();
    match words {
        ["fetched", name] => Event::Fetched { digest: component(name) },
        ["fetch-failed", name] => {
            Event::FetchFailed { digest: component(name), reason: "the coordinator is away".to_owned() }
        }
        ["secret-fetched", secret] => {
            let (secret, version) = value(secret);
            Event::SecretFetched { secret, version }
        }
        [how @ ("secret-failed" | "secret-refused"), secret, present @ ..] => {
            let is_alone = *how == "secret-failed";
            let (secret, version) = value(secret);
            let present = present.first().map(|number| SecretVersion(number.parse().unwrap()));
            let reason = if is_alone { "the coordinator is away" } else { "it has another value by now" };
            Event::SecretNotFetched { secret, version, present, is_alone, reason: reason.to_owned() }
        }
        ["started", allocation] => Event::Started { allocation: id(allocation) },
        ["stopped", allocation] => Event::Stopped { allocation: id(allocation) },
        ["not-started", allocation] => {
            let reason = "the worker is busy".to_owned();
            Event::NotStarted { allocation: id(allocation), reason, refused: false }
        }
        ["refused", allocation] => {
            let reason = "it imports what it was not granted".to_owned();
            Event::NotStarted { allocation: id(allocation), reason, refused: true }
        }
        [how @ ("ended" | "cancelled"), allocation, item, rest @ ..] => Event::ItemEnded {
            allocation: id(allocation),
            item: item.parse().unwrap(),
            outcome: if *how == "ended" { Outcome::Completed } else { Outcome::Cancelled },
            fuel: Fuel(1),
            memory: Bytes(1),
            wall: DurationMs(1),
            host: Default::default(),
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
            failed: 0,
        },
        ["checked", allocation, problem @ ..] => Event::Checked {
            allocation: id(allocation),
            problem: (!problem.is_empty()).then(|| problem.join(" ")),
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
    // `routed=WORKLOAD` is a service without endpoints, `routed=WORKLOAD:a7` one that is elsewhere.
    for routed in allocations.iter().filter_map(|word| word.strip_prefix("routed=")) {
        let (workload, elsewhere) =
            routed.split_once(':').map_or((routed, None), |(workload, id)| (workload, Some(id)));
        let endpoint = |id: &str| Endpoint::new(id.parse().unwrap(), "other".parse().unwrap());
        routes.endpoints.insert(workload.parse().unwrap(), elsewhere.map(endpoint).into_iter().collect());
    }
    Assignment {
        cluster: cluster.parse().unwrap(),
        term: Term(term.parse().unwrap()),
        generation: Generation(generation.parse().unwrap()),
        allocations: allocations
            .iter()
            .filter(|word| {
                !["peer=", "routed=", "finishing=", "kept=", "secret="].iter().any(|it| word.starts_with(it))
            })
            .map(|it| assigned(it))
            .collect(),
        finishing: allocations
            .iter()
            .filter_map(|word| word.strip_prefix("finishing=")?.parse().ok())
            .collect(),
        kept: allocations.iter().filter_map(|word| word.strip_prefix("kept=")).map(component).collect(),
        secrets: allocations.iter().filter_map(|word| word.strip_prefix("secret=")).map(value).collect(),
        program: None,
        routes,
    }
}

fn health(text: &str) -> HealthSpec {
    let (failures, restart_after) = text.split_once(',').unwrap();
    HealthSpec {
        path: "/".to_owned(),
        interval: HealthSpec::INTERVAL,
        timeout: HealthSpec::TIMEOUT,
        failures: failures.parse().unwrap(),
        successes: HealthSpec::SUCCESSES,
        restart_after: Some(restart_after.parse().unwrap()),
    }
}

fn assigned(text: &str) -> AssignedAllocation {
    let parts: Vec<&str> = text.split(':').collect();
    let (namespace, workload) = parts[1].split_once('/').unwrap();
    let (workload, revision) = workload.split_once('@').unwrap_or((workload, "1"));
    let on_partition = match parts.get(3) {
        Some(&"singleton") => OnPartition::Singleton,
        Some(text) if text.starts_with("stop=") => {
            OnPartition::StopAfter(DurationMs(text[5..].parse().unwrap()))
        }
        Some(_) | None => OnPartition::Keep,
    };
    let health = parts.get(3).and_then(|text| text.strip_prefix("health=")).map(health);
    let secrets = parts.get(3).and_then(|text| text.strip_prefix("secrets="));
    let secrets: BTreeSet<_> =
        secrets.into_iter().flat_map(|names| names.split(',')).map(|name| name.parse().unwrap()).collect();
    let is_service = !on_partition.is_keep() || health.is_some() || !secrets.is_empty();
    let items = parts.get(3).filter(|_| !is_service);
    let (kind, work, concurrency) = match items {
        None => (
            WorkloadKind::Service(ServiceSpec {
                allocations: 1,
                routes: Vec::new(),
                fuel_header: false,
                everywhere: false,
                rollout: Default::default(),
                health,
                on_partition,
            }),
            Work::Serve,
            64,
        ),
        Some(items) => {
            let (combine, inputs) = (items.ends_with('+'), !items.ends_with('-'));
            let semantics = if items.ends_with('!') { Semantics::AtMostOnce } else { Semantics::AtLeastOnce };
            let (range, concurrency) = items.trim_end_matches(['+', '-', '!']).split_once('*').unwrap();
            let (start, end) = range.split_once("..").unwrap();
            let range = ItemRange { start: start.parse().unwrap(), end: end.parse().unwrap() };
            let work = Work::Items { run: RunId::new(7), range, attempt: 2, combine, inputs };
            let spec = JobSpec { combine, semantics, ..JobSpec::default() };
            (WorkloadKind::Job(spec), work, concurrency.parse().unwrap())
        }
    };
    AssignedAllocation {
        id: parts[0].parse().unwrap(),
        workload: format!("{namespace}/app/{workload}").parse().unwrap(),
        revision: Revision(revision.parse().unwrap()),
        spec: std::sync::Arc::new(WorkloadSpec {
            component: component(parts[2]),
            kind,
            limits: Limits { concurrency, ..Limits::JOB },
            environment: Default::default(),
            node_labels: Default::default(),
            capabilities: Capabilities { secrets, ..Default::default() },
            instances: Default::default(),
            metering: Default::default(),
            coredump: false,
            signed: None,
            placement: Default::default(),
            priority: Default::default(),
        }),
        work,
    }
}
