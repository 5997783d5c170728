//! What a manifest asks of places, and what is said where it asks wrongly.

use expect_test::{Expect, expect};

use crate::{Manifest, ManifestWorkload, Placement, Priority, WorkloadKind};

fn manifest(fields: &str) -> String {
    let others = "[job.cache]\ncomponent = \"cache.wasm\"\n[service.cart]\ncomponent = \"cart.wasm\"\n";
    format!("[app]\nname = \"shop\"\nnamespace = \"team-a\"\n{others}{fields}\n")
}

fn cart(fields: &str) -> ManifestWorkload {
    let manifest = Manifest::parse(&manifest(fields)).unwrap();
    manifest.workloads[&"cart".parse().unwrap()].clone()
}

fn refused(fields: &str, expected: Expect) {
    expected.assert_eq(&format!("{}\n", Manifest::parse(&manifest(fields)).unwrap_err()));
}

#[test]
fn a_workload_that_asks_nothing_goes_anywhere_and_in_the_middle() {
    let cart = cart("");
    assert_eq!((cart.placement, cart.priority), (Placement::default(), Priority::DEFAULT));
    assert_eq!(cart.priority.number(), 50);
}

#[test]
fn placement_is_read_short_and_at_length() {
    let cart = cart(
        r#"
        priority = 70
        [service.cart.placement]
        require = ["arch = arm64", "zone in (b, a)"]
        spread = ["zone", { over = "node" }, { over = "rack", weights = { a = 2, b = 1 } }]
        near = ["cache", { workload = "other/cache", over = "zone", required = false }]
        apart = ["cart", { workload = "team-b/shop/cart" }]
        resources = { gpu = 1, port-cam = 2 }
        [[service.cart.placement.prefer]]
        expression = "disk = ssd"
        weight = 50
        "#,
    );
    assert_eq!(cart.priority.number(), 70);
    let json = serde_json::to_string(&cart.placement).unwrap();
    expect![[r#"
        {"require":["arch = arm64","zone in (a, b)"],
        "prefer":[{"expression":"disk = ssd","weight":50}],
        "spread":[{"over":"zone"},{"over":"node"},{"over":"rack","weights":{"a":2,"b":1}}],
        "near":[{"workload":"team-a/shop/cache","over":"node","required":true},{"workload":"team-a/other/cache","over":"zone","required":false}],
        "apart":[{"workload":"team-a/shop/cart","over":"node","required":true},{"workload":"team-b/shop/cart","over":"node","required":true}],
        "resources":{"gpu":1,"port-cam":2}}"#]].assert_eq(&json.replace("],\"", "],\n\""));
}

#[test]
fn a_service_runs_everywhere_or_so_many_times_and_a_job_does_neither() {
    let workload = cart("everywhere = true");
    assert!(matches!(workload.kind, WorkloadKind::Service(service) if service.everywhere));
    assert!(matches!(cart("everywhere = false\nallocations = 2").kind,
        WorkloadKind::Service(service) if !service.everywhere && service.allocations == 2));
    refused(
        "allocations = 2\neverywhere = true\npriority = 101\n[job.sum]\ncomponent = \"sum.wasm\"\neverywhere = true\n\
         priority = -1",
        expect![[r#"
            8:1: `service.cart.allocations`: a service that runs everywhere has one allocation on each node that fits it; leave this out
            10:12: `service.cart.priority`: 101 is no priority: it is a number from 0 to 100, of which the higher goes first; 50 is the default
            13:1: `job.sum.everywhere`: unknown field `everywhere`; there are `component`, `input`, `items`, `parallelism`, `attempts`, `combine`, `after`, `schedule`, `time_zone`, `missed`, `overlap`, `semantics`, `deadline`, `limits`, `environment`, `node_labels`, `capabilities`, `metering`, `coredump`, `placement`, `priority`
            14:12: `job.sum.priority`: -1 is no priority: it is a number from 0 to 100, of which the higher goes first; 50 is the default
        "#]],
    );
}

#[test]
fn each_mistake_of_placement_has_its_place() {
    refused(
        r#"[service.cart.placement]
require = ["arch = arm64", "zone ~ a", 7, "kernel >= new"]
prefer = [{ expression = "disk = ssd", weight = 1000 }, { expresion = "gpu", weight = 0 }, "gpu",
  { expression = "gpu" }, { expression = "gpu", weight = 0 }, { expression = "gpu", weight = 101 }]
spread = ["zone", "a b", { weights = { a = 1 } }, { over = "zone", weights = { a = 0, b = "2", "c d" = 1 } }, 3]
near = ["cahce", "Cache", "a/b/c/d", { workload = "cache", over = "a b", requird = false }, {},
  { workload = "cache/", over = "" }, { workload = "other/cache", required = "no" }]
apart = "cart"
resources = { gpu = 0, memory = 1, "port cam" = 2, port = "cam" }
affinity = []
"#,
        expect![[r#"
            9:28: `service.cart.placement.require[1]`: `zone ~ a` is no condition on labels: what stands after `zone` asks nothing of it; write it like `zone = a`, `zone != a`, `zone in (a, b)`, `zone not in (a, b)`, `gpu`, `!gpu` or `kernel >= 6.1`
            9:40: `service.cart.placement.require[2]`: expected a string, got integer
            9:43: `service.cart.placement.require[2]`: `new` is no version, and only versions are more or less than others: write one to three numbers and perhaps a pre-release, like `6.1` or `2.0.0-rc.1`
            10:49: `service.cart.placement.prefer[0].weight`: limit `weight` is -100 to 100 and not 0, observed 1000
            10:57: `service.cart.placement.prefer[1].expression`: this field is missing; write `expression = "disk = ssd"`
            10:59: `service.cart.placement.prefer[1].expresion`: unknown field `expresion`; did you mean `expression`?
            10:87: `service.cart.placement.prefer[1].weight`: limit `weight` is -100 to 100 and not 0, observed 0
            10:92: `service.cart.placement.prefer[2]`: expected a table like { expression = "disk = ssd", weight = 50 }, got string
            11:3: `service.cart.placement.prefer[3].weight`: this field is missing; write `weight = 50`
            11:58: `service.cart.placement.prefer[4].weight`: limit `weight` is -100 to 100 and not 0, observed 0
            11:94: `service.cart.placement.prefer[5].weight`: limit `weight` is -100 to 100 and not 0, observed 101
            12:19: `service.cart.placement.spread[1]`: `a b` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
            12:26: `service.cart.placement.spread[2].over`: this field is missing; write `over = "zone"`
            12:60: `service.cart.placement.spread[3].over`: `zone` stands twice; leave one of them out
            12:80: `service.cart.placement.spread[3].weights.a`: limit `weight` is 1 to 1000, observed 0
            12:91: `service.cart.placement.spread[3].weights.b`: expected a whole number, got string
            12:96: `service.cart.placement.spread[3].weights."c d"`: `c d` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
            12:111: `service.cart.placement.spread[4]`: expected a string or a table like those of ["zone", { over = "rack", weights = { a = 2 } }], got integer
            13:9: `service.cart.placement.near[0]`: this app has no workload `cahce`; did you mean `cache`?
            13:18: `service.cart.placement.near[1]`: `Cache` is not a name: use a-z, 0-9 and `-`, with a letter or digit at both ends
            13:27: `service.cart.placement.near[2]`: `a/b/c/d` should have the form workload, app/workload or namespace/app/workload
            13:67: `service.cart.placement.near[3].over`: `a b` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
            13:74: `service.cart.placement.near[3].requird`: unknown field `requird`; did you mean `required`?
            13:93: `service.cart.placement.near[4].workload`: this field is missing; write `workload = "cache"`
            14:16: `service.cart.placement.near[5].workload`: a name must not be empty
            14:33: `service.cart.placement.near[5].over`: `` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
            14:78: `service.cart.placement.near[6].required`: expected `true` or `false`, got string
            15:9: `service.cart.placement.apart`: expected a list like ["cache", { workload = "cache", over = "zone", required = false }], got string
            16:15: `service.cart.placement.resources.gpu`: limit `resource` is 1 to 1000000, observed 0
            16:24: `service.cart.placement.resources.memory`: `memory` is no countable resource: a workload asks for it in `limits`, and a node measures it
            16:36: `service.cart.placement.resources."port cam"`: `port cam` cannot stand in a label: use letters, digits, `-`, `_`, `.` and `/`
            16:59: `service.cart.placement.resources.port`: expected a whole number, got string
            17:1: `service.cart.placement.affinity`: unknown field `affinity`; there are `require`, `prefer`, `spread`, `near`, `apart`, `resources`
        "#]],
    );
}

#[test]
fn what_stands_twice_or_is_nowhere_is_refused() {
    refused(
        r#"[service.cart.placement]
near = ["cache", "shop/cache", { workload = "cache", over = "zone" }]
apart = [{ workload = "team-a/shop/cache" }]
spread = ["zone", "zone"]
"#,
        expect![[r#"
            9:18: `service.cart.placement.near[1]`: `team-a/shop/cache` stands twice over `node`; leave one of them out
            10:10: `service.cart.placement.apart[0]`: `team-a/shop/cache` is required to be near and apart over the same `node`, which is nowhere; leave one of them out
            11:19: `service.cart.placement.spread[1]`: `zone` stands twice; leave one of them out
        "#]],
    );
}

#[test]
fn lists_have_limits() {
    let many = |count: usize, each: &str| vec![each; count].join(", ");
    refused(
        &format!(
            "[service.cart.placement]\nrequire = [{}]\nprefer = [{}]\nresources = {{ {} }}",
            many(33, "\"gpu\""),
            many(33, "{ expression = \"gpu\", weight = 1 }"),
            (0..17).map(|number| format!("r{number} = 1")).collect::<Vec<_>>().join(", ")
        ),
        expect![[r#"
            9:1: `service.cart.placement.require`: limit `require` is 32, observed 33
            10:1: `service.cart.placement.prefer`: limit `prefer` is 32, observed 33
            11:1: `service.cart.placement.resources`: limit `resources` is 16, observed 17
        "#]],
    );
}
