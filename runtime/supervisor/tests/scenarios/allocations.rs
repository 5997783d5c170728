//! The life of allocations: fetched, started, restarted, stopped; and which orders are obeyed.

use super::*;

#[test]
fn a_service_is_fetched_started_and_running() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        report
        fetched c1
        report
        started a1
        usage a1 50
        report
        deadline
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            report
              stored 1 1
              a1 fetching
            fetched c1
              start a1
            report
              stored 1 1
              a1 starting
            started a1
            usage a1 50
            report
              stored 1 1
              a1 running, 50 fuel
            deadline
              none
        "#]],
    );
}

#[test]
fn a_component_is_fetched_once_for_all_allocations() {
    check(
        "
        assign 1 1 a1:shop/front:c1 a2:shop/front:c1 a3:shop/cart:c2
        fetched c1
        assign 1 2 a1:shop/front:c1 a2:shop/front:c1 a3:shop/cart:c2 a4:shop/front:c1
        fetched c2
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1 a2:shop/front:c1 a3:shop/cart:c2
              save 1 1
              fetch c1
              fetch c2
            fetched c1
              start a1
              start a2
            assign 1 2 a1:shop/front:c1 a2:shop/front:c1 a3:shop/cart:c2 a4:shop/front:c1
              save 1 2
              start a4
            fetched c2
              start a3
        "#]],
    );
}

#[test]
fn a_failed_fetch_is_tried_again_after_a_growing_wait() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetch-failed c1
        report
        wait 999
        wait 1
        fetch-failed c1
        deadline
        wait 2000
        report
        fetched c1
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetch-failed c1
            report
              stored 1 1
              a1 backing-off: its component could not be fetched: the coordinator is away
            wait 999
            wait 1
              fetch c1
            fetch-failed c1
            deadline
              2s
            wait 2000
              fetch c1
            report
              stored 1 1
              a1 fetching
            fetched c1
              start a1
        "#]],
    );
}

#[test]
fn a_repeated_assignment_changes_nothing() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        assign 1 1 a1:shop/front:c1
        started a1
        assign 1 1 a1:shop/front:c1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            assign 1 1 a1:shop/front:c1
            started a1
            assign 1 1 a1:shop/front:c1
            report
              stored 1 1
              a1 running
        "#]],
    );
}

#[test]
fn an_older_assignment_or_one_of_another_fleet_is_refused() {
    check(
        "
        assign 2 5 a1:shop/front:c1
        assign 2 4
        assign 1 9
        assign other:3 1
        report
        assign 3 1 a1:shop/front:c1
        ",
        expect![[r#"
            assign 2 5 a1:shop/front:c1
              save 2 5
              fetch c1
            assign 2 4
              refused: the assignment is of term 2, generation 4; stored is term 2, generation 5
            assign 1 9
              refused: the assignment is of term 1, generation 9; stored is term 2, generation 5
            assign other:3 1
              refused: the assignment is of fleet other, this node belongs to fleet
            report
              stored 2 5
              a1 fetching
            assign 3 1 a1:shop/front:c1
              save 3 1
        "#]],
    );
}

#[test]
fn what_leaves_the_assignment_is_stopped_before_anything_starts() {
    check(
        "
        assign 1 1 a1:shop/front:c1 a2:shop/cart:c2
        fetched c1
        started a1
        assign 1 2 a3:shop/front:c1 peer=b
        report
        fetched c2
        assign 1 3
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1 a2:shop/cart:c2
              save 1 1
              fetch c1
              fetch c2
            fetched c1
              start a1
            started a1
            assign 1 2 a3:shop/front:c1 peer=b
              save 1 2
              set routes, 1 peers
              stop a1 in shop
              start a3
            report
              stored 1 2
              a3 starting
            fetched c2
            assign 1 3
              save 1 3
              set routes, 0 peers
              stop a3 in shop
            report
              stored 1 3
        "#]],
    );
}

#[test]
fn routes_are_set_only_when_they_change() {
    check(
        "
        assign 1 1 peer=b
        assign 1 2 peer=b
        assign 1 3 peer=b peer=c
        assign 1 4
        ",
        expect![[r#"
            assign 1 1 peer=b
              save 1 1
              set routes, 1 peers
            assign 1 2 peer=b
              save 1 2
            assign 1 3 peer=b peer=c
              save 1 3
              set routes, 2 peers
            assign 1 4
              save 1 4
              set routes, 0 peers
        "#]],
    );
}

#[test]
fn a_restarted_agent_runs_its_last_assignment_without_saving_it() {
    check(
        "
        restart 4 7 a1:shop/front:c1 peer=b
        assign 4 6
        assign 4 7
        fetched c1
        started a1
        assign 5 1 a1:shop/front:c1 peer=b
        report
        ",
        expect![[r#"
            restart 4 7 a1:shop/front:c1 peer=b
              set routes, 1 peers
              keep secrets []
              fetch c1
            assign 4 6
              refused: the assignment is of term 4, generation 6; stored is term 4, generation 7
            assign 4 7
            fetched c1
              start a1
            started a1
            assign 5 1 a1:shop/front:c1 peer=b
              save 5 1
            report
              stored 5 1
              a1 running
        "#]],
    );
}

#[test]
fn a_refused_allocation_is_never_tried_again() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        refused a1
        report
        deadline
        wait 10000000
        assign 1 2
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            refused a1
            report
              stored 1 1
              a1 refused: it imports what it was not granted
            deadline
              none
            wait 10000000
            assign 1 2
              save 1 2
        "#]],
    );
}

#[test]
fn a_failed_start_is_tried_again_with_a_component_that_was_looked_at_again() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        not-started a1
        report
        wait 1000
        fetched c1
        not-started a1
        wait 1999
        wait 1
        fetched c1
        started a1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            not-started a1
            report
              stored 1 1
              a1 backing-off: the worker is busy, 1 restarts
            wait 1000
              fetch c1
            fetched c1
              start a1
            not-started a1
            wait 1999
            wait 1
              fetch c1
            fetched c1
              start a1
            started a1
            report
              stored 1 1
              a1 running, 2 restarts
        "#]],
    );
}

#[test]
fn after_the_first_death_of_its_worker_a_service_is_back_at_once() {
    check(
        "
        assign 1 1 a1:shop/front:c1 a2:bank/front:c2
        fetched c1
        fetched c2
        started a1
        started a2
        usage a1 5
        died shop
        started a1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1 a2:bank/front:c2
              save 1 1
              fetch c1
              fetch c2
            fetched c1
              start a1
            fetched c2
              start a2
            started a1
            started a2
            usage a1 5
            died shop
              start a1
            started a1
            report
              stored 1 1
              a1 running, 1 restarts
              a2 running
        "#]],
    );
}

#[test]
fn further_deaths_wait_longer_until_ten_healthy_minutes_have_passed() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        started a1
        died shop
        started a1
        died shop
        report
        deadline
        wait 1000
        started a1
        wait 599999
        died shop
        deadline
        wait 2000
        started a1
        wait 600000
        died shop
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
            died shop
              start a1
            started a1
            died shop
            report
              stored 1 1
              a1 backing-off: its worker process died, 2 restarts
            deadline
              1s
            wait 1000
              start a1
            started a1
            wait 599999
            died shop
            deadline
              2s
            wait 2000
              start a1
            started a1
            wait 600000
            died shop
              start a1
        "#]],
    );
}

#[test]
fn events_of_what_is_unknown_or_not_waited_for_are_ignored() {
    check(
        "
        fetched c1
        fetch-failed c1
        started a1
        not-started a1
        refused a1
        ended a1 0
        not-run a1 0
        recorded 1 a1 0
        usage a1 5
        died shop
        assign 1 1 a1:shop/front:c1
        started a1
        refused a1
        died shop
        ended a1 0
        report
        ",
        expect![[r#"
            fetched c1
            fetch-failed c1
            started a1
            not-started a1
            refused a1
            ended a1 0
            not-run a1 0
            recorded 1 a1 0
            usage a1 5
            died shop
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            started a1
            refused a1
            died shop
            ended a1 0
            report
              stored 1 1
              a1 fetching
        "#]],
    );
}

#[test]
fn an_id_that_means_something_else_is_stopped_and_started() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        started a1
        assign 1 2 a1:shop/front:c2
        fetched c2
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
            assign 1 2 a1:shop/front:c2
              save 1 2
              stop a1 in shop
              fetch c2
            fetched c2
              start a1
            report
              stored 1 2
              a1 starting
        "#]],
    );
}

#[test]
fn a_new_revision_that_leaves_the_guest_as_it_is_costs_no_restart() {
    check(
        "
        assign 1 1 a1:shop/front:c1
        fetched c1
        started a1
        assign 1 2 a1:shop/front@2:c1
        report
        died shop
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
            assign 1 2 a1:shop/front@2:c1
              save 1 2
            report
              stored 1 2
              a1 running
            died shop
              start a1
        "#]],
    );
}

#[test]
fn code_that_is_to_be_kept_is_known_before_what_ran_it_is_stopped() {
    check(
        "
        assign 1 1 a1:shop/web:c1
        fetched c1
        started a1
        assign 1 2 a2:shop/web@2:c2 kept=c1
        assign 1 3 a2:shop/web@2:c2 kept=c1
        assign 1 4 a2:shop/web@2:c2
        ",
        expect![[r#"
            assign 1 1 a1:shop/web:c1
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
            assign 1 2 a2:shop/web@2:c2 kept=c1
              save 1 2
              keep code [c1]
              stop a1 in shop
              fetch c2
            assign 1 3 a2:shop/web@2:c2 kept=c1
              save 1 3
            assign 1 4 a2:shop/web@2:c2
              save 1 4
              keep code []
        "#]],
    );
}

#[test]
fn what_stays_unwell_is_stopped_and_started_again_when_it_has_ended() {
    check(
        "
        assign 1 1 a1:shop/web:c1:health=2,3
        fetched c1
        started a1
        checked a1
        checked a1 GET / says 500
        checked a1 GET / says 500
        report
        checked a1 GET / says 503
        report
        wait 10000
        stopped a1
        started a1
        report
        checked a1 GET / says 503
        checked a1 GET / says 503
        checked a1
        report
        ",
        expect![[r#"
            assign 1 1 a1:shop/web:c1:health=2,3
              save 1 1
              fetch c1
            fetched c1
              start a1
            started a1
            checked a1
            checked a1 GET / says 500
            checked a1 GET / says 500
            report
              stored 1 1
              a1 unhealthy: GET / says 500
            checked a1 GET / says 503
              stop a1 in shop
            report
              stored 1 1
              a1 fetching, 1 restarts
            wait 10000
            stopped a1
              start a1
            started a1
            report
              stored 1 1
              a1 starting, 1 restarts
            checked a1 GET / says 503
            checked a1 GET / says 503
            checked a1
            report
              stored 1 1
              a1 running, 1 restarts
        "#]],
    );
}
