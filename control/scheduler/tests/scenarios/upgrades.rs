//! Upgrades: ring by ring, some nodes at a time, stopped by the first trouble, told to who comes later.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::{
    Architecture, Bytes, Digest, DurationMs, FuelRate, Generation, NodeId, NodeInfo, Program, ProgramOrder,
    ProgramReport, Report, Resources, Term, Timestamp, UpgradePlan,
};
use dunlin_scheduler::{
    Answer, Change, Cluster, Command, Config, NodeRecord, Observation, Rejection, Step, UpgradeRecord,
    UpgradeState,
};

/// A fleet of nodes `n00`, `n01` and so on, which do what the brain says when the test lets them.
struct Nodes {
    cluster: Cluster,
    now: Timestamp,
    reports: BTreeMap<NodeId, NodeInfo>,
    /// Those that are silent.
    silent: BTreeSet<NodeId>,
    /// What each was told to become, by the generation of what it was told.
    orders: BTreeMap<(NodeId, Generation), Option<ProgramOrder>>,
}

fn id(number: usize) -> NodeId {
    format!("n{number:02}").parse().unwrap()
}

fn program(byte: u8) -> BTreeMap<Architecture, Program> {
    let program = Program { digest: Digest::from_sha256([byte; 32]), signature: "signed".to_owned() };
    BTreeMap::from([("x86_64".parse().unwrap(), program)])
}

impl Nodes {
    fn new(count: usize) -> Self {
        let now = Timestamp(1_000_000);
        let records = (0..count).map(|number| Change::Node(NodeRecord::joined(id(number), [0; 32], now)));
        let cluster = Cluster::restore("fleet".parse().unwrap(), Term(1), Config::LAN, records, now);
        let info = NodeInfo {
            capacity: Resources { memory: Bytes(1 << 30), fuel_rate: FuelRate(1_000_000_000) },
            labels: BTreeMap::new(),
            ingress: "10.0.0.1:80".parse().unwrap(),
            peer: "10.0.0.1:7000".parse().unwrap(),
            version: "1".to_owned(),
            resources: BTreeMap::new(),
            batch_overcommit: Default::default(),
            clock_unset: false,
            program: Some(ProgramReport {
                architecture: "x86_64".parse().unwrap(),
                tried: 0,
                digest: None,
                failed: None,
            }),
        };
        let reports = (0..count).map(|number| (id(number), info.clone())).collect();
        let mut nodes = Self { cluster, now, reports, silent: BTreeSet::new(), orders: BTreeMap::new() };
        nodes.wait(1);
        nodes
    }

    /// Looks at what a step has led to: among other things, one generation says one thing.
    fn done(&mut self, step: Step) {
        drop(step);
        self.cluster.check().unwrap();
        for node in self.reports.keys() {
            let assignment = self.cluster.assignment(node).unwrap();
            let key = (node.clone(), assignment.generation);
            let first = self.orders.entry(key).or_insert_with(|| assignment.program.clone());
            assert_eq!(*first, assignment.program, "{node}, {:?}", assignment.generation);
        }
    }

    /// Lets a second pass again and again, in which all report that are not silent.
    fn wait(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now = self.now.plus(DurationMs(1_000));
            let step = self.cluster.tick(self.now);
            self.done(step);
            for (node, info) in self.reports.clone() {
                if self.silent.contains(&node) {
                    continue;
                }
                let report = Report {
                    cluster: "fleet".parse().unwrap(),
                    term: Term(1),
                    generation: Generation(0),
                    info,
                    sent: Timestamp(0),
                    allocations: Vec::new(),
                    items: Vec::new(),
                };
                let step = self.cluster.observe(Observation::Report { node, report }, self.now);
                self.done(step);
            }
        }
    }

    fn submit(&mut self, command: Command) -> Result<Answer, Rejection> {
        let (answer, step) = self.cluster.submit(command, self.now)?;
        self.done(step);
        Ok(answer)
    }

    fn start(&mut self, byte: u8, plan: UpgradePlan) -> Result<Answer, Rejection> {
        self.submit(Command::StartUpgrade { programs: program(byte), plan })
    }

    fn upgrade(&self) -> UpgradeRecord {
        self.cluster.view().upgrade.unwrap()
    }

    /// Returns the numbers of the nodes that were told by the last upgrade and have not tried it.
    fn told(&self) -> Vec<usize> {
        let number = self.upgrade().number;
        let is_told = |number_of: &usize| {
            let node = id(*number_of);
            let order = self.cluster.assignment(&node).unwrap().program;
            let tried = self.reports[&node].program.as_ref().map_or(0, |report| report.tried);
            order.is_some_and(|order| order.number == number && tried != number)
        };
        (0..self.reports.len()).filter(is_told).collect()
    }

    fn report(&mut self, node: usize) -> &mut ProgramReport {
        self.reports.get_mut(&id(node)).unwrap().program.as_mut().unwrap()
    }

    /// Has a node become what it was told.
    fn becomes(&mut self, node: usize) {
        let order = self.cluster.assignment(&id(node)).unwrap().program.unwrap();
        let report = self.report(node);
        *report = ProgramReport {
            tried: order.number,
            digest: order.program.map(|program| program.digest),
            failed: None,
            ..report.clone()
        };
    }

    fn fails(&mut self, node: usize) {
        let number = self.upgrade().number;
        let report = self.report(node);
        *report =
            ProgramReport { tried: number, failed: Some("it has no lights".to_owned()), ..report.clone() };
    }

    fn reason(&self) -> String {
        match self.upgrade().state {
            UpgradeState::Stopped { reason } => reason,
            state => panic!("{state:?}"),
        }
    }
}

fn plan(rings: &[u8], at_once: u32) -> UpgradePlan {
    UpgradePlan { rings: rings.to_vec(), at_once, bake: DurationMs(10_000), patience: DurationMs(60_000) }
}

#[test]
fn each_ring_begins_when_the_one_before_was_well_for_a_while() {
    let mut nodes = Nodes::new(10);
    assert_eq!(nodes.start(1, plan(&[1, 50, 100], 3)), Ok(Answer::Upgrade(1)));
    assert_eq!(nodes.told(), [0], "one node at least");
    nodes.wait(5);
    nodes.becomes(0);
    nodes.wait(9);
    assert!(nodes.told().is_empty(), "it is watched");
    nodes.wait(4);
    assert_eq!(nodes.told(), [1, 2, 3], "half of ten is five, and three at a time");
    nodes.becomes(2);
    nodes.wait(1);
    assert_eq!(nodes.told(), [1, 3, 4]);
    [1, 3, 4].into_iter().for_each(|node| nodes.becomes(node));
    nodes.wait(15);
    assert_eq!(nodes.told(), [5, 6, 7]);
    for node in 5..10 {
        nodes.wait(1);
        nodes.becomes(node);
    }
    nodes.wait(5);
    assert_eq!(nodes.upgrade().state, UpgradeState::Running, "the last ring is watched too");
    nodes.wait(10);
    assert_eq!(nodes.upgrade().state, UpgradeState::Done);
}

#[test]
fn the_first_trouble_stops_it_and_who_could_not_tries_again_when_it_goes_on() {
    let mut nodes = Nodes::new(4);
    nodes.start(1, plan(&[100], 1)).unwrap();
    nodes.becomes(0);
    nodes.wait(1);
    nodes.fails(1);
    nodes.wait(100);
    assert_eq!(nodes.reason(), "n01: it has no lights");
    assert!(nodes.told().is_empty());
    assert!(matches!(nodes.submit(Command::StopUpgrade), Err(Rejection::NoUpgrade(_))));

    assert_eq!(nodes.submit(Command::ResumeUpgrade), Ok(Answer::Upgrade(2)));
    assert_eq!(nodes.told(), [0], "who has it says so at once");
    for node in 0..4 {
        nodes.becomes(node);
        nodes.wait(1);
    }
    nodes.wait(11);
    assert_eq!(nodes.upgrade().state, UpgradeState::Done);

    // There was nothing before it but what is installed.
    assert_eq!(nodes.submit(Command::RevertUpgrade), Ok(Answer::Upgrade(3)));
    assert_eq!(nodes.cluster.assignment(&id(0)).unwrap().program.unwrap().program, None);
    nodes.submit(Command::StopUpgrade).unwrap();
    assert_eq!(nodes.reason(), "an operator stopped it");
}

#[test]
fn what_it_goes_back_to_is_the_last_that_all_had() {
    let mut nodes = Nodes::new(1);
    nodes.start(1, plan(&[100], 1)).unwrap();
    nodes.becomes(0);
    nodes.wait(20);
    nodes.start(2, plan(&[100], 1)).unwrap();
    assert!(matches!(nodes.start(3, plan(&[100], 1)), Err(Rejection::InvalidUpgrade { .. })), "one goes on");
    nodes.fails(0);
    nodes.wait(1);
    nodes.start(3, plan(&[100], 1)).unwrap();
    assert_eq!(nodes.upgrade().former, program(1));
    nodes.becomes(0);
    nodes.wait(20);
    nodes.submit(Command::RevertUpgrade).unwrap();
    assert_eq!((nodes.upgrade().programs, nodes.upgrade().former), (program(1), program(1)));

    // One that was stopped is nothing to go back to, whichever way it went.
    nodes.fails(0);
    nodes.wait(1);
    nodes.start(4, plan(&[100], 1)).unwrap();
    assert_eq!(nodes.upgrade().former, program(1));
    nodes.becomes(0);
    nodes.wait(20);
    nodes.start(4, plan(&[100], 1)).unwrap();
    assert_eq!(nodes.upgrade().former, program(1), "it is the same once more");
}

#[test]
fn a_node_that_says_nothing_or_is_lost_with_it_stops_it() {
    let mut nodes = Nodes::new(3);
    nodes.start(1, plan(&[100], 1)).unwrap();
    nodes.wait(61);
    assert_eq!(nodes.reason(), "n00: it has not become it, nor said why, within 1m");

    nodes.submit(Command::ResumeUpgrade).unwrap();
    nodes.becomes(0);
    nodes.wait(1);
    nodes.silent.insert(id(0));
    nodes.wait(15);
    assert_eq!(nodes.reason(), "n00: it became it, and was lost then");
}

#[test]
fn who_was_well_with_it_may_be_lost_later_and_who_is_not_there_is_told_when_it_comes() {
    let mut nodes = Nodes::new(4);
    nodes.silent.insert(id(3));
    nodes.wait(15);
    nodes.start(1, plan(&[30, 100], 4)).unwrap();
    nodes.becomes(0);
    nodes.wait(12);
    assert_eq!(nodes.told(), [1, 2], "one of three was the first ring");
    nodes.silent.insert(id(0));
    nodes.wait(15);
    [1, 2].into_iter().for_each(|node| nodes.becomes(node));
    nodes.wait(15);
    assert_eq!(nodes.upgrade().state, UpgradeState::Done);

    nodes.silent.clear();
    nodes.wait(3);
    assert_eq!(nodes.told(), [3]);
    nodes.fails(3);
    nodes.wait(1);
    assert_eq!(nodes.upgrade().state, UpgradeState::Done, "it is over, and the node says what is wrong");
}

#[test]
fn nodes_without_keys_or_of_other_processors_are_left_alone() {
    let mut nodes = Nodes::new(3);
    nodes.reports.get_mut(&id(0)).unwrap().program = None;
    nodes.report(1).architecture = "riscv64".parse().unwrap();
    nodes.report(2).architecture = "aarch64".parse().unwrap();
    nodes.wait(1);
    let refused = nodes.start(1, plan(&[100], 1)).unwrap_err();
    assert!(
        refused.to_string().starts_with("no node takes these programs: a node's config must name the key")
    );
    nodes.report(2).architecture = "x86_64".parse().unwrap();
    nodes.wait(1);
    nodes.start(1, plan(&[100], 3)).unwrap();
    assert_eq!(nodes.told(), [2]);
    let wrong = UpgradePlan { rings: vec![50], ..plan(&[100], 1) };
    nodes.submit(Command::StopUpgrade).unwrap();
    assert!(matches!(nodes.start(1, wrong), Err(Rejection::InvalidUpgrade { .. })));
}

#[test]
fn a_store_that_is_an_old_one_takes_no_number_again() {
    let mut nodes = Nodes::new(2);
    nodes.report(1).tried = 7;
    nodes.wait(1);
    assert_eq!(nodes.start(1, plan(&[100], 1)), Ok(Answer::Upgrade(8)));
}

#[test]
fn nodes_of_other_processors_keep_what_they_have_and_go_back_too() {
    let arm = |byte| {
        let program = Program { digest: Digest::from_sha256([byte; 32]), signature: "signed".to_owned() };
        BTreeMap::from([("aarch64".parse().unwrap(), program)])
    };
    let mut nodes = Nodes::new(2);
    nodes.report(1).architecture = "aarch64".parse().unwrap();
    nodes.wait(1);
    nodes.start(1, plan(&[100], 2)).unwrap();
    nodes.becomes(0);
    nodes.wait(12);
    nodes.submit(Command::StartUpgrade { programs: arm(2), plan: plan(&[100], 2) }).unwrap();
    let both: BTreeMap<_, _> = program(1).into_iter().chain(arm(2)).collect();
    assert_eq!((nodes.upgrade().programs, nodes.upgrade().former), (both, program(1)));
    [0, 1].into_iter().for_each(|node| nodes.becomes(node));
    nodes.wait(12);
    assert_eq!(nodes.upgrade().state, UpgradeState::Done);
    nodes.submit(Command::RevertUpgrade).unwrap();
    let ordered = |nodes: &Nodes, node| nodes.cluster.assignment(&id(node)).unwrap().program.unwrap().program;
    assert_eq!(ordered(&nodes, 0), program(1).into_values().next());
    assert_eq!(ordered(&nodes, 1), None, "it had what is installed");
}

#[test]
fn who_does_not_answer_keeps_nobody_waiting_when_it_is_over() {
    let mut nodes = Nodes::new(4);
    nodes.silent.extend([id(2), id(3)]);
    nodes.wait(15);
    nodes.start(1, plan(&[100], 1)).unwrap();
    for node in [0, 1] {
        nodes.becomes(node);
        nodes.wait(1);
    }
    nodes.wait(11);
    assert_eq!(nodes.upgrade().state, UpgradeState::Done);
    nodes.silent.remove(&id(2));
    nodes.wait(2);
    assert_eq!(nodes.told(), [2]);
    nodes.silent.remove(&id(3));
    nodes.wait(30);
    assert_eq!(nodes.told(), [2], "one at a time");
    nodes.wait(31);
    assert_eq!(nodes.told(), [2, 3]);
}

#[test]
fn a_node_that_says_what_cannot_be_or_nothing_any_more_spoils_nothing() {
    let mut nodes = Nodes::new(3);
    nodes.report(2).tried = u64::MAX;
    nodes.wait(1);
    assert_eq!(nodes.start(1, plan(&[100], 1)), Ok(Answer::Upgrade(1)));
    nodes.reports.get_mut(&id(0)).unwrap().program = None;
    nodes.wait(30);
    assert_eq!(nodes.reason(), "n00: it takes no programs any more");
    assert!(nodes.told().is_empty() || nodes.told() == [0], "no other was told: {:?}", nodes.told());
}

#[test]
fn who_is_not_told_again_or_takes_none_any_more_is_told_that() {
    let mut nodes = Nodes::new(3);
    nodes.start(1, plan(&[100], 2)).unwrap();
    assert_eq!(nodes.told(), [0, 1]);
    nodes.submit(Command::StopUpgrade).unwrap();
    let generation = |nodes: &Nodes, node| nodes.cluster.due(&id(node));
    let before = generation(&nodes, 1);
    nodes.start(2, plan(&[100], 1)).unwrap();
    assert_eq!(nodes.told(), [0], "one at a time");
    assert!(generation(&nodes, 1) > before, "n01 must not become the first");

    let before = generation(&nodes, 0);
    nodes.reports.get_mut(&id(0)).unwrap().program = None;
    nodes.wait(1);
    assert!(generation(&nodes, 0) > before, "n00 takes no programs any more");
}
