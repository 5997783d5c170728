//! An agent that is about to be started again: what is waited for, and what is done last.

use super::*;

#[test]
fn items_that_run_are_waited_for_and_no_new_ones_are_begun() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..6*2
        fetched c1
        started a1
        may-leave
        leave
        may-leave
        ended a1 0
        may-leave
        ended a1 1
        may-leave
        last-actions
        restart 1 1 a1:shop/sum:c1:0..6*2
        fetched c1
        started a1
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..6*2
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            may-leave
              not yet
            leave
            may-leave
              not yet
            ended a1 0
            may-leave
              not yet
            ended a1 1
            may-leave
              yes
            last-actions
              stop a1 in shop at once
              keep only items [0 1] on disk
              a1 has come to item 2, runs {}, again {}
            restart 1 1 a1:shop/sum:c1:0..6*2
              keep secrets []
              fetch c1
            fetched c1
              start a1
            started a1
              run item 2 of r7 in a1 in shop
              run item 3 of r7 in a1 in shop
        "#]],
    );
}

#[test]
fn an_item_that_takes_long_is_not_waited_for_without_end() {
    check(
        "
        assign 1 1 a1:shop/sum:c1:0..6*2!
        fetched c1
        started a1
        ended a1 0
        leave
        wait 24999
        may-leave
        wait 1
        may-leave
        last-actions
        restart 1 1 a1:shop/sum:c1:0..6*2!
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/sum:c1:0..6*2!
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
              run item 0 of r7 in a1 in shop
              run item 1 of r7 in a1 in shop
            ended a1 0
              run item 2 of r7 in a1 in shop
            leave
            wait 24999
              keep items [0] on disk
            may-leave
              not yet
            wait 1
            may-leave
              yes
            last-actions
              stop a1 in shop at once
              keep only items [0] on disk
              a1 has come to item 3, runs {1, 2}, again {}
            restart 1 1 a1:shop/sum:c1:0..6*2!
              keep secrets []
              fetch c1
            report
              stored 1 1
              a1 fetching
              item 0 of r7 in a1 on node, attempt 2: Completed
              item 1 of r7 in a1 on node, attempt 2: Unknown: the agent was started again while it ran
              item 2 of r7 in a1 on node, attempt 2: Unknown: the agent was started again while it ran
        "#]],
    );
}

#[test]
fn all_else_goes_on_until_the_agent_is_started_again_and_a_singleton_ends_before_that() {
    check(
        "
        assign 1 1 a1:shop/web:c1 a2:shop/one:c1:singleton
        fetched c1
        heard 1 0 a2=60000
        started a1
        started a2
        leave
        may-leave
        died shop
        wait 1000
        started a1
        started a2
        last-actions
        ",
        expect![[r#"
            assign 1 1 a1:shop/web:c1 a2:shop/one:c1:singleton
              save 1 1
              fetch c1
            fetched c1
              start a1
            heard 1 0 a2=60000
              start a2
            started a1
            started a2
            leave
            may-leave
              yes
            died shop
              start a1
              start a2
            wait 1000
            started a1
            started a2
            last-actions
              stop a2 in shop at once
              keep only items [] on disk
        "#]],
    );
}
