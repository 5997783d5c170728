//! Secrets: what is granted is there before a start, another value comes without one, and what is not granted goes.

use super::*;

#[test]
fn an_allocation_is_started_when_its_secrets_are_here() {
    check(
        "assign 1 1 a1:shop/front:c1:secrets=URL,KEY secret=shop/URL@1 secret=shop/KEY@2
         fetched c1
         secret-fetched shop/URL@1
         report
         secret-fetched shop/KEY@2
         started a1
         report",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:secrets=URL,KEY secret=shop/URL@1 secret=shop/KEY@2
              save 1 1
              keep secrets [shop/KEY shop/URL]
              fetch secret shop/KEY@2
              fetch secret shop/URL@1
              fetch c1
            fetched c1
            secret-fetched shop/URL@1
            report
              stored 1 1
              a1 fetching
            secret-fetched shop/KEY@2
              start a1
            started a1
            report
              stored 1 1
              a1 running
        "#]],
    );
}

#[test]
fn another_value_is_given_without_a_start_and_an_older_one_is_not_taken() {
    check(
        "assign 1 1 a1:shop/front:c1:secrets=URL a2:shop/back:c1 secret=shop/URL@1
         fetched c1
         started a2
         secret-fetched shop/URL@1
         started a1
         assign 1 2 a1:shop/front:c1:secrets=URL a2:shop/back:c1 secret=shop/URL@2
         assign 1 3 a1:shop/front:c1:secrets=URL a2:shop/back:c1 secret=shop/URL@3
         secret-fetched shop/URL@2
         secret-fetched shop/URL@3
         report",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:secrets=URL a2:shop/back:c1 secret=shop/URL@1
              save 1 1
              keep secrets [shop/URL]
              fetch secret shop/URL@1
              fetch c1
            fetched c1
              start a2
            started a2
            secret-fetched shop/URL@1
              start a1
            started a1
            assign 1 2 a1:shop/front:c1:secrets=URL a2:shop/back:c1 secret=shop/URL@2
              save 1 2
              fetch secret shop/URL@2
            assign 1 3 a1:shop/front:c1:secrets=URL a2:shop/back:c1 secret=shop/URL@3
              save 1 3
              fetch secret shop/URL@3
            secret-fetched shop/URL@2
            secret-fetched shop/URL@3
              give secrets to a1
            report
              stored 1 3
              a1 running
              a2 running
        "#]],
    );
}

#[test]
fn what_is_started_while_a_value_comes_is_given_it_as_well() {
    check(
        "assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
         fetched c1
         secret-fetched shop/URL@1
         assign 1 2 a1:shop/front:c1:secrets=URL secret=shop/URL@2
         secret-fetched shop/URL@2
         started a1",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
              save 1 1
              keep secrets [shop/URL]
              fetch secret shop/URL@1
              fetch c1
            fetched c1
            secret-fetched shop/URL@1
              start a1
            assign 1 2 a1:shop/front:c1:secrets=URL secret=shop/URL@2
              save 1 2
              fetch secret shop/URL@2
            secret-fetched shop/URL@2
              give secrets to a1
            started a1
        "#]],
    );
}

#[test]
fn without_the_coordinator_the_value_that_is_here_is_taken_and_the_other_one_tried_again() {
    check(
        "restart 1 2 a1:shop/front:c1:secrets=URL secret=shop/URL@2
         fetched c1
         secret-failed shop/URL@2 1
         report
         started a1
         wait 2000
         secret-fetched shop/URL@2
         report",
        expect![[r#"
            restart 1 2 a1:shop/front:c1:secrets=URL secret=shop/URL@2
              keep secrets [shop/URL]
              fetch secret shop/URL@2
              fetch c1
            fetched c1
            secret-failed shop/URL@2 1
              start a1
            report
              stored 1 2
              a1 starting
            started a1
            wait 2000
              fetch secret shop/URL@2
            secret-fetched shop/URL@2
              give secrets to a1
            report
              stored 1 2
              a1 running
        "#]],
    );
}

#[test]
fn without_any_value_it_waits_and_says_why() {
    check(
        "assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
         fetched c1
         secret-failed shop/URL@1
         report
         wait 1500
         secret-fetched shop/URL@1",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
              save 1 1
              keep secrets [shop/URL]
              fetch secret shop/URL@1
              fetch c1
            fetched c1
            secret-failed shop/URL@1
            report
              stored 1 1
              a1 backing-off: its secret `shop/URL` could not be fetched: the coordinator is away
            wait 1500
              fetch secret shop/URL@1
            secret-fetched shop/URL@1
              start a1
        "#]],
    );
}

#[test]
fn a_secret_that_is_not_set_keeps_it_from_starting_until_it_is() {
    check(
        "assign 1 1 a1:shop/front:c1:secrets=URL
         fetched c1
         report
         deadline
         assign 1 2 a1:shop/front:c1:secrets=URL secret=shop/URL@1
         secret-fetched shop/URL@1",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:secrets=URL
              save 1 1
              keep secrets [shop/URL]
              fetch c1
            fetched c1
            report
              stored 1 1
              a1 backing-off: its secret `shop/URL` is not set
            deadline
              none
            assign 1 2 a1:shop/front:c1:secrets=URL secret=shop/URL@1
              save 1 2
              fetch secret shop/URL@1
            secret-fetched shop/URL@1
              start a1
        "#]],
    );
}

#[test]
fn what_nothing_is_granted_any_more_is_wiped_and_fetched_again_later() {
    check(
        "assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
         fetched c1
         secret-fetched shop/URL@1
         started a1
         assign 1 2
         stopped a1
         assign 1 3 a2:shop/front:c1:secrets=URL secret=shop/URL@1
         fetched c1
         secret-fetched shop/URL@1",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
              save 1 1
              keep secrets [shop/URL]
              fetch secret shop/URL@1
              fetch c1
            fetched c1
            secret-fetched shop/URL@1
              start a1
            started a1
            assign 1 2
              save 1 2
              stop a1 in shop
              keep secrets []
            stopped a1
            assign 1 3 a2:shop/front:c1:secrets=URL secret=shop/URL@1
              save 1 3
              keep secrets [shop/URL]
              fetch secret shop/URL@1
              fetch c1
            fetched c1
            secret-fetched shop/URL@1
              start a2
        "#]],
    );
}

#[test]
fn with_the_coordinator_there_an_older_value_is_not_enough() {
    check(
        "restart 1 2 a1:shop/front:c1:secrets=URL secret=shop/URL@2
         fetched c1
         secret-refused shop/URL@2 1
         report
         assign 1 3 a1:shop/front:c1:secrets=URL secret=shop/URL@3
         secret-fetched shop/URL@3",
        expect![[r#"
            restart 1 2 a1:shop/front:c1:secrets=URL secret=shop/URL@2
              keep secrets [shop/URL]
              fetch secret shop/URL@2
              fetch c1
            fetched c1
            secret-refused shop/URL@2 1
            report
              stored 1 2
              a1 backing-off: its secret `shop/URL` could not be fetched: it has another value by now
            assign 1 3 a1:shop/front:c1:secrets=URL secret=shop/URL@3
              save 1 3
              fetch secret shop/URL@3
            secret-fetched shop/URL@3
              start a1
        "#]],
    );
}

#[test]
fn what_was_taken_away_and_granted_again_while_it_came_is_given_when_it_is_here_again() {
    check(
        "assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
         fetched c1
         assign 1 2
         assign 1 3 a2:shop/front:c1:secrets=URL secret=shop/URL@1
         fetched c1
         secret-fetched shop/URL@1
         secret-fetched shop/URL@1",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
              save 1 1
              keep secrets [shop/URL]
              fetch secret shop/URL@1
              fetch c1
            fetched c1
            assign 1 2
              save 1 2
              keep secrets []
            assign 1 3 a2:shop/front:c1:secrets=URL secret=shop/URL@1
              save 1 3
              keep secrets [shop/URL]
              fetch secret shop/URL@1
              fetch c1
            fetched c1
            secret-fetched shop/URL@1
              start a2
            secret-fetched shop/URL@1
              give secrets to a2
        "#]],
    );
}

#[test]
fn it_is_tried_again_soon_however_often_it_has_failed() {
    check(
        "assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
         secret-failed shop/URL@1
         wait 1000
         secret-failed shop/URL@1
         wait 2000
         secret-failed shop/URL@1
         wait 4000
         secret-failed shop/URL@1
         wait 8000
         secret-failed shop/URL@1
         deadline",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:secrets=URL secret=shop/URL@1
              save 1 1
              keep secrets [shop/URL]
              fetch secret shop/URL@1
              fetch c1
            secret-failed shop/URL@1
            wait 1000
              fetch secret shop/URL@1
            secret-failed shop/URL@1
            wait 2000
              fetch secret shop/URL@1
            secret-failed shop/URL@1
            wait 4000
              fetch secret shop/URL@1
            secret-failed shop/URL@1
            wait 8000
              fetch secret shop/URL@1
            secret-failed shop/URL@1
            deadline
              10s
        "#]],
    );
}
