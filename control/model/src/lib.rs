//! The words of Dunlin: plain checked values shared by every other crate.
//!
//! A value of a type from this crate is valid: it is checked where it enters, and trusted from there on.
//! There is no I/O, no clock and no randomness here.
//!
//! # Glossary
//!
//! | Word | Meaning |
//! | --- | --- |
//! | component | a wasm component binary, known by its [`Digest`] |
//! | chunk | some bytes of a component, between ends that are decided by what is in it; the piece in which it travels |
//! | signer | who vouches for components with a key that a namespace or a node names: [`SignerKey`] |
//! | site | nodes with the same value of the label `site`; to each other they are neighbours |
//! | app | what a developer deploys under one name: a manifest `dunlin.toml` with one or more workloads |
//! | workload | one *service* or one *job* of an app; its full name is `namespace/app/workload` |
//! | spec | what the user asked for: [`WorkloadSpec`] |
//! | revision | one accepted set of specs of an app, immutable, numbered from 1 |
//! | allocation | one copy of a workload's revision bound to one node, never reused |
//! | run | one execution of a job over its items, numbered by [`RunId`] |
//! | chain | runs of one app that were started together, some of which wait for others |
//! | schedule | when a job is run by itself: [`Schedule`] |
//! | item | one unit of a run: one input, one fresh instance, one record |
//! | instance | one live sandbox inside an allocation: one request, or one run of a job item |
//! | node / agent | the machine / the process on it |
//! | worker | the operating-system process in which one namespace's guests run on one node |
//! | rollout | the passage from one revision to the next: [`RolloutSpec`] |
//! | canary | an allocation of a new revision that runs beside the old ones until it is promoted |
//! | health check | a request by which it is known that an allocation is well: [`HealthSpec`] |
//! | assignment | everything one node must run, as one list: [`Assignment`] |
//! | generation | counts assignments to one node; an older one is refused |
//! | term | counts coordinators in charge; an older one is refused |
//! | lease | the time until which a silent node is still believed; that of a singleton, until which it may run |
//! | singleton | a service of which at most one allocation runs at any moment, anywhere: [`OnPartition`] |
//! | fence | the number by which what a singleton writes to can tell a later allocation of it from an earlier one |
//! | fuel | wasmtime's deterministic measure of executed work; the unit of computing |
//! | fuel rate | fuel per second |
//! | limits | fuel, fuel rate, memory, deadline, concurrency: what a guest may use at most |
//! | quota | what one namespace may reserve in the fleet: [`Quota`] |
//! | placement | what a workload asks of the places where it runs: [`Placement`] |
//! | place | a node, or all nodes that have one value of a label in common |
//! | priority | which workload goes first where there is not room for all: [`Priority`] |
//! | countable resource | what a node has a number of and an allocation takes whole: `gpu = 1` |
//! | capability | one thing a guest may touch beyond computing; denied unless granted |
//! | secret | a value of a namespace that its guests read by name and nobody is shown: [`SecretId`] |
//! | program | what an agent is; the fleet brings it another one in an *upgrade*: [`ProgramOrder`] |
//! | feature | what is young and off unless a node's operator switches it on: [`Feature`] |
//! | outcome | how an instance ended: [`Outcome`] |
//! | route | host and path prefix → service |
//! | ingress | the HTTP front door on each node |
//! | desired / observed | what should be / what agents last said |

mod address_range;
mod allocation;
mod assignment;
mod call;
mod capability;
mod chain;
mod check;
mod chunk;
mod cron;
mod destination;
mod digest;
mod explanation;
mod expression;
mod feature;
mod forecast;
mod hops;
mod id;
mod limits;
mod log;
mod manifest;
mod name;
mod namespace;
mod node;
mod object;
#[cfg(feature = "openapi")]
mod openapi;
mod outcome;
mod packed;
mod partition;
mod placement;
mod priority;
mod program;
mod quantity;
mod report;
mod rollout;
mod route_rules;
mod routes;
mod run;
mod schedule;
mod secret;
mod signature;
mod spec;
mod trap;
mod want;

pub use address_range::{AddressRange, AddressRangeError};
pub use allocation::{AllocationReport, ObservedState};
pub use assignment::{AssignedAllocation, Assignment, ItemRange, Work};
pub use call::CALLER_HEADER;
pub use capability::{Capabilities, FolderGrant};
pub use chain::chain_of;
pub use check::{SpecError, nearest};
pub use chunk::{Chunk, MAX_CHUNK};
pub use cron::{Cron, CronError};
pub use destination::{DestinationError, Host, HostPattern, HttpPattern, SocketPattern, host_and_port};
pub use digest::{Digest, DigestError};
pub use explanation::{
    AllocationExplanation, AllocationFailure, Decision, EndReason, EndedAllocation, ExplainedAllocation,
    ExplainedWait, Explanation, FilterCount, Remedy, RemedyKind,
};
pub use expression::{LabelExpression, LabelExpressionError};
pub use feature::Feature;
pub use forecast::{
    AllocationChange, AllocationForecast, FieldChange, Forecast, ForecastEnd, Moment, MomentKind, Plan,
    WorkloadForecast,
};
pub use hops::{HOPS_HEADER, MAX_HOPS, hops};
pub use id::{
    AllocationId, ClusterId, Generation, IdError, InstanceId, NodeId, Revision, RunId, Term, Timestamp,
};
pub use limits::{CompileLimits, ComponentLimits, LimitField, LimitHit, LimitRow, LimitValue, Limits, SetIn};
pub use log::{LogRecord, LogSource};
pub use manifest::{
    Build, JobInput, MAX_MANIFEST, Manifest, ManifestError, ManifestErrors, ManifestWorkload, TestCase,
    TestContent, TestExpectation, TestInput, packed,
};
pub use name::{AppName, Name, NameError, WorkloadName};
pub use namespace::{NamespaceSpec, NewWants, Packing, Quota};
pub use node::{NodeInfo, Overcommit, OvercommitError, Resources};
pub use object::Object;
pub use outcome::Outcome;
pub use packed::{PackedError, pack_items, unpack_items};
pub use partition::OnPartition;
pub use placement::{Affinity, Placement, Preference, Spread, check_node_resources};
pub use priority::{Priority, PriorityError};
pub use program::{
    Architecture, ArchitectureError, MAX_PROGRAM, MAX_SIGNATURE, Program, ProgramOrder, ProgramReport,
    UpgradePlan,
};
pub use quantity::{Bytes, DurationMs, Fuel, FuelRate, QuantityError};
pub use report::Report;
pub use rollout::{Amount, HealthSpec, Percent, PercentError, Promote, RolloutSpec};
pub use route_rules::{RateLimit, Redirect, Respond, RouteRules, Sticky};
pub use routes::{Endpoint, LocalService, NamespaceRoute, NamespaceRoutes, Route, RouteTable};
pub use run::{Begun, HostCalls, ItemInput, ItemRecord, ItemReport, MAX_ITEM_OUTPUT, MAX_ITEMS};
pub use schedule::{Missed, Overlap, Schedule, TimeZone, TimeZoneError};
pub use secret::{
    MAX_SECRET, MAX_SECRETS, SecretId, SecretIdError, SecretName, SecretNameError, SecretValue,
    SecretValueError, SecretVersion, SecretVersionError,
};
pub use signature::{SignatureError, Signed, SignerKey, SignerKeyError, Statement, check_signed};
pub use spec::{
    AppSpec, Instances, JobSpec, Metering, RouteSpec, Semantics, ServiceSpec, WorkloadKind, WorkloadSpec,
};
pub use trap::{CoreDump, Frame, HostCall, TrapOnNode, TrapRecord};
pub use want::Want;
