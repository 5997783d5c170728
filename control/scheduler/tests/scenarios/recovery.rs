//! A store that is older than what the fleet obeys: nothing is decided until an operator says so.

use expect_test::expect;

use crate::placed;

#[test]
fn a_coordinator_that_most_nodes_do_not_obey_decides_nothing_until_it_is_told_to() {
    placed(
        &[],
        "
        node a 1GiB
        node b 1GiB
        node c 1GiB
        deploy shop web=3@v1
        wait 5
        recover
        fenced a 9
        deploy shop web=4@v1
        fenced b 7
        deploy shop web=1@v1
        delete shop
        down a
        down b
        down c
        wait 300
        restart
        wait 300
        where
        fenced c 12
        up a
        up b
        up c
        recover
        wait 5
        where
        fenced a 12
        deploy shop web=5@v1
        wait 3
        where
        explain shop/web
        ",
        expect![[r#"
            > deploy shop web=3@v1
            Deployed { revision: Revision(1), changed: true }
            > recover
            nothing_to_recover: the coordinator is not in recovery
            > fenced a 9
            > deploy shop web=4@v1
            Deployed { revision: Revision(2), changed: true }
            > fenced b 7
            > deploy shop web=1@v1
            recovering: the coordinator is in recovery: most nodes have obeyed a later term: its store is an old copy, or another coordinator is in charge
            > delete shop
            recovering: the coordinator is in recovery: most nodes have obeyed a later term: its store is an old copy, or another coordinator is in charge
            > restart
            --where
            default/shop/web on a:2 b:1 c:1
            > fenced c 12
            > recover
            Recovered
            --where
            default/shop/web on a:2 b:1 c:1
            > fenced a 12
            > deploy shop web=5@v1
            Deployed { revision: Revision(3), changed: true }
            --where
            default/shop/web on a:2 b:2 c:1
            --explain shop/web
            revision 3, 5 of 5, needs 64MiB of memory, a fuel rate of 50M/s
              a1@3 on a, running: Compiled: its component has run on a; c would have to fetch and compile it
              a2@3 on b, running: Compiled: its component has run on b; c would have to fetch and compile it
              a3@3 on c, running: Copies: c has fewer of its allocations beside it (0) than a (2)
              a4@3 on a, running: Compiled: its component has run on a; c would have to fetch and compile it
              a1000005@3 on b, running: Compiled: its component has run on b; c would have to fetch and compile it
        "#]],
    );
}

#[test]
fn a_single_node_stops_no_fleet_whatever_it_says() {
    placed(
        &[],
        "
        node a 1GiB
        node b 1GiB
        fenced a 9
        fenced a 18446744073709551615
        fenced b 18446744073709551615
        fenced b 1
        fenced x 9
        deploy shop web=1@v1
        wait 3
        where
        ",
        expect![[r#"
            > fenced a 9
            > fenced a 18446744073709551615
            > fenced b 18446744073709551615
            > fenced b 1
            > fenced x 9
            > deploy shop web=1@v1
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:1
        "#]],
    );
}

#[test]
fn what_may_be_started_once_is_not_started_again_after_a_recovery() {
    let job = |semantics: &str, name: &str| {
        format!(
            "[job.{name}]\ncomponent = \"{name}.wasm\"\nschedule = \"*/10 * * * *\"\nmissed = \"once\"\n\
             items = 4\n{semantics}\n"
        )
    };
    let once = job("semantics = \"at-most-once\"\nattempts = 1", "once");
    let manifest = format!("[app]\nname = \"calc\"\n{once}{}", job("", "more"));
    placed(
        &[("calc", &manifest)],
        "
        node a 1GiB
        apply calc
        start default/calc/once items=4
        start default/calc/more items=4
        wait 3
        fenced a 9
        wait 1500
        recover
        wait 3
        show
        ",
        expect![[r#"
            > apply calc
            Deployed { revision: Revision(1), changed: true }
            > start default/calc/once items=4
            RunStarted(RunId(1))
            > start default/calc/more items=4
            RunStarted(RunId(2))
            > fenced a 9
            > recover
            Recovered
            1503s r1 ends: Cancelled
            1503s default/calc/more was due at 600s: skipped: r2 had not ended
            --show
            a Alive, reserved 64MiB
            r1 Cancelled: 0 good, 0 bad of 4; leased 0, ready 0, backing off 0; 0 fuel
            r2 Running: 0 good, 0 bad of 4; leased 1, ready 3, backing off 0; 0 fuel
        "#]],
    );
}
