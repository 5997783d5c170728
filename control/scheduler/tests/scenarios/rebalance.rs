//! What runs moves, slowly, to nodes that are clearly better.

use expect_test::expect;

use crate::{check, placed};

/// Returns the manifest of a service with so many allocations of so much memory.
fn web(app: &str, allocations: u32, memory: &str, placement: &str) -> String {
    format!(
        "[app]\nname = \"{app}\"\n[service.web]\ncomponent = \"web.wasm\"\nallocations = {allocations}\n\
         limits = {{ memory = \"{memory}\" }}\n[service.web.placement]\n{placement}\n"
    )
}

#[test]
fn a_new_node_is_given_one_allocation_of_a_service_in_five_minutes_first_new_then_old() {
    placed(
        &[("web", &web("shop", 4, "64MiB", ""))],
        "
        node a
        apply web
        wait 100
        node b
        wait 199
        where
        wait 5
        where
        explain shop/web
        wait 300
        where
        wait 3600
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:4
            --where
            default/shop/web on a:3 b:1
            --explain shop/web
            revision 1, 4 of 4, needs 64MiB of memory, a fuel rate of 50M/s
              a1@1 on a, running: Elsewhere: today b would be taken: b has fewer of its allocations beside it (1) than a (2); what runs is moved only if it is clearly better there, one allocation in five minutes
              a2@1 on a, running: Elsewhere: today b would be taken: b has fewer of its allocations beside it (1) than a (2); what runs is moved only if it is clearly better there, one allocation in five minutes
              a3@1 on a, running: Elsewhere: today b would be taken: b has fewer of its allocations beside it (1) than a (2); what runs is moved only if it is clearly better there, one allocation in five minutes
              a5@1 on b, running: Copies: b has fewer of its allocations beside it (0) than a (3)
              301s a4@1 on a ended after 301s: Rebalanced: b is better for it than a: b has fewer of its allocations beside it (0) than a (3)
            --where
            default/shop/web on a:2 b:2
            --where
            default/shop/web on a:2 b:2
        "#]],
    );
}

#[test]
fn a_move_looks_like_any_other_passage() {
    check(
        "
        node a
        deploy shop web=2@v1,route:shop.example
        wait 2
        node b
        wait 304
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=2@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 a2@1 | shop.example:  | peers a
            1s a gets 1.5: a1@1 a2@1 | shop.example: a1 on a, a2 on a | peers a
            2s a gets 1.6: a1@1 a2@1 | shop.example: a1 on a, a2 on a | peers a b
            2s b gets 1.5: | shop.example: a1 on a, a2 on a | peers a b
            300s b gets 1.6: a3@1 | shop.example: a1 on a, a2 on a | peers a b
            300s a gets 1.7: a1@1 a2@1 | shop.example: a1 on a, a3 on b | peers a b
            300s b gets 1.7: a3@1 | shop.example: a1 on a, a3 on b | peers a b
            301s a gets 1.8: a1@1 | shop.example: a1 on a, a3 on b | peers a b
        "#]],
    );
}

#[test]
fn a_move_whose_new_allocation_does_not_come_to_run_is_taken_back() {
    placed(
        &[("web", &web("shop", 2, "64MiB", ""))],
        "
        node a
        apply web
        wait 2
        node b
        state a3 starting
        wait 310
        where
        wait 300
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:2 b:1
            --where
            default/shop/web on a:2
        "#]],
    );
}

#[test]
fn what_is_spread_out_is_spread_out_again_when_a_zone_is_back() {
    placed(
        &[("web", &web("shop", 4, "64MiB", "spread = [\"zone\"]"))],
        "
        node a 1GiB zone=a
        node b 1GiB zone=b
        apply web
        wait 2
        where
        down b
        wait 30
        where
        up b
        wait 2
        where
        wait 600
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:2 b:2
            12s b is lost
            12s a2 is lost
            12s a4 is lost
            13s b is lost
            --where
            default/shop/web on a:4
            --where
            default/shop/web on a:4
            --where
            default/shop/web on a:2 b:2
        "#]],
    );
}

#[test]
fn what_has_no_room_for_one_more_in_its_quota_stays() {
    placed(
        &[("web", &web("shop", 2, "64MiB", ""))],
        "
        node a
        namespace default allocations=2
        apply web
        wait 2
        node b
        wait 400
        where
        ",
        expect![[r#"
            > namespace default allocations=2
            NamespaceSet
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:2
        "#]],
    );
}

#[test]
fn what_may_not_be_one_more_meanwhile_stays() {
    let rollout = "[service.web.rollout]\nmax_surge = 0\nmax_unavailable = 1";
    placed(
        &[("web", &web("shop", 2, "64MiB", rollout))],
        "
        node a
        apply web
        wait 2
        node b
        wait 400
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:2
        "#]],
    );
}

#[test]
fn what_may_serve_less_in_a_rollout_serves_as_much_while_it_moves() {
    let rollout = "[service.web.rollout]\nmax_unavailable = 1";
    placed(
        &[("web", &web("shop", 2, "64MiB", rollout))],
        "
        node a
        apply web
        wait 2
        node b
        state a3 starting
        wait 310
        where
        state a3 running
        wait 5
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:2 b:1
            --where
            default/shop/web on a:1 b:1
        "#]],
    );
}

#[test]
fn a_node_that_is_a_little_emptier_is_no_reason_to_move() {
    placed(
        &[("one", &web("shop", 1, "64MiB", "")), ("two", &web("bar", 1, "64MiB", ""))],
        "
        node a 1GiB
        apply one
        apply two
        wait 2
        node b 1GiB
        wait 400
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(1), changed: true }
            --where
            default/bar/web on a:1
            default/shop/web on a:1
        "#]],
    );
}

#[test]
fn a_node_that_is_much_emptier_is() {
    placed(
        &[("one", &web("shop", 1, "300MiB", "")), ("two", &web("bar", 1, "300MiB", ""))],
        "
        node a 1GiB
        apply one
        apply two
        wait 2
        node b 1GiB
        wait 400
        where
        wait 1000
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(1), changed: true }
            --where
            default/bar/web on b:1
            default/shop/web on a:1
            --where
            default/bar/web on b:1
            default/shop/web on a:1
        "#]],
    );
}

#[test]
fn nothing_is_moved_while_lost_nodes_may_be_back() {
    placed(
        &[("web", &web("shop", 2, "64MiB", ""))],
        "
        node a 1GiB zone=a
        apply web
        node c 1GiB zone=b
        node d 1GiB zone=b
        node e 1GiB zone=b
        wait 20
        down c
        down d
        down e
        wait 20
        node b 1GiB zone=a
        wait 600
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            30s c is lost
            30s d is lost
            30s e is lost
            --where
            default/shop/web on a:2
        "#]],
    );
}

#[test]
fn a_coordinator_that_starts_again_forgets_a_move_and_keeps_as_many_as_are_wanted() {
    placed(
        &[("web", &web("shop", 2, "64MiB", ""))],
        "
        node a
        apply web
        wait 2
        node b
        state a3 starting
        wait 310
        restart
        wait 20
        where
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            > restart
            --where
            default/shop/web on a:2
        "#]],
    );
}
