//! What is young and off unless a node's operator switches it on.
//!
//! A node that has a feature carries a label for it, which only its agent sets; a workload whose component needs it
//! demands that label, which only the coordinator sets. So it is placed like any other that demands labels, and an
//! agent or coordinator that has never heard of features does the right thing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::WorkloadSpec;

/// What is young and off unless a node's operator switches it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Feature {
    /// Components of WASI 0.3, which use the asynchronous part of the component model.
    #[serde(rename = "wasi-0.3")]
    Wasi03,
}

impl Feature {
    /// Every one of them.
    pub const ALL: [Self; 1] = [Self::Wasi03];
    /// What the labels that stand for features begin with. Nobody else may set such labels.
    pub const LABEL_PREFIX: &'static str = "feature/";
    /// The value of such a label.
    const ON: &'static str = "on";

    /// Returns its name, as it stands in a node's config file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Wasi03 => "wasi-0.3",
        }
    }

    /// Returns the feature of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|feature| feature.name() == name)
    }

    /// Returns the label of nodes that have it.
    pub fn label(self) -> (String, String) {
        (format!("{}{}", Self::LABEL_PREFIX, self.name()), Self::ON.to_owned())
    }

    /// Tells whether the label `key` stands for a feature.
    pub fn is_label(key: &str) -> bool {
        key.starts_with(Self::LABEL_PREFIX)
    }

    /// Leaves of the labels that stand for features those of `features` alone.
    pub fn set_labels(labels: &mut BTreeMap<String, String>, features: impl IntoIterator<Item = Self>) {
        labels.retain(|key, _| !Self::is_label(key));
        labels.extend(features.into_iter().map(Self::label));
    }
}

impl WorkloadSpec {
    /// Tells whether it was found to need `feature`.
    pub fn needs(&self, feature: Feature) -> bool {
        let (key, value) = feature.label();
        self.node_labels.get(&key) == Some(&value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_of_features_are_those_that_were_set_and_no_others() {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut labels = BTreeMap::from([label("zone", "a"), label("feature/wasi-0.3", "maybe")]);
        Feature::set_labels(&mut labels, []);
        assert_eq!(labels, BTreeMap::from([label("zone", "a")]));
        Feature::set_labels(&mut labels, Feature::ALL);
        assert_eq!(labels, BTreeMap::from([label("zone", "a"), label("feature/wasi-0.3", "on")]));
    }

    #[test]
    fn a_feature_has_one_name_everywhere() {
        for feature in Feature::ALL {
            assert_eq!(serde_json::to_value(feature).unwrap(), feature.name());
            assert_eq!(Feature::named(feature.name()), Some(feature));
        }
        assert_eq!(Feature::named("wasi-0.9"), None);
    }
}
