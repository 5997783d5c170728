//! Runs that come after others, that nobody starts, that may take so long, and whose items start once.

use expect_test::{Expect, expect};

use crate::world::World;

/// Plays `script`, in which `apply jobs` deploys an app `calc` with these jobs.
#[expect(clippy::needless_pass_by_value, reason = "expect! makes a value, and so scenarios stay short")]
fn check(jobs: &str, script: &str, expected: Expect) {
    let mut world = World::new();
    let jobs: Vec<&str> = jobs.lines().map(str::trim).collect();
    let manifest = format!("[app]\nname = \"calc\"\n{}", jobs.join("\n"));
    world.manifests.insert("jobs".to_owned(), manifest);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        world.play(line);
    }
    expected.assert_eq(&world.out);
}

const MAP_REDUCE: &str = r#"
    [job.map]
    component = "map.wasm"
    items = 2
    attempts = 1
    [job.reduce]
    component = "reduce.wasm"
    after = ["map"]
"#;

const SCHEDULED: &str = r#"
    [job.sum]
    component = "sum.wasm"
    items = 1
    schedule = "*/10 * * * * *"
"#;

const ONCE: &str = r#"
    [job.pay]
    component = "pay.wasm"
    items = 3
    semantics = "at-most-once"
    limits = { concurrency = 2 }
"#;

#[test]
fn a_run_begins_when_what_it_comes_after_has_completed() {
    check(
        MAP_REDUCE,
        "
        node a
        apply jobs
        run calc/reduce
        show
        done a1 0
        beat
        restart
        beat
        done a2 1
        beat
        show
        done a3 0
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > apply jobs
            Deployed { revision: Revision(1), changed: true }
            > run calc/reduce
            RunStarted(RunId(2))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 2; leased 1, ready 1, backing off 0; 0 fuel
            r2 Waiting: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel, waiting: it comes after r1
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            0s a gets 1.4: a2[r1 1..2 attempt 1] | peers a
            > restart
            0s a gets 2.2: a2[r1 1..2 attempt 1] | peers a
            > done a2 1
            0s r1 item 1: Completed (attempt 1)
            0s r1 ends: Completed
            0s a gets 2.3: a3[r2 0..1 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Completed: 2 good, 0 bad of 2; leased 0, ready 0, backing off 0; 20 fuel
            r2 Running: 0 good, 0 bad of 1; leased 1, ready 0, backing off 0; 0 fuel
            > done a3 0
            0s r2 item 0: Completed (attempt 1)
            0s r2 ends: Completed
            0s a gets 2.4: | peers a
            --show
            a Alive, reserved 0B
            r1 Completed: 2 good, 0 bad of 2; leased 0, ready 0, backing off 0; 20 fuel
            r2 Completed: 1 good, 0 bad of 1; leased 0, ready 0, backing off 0; 10 fuel
        "#]],
    );
}

#[test]
fn a_run_is_abandoned_when_what_it_comes_after_has_not_completed() {
    check(
        MAP_REDUCE,
        "
        node a
        apply jobs
        run calc/reduce
        done a1 0
        fail a1 1
        beat
        fail a2 1
        beat
        run calc/reduce
        cancel r3
        run calc/reduce
        cancel r6
        show
        stop calc
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > apply jobs
            Deployed { revision: Revision(1), changed: true }
            > run calc/reduce
            RunStarted(RunId(2))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            > fail a1 1
            0s r1 item 0: Completed (attempt 1)
            0s a gets 1.4: a2[r1 1..2 attempt 1] | peers a
            > fail a2 1
            0s r1 item 1: Trapped: boom (attempt 1)
            0s r1 ends: Failed { failed: 1 }
            0s r2 ends: Abandoned { why: After { run: RunId(1) } }
            0s a gets 1.5: | peers a
            > run calc/reduce
            RunStarted(RunId(4))
            0s a gets 1.6: a3[r3 0..1 attempt 1] | peers a
            > cancel r3
            Cancelled
            0s r3 ends: Cancelled
            0s r4 ends: Abandoned { why: After { run: RunId(3) } }
            0s a gets 1.7: | peers a
            > run calc/reduce
            RunStarted(RunId(6))
            0s a gets 1.8: a4[r5 0..1 attempt 1] | peers a
            > cancel r6
            Cancelled
            0s r6 ends: Cancelled
            --show
            a Alive, reserved 64MiB
            r1 Failed { failed: 1 }: 1 good, 1 bad of 2; leased 0, ready 0, backing off 0; 20 fuel
            r2 Abandoned { why: After { run: RunId(1) } }: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel
            r3 Cancelled: 0 good, 0 bad of 2; leased 0, ready 0, backing off 0; 0 fuel
            r4 Abandoned { why: After { run: RunId(3) } }: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel
            r5 Running: 0 good, 0 bad of 2; leased 1, ready 1, backing off 0; 0 fuel
            r6 Cancelled: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel
            > stop calc
            Stopped { revision: Revision(1), changed: false }
            0s r5 ends: Cancelled
            0s a gets 1.9: | peers a
        "#]],
    );
}

#[test]
fn a_job_alone_starts_nothing_that_comes_after_it() {
    check(
        MAP_REDUCE,
        "
        node a
        apply jobs
        run calc/map 1
        done a1 0
        beat
        run calc/reduce 1 COLOUR=red
        show
        run calc/reduce 1 DUNLIN_RUN=r9
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > apply jobs
            Deployed { revision: Revision(1), changed: true }
            > run calc/map 1
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            0s r1 ends: Completed
            0s a gets 1.4: | peers a
            > run calc/reduce 1 COLOUR=red
            RunStarted(RunId(3))
            0s a gets 1.5: a2[r2 0..1 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Completed: 1 good, 0 bad of 1; leased 0, ready 0, backing off 0; 10 fuel
            r2 Running: 0 good, 0 bad of 2; leased 1, ready 1, backing off 0; 0 fuel
            r3 Waiting: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel, waiting: it comes after r2
            > run calc/reduce 1 DUNLIN_RUN=r9
            invalid_run: a run of `default/calc/reduce`: `environment`: `DUNLIN_RUN` cannot be set: variables that begin with `DUNLIN_` are Dunlin's own
            --show
            a Alive, reserved 64MiB
            r1 Completed: 1 good, 0 bad of 1; leased 0, ready 0, backing off 0; 10 fuel
            r2 Running: 0 good, 0 bad of 2; leased 1, ready 1, backing off 0; 0 fuel
            r3 Waiting: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel, waiting: it comes after r2
        "#]],
    );
}

#[test]
fn what_two_jobs_come_after_is_run_once_and_the_quota_is_for_all_of_them() {
    check(
        r#"
        [job.fetch]
        component = "fetch.wasm"
        items = 1
        [job.left]
        component = "left.wasm"
        after = ["fetch"]
        [job.right]
        component = "right.wasm"
        items = 3
        after = ["fetch"]
        [job.join]
        component = "join.wasm"
        after = ["left", "right"]
        "#,
        "
        node a
        namespace default items=5
        apply jobs
        run calc/join
        namespace default items=6
        run calc/join
        done a1 0
        beat
        done a2 0
        beat
        cancel r3
        delete calc
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > namespace default items=5
            NamespaceSet
            > apply jobs
            Deployed { revision: Revision(1), changed: true }
            > run calc/join
            quota_exceeded: namespace `default`: limit `quota.items` is 5, observed 6
            > namespace default items=6
            NamespaceSet
            > run calc/join
            RunStarted(RunId(4))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            0s r1 ends: Completed
            0s a gets 1.4: a2[r2 0..1 attempt 1] a3[r3 0..1 attempt 1] | peers a
            > done a2 0
            0s r2 item 0: Completed (attempt 1)
            0s r2 ends: Completed
            0s a gets 1.5: a3[r3 0..1 attempt 1] | peers a
            > cancel r3
            Cancelled
            0s r3 ends: Cancelled
            0s r4 ends: Abandoned { why: After { run: RunId(3) } }
            0s a gets 1.6: | peers a
            > delete calc
            Deleted
            0s r1 is forgotten
            0s r2 is forgotten
            0s r3 is forgotten
            0s r4 is forgotten
        "#]],
    );
}

#[test]
fn a_run_ends_with_its_deadline() {
    check(
        r#"
        [job.map]
        component = "map.wasm"
        items = 2
        deadline = "5s"
        [job.reduce]
        component = "reduce.wasm"
        after = ["map"]
        deadline = "1s"
        "#,
        "
        node a
        apply jobs
        run calc/reduce
        wait 2
        done a1 0
        wait 2
        restart
        wait 2
        show
        run calc/reduce
        done a3 0
        beat
        done a4 1
        wait 4
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > apply jobs
            Deployed { revision: Revision(1), changed: true }
            > run calc/reduce
            RunStarted(RunId(2))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            3s r1 item 0: Completed (attempt 1)
            3s a gets 1.4: a2[r1 1..2 attempt 1] | peers a
            > restart
            5s r1 ends: Abandoned { why: Deadline { limit: DurationMs(5000) } }
            5s r2 ends: Abandoned { why: After { run: RunId(1) } }
            5s a gets 2.3: | peers a
            --show
            a Alive, reserved 0B
            r1 Abandoned { why: Deadline { limit: DurationMs(5000) } }: 1 good, 0 bad of 2; leased 0, ready 0, backing off 0; 10 fuel
            r2 Abandoned { why: After { run: RunId(1) } }: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel
            > run calc/reduce
            RunStarted(RunId(4))
            6s a gets 2.4: a3[r3 0..1 attempt 1] | peers a
            > done a3 0
            6s r3 item 0: Completed (attempt 1)
            6s a gets 2.5: a4[r3 1..2 attempt 1] | peers a
            > done a4 1
            7s r3 item 1: Completed (attempt 1)
            7s r3 ends: Completed
            7s a gets 2.6: a5[r4 0..1 attempt 1] | peers a
            8s r4 ends: Abandoned { why: Deadline { limit: DurationMs(1000) } }
            8s a gets 2.7: | peers a
            --show
            a Alive, reserved 0B
            r1 Abandoned { why: Deadline { limit: DurationMs(5000) } }: 1 good, 0 bad of 2; leased 0, ready 0, backing off 0; 10 fuel
            r2 Abandoned { why: After { run: RunId(1) } }: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel
            r3 Completed: 2 good, 0 bad of 2; leased 0, ready 0, backing off 0; 20 fuel
            r4 Abandoned { why: Deadline { limit: DurationMs(1000) } }: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn a_scheduled_job_is_run_at_its_moments_and_not_while_it_runs() {
    check(
        SCHEDULED,
        "
        node a
        wait 5
        apply jobs
        wait 6
        done a1 0
        beat
        wait 10
        wait 10
        cancel r2
        wait 10
        stop calc
        wait 20
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > apply jobs
            Deployed { revision: Revision(1), changed: true }
            10s default/calc/sum was due at 10s: r1
            10s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            11s r1 item 0: Completed (attempt 1)
            11s r1 ends: Completed
            11s a gets 1.4: | peers a
            20s default/calc/sum was due at 20s: r2
            20s a gets 1.5: a2[r2 0..1 attempt 1] | peers a
            30s default/calc/sum was due at 30s: skipped: r2 had not ended
            > cancel r2
            Cancelled
            31s r2 ends: Cancelled
            31s a gets 1.6: | peers a
            40s default/calc/sum was due at 40s: r3
            40s a gets 1.7: a3[r3 0..1 attempt 1] | peers a
            > stop calc
            Stopped { revision: Revision(2), changed: true }
            41s r3 ends: Cancelled
            41s a gets 1.8: | peers a
            --show
            a Alive, reserved 0B
            r1 Completed: 1 good, 0 bad of 1; leased 0, ready 0, backing off 0; 10 fuel
            r2 Cancelled: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel
            r3 Cancelled: 0 good, 0 bad of 1; leased 0, ready 0, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn a_restart_neither_doubles_nor_forgets_a_scheduled_run() {
    check(
        SCHEDULED,
        "
        node a
        apply jobs
        wait 10
        done a1 0
        beat
        restart
        beat
        wait 9
        absent 5
        restart
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > apply jobs
            Deployed { revision: Revision(1), changed: true }
            10s default/calc/sum was due at 10s: r1
            10s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            10s r1 item 0: Completed (attempt 1)
            10s r1 ends: Completed
            10s a gets 1.4: | peers a
            > restart
            10s a gets 2.2: | peers a
            > absent 5
            > restart
            24s default/calc/sum was due at 20s: r2
            24s a gets 3.3: a2[r2 0..1 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Completed: 1 good, 0 bad of 1; leased 0, ready 0, backing off 0; 10 fuel
            r2 Running: 0 good, 0 bad of 1; leased 1, ready 0, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn missed_moments_are_one_run_or_none() {
    let hourly = |missed: &str| {
        format!(
            "[job.sum]\ncomponent = \"sum.wasm\"\nitems = 1\nschedule = \"0 * * * *\"\nmissed = \"{missed}\"\n"
        )
    };
    let script = "
        node a
        apply jobs
        absent 9000
        restart
        beat
        absent 1830
        restart
        ";
    check(
        &hourly("skip"),
        script,
        expect![[r#"
        0s a gets 1.2: | peers a
        > apply jobs
        Deployed { revision: Revision(1), changed: true }
        > absent 9000
        > restart
        9000s default/calc/sum was due at 3600s: skipped: no coordinator was there
        9000s a gets 2.2: | peers a
        > absent 1830
        > restart
        10830s default/calc/sum was due at 10800s: r1
    "#]],
    );
    check(
        &hourly("once"),
        script,
        expect![[r#"
        0s a gets 1.2: | peers a
        > apply jobs
        Deployed { revision: Revision(1), changed: true }
        > absent 9000
        > restart
        9000s default/calc/sum was due at 3600s: r1
        9000s a gets 2.3: a1[r1 0..1 attempt 1] | peers a
        > absent 1830
        > restart
        10830s default/calc/sum was due at 10800s: skipped: r1 had not ended
    "#]],
    );
}

#[test]
fn another_schedule_is_followed_from_now_on() {
    let jobs = |schedule: &str| SCHEDULED.replace("*/10 * * * * *", schedule);
    let mut world = World::new();
    world.is_quiet = true;
    for (name, schedule) in [("slow", "0 0 * * *"), ("often", "*/30 * * * * *")] {
        let jobs = jobs(schedule);
        let jobs: Vec<&str> = jobs.lines().map(str::trim).collect();
        world.manifests.insert(name.to_owned(), format!("[app]\nname = \"calc\"\n{}", jobs.join("\n")));
    }
    for line in
        ["node a", "wait 40", "apply slow", "wait 10", "apply often", "wait 45", "delete calc", "wait 60"]
    {
        world.play(line);
    }
    expect![[r#"
        > apply slow
        Deployed { revision: Revision(1), changed: true }
        > apply often
        Deployed { revision: Revision(2), changed: true }
        60s default/calc/sum was due at 60s: r1
        90s default/calc/sum was due at 90s: skipped: r1 had not ended
        > delete calc
        Deleted
        95s r1 is forgotten
    "#]]
    .assert_eq(&world.out);
}

#[test]
fn an_item_that_starts_at_most_once_is_not_run_again_whatever_becomes_of_it() {
    check(
        ONCE,
        "
        node a
        node b
        cordon b
        apply jobs
        run calc/pay 8
        fail a1 0
        beat
        done a1 1
        beat
        uncordon b
        down a
        wait 12
        show
        done a3 4..6
        wait 1
        up a
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > cordon b
            Cordoned
            > apply jobs
            Deployed { revision: Revision(1), changed: true }
            > run calc/pay 8
            RunStarted(RunId(1))
            0s a gets 1.4: a1[r1 0..2 attempt 1] | peers a b
            > fail a1 0
            0s r1 item 0: Trapped: boom (attempt 1)
            > done a1 1
            0s r1 item 1: Completed (attempt 1)
            0s a gets 1.5: a2[r1 2..4 attempt 1] | peers a b
            > uncordon b
            Uncordoned
            10s a is lost
            10s a2 is lost
            10s b gets 1.4: | peers b
            11s a is lost
            11s r1 item 2: Unknown: its node was lost or left while it ran (attempt 1)
            11s r1 item 3: Unknown: its node was lost or left while it ran (attempt 1)
            11s b gets 1.5: a3[r1 4..5 attempt 1] | peers b
            --show
            a Lost, reserved 0B
            b Alive, reserved 64MiB
            r1 Running: 1 good, 3 bad of 8; leased 1, ready 3, backing off 0; 20 fuel
            > done a3 4..6
            13s r1 item 4: Completed (attempt 1)
            13s b gets 1.6: a4[r1 5..6 attempt 1] | peers b
            14s a gets 1.8: | peers a b
            14s b gets 1.7: a4[r1 5..6 attempt 1] | peers a b
            --show
            a Alive, reserved 0B
            b Alive, reserved 64MiB
            r1 Running: 2 good, 3 bad of 8; leased 1, ready 2, backing off 0; 30 fuel
        "#]],
    );
}

#[test]
fn a_node_that_is_back_tells_what_it_knows_of_items_that_start_at_most_once() {
    check(
        ONCE,
        "
        node a
        apply jobs
        run calc/pay 8
        done a1 1
        pass 10
        beat a
        show
        fail a2 2
        beat
        restart
        beat
        drain a 1
        wait 3
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > apply jobs
            Deployed { revision: Revision(1), changed: true }
            > run calc/pay 8
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..2 attempt 1] | peers a
            > done a1 1
            10s a is lost
            10s a1 is lost
            10s r1 item 1: Completed (attempt 1)
            10s r1 item 0: Unknown: its node was lost while it ran, and is back (attempt 1)
            10s a gets 1.7: a2[r1 2..4 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Running: 1 good, 1 bad of 8; leased 2, ready 4, backing off 0; 10 fuel
            > fail a2 2
            10s r1 item 2: Trapped: boom (attempt 1)
            > restart
            10s a gets 2.2: a2[r1 2..4 attempt 1] | peers a
            > drain a 1
            Cordoned
            11s r1 item 3: Unknown: its node was lost or left while it ran (attempt 1)
            11s a gets 2.3: | peers a
            --show
            a Alive, reserved 0B
            r1 Running: 1 good, 3 bad of 8; leased 0, ready 4, backing off 0; 20 fuel, waiting: 1 node cordoned; `dunlin node uncordon` lets them be used again
        "#]],
    );
}

#[test]
fn the_oldest_runs_of_a_job_are_forgotten() {
    let mut world = World::new();
    world.is_quiet = true;
    world.play("node a");
    world.play("deploy calc sum=job1@v1 mul=job1@v1");
    world.play("run calc/mul 1");
    world.play("cancel r1");
    for run in 2..=105 {
        world.play("run calc/sum 1");
        world.play(&format!("cancel r{run}"));
    }
    let forgotten: Vec<&str> = world.out.lines().filter(|line| line.contains("forgotten")).collect();
    expect![[r#"
        0s r2 is forgotten
        0s r3 is forgotten
        0s r4 is forgotten
        0s r5 is forgotten"#]]
    .assert_eq(&forgotten.join("\n"));
}
