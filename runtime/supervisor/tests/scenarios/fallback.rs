//! Where requests go of a service for which the coordinator knows nobody.

use expect_test::expect;

use crate::check;

#[test]
fn a_service_of_which_the_coordinator_knows_nobody_is_answered_by_what_runs_here() {
    check(
        "
        assign 1 1 a1:shop/front:c1 routed=shop/app/front
        fetched c1
        started a1
        assign 1 2 a1:shop/front:c1 routed=shop/app/front:a7
        assign 1 3 a1:shop/front:c1 routed=shop/app/front
        died shop
        wait 2000
        started a1
        assign 1 4 routed=shop/app/front
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1 routed=shop/app/front
              save 1 1
              set routes, 0 peers; shop/app/front to []
              fetch c1
            fetched c1
              set routes, 0 peers; shop/app/front to [a1]
              start a1
            started a1
            assign 1 2 a1:shop/front:c1 routed=shop/app/front:a7
              save 1 2
              set routes, 0 peers; shop/app/front to [a7]
            assign 1 3 a1:shop/front:c1 routed=shop/app/front
              save 1 3
              set routes, 0 peers; shop/app/front to [a1]
            died shop
              start a1
            wait 2000
            started a1
            assign 1 4 routed=shop/app/front
              save 1 4
              set routes, 0 peers; shop/app/front to []
              stop a1 in shop
        "#]],
    );
}

#[test]
fn what_is_not_well_answers_nothing_though_nobody_else_does() {
    check(
        "
        assign 1 1 a1:shop/front:c1:health=2,4 routed=shop/app/front
        fetched c1
        started a1
        checked a1
        checked a1 it says 500
        checked a1 it says 500
        checked a1
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:health=2,4 routed=shop/app/front
              save 1 1
              set routes, 0 peers; shop/app/front to []
              fetch c1
            fetched c1
              start a1
            started a1
            checked a1
              set routes, 0 peers; shop/app/front to [a1]
            checked a1 it says 500
            checked a1 it says 500
              set routes, 0 peers; shop/app/front to []
            checked a1
              set routes, 0 peers; shop/app/front to [a1]
        "#]],
    );
}

#[test]
fn a_singleton_that_is_in_no_route_takes_nothing() {
    check(
        "
        assign 1 1 a1:shop/front:c1:singleton routed=shop/app/front
        heard 1 0 a1=60000
        fetched c1
        started a1
        ",
        expect![[r#"
            assign 1 1 a1:shop/front:c1:singleton routed=shop/app/front
              save 1 1
              set routes, 0 peers; shop/app/front to []
              fetch c1
            heard 1 0 a1=60000
            fetched c1
              start a1
            started a1
        "#]],
    );
}
