//! Each change must pass this campaign in its small size, where networks can be made.

use std::process::Command;

#[test]
fn nothing_acknowledged_is_lost_and_no_singleton_runs_twice_when_networks_are_cut() {
    let arguments = ["partitions", "--rounds", "10", "--seed", "1"];
    let status = Command::new(env!("CARGO_BIN_EXE_dunlin-campaigns")).args(arguments).status().unwrap();
    assert!(status.success());
}
