//! What the user asked for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    AppName, Capabilities, Digest, DurationMs, HealthSpec, Limits, Name, OnPartition, Placement, Priority,
    RolloutSpec, RouteRules, Schedule, Signed,
};

/// An app as it is submitted: every component is already known by its digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AppSpec {
    /// Its full name.
    pub name: AppName,
    /// Its workloads by name.
    pub workloads: BTreeMap<Name, WorkloadSpec>,
}

/// One service or one job, as the user asked for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkloadSpec {
    /// What to run.
    pub component: Digest,
    /// Who vouches for the component, if somebody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Box<Signed>>,
    /// Service or job.
    #[serde(flatten)]
    pub kind: WorkloadKind,
    /// What each of its instances and allocations may use at most.
    pub limits: Limits,
    /// Variables that the guest sees in its environment.
    pub environment: BTreeMap<String, String>,
    /// Labels which a node must have, all of them, to run it.
    pub node_labels: BTreeMap<String, String>,
    /// What it may touch beyond computing.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// Whether each request or item gets an instance of its own.
    #[serde(default)]
    pub instances: Instances,
    /// How what it computes is counted.
    #[serde(default)]
    pub metering: Metering,
    /// Whether a core dump is kept of an instance that traps.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub coredump: bool,
    /// What it asks of the places where it runs, beyond `node_labels`.
    #[serde(default, skip_serializing_if = "Placement::is_empty")]
    pub placement: Placement,
    /// Whether it goes before others where there is not room for all.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
}

impl WorkloadSpec {
    /// Returns what it does on a node that does not hear from its coordinator. A job goes on.
    pub fn on_partition(&self) -> OnPartition {
        match &self.kind {
            WorkloadKind::Service(service) => service.on_partition,
            WorkloadKind::Job(_) => OnPartition::Keep,
        }
    }

    /// Tells whether a guest under this spec runs as one under `other`: where it is placed, how many there are and which
    /// requests reach them makes no difference to one that runs.
    pub fn runs_as(&self, other: &Self) -> bool {
        let Self {
            component,
            signed: _,
            kind,
            limits,
            environment,
            node_labels: _,
            capabilities,
            instances,
            metering,
            coredump,
            placement: _,
            priority: _,
        } = self;
        let is_same_kind = match (kind, &other.kind) {
            (WorkloadKind::Service(own), WorkloadKind::Service(other)) => {
                // What ran without a lease is no singleton because its name says so now.
                own.fuel_header == other.fuel_header
                    && own.health == other.health
                    && own.on_partition.is_singleton() == other.on_partition.is_singleton()
            }
            (WorkloadKind::Job(_), WorkloadKind::Job(_)) => true,
            (WorkloadKind::Service(_), WorkloadKind::Job(_))
            | (WorkloadKind::Job(_), WorkloadKind::Service(_)) => false,
        };
        is_same_kind
            && *component == other.component
            && *limits == other.limits
            && *environment == other.environment
            && *capabilities == other.capabilities
            && *instances == other.instances
            && *metering == other.metering
            && *coredump == other.coredump
    }
}

/// Whether each request or item gets an instance of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Instances {
    /// A fresh one each: nothing of one request is there for the next.
    #[default]
    Fresh,
    /// An instance answers one request after the other as long as it does well: faster, and what a guest keeps in
    /// its memory is there for the next request.
    Reused,
}

/// How what a guest computes is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Metering {
    /// By fuel: the same input burns the same on every run.
    #[default]
    Fuel,
    /// By the time of the processor, turned into fuel by the node's rate: a little faster, and not deterministic.
    Time,
}

/// Service or job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum WorkloadKind {
    /// Answers HTTP requests.
    Service(ServiceSpec),
    /// Runs over items, when asked.
    Job(JobSpec),
}

/// What only a service has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceSpec {
    /// How many allocations should run; zero stops it, also one that runs everywhere, for which no other number counts.
    pub allocations: u32,
    /// Which requests reach it.
    pub routes: Vec<RouteSpec>,
    /// Whether its responses say in `dunlin-fuel` what they burned.
    #[serde(default)]
    pub fuel_header: bool,
    /// Whether it has one allocation on each node that fits it, however many those are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub everywhere: bool,
    /// How it passes from one revision to the next.
    #[serde(default, skip_serializing_if = "RolloutSpec::is_default")]
    pub rollout: RolloutSpec,
    /// How it is known that an allocation is well; one that is loaded is if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthSpec>,
    /// What it does on a node that does not hear from its coordinator.
    #[serde(default, skip_serializing_if = "OnPartition::is_keep")]
    pub on_partition: OnPartition,
}

/// Which requests reach a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RouteSpec {
    /// The host name in lower case and without port, or `*.` and a name for all names below it; any if absent.
    pub host: Option<String>,
    /// The path begins with these segments; `/` takes all.
    pub path: String,
    /// What is done with them before the service has them; nothing for most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<Box<RouteRules>>,
}

impl RouteSpec {
    /// Returns a route without rules.
    pub fn new(host: Option<&str>, path: &str) -> Self {
        Self { host: host.map(str::to_owned), path: path.to_owned(), rules: None }
    }

    /// Returns the same without rules.
    #[must_use]
    pub fn pattern_alone(&self) -> Self {
        Self { host: self.host.clone(), path: self.path.clone(), rules: None }
    }

    /// Returns the place at which it takes requests. Routes are ordered by their places first.
    pub fn place(&self) -> (Option<&str>, &str) {
        (self.host.as_deref(), &self.path)
    }

    /// Returns the headers without which it takes no request. Two routes with the same place and the same headers are in each
    /// other's way, whatever their other rules. At one place routes are ordered by these.
    pub fn headers(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.rules.as_ref().map_or(&NONE, |rules| &rules.headers)
    }
}

/// What only a job has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobSpec {
    /// How many allocations may work on one run at the same time.
    pub parallelism: u32,
    /// How often an item is tried before its failure stands.
    pub attempts: u32,
    /// After all items one more instance, started with `--combine`, reads all their outputs and gives the total.
    pub combine: bool,
    /// Over how many items it runs if whoever starts a run does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u32>,
    /// Where the inputs of these items are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Digest>,
    /// Jobs of the same app which are run before it, in the same chain.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub after: BTreeSet<Name>,
    /// When it is run by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Whether an item may be started twice.
    #[serde(default, skip_serializing_if = "Semantics::is_default")]
    pub semantics: Semantics,
    /// How long a run may take; then it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<DurationMs>,
}

impl JobSpec {
    /// Tells whether a run reads what those have given that it comes after: it has nothing else to work on.
    pub fn reads_outputs(&self) -> bool {
        self.items.is_none() && !self.after.is_empty()
    }

    /// Tells whether none of its items may be started twice.
    pub fn is_at_most_once(&self) -> bool {
        self.semantics == Semantics::AtMostOnce
    }
}

impl Default for JobSpec {
    fn default() -> Self {
        Self {
            parallelism: 1,
            attempts: 3,
            combine: false,
            items: None,
            inputs: None,
            after: BTreeSet::new(),
            schedule: None,
            semantics: Semantics::default(),
            deadline: None,
        }
    }
}

/// Whether an item may be started twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Semantics {
    /// It may: one of which nobody knows what became is tried again.
    #[default]
    AtLeastOnce,
    /// It may not: one of which nobody knows what became has the outcome `Unknown`.
    AtMostOnce,
}

impl Semantics {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_that_was_stored_before_there_was_placement_is_read_and_written_as_it_was() {
        let digest = Digest::of(b"");
        let limits = serde_json::to_string(&Limits::SERVICE).unwrap();
        let capabilities = serde_json::to_string(&Capabilities::default()).unwrap();
        let stored = format!(
            r#"{{"component":"{digest}","kind":"service","allocations":3,"routes":[],"fuel_header":false,"limits":{limits},"environment":{{}},"node_labels":{{"zone":"a"}},"capabilities":{capabilities},"instances":"fresh","metering":"fuel"}}"#
        );
        let spec: WorkloadSpec = serde_json::from_str(&stored).unwrap();
        assert!(spec.placement.is_empty());
        assert_eq!(spec.priority, Priority::DEFAULT);
        let WorkloadKind::Service(service) = &spec.kind else { panic!("it is a service") };
        assert!(!service.everywhere && service.rollout.is_default() && service.health.is_none());
        assert_eq!(serde_json::to_string(&spec).unwrap(), stored);
    }
}
