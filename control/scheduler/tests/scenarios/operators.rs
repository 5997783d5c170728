//! What operators say of nodes, and what holds a mass loss back until they do.

use expect_test::expect;

use crate::{check, placed};

#[test]
fn nothing_new_goes_to_a_cordoned_node() {
    check(
        "
        node a
        cordon a
        deploy shop web=1@v1
        wait 1
        show
        uncordon a
        wait 1
        show
        cordon nobody
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > cordon a
            Cordoned
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 0B
            default/shop/web 0 of 1, waiting: 1 node cordoned; `dunlin node uncordon` lets them be used again
            > uncordon a
            Uncordoned
            1s a gets 1.3: a1@1 | peers a
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 1
            > cordon nobody
            unknown_node: there is no node `nobody`
        "#]],
    );
}

#[test]
fn a_drained_node_is_left_first_new_then_old() {
    check(
        "
        node a
        deploy shop web=2@v1,route:shop.example
        wait 2
        node b
        drain a 60
        wait 5
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=2@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 a2@1 | shop.example:  | peers a
            1s a gets 1.5: a1@1 a2@1 | shop.example: a1 on a, a2 on a | peers a
            2s a gets 1.6: a1@1 a2@1 | shop.example: a1 on a, a2 on a | peers a b
            2s b gets 1.5: | shop.example: a1 on a, a2 on a | peers a b
            > drain a 60
            Cordoned
            2s b gets 1.6: a3@1 | shop.example: a1 on a, a2 on a | peers a b
            3s a gets 1.7: a1@1 a2@1 | shop.example: a1 on a, a3 on b | peers a b
            3s b gets 1.8: a3@1 a4@1 | shop.example: a1 on a, a3 on b | peers a b
            4s a gets 1.8: a1@1 | shop.example: a1 on a, a3 on b | peers a b
            4s a gets 1.9: a1@1 | shop.example: a3 on b, a4 on b | peers a b
            4s b gets 1.9: a3@1 a4@1 | shop.example: a3 on b, a4 on b | peers a b
            5s a gets 1.10: | shop.example: a3 on b, a4 on b | peers a b
            --show
            a Alive, reserved 0B
            b Alive, reserved 128MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn what_has_not_left_a_drained_node_in_time_is_ended() {
    check(
        "
        node a
        deploy shop web=1@v1
        deploy calc sum=job1@v1
        run calc/sum 4
        wait 2
        drain a 10
        wait 8
        show
        wait 4
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 4
            RunStarted(RunId(1))
            0s a gets 1.4: a1@1 a2[r1 0..1 attempt 1] | peers a
            > drain a 10
            Cordoned
            --show
            a Alive, reserved 128MiB
            default/shop/web 1 of 1, waiting: 1 node cordoned; `dunlin node uncordon` lets them be used again
            r1 Running: 0 good, 0 bad of 4; leased 1, ready 3, backing off 0; 0 fuel
            12s a gets 1.5: a1@1 | peers a
            13s a gets 1.6: | peers a
            --show
            a Alive, reserved 0B
            default/shop/web 0 of 1, waiting: 1 node cordoned; `dunlin node uncordon` lets them be used again
            r1 Running: 0 good, 0 bad of 4; leased 0, ready 4, backing off 0; 0 fuel, waiting: 1 node cordoned; `dunlin node uncordon` lets them be used again
        "#]],
    );
}

#[test]
fn a_mass_loss_is_no_mass_move_until_the_operator_says_so() {
    placed(
        &[],
        "
        node a 128MiB zone=north
        node b 128MiB zone=north
        node c 128MiB zone=north
        node d 1GiB zone=south
        node e 1GiB zone=south
        deploy shop web=8@v1
        wait 2
        down a
        down b
        down c
        wait 40
        show
        release
        wait 2
        show
        ",
        expect![[r#"
            > deploy shop web=8@v1
            Deployed { revision: Revision(1), changed: true }
            12s a is lost
            12s a1 is lost
            12s a8 is lost
            12s b is lost
            12s a2 is lost
            12s c is lost
            12s a3 is lost
            --show
            a Lost, reserved 0B
            b Lost, reserved 0B
            c Lost, reserved 0B
            d Alive, reserved 128MiB
            e Alive, reserved 128MiB
            default/shop/web 4 of 8, waiting: 4 allocations are on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
            > release
            BrakeReleased
            42s a is lost
            42s b is lost
            42s c is lost
            --show
            a Lost, reserved 0B
            b Lost, reserved 0B
            c Lost, reserved 0B
            d Alive, reserved 256MiB
            e Alive, reserved 256MiB
            default/shop/web 8 of 8
        "#]],
    );
}

#[test]
fn one_lost_node_is_replaced_at_a_time() {
    placed(
        &[],
        "
        node a 128MiB
        node b 128MiB
        node c
        node d
        node e
        node f
        node g
        node h
        deploy shop web=8@v1
        wait 2
        down a
        down b
        wait 12
        show
        wait 10
        show
        ",
        expect![[r#"
            > deploy shop web=8@v1
            Deployed { revision: Revision(1), changed: true }
            12s a is lost
            12s a1 is lost
            12s b is lost
            12s a2 is lost
            13s a is lost
            --show
            a Lost, reserved 0B
            b Lost, reserved 0B
            c Alive, reserved 128MiB
            d Alive, reserved 64MiB
            e Alive, reserved 64MiB
            f Alive, reserved 64MiB
            g Alive, reserved 64MiB
            h Alive, reserved 64MiB
            default/shop/web 7 of 8, waiting: 1 allocation is on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
            23s b is lost
            --show
            a Lost, reserved 0B
            b Lost, reserved 0B
            c Alive, reserved 128MiB
            d Alive, reserved 128MiB
            e Alive, reserved 64MiB
            f Alive, reserved 64MiB
            g Alive, reserved 64MiB
            h Alive, reserved 64MiB
            default/shop/web 8 of 8
        "#]],
    );
}

#[test]
fn what_is_held_goes_on_when_its_nodes_are_back() {
    placed(
        &[],
        "
        node a 256MiB
        node b 256MiB
        node c 256MiB
        deploy shop web=3@v1
        deploy calc sum=job3@v1
        run calc/sum 9
        wait 2
        down a
        down b
        down c
        wait 13
        show
        up a
        up b
        up c
        wait 2
        show
        ",
        expect![[r#"
            > deploy shop web=3@v1
            Deployed { revision: Revision(1), changed: true }
            > deploy calc sum=job3@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 9
            RunStarted(RunId(1))
            12s a is lost
            12s a1 is lost
            12s a4 is lost
            12s b is lost
            12s a2 is lost
            12s a5 is lost
            12s c is lost
            12s a3 is lost
            12s a6 is lost
            --show
            a Lost, reserved 0B
            b Lost, reserved 0B
            c Lost, reserved 0B
            default/shop/web 0 of 3, waiting: 3 allocations are on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
            r1 Running: 0 good, 0 bad of 9; leased 0, ready 6, backing off 0; 0 fuel
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 128MiB
            c Alive, reserved 128MiB
            default/shop/web 3 of 3
            r1 Running: 0 good, 0 bad of 9; leased 3, ready 6, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn a_node_that_is_lost_again_and_again_is_set_aside() {
    check(
        "
        node a
        down a
        wait 12
        up a
        wait 1
        down a
        wait 12
        up a
        wait 1
        down a
        wait 12
        up a
        wait 1
        deploy shop web=1@v1
        wait 10
        show
        restart
        wait 10
        show
        wait 600
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            10s a is lost
            11s a is lost
            13s a gets 1.4: | peers a
            23s a is lost
            24s a is lost
            26s a gets 1.6: | peers a
            36s a is lost
            37s a is lost
            39s a gets 1.8: | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 0B
            default/shop/web 0 of 1, waiting: 1 node set aside for a while, as lost again and again
            > restart
            50s a gets 2.2: | peers a
            --show
            a Alive, reserved 0B
            default/shop/web 0 of 1, waiting: 1 node set aside for a while, as lost again and again
            636s a gets 2.3: a1@1 | peers a
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn the_brake_counts_the_first_loss_though_it_was_released() {
    placed(
        &[],
        "
        node a 128MiB
        node b 128MiB
        node c 128MiB
        node d 1GiB
        deploy shop web=4@v1
        wait 2
        down a
        wait 3
        down b
        wait 3
        down c
        wait 60
        show
        ",
        expect![[r#"
            > deploy shop web=4@v1
            Deployed { revision: Revision(1), changed: true }
            12s a is lost
            12s a1 is lost
            12s b does not get 1.7: a2@1 | peers b c d
            12s c does not get 1.7: a3@1 | peers b c d
            13s a is lost
            15s b is lost
            15s a2 is lost
            15s c does not get 1.8: a3@1 | peers c d
            18s c is lost
            18s a3 is lost
            --show
            a Lost, reserved 0B
            b Lost, reserved 0B
            c Lost, reserved 0B
            d Alive, reserved 128MiB
            default/shop/web 2 of 4, waiting: 2 allocations are on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
        "#]],
    );
}

#[test]
fn items_of_a_lost_node_are_not_queued_twice_when_its_drain_is_over() {
    placed(
        &[],
        "
        node a
        deploy calc sum=job1@v1
        run calc/sum 4
        wait 2
        node b
        drain a 60
        down a
        wait 70
        show
        ",
        expect![[r#"
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 4
            RunStarted(RunId(1))
            > drain a 60
            Cordoned
            12s a is lost
            12s a1 is lost
            13s a is lost
            62s a is lost
            --show
            a Lost, reserved 0B
            b Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 4; leased 1, ready 3, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn a_node_that_is_lost_while_set_aside_is_set_aside_for_longer() {
    placed(
        &[],
        "
        node a
        down a
        wait 12
        up a
        wait 1
        down a
        wait 12
        up a
        wait 1
        down a
        wait 12
        up a
        wait 300
        down a
        wait 12
        up a
        deploy shop web=1@v1
        wait 300
        show
        wait 310
        show
        ",
        expect![[r#"
            10s a is lost
            11s a is lost
            23s a is lost
            24s a is lost
            36s a is lost
            37s a is lost
            348s a is lost
            349s a is lost
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 0B
            default/shop/web 0 of 1, waiting: 1 node set aside for a while, as lost again and again
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn a_release_is_for_what_is_lost_then_and_not_for_what_is_lost_later() {
    placed(
        &[],
        "
        node a 64MiB
        node b 64MiB
        node c 64MiB
        node d 1GiB
        deploy shop web=4@v1
        wait 2
        down a
        down b
        wait 11
        release
        pass 1
        down c
        wait 10
        show
        ",
        expect![[r#"
            > deploy shop web=4@v1
            Deployed { revision: Revision(1), changed: true }
            12s a is lost
            12s a1 is lost
            12s b is lost
            12s a2 is lost
            13s a is lost
            > release
            BrakeReleased
            13s b is lost
            23s c is lost
            23s a3 is lost
            --show
            a Lost, reserved 0B
            b Lost, reserved 0B
            c Lost, reserved 0B
            d Alive, reserved 192MiB
            default/shop/web 3 of 4, waiting: 1 allocation is on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
        "#]],
    );
}

#[test]
fn a_release_in_the_step_in_which_a_node_is_lost_is_not_put_off() {
    placed(
        &[],
        "
        node a 64MiB
        node b 64MiB
        node c 64MiB
        node x 64MiB
        node d 1GiB
        deploy shop web=5@v1
        wait 2
        down a
        down b
        wait 1
        down c
        wait 1
        down x
        wait 8
        absent 1
        release
        wait 5
        show
        ",
        expect![[r#"
            > deploy shop web=5@v1
            Deployed { revision: Revision(1), changed: true }
            12s a is lost
            12s a1 is lost
            12s b is lost
            12s a2 is lost
            12s c does not get 1.8: a3@1 | peers c d x
            12s x does not get 1.8: a5@1 | peers c d x
            > absent 1
            > release
            BrakeReleased
            13s a is lost
            13s b is lost
            13s c is lost
            13s x does not get 1.9: a5@1 | peers d x
            14s x is lost
            14s a5 is lost
            --show
            a Lost, reserved 0B
            b Lost, reserved 0B
            c Lost, reserved 0B
            d Alive, reserved 256MiB
            x Lost, reserved 0B
            default/shop/web 4 of 5, waiting: 1 allocation is on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
        "#]],
    );
}

#[test]
fn a_node_that_is_back_brings_no_more_than_its_namespace_may_have() {
    check(
        "
        node a 300MiB
        node b 128MiB
        namespace default allocations=3
        deploy shop web=3@v1,memory:128MiB
        wait 2
        down b
        wait 9
        deploy early db=1@v1,memory:32MiB
        show
        wait 4
        show
        up b
        wait 2
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > namespace default allocations=3
            NamespaceSet
            > deploy shop web=3@v1,memory:128MiB
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 a3@1 | peers a b
            0s b gets 1.4: a2@1 | peers a b
            > deploy early db=1@v1,memory:32MiB
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 256MiB
            b Alive, reserved 128MiB
            default/early/db 0 of 1, waiting: the namespace `default` has what it may have: limit `quota.allocations` is 3, observed 4
            default/shop/web 3 of 3
            12s b is lost
            12s a2 is lost
            12s a gets 1.5: a1@1 a3@1 | peers a
            13s b is lost
            13s a gets 1.6: a1@1 a3@1 a4@1 | peers a
            --show
            a Alive, reserved 288MiB
            b Lost, reserved 0B
            default/early/db 1 of 1
            default/shop/web 2 of 3, waiting: the namespace `default` has what it may have: limit `quota.allocations` is 3, observed 4
            16s a gets 1.7: a1@1 a3@1 a4@1 | peers a b
            16s b gets 1.7: | peers a b
            --show
            a Alive, reserved 288MiB
            b Alive, reserved 0B
            default/early/db 1 of 1
            default/shop/web 2 of 3, waiting: the namespace `default` has what it may have: limit `quota.allocations` is 3, observed 4
        "#]],
    );
}
