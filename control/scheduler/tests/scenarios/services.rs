//! Services: spread, rollout, replacement, reasons.

use expect_test::expect;

use crate::check;

#[test]
fn allocations_are_spread_over_nodes() {
    check(
        "
        node a
        node b
        node c
        beat
        beat
        deploy shop web=3@v1,route:shop.example
        wait 2
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            0s a gets 1.4: | peers a b c
            0s b gets 1.4: | peers a b c
            0s c gets 1.4: | peers a b c
            > deploy shop web=3@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.6: a1@1 | shop.example:  | peers a b c
            0s b gets 1.6: a2@1 | shop.example:  | peers a b c
            0s c gets 1.6: a3@1 | shop.example:  | peers a b c
            1s a gets 1.7: a1@1 | shop.example: a1 on a | peers a b c
            1s b gets 1.7: a2@1 | shop.example: a1 on a | peers a b c
            1s c gets 1.7: a3@1 | shop.example: a1 on a | peers a b c
            1s a gets 1.8: a1@1 | shop.example: a1 on a, a2 on b | peers a b c
            1s b gets 1.8: a2@1 | shop.example: a1 on a, a2 on b | peers a b c
            1s c gets 1.8: a3@1 | shop.example: a1 on a, a2 on b | peers a b c
            1s a gets 1.9: a1@1 | shop.example: a1 on a, a2 on b, a3 on c | peers a b c
            1s b gets 1.9: a2@1 | shop.example: a1 on a, a2 on b, a3 on c | peers a b c
            1s c gets 1.9: a3@1 | shop.example: a1 on a, a2 on b, a3 on c | peers a b c
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            c Alive, reserved 64MiB
            default/shop/web 3 of 3
        "#]],
    );
}

#[test]
fn a_service_without_nodes_waits_with_a_reason() {
    check(
        "
        deploy shop web=1@v1
        show
        node a
        show
        wait 1
        show
        ",
        expect![[r#"
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --show
            default/shop/web 0 of 1, waiting: no node has joined yet
            0s a gets 1.3: a1@1 | peers a
            --show
            a Alive, reserved 64MiB
            default/shop/web 0 of 1
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn what_does_not_fit_waits_and_says_what_is_missing() {
    check(
        "
        node a 128MiB
        node b 100MiB
        deploy shop web=1@v1,memory:256MiB
        show
        node c 256MiB
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=1@v1,memory:256MiB
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 0B
            b Alive, reserved 0B
            default/shop/web 0 of 1, waiting: needs 256MiB; the freest of 2 nodes has 128MiB
            0s a gets 1.4: | peers a b c
            0s b gets 1.4: | peers a b c
            0s c gets 1.5: a1@1 | peers a b c
            --show
            a Alive, reserved 0B
            b Alive, reserved 0B
            c Alive, reserved 256MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn labels_are_obeyed() {
    check(
        "
        node a 1GiB zone=a
        node b 1GiB zone=b
        deploy shop web=2@v1,zone:b far=1@v1,zone:c
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=2@v1,zone:b far=1@v1,zone:c
            Deployed { revision: Revision(1), changed: true }
            0s b gets 1.4: a1@1 a2@1 | peers a b
            --show
            a Alive, reserved 0B
            b Alive, reserved 128MiB
            default/shop/far 0 of 1, waiting: no node has label zone=c
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn what_needs_a_feature_runs_where_it_is_switched_on() {
    check(
        "
        node a 1GiB
        node b 1GiB feature/wasi-0.3=on
        deploy shop web=2@v1,feature/wasi-0.3:on
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=2@v1,feature/wasi-0.3:on
            Deployed { revision: Revision(1), changed: true }
            0s b gets 1.4: a1@1 a2@1 | peers a b
            --show
            a Alive, reserved 0B
            b Alive, reserved 128MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn what_needs_a_feature_that_no_node_has_waits_and_says_what_to_do() {
    check(
        "
        node a 1GiB
        deploy shop web=1@v1,feature/wasi-0.3:on
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1,feature/wasi-0.3:on
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 0B
            default/shop/web 0 of 1, waiting: no node has the feature wasi-0.3, which is off unless a node's config file says `features = ["wasi-0.3"]`
        "#]],
    );
    check(
        "
        node a 1GiB
        node b 32MiB feature/wasi-0.3=on
        deploy shop web=1@v1,feature/wasi-0.3:on
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=1@v1,feature/wasi-0.3:on
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 0B
            b Alive, reserved 0B
            default/shop/web 0 of 1, waiting: needs 64MiB; the freest of 1 node has 32MiB (1 node without the feature wasi-0.3)
        "#]],
    );
}

#[test]
fn reasons_count_the_nodes_that_are_left_out() {
    check(
        "
        node a 1GiB zone=a
        node b 64MiB zone=b
        node c 1GiB zone=b
        down c
        wait 11
        deploy shop web=1@v1,zone:b,memory:128MiB
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            0s a gets 1.4: | peers a b c
            0s b gets 1.4: | peers a b c
            0s c gets 1.4: | peers a b c
            10s c is lost
            10s a gets 1.5: | peers a b
            10s b gets 1.5: | peers a b
            11s c is lost
            > deploy shop web=1@v1,zone:b,memory:128MiB
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 0B
            b Alive, reserved 0B
            c Lost, reserved 0B
            default/shop/web 0 of 1, waiting: needs 128MiB; the freest of 1 node has 64MiB (1 node without label zone=b, 1 node lost)
        "#]],
    );
}

#[test]
fn what_is_full_takes_no_more() {
    check(
        "
        node a 128MiB
        deploy shop web=3@v1
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=3@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 a2@1 | peers a
            --show
            a Alive, reserved 128MiB
            default/shop/web 2 of 3, waiting: needs 64MiB; the freest of 1 node has 0B
        "#]],
    );
}

#[test]
fn a_rollout_goes_one_by_one() {
    check(
        "
        node a
        node b
        deploy shop web=2@v1,route:shop.example
        wait 2
        deploy shop web=2@v2,route:shop.example
        wait 1
        show
        wait 6
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=2@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.5: a1@1 | shop.example:  | peers a b
            0s b gets 1.5: a2@1 | shop.example:  | peers a b
            1s a gets 1.6: a1@1 | shop.example: a1 on a | peers a b
            1s b gets 1.6: a2@1 | shop.example: a1 on a | peers a b
            1s a gets 1.7: a1@1 | shop.example: a1 on a, a2 on b | peers a b
            1s b gets 1.7: a2@1 | shop.example: a1 on a, a2 on b | peers a b
            > deploy shop web=2@v2,route:shop.example
            Deployed { revision: Revision(2), changed: true }
            2s a gets 1.9: a1@1 a3@2 | shop.example: a1 on a, a2 on b | peers a b
            2s b gets 1.8: a2@1 | shop.example: a1 on a, a2 on b | peers a b
            3s a gets 1.10: a1@1 a3@2 | shop.example: a2 on b, a3 on a | peers a b
            3s b gets 1.10: a2@1 a4@2 | shop.example: a2 on b, a3 on a | peers a b
            3s a gets 1.11: a1@1 a3@2 | shop.example: a3 on a, a4 on b | peers a b
            3s b gets 1.11: a2@1 a4@2 | shop.example: a3 on a, a4 on b | peers a b
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 128MiB
            default/shop/web 2 of 2
            4s a gets 1.12: a3@2 | shop.example: a3 on a, a4 on b | peers a b
            4s b gets 1.12: a4@2 | shop.example: a3 on a, a4 on b | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn an_identical_spec_is_no_new_revision() {
    check(
        "
        node a
        deploy shop web=1@v1
        wait 1
        deploy shop web=1@v1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: false }
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn unchanged_workloads_are_not_restarted() {
    check(
        "
        node a
        deploy shop web=1@v1 api=1@v1
        wait 1
        deploy shop web=1@v2 api=1@v1
        wait 4
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1 api=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 a2@1 | peers a
            > deploy shop web=1@v2 api=1@v1
            Deployed { revision: Revision(2), changed: true }
            1s a gets 1.5: a1@2 a2@1 a3@2 | peers a
            3s a gets 1.6: a1@2 a3@2 | peers a
            --show
            a Alive, reserved 128MiB
            default/shop/api 1 of 1
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn a_broken_new_revision_leaves_the_old_one_serving() {
    check(
        "
        node a
        node b
        deploy shop web=2@v1,route:shop.example
        wait 2
        state a3 refused not a component
        deploy shop web=2@v2,route:shop.example
        wait 20
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=2@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.5: a1@1 | shop.example:  | peers a b
            0s b gets 1.5: a2@1 | shop.example:  | peers a b
            1s a gets 1.6: a1@1 | shop.example: a1 on a | peers a b
            1s b gets 1.6: a2@1 | shop.example: a1 on a | peers a b
            1s a gets 1.7: a1@1 | shop.example: a1 on a, a2 on b | peers a b
            1s b gets 1.7: a2@1 | shop.example: a1 on a, a2 on b | peers a b
            > deploy shop web=2@v2,route:shop.example
            Deployed { revision: Revision(2), changed: true }
            2s a gets 1.9: a1@1 a3@2 | shop.example: a1 on a, a2 on b | peers a b
            2s b gets 1.8: a2@1 | shop.example: a1 on a, a2 on b | peers a b
            4s a gets 1.11: a1@3 | shop.example: a1 on a, a2 on b | peers a b
            4s b gets 1.10: a2@3 | shop.example: a1 on a, a2 on b | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn a_broken_revision_is_overtaken_by_a_good_one() {
    check(
        "
        node a
        deploy shop web=2@v1
        wait 2
        state a3 backing-off exit 1
        deploy shop web=2@v2
        wait 2
        deploy shop web=2@v3
        wait 6
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=2@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 a2@1 | peers a
            > deploy shop web=2@v2
            Deployed { revision: Revision(2), changed: true }
            2s a gets 1.5: a1@1 a2@1 a3@2 | peers a
            > deploy shop web=2@v3
            Deployed { revision: Revision(3), changed: true }
            4s a gets 1.6: a1@1 a2@1 a4@3 | peers a
            5s a gets 1.7: a1@1 a2@1 a4@3 a5@3 | peers a
            6s a gets 1.8: a1@1 a4@3 a5@3 | peers a
            7s a gets 1.9: a4@3 a5@3 | peers a
            --show
            a Alive, reserved 128MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn a_refused_allocation_stays_and_shows_why() {
    check(
        "
        node a
        node b
        state a1 refused no such import
        deploy shop web=1@v1
        wait 20
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 0B
            default/shop/web 0 of 1, waiting: a1 on a: refused: no such import
        "#]],
    );
}

#[test]
fn scaling_down_ends_those_not_running_then_the_youngest() {
    check(
        "
        node a
        deploy shop web=4@v1
        state a2 starting
        wait 1
        deploy shop web=2@v1
        wait 2
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=4@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 a2@1 a3@1 a4@1 | peers a
            > deploy shop web=2@v1
            Deployed { revision: Revision(2), changed: true }
            1s a gets 1.4: a1@2 a3@2 a4@2 | peers a
            2s a gets 1.5: a1@2 a3@2 | peers a
            --show
            a Alive, reserved 128MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn scaling_up_keeps_what_runs() {
    check(
        "
        node a
        node b
        deploy shop web=1@v1
        wait 1
        deploy shop web=3@v1
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 | peers a b
            > deploy shop web=3@v1
            Deployed { revision: Revision(2), changed: true }
            1s a gets 1.5: a1@2 a3@2 | peers a b
            1s b gets 1.4: a2@2 | peers a b
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 64MiB
            default/shop/web 3 of 3
        "#]],
    );
}

#[test]
fn an_ended_allocation_leaves_the_routes_before_it_is_stopped() {
    check(
        "
        node a
        deploy shop web=1@v1,route:shop.example
        wait 1
        stop shop
        pass 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 | shop.example:  | peers a
            1s a gets 1.5: a1@1 | shop.example: a1 on a | peers a
            > stop shop
            Stopped { revision: Revision(2), changed: true }
            1s a gets 1.7: a1@2 | shop.example:  | peers a
            2s a gets 1.8: | shop.example:  | peers a
            --show
            a Alive, reserved 0B
            default/shop/web 0 of 0
        "#]],
    );
}

#[test]
fn an_allocation_that_stops_running_leaves_the_routes() {
    check(
        "
        node a
        deploy shop web=1@v1,route:shop.example
        wait 1
        state a1 backing-off trapped
        wait 1
        state a1 running
        wait 1
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 | shop.example:  | peers a
            1s a gets 1.5: a1@1 | shop.example: a1 on a | peers a
            2s a gets 1.6: a1@1 | shop.example:  | peers a
            3s a gets 1.7: a1@1 | shop.example: a1 on a | peers a
        "#]],
    );
}

#[test]
fn a_service_without_routes_is_in_them_as_long_as_somebody_may_call_it() {
    check(
        "
        node a
        deploy shop cart=1@v1 stock=1@v1
        wait 1
        deploy web front=1@v1,calls:cart.shop.internal
        wait 1
        deploy batch sum=job1@v1,calls:*.shop.internal
        wait 1
        delete web
        wait 2
        delete batch
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop cart=1@v1 stock=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 a2@1 | peers a
            > deploy web front=1@v1,calls:cart.shop.internal
            Deployed { revision: Revision(1), changed: true }
            1s a gets 1.5: a1@1 a2@1 a3@1 | cart.shop.internal: a1 on a | peers a
            > deploy batch sum=job1@v1,calls:*.shop.internal
            Deployed { revision: Revision(1), changed: true }
            2s a gets 1.6: a1@1 a2@1 a3@1 | cart.shop.internal: a1 on a | stock.shop.internal: a2 on a | peers a
            > delete web
            Deleted
            4s a gets 1.7: a1@1 a2@1 | cart.shop.internal: a1 on a | stock.shop.internal: a2 on a | peers a
            > delete batch
            Deleted
            5s a gets 1.8: a1@1 a2@1 | peers a
        "#]],
    );
}

#[test]
fn what_a_revision_may_call_can_be_called_until_nothing_of_it_is_left() {
    check(
        "
        node a
        deploy shop cart=1@v1
        deploy web front=1@v1,calls:cart.shop.internal
        wait 20
        deploy web front=1@v2
        wait 3
        show
        wait 20
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop cart=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            > deploy web front=1@v1,calls:cart.shop.internal
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.5: a1@1 a2@1 | cart.shop.internal:  | peers a
            1s a gets 1.6: a1@1 a2@1 | cart.shop.internal: a1 on a | peers a
            > deploy web front=1@v2
            Deployed { revision: Revision(2), changed: true }
            20s a gets 1.8: a1@1 a2@1 a3@2 | cart.shop.internal: a1 on a | peers a
            22s a gets 1.9: a1@1 a3@2 | cart.shop.internal: a1 on a | peers a
            --show
            a Alive, reserved 128MiB
            default/shop/cart 1 of 1
            default/web/front 1 of 1
            32s a gets 1.10: a1@1 a3@2 | peers a
        "#]],
    );
}

#[test]
fn a_stopped_app_can_be_deployed_again() {
    check(
        "
        node a
        deploy shop web=1@v1
        wait 1
        stop shop
        stop shop
        wait 2
        deploy shop web=1@v1
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            > stop shop
            Stopped { revision: Revision(2), changed: true }
            1s a gets 1.4: a1@2 | peers a
            > stop shop
            Stopped { revision: Revision(2), changed: false }
            2s a gets 1.5: | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(3), changed: true }
            3s a gets 1.6: a2@3 | peers a
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn a_deleted_app_is_gone_with_all_it_ran() {
    check(
        "
        node a
        deploy shop web=1@v1,route:shop.example sum=job1@v1
        run shop/sum 4
        wait 1
        delete shop
        delete shop
        wait 2
        show
        deploy shop web=1@v1
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1,route:shop.example sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 | shop.example:  | peers a
            > run shop/sum 4
            RunStarted(RunId(1))
            0s a gets 1.5: a1@1 a2[r1 0..1 attempt 1] | shop.example:  | peers a
            1s a gets 1.6: a1@1 a2[r1 0..1 attempt 1] | shop.example: a1 on a | peers a
            > delete shop
            Deleted
            1s r1 is forgotten
            1s a gets 1.8: a1@1 | peers a
            > delete shop
            unknown_app: there is no app `default/shop`
            2s a gets 1.9: | peers a
            --show
            a Alive, reserved 0B
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            3s a gets 1.10: a3@1 | peers a
        "#]],
    );
}

#[test]
fn a_route_of_another_service_is_refused() {
    check(
        "
        deploy shop web=1@v1,route:shop.example
        deploy copy web=1@v1,route:shop.example
        deploy twice a=1@v1,route:x.example b=1@v1,route:x.example
        delete shop
        deploy copy web=1@v1,route:shop.example
        ",
        expect![[r#"
            > deploy shop web=1@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            > deploy copy web=1@v1,route:shop.example
            route_taken: the route `shop.example/` already leads to `default/shop/web`
            > deploy twice a=1@v1,route:x.example b=1@v1,route:x.example
            invalid_spec: `default/twice`: `workloads.b.routes`: this route stands twice in the app
            > delete shop
            Deleted
            > deploy copy web=1@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
        "#]],
    );
}

#[test]
fn a_spec_beyond_the_limits_is_refused() {
    check(
        "
        deploy shop web=1@v1,memory:2GiB
        deploy shop web=1@v1,memory:0B
        deploy shop sum=job0@v1
        deploy shop web=10001@v1
        deploy shop
        stop shop
        ",
        expect![[r#"
            > deploy shop web=1@v1,memory:2GiB
            invalid_spec: `default/shop`: `workloads.web.limits.memory`: limit `memory` is 1GiB, observed 2GiB
            > deploy shop web=1@v1,memory:0B
            invalid_spec: `default/shop`: `workloads.web.limits.memory`: limit `memory` is more than 0B and at most 1GiB, observed 0B
            > deploy shop sum=job0@v1
            invalid_spec: `default/shop`: `workloads.sum.parallelism`: limit `parallelism` is 1 to 10000, observed 0
            > deploy shop web=10001@v1
            invalid_spec: `default/shop`: `workloads.web.allocations`: limit `allocations` is 10000, observed 10001
            > deploy shop
            invalid_spec: `default/shop`: `workloads`: an app has at least one workload
            > stop shop
            unknown_app: there is no app `default/shop`
        "#]],
    );
}

#[test]
fn a_service_that_becomes_a_job_is_ended() {
    check(
        "
        node a
        deploy shop web=1@v1
        wait 1
        deploy shop web=job1@v1
        wait 2
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            > deploy shop web=job1@v1
            Deployed { revision: Revision(2), changed: true }
            2s a gets 1.4: | peers a
            --show
            a Alive, reserved 0B
        "#]],
    );
}
