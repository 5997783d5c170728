//! What an agent stops that does not hear from its coordinator, and what it starts again.

use super::*;

#[test]
fn a_service_stops_when_nothing_was_heard_for_long_and_goes_on_when_something_is() {
    check(
        "
        assign 1 1 a1:shop/front:c1:stop=5000 a2:shop/back:c1
        fetched c1
        started a1
        started a2
        wait 3000
        heard 1 100
        deadline
        wait 4900
        report
        stopped a1
        wait 60000
        heard 1 0
        started a1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:stop=5000 a2:shop/back:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
              start a2
            started a1
            started a2
            wait 3000
            heard 1 100
            deadline
              4900ms
            wait 4900
              stop a1 in shop
            report
              stored 1 1
              a1 stopped: nothing was heard from the coordinator for 5s
              a2 running
            stopped a1
            wait 60000
            heard 1 0
              start a1
            started a1
            report
              stored 1 1
              a1 running
              a2 running
        "#]],
    );
}

#[test]
fn what_was_on_its_way_for_long_does_not_count_as_new() {
    check(
        "
        assign 1 1 a1:shop/front:c1:stop=5000
        fetched c1
        started a1
        wait 4000
        heard 1 3000
        deadline
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:stop=5000
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
            wait 4000
            heard 1 3000
            deadline
              2s
        "#]],
    );
}

#[test]
fn an_agent_that_was_started_again_counts_from_its_start() {
    check(
        "
        restart 1 1 a1:shop/front:c1:stop=5000
        fetched c1
        started a1
        deadline
        wait 5000
        report
        assign 1 1 a1:shop/front:c1:stop=5000
        stopped a1
        started a1
        report
        ",
        expect![[r#"
            restart 1 1 a1:shop/front:c1:stop=5000
              keep secrets []
              fetch c1
            fetched c1
              start a1
            started a1
            deadline
              5s
            wait 5000
              stop a1 in shop
            report
              stored 1 1
              a1 stopped: nothing was heard from the coordinator for 5s
            assign 1 1 a1:shop/front:c1:stop=5000
            stopped a1
              start a1
            started a1
            report
              stored 1 1
              a1 running
        "#]],
    );
}

#[test]
fn a_singleton_runs_under_a_lease_only_and_stops_before_that_is_over() {
    check(
        "
        assign 1 1 a1:shop/front:c1:singleton
        fetched c1
        report
        wait 100
        heard 1 50 a1=10000
        started a1
        wait 2000
        heard 1 100 a1=10000
        deadline
        wait 8900
        report
        heard 1 100 a1=10000
        stopped a1
        started a1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:singleton
              save 1 1
              fetch c1
            fetched c1
            report
              stored 1 1
              a1 stopped: it has no lease: the coordinator has to answer first
            wait 100
            heard 1 50 a1=10000
              start a1
            started a1
            wait 2000
            heard 1 100 a1=10000
            deadline
              8900ms
            wait 8900
              stop a1 in shop at once
            report
              stored 1 1
              a1 stopped: it has no lease: the coordinator has to answer first
            heard 1 100 a1=10000
            stopped a1
              start a1
            started a1
            report
              stored 1 1
              a1 running
        "#]],
    );
}

#[test]
fn an_answer_to_what_was_sent_before_this_start_gives_no_lease() {
    check(
        "
        wait 500
        restart 1 1 a1:shop/front:c1:singleton
        fetched c1
        heard 1 50 a1=10000
        report
        wait 100
        heard 1 50 a1=10000
        ",
        expect![[r#"
            wait 500
            restart 1 1 a1:shop/front:c1:singleton
              keep secrets []
              fetch c1
            fetched c1
            heard 1 50 a1=10000
            report
              stored 1 1
              a1 stopped: it has no lease: the coordinator has to answer first
            wait 100
            heard 1 50 a1=10000
              start a1
        "#]],
    );
}

#[test]
fn a_singleton_is_not_started_from_what_was_kept() {
    check(
        "
        restart 1 1 a1:shop/front:c1:singleton
        fetched c1
        report
        heard 1 0
        report
        heard 1 0 a1=10000
        ",
        expect![[r#"
            restart 1 1 a1:shop/front:c1:singleton
              keep secrets []
              fetch c1
            fetched c1
            report
              stored 1 1
              a1 stopped: it has no lease: the coordinator has to answer first
            heard 1 0
            report
              stored 1 1
              a1 stopped: it has no lease: the coordinator has to answer first
            heard 1 0 a1=10000
              start a1
        "#]],
    );
}

#[test]
fn a_lease_of_an_older_coordinator_or_for_another_is_none() {
    check(
        "
        assign 2 1 a1:shop/front:c1:singleton
        fetched c1
        heard 1 0 a1=10000
        heard 2 0 a2=10000
        heard 2 9500 a1=10000
        report
        ",
        expect![[r#"
            assign 2 1 a1:shop/front:c1:singleton
              save 2 1
              fetch c1
            fetched c1
            heard 1 0 a1=10000
            heard 2 0 a2=10000
            heard 2 9500 a1=10000
            report
              stored 2 1
              a1 stopped: it has no lease: the coordinator has to answer first
        "#]],
    );
}

#[test]
fn a_singleton_that_is_not_wanted_any_more_is_told_of_until_it_has_stopped() {
    check(
        "
        assign 1 1 a1:shop/front:c1:singleton
        fetched c1
        heard 1 0 a1=10000
        started a1
        assign 1 2
        report
        stopped a1
        report
        assign 1 3 a2:shop/front:c1:singleton
        heard 1 0 a2=10000
        started a2
        assign 1 4
        died shop
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:singleton
              save 1 1
              fetch c1
            fetched c1
            heard 1 0 a1=10000
              start a1
            started a1
            assign 1 2
              save 1 2
              stop a1 in shop at once
            report
              stored 1 2
              a1 stopped: it was told to stop and has not yet
            stopped a1
            report
              stored 1 2
            assign 1 3 a2:shop/front:c1:singleton
              save 1 3
              fetch c1
            heard 1 0 a2=10000
            started a2
            assign 1 4
              save 1 4
            died shop
            report
              stored 1 4
        "#]],
    );
}
