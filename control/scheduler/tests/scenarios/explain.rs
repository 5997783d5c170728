//! Why things are as they are: where and why there, what waits for what, and why something ended.

use std::fmt::Write as _;

use dunlin_model::{AllocationFailure, EndedAllocation, ExplainedAllocation, ExplainedWait};
use dunlin_scheduler::Cluster;
use expect_test::expect;

use crate::placed;

/// Returns what is said of a workload of `default`, or of an allocation.
pub(crate) fn explained(cluster: &Cluster, what: &str) -> String {
    let mut out = String::new();
    if let Ok(id) = what.parse() {
        let Some(told) = cluster.explain_allocation(id) else { return "nobody knows it\n".to_owned() };
        writeln!(out, "of {}", told.workload).unwrap();
        told.allocation.iter().for_each(|it| placed_there(&mut out, it));
        told.failures.iter().for_each(|it| failed(&mut out, it));
        told.ended.iter().for_each(|it| ended(&mut out, it));
        return out;
    }
    let workload = format!("default/{what}").parse().unwrap();
    let Some(told) = cluster.explain(&workload) else { return "nobody knows it\n".to_owned() };
    let revision = told.revision.map_or("no revision".to_owned(), |revision| format!("revision {revision}"));
    let needs = told.requires.join(", ");
    let needs = if needs.is_empty() { needs } else { format!(", needs {needs}") };
    writeln!(out, "{revision}, {} of {}{needs}", told.running, told.desired).unwrap();
    told.allocations.iter().for_each(|it| placed_there(&mut out, it));
    told.waiting.iter().for_each(|it| waits(&mut out, it));
    told.failures.iter().for_each(|it| failed(&mut out, it));
    told.ended.iter().for_each(|it| ended(&mut out, it));
    out
}

fn placed_there(out: &mut String, told: &ExplainedAllocation) {
    let ExplainedAllocation { id, revision, node, state, decided_by, because, .. } = told;
    writeln!(out, "  {id}@{revision} on {node}, {state}: {decided_by:?}: {because}").unwrap();
}

fn waits(out: &mut String, told: &ExplainedWait) {
    let ExplainedWait { missing, ready_items, reason, nodes, able, filters, remedies, nearest } = told;
    writeln!(out, "  {missing} missing, {ready_items} items ready: {reason}").unwrap();
    writeln!(out, "  {able} of {nodes} nodes could take one").unwrap();
    for filter in filters {
        writeln!(out, "    {} {}", filter.nodes, filter.filter).unwrap();
    }
    for remedy in remedies {
        writeln!(out, "  {:?} ({} nodes): {}", remedy.kind, remedy.nodes, remedy.text).unwrap();
    }
    if let Some(nearest) = nearest {
        writeln!(out, "  nearest: {nearest}").unwrap();
    }
}

fn failed(out: &mut String, told: &AllocationFailure) {
    writeln!(out, "  {}s {} on {}: {}", told.at.0 / 1_000, told.id, told.node, told.said).unwrap();
}

fn ended(out: &mut String, told: &EndedAllocation) {
    let EndedAllocation { id, revision, node, at, lasted, why, because, last_said } = told;
    let said = last_said.as_ref().map(|said| format!(", last {said}")).unwrap_or_default();
    let at = at.0 / 1_000;
    writeln!(out, "  {at}s {id}@{revision} on {node} ended after {lasted}: {why:?}: {because}{said}")
        .unwrap();
}

const CACHE: &str = r#"
    [app]
    name = "cache"
    [service.cache]
    component = "cache.wasm"
    allocations = 1
"#;

fn web(allocations: u32, placement: &str) -> String {
    format!(
        r#"
        [app]
        name = "shop"
        [service.web]
        component = "web.wasm"
        allocations = {allocations}
        [service.web.placement]
        {placement}
        "#
    )
}

#[test]
fn an_allocation_is_where_it_is_for_the_first_thing_in_which_nodes_differ() {
    placed(
        &[
            ("cache", CACHE),
            ("plain", &web(3, "")),
            ("ssd", &web(2, r#"prefer = [{ expression = "disk = ssd", weight = 50 }]"#)),
            ("zones", &web(3, r#"spread = ["zone"]"#)),
        ],
        "
        node a1 1GiB zone=a
        node a2 1GiB zone=a
        node b1 512MiB zone=b disk=ssd
        apply cache
        apply plain
        wait 1
        explain cache/cache
        explain shop/web
        apply ssd
        wait 3
        explain shop/web
        apply zones
        wait 3
        explain shop/web
        ",
        expect![[r#"
            > apply cache
            Deployed { revision: Revision(1), changed: true }
            > apply plain
            Deployed { revision: Revision(1), changed: true }
            --explain cache/cache
            revision 1, 1 of 1, needs 64MiB of memory, a fuel rate of 50M/s
              a1@1 on a1, running: Name: a1 and a2 are equal, and the lower name goes first
            --explain shop/web
            revision 1, 3 of 3, needs 64MiB of memory, a fuel rate of 50M/s
              a2@1 on a2, running: Copies: a2 has fewer of its allocations beside it (0) than a1 (1)
              a3@1 on b1, running: Copies: b1 has fewer of its allocations beside it (0) than a2 (1)
              a4@1 on a1, running: Copies: a1 has fewer of its allocations beside it (0) than a2 (1)
            > apply ssd
            Deployed { revision: Revision(2), changed: true }
            --explain shop/web
            revision 2, 2 of 2, needs 64MiB of memory, a fuel rate of 50M/s
              a2@2 on a2, running: Elsewhere: today b1 would be taken: more of what it prefers holds on b1 (50) than on a2 (0); what runs is moved only if it is clearly better there, one allocation in five minutes
              a3@2 on b1, running: Preference: more of what it prefers holds on b1 (50) than on a1 (0)
              2s a4@2 on a1 ended after 2s: ScaledDown: there were more than are wanted, which is 2
            > apply zones
            Deployed { revision: Revision(3), changed: true }
            --explain shop/web
            revision 3, 3 of 3, needs 64MiB of memory, a fuel rate of 50M/s
              a2@3 on a2, running: Copies: a2 has fewer of its allocations beside it (0) than a1 (1)
              a3@3 on b1, running: Spread: spread over zone, it is less full there than on a2
              a5@3 on a1, running: Copies: a1 has fewer of its allocations beside it (0) than a2 (1)
              2s a4@2 on a1 ended after 2s: ScaledDown: there were more than are wanted, which is 2
        "#]],
    );
}

#[test]
fn what_must_be_near_or_apart_is_judged_without_itself() {
    placed(
        &[
            ("cache", CACHE),
            ("bound", &web(2, r#"near = ["cache/cache"]"#)),
            ("apart", &web(2, r#"apart = ["web"]"#)),
        ],
        "
        node a1 1GiB zone=a
        node a2 1GiB zone=a
        node b1 512MiB zone=b
        apply cache
        wait 1
        apply bound
        wait 1
        explain shop/web
        explain a1
        delete shop
        wait 2
        apply apart
        wait 1
        explain shop/web
        explain a99
        explain shop/nothing
        ",
        expect![[r#"
            > apply cache
            Deployed { revision: Revision(1), changed: true }
            > apply bound
            Deployed { revision: Revision(1), changed: true }
            --explain shop/web
            revision 1, 2 of 2, needs near default/cache/cache over node, 64MiB of memory, a fuel rate of 50M/s
              a2@1 on a1, running: OnlyNode: no other node can take it
              a3@1 on a1, running: OnlyNode: no other node can take it
            --explain a1
            of default/cache/cache
              a1@1 on a1, running: Elsewhere: today a2 would be taken: a2 is emptier (0.0 % reserved) than a1 (12.5 %); what runs is moved only if it is clearly better there, one allocation in five minutes
            > delete shop
            Deleted
            > apply apart
            Deployed { revision: Revision(1), changed: true }
            --explain shop/web
            revision 1, 2 of 2, needs apart from default/shop/web over node, 64MiB of memory, a fuel rate of 50M/s
              a4@1 on a1, running: Elsewhere: today b1 would be taken: b1 is emptier (0.0 % reserved) than a1 (6.2 %); what runs is moved only if it is clearly better there, one allocation in five minutes
              a5@1 on a2, running: Name: a2 and b1 are equal, and the lower name goes first
              3s a3@1 on a1 ended after 2s: Deleted: its app was deleted
              3s a2@1 on a1 ended after 2s: Deleted: its app was deleted
            --explain a99
            nobody knows it
            --explain shop/nothing
            nobody knows it
        "#]],
    );
}

#[test]
fn what_waits_names_the_filters_and_each_change_that_alone_would_do() {
    placed(
        &[("web", &web(2, r#"require = ["zone = b", "arch = arm64"]"#)), ("cache", CACHE)],
        "
        node a1 1GiB zone=a arch=arm64
        node b1 48MiB zone=b arch=arm64
        node b2 1GiB zone=b
        node c1 1GiB zone=c
        node b3 1GiB zone=b arch=arm64
        cordon b3
        apply web
        explain shop/web
        uncordon b3
        wait 1
        explain shop/web
        ",
        expect![[r#"
            > cordon b3
            Cordoned
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --explain shop/web
            revision 1, 0 of 2, needs zone = b, arch = arm64, 64MiB of memory, a fuel rate of 50M/s
              2 missing, 0 items ready: needs 64MiB; the freest of 1 node has 48MiB (3 nodes not fulfilling `zone = b`, `arch = arm64`, 1 node cordoned)
              0 of 5 nodes could take one
                1 cordoned
                1 not `arch = arm64`
                2 not `zone = b`
                1 too full
              Free (1 nodes): free 16MiB of memory on a node with `zone = b`, `arch = arm64`: on b1 it is least
              Lower (1 nodes): lower its `memory` to 48MiB
              Drop (1 nodes): drop `arch = arm64`
              Drop (1 nodes): drop `zone = b`
              UseNode (1 nodes): uncordon b3: `dunlin node uncordon b3`
            > uncordon b3
            Uncordoned
            --explain shop/web
            revision 1, 2 of 2, needs zone = b, arch = arm64, 64MiB of memory, a fuel rate of 50M/s
              a1@1 on b3, running: OnlyNode: no other node can take it
              a2@1 on b3, running: OnlyNode: no other node can take it
        "#]],
    );
}

#[test]
fn where_no_change_alone_would_do_the_nearest_node_is_told() {
    placed(
        &[("web", &web(1, r#"require = ["zone = b"]"#))],
        "
        apply web
        explain shop/web
        node a1 32MiB zone=a
        node a2 16MiB zone=a
        explain shop/web
        ",
        expect![[r#"
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --explain shop/web
            revision 1, 0 of 1, needs zone = b, 64MiB of memory, a fuel rate of 50M/s
              1 missing, 0 items ready: no node has joined yet
              0 of 0 nodes could take one
              AddNode (1 nodes): add a node with 64MiB of memory and a fuel rate of 50M/s free
            --explain shop/web
            revision 1, 0 of 1, needs zone = b, 64MiB of memory, a fuel rate of 50M/s
              1 missing, 0 items ready: no node fulfils `zone = b`
              0 of 2 nodes could take one
                2 not `zone = b`
              nearest: drop `zone = b`, and free 32MiB of memory on a1
        "#]],
    );
}

#[test]
fn a_quota_in_the_way_is_to_be_raised_by_so_much() {
    placed(
        &[("web", &web(3, ""))],
        "
        node a 1GiB
        node b 80MiB
        namespace default memory=100MiB allocations=1
        apply web
        wait 1
        explain shop/web
        cordon a
        cordon b
        explain shop/web
        ",
        expect![[r#"
            > namespace default memory=100MiB allocations=1
            NamespaceSet
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --explain shop/web
            revision 1, 1 of 3, needs 64MiB of memory, a fuel rate of 50M/s
              a1@1 on a, running: Name: a and b are equal, and the lower name goes first
              2 missing, 0 items ready: the namespace `default` has what it may have: limit `quota.memory` is 100MiB, observed 128MiB
              2 of 2 nodes could take one
              RaiseQuota (2 nodes): raise the quota of its namespace: `dunlin namespace set default --memory 128MiB --allocations 2`
            > cordon a
            Cordoned
            > cordon b
            Cordoned
            --explain shop/web
            revision 1, 1 of 3, needs 64MiB of memory, a fuel rate of 50M/s
              a1@1 on a, running: NotAgain: nothing would be placed there today: a is cordoned
              2 missing, 0 items ready: the namespace `default` has what it may have: limit `quota.memory` is 100MiB, observed 128MiB
              0 of 2 nodes could take one
                2 cordoned
              nearest: raise the quota of its namespace: `dunlin namespace set default --memory 128MiB --allocations 2`; besides, uncordon a, or one of 1 more: `dunlin node uncordon a`
        "#]],
    );
}

#[test]
fn what_stands_apart_and_what_is_counted_has_its_own_remedy_and_full_nodes_that_do_not_count_are_not_told() {
    placed(
        &[("apart", &web(3, r#"apart = ["web"]"#)), ("gpu", &web(3, r#"resources = { gpu = 2 }"#))],
        "
        node a 1GiB +gpu=3
        node b 16MiB +gpu=1
        node c 1GiB
        apply apart
        wait 1
        where
        explain shop/web
        delete shop
        wait 2
        apply gpu
        wait 1
        explain shop/web
        ",
        expect![[r#"
            > apply apart
            Deployed { revision: Revision(1), changed: true }
            --where
            default/shop/web on a:1 c:1
            default/shop/web 2 of 3: needs 64MiB; the freest of 1 node has 16MiB (2 nodes not near or apart as required)
            --explain shop/web
            revision 1, 2 of 3, needs apart from default/shop/web over node, 64MiB of memory, a fuel rate of 50M/s
              a1@1 on a, running: OnlyNode: no other node can take it
              a2@1 on c, running: OnlyNode: no other node can take it
              1 missing, 0 items ready: needs 64MiB; the freest of 1 node has 16MiB (2 nodes not near or apart as required)
              0 of 3 nodes could take one
                2 not apart from `default/shop/web`
                1 too full
              Free (1 nodes): free 48MiB of memory on b
              Lower (1 nodes): lower its `memory` to 16MiB
              Drop (2 nodes): let it not have to be apart from `default/shop/web`
            > delete shop
            Deleted
            > apply gpu
            Deployed { revision: Revision(1), changed: true }
            --explain shop/web
            revision 1, 1 of 3, needs 2 gpu, 64MiB of memory, a fuel rate of 50M/s
              a3@1 on a, running: OnlyNode: no other node can take it
              2 missing, 0 items ready: needs 64MiB, a fuel rate of 50M/s and 2 gpu; none of 2 nodes has all of it free at once (1 node without a resource)
              0 of 3 nodes could take one
                1 without any gpu
                2 too full
              Free (1 nodes): free 1 gpu on a
              Drop (1 nodes): drop `resources.gpu`, or declare it on c
              2s a2@1 on c ended after 2s: Deleted: its app was deleted
              2s a1@1 on a ended after 2s: Deleted: its app was deleted
        "#]],
    );
}

#[test]
fn what_ended_is_remembered_with_why_and_with_what_was_last_said() {
    placed(
        &[("two", &web(2, "")), ("one", &web(1, ""))],
        "
        node a 1GiB
        node b 1GiB
        apply two
        wait 1
        apply one
        wait 2
        deploy shop web=1@broken
        state a3 backing-off no such file
        wait 3
        explain shop/web
        explain a3
        deploy shop web=1@mended
        wait 4
        explain shop/web
        ",
        expect![[r#"
            > apply two
            Deployed { revision: Revision(1), changed: true }
            > apply one
            Deployed { revision: Revision(2), changed: true }
            > deploy shop web=1@broken
            Deployed { revision: Revision(3), changed: true }
            --explain shop/web
            revision 3, 1 of 1, needs 64MiB of memory, a fuel rate of 50M/s
              a1@2 on a, running: Failures: it failed lately on b, and not on a
              a3@3 on b, backing-off: no such file: Elsewhere: today a would be taken: it failed lately on b, and not on a; what runs is moved only if it is clearly better there, one allocation in five minutes
              4s a3 on b: backing-off: no such file
              2s a2@2 on b ended after 2s: ScaledDown: there were more than are wanted, which is 1
            --explain a3
            of default/shop/web
              a3@3 on b, backing-off: no such file: Elsewhere: today a would be taken: it failed lately on b, and not on a; what runs is moved only if it is clearly better there, one allocation in five minutes
              4s a3 on b: backing-off: no such file
            > deploy shop web=1@mended
            Deployed { revision: Revision(4), changed: true }
            --explain shop/web
            revision 4, 1 of 1, needs 64MiB of memory, a fuel rate of 50M/s
              a4@4 on b, running: Elsewhere: today a would be taken: a and b are equal, and the lower name goes first; what runs is moved only if it is clearly better there, one allocation in five minutes
              4s a3 on b: backing-off: no such file
              8s a1@2 on a ended after 8s: Replaced: revision 4 took its place
              6s a3@3 on b ended after 3s: Replaced: revision 4 took its place, last backing-off: no such file
              2s a2@2 on b ended after 2s: ScaledDown: there were more than are wanted, which is 1
        "#]],
    );
}

#[test]
fn what_was_drained_lost_or_deleted_is_remembered_until_a_restart() {
    placed(
        &[("one", &web(1, ""))],
        "
        node a 1GiB
        node b 1GiB
        apply one
        wait 1
        drain a 60
        wait 4
        uncordon a
        drain b 2
        cordon a
        wait 5
        uncordon a
        wait 3
        down a
        wait 30
        stop shop
        wait 3
        delete shop
        wait 3
        explain shop/web
        explain a1
        restart
        explain shop/web
        ",
        expect![[r#"
            > apply one
            Deployed { revision: Revision(1), changed: true }
            > drain a 60
            Cordoned
            > uncordon a
            Uncordoned
            > drain b 2
            Cordoned
            > cordon a
            Cordoned
            > uncordon a
            Uncordoned
            23s a is lost
            23s a3 is lost
            24s a is lost
            > stop shop
            Stopped { revision: Revision(2), changed: true }
            > delete shop
            Deleted
            --explain shop/web
            no revision, 0 of 0
              43s a3@2 on a ended after 38s: NodeLost: a was lost, and it was replaced or not wanted any more
              7s a2@1 on b ended after 6s: Drained: b is to be left
              3s a1@1 on a ended after 3s: Drained: a is to be left
            --explain a1
            of default/shop/web
              3s a1@1 on a ended after 3s: Drained: a is to be left
            > restart
            --explain shop/web
            nobody knows it
        "#]],
    );
}

#[test]
fn what_of_a_run_has_ended_is_remembered_and_what_waits_says_how_much() {
    placed(
        &[],
        "
        node a 80MiB
        deploy shop sum=job2@v1
        run shop/sum 10
        wait 1
        explain shop/sum
        done a1 0..1
        wait 1
        explain shop/sum
        cancel r1
        wait 1
        explain shop/sum
        ",
        expect![[r#"
            > deploy shop sum=job2@v1
            Deployed { revision: Revision(1), changed: true }
            > run shop/sum 10
            RunStarted(RunId(1))
            --explain shop/sum
            revision 1, 0 of 0, needs 64MiB of memory, a fuel rate of 50M/s
              a1@1 on a, running: OnlyNode: no other node can take it
              0 missing, 8 items ready: needs 64MiB; the freest of 1 node has 16MiB
              0 of 1 nodes could take one
                1 too full
              Free (1 nodes): free 48MiB of memory on a
              Lower (1 nodes): lower its `memory` to 16MiB
            > done a1 0..1
            2s r1 item 0: Completed (attempt 1)
            --explain shop/sum
            revision 1, 0 of 0, needs 64MiB of memory, a fuel rate of 50M/s
              a1@1 on a, running: OnlyNode: no other node can take it
              0 missing, 8 items ready: needs 64MiB; the freest of 1 node has 16MiB
              0 of 1 nodes could take one
                1 too full
              Free (1 nodes): free 48MiB of memory on a
              Lower (1 nodes): lower its `memory` to 16MiB
            > cancel r1
            Cancelled
            2s r1 ends: Cancelled
            --explain shop/sum
            revision 1, 0 of 0, needs 64MiB of memory, a fuel rate of 50M/s
              2s a1@1 on a ended after 2s: RunEnded: its run r1 was ended
        "#]],
    );
}

#[test]
fn a_held_service_and_one_that_runs_everywhere_say_so() {
    let everywhere = r#"
        [app]
        name = "shop"
        [service.agent]
        component = "agent.wasm"
        everywhere = true
    "#;
    placed(
        &[("everywhere", everywhere), ("web", &web(4, "").replace("shop", "web"))],
        "
        node a 1GiB
        node b 1GiB
        node c 1GiB
        node d 1GiB
        node tiny 32MiB
        apply everywhere
        apply web
        wait 1
        explain shop/agent
        down a
        down b
        down c
        wait 15
        explain web/web
        ",
        expect![[r#"
            > apply everywhere
            Deployed { revision: Revision(1), changed: true }
            > apply web
            Deployed { revision: Revision(1), changed: true }
            --explain shop/agent
            revision 1, 4 of 5, needs 64MiB of memory, a fuel rate of 50M/s
              a1@1 on a, running: Everywhere: it runs on each node that can run it
              a2@1 on b, running: Everywhere: it runs on each node that can run it
              a3@1 on c, running: Everywhere: it runs on each node that can run it
              a4@1 on d, running: Everywhere: it runs on each node that can run it
              1 missing, 0 items ready: no room for 64MiB and a fuel rate of 50M/s on tiny
              0 of 1 nodes could take one
                1 too full
              Free (1 nodes): free 32MiB of memory on tiny
              Lower (1 nodes): lower its `memory` to 32MiB
            11s a is lost
            11s a1 is lost
            11s a5 is lost
            11s b is lost
            11s a2 is lost
            11s a6 is lost
            11s c is lost
            11s a3 is lost
            11s a7 is lost
            --explain web/web
            revision 1, 1 of 4, needs 64MiB of memory, a fuel rate of 50M/s
              a5@1 on a, lost with its node, and not replaced yet: NotAgain: nothing would be placed there today: a is lost
              a6@1 on b, lost with its node, and not replaced yet: NotAgain: nothing would be placed there today: b is lost
              a7@1 on c, lost with its node, and not replaced yet: NotAgain: nothing would be placed there today: c is lost
              a8@1 on d, running: OnlyNode: no other node can take it
              3 missing, 0 items ready: 3 allocations are on lost nodes and not replaced yet: that is done for one node at a time, and for none of a zone that has lost many at once until they are back or `dunlin node release` says so
              0 of 5 nodes could take one
              Release (0 nodes): let the lost nodes come back, or say that they will not: `dunlin node release`
        "#]],
    );
}
