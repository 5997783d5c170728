//! Three days without a coordinator: the node goes on, with bounded memory and disk, over reboots and deaths of workers,
//! and then reports what happened meanwhile, once.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{HostCalls, ItemReport, ObservedState};

use super::*;

/// How long nobody is heard.
const ALONE: DurationMs = DurationMs(72 * 3_600_000);
/// How many items there are to work on: more than a node keeps the reports of.
const ITEMS: u32 = 40_000;
/// How long an item takes.
const ITEM: DurationMs = DurationMs(2_000);

/// A node whose workers do what they are told.
struct Node {
    supervisor: Supervisor,
    assignment: Assignment,
    now: Timestamp,
    /// The reports of items on disk.
    disk: Vec<ItemReport>,
    most_on_disk: usize,
    /// Which allocations are in a worker.
    loaded: BTreeSet<AllocationId>,
    /// The items that run, by when they end.
    ends: BTreeMap<Timestamp, Vec<(AllocationId, u32)>>,
    /// How often each item was run to its end.
    done: BTreeMap<u32, u32>,
}

impl Node {
    fn boot(assignment: Assignment) -> Self {
        let mut node = Self {
            supervisor: fresh_supervisor(Config::default()),
            assignment,
            now: Timestamp(1_000_000),
            disk: Vec::new(),
            most_on_disk: 0,
            loaded: BTreeSet::new(),
            ends: BTreeMap::new(),
            done: BTreeMap::new(),
        };
        node.reboot();
        node
    }

    fn reboot(&mut self) {
        self.supervisor = fresh_supervisor(Config::default());
        self.loaded.clear();
        self.ends.clear();
        let kept =
            Kept { assignment: Some(self.assignment.clone()), items: self.disk.clone(), ..Kept::default() };
        let actions = self.supervisor.restore(kept, self.now);
        self.perform(actions);
    }

    fn worker_dies(&mut self) {
        self.loaded.clear();
        self.ends.clear();
        self.tell(Event::WorkerDied { namespace: "shop".parse().unwrap() });
    }

    fn tell(&mut self, event: Event) {
        let actions = self.supervisor.observe(event, self.now);
        self.perform(actions);
    }

    fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Fetch { digest } => self.tell(Event::Fetched { digest }),
                Action::Start { allocation } => {
                    self.loaded.insert(allocation.id);
                    self.tell(Event::Started { allocation: allocation.id });
                }
                Action::RunItems { allocation, range, .. } => {
                    let items = (range.start..range.end).map(|item| (allocation, item));
                    self.ends.entry(self.now.plus(ITEM)).or_default().extend(items);
                }
                Action::KeepItems { reports, in_place } => {
                    if in_place {
                        self.disk.clear();
                    }
                    self.disk.extend(reports);
                    self.most_on_disk = self.most_on_disk.max(self.disk.len());
                }
                Action::FetchSecret { secret, version } => {
                    self.tell(Event::SecretFetched { secret, version })
                }
                Action::Save(_)
                | Action::SetRoutes(_)
                | Action::KeepBegun(_)
                | Action::KeepCode { .. }
                | Action::KeepSecrets { .. }
                | Action::GiveSecrets { .. } => {}
                Action::TakeProgram { .. } | Action::KeepTried { .. } | Action::ReturnProgram { .. } => {
                    panic!("nobody has said that it is to become another program")
                }
                Action::Stop { .. } => panic!("nobody has said that anything is to stop"),
            }
        }
    }

    /// Lets time pass.
    fn pass(&mut self, time: DurationMs) {
        let until = self.now.plus(time);
        loop {
            let next = self.supervisor.next_deadline();
            let next = next.into_iter().chain(self.ends.keys().next().copied()).min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.now = self.now.max(next);
            for (allocation, item) in self.ends.remove(&next).unwrap_or_default() {
                *self.done.entry(item).or_default() += 1;
                self.tell(Event::ItemEnded {
                    allocation,
                    item,
                    outcome: Outcome::Completed,
                    fuel: Fuel(5),
                    memory: Bytes(7),
                    wall: ITEM,
                    host: HostCalls::default(),
                    output: format!("item {item}"),
                    output_cut: false,
                });
            }
            let actions = self.supervisor.tick(self.now);
            self.perform(actions);
        }
        self.now = until;
    }

    /// Takes what the node reports, and says that it is recorded; returns how often each item was told anew.
    fn record(&mut self) -> BTreeMap<u32, u32> {
        let mut recorded: BTreeMap<u32, u32> = BTreeMap::new();
        loop {
            let (term, _, _, told) = self.supervisor.report();
            if told.is_empty() {
                return recorded;
            }
            let items: Vec<_> = told.iter().map(|report| (report.allocation, report.item)).collect();
            for (_, item) in &items {
                *recorded.entry(*item).or_default() += 1;
            }
            self.tell(Event::Recorded { term, items });
        }
    }

    fn all_run(&mut self) -> bool {
        let (_, _, allocations, _) = self.supervisor.report();
        allocations.iter().all(|allocation| allocation.state == ObservedState::Running)
    }
}

#[test]
fn a_node_works_for_three_days_without_its_coordinator_and_reports_each_item_once() {
    let items = format!("a2:shop/sum:c1:0..{ITEMS}*4");
    let mut node = Node::boot(assignment(&["1", "1", "a1:shop/front:c1", &items]));
    let bound = Config::default().outbox_items;
    let began = node.now;
    for hour in 1_u64.. {
        node.pass(DurationMs(3_600_000));
        assert!(node.all_run(), "after {hour} hours");
        if node.now.since(began) >= ALONE {
            break;
        }
        match hour {
            hour if hour.is_multiple_of(12) => node.reboot(),
            hour if hour.is_multiple_of(5) => node.worker_dies(),
            _ => {}
        }
        // A worker that died is started again after a while.
        node.pass(DurationMs(600_000));
    }
    assert_eq!(node.loaded.len(), 2, "both run");
    let finished = node.done.len();
    assert!((bound..bound + 64).contains(&finished), "{finished} items, and reports of {bound} are kept");
    assert!(node.most_on_disk <= 2 * bound, "{} reports were on disk", node.most_on_disk);
    // Those that ran when the power was cut were run again, and no others.
    let again: u32 = node.done.values().map(|times| times - 1).sum();
    assert!(again < 4 * 20, "{again} items were run more than once");

    let recorded = node.record();
    assert_eq!(recorded.len(), finished);
    assert!(recorded.values().all(|times| *times == 1));
    node.pass(DurationMs(4_000));
    assert!(node.disk.len() < 64, "{} reports of what is recorded are on disk", node.disk.len());
    // It works on.
    let mut all: BTreeSet<u32> = recorded.into_keys().collect();
    for _ in 0..200 {
        node.pass(DurationMs(600_000));
        for (item, times) in node.record() {
            assert!(times == 1 && all.insert(item), "item {item} is told a second time");
        }
    }
    assert_eq!(all.len(), ITEMS as usize);
}
