//! What a manifest says, and what is said of a wrong one.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"
[app]
name = "quickstart"
namespace = "team-a"

[build]
command = "cargo build --release --target wasm32-wasip2"

[service.hello]
component = "target/wasm32-wasip2/release/hello.wasm"
allocations = 3
routes = [{ host = "hello.localhost", path = "/" }]
limits = { memory = "32MiB", fuel = "500M", fuel_rate = "25M/s", deadline = "2s", concurrency = 8 }
environment = { GREETING = "hello" }
node_labels = { zone = "a" }

[job.word-count]
component = "target/wasm32-wasip2/release/word-count.wasm"
input = ["../../../book/src/**/*.md"]
parallelism = 3
combine = true
priority = 20

[job.word-count.placement]
require = ["arch = arm64", "zone in (a, b)"]
prefer = [{ expression = "disk = ssd", weight = -50 }]
spread = ["zone", { over = "rack", weights = { a = 2, b = 1 } }]
near = ["hello", { workload = "other/cache", over = "zone", required = false }]
apart = ["word-count"]
resources = { gpu = 1 }
"#;

fn check(text: &str, expected: Expect) {
    let told = match Manifest::parse(text) {
        Ok(manifest) => format!("{manifest:#?}\n"),
        Err(errors) => format!("{errors}\n"),
    };
    expected.assert_eq(&told);
}

pub(super) fn with_service(fields: &str) -> String {
    format!("[app]\nname = \"shop\"\n[service.cart]\ncomponent = \"cart.wasm\"\n{fields}\n")
}

#[test]
fn a_whole_manifest_is_understood() {
    let manifest = Manifest::parse(WHOLE).unwrap();
    assert_eq!(manifest.app_name().to_string(), "team-a/quickstart");
    let word_count = &manifest.workloads[&"word-count".parse().unwrap()];
    assert_eq!(word_count.input, Some(JobInput::Files(vec!["../../../book/src/**/*.md".to_owned()])));
    let hello = &manifest.workloads[&"hello".parse().unwrap()];
    let json = serde_json::to_string_pretty(&hello.spec(Digest::of(b""))).unwrap();
    expect![[r#"
        {
          "component": "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
          "kind": "service",
          "allocations": 3,
          "routes": [
            {
              "host": "hello.localhost",
              "path": "/"
            }
          ],
          "fuel_header": false,
          "limits": {
            "memory": 33554432,
            "table_elements": 100000,
            "core_instances": 64,
            "memories": 8,
            "tables": 32,
            "fuel": 500000000,
            "fuel_rate": 25000000,
            "fuel_burst": 6250000,
            "deadline": 2000,
            "host_call_bytes": 4194304,
            "host_calls": 50000,
            "host_call_burst": 100000,
            "handles": 10000,
            "random_bytes": 65536,
            "header_bytes": 32768,
            "headers": 100,
            "request_body": 10485760,
            "response_body": 67108864,
            "concurrency": 8,
            "connections": 32,
            "connection_rate": 10,
            "connect_timeout": 5000,
            "first_byte_timeout": 30000,
            "between_bytes_timeout": 30000,
            "log_rate": 65536,
            "log_burst": 1048576,
            "log_line": 8192,
            "log_kept": 16777216,
            "environment": 65536,
            "scratch": 67108864
          },
          "environment": {
            "GREETING": "hello"
          },
          "node_labels": {
            "zone": "a"
          },
          "capabilities": {
            "outbound_http": [],
            "sockets": [],
            "config": {},
            "folders": {},
            "scratch": null
          },
          "instances": "fresh",
          "metering": "fuel"
        }"#]]
    .assert_eq(&json);
}

#[test]
fn a_short_manifest_takes_the_defaults() {
    let text =
        "app.name = \"shop\"\njob.sum.component = \"sum.wasm\"\nservice = { cart.component = \"c.wasm\" }";
    let manifest = Manifest::parse(text).unwrap();
    assert_eq!(manifest.app_name().to_string(), "default/shop");
    let cart = &manifest.workloads[&"cart".parse().unwrap()];
    assert_eq!(
        cart.kind,
        WorkloadKind::Service(crate::ServiceSpec {
            allocations: 1,
            routes: vec![],
            fuel_header: false,
            everywhere: false,
            rollout: Default::default(),
            health: None,
            on_partition: Default::default(),
        })
    );
    assert_eq!(cart.limits, Limits::SERVICE);
    let sum = &manifest.workloads[&"sum".parse().unwrap()];
    let expected = crate::JobSpec::default();
    assert_eq!(sum.kind, WorkloadKind::Job(expected));
    assert_eq!((sum.limits, &sum.input), (Limits::JOB, &None));
}

#[test]
fn a_rollout_and_health_are_read() {
    let text = r#"
[app]
name = "shop"
[service.web]
component = "web.wasm"
allocations = 10
[service.web.rollout]
max_surge = "25%"
max_unavailable = 1
canary = 2
promote = "by-hand"
bake = "1m"
deadline = "1h"
rollback = false
max_restarts = 0
max_errors = "150%"
max_fuel = "120%"
[service.web.health]
path = "/health"
interval = "1s"
restart_after = 10
"#;
    let manifest = Manifest::parse(text).unwrap();
    let WorkloadKind::Service(service) = &manifest.workloads[&"web".parse().unwrap()].kind else { panic!() };
    let json = serde_json::to_string(&(&service.rollout, &service.health)).unwrap();
    expect![[r#"[{"max_surge":"25%","max_unavailable":1,"canary":2,"promote":"by-hand","bake":60000,"deadline":3600000,"rollback":false,"max_restarts":0,"max_errors":"150%","max_fuel":"120%"},{"path":"/health","interval":1000,"timeout":2000,"failures":3,"successes":1,"restart_after":10}]"#]].assert_eq(&json);
}

#[test]
fn what_is_wrong_with_a_rollout_is_told_where_it_stands() {
    check(
        r#"
[app]
name = "shop"
[service.web]
component = "web.wasm"
everywhere = true
[service.web.rollout]
max_surge = 0
max_unavailable = "0%"
canary = "ten"
canary_share = "5%"
promote = "never"
bake = "8d"
deadline = "0s"
max_restarts = 1001
max_errors = "2x"
surge = 1
[service.other]
component = "web.wasm"
everywhere = true
[service.other.rollout]
canary = 0
canary_share = "0%"
[service.other.health]
path = "health"
timeout = "1ms"
failures = 0
restart_after = 1001
"#,
        expect![[r#"
            9:19: `service.web.rollout.max_unavailable`: nothing could ever be replaced: let `max_surge` or `max_unavailable` be more than 0
            10:10: `service.web.rollout.canary`: `ten` is no share: write it like "25%", from 0% to 10000%
            11:16: `service.web.rollout.canary_share`: there are no canaries to have a share; let `canary` say how many there are
            12:11: `service.web.rollout.promote`: this must be "auto" or "by-hand"
            13:8: `service.web.rollout.bake`: limit `bake` is 7d, observed 8d
            14:12: `service.web.rollout.deadline`: limit `deadline` is more than 0ms and at most 7d, observed 0ms
            15:16: `service.web.rollout.max_restarts`: limit `max_restarts` is 1000, observed 1001
            16:14: `service.web.rollout.max_errors`: `2x` is no share: write it like "25%", from 0% to 10000%
            17:1: `service.web.rollout.surge`: unknown field `surge`; there are `max_surge`, `max_unavailable`, `canary`, `canary_share`, `promote`, `bake`, `deadline`, `rollback`, `max_restarts`, `max_errors`, `max_fuel`
            22:10: `service.other.rollout.canary`: a service that runs everywhere goes from node to node, without canaries; leave this out
            22:10: `service.other.rollout.canary`: no canaries tell nothing; leave this out, or let it be more than 0
            23:16: `service.other.rollout.canary_share`: limit `canary_share` is 1 to 100, observed 0
            25:8: `service.other.health.path`: `health` should begin with `/`
            26:11: `service.other.health.timeout`: limit `timeout` is 100ms to 1h, observed 1ms
            27:12: `service.other.health.failures`: limit `failures` is 1 to 1000, observed 0
            28:17: `service.other.health.restart_after`: limit `restart_after` is `failures`, which is 0, to 1000, observed 1001
        "#]],
    );
}

#[test]
fn all_mistakes_are_told_at_once_in_their_order() {
    check(
        r#"
[app]
nmae = "shop"
[service.cart]
component = 3
limits = { memry = "64MiB", fuel = 500, deadline = "2", memory = "2GiB" }
alocations = 2
[[service.cart.routes]]
host = "Cart.localhost:80"
path = "../"
[job.cart]
component = "cart.wasm"
items = 3
input = []
[job.Sum]
attempts = 0
[somewhere]
"#,
        expect![[r#"
            2:1: `app.name`: this field is missing; write `name = "shop"`
            3:1: `app.nmae`: unknown field `nmae`; did you mean `name`?
            5:13: `service.cart.component`: expected a string, the path of a .wasm file, got integer
            6:12: `service.cart.limits.memry`: unknown field `memry`; did you mean `memory`?
            6:36: `service.cart.limits.fuel`: expected a string like "500M", got integer
            6:52: `service.cart.limits.deadline`: `2` needs one of the units ms, s, m, h, d, like "30s"
            6:66: `service.cart.limits.memory`: limit `memory` is 1GiB, observed 2GiB
            7:1: `service.cart.alocations`: unknown field `alocations`; did you mean `allocations`?
            9:8: `service.cart.routes[0].host`: `Cart.localhost:80` is not a host name: write it in lower case and without a port, like "hello.localhost", or "*.hello.localhost" for all names below one
            10:8: `service.cart.routes[0].path`: `../` should begin with `/`
            11:1: `job.cart`: `cart` is already the name of a service; give one of them another
            14:1: `job.cart.items`: a job has either `items` or `input`, not both: each file of `input` is one item
            14:9: `job.cart.input`: there is no pattern in this list
            15:1: `Sum` is not a name: use a-z, 0-9 and `-`, with a letter or digit at both ends
            15:1: `job.Sum.component`: this field is missing; write `component = "path/to/component.wasm"`
            16:12: `job.Sum.attempts`: limit `attempts` is 1 to 100, observed 0
            17:2: `somewhere`: unknown field `somewhere`; there are `app`, `build`, `service`, `job`, `test`
        "#]],
    );
}

#[test]
fn a_syntax_error_has_its_place() {
    check(
        "[app]\nname = \"shop\nx = 1",
        expect![[r#"
        2:13: invalid basic string, expected `"`
    "#]],
    );
    check(
        "[app]\n\n  name shop",
        expect![[r#"
        3:8: key with no value, expected `=`
    "#]],
    );
}

#[test]
fn an_app_without_workloads_is_refused() {
    check(
        "[app]\nname = \"shop\"\n",
        expect![[r#"
        3:1: there is no workload; add `[service.NAME]` or `[job.NAME]` with a `component`
    "#]],
    );
    check(
        "[app]\nname = \"shop\"\n[service]\n",
        expect![[r#"
        3:2: there is no workload in here
    "#]],
    );
    check(
        "",
        expect![[r#"
        1:1: `app`: this table is missing; write `[app]` and below it `name = "shop"`
        1:1: there is no workload; add `[service.NAME]` or `[job.NAME]` with a `component`
    "#]],
    );
}

#[test]
fn limits_outside_the_bounds_say_value_and_observed() {
    check(
        &with_service(
            r#"limits = { memory = "0B", fuel_rate = "99999G/s", concurrency = 5000 }
allocations = 10001"#,
        ),
        expect![[r#"
            5:21: `service.cart.limits.memory`: limit `memory` is more than 0B and at most 1GiB, observed 0B
            5:39: `service.cart.limits.fuel_rate`: limit `fuel_rate` is 1000G/s, observed 99999G/s
            5:65: `service.cart.limits.concurrency`: limit `concurrency` is 1024, observed 5000
            6:15: `service.cart.allocations`: limit `allocations` is 10000, observed 10001
        "#]],
    );
}

#[test]
fn variables_and_labels_follow_their_rules() {
    check(
        &with_service(
            r#"environment = { "A-B" = "x", DUNLIN_NODE = "x", N = 1 }
node_labels = { zone = "a b" }"#,
        ),
        expect![[r#"
            5:17: `service.cart.environment.A-B`: `A-B` cannot name a variable: use letters, digits and `_`, not beginning with a digit
            5:30: `service.cart.environment.DUNLIN_NODE`: `DUNLIN_NODE` cannot be set: variables that begin with `DUNLIN_` are Dunlin's own
            5:53: `service.cart.environment.N`: expected a string, got integer
            6:17: `service.cart.node_labels.zone`: `a b` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
        "#]],
    );
}

#[test]
fn the_same_route_twice_in_an_app_is_refused() {
    check(
        &with_service("routes = [{ path = \"/\" }, { path = \"/a\" }, {}]"),
        expect![[r#"
        5:44: `service.cart.routes`: this route stands twice in the app
    "#]],
    );
}

#[test]
fn a_manifest_that_is_too_large_is_refused() {
    check(
        &"#".repeat((256 << 10) + 1),
        expect![[r#"
        1:1: limit `manifest` is 256KiB, observed 262145B
    "#]],
    );
}

#[test]
fn control_characters_are_not_repeated() {
    let errors = Manifest::parse("\"\\u001b[2J\" = 1\n").unwrap_err().to_string();
    assert!(!errors.contains('\u{1b}'), "{errors:?}");
}

#[test]
fn hundreds_of_mistakes_are_cut() {
    let text: String = (0..500).map(|number| format!("wrong{number} = 1\n")).collect();
    let errors = Manifest::parse(&text).unwrap_err();
    assert_eq!(errors.0.len(), 51);
    assert_eq!(errors.0[50].message, "452 more mistakes follow");
}

#[derive(Clone, Debug)]
enum Mutation {
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, String),
    Repeat(prop::sample::Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let token = prop_oneof![
        "[\\[\\]{}=\"'\\n.,#\\\\]{1,3}",
        Just("name".to_owned()),
        Just("[service.x]\n".to_owned()),
        Just("99999999999999999999".to_owned()),
        Just("ä\u{0}\u{1b}".to_owned()),
        Just("limits".to_owned()),
        ".{0,4}",
    ];
    prop_oneof![
        (any::<prop::sample::Index>(), 1..40usize).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<prop::sample::Index>(), token).prop_map(|(at, token)| Mutation::Insert(at, token)),
        (any::<prop::sample::Index>(), 1..80usize).prop_map(|(at, length)| Mutation::Repeat(at, length)),
    ]
}

fn mutated(mutations: &[Mutation]) -> String {
    let mut characters: Vec<char> = WHOLE.chars().collect();
    for mutation in mutations {
        match mutation {
            Mutation::Remove(at, length) => {
                let at = at.index(characters.len().max(1));
                let end = (at + length).min(characters.len());
                characters.drain(at.min(end)..end);
            }
            Mutation::Insert(at, token) => {
                let at = at.index(characters.len() + 1);
                characters.splice(at..at, token.chars());
            }
            Mutation::Repeat(at, length) => {
                let at = at.index(characters.len().max(1)).min(characters.len());
                let end = (at + length).min(characters.len());
                let piece = characters[at..end].to_vec();
                characters.splice(at..at, piece);
            }
        }
    }
    characters.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics_and_every_mistake_has_a_place_in_it(
        mutations in prop::collection::vec(mutation(), 1..6)
    ) {
        let text = mutated(&mutations);
        if let Err(errors) = Manifest::parse(&text) {
            prop_assert!(!errors.0.is_empty());
            for error in &errors.0 {
                prop_assert!(error.line >= 1 && error.line <= text.matches('\n').count() + 1);
                prop_assert!(error.column >= 1);
            }
            prop_assert!(errors.0.is_sorted_by_key(|error| (error.line, error.column)));
        }
    }

    #[test]
    fn what_is_accepted_is_a_sound_spec(mutations in prop::collection::vec(mutation(), 1..3)) {
        if let Ok(manifest) = Manifest::parse(&mutated(&mutations)) {
            let name = manifest.app_name();
            let component = Digest::of(b"");
            let workloads = manifest.workloads.into_iter().map(|(name, it)| (name, it.spec(component))).collect();
            prop_assert_eq!(crate::AppSpec { name, workloads }.check(), vec![]);
        }
    }
}

#[test]
fn capabilities_are_read_and_each_mistake_has_its_place() {
    let manifest = Manifest::parse(&with_service(
        r#"
        [service.cart.capabilities]
        outbound_http = ["https://api.example.com", "http://*.example.org:8080"]
        sockets = ["db.example.com:5432", "[fd00::1]:6379"]
        config = { "greeting.text" = "hello" }
        folders = { "/data" = { folder = "data", writable = true }, "/texts" = { folder = "texts" } }
        scratch = "/tmp"
        "#,
    ))
    .unwrap();
    let capabilities = &manifest.workloads[&"cart".parse().unwrap()].capabilities;
    assert_eq!(capabilities.outbound_http.len(), 2);
    assert_eq!(capabilities.sockets, ["db.example.com:5432", "[fd00::1]:6379"]);
    assert_eq!(capabilities.config["greeting.text"], "hello");
    assert!(capabilities.folders["/data"].writable && !capabilities.folders["/texts"].writable);
    assert_eq!(capabilities.scratch.as_deref(), Some("/tmp"));
    check(
        &with_service(
            r#"
[service.cart.capabilities]
outbound_http = ["api.example.com", "https://a.example/"]
sockets = ["db.example.com:5432", "db.example.com"]
config = { "a b" = "x", number = 7 }
folders = { "/data/.." = { folder = "data" }, "/a" = { folder = "Data", writeable = true }, "/b" = {} }
scratch = "tmp"
secrets = ["a/b", "number"]
"#,
        ),
        expect![[r#"
            7:18: `service.cart.capabilities.outbound_http[0]`: `api.example.com` does not begin with `https://` or `http://`
            7:37: `service.cart.capabilities.outbound_http[1]`: `https://a.example/` has a path; what is granted is a scheme, a host and a port, without a `/` at the end
            8:35: `service.cart.capabilities.sockets[1]`: `db.example.com` has no port; write it like `db.example.com:5432`
            9:12: `service.cart.capabilities.config."a b"`: `a b` cannot name a value: use 1 to 128 letters, digits, `-`, `_`, `.` and `/`
            9:34: `service.cart.capabilities.config.number`: expected a string, got integer
            10:13: `service.cart.capabilities.folders."/data/.."`: `/data/..` has a segment which is empty, `.` or `..`
            10:65: `service.cart.capabilities.folders."/a".folder`: `Data` is not a name: use a-z, 0-9 and `-`, with a letter or digit at both ends
            10:73: `service.cart.capabilities.folders."/a".writeable`: unknown field `writeable`; did you mean `writable`?
            10:93: `service.cart.capabilities.folders."/b".folder`: this field is missing; write `folder = "data"`
            11:11: `service.cart.capabilities.scratch`: `tmp` should begin with `/`
            12:12: `service.cart.capabilities.secrets[0]`: `a/b` cannot name a secret: use 1 to 128 letters, digits, `-`, `_` and `.`, with a letter, digit or `_` at the beginning, as in `DATABASE_URL`
        "#]],
    );
}

#[test]
fn jobs_say_what_they_come_after_and_when_they_run() {
    let text = r#"
[app]
name = "etl"
[job.map]
component = "map.wasm"
input = ["texts/*.md"]
[job.reduce]
component = "reduce.wasm"
after = ["map"]
schedule = "0 3 * * mon-fri"
time_zone = "europe/zurich"
missed = "once"
overlap = "allow"
semantics = "at-most-once"
deadline = "1h"
"#;
    let manifest = Manifest::parse(text).unwrap();
    let reduce = &manifest.workloads[&"reduce".parse().unwrap()];
    let WorkloadKind::Job(job) = &reduce.kind else { panic!("it is a job") };
    assert!(job.reads_outputs() && job.is_at_most_once());
    expect![[r#"{"parallelism":1,"attempts":1,"combine":false,"after":["map"],"schedule":{"cron":"0 3 * * mon-fri","time_zone":"Europe/Zurich","missed":"once","overlap":"allow"},"semantics":"at-most-once","deadline":3600000}"#]].assert_eq(&serde_json::to_string(job).unwrap());
    let stored = r#"{"parallelism":2,"attempts":3,"combine":true}"#;
    let before: crate::JobSpec = serde_json::from_str(stored).unwrap();
    assert_eq!(before, crate::JobSpec { parallelism: 2, combine: true, ..crate::JobSpec::default() });
    assert_eq!(serde_json::to_string(&before).unwrap(), stored);
}

#[test]
fn each_mistake_about_chains_and_schedules_has_its_place() {
    check(
        r#"
[app]
name = "etl"
[service.web]
component = "web.wasm"
[job.map]
component = "map.wasm"
after = ["reduce", "Mop", 3]
[job.reduce]
component = "reduce.wasm"
after = ["shuffle"]
[job.shuffle]
component = "shuffle.wasm"
after = ["map"]
[job.alone]
component = "alone.wasm"
after = ["alone"]
[job.late]
component = "late.wasm"
after = ["web"]
[job.later]
component = "late.wasm"
after = ["shufle"]
[job.unclear]
component = "unclear.wasm"
schedule = "0 3 * *"
time_zone = "Europe/Zurch"
missed = "twice"
[job.after-unclear]
component = "unclear.wasm"
after = ["unclear"]
[job.idle]
component = "idle.wasm"
schedule = "0 3 * * *"
semantics = "at-most-once"
attempts = 3
deadline = "90d"
[job.odd]
component = "odd.wasm"
items = 1
overlap = "allow"
deadline = "0s"
"#,
        expect![[r#"
            8:1: `job.map.after`: a job cannot come after itself: `map` after `reduce` after `shuffle` after `map`
            8:20: `job.map.after[1]`: `Mop` is not a name: use a-z, 0-9 and `-`, with a letter or digit at both ends
            8:27: `job.map.after[2]`: expected a string, got integer
            11:1: `job.reduce.after`: a job cannot come after itself: `reduce` after `shuffle` after `map` after `reduce`
            14:1: `job.shuffle.after`: a job cannot come after itself: `shuffle` after `map` after `reduce` after `shuffle`
            17:1: `job.alone.after`: a job cannot come after itself: `alone` after `alone`
            20:1: `job.late.after`: `web` is a service; a job comes after jobs
            23:1: `job.later.after`: there is no job `shufle` in this app; did you mean `shuffle`?
            26:12: `job.unclear.schedule`: a schedule has five fields (minute, hour, day of the month, month, day of the week), or six with the second before them, or is one of @hourly, @daily, @weekly, @monthly and @yearly; `0 3 * *` has 4
            27:13: `job.unclear.time_zone`: there is no time zone `Europe/Zurch`; write one like "Europe/Zurich" or "UTC"
            28:10: `job.unclear.missed`: this must be "skip" or "once"
            31:1: `job.after-unclear.after`: nothing says what `unclear` works on when it is run before `after-unclear`; give it `items`, `input` or an `after` of its own
            34:1: `job.idle.schedule`: nothing says what a scheduled run works on; add `items`, `input` or `after`
            36:1: `job.idle.attempts`: an item that is started at most once has one attempt; leave this out
            37:12: `job.idle.deadline`: limit `deadline` is 31d, observed 90d
            41:1: `job.odd.overlap`: this says something of a `schedule`, and there is none; add one or leave this out
            42:12: `job.odd.deadline`: limit `deadline` is 1ms to 31d, observed 0ms
        "#]],
    );
}

#[test]
fn a_singleton_has_no_second_allocation_and_a_job_no_say() {
    check(
        r#"[app]
name = "shop"
[service.one]
component = "one.wasm"
on_partition = "singleton"
allocations = 2
[service.one.rollout]
max_surge = "25%"
canary = 1
[service.two]
component = "one.wasm"
on_partition = "singleton"
everywhere = true
[service.three]
component = "one.wasm"
on_partition = { stop_after = "10ms" }
[service.four]
component = "one.wasm"
on_partition = { stop = "1m" }
[service.five]
component = "one.wasm"
on_partition = "stop"
[service.six]
component = "one.wasm"
on_partition = 5
[job.seven]
component = "one.wasm"
on_partition = "singleton"
"#,
        expect![[r#"
            6:1: `service.one.allocations`: a singleton has one allocation, not 2; leave this out
            8:1: `service.one.rollout.max_surge`: of a singleton no second allocation runs beside the first; let this be 0, or leave it out
            9:1: `service.one.rollout.canary`: a canary would be a second allocation of a singleton; leave this out
            13:1: `service.two.everywhere`: a service that runs everywhere is no singleton; leave this or `on_partition` out
            16:1: `service.three.on_partition`: limit `stop_after` is 1s to 30d, observed 10ms
            19:1: `service.four.on_partition.stop_after`: this field is missing; write `stop_after = "5m"`
            19:18: `service.four.on_partition.stop`: unknown field `stop`; there are `stop_after`
            22:16: `service.five.on_partition`: this must be "keep", "singleton" or { stop_after = "5m" }
            25:16: `service.six.on_partition`: expected "keep", "singleton" or { stop_after = "5m" }, got integer
            28:1: `job.seven.on_partition`: only a service has this; whether an item of a job may run twice is said by `semantics`
        "#]],
    );
}

#[test]
fn what_a_service_does_on_a_partition_is_read() {
    let read = |line: &str| {
        let text = format!("[app]\nname = \"shop\"\n[service.one]\ncomponent = \"one.wasm\"\n{line}\n");
        let manifest = Manifest::parse(&text).unwrap();
        let workload = manifest.workloads.into_values().next().unwrap();
        let WorkloadKind::Service(service) = workload.kind else { panic!("it is a service") };
        (service.on_partition, serde_json::to_string(&service.on_partition).unwrap(), service.rollout)
    };
    let (keep, stop) = (crate::OnPartition::Keep, crate::OnPartition::StopAfter(crate::DurationMs(300_000)));
    for (line, expected, json) in [
        ("", keep, "\"keep\""),
        ("on_partition = \"keep\"", keep, "\"keep\""),
        ("on_partition = { stop_after = \"5m\" }", stop, "{\"stop_after\":300000}"),
    ] {
        assert_eq!(read(line), (expected, json.to_owned(), crate::RolloutSpec::default()), "{line}");
    }
    let (singleton, json, rollout) = read("on_partition = \"singleton\"");
    assert_eq!((singleton, json.as_str()), (crate::OnPartition::Singleton, "\"singleton\""));
    assert_eq!(
        (rollout.max_surge, rollout.max_unavailable),
        (crate::Amount::Count(0), crate::Amount::Count(1))
    );
}
