//! The revisions that are kept: which one is restored, and what was never well.

use expect_test::expect;

use crate::placed;
use crate::rollouts::{rolled, web};

#[test]
fn each_kept_revision_can_be_restored() {
    rolled(
        "",
        "
        apply two
        wait 30
        apply three
        wait 30
        history shop
        rollback shop
        wait 30
        history shop
        rollback shop 1
        where
        wait 30
        history shop
        rollback shop 77
        restart
        rollback shop 3
        wait 30
        where
        history shop
        rollback nobody
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            > apply three
            Deployed { revision: Revision(3), changed: true }
            --history shop
            3, its rollout is over
            2 was well
            1 was well
            > rollback shop
            Deployed { revision: Revision(4), changed: true }
            --history shop
            4 restores 2, its rollout is over
            3 was well
            2 was well
            1 was well
            > rollback shop 1
            Deployed { revision: Revision(5), changed: true }
            --where
            default/shop/web on a:3 b:2
            --history shop
            5 restores 1, its rollout is over
            4 restores 2 was well
            3 was well
            2 was well
            1 was well
            > rollback shop 77
            unknown_revision: `default/shop` has no earlier revision 77 that is kept; there are 1, 2, 3, 4: see `dunlin history default/shop`
            > restart
            > rollback shop 3
            Deployed { revision: Revision(6), changed: true }
            --where
            default/shop/web on a:2 b:2
            --history shop
            6 restores 3, its rollout is over
            5 restores 1 was well
            4 restores 2 was well
            3 was well
            2 was well
            1 was well
            > rollback nobody
            unknown_app: there is no app `default/nobody`
        "#]],
    );
}

#[test]
fn a_deploy_in_the_middle_returns_to_what_was_last_well() {
    rolled(
        "",
        "
        state a5 starting
        state a6 refused no
        apply two
        wait 3
        apply three
        wait 3
        history shop
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            > apply three
            Deployed { revision: Revision(3), changed: true }
            --history shop
            4 restores 1, its rollout is well since 7s
            3 failed: `web`: a6 on a is refused: no
            2 was replaced before it was known to be well
            1 was well
            --where
            default/shop/web on a:2 b:2
        "#]],
    );
}

#[test]
fn a_deploy_after_a_return_that_failed_too_goes_on_to_watch_what_is_unwell() {
    rolled(
        "rollback = false",
        "
        apply two
        wait 30
        rollback shop
        wait 30
        state a13 unhealthy GET /health answered 500
        rollback shop 2
        wait 30
        history shop
        apply more
        wait 30
        history shop
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            > rollback shop
            Deployed { revision: Revision(3), changed: true }
            > rollback shop 2
            Deployed { revision: Revision(4), changed: true }
            --history shop
            4 restores 2, its rollout has failed: `web`: a13 on a fails its health check: GET /health answered 500
            3 restores 1 was well
            2 was well
            1 was well
            > apply more
            Deployed { revision: Revision(5), changed: true }
            --history shop
            5, its rollout has failed: `web`: a13 on a fails its health check: GET /health answered 500
            4 restores 2 failed: `web`: a13 on a fails its health check: GET /health answered 500
            3 restores 1 was well
            2 was well
            1 was well
            --where
            default/shop/web on a:3 b:3
            default/shop/web 5 of 5: a13 on a: unhealthy: GET /health answered 500
        "#]],
    );
}

#[test]
fn a_return_to_what_is_unwell_too_is_watched_though_nothing_changes() {
    rolled(
        "",
        "
        apply two
        wait 30
        state a9 unhealthy GET /health answered 500
        rollback shop 1
        apply more-of-one
        wait 30
        history shop
        where
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            > rollback shop 1
            Deployed { revision: Revision(3), changed: true }
            > apply more-of-one
            Deployed { revision: Revision(4), changed: true }
            --history shop
            4, its rollout has failed: `web`: a9 on a fails its health check: GET /health answered 500
            3 restores 1 was replaced before it was known to be well
            2 was well
            1 was well
            --where
            default/shop/web on a:3 b:3
            default/shop/web 5 of 5: a9 on a: unhealthy: GET /health answered 500
        "#]],
    );
}

#[test]
fn neither_a_stop_nor_what_never_ran_is_what_is_returned_to() {
    rolled(
        "",
        "
        stop shop
        wait 30
        apply two
        wait 30
        history shop
        rollback shop
        wait 30
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > stop shop
            Stopped { revision: Revision(2), changed: true }
            > apply two
            Deployed { revision: Revision(3), changed: true }
            --history shop
            3, its rollout is over
            2 was a stop
            1 was well
            > rollback shop
            Deployed { revision: Revision(4), changed: true }
            --history shop
            4 restores 1, its rollout is over
            3 was well
            2 was a stop
            1 was well
        "#]],
    );
    placed(
        &[("one", &web("1.wasm", "")), ("two", &web("2.wasm", ""))],
        "
        node a
        node b
        state a1 unhealthy no
        state a2 unhealthy no
        state a3 unhealthy no
        state a4 unhealthy no
        apply one
        wait 30
        state a5 unhealthy no
        apply two
        wait 30
        history shop
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --history shop
            2, its rollout has failed: `web`: a5 on a fails its health check: no
            1 was replaced before it was known to be well
        "#]],
    );
}
