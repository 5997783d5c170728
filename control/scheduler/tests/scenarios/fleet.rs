//! Nodes: joining, leases, restarts of the coordinator, repeated and stale words.

use expect_test::expect;

use crate::check;

#[test]
fn a_silent_node_loses_its_allocations() {
    check(
        "
        node a
        node b
        deploy shop web=1@v1,route:shop.example
        wait 2
        down a
        wait 12
        show
        up a
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=1@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.5: a1@1 | shop.example:  | peers a b
            0s b gets 1.4: | shop.example:  | peers a b
            1s a gets 1.6: a1@1 | shop.example: a1 on a | peers a b
            1s b gets 1.5: | shop.example: a1 on a | peers a b
            12s a is lost
            12s a1 is lost
            12s b gets 1.6: | shop.example:  | peers b
            13s a is lost
            13s b gets 1.7: a2@1 | shop.example:  | peers b
            13s b gets 1.8: a2@1 | shop.example: a2 on b | peers b
            --show
            a Lost, reserved 0B
            b Alive, reserved 64MiB
            default/shop/web 1 of 1
            15s a gets 1.10: | shop.example: a2 on b | peers a b
            15s b gets 1.9: a2@1 | shop.example: a2 on b | peers a b
            --show
            a Alive, reserved 0B
            b Alive, reserved 64MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn a_node_that_returns_before_it_was_replaced_keeps_them() {
    check(
        "
        node a
        deploy shop web=2@v1
        wait 1
        pass 12
        show
        connect a
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=2@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 a2@1 | peers a
            11s a is lost
            11s a1 is lost
            11s a2 is lost
            12s a is lost
            --show
            a Lost, reserved 0B
            default/shop/web 0 of 2, waiting: all nodes are lost
            > connect a
            14s a gets 1.7: a1@1 a2@1 | peers a
            --show
            a Alive, reserved 128MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn only_what_was_not_replaced_goes_on_when_a_node_returns() {
    check(
        "
        node a
        node b 128MiB
        deploy shop web=3@v1
        wait 1
        down a
        wait 12
        show
        up a
        wait 2
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=3@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 a3@1 | peers a b
            0s b gets 1.4: a2@1 | peers a b
            11s a is lost
            11s a1 is lost
            11s a3 is lost
            11s b gets 1.5: a2@1 | peers b
            12s a is lost
            12s b gets 1.6: a2@1 a4@1 | peers b
            --show
            a Lost, reserved 0B
            b Alive, reserved 128MiB
            default/shop/web 2 of 3, waiting: needs 64MiB; the freest of 1 node has 0B (1 node lost)
            14s a gets 1.8: a1@1 | peers a b
            14s b gets 1.7: a2@1 a4@1 | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 128MiB
            default/shop/web 3 of 3
        "#]],
    );
}

#[test]
fn nothing_new_is_placed_on_a_node_that_cannot_be_told() {
    check(
        "
        node a
        disconnect a
        deploy shop web=1@v1
        show
        connect a
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > disconnect a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 0B
            default/shop/web 0 of 1, waiting: 1 node not connected at this moment
            > connect a
            0s a gets 1.3: a1@1 | peers a
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn a_lost_connection_alone_loses_nothing() {
    check(
        "
        node a
        node b
        deploy shop web=1@v1
        wait 1
        disconnect a
        pass 5
        show
        connect a
        wait 1
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 | peers a b
            > disconnect a
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 0B
            default/shop/web 1 of 1
            > connect a
            6s a gets 1.4: a1@1 | peers a b
        "#]],
    );
}

#[test]
fn a_node_without_connection_is_told_later() {
    check(
        "
        node a
        disconnect a
        deploy shop web=1@v1
        connect a
        connect a
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > disconnect a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            > connect a
            0s a gets 1.3: a1@1 | peers a
            > connect a
            0s a gets 1.3: a1@1 | peers a
        "#]],
    );
}

#[test]
fn what_a_node_has_not_got_is_sent_again() {
    check(
        "
        node a
        down a
        deploy shop web=1@v1
        up a
        beat
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a does not get 1.3: a1@1 | peers a
            0s a gets 1.3: a1@1 | peers a
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn a_restarted_coordinator_goes_on_with_a_new_term() {
    check(
        "
        node a
        node b
        deploy shop web=2@v1,route:shop.example
        wait 2
        restart
        show
        wait 2
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
            > restart
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            default/shop/web 2 of 2
            3s a gets 2.2: a1@1 | shop.example: a1 on a, a2 on b | peers a b
            3s b gets 2.2: a2@1 | shop.example: a1 on a, a2 on b | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn after_a_restart_silent_nodes_are_believed_for_a_while() {
    check(
        "
        node a
        node b
        deploy shop web=2@v1,route:shop.example
        wait 2
        restart
        down a
        wait 14
        show
        wait 2
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
            > restart
            3s b gets 2.2: a2@1 | shop.example: a1 on a, a2 on b | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            default/shop/web 2 of 2
            17s a is lost
            17s a1 is lost
            17s b gets 2.3: a2@1 | shop.example: a2 on b | peers b
            18s a is lost
            18s b gets 2.4: a2@1 a3@1 | shop.example: a2 on b | peers b
            18s b gets 2.5: a2@1 a3@1 | shop.example: a2 on b, a3 on b | peers b
            --show
            a Lost, reserved 0B
            b Alive, reserved 128MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn a_node_that_was_lost_stays_so_over_a_restart() {
    check(
        "
        node a
        node b
        down a
        wait 11
        restart
        show
        deploy shop web=1@v1
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            10s a is lost
            10s b gets 1.4: | peers b
            11s a is lost
            > restart
            --show
            a Lost, reserved 0B
            b Alive, reserved 0B
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            12s b gets 2.3: a1@1 | peers b
            --show
            a Lost, reserved 0B
            b Alive, reserved 64MiB
            default/shop/web 0 of 1
        "#]],
    );
}

#[test]
fn nothing_is_placed_on_a_node_that_this_coordinator_has_not_heard() {
    check(
        "
        node a
        restart
        deploy shop web=1@v1
        show
        beat a
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > restart
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --show
            a Alive, reserved 0B
            default/shop/web 0 of 1, waiting: no node has reported yet
            0s a gets 2.3: a1@1 | peers a
        "#]],
    );
}

#[test]
fn a_rollout_survives_a_restart() {
    check(
        "
        node a
        deploy shop web=2@v1
        wait 1
        deploy shop web=2@v2
        restart
        wait 8
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=2@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 a2@1 | peers a
            > deploy shop web=2@v2
            Deployed { revision: Revision(2), changed: true }
            1s a gets 1.5: a1@1 a2@1 a3@2 | peers a
            > restart
            2s a gets 2.3: a1@1 a2@1 a3@2 a4@2 | peers a
            3s a gets 2.4: a1@1 a3@2 a4@2 | peers a
            4s a gets 2.5: a3@2 a4@2 | peers a
            --show
            a Alive, reserved 128MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn reports_of_another_fleet_or_a_later_coordinator_do_not_count() {
    check(
        "
        node a
        node b
        down b
        wait 5
        report b cluster=other
        report b term=2
        report b term=1 generation=9
        report nobody
        wait 6
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > report b cluster=other
            > report b term=2
            > report b term=1 generation=9
            > report nobody
            10s b is lost
            10s a gets 1.4: | peers a
            11s b is lost
        "#]],
    );
}

#[test]
fn a_token_lets_as_many_join_as_it_says() {
    check(
        "
        token t uses=1
        join a t key=1
        join b t key=2
        join b other key=2
        join b t key=2 secret=9
        join a t key=1
        show
        ",
        expect![[r#"
            > token t uses=1
            TokenCreated
            > join a t key=1
            Joined
            > join b t key=2
            token_used: the join token has been used up
            > join b other key=2
            token_unknown: the join token is not known
            > join b t key=2 secret=9
            token_unknown: the join token is not known
            > join a t key=1
            Joined
            --show
            a NeverSeen, reserved 0B
        "#]],
    );
}

#[test]
fn a_token_expires() {
    check(
        "
        token t uses=2 expires=5
        join a t key=1
        pass 5
        join b t key=2
        join a t key=1
        ",
        expect![[r#"
            > token t uses=2 expires=5
            TokenCreated
            > join a t key=1
            Joined
            > join b t key=2
            token_expired: the join token has expired
            > join a t key=1
            Joined
        "#]],
    );
}

#[test]
fn a_taken_name_is_refused_to_another_key() {
    check(
        "
        token t uses=5
        join a t key=1
        join a t key=2
        token t
        ",
        expect![[r#"
            > token t uses=5
            TokenCreated
            > join a t key=1
            Joined
            > join a t key=2
            name_taken: the name `a` belongs to another node
            > token t
            token_taken: there is a join token `t` already
        "#]],
    );
}

#[test]
fn a_new_machine_takes_over_the_name_of_a_lost_one() {
    check(
        "
        node a
        deploy shop web=1@v1
        wait 1
        token t uses=1
        join a t key=7
        pass 11
        join a t key=7
        join a t key=7
        join a t key=8
        token u uses=1
        join a u key=8 secret=9
        restart
        join a t key=7
        show
        node a
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            > token t uses=1
            TokenCreated
            > join a t key=7
            name_taken: the name `a` belongs to another node
            11s a is lost
            11s a1 is lost
            12s a is lost
            > join a t key=7
            Joined
            12s a is lost
            > join a t key=7
            Joined
            > join a t key=8
            token_used: the join token has been used up
            > token u uses=1
            TokenCreated
            > join a u key=8 secret=9
            token_unknown: the join token is not known
            > restart
            > join a t key=7
            Joined
            --show
            a Lost, reserved 0B
            default/shop/web 0 of 1, waiting: all nodes are lost
            12s a gets 2.4: a1@1 | peers a
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn a_node_that_joined_but_never_reported_gets_nothing() {
    check(
        "
        token t
        join a t
        deploy shop web=1@v1
        pass 30
        show
        ",
        expect![[r#"
            > token t
            TokenCreated
            > join a t
            Joined
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --show
            a NeverSeen, reserved 0B
            default/shop/web 0 of 1, waiting: no node has reported yet
        "#]],
    );
}

#[test]
fn what_a_node_says_of_itself_is_taken_over() {
    check(
        "
        node a 64MiB
        deploy shop web=2@v1
        wait 1
        show
        node a 128MiB
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy shop web=2@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.3: a1@1 | peers a
            --show
            a Alive, reserved 64MiB
            default/shop/web 1 of 2, waiting: needs 64MiB; the freest of 1 node has 0B
            1s a gets 1.5: a1@1 a2@1 | peers a
            --show
            a Alive, reserved 128MiB
            default/shop/web 1 of 2
        "#]],
    );
}
