//! The whole list on one fleet: every line contained, the canary unharmed, and everything back where it was.

use std::time::{Duration, Instant};

use dunlin_harness::eventually;
use dunlin_hostile::{
    Arena, Canary, Case, Latencies, Reading, Verdict, all, is_alive, markdown, read, resident,
    resident_at_rest, settled, table,
};

/// P10: a neighbour's p99 at most doubles and grows by less than this.
const P10_ALLOWANCE: Duration = Duration::from_millis(20);
/// How much more memory a worker may hold after any pass over the list than after the first.
const FLAT: u64 = 8 << 20;
/// How often the guests that take memory run after all has run twice: what grows by a little each time shows.
const MORE_PASSES: usize = 3;

fn shown(latencies: &Latencies) -> String {
    let [p50, p99, most] = [500, 990, 1000].map(|share| latencies.permille(share));
    format!(
        "{} requests, p50 {p50:?}, p99 {p99:?}, most {most:?}, {} failed",
        latencies.count(),
        latencies.failures.len()
    )
}

/// What must not have grown: processes, and what they hold.
struct Baseline {
    agent: u32,
    coordinator: u32,
    canary: Option<u32>,
    held: [Reading; 2],
}

/// A few more descriptors or threads are those of a pool which has grown once; a leak is one for each case.
const SLACK: usize = 16;

impl Baseline {
    fn new(arena: &mut Arena) -> Self {
        let (agent, coordinator) = (arena.agent(), arena.coordinator());
        let held = [read(agent), read(coordinator)];
        Self { agent, coordinator, canary: arena.canary_worker(), held }
    }

    async fn assert_kept(&self, arena: &Arena) {
        for (process, before) in [self.agent, self.coordinator].into_iter().zip(&self.held) {
            assert!(is_alive(process), "a process ended: {}", arena.logs());
            let is_back = |now: &Reading| {
                now.descriptors <= before.descriptors + SLACK
                    && now.threads <= before.threads + SLACK
                    && now.children.len() <= before.children.len()
            };
            let now = settled(|| read(process), is_back).await;
            assert!(is_back(&now), "before {before:?}, now {now:?}");
        }
        assert_eq!(arena.canary_worker(), self.canary);
        assert!(self.canary.is_some_and(is_alive), "the canary's worker died");
    }
}

#[tokio::test]
async fn whatever_guests_and_clients_do_is_contained_and_the_canary_does_not_notice() {
    let began = Instant::now();
    let mut arena = Arena::start().await.unwrap();
    let canary = Canary::start(arena.ingress(), "/");
    eventually("the canary is answered", || async {
        if canary.take().count() > 0 { Ok(()) } else { Err(String::new()) }
    })
    .await;
    // What kills the worker comes last, so that one worker goes through all the others.
    let (tampering, cases): (Vec<Case>, Vec<Case>) =
        all().into_iter().partition(|case| case.tried() == "files");
    let worker = arena.hostile_worker().unwrap();
    drop(canary.take());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let alone = canary.take();

    let mut verdicts = arena.run(&cases).await;
    // What is made once and kept, as the code of components is, is there now. The second time nothing may be added.
    let baseline = Baseline::new(&mut arena);
    let warm = resident_at_rest(worker).await;
    let again: Vec<Case> = cases.iter().filter(|case| case.tried() != "deployed").cloned().collect();
    let second = arena.run(&again).await;
    let greedy: Vec<Case> = again.iter().filter(|case| case.is_greedy()).cloned().collect();
    let mut held = vec![warm, settled(|| resident(worker), |now| *now <= warm + FLAT).await];
    let mut more = Vec::new();
    for _ in 0..MORE_PASSES {
        more.push(arena.run(&greedy).await);
        held.push(settled(|| resident(worker), |now| *now <= warm + FLAT).await);
    }
    let is_same_worker = is_alive(worker);
    verdicts.extend(arena.run(&tampering).await);
    let cases = [cases, tampering].concat();

    let beside = canary.take();
    drop(canary);
    println!("{}", table(&cases, &verdicts));
    if let Ok(path) = std::env::var("DUNLIN_HOSTILE_TABLE") {
        std::fs::write(path, markdown(&cases, &verdicts)).unwrap();
    }
    println!("{} cases in {:?}", cases.len(), began.elapsed());
    println!("canary alone: {}", shown(&alone));
    println!("canary beside hostile guests: {}", shown(&beside));
    let kibibytes: Vec<u64> = held.iter().map(|bytes| bytes >> 10).collect();
    println!(
        "the hostile worker at rest, after each pass: {kibibytes:?} KiB; {} guests in the last ones",
        greedy.len()
    );

    let later = again.iter().zip(&second).chain(more.iter().flat_map(|pass| greedy.iter().zip(pass)));
    let differing = later.filter(|(_, verdict)| !matches!(verdict, Verdict::Contained(_)));
    for (case, verdict) in differing.clone() {
        println!("another time: {} {verdict}: {}", case.name, verdict.seen());
    }
    let bad = verdicts.iter().filter(|verdict| !matches!(verdict, Verdict::Contained(_))).count();
    assert!(cases.len() >= 120);
    assert_eq!(bad, 0, "{bad} of {} cases are not contained; see the table", cases.len());
    assert_eq!(differing.count(), 0, "some cases came to another end another time");
    assert_eq!(beside.failures, Vec::<String>::new());
    assert!(is_same_worker, "the hostile worker died");
    assert!(held.iter().all(|now| *now <= warm + FLAT), "the worker holds more and more: {held:?} bytes");
    baseline.assert_kept(&arena).await;
    let allowed = (alone.permille(990) * 2).max(alone.permille(990) + P10_ALLOWANCE);
    assert!(beside.permille(990) <= allowed, "the canary's p99: {:?} of {allowed:?}", beside.permille(990));
}
