//! From one revision to the next: how many at a time, canaries, what goes wrong, and the way back.

use expect_test::{Expect, expect};

use crate::placed;

pub(crate) fn web(component: &str, rollout: &str) -> String {
    format!(
        "[app]\nname = \"shop\"\n[service.web]\ncomponent = \"{component}\"\nallocations = 4\n\
         [service.web.rollout]\n{rollout}\n"
    )
}

/// Plays a script on two nodes, on which the first revision runs; `two` and `three` are the next ones.
pub(crate) fn rolled(rollout: &str, script: &str, expected: Expect) {
    let manifests = [
        ("one", web("1.wasm", "")),
        ("two", web("2.wasm", rollout)),
        ("more-of-one", web("1.wasm", "").replace("allocations = 4", "allocations = 5")),
        ("more", web("2.wasm", rollout).replace("allocations = 4", "allocations = 5")),
        ("three", web("3.wasm", rollout)),
    ];
    let manifests: Vec<(&str, &str)> = manifests.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let script = format!("node a\nnode b\napply one\nwait 2\n{script}");
    placed(&manifests, &script, expected);
}

#[test]
fn a_rollout_is_over_when_all_were_well_for_a_while() {
    rolled(
        "bake = \"5s\"",
        "
        apply two
        wait 3
        history shop
        wait 7
        history shop
        wait 10
        history shop
        show
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout is well since 5s
            1 was well
            --history shop
            2, its rollout is over
            1 was well
            --history shop
            2, its rollout is over
            1 was well
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 128MiB
            default/shop/web 4 of 4
        "#]],
    );
}

#[test]
fn a_deploy_back_in_the_middle_ends_nothing_that_answers() {
    placed(
        &[
            ("one", &web("1.wasm", "")),
            ("two", &web("2.wasm", "")),
            ("back", &web("1.wasm", "canary = 1\npromote = \"by-hand\"")),
        ],
        "
        node a
        node b
        apply one
        wait 3
        apply two
        apply back
        show
        where
        wait 1
        show
        where
        wait 5
        show
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            > apply back
            Deployed { revision: Revision(3), changed: true }
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 128MiB
            default/shop/web 4 of 4
            --where
            default/shop/web on a:2 b:2
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 128MiB
            default/shop/web 4 of 4
            --where
            default/shop/web on a:2 b:2
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 128MiB
            default/shop/web 4 of 4
            --where
            default/shop/web on a:2 b:2
        "#]],
    );
}

#[test]
fn as_many_at_once_as_may_be_more_and_less() {
    rolled(
        "max_surge = \"50%\"\nmax_unavailable = 1\nbake = \"1s\"",
        "
        apply two
        where
        wait 1
        where
        wait 1
        where
        wait 3
        where
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --where
            default/shop/web on a:4 b:2
            --where
            default/shop/web on a:2 b:2
            --where
            default/shop/web on a:2 b:2
            --where
            default/shop/web on a:2 b:2
            --history shop
            2, its rollout is over
            1 was well
        "#]],
    );
}

#[test]
fn without_room_for_one_more_the_old_one_goes_first() {
    placed(
        &[
            (
                "one",
                "[app]\nname = \"shop\"\n[service.web]\ncomponent = \"1.wasm\"\nlimits.memory = \"60MiB\"",
            ),
            (
                "two",
                "[app]\nname = \"shop\"\n[service.web]\ncomponent = \"2.wasm\"\nlimits.memory = \"60MiB\"\n\
                 rollout = { max_surge = 0, max_unavailable = 1 }",
            ),
        ],
        "
        node a 100MiB
        apply one
        wait 2
        apply two
        show
        wait 3
        show
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --show
            a Alive, reserved 60MiB
            default/shop/web 0 of 1, waiting: needs 60MiB; the freest of 1 node has 40MiB
            --show
            a Alive, reserved 60MiB
            default/shop/web 1 of 1
        "#]],
    );
}

#[test]
fn canaries_that_are_well_for_a_while_promote_themselves() {
    rolled(
        "canary = \"25%\"\nbake = \"5s\"",
        "
        apply two
        wait 3
        where
        history shop
        wait 6
        history shop
        wait 12
        where
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --where
            default/shop/web on a:3 b:2
            --history shop
            2, its rollout is well since 3s with canaries
            1 was well
            --history shop
            2, its rollout is well since 10s
            1 was well
            --where
            default/shop/web on a:2 b:2
            --history shop
            2, its rollout is over
            1 was well
        "#]],
    );
}

#[test]
fn canaries_wait_for_a_person_if_that_is_wanted_and_what_is_lost_meanwhile_is_as_before() {
    rolled(
        "canary = 1\npromote = \"by-hand\"\nbake = \"1s\"",
        "
        apply two
        wait 700
        history shop
        down b
        wait 15
        show
        restart
        wait 2
        show
        promote shop
        wait 20
        show
        history shop
        promote shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout is well since 3s with canaries
            1 was well
            712s b is lost
            712s a2 is lost
            712s a4 is lost
            713s b is lost
            --show
            a Alive, reserved 320MiB
            b Lost, reserved 0B
            default/shop/web 5 of 4, 1 current
            > restart
            --show
            a Alive, reserved 320MiB
            b Lost, reserved 0B
            default/shop/web 5 of 4, 1 current
            > promote shop
            Promoted
            --show
            a Alive, reserved 256MiB
            b Lost, reserved 0B
            default/shop/web 4 of 4
            --history shop
            2, its rollout is over
            1 was well
            > promote shop
            nothing_to_promote: `default/shop` has no canaries that wait to be promoted
        "#]],
    );
}

#[test]
fn what_is_started_again_too_often_is_taken_back() {
    rolled(
        "max_restarts = 2",
        "
        apply two
        wait 2
        restarts a5 2
        wait 2
        history shop
        restarts a5 3
        state a5 backing-off it trapped
        wait 2
        history shop
        wait 20
        history shop
        show
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout is well since 5s
            1 was well
            --history shop
            3 restores 1, its rollout goes on since 7s
            2 failed: `web`: a5 on a was started again: limit `max_restarts` is 2, observed 3: it trapped
            1 was well
            --history shop
            3 restores 1, its rollout is over
            2 failed: `web`: a5 on a was started again: limit `max_restarts` is 2, observed 3: it trapped
            1 was well
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 128MiB
            default/shop/web 4 of 4
        "#]],
    );
}

#[test]
fn a_revision_that_is_unwell_is_taken_back_and_its_canary_alone_was_hurt() {
    rolled(
        "canary = 1",
        "
        state a5 unhealthy GET /health answered 500
        apply two
        wait 4
        where
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --where
            default/shop/web on a:2 b:2
            --history shop
            3 restores 1, its rollout is well since 4s
            2 failed: `web`: a5 on a fails its health check: GET /health answered 500
            1 was well
        "#]],
    );
}

#[test]
fn a_revision_that_no_node_can_run_is_taken_back_when_its_time_is_over() {
    rolled(
        "deadline = \"30s\"",
        "
        state a5 starting
        apply two
        wait 29
        history shop
        wait 3
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout goes on since 2s
            1 was well
            --history shop
            3 restores 1, its rollout is well since 32s
            2 failed: not well within 30s: 0 of 4 allocations of `web` serve it; a5 on a is starting
            1 was well
        "#]],
    );
}

#[test]
fn without_rollback_it_stops_where_it_is() {
    rolled(
        "rollback = false",
        "
        state a6 refused it imports what this node does not have
        apply two
        wait 3
        history shop
        where
        wait 60
        where
        apply three
        wait 30
        where
        history shop
        rollback shop
        wait 30
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout has failed: `web`: a6 on b is refused: it imports what this node does not have
            1 was well
            --where
            default/shop/web on a:2 b:3
            default/shop/web 4 of 4: a6 on b: refused: it imports what this node does not have
            --where
            default/shop/web on a:2 b:3
            default/shop/web 4 of 4: a6 on b: refused: it imports what this node does not have
            > apply three
            Deployed { revision: Revision(3), changed: true }
            --where
            default/shop/web on a:2 b:2
            --history shop
            3, its rollout is over
            2 failed: `web`: a6 on b is refused: it imports what this node does not have
            1 was well
            > rollback shop
            Deployed { revision: Revision(4), changed: true }
            --history shop
            4 restores 1, its rollout is over
            3 was well
            2 failed: `web`: a6 on b is refused: it imports what this node does not have
            1 was well
        "#]],
    );
}

#[test]
fn requests_that_fail_or_burn_more_than_before_speak_against_a_revision() {
    let script = "
        served a1 1000 20 1000000
        served a2 1000 20 1000000
        wait 2
        apply two
        wait 2
        served a5 99 99 1000000
        wait 2
        history shop
        served a5 200 8 200000
        wait 2
        history shop
        served a5 200 9 200000
        wait 2
        history shop
        ";
    rolled(
        "canary = 1\nbake = \"1m\"",
        script,
        expect![[r#"
        > apply one
        Deployed { revision: Revision(1), changed: true }
        > apply two
        Deployed { revision: Revision(2), changed: true }
        --history shop
        2, its rollout is well since 5s with canaries
        1 was well
        --history shop
        2, its rollout is well since 5s with canaries
        1 was well
        --history shop
        3 restores 1, its rollout is well since 12s
        2 failed: `web`: 4.50% of 200 requests failed, before 2.00%: limit `max_errors` is 200% of that
        1 was well
    "#]],
    );
    rolled(
        "canary = 1\nbake = \"1m\"\nmax_fuel = \"150%\"",
        "
        served a1 1000 0 1000000
        wait 2
        apply two
        wait 2
        served a5 200 0 300000
        wait 2
        history shop
        served a5 200 0 310000
        wait 2
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout is well since 5s with canaries
            1 was well
            --history shop
            3 restores 1, its rollout is well since 10s
            2 failed: `web`: a request burns 1550 fuel, before 1000: limit `max_fuel` is 150% of that
            1 was well
        "#]],
    );
}

#[test]
fn what_was_lost_before_it_ever_answered_takes_the_place_of_nothing_that_does() {
    rolled(
        "",
        "
        state a5 starting
        apply two
        where
        down a
        wait 11
        show
        wait 3
        show
        wait 20
        show
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --where
            default/shop/web on a:3 b:2
            12s a is lost
            12s a1 is lost
            12s a3 is lost
            12s a5 is lost
            13s a is lost
            --show
            a Lost, reserved 0B
            b Alive, reserved 384MiB
            default/shop/web 4 of 4, 3 current
            --show
            a Lost, reserved 0B
            b Alive, reserved 256MiB
            default/shop/web 4 of 4
            --show
            a Lost, reserved 0B
            b Alive, reserved 256MiB
            default/shop/web 4 of 4
        "#]],
    );
}

#[test]
fn a_deploy_of_more_allocations_promotes_no_canaries_and_does_not_end_the_watch() {
    rolled(
        "canary = 1\npromote = \"by-hand\"\nbake = \"1s\"",
        "
        apply two
        wait 4
        apply more
        wait 10
        show
        history shop
        promote shop
        wait 1
        state a8 unhealthy no
        wait 20
        show
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            > apply more
            Deployed { revision: Revision(3), changed: true }
            --show
            a Alive, reserved 192MiB
            b Alive, reserved 192MiB
            default/shop/web 6 of 5, 1 current
            --history shop
            3, its rollout is well since 6s with canaries
            2 was replaced before it was known to be well
            1 was well
            > promote shop
            Promoted
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 128MiB
            default/shop/web 4 of 4
            --history shop
            4 restores 1, its rollout is over
            3 failed: `web`: a8 on a fails its health check: no
            2 was replaced before it was known to be well
            1 was well
        "#]],
    );
}

#[test]
fn nodes_keep_the_code_of_the_revision_before_until_the_new_one_has_baked() {
    rolled(
        "bake = \"5s\"",
        "
        show-kept
        apply two
        show-kept
        wait 4
        where
        show-kept
        wait 20
        show-kept
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            --show-kept
            a keeps 0
            b keeps 0
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --show-kept
            a keeps 1
            b keeps 1
            --where
            default/shop/web on a:2 b:2
            --show-kept
            a keeps 1
            b keeps 1
            --show-kept
            a keeps 0
            b keeps 0
            --history shop
            2, its rollout is over
            1 was well
        "#]],
    );
}
