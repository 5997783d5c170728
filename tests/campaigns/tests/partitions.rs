//! Each change must pass this campaign in its small size, where networks can be made and there is etcd.

use std::process::Command;

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_no_singleton_runs_twice_when_networks_are_cut() {
    // Where there is no etcd this says so, and the campaign says where no networks can be made.
    if dunlin_harness::Etcd::start(1).await.unwrap().is_none() {
        return;
    }
    let arguments = ["partitions", "--rounds", "10", "--seed", "1"];
    let status = Command::new(env!("CARGO_BIN_EXE_dunlin-campaigns")).args(arguments).status().unwrap();
    assert!(status.success());
}
