//! What would come of a deploy or a loss before it is done; and that it is told as it then comes.

use std::fmt::Write as _;

use dunlin_model::{AllocationForecast, AppSpec, DurationMs, Forecast, Timestamp, WorkloadForecast};
use dunlin_scheduler::{Cluster, Command, Foresight, plan};
use expect_test::expect;

use crate::placed;

const HOUR: DurationMs = DurationMs(3_600_000);

/// Returns what a deploy would change.
pub(crate) fn planned(cluster: &Cluster, now: Timestamp, spec: AppSpec) -> String {
    match plan(cluster.clone(), now, spec, HOUR) {
        Ok(told) if !told.changed => format!("revision {}, nothing changes\n", told.revision),
        Ok(told) => {
            let before = told.before.map_or("none".to_owned(), |app| app.revision.to_string());
            format!("revision {before} to {}\n{}", told.revision, shown(&told.forecast))
        }
        Err(rejection) => format!("{}: {rejection}\n", rejection.code()),
    }
}

/// Returns what comes of what `words` say.
pub(crate) fn simulated(
    cluster: &Cluster,
    now: Timestamp,
    words: &[&str],
    manifest: impl Fn(&str) -> AppSpec,
) -> String {
    let mut foresight = Foresight::of(cluster.clone(), now);
    let mut within = HOUR;
    for word in words {
        match word.split_once('=').unwrap() {
            ("lose", node) => foresight.lose(&node.parse().unwrap()).unwrap(),
            ("zone", zone) => foresight.zone(zone).iter().for_each(|node| foresight.lose(node).unwrap()),
            ("apply", name) => {
                drop(foresight.submit(Command::Deploy { spec: manifest(name), accept: true }).unwrap())
            }
            ("within", seconds) => within = DurationMs(seconds.parse::<u64>().unwrap() * 1_000),
            other => panic!("{other:?} is no word"),
        }
    }
    shown(&foresight.look(within))
}

fn shown(told: &Forecast) -> String {
    let mut out = String::new();
    for moment in &told.moments {
        writeln!(out, "  {:>6} {:?}: {}", moment.after_ms.to_string(), moment.kind, moment.text).unwrap();
    }
    for it in &told.workloads {
        let WorkloadForecast { workload, desired_before, serving_before, desired, serving, fewest, .. } = it;
        let whole = it.whole_after_ms.map(|time| format!(", whole after {time}")).unwrap_or_default();
        let waiting = it.waiting.as_ref().map(|why| format!(", waits: {why}")).unwrap_or_default();
        writeln!(
            out,
            "  {workload} {serving_before} of {desired_before} to {serving} of {desired}, fewest {fewest}, down {}{whole}{waiting}",
            it.down_ms
        )
        .unwrap();
        for AllocationForecast { change, id, from, to, because, .. } in &it.allocations {
            let id = id.map_or("new".to_owned(), |id| id.to_string());
            let from = from.as_ref().map(|node| format!(" from {node}")).unwrap_or_default();
            let to = to.as_ref().map(|node| format!(" to {node}")).unwrap_or_default();
            let because = because.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            writeln!(out, "    {change:?} {id}{from}{to}{because}").unwrap();
        }
    }
    let held =
        if told.held_zones.is_empty() { String::new() } else { format!(", held {:?}", told.held_zones) };
    writeln!(out, "  {:?} after {}, {} untouched{held}", told.ends, told.took_ms, told.untouched).unwrap();
    out
}

fn web(app: &str, component: &str, allocations: u32, placement: &str) -> String {
    format!(
        r#"
        [app]
        name = "{app}"
        [service.web]
        component = "{component}"
        allocations = {allocations}
        [service.web.placement]
        {placement}
        "#
    )
}

#[test]
fn a_plan_tells_what_then_comes() {
    placed(
        &[
            ("one", &web("shop", "one.wasm", 2, "")),
            ("two", &web("shop", "two.wasm", 2, "")),
            ("other", &web("other", "other.wasm", 1, "")),
        ],
        "
        node a 1GiB
        node b 1GiB
        apply other
        wait 1
        plan one
        apply one
        wait 1
        where
        plan one
        plan two
        apply two
        wait 10
        where
        ",
        expect![[r#"
            > apply other
            Deployed { revision: Revision(1), changed: true }
            --plan one
            revision none to 1
                 0ms Placed: a2 of `default/shop/web` is placed on b
                 0ms Placed: a3 of `default/shop/web` is placed on a
                  1s Serves: a3 of `default/shop/web` serves on a
                  1s Serves: a2 of `default/shop/web` serves on b
              default/shop/web 0 of 0 to 2 of 2, fewest 0, down 0ms, whole after 1s
                Started new to b
                Started new to a
              Settled after 1s, 1 untouched
            > apply one
            Deployed { revision: Revision(1), changed: true }
            --where
            default/other/web on a:1
            default/shop/web on a:1 b:1
            --plan one
            revision 1, nothing changes
            --plan two
            revision 1 to 2
                 0ms Placed: a4 of `default/shop/web` is placed on b
                  1s Serves: a4 of `default/shop/web` serves on b
                  1s Leaves: a2 of `default/shop/web` leaves the routes on b
                  1s Placed: a5 of `default/shop/web` is placed on a
                  2s Ended: a2 of `default/shop/web` ends on b: revision 2 took its place
                  2s Serves: a5 of `default/shop/web` serves on a
                  2s Leaves: a3 of `default/shop/web` leaves the routes on a
                  3s Ended: a3 of `default/shop/web` ends on a: revision 2 took its place
              default/shop/web 2 of 2 to 2 of 2, fewest 2, down 0ms
                Replaced a2 from b to b: revision 2 took its place
                Replaced a3 from a to a: revision 2 took its place
              Settled after 12s, 1 untouched
            > apply two
            Deployed { revision: Revision(2), changed: true }
            --where
            default/other/web on a:1
            default/shop/web on a:1 b:1
        "#]],
    );
}

#[test]
fn a_plan_tells_what_stays_and_what_would_wait() {
    placed(
        &[
            ("two", &web("shop", "two.wasm", 2, "")),
            ("three", &web("shop", "two.wasm", 3, "")),
            ("bound", &web("shop", "two.wasm", 3, r#"require = ["zone = b"]"#)),
        ],
        "
        node a 1GiB
        node b 1GiB
        apply two
        wait 1
        plan three
        apply three
        wait 1
        where
        plan bound
        ",
        expect![[r#"
            > apply two
            Deployed { revision: Revision(1), changed: true }
            --plan three
            revision 1 to 2
                 0ms Placed: a3 of `default/shop/web` is placed on a
                  1s Serves: a3 of `default/shop/web` serves on a
              default/shop/web 2 of 2 to 3 of 3, fewest 2, down 0ms, whole after 1s
                Started new to a
                Kept a1 from a
                Kept a2 from b
              Settled after 1s, 0 untouched
            > apply three
            Deployed { revision: Revision(2), changed: true }
            --where
            default/shop/web on a:2 b:1
            --plan bound
            revision 2 to 3
                 10m TakenBack: revision 3 of `default/shop` is taken back, and revision 2 restored: not well within 10m: 0 of 3 allocations of `web` serve it; no node fulfils `zone = b`
              default/shop/web 3 of 3 to 3 of 3, fewest 3, down 0ms
                Kept a1 from a
                Kept a2 from b
                Kept a3 from a
              Settled after 610s, 0 untouched
        "#]],
    );
}

#[test]
fn a_plan_that_gives_room_to_others_tells_of_them() {
    placed(
        &[
            ("waits", &web("waits", "a.wasm", 2, "")),
            ("shop", &web("shop", "b.wasm", 2, "")),
            ("less", &web("shop", "b.wasm", 1, "")),
        ],
        "
        node a 192MiB
        apply shop
        apply waits
        wait 1
        plan less
        ",
        expect![[r#"
            > apply shop
            Deployed { revision: Revision(1), changed: true }
            > apply waits
            Deployed { revision: Revision(1), changed: true }
            --plan less
            revision 1 to 2
                 0ms Leaves: a2 of `default/shop/web` leaves the routes on a
                  1s Ended: a2 of `default/shop/web` ends on a: there were more than are wanted, which is 1
              default/shop/web 2 of 2 to 1 of 1, fewest 1, down 0ms
                Ended a2 from a: there were more than are wanted, which is 1
                Kept a1 from a
              default/waits/web 1 of 2 to 2 of 2, fewest 1, down 0ms, whole after 2s
                Started new to a
                Kept a3 from a
              Settled after 1s, 0 untouched
        "#]],
    );
}

#[test]
fn a_lost_node_is_replaced_when_its_lease_and_the_brake_allow_it() {
    placed(
        &[("shop", &web("shop", "a.wasm", 3, "")), ("db", &web("db", "d.wasm", 1, r#"require = ["disk"]"#))],
        "
        node a 1GiB zone=a disk=ssd
        node b 1GiB zone=b
        node c 1GiB zone=b
        apply shop
        apply db
        wait 1
        simulate lose=a
        simulate lose=a apply=shop within=5
        down a
        wait 25
        where
        ",
        expect![[r#"
            > apply shop
            Deployed { revision: Revision(1), changed: true }
            > apply db
            Deployed { revision: Revision(1), changed: true }
            --simulate lose=a
                 10s NodeLost: a is lost: it was silent for 10s
                 10s Lost: a1 of `default/shop/web` is lost with a
                 10s Lost: a4 of `default/db/web` is lost with a
                 10s Down: nothing of `default/db/web` serves
                 11s NodeReleased: what a ran may be replaced
                 11s Placed: a5 of `default/shop/web` is placed on b
                 11s Ended: a1 of `default/shop/web` ends on a: a was lost, and it was replaced or not wanted any more
                 12s Serves: a5 of `default/shop/web` serves on b
              default/db/web 1 of 1 to 0 of 1, fewest 0, down 2s, waits: no node fulfils `disk` (1 node lost)
                Lost a4 from a
              default/shop/web 3 of 3 to 3 of 3, fewest 2, down 0ms, whole after 12s
                Moved a1 from a to b: a was lost, and it was replaced or not wanted any more
                Kept a2 from b
                Kept a3 from c
              Settled after 12s, 0 untouched
            --simulate lose=a apply=shop within=5
              Time after 0ms, 2 untouched
            11s a is lost
            11s a1 is lost
            11s a4 is lost
            12s a is lost
            --where
            default/shop/web on b:2 c:1
            default/db/web 0 of 1: no node fulfils `disk` (1 node lost)
        "#]],
    );
}

#[test]
fn a_lost_zone_is_held_and_what_runs_there_only_is_down() {
    placed(
        &[
            ("shop", &web("shop", "a.wasm", 4, r#"spread = ["zone"]"#)),
            ("local", &web("local", "b.wasm", 1, r#"require = ["zone = b"]"#)),
        ],
        "
        node a1 1GiB zone=a
        node a2 1GiB zone=a
        node b1 1GiB zone=b
        node b2 1GiB zone=b
        node b3 1GiB zone=b
        apply shop
        apply local
        wait 1
        simulate zone=b
        ",
        expect![[r#"
            > apply shop
            Deployed { revision: Revision(1), changed: true }
            > apply local
            Deployed { revision: Revision(1), changed: true }
            --simulate zone=b
                 10s NodeLost: b1 is lost: it was silent for 10s
                 10s ZoneHeld: the zone `b` is held: 3 of its 3 nodes are lost, and nothing of it is replaced until they are back or `dunlin node release` says so
                 10s Lost: a2 of `default/shop/web` is lost with b1
                 10s NodeLost: b2 is lost: it was silent for 10s
                 10s Lost: a4 of `default/shop/web` is lost with b2
                 10s NodeLost: b3 is lost: it was silent for 10s
                 10s Lost: a5 of `default/local/web` is lost with b3
                 10s Down: nothing of `default/local/web` serves
              default/local/web 1 of 1 to 0 of 1, fewest 0, down 1s, waits: 1 allocation is on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
                Lost a5 from b3
              default/shop/web 4 of 4 to 2 of 4, fewest 2, down 0ms, waits: 2 allocations are on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
                Lost a2 from b1
                Lost a4 from b2
                Kept a1 from a1
                Kept a3 from a2
              Settled after 10s, 0 untouched, held ["b"]
        "#]],
    );
}

#[test]
fn what_is_looked_at_is_left_as_it_is() {
    placed(
        &[("one", &web("shop", "one.wasm", 2, ""))],
        "
        node a 1GiB
        node b 1GiB
        deploy batch sum=job2@v1
        run batch/sum 10
        apply one
        wait 1
        simulate lose=a
        drain a 60
        simulate within=1
        show
        wait 5
        show
        ",
        expect![[r#"
            > deploy batch sum=job2@v1
            Deployed { revision: Revision(1), changed: true }
            > run batch/sum 10
            RunStarted(RunId(1))
            > apply one
            Deployed { revision: Revision(1), changed: true }
            --simulate lose=a
                 10s NodeLost: a is lost: it was silent for 10s
                 10s Lost: a1 of `default/batch/sum` is lost with a
                 10s Lost: a3 of `default/shop/web` is lost with a
                 11s NodeReleased: what a ran may be replaced
                 11s Placed: a5 of `default/shop/web` is placed on b
                 11s Ended: a3 of `default/shop/web` ends on a: a was lost, and it was replaced or not wanted any more
                 11s Placed: a6 of `default/batch/sum` is placed on b
                 12s Serves: a5 of `default/shop/web` serves on b
              default/batch/sum 0 of 0 to 0 of 0, fewest 0, down 0ms
                Moved a1 from a to b: a was lost, and its items are for others
                Kept a2 from b
              default/shop/web 2 of 2 to 2 of 2, fewest 1, down 0ms, whole after 12s
                Moved a3 from a to b: a was lost, and it was replaced or not wanted any more
                Kept a4 from b
              Settled after 12s, 0 untouched
            > drain a 60
            Cordoned
            --simulate within=1
                 0ms Serves: a5 of `default/shop/web` serves on b
                 0ms Leaves: a3 of `default/shop/web` leaves the routes on a
                  1s Ended: a3 of `default/shop/web` ends on a: a is to be left
              default/shop/web 2 of 2 to 2 of 2, fewest 2, down 0ms
                Ended a3 from a: a is to be left
                Kept a4 from b
                Kept a5 from b
              Time after 1s, 1 untouched
            --show
            a Alive, reserved 128MiB
            b Alive, reserved 192MiB
            default/shop/web 2 of 2
            r1 Running: 0 good, 0 bad of 10; leased 3, ready 7, backing off 0; 0 fuel
            --show
            a Alive, reserved 64MiB
            b Alive, reserved 192MiB
            default/shop/web 2 of 2
            r1 Running: 0 good, 0 bad of 10; leased 3, ready 7, backing off 0; 0 fuel
        "#]],
    );
}

#[test]
fn a_plan_says_that_canaries_will_wait_for_a_person() {
    let web = |component: &str, fields: &str| {
        format!(
            "[app]\nname = \"shop\"\n[service.web]\ncomponent = \"{component}\"\nallocations = 2\n\
             [service.web.rollout]\n{fields}\n"
        )
    };
    placed(
        &[
            ("one", &web("1.wasm", "")),
            ("two", &web("2.wasm", "canary = 1\npromote = \"by-hand\"\nbake = \"1s\"")),
        ],
        "
        node a 1GiB
        node b 1GiB
        apply one
        wait 30
        plan two
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            --plan two
            revision 1 to 2
                 0ms Placed: a3 of `default/shop/web` is placed on a
                  1s Serves: a3 of `default/shop/web` serves on a
              default/shop/web 2 of 2 to 3 of 2, fewest 2, down 0ms, waits: its canaries are well, and wait for `dunlin promote default/shop`
                Started new to a
                Kept a1 from a
                Kept a2 from b
              Settled after 1s, 0 untouched
        "#]],
    );
}
