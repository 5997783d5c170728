//! What a workload asks of the places where it runs, beyond equal labels.
//!
//! `require`, a required affinity and `resources` bind: where they do not hold, nothing is placed. `prefer`, `spread`
//! and an affinity that is not required only order what is left.
//!
//! Not here: how one condition is read (`expression`), and which node is taken (`scheduler`).

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::check::{Broken, Note, at_most, between, label_text, nearest, shown};
use crate::{AppName, LabelExpression, SpecError, WorkloadName};

/// The most conditions that must hold.
pub(crate) const MAX_REQUIRE: usize = 32;
/// The most conditions that are preferred.
pub(crate) const MAX_PREFER: usize = 32;
/// The most labels over which one workload is spread.
pub(crate) const MAX_SPREAD: usize = 8;
/// The most values of one label that have a weight of their own.
pub(crate) const MAX_SPREAD_WEIGHTS: usize = 32;
/// The largest weight of a value.
pub(crate) const MAX_SPREAD_WEIGHT: u32 = 1000;
/// The most workloads that one is near to, and as many that it is apart from.
pub(crate) const MAX_AFFINITIES: usize = 16;
/// The most countable resources of one workload.
pub(crate) const MAX_RESOURCES: usize = 16;
/// The most countable resources of one node.
const MAX_NODE_RESOURCES: usize = 64;
/// The most of one countable resource.
pub(crate) const MAX_RESOURCE: u32 = 1_000_000;

/// What a workload asks of the places where it runs, beyond equal labels. The default asks nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Placement {
    /// Conditions on a node's labels, which must all hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub require: Vec<LabelExpression>,
    /// Conditions on a node's labels which speak for it, or against it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prefer: Vec<Preference>,
    /// What its allocations are spread over, as evenly as there is room.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<Spread>,
    /// Workloads with which it shares a place.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub near: Vec<Affinity>,
    /// Workloads with which it shares no place. Apart from itself, it has at most one allocation in each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub apart: Vec<Affinity>,
    /// How many of each countable resource one allocation takes of its node: `gpu = 1`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, u32>,
}

/// A condition which speaks for a node, or against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Preference {
    /// The condition.
    pub expression: LabelExpression,
    /// How much it counts where it holds, from -100 to 100 and not 0. Below 0 it speaks against the node.
    #[cfg_attr(feature = "openapi", schema(minimum = -100, maximum = 100))]
    pub weight: i8,
}

/// What the allocations of a workload are spread over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Spread {
    /// The key of a label, whose values should get like shares; `node` means each node.
    pub over: String,
    /// The shares of single values in proportion, each from 1 to 1000. A value that does not stand here has 1.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, u32>,
}

/// Another workload, and in what the two are near each other or apart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Affinity {
    /// The other workload, by its full name.
    pub workload: WorkloadName,
    /// What is shared: nodes with the same value of this label are one place; `node` means each node is its own.
    #[serde(default = "Affinity::each_node")]
    pub over: String,
    /// Whether it binds; else it is a wish.
    #[serde(default = "Affinity::is_required")]
    pub required: bool,
}

impl Affinity {
    fn each_node() -> String {
        Placement::EACH_NODE.to_owned()
    }

    const fn is_required() -> bool {
        true
    }
}

/// The app to which a workload belongs, and all workloads in it: those it may be near to or apart from.
pub(crate) struct Home<'a> {
    pub(crate) app: &'a AppName,
    pub(crate) workloads: BTreeSet<&'a str>,
}

impl Placement {
    /// What `over` says where each node is a place of its own.
    pub const EACH_NODE: &'static str = "node";

    /// Tells whether nothing is asked.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Looks at every field; the first part of each finding is the field's path below `placement`.
    pub(crate) fn check(&self, home: &Home<'_>, note: &mut Note<'_>) {
        note("require".to_owned(), at_most("require", MAX_REQUIRE, self.require.len()));
        note("prefer".to_owned(), at_most("prefer", MAX_PREFER, self.prefer.len()));
        for (index, preference) in self.prefer.iter().enumerate() {
            note(format!("prefer[{index}].weight"), preference_weight(preference.weight.into()));
        }
        self.check_spread(note);
        check_affinities("near", &self.near, home, note);
        check_affinities("apart", &self.apart, home, note);
        for (index, apart) in self.apart.iter().enumerate() {
            if apart.required && self.near.contains(apart) {
                let message = format!(
                    "`{}` is required to be near and apart over the same `{}`, which is nowhere; leave one of them out",
                    apart.workload,
                    shown(&apart.over)
                );
                note(format!("apart[{index}]"), Err(Broken::new(message)));
            }
        }
        resources(&self.resources, MAX_RESOURCES, note);
    }

    fn check_spread(&self, note: &mut Note<'_>) {
        note("spread".to_owned(), at_most("spread", MAX_SPREAD, self.spread.len()));
        let mut seen = BTreeSet::new();
        for (index, Spread { over, weights }) in self.spread.iter().enumerate() {
            note(format!("spread[{index}].over"), label_text(over));
            if !seen.insert(over) {
                let message = format!("`{}` stands twice; leave one of them out", shown(over));
                note(format!("spread[{index}].over"), Err(Broken::new(message)));
            }
            let count = at_most("weights", MAX_SPREAD_WEIGHTS, weights.len());
            note(format!("spread[{index}].weights"), count);
            for (value, weight) in weights {
                let field = format!("spread[{index}].weights.{}", shown(value));
                note(field.clone(), label_text(value));
                note(field, between("weight", MAX_SPREAD_WEIGHT, *weight));
            }
        }
    }
}

/// Returns everything that is wrong with the countable resources which a node declares; nothing if it may have them.
pub fn check_node_resources(declared: &BTreeMap<String, u32>) -> Vec<SpecError> {
    let mut errors = Vec::new();
    resources(declared, MAX_NODE_RESOURCES, &mut |field, result| {
        if let Err(Broken { message, hit }) = result {
            errors.push(SpecError { field, message, hit });
        }
    });
    errors
}

/// From -100 to 100, and not 0.
pub(crate) fn preference_weight(weight: i64) -> Result<(), Broken> {
    if weight != 0 && (-100..=100).contains(&weight) {
        return Ok(());
    }
    Err(Broken::limit("weight", "-100 to 100 and not 0", weight))
}

fn check_affinities(list: &str, affinities: &[Affinity], home: &Home<'_>, note: &mut Note<'_>) {
    note(list.to_owned(), at_most(list, MAX_AFFINITIES, affinities.len()));
    let mut seen = BTreeSet::new();
    for (index, Affinity { workload, over, required: _ }) in affinities.iter().enumerate() {
        note(format!("{list}[{index}].over"), label_text(over));
        let name = workload.workload.as_str();
        if workload.app_name() == *home.app && !home.workloads.contains(name) {
            let known: Vec<&str> = home.workloads.iter().copied().collect();
            let message = format!("this app has no workload `{name}`; {}", nearest(name, &known));
            note(format!("{list}[{index}].workload"), Err(Broken::new(message)));
        }
        if !seen.insert((workload, over)) {
            let message = format!("`{workload}` stands twice over `{}`; leave one of them out", shown(over));
            note(format!("{list}[{index}]"), Err(Broken::new(message)));
        }
    }
}

fn resources(resources: &BTreeMap<String, u32>, most: usize, note: &mut Note<'_>) {
    note("resources".to_owned(), at_most("resources", most, resources.len()));
    for (name, count) in resources {
        let field = format!("resources.{}", shown(name));
        note(field.clone(), resource_name(name));
        note(field, between("resource", MAX_RESOURCE, *count));
    }
}

fn resource_name(name: &str) -> Result<(), Broken> {
    if ["memory", "fuel_rate"].contains(&name) {
        return Err(Broken::new(format!(
            "`{name}` is no countable resource: a workload asks for it in `limits`, and a node measures it"
        )));
    }
    label_text(name)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn affinity(workload: &str, over: &str, required: bool) -> Affinity {
        Affinity { workload: workload.parse().unwrap(), over: over.to_owned(), required }
    }

    /// What is told of a workload of the app `default/shop`, in which are `cart` and `cache`.
    fn told(placement: &Placement) -> String {
        let app = "default/shop".parse().unwrap();
        let home = Home { app: &app, workloads: BTreeSet::from(["cart", "cache"]) };
        let mut told = String::new();
        placement.check(&home, &mut |field, result| {
            if let Err(Broken { message, hit: _ }) = result {
                told += &format!("{field}: {message}\n");
            }
        });
        told
    }

    #[test]
    fn what_is_asked_is_read_back_and_what_is_not_asked_is_not_written() {
        let json = r#"{"require":["zone in (a, b)"],"prefer":[{"expression":"disk = ssd","weight":-5}],"spread":[{"over":"zone"}],"near":[{"workload":"default/shop/cache","over":"node","required":true}],"resources":{"gpu":1}}"#;
        let placement: Placement = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&placement).unwrap(), json);
        assert_eq!(told(&placement), "");
        assert_eq!(serde_json::to_string(&Placement::default()).unwrap(), "{}");
        assert!(Placement::default().is_empty() && !placement.is_empty());
    }

    #[test]
    fn an_affinity_binds_and_means_the_node_unless_it_says_otherwise() {
        let short: Affinity = serde_json::from_str(r#"{"workload":"default/shop/cart"}"#).unwrap();
        assert_eq!(short, affinity("default/shop/cart", "node", true));
    }

    #[test]
    fn every_field_has_its_limit() {
        let expression: LabelExpression = "gpu".parse().unwrap();
        let preference = Preference { expression: expression.clone(), weight: 1 };
        let spread = |number: usize| Spread {
            over: format!("label-{number}"),
            weights: (0..=MAX_SPREAD_WEIGHTS).map(|value| (format!("{value}"), 1)).collect(),
        };
        let other = |number: usize| affinity(&format!("default/other/w{number}"), "node", true);
        let placement = Placement {
            require: vec![expression; MAX_REQUIRE + 1],
            prefer: vec![preference; MAX_PREFER + 1],
            spread: (0..=MAX_SPREAD).map(spread).take(MAX_SPREAD + 1).collect(),
            near: (0..=MAX_AFFINITIES).map(other).collect(),
            apart: (100..=100 + MAX_AFFINITIES).map(other).collect(),
            resources: (0..=MAX_RESOURCES).map(|number| (format!("r{number}"), 1)).collect(),
        };
        let told = told(&placement);
        for (limit, value) in
            [("require", 32), ("prefer", 32), ("spread", 8), ("near", 16), ("apart", 16), ("resources", 16)]
        {
            let line = format!("{limit}: limit `{limit}` is {value}, observed {}\n", value + 1);
            assert!(told.contains(&line), "{told}");
        }
        assert!(told.contains("spread[8].weights: limit `weights` is 32, observed 33"), "{told}");
    }

    #[test]
    fn each_mistake_is_told_with_its_field() {
        let preference = |weight| Preference { expression: "gpu".parse().unwrap(), weight };
        let weights = BTreeMap::from([("a".to_owned(), 0), ("b c".to_owned(), 1001)]);
        let spread = |over: &str| Spread { over: over.to_owned(), weights: BTreeMap::new() };
        let placement = Placement {
            prefer: vec![preference(0), preference(100), preference(-101)],
            spread: vec![Spread { over: "zone".to_owned(), weights }, spread("zone"), spread("")],
            near: vec![
                affinity("default/shop/cahce", "node", true),
                affinity("default/other/cahce", "a b", false),
                affinity("default/shop/cart", "zone", true),
                affinity("default/shop/cart", "zone", false),
            ],
            apart: vec![
                affinity("default/shop/cart", "node", true),
                affinity("default/shop/cart", "zone", true),
                affinity("default/shop/nothing", "node", false),
            ],
            resources: [("gpu", 0), ("memory", 1), ("a b", 1), ("port-cam", 2)]
                .map(|(name, count)| (name.to_owned(), count))
                .into(),
            ..Placement::default()
        };
        expect![[r#"
            prefer[0].weight: limit `weight` is -100 to 100 and not 0, observed 0
            prefer[2].weight: limit `weight` is -100 to 100 and not 0, observed -101
            spread[0].weights.a: limit `weight` is 1 to 1000, observed 0
            spread[0].weights.b c: `b c` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
            spread[0].weights.b c: limit `weight` is 1000, observed 1001
            spread[1].over: `zone` stands twice; leave one of them out
            spread[2].over: `` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
            near[0].workload: this app has no workload `cahce`; did you mean `cache`?
            near[1].over: `a b` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
            near[3]: `default/shop/cart` stands twice over `zone`; leave one of them out
            apart[2].workload: this app has no workload `nothing`; there are `cache`, `cart`
            apart[1]: `default/shop/cart` is required to be near and apart over the same `zone`, which is nowhere; leave one of them out
            resources.a b: `a b` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
            resources.gpu: limit `resource` is 1 to 1000000, observed 0
            resources.memory: `memory` is no countable resource: a workload asks for it in `limits`, and a node measures it
        "#]]
        .assert_eq(&told(&placement));
    }

    #[test]
    fn what_a_node_declares_follows_the_rules_of_what_is_asked() {
        let of = |resources: &[(&str, u32)]| {
            let declared = resources.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            check_node_resources(&declared).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(of(&[("gpu", 1), ("port-cam", MAX_RESOURCE)]), Vec::<String>::new());
        assert_eq!(of(&[("gpu", 0)]), ["`resources.gpu`: limit `resource` is 1 to 1000000, observed 0"]);
        assert_eq!(of(&[("fuel_rate", 1)]).len(), 1);
        assert_eq!(of(&[("", 1)]).len(), 1);
    }
}
