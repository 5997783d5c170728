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
