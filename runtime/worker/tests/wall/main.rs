//! The wall from inside: a guest has broken out of its sandbox and does what it likes, and the system refuses.
//!
//! Each attempt is made twice by a process of its own, which is this very program started again: once behind the wall
//! and once without it. Without the wall it must succeed, so that its failure behind the wall means something. The
//! attempts are made by a host function which a guest calls, since that is where code of a guest would be.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "without a harness, the test itself says how it went")]

mod attempt;
mod guest;
mod lives;
mod role;
mod stage;

use std::process::ExitCode;

use crate::attempt::Attempt;
use crate::role::Role;
use crate::stage::Stage;

fn main() -> ExitCode {
    if let Some(role) = Role::of_this_process() {
        role.play();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let filter: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |name: &str| filter.is_empty() || filter.iter().any(|part| name.contains(part.as_str()));
    let tests = tests().into_iter().filter(|(name, _)| is_wanted(name));
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in tests {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let mut failed = Vec::new();
    for (name, test) in tests {
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        if !passed {
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed: {}", failed.join(", "));
    ExitCode::FAILURE
}

type Test = (String, Box<dyn FnOnce() + std::panic::UnwindSafe>);

fn tests() -> Vec<Test> {
    let mut tests: Vec<Test> = Attempt::ALL
        .into_iter()
        .map(|attempt| {
            let name = format!("behind_the_wall_nobody_can_{}", attempt.name());
            let test: Box<dyn FnOnce() + std::panic::UnwindSafe> = Box::new(move || check(attempt));
            (name, test)
        })
        .collect();
    let lives: [(&str, fn()); 5] = [
        ("every_part_of_the_wall_that_the_kernel_gives_is_there", lives::every_part_is_there),
        ("a_worker_ends_when_its_agent_is_killed", lives::a_worker_ends_with_its_agent),
        ("a_worker_that_aborts_leaves_no_core", lives::no_core),
        ("threads_and_own_files_are_as_before", lives::threads_and_files),
        ("a_connection_that_was_passed_is_used_and_its_options_are_set", lives::passed_connection),
    ];
    tests.extend(lives.map(|(name, test)| -> Test { (name.to_owned(), Box::new(test)) }));
    tests
}

/// Makes one attempt without the wall and behind it.
fn check(attempt: Attempt) {
    let stage = Stage::set();
    let free = stage.make(attempt, Role::Free);
    // Without root, the system itself may refuse some of this to everybody.
    if nix::unistd::geteuid().is_root() {
        assert_eq!(free, "done", "without the wall, it can be done");
    }
    let stage = Stage::set();
    let confined = stage.make(attempt, Role::Confined);
    assert!(["EPERM", "EACCES"].contains(&confined.as_str()), "behind the wall, it ended with {confined}");
}
