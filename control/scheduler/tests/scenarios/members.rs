//! Who is a member: machines that join, wait for approval, are revoked, and are taken off the list.

use expect_test::expect;

use crate::placed;

#[test]
fn a_node_that_is_revoked_is_cut_off_and_what_it_ran_is_replaced_at_once() {
    placed(
        &[],
        "
        node a 1GiB
        node b 1GiB
        node c 1GiB
        node d 1GiB
        deploy shop web=4@v1
        wait 3
        where
        down a
        down b
        wait 20
        revoke c
        revoke c
        wait 2
        where
        up a
        up b
        up c
        wait 3
        where
        token t expires=9000 uses=2
        join c t key=2
        join c t key=9
        up c
        wait 3
        show
        ",
        expect![[r#"
            > deploy shop web=4@v1
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:1 b:1 c:1 d:1
            13s a is lost
            13s a1 is lost
            13s b is lost
            13s a2 is lost
            14s a is lost
            > revoke c
            Revoked
            23s c is lost
            c is expelled
            > revoke c
            Revoked
            24s b is lost
            --where
            default/shop/web on d:4
            --where
            default/shop/web on d:4
            > token t expires=9000 uses=2
            TokenCreated
            > join c t key=2
            node_revoked: the key of node `c` was revoked; a machine joins with a fresh state folder
            > join c t key=9
            Joined
            28s c is lost
            --show
            a Alive, reserved 0B
            b Alive, reserved 0B
            c Alive, reserved 0B
            d Alive, reserved 256MiB
            default/shop/web 4 of 4
        "#]],
    );
}

#[test]
fn what_a_lost_node_ran_is_not_queued_twice_when_it_is_revoked() {
    placed(
        &[],
        "
        node a 1GiB
        node b 1GiB
        deploy calc sum=job1@v1
        run calc/sum 4
        wait 1
        show
        down a
        wait 40
        show
        revoke a
        wait 2
        show
        ",
        expect![[r#"
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 4
            RunStarted(RunId(1))
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 0B
            r1 Running: 0 good, 0 bad of 4; leased 1, ready 3, backing off 0; 0 fuel
            11s a is lost
            11s a1 is lost
            12s a is lost
            --show
            a Lost, reserved 0B
            b Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 4; leased 1, ready 3, backing off 0; 0 fuel
            > revoke a
            Revoked
            41s a is lost
            a is expelled
            --show
            a Lost, reserved 0B
            b Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 4; leased 1, ready 3, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn a_zone_that_is_held_is_looked_at_again_when_its_nodes_are_revoked() {
    placed(
        &[],
        "
        node a 1GiB
        node b 1GiB
        node c 1GiB
        node d 1GiB
        deploy shop web=4@v1
        wait 3
        down a
        down b
        down c
        wait 60
        where
        revoke a
        revoke b
        wait 30
        where
        ",
        expect![[r#"
            > deploy shop web=4@v1
            Deployed { revision: Revision(1), changed: true }
            13s a is lost
            13s a1 is lost
            13s b is lost
            13s a2 is lost
            13s c is lost
            13s a3 is lost
            --where
            default/shop/web on d:1
            default/shop/web 1 of 4: 3 allocations are on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
            > revoke a
            Revoked
            63s a is lost
            a is expelled
            > revoke b
            Revoked
            63s b is lost
            b is expelled
            64s c is lost
            --where
            default/shop/web on d:4
        "#]],
    );
}

#[test]
fn a_machine_that_needs_approval_is_a_node_when_an_operator_has_said_so() {
    placed(
        &[],
        "
        node a 1GiB
        deploy shop web=2@v1
        token t expires=60 uses=1 approval=1
        join b t key=7
        join b t key=7
        join b t key=8
        join c t key=9
        approve c
        wait 3
        show
        wait 100
        join b t key=7
        approve b
        join b t key=7
        approve b
        show
        ",
        expect![[r#"
            > deploy shop web=2@v1
            Deployed { revision: Revision(1), changed: true }
            > token t expires=60 uses=1 approval=1
            TokenCreated
            > join b t key=7
            Pending
            > join b t key=7
            Pending
            > join b t key=8
            token_used: the join token has been used up
            > join c t key=9
            token_used: the join token has been used up
            > approve c
            not_pending: no machine waits to become node `c`
            --show
            a Alive, reserved 128MiB
            default/shop/web 2 of 2
            > join b t key=7
            Pending
            > approve b
            Approved
            b is expelled
            > join b t key=7
            Joined
            > approve b
            not_pending: no machine waits to become node `b`
            --show
            a Alive, reserved 128MiB
            b NeverSeen, reserved 0B
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn a_machine_that_waits_for_the_name_of_a_lost_node_changes_nothing_until_it_is_approved() {
    placed(
        &[],
        "
        node a 1GiB
        node b 1GiB
        deploy shop web=2@v1
        wait 3
        down b
        wait 60
        token t expires=9000 uses=1 approval=1
        join b t key=7
        show
        up b
        wait 5
        show
        approve b
        remove b
        approve b
        join b t key=7
        show
        ",
        expect![[r#"
            > deploy shop web=2@v1
            Deployed { revision: Revision(1), changed: true }
            13s b is lost
            13s a2 is lost
            14s b is lost
            > token t expires=9000 uses=1 approval=1
            TokenCreated
            > join b t key=7
            Pending
            --show
            a Alive, reserved 128MiB
            b Lost, reserved 0B
            default/shop/web 2 of 2
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 0B
            default/shop/web 2 of 2
            > approve b
            name_taken: the name `b` belongs to another node
            > remove b
            Removed
            > approve b
            not_pending: no machine waits to become node `b`
            > join b t key=7
            token_used: the join token has been used up
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 0B
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn a_node_is_taken_off_the_list_only_when_it_is_gone_and_its_key_is_never_good_again() {
    placed(
        &[],
        "
        node a 1GiB
        node b 1GiB
        deploy shop web=2@v1
        wait 3
        remove b
        down b
        wait 12
        remove b
        remove b
        wait 2
        show
        token t expires=9000 uses=2
        join b t key=1
        join b t key=9
        show
        ",
        expect![[r#"
            > deploy shop web=2@v1
            Deployed { revision: Revision(1), changed: true }
            > remove b
            node_in_use: node `b` is in use: it reported lately, and is not revoked
            13s b is lost
            13s a2 is lost
            14s b is lost
            > remove b
            Removed
            15s b is lost
            b is expelled
            > remove b
            unknown_node: there is no node `b`
            --show
            a Alive, reserved 128MiB
            default/shop/web 2 of 2
            > token t expires=9000 uses=2
            TokenCreated
            > join b t key=1
            node_revoked: the key of node `b` was revoked; a machine joins with a fresh state folder
            > join b t key=9
            Joined
            17s b is lost
            --show
            a Alive, reserved 128MiB
            b Lost, reserved 0B
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn a_machine_that_was_sent_away_does_not_wait_again_by_the_same_token() {
    placed(
        &[],
        "
        node a 1GiB
        token t expires=60 uses=3 approval=1
        join b t key=7
        remove b
        join b t key=7
        join b t key=8
        approve b
        show
        ",
        expect![[r#"
            > token t expires=60 uses=3 approval=1
            TokenCreated
            > join b t key=7
            Pending
            > remove b
            Removed
            > join b t key=7
            token_used: the join token has been used up
            > join b t key=8
            Pending
            > approve b
            Approved
            b is expelled
            --show
            a Alive, reserved 0B
            b NeverSeen, reserved 0B
        "#]],
    );
}
