//! Batch work makes way for what is more urgent: who, when, and what becomes of its items.

use expect_test::expect;

use crate::placed;

fn job(name: &str, priority: u8, parallelism: u32) -> String {
    format!(
        "[app]\nname = \"{name}\"\n[job.sum]\ncomponent = \"sum.wasm\"\nparallelism = {parallelism}\n\
         priority = {priority}\n[job.sum.limits]\nmemory = \"64MiB\"\nfuel_rate = \"1M/s\"\n"
    )
}

fn service(name: &str, priority: u8, memory: u32) -> String {
    format!(
        "[app]\nname = \"{name}\"\n[service.web]\ncomponent = \"web.wasm\"\nallocations = 1\npriority = {priority}\n\
         [service.web.limits]\nmemory = \"{memory}MiB\"\nfuel_rate = \"1M/s\"\n"
    )
}

#[test]
fn batch_work_that_is_less_urgent_makes_way_when_it_has_finished_what_it_has_begun() {
    placed(
        &[("low", &job("low", 10, 2)), ("high", &service("high", 90, 64))],
        "
        node a 128MiB
        apply low
        run low/sum 4
        where
        apply high
        where
        done a1 0
        state a2 finished
        beat
        where
        ",
        expect![[r#"
            > apply low
            Deployed { revision: Revision(1), changed: true }
            > run low/sum 4
            RunStarted(RunId(1))
            --where
            default/low/sum on a:2
            > apply high
            Deployed { revision: Revision(1), changed: true }
            --where
            default/low/sum on a:2
            default/high/web 0 of 1: less urgent batch work makes way for it on a
            r1 waits: 1 of 2 allocations preempted for default/high/web, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            --where
            default/high/web on a:1
            default/low/sum on a:1
            r1 waits: 1 of 1 allocations preempted for default/high/web, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
        "#]],
    );
}

#[test]
fn who_does_not_finish_in_time_is_ended_and_no_attempt_is_counted() {
    placed(
        &[("low", &job("low", 10, 1)), ("high", &service("high", 90, 64))],
        "
        node a 64MiB
        apply low
        run low/sum 2
        apply high
        wait 29
        where
        wait 2
        where
        delete high
        wait 5
        where
        show
        ",
        expect![[r#"
            > apply low
            Deployed { revision: Revision(1), changed: true }
            > run low/sum 2
            RunStarted(RunId(1))
            > apply high
            Deployed { revision: Revision(1), changed: true }
            --where
            default/low/sum on a:1
            default/high/web 0 of 1: less urgent batch work makes way for it on a
            r1 waits: 1 of 1 allocations preempted for default/high/web, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
            --where
            default/high/web on a:1
            r1 waits: needs 64MiB; the freest of 1 node has 0B
            > delete high
            Deleted
            --where
            default/low/sum on a:1
            --show
            a Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 2; leased 1, ready 1, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn what_may_be_started_once_never_makes_way() {
    let once = job("once", 10, 1).replace("priority", "semantics = \"at-most-once\"\npriority");
    placed(
        &[("once", &once), ("high", &service("high", 90, 64))],
        "
        node a 64MiB
        apply once
        run once/sum 2
        apply high
        where
        ",
        expect![[r#"
            > apply once
            Deployed { revision: Revision(1), changed: true }
            > run once/sum 2
            RunStarted(RunId(1))
            > apply high
            Deployed { revision: Revision(1), changed: true }
            --where
            default/once/sum on a:1
            default/high/web 0 of 1: needs 64MiB; the freest of 1 node has 0B
        "#]],
    );
}

#[test]
fn a_canary_keeps_its_revision_before_whole_at_the_cost_of_batch_work() {
    let web = |component: &str| {
        service("web", 90, 64).replace("web.wasm", component).replace("allocations = 1", "allocations = 2")
            + "[service.web.rollout]\ncanary = 1\npromote = \"by-hand\"\n"
    };
    placed(
        &[("low", &job("low", 10, 2)), ("v1", &web("web.wasm")), ("v2", &web("other.wasm"))],
        "
        node a 64MiB
        node b 64MiB
        node c 64MiB
        apply v1
        wait 2
        apply v2
        where
        node d 128MiB
        apply low
        run low/sum 4
        drain a 5
        where
        wait 31
        where
        ",
        expect![[r#"
            > apply v1
            Deployed { revision: Revision(1), changed: true }
            > apply v2
            Deployed { revision: Revision(2), changed: true }
            --where
            default/web/web on a:1 b:1 c:1
            > apply low
            Deployed { revision: Revision(1), changed: true }
            > run low/sum 4
            RunStarted(RunId(1))
            > drain a 5
            Cordoned
            --where
            default/low/sum on d:2
            default/web/web on a:1 b:1 c:1
            default/web/web 2 of 2: less urgent batch work makes way for it on d
            r1 waits: 1 of 2 allocations preempted for default/web/web, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
            --where
            default/low/sum on d:1
            default/web/web on b:1 c:1 d:1
            r1 waits: needs 64MiB; the freest of 3 nodes has 0B (1 node cordoned)
        "#]],
    );
}

#[test]
fn services_and_what_is_as_urgent_never_make_way() {
    placed(
        &[
            ("first", &service("first", 10, 64)),
            ("equal", &job("equal", 90, 1)),
            ("high", &service("high", 90, 64)),
        ],
        "
        node a 128MiB
        apply first
        apply equal
        run equal/sum 1
        apply high
        wait 60
        where
        ",
        expect![[r#"
            > apply first
            Deployed { revision: Revision(1), changed: true }
            > apply equal
            Deployed { revision: Revision(1), changed: true }
            > run equal/sum 1
            RunStarted(RunId(1))
            > apply high
            Deployed { revision: Revision(1), changed: true }
            --where
            default/equal/sum on a:1
            default/first/web on a:1
            default/high/web 0 of 1: needs 64MiB; the freest of 1 node has 0B
        "#]],
    );
}

#[test]
fn the_least_urgent_and_youngest_make_way_and_no_more_than_must() {
    placed(
        &[
            ("lower", &job("lower", 10, 2)),
            ("low", &job("low", 20, 2)),
            ("high", &service("high", 90, 64)),
            ("huge", &service("huge", 90, 128)),
        ],
        "
        node a 256MiB
        apply low
        run low/sum 2
        apply lower
        run lower/sum 2
        apply high
        where
        apply huge
        where
        wait 31
        where
        ",
        expect![[r#"
            > apply low
            Deployed { revision: Revision(1), changed: true }
            > run low/sum 2
            RunStarted(RunId(1))
            > apply lower
            Deployed { revision: Revision(1), changed: true }
            > run lower/sum 2
            RunStarted(RunId(2))
            > apply high
            Deployed { revision: Revision(1), changed: true }
            --where
            default/low/sum on a:2
            default/lower/sum on a:2
            default/high/web 0 of 1: less urgent batch work makes way for it on a
            r2 waits: 1 of 2 allocations preempted for default/high/web, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
            > apply huge
            Deployed { revision: Revision(1), changed: true }
            --where
            default/low/sum on a:2
            default/lower/sum on a:2
            default/high/web 0 of 1: less urgent batch work makes way for it on a
            default/huge/web 0 of 1: 1 node kept for what is more urgent or has less than its share
            r2 waits: 1 of 2 allocations preempted for default/high/web, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
            --where
            default/high/web on a:1
            default/low/sum on a:2
            default/lower/sum on a:1
            default/huge/web 0 of 1: less urgent batch work makes way for it on a
            r1 waits: 1 of 2 allocations preempted for default/huge/web, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
            r2 waits: 1 of 1 allocations preempted for default/huge/web, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
        "#]],
    );
}

#[test]
fn nobody_makes_way_where_that_would_not_be_enough() {
    placed(
        &[("low", &job("low", 10, 4)), ("huge", &service("huge", 90, 512))],
        "
        node a 128MiB
        node b 128MiB
        apply low
        run low/sum 4
        apply huge
        wait 40
        where
        ",
        expect![[r#"
            > apply low
            Deployed { revision: Revision(1), changed: true }
            > run low/sum 4
            RunStarted(RunId(1))
            > apply huge
            Deployed { revision: Revision(1), changed: true }
            --where
            default/low/sum on a:2 b:2
            default/huge/web 0 of 1: needs 512MiB; the freest of 2 nodes has 0B
        "#]],
    );
}

#[test]
fn what_is_getting_free_is_kept_for_the_one_who_asked() {
    placed(
        &[
            ("low", &job("low", 10, 2)),
            ("high", &service("high", 90, 128)),
            ("other", &service("other", 50, 64)),
        ],
        "
        node a 128MiB
        apply low
        run low/sum 2
        apply high
        apply other
        done a1 0
        beat
        where
        done a2 1
        beat
        where
        ",
        expect![[r#"
            > apply low
            Deployed { revision: Revision(1), changed: true }
            > run low/sum 2
            RunStarted(RunId(1))
            > apply high
            Deployed { revision: Revision(1), changed: true }
            > apply other
            Deployed { revision: Revision(1), changed: true }
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            --where
            default/low/sum on a:1
            default/high/web 0 of 1: less urgent batch work makes way for it on a
            default/other/web 0 of 1: 1 node kept for what is more urgent or has less than its share
            r1 waits: 1 of 1 allocations preempted for default/high/web, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
            > done a2 1
            0s r1 item 1: Completed (attempt 1)
            0s r1 ends: Completed
            --where
            default/high/web on a:1
            default/other/web 0 of 1: needs 64MiB; the freest of 1 node has 0B
        "#]],
    );
}

#[test]
fn an_urgent_run_takes_the_place_of_another_and_a_restart_forgets_nothing() {
    placed(
        &[("low", &job("low", 10, 1)), ("high", &job("high", 90, 1))],
        "
        node a 64MiB
        apply low
        run low/sum 3
        apply high
        run high/sum 1
        where
        restart
        beat
        where
        wait 31
        where
        ",
        expect![[r#"
            > apply low
            Deployed { revision: Revision(1), changed: true }
            > run low/sum 3
            RunStarted(RunId(1))
            > apply high
            Deployed { revision: Revision(1), changed: true }
            > run high/sum 1
            RunStarted(RunId(2))
            --where
            default/low/sum on a:1
            r1 waits: 1 of 1 allocations preempted for r2 of default/high/sum, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
            r2 waits: less urgent batch work makes way for it on a
            > restart
            --where
            default/low/sum on a:1
            r1 waits: 1 of 1 allocations preempted for r2 of default/high/sum, which is more urgent: no new items begin there, those that have begun end within 30s, and the others are queued again
            r2 waits: less urgent batch work makes way for it on a
            --where
            default/high/sum on a:1
            r1 waits: needs 64MiB; the freest of 1 node has 0B
        "#]],
    );
}

/// Found by the simulation with seed 7646: that a node is kept for nobody any more was not told to what runs everywhere.
#[test]
fn what_runs_everywhere_comes_to_a_node_that_was_kept() {
    let everywhere = "[app]\nname = \"all\"\n[service.web]\ncomponent = \"web.wasm\"\neverywhere = true\n\
                      [service.web.limits]\nmemory = \"64MiB\"\nfuel_rate = \"1M/s\"\n";
    placed(
        &[("low", &job("low", 10, 2)), ("high", &service("high", 90, 64)), ("all", everywhere)],
        "
        node a 128MiB
        apply low
        run low/sum 2
        apply high
        apply all
        done a1 0
        done a2 1
        beat
        where
        wait 5
        where
        ",
        expect![[r#"
            > apply low
            Deployed { revision: Revision(1), changed: true }
            > run low/sum 2
            RunStarted(RunId(1))
            > apply high
            Deployed { revision: Revision(1), changed: true }
            > apply all
            Deployed { revision: Revision(1), changed: true }
            > done a1 0
            > done a2 1
            0s r1 item 0: Completed (attempt 1)
            0s r1 item 1: Completed (attempt 1)
            0s r1 ends: Completed
            --where
            default/all/web on a:1
            default/high/web on a:1
            --where
            default/all/web on a:1
            default/high/web on a:1
        "#]],
    );
}
