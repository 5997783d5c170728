//! A job that moves five bodies under their gravity: floating point in short nested loops.

use std::hint::black_box;
use std::process::ExitCode;

const STEPS: u32 = 2_000_000;
const STEP: f64 = 0.01;

#[derive(Clone, Copy)]
struct Body {
    place: [f64; 3],
    speed: [f64; 3],
    mass: f64,
}

fn main() -> ExitCode {
    let mut bodies = black_box(bodies());
    let before = energy(&bodies);
    for _ in 0..STEPS {
        advance(&mut bodies);
    }
    // What is right keeps its energy.
    if (energy(&black_box(bodies)) / before - 1.0).abs() < 0.01 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn bodies() -> [Body; 5] {
    let body = |distance: f64, mass: f64| {
        let speed = if distance > 0.0 { (40.0 / distance).sqrt() } else { 0.0 };
        Body { place: [distance, 0.0, distance / 100.0], speed: [0.0, speed, 0.0], mass }
    };
    [body(0.0, 40.0), body(4.8, 0.04), body(9.5, 0.01), body(19.2, 0.002), body(30.1, 0.002)]
}

fn advance(bodies: &mut [Body; 5]) {
    for one in 0..bodies.len() {
        for other in one + 1..bodies.len() {
            let (a, b) = (bodies[one], bodies[other]);
            let away: [f64; 3] = std::array::from_fn(|axis| a.place[axis] - b.place[axis]);
            let square: f64 = away.iter().map(|part| part * part).sum();
            let pull = STEP / (square * square.sqrt());
            for (axis, away) in away.into_iter().enumerate() {
                bodies[one].speed[axis] -= away * b.mass * pull;
                bodies[other].speed[axis] += away * a.mass * pull;
            }
        }
    }
    for body in bodies {
        for axis in 0..3 {
            body.place[axis] += STEP * body.speed[axis];
        }
    }
}

fn energy(bodies: &[Body; 5]) -> f64 {
    let mut total = 0.0;
    for (one, a) in bodies.iter().enumerate() {
        total += a.mass * a.speed.iter().map(|part| part * part).sum::<f64>() / 2.0;
        for b in &bodies[one + 1..] {
            let square: f64 = (0..3).map(|axis| (a.place[axis] - b.place[axis]).powi(2)).sum();
            total -= a.mass * b.mass / square.sqrt();
        }
    }
    total
}
