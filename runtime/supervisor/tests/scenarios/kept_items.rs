//! Reports of items that nobody has recorded: when they are kept on disk, and what a restarted agent makes of them.

use super::*;

#[test]
fn items_that_are_not_recorded_for_long_are_kept_and_not_run_again_after_a_restart() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..4*2
        fetched c1
        started a1
        ended a1 0
        wait 1500
        ended a1 1
        wait 1000
        recorded 1 a1 0
        ended a1 2
        restart 1 1 a1:shop/sum:c1:0..4*2
        fetched c1
        started a1
        ended a1 3
        report
        recorded 1 a1 1
        wait 5000
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
            ended a1 0
              run item 2 of r7 in a1 in shop
            wait 1500
            ended a1 1
              run item 3 of r7 in a1 in shop
            wait 1000
              keep items [0 1] on disk
            recorded 1 a1 0
            ended a1 2
            restart 1 1 a1:shop/sum:c1:0..4*2
              keep secrets []
              fetch c1
            fetched c1
              start a1
            started a1
              run item 2 of r7 in a1 in shop
              run item 3 of r7 in a1 in shop
            ended a1 3
            report
              stored 1 1
              a1 running
              item 0 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 3 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 1
            wait 5000
              keep items [3] on disk
        "#]],
    );
}

#[test]
fn an_item_that_may_be_started_once_and_whose_end_was_kept_is_not_unknown_after_a_restart() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..3*2!
        fetched c1
        started a1
        ended a1 1
        wait 2000
        restart 1 1 a1:shop/sum:c1:0..3*2!
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..3*2!
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            ended a1 1
              run item 2 of r7 in a1 in shop
            wait 2000
              keep items [1] on disk
            restart 1 1 a1:shop/sum:c1:0..3*2!
              keep secrets []
            report
              stored 1 1
              a1 finished
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 0 of r7 in a1 on node, attempt 2: Unknown: the agent was started again while it ran
              item 2 of r7 in a1 on node, attempt 2: Unknown: the agent was started again while it ran
        "#]],
    );
}

#[test]
fn what_is_kept_of_items_of_another_allocation_is_forgotten() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..3*2
        fetched c1
        started a1
        ended a1 1
        wait 2000
        restart 1 2 a2:shop/sum:c1:0..3*2
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
            ended a1 1
              run item 2 of r7 in a1 in shop
            wait 2000
              keep items [1] on disk
            restart 1 2 a2:shop/sum:c1:0..3*2
              keep only items [] on disk
              keep secrets []
              fetch c1
            report
              stored 1 2
              a2 fetching
        "#]],
    );
}

#[test]
fn what_may_have_begun_is_not_begun_again_where_the_last_assignment_is_not_believed() {
    check(
        "
        assign 1 2 a1:shop/sum:c1:0..4*2! a2:shop/mean:c1:0..3*1
        fetched c1
        started a1
        started a2
        ended a1 1
        ended a2 0
        wait 2000
        doubt
        wait 5000
        assign 1 2 a1:shop/sum:c1:0..4*2! a2:shop/mean:c1:0..3*1
        report
        fetched c1
        started a2
        assign 1 3 a1:shop/sum:c1:0..4*2! a2:shop/mean:c1:0..3*1 a3:shop/new:c1:0..2*2!
        ",
        expect![[r#"
            assign 1 2 a1:shop/sum:c1:0..4*2! a2:shop/mean:c1:0..3*1
              save 1 2
              fetch c1
            fetched c1
              start a1
              start a2
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            started a2
              run item 0 of r7 in a2 in shop
            ended a1 1
              run item 2 of r7 in a1 in shop
            ended a2 0
              run item 1 of r7 in a2 in shop
            wait 2000
              keep items [1 0] on disk
            doubt
              keep secrets []
            wait 5000
            assign 1 2 a1:shop/sum:c1:0..4*2! a2:shop/mean:c1:0..3*1
              save 1 2
              fetch c1
            report
              stored 1 2
              a1 finished
              a2 fetching
              item 0 of r7 in a1 on node, attempt 2: Unknown: the agent was started again while it ran
              item 2 of r7 in a1 on node, attempt 2: Unknown: the agent was started again while it ran
              item 3 of r7 in a1 on node, attempt 2: Unknown: the agent was started again while it ran
              item 1 of r7 in a1 on node, attempt 2: Completed
              item 0 of r7 in a2 on node, attempt 2: Completed
            fetched c1
              start a2
            started a2
              run item 1 of r7 in a2 in shop
            assign 1 3 a1:shop/sum:c1:0..4*2! a2:shop/mean:c1:0..3*1 a3:shop/new:c1:0..2*2!
              save 1 3
              start a3
        "#]],
    );
}
