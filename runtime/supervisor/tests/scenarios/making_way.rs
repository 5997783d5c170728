//! Items that make way for more urgent work: they are finished, and broken off if that takes too long.

use expect_test::expect;

use crate::check;

#[test]
fn who_makes_way_finishes_what_it_has_begun_and_takes_nothing_new() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..9*2
        fetched c1
        started a1
        assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
        report
        ended a1 0
        ended a1 1
        report
        recorded 1 a1 0
        recorded 1 a1 1
        report
        assign 1 3
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..9*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
              save 1 2
            report
              stored 1 2
              a1 running
            ended a1 0
            ended a1 1
            report
              stored 1 2
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Completed
            recorded 1 a1 0
            recorded 1 a1 1
            report
              stored 1 2
              a1 finished
            assign 1 3
              save 1 3
              stop a1 in shop
        "#]],
    );
}

#[test]
fn who_makes_way_and_has_not_begun_begins_nothing() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..9*2
        assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
        fetched c1
        report
        assign 1 3
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..9*2
              save 1 1
              fetch c1
            assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
              save 1 2
            fetched c1
            report
              stored 1 2
              a1 finished
            assign 1 3
              save 1 3
        "#]],
    );
}

#[test]
fn who_makes_way_and_does_not_finish_is_broken_off_and_says_what_it_has_burned() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..9*2
        fetched c1
        started a1
        assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
        deadline
        wait 25000
        cancelled a1 0
        stopped a1
        report
        assign 1 3
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..9*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
              save 1 2
            deadline
              25s
            wait 25000
              stop a1 in shop at once
            cancelled a1 0
            stopped a1
            report
              stored 1 2
              a1 finished
              item 0 of r7 in a1 on node, attempt 2: Cancelled
            assign 1 3
              save 1 3
        "#]],
    );
}

#[test]
fn who_makes_way_finds_out_first_which_of_its_items_kills_its_worker() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..9*2
        fetched c1
        started a1
        assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
        died shop
        started a1
        died shop
        deadline
        wait 1000
        started a1
        died shop
        report
        deadline
        wait 2000
        started a1
        ended a1 1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..9*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
              save 1 2
            died shop
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            died shop
            deadline
              1s
            wait 1000
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            died shop
            report
              stored 1 2
              a1 backing-off: its worker process died, 3 restarts
              item 0 of r7 in a1 on node, attempt 2: Trapped: the worker process died while running it
            deadline
              2s
            wait 2000
              keep items [0] on disk
              start a1
            started a1
              run item 1 of r7 in a1 in shop
            ended a1 1
            report
              stored 1 2
              a1 finished, 3 restarts
              item 0 of r7 in a1 on node, attempt 2: Trapped: the worker process died while running it
        "#]],
    );
}

#[test]
fn who_makes_way_and_cannot_find_out_in_time_ends() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..9*1
        fetched c1
        started a1
        died shop
        not-started a1
        assign 1 2 a1:shop/sum:c1:0..9*1 finishing=a1
        deadline
        wait 25000
        report
        deadline
        assign 1 3 a1:shop/sum:c1:0..9*1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..9*1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            died shop
              start a1
            not-started a1
            assign 1 2 a1:shop/sum:c1:0..9*1 finishing=a1
              save 1 2
            deadline
              1s
            wait 25000
              fetch c1
            report
              stored 1 2
              a1 finished, 2 restarts
            deadline
              none
            assign 1 3 a1:shop/sum:c1:0..9*1
              save 1 3
            report
              stored 1 3
              a1 finished, 2 restarts
        "#]],
    );
}

/// Found by the simulation with seed 998: its worker was told to run an item that it was to stop.
#[test]
fn who_is_broken_off_begins_nothing_any_more() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..9*2
        fetched c1
        started a1
        assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
        died shop
        started a1
        wait 25000
        cancelled a1 0
        stopped a1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..9*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            assign 1 2 a1:shop/sum:c1:0..9*2 finishing=a1
              save 1 2
            died shop
              start a1
            started a1
              run item 0 of r7 in a1 in shop
            wait 25000
              stop a1 in shop at once
            cancelled a1 0
            stopped a1
            report
              stored 1 2
              a1 finished, 1 restarts
              item 0 of r7 in a1 on node, attempt 2: Cancelled
        "#]],
    );
}
