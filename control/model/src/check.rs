//! The rules which bind the fields of a spec, in one place for manifest and API.
//!
//! Each rule looks at one field and says what is wrong with it, with the limit that was hit if there is one.
//!
//! Not here: how a text becomes a field (`manifest`), and what the fleet has room for (`scheduler`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::placement::Home;
use crate::signature::MAX_SIGNED_TEXT;
use crate::{
    AppSpec, Bytes, Capabilities, DurationMs, Feature, JobSpec, LimitHit, Limits, MAX_ITEMS, Name, Placement,
    RouteSpec, ServiceSpec, Signed, WorkloadKind, WorkloadSpec,
};
use crate::{chain, partition};

/// The most workloads of one app.
pub(crate) const MAX_WORKLOADS: usize = 64;
/// The most allocations of one service.
pub(crate) const MAX_ALLOCATIONS: u32 = 10_000;
/// The most allocations which work on one run at the same time.
pub(crate) const MAX_PARALLELISM: u32 = 10_000;
/// The most tries of one item.
pub(crate) const MAX_ATTEMPTS: u32 = 100;
/// The longest that a run may be given.
pub(crate) const MAX_RUN_TIME: DurationMs = DurationMs(31 * 24 * 3_600_000);
/// The most routes of one service.
pub(crate) const MAX_ROUTES: usize = 64;
/// The most characters of a route's path.
pub(crate) const MAX_ROUTE_PATH: usize = 1024;
/// The most labels which a workload may ask of its nodes.
pub(crate) const MAX_NODE_LABELS: usize = 32;
/// The most characters of a label's key, and of its value.
pub(crate) const MAX_LABEL: usize = 63;

/// Longer names are not compared with the known ones: nobody meant them.
const MAX_COMPARED: usize = 64;

/// What is wrong with one field of a spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// Where, as a dotted path: `workloads.hello.limits.memory`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The limit that was hit, if it is one.
    pub hit: Option<LimitHit>,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.field, self.message)
    }
}

impl AppSpec {
    /// Returns everything that is wrong with it; nothing if it may be accepted.
    pub fn check(&self) -> Vec<SpecError> {
        let mut errors = Vec::new();
        let mut note = |field: String, result: Result<(), Broken>| {
            if let Err(broken) = result {
                errors.push(SpecError { field, message: broken.message, hit: broken.hit });
            }
        };
        let workloads = self.workloads.len();
        if workloads == 0 {
            note("workloads".to_owned(), Err(Broken::new("an app has at least one workload")));
        }
        note("workloads".to_owned(), at_most("workloads", MAX_WORKLOADS, workloads));
        let links = chain::links_of(self);
        let home = Home { app: &self.name, workloads: self.workloads.keys().map(Name::as_str).collect() };
        for (name, spec) in &self.workloads {
            let mut note = |field, result| note(format!("workloads.{name}.{field}"), result);
            check_workload(spec, &mut note);
            note("after".to_owned(), chain::check_after(&links, name));
            spec.placement.check(&home, &mut |field, result| note(format!("placement.{field}"), result));
        }
        let routes = self.workloads.iter().flat_map(|(name, spec)| match &spec.kind {
            WorkloadKind::Service(service) => service.routes.iter().map(|route| (name, route)).collect(),
            WorkloadKind::Job(_) => Vec::new(),
        });
        let mut seen = BTreeSet::new();
        for (name, route) in routes {
            let (host, path) = route.place();
            if !seen.insert((host, path.trim_end_matches('/'), route.headers())) {
                note(format!("workloads.{name}.routes"), Err(Broken::new(SAME_ROUTE)));
            }
        }
        errors
    }
}

impl WorkloadSpec {
    /// Returns what is wrong with its environment: that of a run may have been added to.
    pub fn check_environment(&self) -> Vec<SpecError> {
        let mut errors = Vec::new();
        check_environment(self, &mut |field, result| {
            if let Err(broken) = result {
                errors.push(SpecError { field, message: broken.message, hit: broken.hit });
            }
        });
        errors
    }
}

/// What is said when two services of an app have the same route.
pub(crate) const SAME_ROUTE: &str = "this route stands twice in the app";

/// A rule that is broken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) message: String,
    pub(crate) hit: Option<LimitHit>,
}

impl Broken {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hit: None }
    }

    pub(crate) fn limit(limit: &str, value: impl fmt::Display, observed: impl fmt::Display) -> Self {
        let hit = LimitHit::new(limit, value, observed);
        Self { message: hit.to_string(), hit: Some(hit) }
    }
}

/// Takes what each rule says of a field, which is named by its path.
pub(crate) type Note<'a> = dyn FnMut(String, Result<(), Broken>) + 'a;

fn check_workload(spec: &WorkloadSpec, note: &mut Note<'_>) {
    for (field, result) in limits(&spec.limits, &spec.kind) {
        note(format!("limits.{field}"), result);
    }
    check_environment(spec, note);
    if let Some(Signed { statement, signature }) = spec.signed.as_deref() {
        note("signed.statement".to_owned(), at_most("signed text", MAX_SIGNED_TEXT, statement.len()));
        note("signed.signature".to_owned(), at_most("signed text", MAX_SIGNED_TEXT, signature.len()));
    }
    spec.capabilities.check(&mut |field, result| note(format!("capabilities.{field}"), result));
    note("coredump".to_owned(), dumped(spec.coredump, &spec.capabilities));
    for (key, value) in &spec.node_labels {
        note("node_labels".to_owned(), label(key, value));
    }
    let own = spec.node_labels.keys().filter(|key| !Feature::is_label(key)).count();
    note("node_labels".to_owned(), at_most("node_labels", MAX_NODE_LABELS, own));
    match &spec.kind {
        WorkloadKind::Service(service) => {
            let ServiceSpec {
                allocations,
                routes,
                fuel_header: _,
                everywhere,
                rollout,
                health,
                on_partition: _,
            } = service;
            partition::check(service, &mut |field, result| note(field.to_owned(), result));
            rollout.check(*everywhere, &mut |field, result| note(format!("rollout.{field}"), result));
            if let Some(health) = health {
                health.check(&mut |field, result| note(format!("health.{field}"), result));
            }
            note("placement".to_owned(), everywhere_alone(*everywhere, &spec.placement));
            note("allocations".to_owned(), at_most("allocations", MAX_ALLOCATIONS, *allocations));
            note("routes".to_owned(), at_most("routes", MAX_ROUTES, routes.len()));
            for (index, route) in routes.iter().enumerate() {
                let RouteSpec { host, path, rules } = route;
                if let Some(host) = host {
                    note(format!("routes[{index}].host"), route_host(host));
                }
                note(format!("routes[{index}].path"), route_path(path));
                if let Some(rules) = rules {
                    rules.check(&mut |field, result| note(format!("routes[{index}].rules.{field}"), result));
                }
            }
        }
        WorkloadKind::Job(job) => check_job(job, note),
    }
}

/// A core dump has all that a guest has read.
pub(crate) fn dumped(coredump: bool, capabilities: &Capabilities) -> Result<(), Broken> {
    match coredump && !capabilities.secrets.is_empty() {
        true => Err(Broken::new(
            "a core dump would hold the secrets that the guest has read: have one or the other",
        )),
        false => Ok(()),
    }
}

fn check_environment(spec: &WorkloadSpec, note: &mut Note<'_>) {
    for (name, value) in &spec.environment {
        note("environment".to_owned(), variable(name, value));
    }
    let given = environment(&spec.environment, &spec.capabilities.config, spec.limits.environment);
    note("environment".to_owned(), given);
}

fn check_job(job: &JobSpec, note: &mut Note<'_>) {
    let JobSpec { parallelism, attempts, combine: _, items, inputs, after, schedule, semantics: _, deadline } =
        job;
    note("parallelism".to_owned(), between("parallelism", MAX_PARALLELISM, *parallelism));
    note("attempts".to_owned(), between("attempts", MAX_ATTEMPTS, *attempts));
    note("attempts".to_owned(), attempts_of(job));
    if let Some(items) = items {
        note("items".to_owned(), between("items", MAX_ITEMS, *items));
    } else if inputs.is_some() {
        note("inputs".to_owned(), Err(Broken::new("say in `items` how many inputs there are in this list")));
    }
    if schedule.is_some() {
        note("schedule".to_owned(), scheduled(items.is_some() || !after.is_empty()));
    }
    if let Some(deadline) = deadline {
        note("deadline".to_owned(), run_time(*deadline));
    }
}

/// What must not be started twice is not tried again.
pub(crate) fn attempts_of(job: &JobSpec) -> Result<(), Broken> {
    if job.is_at_most_once() && job.attempts > 1 {
        return Err(Broken::new("an item that is started at most once has one attempt; leave this out"));
    }
    Ok(())
}

/// Nobody is there to say what a scheduled run works on.
pub(crate) fn scheduled(has_work: bool) -> Result<(), Broken> {
    if has_work {
        return Ok(());
    }
    Err(Broken::new("nothing says what a scheduled run works on; add `items`, `input` or `after`"))
}

pub(crate) fn run_time(deadline: DurationMs) -> Result<(), Broken> {
    if deadline.0 == 0 {
        return Err(Broken::limit("deadline", format!("1ms to {MAX_RUN_TIME}"), deadline));
    }
    at_most("deadline", MAX_RUN_TIME, deadline)
}

/// A service that runs on each node is near to and apart from whatever is there.
pub(crate) fn everywhere_alone(everywhere: bool, placement: &Placement) -> Result<(), Broken> {
    if everywhere && !(placement.near.is_empty() && placement.apart.is_empty()) {
        let message = "a service that runs everywhere has no say in what it is near to or apart from; leave \
                       `near` and `apart` out, and bind it with `require`";
        return Err(Broken::new(message));
    }
    Ok(())
}

pub(crate) fn at_most<T: Copy + Ord + fmt::Display>(name: &str, most: T, got: T) -> Result<(), Broken> {
    if got > most { Err(Broken::limit(name, most, got)) } else { Ok(()) }
}

/// At least one and at most `most`.
pub(crate) fn between(name: &str, most: u32, got: u32) -> Result<(), Broken> {
    if got == 0 { Err(Broken::limit(name, format!("1 to {most}"), got)) } else { at_most(name, most, got) }
}

/// At most the hard maximum, and more than zero where nothing could run with none of it: each limit by its name.
pub(crate) fn limits(
    limits: &Limits,
    kind: &WorkloadKind,
) -> impl Iterator<Item = (&'static str, Result<(), Broken>)> {
    let (limits, most) = (*limits, Limits::maximum_of(kind));
    Limits::FIELDS.iter().map(move |field| {
        let (value, most) = (field.value(&limits), field.value(&most));
        let result = if value.number() == 0 && !field.may_be_zero {
            Err(Broken::limit(field.name, format!("more than {value} and at most {most}"), value))
        } else if value.number() > most.number() {
            Err(Broken::limit(field.name, most, value))
        } else {
            Ok(())
        };
        (field.name, result)
    })
}

pub(crate) fn variable(name: &str, value: &str) -> Result<(), Broken> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.as_bytes()[0].is_ascii_digit() || !name.bytes().all(is_inner) {
        return Err(Broken::new(format!(
            "`{}` cannot name a variable: use letters, digits and `_`, not beginning with a digit",
            shown(name)
        )));
    }
    if name.starts_with("DUNLIN_") {
        return Err(Broken::new(format!(
            "`{}` cannot be set: variables that begin with `DUNLIN_` are Dunlin's own",
            shown(name)
        )));
    }
    if value.contains('\0') {
        return Err(Broken::new(format!("the value of `{}` has a zero byte in it", shown(name))));
    }
    Ok(())
}

/// Everything that a guest is given by its manifest: variables and configuration, names and values together.
pub(crate) fn environment(
    variables: &BTreeMap<String, String>,
    config: &BTreeMap<String, String>,
    most: Bytes,
) -> Result<(), Broken> {
    let total: usize = variables.iter().chain(config).map(|(name, value)| name.len() + value.len()).sum();
    at_most("environment", most, Bytes(total as u64))
}

pub(crate) fn label(key: &str, value: &str) -> Result<(), Broken> {
    label_text(key)?;
    label_text(value)
}

/// The key of a label, or its value.
pub(crate) fn label_text(text: &str) -> Result<(), Broken> {
    if text.is_empty() || !text.bytes().all(is_inner_of_label) {
        return Err(Broken::new(format!(
            "`{}` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`",
            shown(text)
        )));
    }
    at_most("label", MAX_LABEL, text.len())
}

pub(crate) fn is_inner_of_label(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_./".contains(&byte)
}

/// A label that somebody writes, and that is not Dunlin's own.
pub(crate) fn own_label(key: &str, value: &str) -> Result<(), Broken> {
    if Feature::is_label(key) {
        return Err(Broken::new(format!(
            "`{}` cannot be set: labels that begin with `{}` are Dunlin's own, which sees by itself what a component \
             needs",
            shown(key),
            Feature::LABEL_PREFIX
        )));
    }
    label(key, value)
}

pub(crate) fn route_host(host: &str) -> Result<(), Broken> {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = host.strip_prefix("*.").unwrap_or(host);
    if host.len() > 253 || !name.split('.').all(is_label) {
        return Err(Broken::new(format!(
            "`{}` is not a host name: write it in lower case and without a port, like \"hello.localhost\", or \
             \"*.hello.localhost\" for all names below one",
            shown(host)
        )));
    }
    Ok(())
}

pub(crate) fn route_path(path: &str) -> Result<(), Broken> {
    let broken = |why: &str| Err(Broken::new(format!("`{}` {why}", shown(path))));
    if !path.starts_with('/') {
        return broken("should begin with `/`");
    }
    at_most("route path", MAX_ROUTE_PATH, path.len())?;
    if path.contains(['?', '#']) {
        return broken("has a query or fragment; a route is a path alone");
    }
    // An escape would give one path two spellings, of which only one is routed.
    if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%' && byte != b'\\') {
        return broken(
            "has characters which cannot stand in a route: use visible ASCII without `%` and `\\`",
        );
    }
    if path.split('/').any(|segment| segment == "." || segment == "..") {
        return broken("has a segment `.` or `..`");
    }
    if path.contains("//") {
        return broken("has an empty segment");
    }
    Ok(())
}

/// Says what a name that is not one of `known` may have been meant to be.
pub fn nearest(name: &str, known: &[&str]) -> String {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(&name.to_lowercase(), candidate);
    let nearest = known
        .iter()
        .filter(|_| name.len() <= MAX_COMPARED)
        .map(|candidate| (distance(candidate), candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len() / 3));
    match nearest {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None => {
            let listed = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            format!("there are {listed}")
        }
    }
}

/// Returns text from outside made safe to be shown: escaped, and cut at 80 characters.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Affinity, Digest, Fuel};

    fn app(spec: WorkloadSpec) -> AppSpec {
        AppSpec {
            name: "default/shop".parse().unwrap(),
            workloads: BTreeMap::from([("cart".parse().unwrap(), spec)]),
        }
    }

    fn service(routes: &[(&str, &str)]) -> WorkloadSpec {
        let route =
            |(host, path): &(&str, &str)| RouteSpec::new(Some(*host).filter(|host| !host.is_empty()), path);
        WorkloadSpec {
            component: Digest::of(b""),
            kind: WorkloadKind::Service(ServiceSpec {
                allocations: 1,
                routes: routes.iter().map(route).collect(),
                fuel_header: false,
                everywhere: false,
                rollout: Default::default(),
                health: None,
                on_partition: Default::default(),
            }),
            limits: Limits::SERVICE,
            environment: BTreeMap::new(),
            node_labels: BTreeMap::new(),
            capabilities: Default::default(),
            instances: Default::default(),
            metering: Default::default(),
            coredump: false,
            signed: None,
            placement: Default::default(),
            priority: Default::default(),
        }
    }

    #[test]
    fn a_sound_spec_is_accepted() {
        let spec =
            service(&[("hello.localhost", "/"), ("", "/api/v1"), ("127.0.0.1", "/"), ("*.localhost", "/")]);
        assert_eq!(app(spec).check(), []);
    }

    #[test]
    fn routes_that_could_be_read_in_two_ways_are_refused() {
        for (host, path) in [
            ("Hello.localhost", "/"),
            ("hello.localhost:80", "/"),
            ("hello..localhost", "/"),
            ("hello.", "/"),
            ("*", "/"),
            ("*.", "/"),
            ("a.*.localhost", "/"),
            ("*a.localhost", "/"),
            ("*.*.localhost", "/"),
            ("", ""),
            ("", "a"),
            ("", "/a/../b"),
            ("", "/a?b"),
            ("", "/a#b"),
            ("", "/%2e%2e/"),
            ("", "/a//b"),
            ("", "/a b"),
            ("", "/a\r\nb"),
            ("", "/ä"),
        ] {
            assert_eq!(app(service(&[(host, path)])).check().len(), 1, "{host:?} {path:?}");
        }
    }

    #[test]
    fn labels_of_features_are_not_written_by_hand_and_count_for_nothing() {
        let (key, value) = Feature::Wasi03.label();
        assert!(own_label(&key, &value).is_err());
        assert_eq!(own_label("zone", "a"), Ok(()));
        let mut spec = service(&[]);
        spec.node_labels = (0..MAX_NODE_LABELS).map(|number| (number.to_string(), "a".to_owned())).collect();
        Feature::set_labels(&mut spec.node_labels, [Feature::Wasi03]);
        assert_eq!(app(spec.clone()).check(), []);
        spec.node_labels.insert("more".to_owned(), "a".to_owned());
        assert_eq!(app(spec).check().len(), 1);
    }

    #[test]
    fn what_is_asked_of_places_is_looked_at_in_every_workload() {
        let mut spec = service(&[]);
        spec.placement.apart = vec!["default/shop/cart", "default/shop/card"]
            .into_iter()
            .map(|name| Affinity { workload: name.parse().unwrap(), over: "zone".to_owned(), required: true })
            .collect();
        let errors = app(spec).check();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "workloads.cart.placement.apart[1].workload");
    }

    #[test]
    fn what_runs_everywhere_is_bound_by_conditions_only() {
        let mut spec = service(&[]);
        let WorkloadKind::Service(kind) = &mut spec.kind else { unreachable!() };
        kind.everywhere = true;
        spec.placement.require = vec!["zone = a".parse().unwrap()];
        assert_eq!(app(spec.clone()).check(), []);
        let workload = "default/shop/cart".parse().unwrap();
        spec.placement.near = vec![Affinity { workload, over: "node".to_owned(), required: true }];
        let errors = app(spec).check();
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].field, "workloads.cart.placement");
    }

    #[test]
    fn limits_above_the_maximum_say_which() {
        let mut spec = service(&[]);
        spec.limits.fuel = Limits::MAXIMUM_SERVICE.fuel.plus(Fuel(1));
        spec.limits.concurrency = 0;
        let errors = app(spec).check();
        let hits: Vec<_> = errors.iter().filter_map(|error| error.hit.as_ref()).collect();
        assert_eq!(hits.iter().map(|hit| hit.limit.as_str()).collect::<Vec<_>>(), ["fuel", "concurrency"]);
    }

    #[test]
    fn an_environment_cannot_forge_what_is_dunlins_own() {
        for name in ["", "1A", "A-B", "A=B", "DUNLIN_NODE", "Ä"] {
            assert!(variable(name, "").is_err(), "{name:?} should be refused");
        }
        let mut spec = service(&[]);
        spec.environment.insert("A".to_owned(), "x".repeat(64 << 10));
        assert_eq!(app(spec).check()[0].hit.as_ref().unwrap().limit, "environment");
    }
}
