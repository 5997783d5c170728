//! What one namespace may have of the fleet.
//!
//! Not here: what it has, and who waits for whom (`scheduler`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::check::{Broken, at_most, between};
use crate::{Bytes, FuelRate, SignerKey, SpecError};

/// The largest weight of a namespace.
const MAX_WEIGHT: u32 = 1000;
/// The most keys that it names.
const MAX_SIGNERS: usize = 16;

/// What one namespace may have of the fleet, and how it is placed there. The default is what a namespace has of which
/// nobody said anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NamespaceSpec {
    /// The most that it may have, whatever is free.
    #[serde(deserialize_with = "crate::object::object")]
    pub quota: Quota,
    /// Its share among the namespaces when there is not room for all, in proportion: from 1 to 1000.
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    pub weight: u32,
    /// How its allocations lie on the nodes.
    pub packing: Packing,
    /// Public keys of minisign: only components that are signed with one of them may be deployed. Anybody's may if it is
    /// empty.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub signers: BTreeSet<SignerKey>,
    /// What becomes of a deploy that newly wants something.
    #[serde(skip_serializing_if = "NewWants::is_allow")]
    pub new_wants: NewWants,
}

impl NamespaceSpec {
    /// Returns everything that is wrong with it; nothing if it may be accepted.
    pub fn check(&self) -> Vec<SpecError> {
        // Of a quota any number is right: nothing at all closes a namespace.
        let Self { quota: _, weight, packing: _, signers, new_wants: _ } = self;
        let broken = [
            ("weight", between("weight", MAX_WEIGHT, *weight)),
            ("signers", at_most("signers", MAX_SIGNERS, signers.len())),
        ];
        let error = |(field, result): (&str, Result<(), Broken>)| {
            let Broken { message, hit } = result.err()?;
            Some(SpecError { field: field.to_owned(), message, hit })
        };
        broken.into_iter().filter_map(error).collect()
    }
}

impl Default for NamespaceSpec {
    fn default() -> Self {
        Self {
            quota: Quota::default(),
            weight: 1,
            packing: Packing::default(),
            signers: BTreeSet::new(),
            new_wants: NewWants::default(),
        }
    }
}

/// The most that one namespace may have of the fleet. What is absent has no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Quota {
    /// Memory that all its allocations reserve together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Bytes>,
    /// Fuel per second that all its allocations reserve together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fuel_rate: Option<FuelRate>,
    /// Its allocations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocations: Option<u32>,
    /// Open items, those without a record, of all its runs at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<u32>,
}

/// How the allocations of a namespace lie on the nodes, where nothing else decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Packing {
    /// On the emptiest nodes first: each has room for a burst, and the loss of one takes little.
    #[default]
    Spread,
    /// On the fullest nodes first: others stay empty for what is large, or can be switched off.
    Pack,
}

/// What becomes of a deploy by which a workload may do or have more than before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum NewWants {
    /// It is carried out, and says what was new.
    #[default]
    Allow,
    /// It is refused unless it says that this is accepted.
    Ask,
}

impl NewWants {
    /// Tells whether it is what a namespace has of which nobody said anything.
    pub fn is_allow(&self) -> bool {
        *self == Self::Allow
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_of_which_nothing_is_said_has_no_quota_and_one_share() {
        let spec: NamespaceSpec = serde_json::from_str("{}").unwrap();
        assert_eq!(spec, NamespaceSpec::default());
        assert_eq!((spec.quota, spec.weight, spec.packing), (Quota::default(), 1, Packing::Spread));
        assert_eq!(spec.check(), []);
        let json = r#"{"quota":{},"weight":1,"packing":"spread"}"#;
        assert_eq!(serde_json::to_string(&spec).unwrap(), json);
    }

    #[test]
    fn what_is_said_of_a_namespace_is_read_back() {
        let quota = Quota {
            memory: Some(Bytes(1 << 30)),
            fuel_rate: Some(FuelRate(0)),
            allocations: Some(7),
            items: Some(1000),
        };
        let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
        let signers = BTreeSet::from([key.parse().unwrap()]);
        let new_wants = NewWants::Ask;
        let spec = NamespaceSpec { quota, weight: 1000, packing: Packing::Pack, signers, new_wants };
        assert_eq!(spec.check(), []);
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<NamespaceSpec>(&json).unwrap(), spec);
    }

    #[test]
    fn a_weight_out_of_range_is_refused_with_its_limit() {
        for weight in [0, 1001] {
            let errors = NamespaceSpec { weight, ..NamespaceSpec::default() }.check();
            assert_eq!(errors.len(), 1);
            assert_eq!(errors[0].field, "weight");
            assert_eq!(errors[0].hit.as_ref().unwrap().limit, "weight");
        }
    }
}
