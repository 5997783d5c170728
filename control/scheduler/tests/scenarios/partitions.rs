//! Nodes that are cut off: what requests, services and singletons do about it.

use expect_test::expect;

use crate::check;

#[test]
fn requests_leave_a_dark_node_that_is_silent_and_what_it_runs_stays() {
    check(
        "
        dark
        node a
        node b
        deploy shop web=2@v1,route:shop.example
        beat
        pass 80
        beat b
        pass 20
        pass 21000
        show
        beat a
        show
        ",
        expect![[r#"
            > dark
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=2@v1,route:shop.example
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.5: a1@1 | shop.example:  | peers a b
            0s b gets 1.5: a2@1 | shop.example:  | peers a b
            0s a gets 1.6: a1@1 | shop.example: a1 on a | peers a b
            0s b gets 1.6: a2@1 | shop.example: a1 on a | peers a b
            0s a gets 1.7: a1@1 | shop.example: a1 on a, a2 on b | peers a b
            0s b gets 1.7: a2@1 | shop.example: a1 on a, a2 on b | peers a b
            90s b gets 1.8: a2@1 | shop.example: a2 on b | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            default/shop/web 2 of 2
            21100s a gets 1.10: a1@1 | shop.example: a1 on a | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            default/shop/web 2 of 2
        "#]],
    );
}

#[test]
fn a_dark_node_is_lost_after_six_hours_and_after_a_start_no_sooner() {
    check(
        "
        dark
        node a
        node b
        deploy shop web=1@v1
        beat
        pass 21000
        restart
        beat b
        pass 21000
        beat b
        pass 700
        beat b
        show
        ",
        expect![[r#"
            > dark
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            0s a gets 1.4: a1@1 | peers a b
            > restart
            21000s b gets 2.2: | peers a b
            42600s a is lost
            42600s a1 is lost
            42630s a is lost
            42700s b gets 2.4: a2@1 | peers b
            --show
            a Lost, reserved 0B
            b Alive, reserved 64MiB
            default/shop/web 0 of 1
        "#]],
    );
}
