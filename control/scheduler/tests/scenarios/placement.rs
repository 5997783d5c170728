//! Where things go: conditions, preferences, spreads, affinities, countable resources, quotas and shares.

use expect_test::expect;

use crate::placed;

const WEB: &str = r#"
    [app]
    name = "shop"
    [service.web]
    component = "web.wasm"
    allocations = 4
"#;

fn web(placement: &str) -> String {
    format!("{WEB}\n[service.web.placement]\n{placement}\n")
}

#[test]
fn what_is_required_must_hold() {
    placed(
        &[("web", &web(r#"require = ["zone in (a, b)", "kernel >= 6.1", "!spot"]"#))],
        "
        node a 1GiB zone=a kernel=6.2
        node b 1GiB zone=b kernel=6.1.4
        node c 1GiB zone=c kernel=6.5
        node d 1GiB zone=a kernel=5.15
        node e 1GiB zone=a kernel=6.2 spot=yes
        node a2 1GiB zone=a kernel=6.2
        node b2 1GiB zone=b kernel=6.1.4
        apply web
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:1 a2:1 b:1 b2:1
        "#]],
    );
}

#[test]
fn what_nobody_fulfils_is_said() {
    placed(
        &[("web", &web(r#"require = ["kernel >= 6.1"]"#))],
        "
        node a 1GiB kernel=5.15
        node b 1GiB
        apply web
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web 0 of 4: no node fulfils `kernel >= 6.1`
        "#]],
    );
}

#[test]
fn what_is_preferred_comes_first_as_long_as_there_is_room() {
    placed(
        &[(
            "web",
            &web(
                r#"prefer = [{ expression = "disk = ssd", weight = 50 }, { expression = "old", weight = -10 }]"#,
            ),
        )],
        "
        node a 1GiB
        node b 128MiB disk=ssd
        node c 1GiB old=yes
        apply web
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:2 b:2
        "#]],
    );
}

#[test]
fn allocations_are_spread_over_a_label_by_weight() {
    placed(
        &[
            ("even", &web(r#"spread = ["zone"]"#)),
            ("uneven", &web(r#"spread = [{ over = "zone", weights = { a = 3, b = 1 } }]"#)),
        ],
        "
        node a1 1GiB zone=a
        node a2 1GiB zone=a
        node a3 1GiB zone=a
        node b1 1GiB zone=b
        apply even
        where
        delete shop
        apply uneven
        where
        ",
        expect![[r#"
            > apply even
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a1:1 a2:1 b1:2
            > delete shop
            Deleted
            > apply uneven
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a1:1 a2:1 a3:1 b1:1
        "#]],
    );
}

#[test]
fn a_workload_is_near_another_and_waits_for_it() {
    let cache = r#"
        [app]
        name = "cache"
        [service.cache]
        component = "cache.wasm"
        allocations = 1
    "#;
    placed(
        &[("web", &web(r#"near = ["cache/cache"]"#)), ("cache", cache)],
        "
        node a 1GiB
        node b 1GiB
        node c 1GiB
        apply web
        where
        apply cache
        wait 1
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web 0 of 4: no node is both near what it must be near and apart from what it must be apart from
            > apply cache
            Deployed { revision: Revision(1), changed: true }
            --where
            default/cache/cache on a:1
            default/shop/web on a:4
        "#]],
    );
}

#[test]
fn a_workload_is_near_another_in_its_zone() {
    let cache = r#"
        [app]
        name = "cache"
        [service.cache]
        component = "cache.wasm"
        allocations = 1
    "#;
    placed(
        &[("web", &web(r#"near = [{ workload = "cache/cache", over = "zone" }]"#)), ("cache", cache)],
        "
        node a1 1GiB zone=a
        apply cache
        node a2 1GiB zone=a
        node b1 1GiB zone=b
        apply web
        where
        ",
        expect![[r#"
            > apply cache
            Deployed { revision: Revision(1), changed: true }
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/cache/cache on a1:1
            default/shop/web on a1:2 a2:2
        "#]],
    );
}

#[test]
fn a_workload_stands_apart_from_itself_and_says_why_it_waits() {
    placed(
        &[("web", &web(r#"apart = [{ workload = "web", over = "zone" }]"#))],
        "
        node a1 1GiB zone=a
        node a2 1GiB zone=a
        node b1 1GiB zone=b
        apply web
        where
        node c1 1GiB zone=c
        node d1 1GiB
        wait 1
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a1:1 b1:1
            default/shop/web 0 of 4: no node is both near what it must be near and apart from what it must be apart from
            --where
            default/shop/web on a1:1 b1:1 c1:1 d1:1
        "#]],
    );
}

#[test]
fn what_would_rather_be_apart_gives_way_when_there_is_no_other_room() {
    placed(
        &[("web", &web(r#"apart = [{ workload = "web", required = false }]"#))],
        "
        node a 1GiB
        node b 128MiB
        apply web
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:2 b:2
        "#]],
    );
}

#[test]
fn countable_resources_are_counted() {
    placed(
        &[("web", &web("resources = { gpu = 1 }"))],
        "
        node a 1GiB
        node b 1GiB +gpu=2
        apply web
        where
        node c 1GiB +gpu=1
        wait 1
        where
        delete shop
        wait 2
        apply web
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on b:2
            default/shop/web 0 of 4: needs 64MiB, a fuel rate of 50M/s and 1 gpu; none of 1 node has all of it free at once (1 node without a resource)
            --where
            default/shop/web on b:2 c:1
            default/shop/web 3 of 4: needs 64MiB, a fuel rate of 50M/s and 1 gpu; none of 2 nodes has all of it free at once (1 node without a resource)
            > delete shop
            Deleted
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on b:2 c:1
            default/shop/web 0 of 4: needs 64MiB, a fuel rate of 50M/s and 1 gpu; none of 2 nodes has all of it free at once (1 node without a resource)
        "#]],
    );
}

#[test]
fn a_pack_fills_nodes_and_a_spread_empties_them() {
    placed(
        &[("web", WEB)],
        "
        node a 1GiB
        node b 512MiB
        deploy other web=1@v1
        where
        namespace default pack
        deploy one web=1@v1
        deploy two web=1@v1
        deploy three web=1@v1
        where
        deploy four web=3@v1
        where
        ",
        expect![[r#"
            > deploy other web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --where
            default/other/web on a:1
            > namespace default pack
            NamespaceSet
            > deploy one web=1@v1
            Deployed { revision: Revision(1), changed: true }
            > deploy two web=1@v1
            Deployed { revision: Revision(1), changed: true }
            > deploy three web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --where
            default/one/web on b:1
            default/other/web on a:1
            default/three/web on b:1
            default/two/web on b:1
            > deploy four web=3@v1
            Deployed { revision: Revision(1), changed: true }
            --where
            default/four/web on b:3
            default/one/web on b:1
            default/other/web on a:1
            default/three/web on b:1
            default/two/web on b:1
        "#]],
    );
}

#[test]
fn batch_work_may_reserve_more_than_there_is() {
    placed(
        &[],
        "
        node a 128MiB overcommit=200
        deploy calc sum=job8@v1
        run calc/sum 100
        where
        deploy shop web=1@v1
        where
        ",
        expect![[r#"
            > deploy calc sum=job8@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 100
            RunStarted(RunId(1))
            --where
            default/calc/sum on a:4
            r1 waits: needs 64MiB; the freest of 1 node has 0B
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --where
            default/calc/sum on a:4
            default/shop/web 0 of 1: needs 64MiB; the freest of 1 node has 0B
            r1 waits: needs 64MiB; the freest of 1 node has 0B
        "#]],
    );
}

#[test]
fn a_namespace_has_no_more_than_its_quota() {
    placed(
        &[],
        "
        node a 1GiB
        namespace default memory=192MiB items=10
        deploy shop web=5@v1
        where
        deploy calc sum=job1@v1
        run calc/sum 11
        run calc/sum 6
        run calc/sum 6
        where
        namespace default memory=1GiB
        wait 1
        where
        ",
        expect![[r#"
            > namespace default memory=192MiB items=10
            NamespaceSet
            > deploy shop web=5@v1
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:3
            default/shop/web 0 of 5: the namespace `default` has what it may have: limit `quota.memory` is 192MiB, observed 256MiB
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 11
            quota_exceeded: namespace `default`: limit `quota.items` is 10, observed 11
            > run calc/sum 6
            RunStarted(RunId(1))
            > run calc/sum 6
            quota_exceeded: namespace `default`: limit `quota.items` is 10, observed 12
            --where
            default/shop/web on a:3
            default/shop/web 0 of 5: the namespace `default` has what it may have: limit `quota.memory` is 192MiB, observed 256MiB
            r1 waits: the namespace `default` has what it may have: limit `quota.memory` is 192MiB, observed 256MiB
            > namespace default memory=1GiB
            NamespaceSet
            --where
            default/calc/sum on a:1
            default/shop/web on a:5
        "#]],
    );
}

#[test]
fn the_more_urgent_is_placed_first() {
    let app = |name: &str, priority: u8| {
        format!(
            "[app]\nname = \"{name}\"\n[service.web]\ncomponent = \"web.wasm\"\nallocations = 2\npriority = {priority}\n"
        )
    };
    placed(
        &[("low", &app("alow", 10)), ("high", &app("zhigh", 90))],
        "
        apply low
        apply high
        node a 192MiB
        where
        ",
        expect![[r#"
            > apply low
            Deployed { revision: Revision(1), changed: true }
            > apply high
            Deployed { revision: Revision(1), changed: true }
            --where
            default/alow/web on a:1
            default/zhigh/web on a:2
            default/alow/web 0 of 2: needs 64MiB; the freest of 1 node has 0B
        "#]],
    );
}

#[test]
fn where_it_failed_it_is_not_placed_again_if_there_is_another_node() {
    placed(
        &[],
        "
        node a 1GiB
        deploy shop web=1@v1
        state a1 backing-off it fell over
        wait 2
        stop shop
        wait 2
        node b 128MiB zone=b
        deploy other web=1@v2,zone:b
        deploy shop web=1@v1
        where
        ",
        expect![[r#"
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            > stop shop
            Stopped { revision: Revision(2), changed: true }
            > deploy other web=1@v2,zone:b
            Deployed { revision: Revision(1), changed: true }
            > deploy shop web=1@v1
            Deployed { revision: Revision(3), changed: true }
            --where
            default/other/web on b:1
            default/shop/web on b:1
        "#]],
    );
}

#[test]
fn a_node_that_has_the_component_is_preferred_to_an_emptier_one() {
    placed(
        &[],
        "
        node a 1GiB
        deploy shop web=1@v1
        deploy other web=1@v2
        wait 1
        stop shop
        wait 2
        node b 1GiB
        deploy shop web=1@v1
        where
        ",
        expect![[r#"
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            > deploy other web=1@v2
            Deployed { revision: Revision(1), changed: true }
            > stop shop
            Stopped { revision: Revision(2), changed: true }
            > deploy shop web=1@v1
            Deployed { revision: Revision(3), changed: true }
            --where
            default/other/web on a:1
            default/shop/web on a:1
        "#]],
    );
}

#[test]
fn a_run_waits_for_what_it_wants_near() {
    let job = r#"
        [app]
        name = "calc"
        [job.sum]
        component = "sum.wasm"
        [job.sum.placement]
        near = ["shop/web"]
    "#;
    placed(
        &[("calc", job)],
        "
        node a 1GiB
        node b 1GiB
        apply calc
        run calc/sum 4
        where
        deploy shop web=1@v1
        wait 1
        where
        ",
        expect![[r#"
            > apply calc
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 4
            RunStarted(RunId(1))
            --where
            r1 waits: no node is both near what it must be near and apart from what it must be apart from
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --where
            default/calc/sum on a:1
            default/shop/web on a:1
        "#]],
    );
}

/// Found when the check of leftovers was written: a cancelled run took the note of the other one with it.
#[test]
fn a_run_goes_on_waiting_for_others_when_another_of_its_job_is_cancelled() {
    let text = r#"
        [app]
        name = "shop"
        [job.sum]
        component = "sum.wasm"
        [job.sum.placement]
        near = ["shop/web"]
        [service.web]
        component = "web.wasm"
        allocations = 1
    "#;
    let without = text.replace("allocations = 1", "allocations = 0");
    placed(
        &[("shop", text), ("without", &without)],
        "
        node a 1GiB
        apply without
        run shop/sum 1
        run shop/sum 1
        cancel r1
        apply shop
        state a1 running
        beat
        where
        ",
        expect![[r#"
            > apply without
            Deployed { revision: Revision(1), changed: true }
            > run shop/sum 1
            RunStarted(RunId(1))
            > run shop/sum 1
            RunStarted(RunId(2))
            > cancel r1
            Cancelled
            0s r1 ends: Cancelled
            > apply shop
            Deployed { revision: Revision(2), changed: true }
            --where
            default/shop/sum on a:1
            default/shop/web on a:1
        "#]],
    );
}

/// Found by the simulation when the check of leftovers was written, with seed 2: what was deleted waited on.
#[test]
fn a_run_that_waits_and_is_deleted_is_not_remembered() {
    placed(
        &[("web", &web(""))],
        "
        node a 64MiB
        apply web
        deploy sums sum=job1@v1
        run sums/sum 1
        where
        delete sums
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            > deploy sums sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run sums/sum 1
            RunStarted(RunId(1))
            --where
            default/shop/web on a:1
            default/shop/web 0 of 4: needs 64MiB; the freest of 1 node has 0B
            r1 waits: needs 64MiB; the freest of 1 node has 0B
            > delete sums
            Deleted
            0s r1 is forgotten
            --where
            default/shop/web on a:1
            default/shop/web 0 of 4: needs 64MiB; the freest of 1 node has 0B
        "#]],
    );
}
