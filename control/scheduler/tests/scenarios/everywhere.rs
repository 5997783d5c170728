//! Services that run everywhere: on each node that they may run on, and from node to node when they change.

use expect_test::expect;

use crate::placed;

#[test]
fn what_runs_everywhere_goes_on_over_a_restart_and_where_its_node_is_lost_and_back() {
    let manifest = r#"
        [app]
        name = "shop"
        [service.agent]
        component = "one.wasm"
        everywhere = true
    "#;
    placed(
        &[("one", manifest)],
        "
        node a 1GiB
        node b 1GiB
        apply one
        wait 2
        restart
        wait 3
        where
        down a
        wait 30
        where
        up a
        wait 3
        where
        down a
        down b
        wait 60
        show
        up a
        up b
        wait 3
        show
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > restart
            --where
            default/shop/agent on a:1 b:1
            15s a is lost
            15s a1 is lost
            16s a is lost
            --where
            default/shop/agent on b:1
            --where
            default/shop/agent on a:1 b:1
            48s a is lost
            48s a1 is lost
            48s b is lost
            48s a2 is lost
            49s a is lost
            59s b is lost
            --show
            a Lost, reserved 0B
            b Lost, reserved 0B
            default/shop/agent 0 of 0
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            default/shop/agent 2 of 2
        "#]],
    );
}

#[test]
fn a_service_runs_everywhere_and_on_what_joins_later() {
    let everywhere = |component: &str| {
        format!(
            r#"
            [app]
            name = "shop"
            [service.agent]
            component = "{component}"
            everywhere = true
            [service.agent.placement]
            require = ["zone"]
            "#
        )
    };
    placed(
        &[("one", &everywhere("one.wasm")), ("two", &everywhere("two.wasm"))],
        "
        node a 1GiB zone=a
        node b 1GiB zone=b
        node c 1GiB
        node full 32MiB zone=c
        apply one
        wait 1
        where
        node d 1GiB zone=b
        wait 1
        where
        apply two
        wait 1
        where
        wait 10
        where
        down a
        wait 12
        where
        stop shop
        wait 2
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/agent on a:1 b:1
            default/shop/agent 2 of 3: no room for 64MiB and a fuel rate of 50M/s on full
            --where
            default/shop/agent on a:1 b:1 d:1
            default/shop/agent 3 of 4: no room for 64MiB and a fuel rate of 50M/s on full
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --where
            default/shop/agent on a:1 b:1 d:1
            default/shop/agent 3 of 4: no room for 64MiB and a fuel rate of 50M/s on full
            --where
            default/shop/agent on a:1 b:1 d:1
            default/shop/agent 3 of 4: no room for 64MiB and a fuel rate of 50M/s on full
            23s a is lost
            23s a4 is lost
            24s a is lost
            --where
            default/shop/agent on b:1 d:1
            default/shop/agent 2 of 3: no room for 64MiB and a fuel rate of 50M/s on full
            > stop shop
            Stopped { revision: Revision(3), changed: true }
            --where
        "#]],
    );
}

#[test]
fn a_full_node_does_not_keep_a_service_that_runs_everywhere_from_being_replaced_on_others() {
    let everywhere = |component: &str| {
        format!("[app]\nname = \"shop\"\n[service.agent]\ncomponent = \"{component}\"\neverywhere = true\n")
    };
    placed(
        &[("one", &everywhere("one.wasm")), ("two", &everywhere("two.wasm"))],
        "
        node a 64MiB
        node b 1GiB
        node c 1GiB
        apply one
        wait 1
        cordon c
        apply two
        wait 10
        show
        where
        drain c 60
        wait 3
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > cordon c
            Cordoned
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            c Alive, reserved 64MiB
            default/shop/agent 3 of 3, 1 current, waiting: no room for 64MiB and a fuel rate of 50M/s on a
            --where
            default/shop/agent on a:1 b:1 c:1
            default/shop/agent 3 of 3: no room for 64MiB and a fuel rate of 50M/s on a
            > drain c 60
            Cordoned
            --where
            default/shop/agent on a:1 b:1
            default/shop/agent 2 of 2: no room for 64MiB and a fuel rate of 50M/s on a
        "#]],
    );
}

/// Returns a service that runs everywhere.
fn agent(component: &str, fields: &str) -> String {
    format!(
        "[app]\nname = \"shop\"\n[service.agent]\ncomponent = \"{component}\"\neverywhere = true\n\
         [service.agent.rollout]\nbake = \"5s\"\n{fields}\n"
    )
}

#[test]
fn nodes_without_room_for_two_let_the_earlier_one_go_first() {
    let fields = "max_surge = 0\nmax_unavailable = \"50%\"";
    placed(
        &[("one", &agent("one.wasm", fields)), ("two", &agent("two.wasm", fields))],
        "
        node a 64MiB
        node b 64MiB
        node c 64MiB
        node d 64MiB
        apply one
        wait 30
        apply two
        show
        wait 10
        show
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            c Alive, reserved 64MiB
            d Alive, reserved 64MiB
            default/shop/agent 2 of 4, 0 current, waiting: no room for 64MiB and a fuel rate of 50M/s on c, d, a and others
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            c Alive, reserved 64MiB
            d Alive, reserved 64MiB
            default/shop/agent 4 of 4
            --history shop
            2, its rollout is over
            1 was well
        "#]],
    );
}

#[test]
fn many_nodes_are_changed_at_a_time_if_that_is_wanted() {
    let fields = "max_surge = \"50%\"";
    placed(
        &[("one", &agent("one.wasm", fields)), ("two", &agent("two.wasm", fields))],
        "
        node a 1GiB
        node b 1GiB
        node c 1GiB
        node d 1GiB
        apply one
        wait 30
        apply two
        show
        wait 2
        show
        wait 10
        show
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 128MiB
            c Alive, reserved 64MiB
            d Alive, reserved 64MiB
            default/shop/agent 4 of 4, 0 current
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            c Alive, reserved 64MiB
            d Alive, reserved 64MiB
            default/shop/agent 4 of 4
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            c Alive, reserved 64MiB
            d Alive, reserved 64MiB
            default/shop/agent 4 of 4
        "#]],
    );
}

/// Found by the simulation with seed 139592.
#[test]
fn what_has_failed_goes_to_no_other_node() {
    let fields = "rollback = false";
    placed(
        &[("one", &agent("one.wasm", fields)), ("two", &agent("two.wasm", fields))],
        "
        node a 1GiB
        node b 1GiB
        node c 1GiB
        apply one
        wait 30
        apply two
        state a4 refused it imports what this node does not have
        wait 5
        history shop
        state a4 running
        wait 20
        show
        node d 1GiB
        wait 5
        show
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout has failed: `agent`: a4 on a is refused: it imports what this node does not have
            1 was well
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            c Alive, reserved 64MiB
            default/shop/agent 3 of 3, 1 current
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            c Alive, reserved 64MiB
            d Alive, reserved 64MiB
            default/shop/agent 4 of 4, 1 current
            --where
            default/shop/agent on a:1 b:1 c:1 d:1
        "#]],
    );
}

/// Found by the simulation with seed 176647.
#[test]
fn a_rollout_is_not_well_as_long_as_nothing_has_shown_that() {
    let fields = "deadline = \"60s\"";
    placed(
        &[("one", &agent("one.wasm", fields)), ("two", &agent("two.wasm", fields))],
        "
        node a 1GiB
        apply one
        wait 30
        down a
        wait 30
        apply two
        wait 30
        history shop
        state a2 starting
        up a
        wait 10
        where
        wait 50
        history shop
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            40s a is lost
            40s a1 is lost
            41s a is lost
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout goes on since 60s
            1 was well
            --where
            default/shop/agent on a:2
            --history shop
            3 restores 1, its rollout is over
            2 failed: not well within 1m: 0 of 1 allocations of `agent` serve it; a2 on a is starting
            1 was well
            --where
            default/shop/agent on a:1
        "#]],
    );
}

/// Found by the simulation with seed 308: an allocation of the singleton that it was before was started on each node.
#[test]
fn what_ran_once_is_not_started_everywhere_when_running_everywhere_has_failed() {
    let once = "[app]\nname = \"shop\"\n[service.agent]\ncomponent = \"one.wasm\"\n\
        on_partition = \"singleton\"\n";
    placed(
        &[("one", once), ("two", &agent("two.wasm", "rollback = false"))],
        "
        node a 1GiB
        node b 1GiB
        apply one
        wait 30
        apply two
        state a2 refused it imports what this node does not have
        state a3 refused it imports what this node does not have
        wait 5
        history shop
        node c 1GiB
        wait 5
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout has failed: `agent`: a2 on b is refused: it imports what this node does not have
            1 was well
            --where
            default/shop/agent on a:2 b:1
            default/shop/agent 1 of 3: the rollout of its newest revision has failed, and of the one before there is nothing that could be started instead: deploy another, or roll back
        "#]],
    );
}

/// Found by the simulation with seed 15565: the labels of the newest revision told where the one before was started.
#[test]
fn what_ran_on_some_nodes_is_not_started_on_others_when_running_there_has_failed() {
    let in_zone = |component: &str, zone: &str| {
        let placement = format!("[service.agent.placement]\nrequire = [\"zone in ({zone})\"]");
        agent(component, &format!("rollback = false\n{placement}"))
    };
    placed(
        &[("one", &in_zone("one.wasm", "a")), ("two", &in_zone("two.wasm", "a, b"))],
        "
        node a 1GiB zone=a
        node b 1GiB zone=b
        apply one
        wait 30
        apply two
        state a2 refused it imports what this node does not have
        wait 5
        history shop
        node a2 1GiB zone=a
        node b2 1GiB zone=b
        wait 5
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout has failed: `agent`: a2 on b is refused: it imports what this node does not have
            1 was well
            --where
            default/shop/agent on a:1 a2:1 b:1
            default/shop/agent 2 of 4: a2 on b: refused: it imports what this node does not have
        "#]],
    );
}
