//! Runs: ranges, records, attempts, combining, lost nodes.

use expect_test::expect;

use crate::check;

#[test]
fn items_are_leased_in_ranges() {
    check(
        "
        node a
        node b
        deploy calc sum=job2@v1
        run calc/sum 20
        beat
        done a1 0..3
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy calc sum=job2@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 20
            RunStarted(RunId(1))
            0s a gets 1.4: a1[r1 0..3 attempt 1] | peers a b
            0s b gets 1.4: a2[r1 3..6 attempt 1] | peers a b
            > done a1 0..3
            0s r1 item 0: Completed (attempt 1)
            0s r1 item 1: Completed (attempt 1)
            0s r1 item 2: Completed (attempt 1)
            0s a gets 1.5: a3[r1 6..8 attempt 1] | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            r1 Running: 3 good, 0 bad of 20; leased 5, ready 12, backing off 0; 30 fuel
        "#]],
    );
}

#[test]
fn a_run_ends_when_all_items_are_recorded() {
    check(
        "
        node a
        deploy calc sum=job1@v1
        run calc/sum 2
        done a1 0
        beat
        done a2 1
        beat
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 2
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            0s a gets 1.4: a2[r1 1..2 attempt 1] | peers a
            > done a2 1
            0s r1 item 1: Completed (attempt 1)
            0s r1 ends: Completed
            0s a gets 1.5: | peers a
            --show
            a Alive, reserved 0B
            r1 Completed: 2 good, 0 bad of 2; leased 0, ready 0, backing off 0; 20 fuel
        "#]],
    );
}

#[test]
fn an_item_is_recorded_once() {
    check(
        "
        node a
        deploy calc sum=job1@v1
        run calc/sum 8
        done a1 0
        done a1 0
        beat
        done a1 0
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 8
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..2 attempt 1] | peers a
            > done a1 0
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            > done a1 0
            --show
            a Alive, reserved 64MiB
            r1 Running: 1 good, 0 bad of 8; leased 1, ready 6, backing off 0; 10 fuel
        "#]],
    );
}

#[test]
fn a_failed_item_is_tried_again_after_a_while() {
    check(
        "
        node a
        deploy calc sum=job1@v1,attempts:3
        run calc/sum 1
        fail a1 0
        beat
        show
        wait 1
        fail a2 0
        wait 3
        done a3 0
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1,attempts:3
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 1
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > fail a1 0
            0s a gets 1.4: | peers a
            --show
            a Alive, reserved 0B
            r1 Running: 0 good, 0 bad of 1; leased 0, ready 0, backing off 1; 10 fuel
            1s a gets 1.5: a2[r1 0..1 attempt 2] | peers a
            > fail a2 0
            2s a gets 1.6: | peers a
            4s a gets 1.7: a3[r1 0..1 attempt 3] | peers a
            > done a3 0
            4s r1 item 0: Completed (attempt 3)
            4s r1 ends: Completed
            4s a gets 1.8: | peers a
            --show
            a Alive, reserved 0B
            r1 Completed: 1 good, 0 bad of 1; leased 0, ready 0, backing off 0; 30 fuel
        "#]],
    );
}

#[test]
fn an_item_out_of_attempts_makes_the_run_fail() {
    check(
        "
        node a
        deploy calc sum=job1@v1,attempts:2,combine
        run calc/sum 2
        done a1 0
        beat
        fail a2 1
        beat
        wait 1
        fail a3 1
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1,attempts:2,combine
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 2
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            0s a gets 1.4: a2[r1 1..2 attempt 1] | peers a
            > fail a2 1
            0s a gets 1.5: | peers a
            1s a gets 1.6: a3[r1 1..2 attempt 2] | peers a
            > fail a3 1
            1s r1 item 1: Trapped: boom (attempt 2)
            1s r1 ends: Failed { failed: 1 }
            1s a gets 1.7: | peers a
            --show
            a Alive, reserved 0B
            r1 Failed { failed: 1 }: 1 good, 1 bad of 2; leased 0, ready 0, backing off 0; 30 fuel
        "#]],
    );
}

#[test]
fn the_combining_instance_comes_last() {
    check(
        "
        node a
        deploy calc sum=job2@v1,combine
        run calc/sum 2
        done a1 0
        done a2 1
        beat
        done a3 2
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job2@v1,combine
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 2
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] a2[r1 1..2 attempt 1] | peers a
            > done a1 0
            > done a2 1
            0s r1 item 0: Completed (attempt 1)
            0s r1 item 1: Completed (attempt 1)
            0s a gets 1.4: a3[r1 2..3 attempt 1 combine] | peers a
            > done a3 2
            0s r1 item 2: Completed (attempt 1)
            0s r1 ends: Completed
            0s a gets 1.5: | peers a
            --show
            a Alive, reserved 0B
            r1 Completed: 3 good, 0 bad of 2; leased 0, ready 0, backing off 0; 30 fuel
        "#]],
    );
}

#[test]
fn a_combining_instance_is_tried_again_too() {
    check(
        "
        node a
        deploy calc sum=job1@v1,combine,attempts:2
        run calc/sum 1
        done a1 0
        beat
        fail a2 1
        beat
        restart
        wait 2
        done a3 1
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1,combine,attempts:2
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 1
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            0s a gets 1.4: a2[r1 1..2 attempt 1 combine] | peers a
            > fail a2 1
            0s a gets 1.5: | peers a
            > restart
            1s a gets 2.3: a3[r1 1..2 attempt 2 combine] | peers a
            > done a3 1
            2s r1 item 1: Completed (attempt 2)
            2s r1 ends: Completed
            2s a gets 2.4: | peers a
            --show
            a Alive, reserved 0B
            r1 Completed: 2 good, 0 bad of 1; leased 0, ready 0, backing off 0; 30 fuel
        "#]],
    );
}

#[test]
fn items_of_a_lost_node_are_run_elsewhere_under_the_same_attempt() {
    check(
        "
        node a
        node b
        deploy calc sum=job1@v1
        run calc/sum 8
        done a1 0
        beat a
        down a
        wait 12
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 8
            RunStarted(RunId(1))
            0s a gets 1.4: a1[r1 0..2 attempt 1] | peers a b
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            10s a is lost
            10s a1 is lost
            10s b gets 1.4: | peers b
            11s a is lost
            11s b gets 1.5: a2[r1 1..3 attempt 1] | peers b
            --show
            a Lost, reserved 0B
            b Alive, reserved 64MiB
            r1 Running: 1 good, 0 bad of 8; leased 2, ready 5, backing off 0; 10 fuel
        "#]],
    );
}

#[test]
fn what_a_lost_node_brings_back_is_recorded_if_nobody_was_faster() {
    check(
        "
        node a
        node b
        deploy calc sum=job1@v1
        run calc/sum 4
        done a1 0
        down a
        wait 12
        up a
        wait 1
        done a2 0
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 4
            RunStarted(RunId(1))
            0s a gets 1.4: a1[r1 0..1 attempt 1] | peers a b
            > done a1 0
            10s a is lost
            10s a1 is lost
            10s b gets 1.4: | peers b
            11s a is lost
            11s b gets 1.5: a2[r1 0..1 attempt 1] | peers b
            13s r1 item 0: Completed (attempt 1)
            13s a gets 1.8: a3[r1 1..2 attempt 1] | peers a b
            13s b gets 1.7: | peers a b
            > done a2 0
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 0B
            r1 Running: 1 good, 0 bad of 4; leased 1, ready 2, backing off 0; 10 fuel
        "#]],
    );
}

#[test]
fn a_node_that_returns_goes_on_with_items_nobody_took() {
    check(
        "
        node a
        deploy calc sum=job1@v1
        run calc/sum 4
        beat
        pass 12
        show
        beat a
        done a1 0
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 4
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            10s a is lost
            10s a1 is lost
            11s a is lost
            --show
            a Lost, reserved 0B
            r1 Running: 0 good, 0 bad of 4; leased 0, ready 4, backing off 0; 0 fuel, waiting: all nodes are lost
            12s a gets 1.7: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            12s r1 item 0: Completed (attempt 1)
            12s a gets 1.8: a2[r1 1..2 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Running: 1 good, 0 bad of 4; leased 1, ready 2, backing off 0; 10 fuel
        "#]],
    );
}

#[test]
fn a_refused_job_fails_without_more_attempts() {
    check(
        "
        node a
        deploy calc sum=job1@v1,attempts:5
        state a1 refused no such import
        state a2 refused no such import
        run calc/sum 2
        wait 3
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1,attempts:5
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 2
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            1s r1 item 0: NotStarted: no such import (attempt 1)
            1s a gets 1.4: a2[r1 1..2 attempt 1] | peers a
            2s r1 item 1: NotStarted: no such import (attempt 1)
            2s r1 ends: Failed { failed: 2 }
            2s a gets 1.5: | peers a
            --show
            a Alive, reserved 0B
            r1 Failed { failed: 2 }: 0 good, 2 bad of 2; leased 0, ready 0, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn items_that_an_allocation_finishes_without_records_are_queued_again() {
    check(
        "
        node a
        deploy calc sum=job1@v1
        run calc/sum 4
        state a1 finished
        beat
        show
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 4
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            0s a gets 1.4: a2[r1 1..2 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 4; leased 1, ready 2, backing off 1; 0 fuel
            --show
            a Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 4; leased 1, ready 3, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn a_stopped_item_does_not_use_up_an_attempt() {
    check(
        "
        node a
        deploy calc sum=job1@v1
        run calc/sum 1
        stopped a1 0
        beat
        wait 1
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 1
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > stopped a1 0
            0s a gets 1.4: | peers a
            1s a gets 1.5: a2[r1 0..1 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 1; leased 1, ready 0, backing off 0; 10 fuel
        "#]],
    );
}

#[test]
fn attempts_are_remembered_over_a_restart() {
    check(
        "
        node a
        deploy calc sum=job1@v1,attempts:2
        run calc/sum 8
        fail a1 0
        beat
        show
        restart
        done a1 1
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1,attempts:2
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 8
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..2 attempt 1] | peers a
            > fail a1 0
            --show
            a Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 8; leased 1, ready 6, backing off 1; 10 fuel
            > restart
            > done a1 1
            0s r1 item 1: Completed (attempt 1)
            0s a gets 2.3: a2[r1 2..4 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Running: 1 good, 0 bad of 8; leased 2, ready 5, backing off 0; 20 fuel
        "#]],
    );
}

#[test]
fn a_run_keeps_the_revision_it_was_started_with() {
    check(
        "
        node a
        deploy calc sum=job1@v1
        run calc/sum 4
        beat
        deploy calc sum=job1@v2
        done a1 0
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 4
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > deploy calc sum=job1@v2
            Deployed { revision: Revision(2), changed: true }
            > done a1 0
            0s r1 item 0: Completed (attempt 1)
            0s a gets 1.4: a2[r1 1..2 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Running: 1 good, 0 bad of 4; leased 1, ready 2, backing off 0; 10 fuel
        "#]],
    );
}

#[test]
fn a_cancelled_run_gives_its_room_back() {
    check(
        "
        node a
        deploy calc sum=job2@v1
        run calc/sum 8
        beat
        cancel r1
        cancel r1
        cancel r9
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job2@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 8
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] a2[r1 1..2 attempt 1] | peers a
            > cancel r1
            Cancelled
            0s r1 ends: Cancelled
            0s a gets 1.4: | peers a
            > cancel r1
            Cancelled
            > cancel r9
            unknown_run: there is no run r9
            --show
            a Alive, reserved 0B
            r1 Cancelled: 0 good, 0 bad of 8; leased 0, ready 0, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn stopping_an_app_cancels_its_runs() {
    check(
        "
        node a
        deploy calc sum=job2@v1
        run calc/sum 8
        stop calc
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job2@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 8
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] a2[r1 1..2 attempt 1] | peers a
            > stop calc
            Stopped { revision: Revision(1), changed: false }
            0s r1 ends: Cancelled
            0s a gets 1.4: | peers a
            --show
            a Alive, reserved 0B
            r1 Cancelled: 0 good, 0 bad of 8; leased 0, ready 0, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn a_run_without_room_waits_with_a_reason() {
    check(
        "
        node a 64MiB
        deploy calc sum=job4@v1
        run calc/sum 32
        show
        node b 64MiB
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job4@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 32
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..2 attempt 1] | peers a
            --show
            a Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 32; leased 2, ready 30, backing off 0; 0 fuel, waiting: needs 64MiB; the freest of 1 node has 0B
            0s a gets 1.4: a1[r1 0..2 attempt 1] | peers a b
            0s b gets 1.4: a2[r1 2..4 attempt 1] | peers a b
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 64MiB
            r1 Running: 0 good, 0 bad of 32; leased 4, ready 28, backing off 0; 0 fuel, waiting: needs 64MiB; the freest of 2 nodes has 0B
        "#]],
    );
}

#[test]
fn a_late_record_of_an_ended_run_is_forgotten() {
    check(
        "
        node a
        deploy calc sum=job1@v1
        run calc/sum 4
        beat
        done a1 0
        cancel r1
        beat
        beat
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            > deploy calc sum=job1@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 4
            RunStarted(RunId(1))
            0s a gets 1.3: a1[r1 0..1 attempt 1] | peers a
            > done a1 0
            > cancel r1
            Cancelled
            0s r1 ends: Cancelled
            0s a gets 1.4: | peers a
            --show
            a Alive, reserved 0B
            r1 Cancelled: 0 good, 0 bad of 4; leased 0, ready 0, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn only_jobs_run_and_only_so_many_items() {
    check(
        "
        deploy calc sum=job1@v1 web=0@v1
        run calc/web 1
        run calc/none 1
        run none/sum 1
        run calc/sum 0
        run calc/sum 1000001
        run calc/sum 1000000
        show
        ",
        expect![[r#"
            > deploy calc sum=job1@v1 web=0@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/web 1
            not_a_job: `default/calc/web` is a service; only a job can be run
            > run calc/none 1
            unknown_workload: there is no workload `default/calc/none`
            > run none/sum 1
            unknown_app: there is no app `default/none`
            > run calc/sum 0
            no_items: a run needs at least one item
            > run calc/sum 1000001
            too_many_items: the run has too many items: limit `items` is 1000000, observed 1000001
            > run calc/sum 1000000
            RunStarted(RunId(1))
            --show
            default/calc/web 0 of 0
            r1 Running: 0 good, 0 bad of 1000000; leased 0, ready 1000000, backing off 0; 0 fuel, waiting: no node has joined yet
        "#]],
    );
}

#[test]
fn a_large_run_is_not_many_allocations() {
    check(
        "
        node a
        node b
        deploy calc sum=job8@v1
        run calc/sum 1000000
        show
        ",
        expect![[r#"
            0s a gets 1.2: | peers a
            0s a gets 1.3: | peers a b
            0s b gets 1.3: | peers a b
            > deploy calc sum=job8@v1
            Deployed { revision: Revision(1), changed: true }
            > run calc/sum 1000000
            RunStarted(RunId(1))
            0s a gets 1.4: a1[r1 0..1024 attempt 1] a3[r1 2048..3072 attempt 1] a5[r1 4096..5120 attempt 1] a7[r1 6144..7168 attempt 1] | peers a b
            0s b gets 1.4: a2[r1 1024..2048 attempt 1] a4[r1 3072..4096 attempt 1] a6[r1 5120..6144 attempt 1] a8[r1 7168..8192 attempt 1] | peers a b
            --show
            a Alive, reserved 256MiB
            b Alive, reserved 256MiB
            r1 Running: 0 good, 0 bad of 1000000; leased 8192, ready 991808, backing off 0; 0 fuel
        "#]],
    );
}
