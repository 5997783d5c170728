//! The items of a job: each run once, reported until it is recorded, tried again when its worker dies.

use super::*;

#[test]
fn a_restarted_agent_runs_its_items_again() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..2*2
        fetched c1
        started a1
        ended a1 0
        restart 1 1 a1:shop/sum:c1:0..2*2
        fetched c1
        started a1
        recorded 1 a1 0
        ended a1 0
        ended a1 1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..2*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            ended a1 0
            restart 1 1 a1:shop/sum:c1:0..2*2
              keep secrets []
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            recorded 1 a1 0
            ended a1 0
            ended a1 1
            report
              stored 1 1
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn items_run_as_many_at_a_time_as_allowed_and_each_once() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:3..6*2
        fetched c1
        started a1
        ended a1 4
        ended a1 4
        ended a1 3
        report
        ended a1 5
        report
        recorded 1 a1 3 4
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:3..6*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 3 of r7 in a1 in shop
              run item 4 of r7 in a1 in shop
            ended a1 4
              run item 5 of r7 in a1 in shop
            ended a1 4
            ended a1 3
            report
              stored 1 1
              a1 running
              item 4 of r7 in a1 on node, attempt 2: Completed
              item 3 of r7 in a1 on node, attempt 2: Completed
            ended a1 5
            report
              stored 1 1
              a1 finished
              item 4 of r7 in a1 on node, attempt 2: Completed
              item 3 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 3 4
            report
              stored 1 1
              a1 finished
              item 5 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn item_reports_stay_until_they_are_recorded() {
    check(
        "
        assign 2 1 a1:shop/sum:c1:0..2*2
        fetched c1
        started a1
        ended a1 1
        ended a1 0
        recorded 1 a1 0 1
        report
        recorded 2 a1 1 5
        recorded 3 a1 0
        report
        ",
        expect![[r#"
            assign 2 1 a1:shop/sum:c1:0..2*2
              save 2 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            ended a1 1
            ended a1 0
            recorded 1 a1 0 1
            report
              stored 2 1
              a1 finished
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 0 of r7 in a1 on node, attempt 2: Completed
            recorded 2 a1 1 5
            recorded 3 a1 0
            report
              stored 2 1
              a1 finished
        "#]],
    );
}

#[test]
fn the_reports_of_a_removed_allocation_go_with_it() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..2*1 a2:shop/sum:c1:2..3*1
        fetched c1
        started a1
        started a2
        ended a1 0
        ended a2 2
        assign 1 2 a2:shop/sum:c1:2..3*1
        ended a1 1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..2*1 a2:shop/sum:c1:2..3*1
              save 1 1
              fetch c1
            fetched c1
              start a1
              start a2
            started a1
              run item 0 of r7 in a1 in shop
            started a2
              run item 2 of r7 in a2 in shop
            ended a1 0
              run item 1 of r7 in a1 in shop
            ended a2 2
            assign 1 2 a2:shop/sum:c1:2..3*1
              save 1 2
              stop a1 in shop
            ended a1 1
            report
              stored 1 2
              a2 finished
              item 2 of r7 in a2 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn an_item_without_input_is_tried_again_while_others_go_on() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..3*1
        fetched c1
        started a1
        not-run a1 0
        wait 1000
        ended a1 1
        not-run a1 0
        ended a1 2
        report
        deadline
        wait 2000
        ended a1 0
        report
        recorded 1 a1 1 2
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..3*1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            not-run a1 0
              run item 1 of r7 in a1 in shop
            wait 1000
            ended a1 1
              run item 0 of r7 in a1 in shop
            not-run a1 0
              run item 2 of r7 in a1 in shop
            ended a1 2
            report
              stored 1 1
              a1 running
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 2 of r7 in a1 on node, attempt 2: Completed
            deadline
              2s
            wait 2000
              keep items [1 2] on disk
              run item 0 of r7 in a1 in shop
            ended a1 0
            report
              stored 1 1
              a1 finished
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 2 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 1 2
              keep only items [] on disk
            report
              stored 1 1
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn after_a_death_each_item_that_was_running_is_tried_again_alone() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..4*2
        fetched c1
        started a1
        died shop
        started a1
        ended a1 0
        ended a1 1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..4*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            died shop
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            ended a1 0
              run item 1 of r7 in a1 in shop
            ended a1 1
              run item 2 of r7 in a1 in shop
              run item 3 of r7 in a1 in shop
            report
              stored 1 1
              a1 running, 1 restarts
              item 0 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn an_item_that_kills_its_worker_three_times_is_given_up() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..3*2
        fetched c1
        started a1
        died shop
        started a1
        died shop
        wait 1000
        started a1
        died shop
        report
        wait 2000
        started a1
        ended a1 1
        ended a1 2
        report
        recorded 1 a1 0
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..3*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            died shop
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            died shop
            wait 1000
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            died shop
            report
              stored 1 1
              a1 backing-off: its worker process died, 3 restarts
              item 0 of r7 in a1 on node, attempt 2: Trapped: the worker process died while running it
            wait 2000
              keep items [0] on disk
              start a1
            started a1
              run item 1 of r7 in a1 in shop
            ended a1 1
              run item 2 of r7 in a1 in shop
            ended a1 2
            report
              stored 1 1
              a1 finished, 3 restarts
              item 0 of r7 in a1 on node, attempt 2: Trapped: the worker process died while running it
            recorded 1 a1 0
              keep only items [] on disk
            report
              stored 1 1
              a1 finished, 3 restarts
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 2 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn a_finished_allocation_is_not_started_again_when_its_worker_dies() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..1*1
        fetched c1
        started a1
        ended a1 0
        died shop
        report
        deadline
        assign 1 2
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..1*1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            ended a1 0
            died shop
            report
              stored 1 1
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Completed
            deadline
              2s
            assign 1 2
              save 1 2
        "#]],
    );
}

#[test]
fn the_combining_instance_has_the_number_after_the_last_item() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:3..4*1+
        fetched c1
        started a1
        ended a1 3
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:3..4*1+
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 3 of r7 in a1 in shop, combining
            ended a1 3
            report
              stored 1 1
              a1 finished
              item 3 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn a_heartbeat_carries_a_bounded_number_of_item_reports_oldest_first() {
    let config = Config { report_items: 2, report_bytes: 100, ..Config::default() };
    check_with(
        config,
        "
        assign 1 1 a1:shop/sum:c1:0..4*4
        fetched c1
        started a1
        ended a1 2
        ended a1 1
        ended a1 0 500
        ended a1 3
        report
        recorded 1 a1 2 1
        report
        recorded 1 a1 0
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..4*4
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
              run item 2 of r7 in a1 in shop
              run item 3 of r7 in a1 in shop
            ended a1 2
            ended a1 1
            ended a1 0 500
            ended a1 3
            report
              stored 1 1
              a1 finished
              item 2 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 2 1
            report
              stored 1 1
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 0
            report
              stored 1 1
              a1 finished
              item 3 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn no_further_item_is_run_while_too_many_wait_to_be_recorded() {
    let config = Config { outbox_items: 2, ..Config::default() };
    check_with(
        config,
        "
        assign 1 1 a1:shop/sum:c1:0..4*1
        fetched c1
        started a1
        ended a1 0
        ended a1 1
        wait 1000
        recorded 1 a1 0
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..4*1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            ended a1 0
              run item 1 of r7 in a1 in shop
            ended a1 1
            wait 1000
            recorded 1 a1 0
              run item 2 of r7 in a1 in shop
        "#]],
    );
}

#[test]
fn items_without_inputs_wait_in_the_worker_as_far_as_they_will_run_soon() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..5000*2-
        fetched c1
        started a1
        ended a1 0
        ended a1 1
        ended a1 2 65536
        ended a1 3 65536
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..5000*2-
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run items 0..2 of r7 in a1 in shop
            ended a1 0
              run items 2..203 of r7 in a1 in shop
            ended a1 1
              run item 203 of r7 in a1 in shop
            ended a1 2 65536
              run item 204 of r7 in a1 in shop
            ended a1 3 65536
              run item 205 of r7 in a1 in shop
        "#]],
    );
}

#[test]
fn items_that_waited_when_the_worker_died_are_run_alone_and_then_together_again() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..6*1-
        fetched c1
        started a1
        ended a1 0
        died shop
        started a1
        ended a1 1
        ended a1 2
        ended a1 3
        ended a1 4
        ended a1 5
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..6*1-
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            ended a1 0
              run items 1..6 of r7 in a1 in shop
            died shop
              start a1
            started a1
              run item 1 of r7 in a1 in shop
            ended a1 1
              run item 2 of r7 in a1 in shop
            ended a1 2
              run item 3 of r7 in a1 in shop
            ended a1 3
              run item 4 of r7 in a1 in shop
            ended a1 4
              run item 5 of r7 in a1 in shop
            ended a1 5
            report
              stored 1 1
              a1 finished, 1 restarts
              item 0 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 2 of r7 in a1 on node, attempt 2: Completed
              item 3 of r7 in a1 on node, attempt 2: Completed
              item 4 of r7 in a1 on node, attempt 2: Completed
              item 5 of r7 in a1 on node, attempt 2: Completed
        "#]],
    );
}

#[test]
fn what_is_told_stays_the_same_until_it_is_recorded() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..3*3
        fetched c1
        started a1
        ended a1 0
        report
        ended a1 1
        ended a1 2
        report
        recorded 1 a1 0
        report
        recorded 1 a1 1
        report
        recorded 1 a1 2
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..3*3
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
              run item 2 of r7 in a1 in shop
            ended a1 0
            report
              stored 1 1
              a1 running
              item 0 of r7 in a1 on node, attempt 2: Completed
            ended a1 1
            ended a1 2
            report
              stored 1 1
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 0
            report
              stored 1 1
              a1 finished
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 2 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 1
            report
              stored 1 1
              a1 finished
              item 2 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 2
            report
              stored 1 1
              a1 finished
        "#]],
    );
}

#[test]
fn an_item_that_may_be_started_once_is_not_run_again_when_its_worker_dies() {
    check(
        "
        assign 1 1 a1:shop/pay:c1:0..5*2!
        fetched c1
        started a1
        not-run a1 1
        died shop
        report
        started a1
        wait 2000
        ended a1 1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/pay:c1:0..5*2!
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            not-run a1 1
              run item 2 of r7 in a1 in shop
            died shop
              start a1
            report
              stored 1 1
              a1 starting, 1 restarts
              item 0 of r7 in a1 on node, attempt 2: Unknown: the worker process died while running it
              item 2 of r7 in a1 on node, attempt 2: Unknown: the worker process died while running it
            started a1
              run item 3 of r7 in a1 in shop
              run item 4 of r7 in a1 in shop
            wait 2000
              keep items [0 2] on disk
            ended a1 1
            report
              stored 1 1
              a1 running, 1 restarts
              item 0 of r7 in a1 on node, attempt 2: Unknown: the worker process died while running it
              item 2 of r7 in a1 on node, attempt 2: Unknown: the worker process died while running it
        "#]],
    );
}

#[test]
fn a_restarted_agent_knows_nothing_of_items_that_may_be_started_once() {
    check(
        "
        restart 4 7 a1:shop/pay:c1:3..5*2! a2:shop/sum:c1:0..1*1
        fetched c1
        report
        assign 4 8 a1:shop/pay:c1:3..5*2! a2:shop/sum:c1:0..1*1
        recorded 4 a1 3 4
        report
        assign 4 9 a2:shop/sum:c1:0..1*1 a3:shop/pay:c1:5..6*2!
        ",
        expect![[r#"
            restart 4 7 a1:shop/pay:c1:3..5*2! a2:shop/sum:c1:0..1*1
              keep secrets []
              fetch c1
            fetched c1
              start a2
            report
              stored 4 7
              a1 finished
              a2 starting
              item 3 of r7 in a1 on node, attempt 2: Unknown: the agent was started again while it ran
              item 4 of r7 in a1 on node, attempt 2: Unknown: the agent was started again while it ran
            assign 4 8 a1:shop/pay:c1:3..5*2! a2:shop/sum:c1:0..1*1
              save 4 8
            recorded 4 a1 3 4
            report
              stored 4 8
              a1 finished
              a2 starting
            assign 4 9 a2:shop/sum:c1:0..1*1 a3:shop/pay:c1:5..6*2!
              save 4 9
              start a3
        "#]],
    );
}
