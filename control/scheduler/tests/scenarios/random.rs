//! Anything, in any order: the invariants hold after each step, and once all is well everything gets done.

use dunlin_scheduler::View;

use crate::world::World;

/// A sequence which looks random and is the same for the same seed.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

#[test]
fn whatever_happens_the_invariants_hold_and_all_gets_done() {
    for seed in 1..=150 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut world = World::new();
        for node in ["node a 1GiB zone=a", "node b 256MiB zone=b", "node c 128MiB zone=b"] {
            world.play(node);
        }
        for _ in 0..120 {
            disturb(&mut world, &mut dice);
        }
        heal(&mut world);
        let view = world.view();
        assert!(is_done(&view), "seed {seed} does not come to rest:\n{}\n{view:#?}", world.out);
    }
}

fn disturb(world: &mut World, dice: &mut Dice) {
    const NODES: [&str; 3] = ["a", "b", "c"];
    let leased = world.leased();
    let line = match dice.below(18) {
        0 => format!("down {}", dice.pick(&NODES)),
        1 | 2 => format!("up {}", dice.pick(&NODES)),
        3 => format!("disconnect {}", dice.pick(&NODES)),
        4 => format!("connect {}", dice.pick(&NODES)),
        5 => "restart".to_owned(),
        6 => format!("pass {}", 1 + dice.below(14)),
        7 | 8 => format!("wait {}", 1 + dice.below(6)),
        9 => {
            let web = dice.pick(&["0@v1", "1@v1", "2@v1", "2@v2,route:x.example", "3@v2", "2@v3,zone:b"]);
            let sum = dice.pick(&["job1@v1", "job2@v2,attempts:3", "job3@v1,combine,attempts:2"]);
            format!("deploy shop web={web} sum={sum}")
        }
        10 => format!("run shop/sum {}", 1 + dice.below(12)),
        11 => match dice.below(6) {
            0 => "delete shop".to_owned(),
            1 => "stop shop".to_owned(),
            _ => format!("cancel r{}", 1 + dice.below(4)),
        },
        12 => match dice.below(4) {
            0 => format!("cordon {}", dice.pick(&NODES)),
            1 => format!("drain {} {}", dice.pick(&NODES), 1 + dice.below(20)),
            2 => format!("uncordon {}", dice.pick(&NODES)),
            _ => "release".to_owned(),
        },
        _ if !leased.is_empty() => {
            let (allocation, range) = leased[dice.below(leased.len())];
            let item = range.start + u32::try_from(dice.below(range.len() as usize)).unwrap();
            format!("{} {allocation} {item}", dice.pick(&["done", "done", "fail", "stopped"]))
        }
        _ => "beat".to_owned(),
    };
    world.play(&line);
}

/// Lets all nodes be there and all items succeed.
fn heal(world: &mut World) {
    for line in [
        "up a",
        "up b",
        "up c",
        "uncordon a",
        "uncordon b",
        "uncordon c",
        "deploy shop web=2@v9 sum=job1@v1",
        "run shop/sum 5",
        "wait 20",
    ] {
        world.play(line);
    }
    // Who was lost again and again is trusted again only after a while.
    world.play("wait 600");
    for _ in 0..120 {
        for (allocation, range) in world.leased() {
            world.play(&format!("done {allocation} {range}"));
        }
        world.play("wait 1");
    }
}

fn is_done(view: &View) -> bool {
    let mut workloads = view.apps.values().flat_map(|app| app.workloads.values());
    workloads.all(|workload| workload.current == workload.desired && workload.running == workload.desired)
        && view.runs.values().all(|run| !run.record.is_running())
        && view.nodes.values().all(|node| node.record.lost.is_none())
}
