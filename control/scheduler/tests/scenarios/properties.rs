//! Properties of any fleet with any load: quotas, capacity, fairness, and what conditions on labels mean.
//!
//! What is right is said here a second time, as plainly as possible, and not with the brain's own code.

use std::collections::BTreeMap;

use dunlin_scheduler::View;
use proptest::prelude::*;

use crate::world::World;

/// Memory is counted in units of so many MiB here.
const UNIT: u64 = 64;

/// A service: its namespace, how many allocations it wants, and how much each needs.
#[derive(Clone, Debug)]
struct Load {
    namespace: usize,
    allocations: u32,
    memory: u64,
}

fn loads() -> impl Strategy<Value = Vec<Load>> {
    let load = (0..3_usize, 0..6_u32, 1..5_u64);
    let load = load.prop_map(|(namespace, allocations, memory)| Load { namespace, allocations, memory });
    prop::collection::vec(load, 1..8)
}

/// Quotas of three namespaces: memory and allocations.
fn quotas() -> impl Strategy<Value = Vec<(Option<u64>, Option<u32>)>> {
    prop::collection::vec((prop::option::of(0..12_u64), prop::option::of(0..6_u32)), 3)
}

fn deploy(world: &mut World, number: usize, load: &Load, more: &str) {
    let Load { namespace, allocations, memory } = load;
    let manifest = format!(
        "[app]\nname = \"app{number}\"\nnamespace = \"n{namespace}\"\n[service.web]\ncomponent = \"web.wasm\"\n{more}\n\
         allocations = {allocations}\n[service.web.limits]\nmemory = \"{}MiB\"\nfuel_rate = \"1M/s\"\n",
        memory * UNIT
    );
    world.manifests.insert("it".to_owned(), manifest);
    world.play("apply it");
}

fn quiet() -> World {
    let mut world = World::new();
    world.is_quiet = true;
    world
}

/// Returns how many allocations and how many units of memory a namespace has.
fn used(view: &View, namespace: usize) -> (u32, u64) {
    let usage = view.namespaces.get(&format!("n{namespace}").parse().unwrap()).map(|it| it.usage);
    usage.map_or((0, 0), |usage| (usage.allocations, usage.reserved.memory.0 / (UNIT << 20)))
}

fn set_quota(world: &mut World, namespace: usize, (memory, allocations): (Option<u64>, Option<u32>)) {
    let memory = memory.map(|memory| format!(" memory={}MiB", memory * UNIT)).unwrap_or_default();
    let allocations = allocations.map(|count| format!(" allocations={count}")).unwrap_or_default();
    world.play(&format!("namespace n{namespace}{memory}{allocations}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_namespace_has_more_than_its_quota_and_nobody_waits_without_need(
        nodes in prop::collection::vec(1..10_u64, 1..6),
        quotas in quotas(),
        loads in loads(),
    ) {
        let mut world = quiet();
        for (namespace, quota) in quotas.iter().enumerate() {
            set_quota(&mut world, namespace, *quota);
        }
        for (number, load) in loads.iter().enumerate() {
            deploy(&mut world, number, load, "");
            // Nodes come while there is load already.
            if let Some(memory) = nodes.get(number) {
                world.play(&format!("node m{number} {}MiB", memory * UNIT));
            }
            let view = world.view();
            for (namespace, (memory, allocations)) in quotas.iter().enumerate() {
                let (has, units) = used(&view, namespace);
                prop_assert!(allocations.is_none_or(|most| has <= most), "n{namespace} has {has} of {allocations:?}");
                prop_assert!(memory.is_none_or(|most| units <= most), "n{namespace} has {units} of {memory:?}");
            }
        }
        let view = world.view();
        let free: Vec<u64> = view.nodes.values().map(|node| {
            let capacity = node.capacity.unwrap();
            assert!(capacity.holds(&node.reserved), "{} reserves more than it has", node.record.id);
            (capacity.memory.0 - node.reserved.memory.0) / (UNIT << 20)
        }).collect();
        for (number, load) in loads.iter().enumerate() {
            let name = format!("n{}/app{number}/web", load.namespace).parse().unwrap();
            let placed = view.allocations.values().filter(|it| it.record.workload == name).count();
            if placed >= load.allocations as usize {
                continue;
            }
            let (has, units) = used(&view, load.namespace);
            let (memory, allocations) = quotas[load.namespace];
            let is_within = memory.is_none_or(|most| units + load.memory <= most)
                && allocations.is_none_or(|most| has < most);
            let fits = free.iter().any(|free| *free >= load.memory);
            prop_assert!(!(is_within && fits), "{name} has {placed} of {}, and may have more", load.allocations);
        }
    }

    #[test]
    fn a_quota_that_is_lowered_takes_nothing_away_and_lets_nothing_in(
        nodes in prop::collection::vec(4..10_u64, 1..4),
        loads in loads(),
        later in quotas(),
        more in loads(),
    ) {
        let mut world = quiet();
        for (number, memory) in nodes.iter().enumerate() {
            world.play(&format!("node m{number} {}MiB", memory * UNIT));
        }
        for (number, load) in loads.iter().enumerate() {
            deploy(&mut world, number, load, "");
        }
        let before: Vec<(u32, u64)> = (0..3).map(|namespace| used(&world.view(), namespace)).collect();
        for (namespace, quota) in later.iter().enumerate() {
            set_quota(&mut world, namespace, *quota);
        }
        for (number, load) in more.iter().enumerate() {
            deploy(&mut world, number + loads.len(), load, "");
        }
        for (namespace, (memory, allocations)) in later.iter().enumerate() {
            let (had, had_units) = before[namespace];
            let (has, units) = used(&world.view(), namespace);
            prop_assert!(has >= had && units >= had_units, "something of n{namespace} was taken away");
            let is_more = has > had;
            let is_within = allocations.is_none_or(|most| has <= most) && memory.is_none_or(|most| units <= most);
            prop_assert!(!is_more || is_within, "n{namespace} has {has} with {units} of {allocations:?} and {memory:?}");
        }
    }

    #[test]
    fn who_waits_has_as_much_by_weight_as_others_but_for_one_allocation(
        nodes in prop::collection::vec(1..12_u64, 1..6),
        weights in prop::collection::vec(1..9_u32, 2..5),
        memory in 1..3_u64,
    ) {
        let mut world = quiet();
        for (namespace, weight) in weights.iter().enumerate() {
            world.play(&format!("namespace n{namespace} weight={weight}"));
            // More than there can be room for.
            deploy(&mut world, namespace, &Load { namespace, allocations: 80, memory }, "");
        }
        for (number, memory) in nodes.iter().enumerate() {
            world.play(&format!("node m{number} {}MiB", memory * UNIT));
        }
        let view = world.view();
        let has: Vec<u32> = (0..weights.len()).map(|namespace| used(&view, namespace).0).collect();
        for (one, other) in (0..has.len()).flat_map(|one| (0..has.len()).map(move |other| (one, other))) {
            // Who got the last one had no more than the others before.
            let before = has[one].saturating_sub(1) * weights[other];
            prop_assert!(
                before <= has[other] * weights[one],
                "n{one} and n{other} with weights {weights:?} have {has:?}"
            );
        }
        let room: u64 = nodes.iter().map(|units| units / memory).sum();
        prop_assert_eq!(u64::from(has.iter().sum::<u32>()), room, "all room is used");
    }

    #[test]
    fn a_workload_runs_where_its_conditions_hold_as_they_read(
        conditions in prop::collection::vec(condition(), 1..4),
        nodes in prop::collection::vec(labels(), 1..7),
    ) {
        let mut world = quiet();
        for (number, labels) in nodes.iter().enumerate() {
            let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
            world.play(&format!("node m{number} 1GiB {}", labels.join(" ")));
        }
        let texts: Vec<String> = conditions.iter().map(|condition| format!("\"{}\"", condition.text())).collect();
        let manifest = format!(
            "[app]\nname = \"shop\"\n[service.web]\ncomponent = \"web.wasm\"\neverywhere = true\n\
             [service.web.placement]\nrequire = [{}]\n",
            texts.join(", ")
        );
        world.manifests.insert("it".to_owned(), manifest);
        world.play("apply it");
        let view = world.view();
        for (number, labels) in nodes.iter().enumerate() {
            let node = format!("m{number}").parse().unwrap();
            let runs = view.allocations.values().any(|it| it.record.node == node);
            let should = conditions.iter().all(|condition| condition.holds(labels));
            prop_assert_eq!(runs, should, "{:?} on a node with {:?}", texts, labels);
        }
    }
}

/// A condition on the label `zone` or on the label `kernel`, with the values that it names.
#[derive(Clone, Debug)]
struct Condition {
    form: usize,
    key: &'static str,
    values: Vec<&'static str>,
    version: (u64, u64),
}

/// How a condition is written; `K` is its label, `V` its first value, `L` all of them, `N` its version.
const FORMS: &[&str] =
    &["K = V", "K != V", "K in (L)", "K not in (L)", "K", "!K", "K >= N", "K > N", "K <= N", "K < N"];

fn condition() -> impl Strategy<Value = Condition> {
    let form = (0..FORMS.len(), prop::bool::ANY);
    let values = prop::collection::vec(prop::sample::select(vec!["a", "b", "6.1", "6"]), 1..4);
    (form, values, (5..8_u64, 0..3_u64)).prop_map(|((form, is_zone), values, version)| {
        let key = if is_zone { "zone" } else { "kernel" };
        Condition { form, key, values, version }
    })
}

/// The labels of a node: perhaps a zone, perhaps a kernel, which may be no version.
fn labels() -> impl Strategy<Value = BTreeMap<&'static str, String>> {
    let zone = prop::option::of(prop::sample::select(vec!["a", "b", "c", "6.1"]).prop_map(str::to_owned));
    let version = (5..8_u64, prop::option::of(0..3_u64)).prop_map(|(major, minor)| match minor {
        Some(minor) => format!("{major}.{minor}"),
        None => major.to_string(),
    });
    let kernel = prop_oneof![4 => version, 1 => Just("a".to_owned())];
    (zone, prop::option::of(kernel)).prop_map(|(zone, kernel)| {
        zone.map(|zone| ("zone", zone)).into_iter().chain(kernel.map(|kernel| ("kernel", kernel))).collect()
    })
}

impl Condition {
    fn text(&self) -> String {
        let (major, minor) = self.version;
        FORMS[self.form]
            .replace('L', &self.values.join(", "))
            .replace('V', self.values[0])
            .replace('N', &format!("{major}.{minor}"))
            .replace('K', self.key)
    }

    /// Reads it as a person would.
    fn holds(&self, labels: &BTreeMap<&'static str, String>) -> bool {
        let label = labels.get(self.key).map(String::as_str);
        let number = |text: &str| {
            let (major, minor) = text.split_once('.').unwrap_or((text, "0"));
            Some((major.parse::<u64>().ok()?, minor.parse::<u64>().ok()?))
        };
        let order = label.and_then(number).map(|number| number.cmp(&self.version));
        match FORMS[self.form] {
            "K = V" => label == Some(self.values[0]),
            "K != V" => label != Some(self.values[0]),
            "K in (L)" => self.values.iter().any(|value| label == Some(value)),
            "K not in (L)" => self.values.iter().all(|value| label != Some(value)),
            "K" => label.is_some(),
            "!K" => label.is_none(),
            "K >= N" => order.is_some_and(|order| order.is_ge()),
            "K > N" => order.is_some_and(|order| order.is_gt()),
            "K <= N" => order.is_some_and(|order| order.is_le()),
            _ => order.is_some_and(|order| order.is_lt()),
        }
    }
}
