//! Each change must pass these campaigns in their small size. They mostly wait, so as many run at once as there are
//! processors.

use std::process::Command;

/// Where there is no etcd this says so.
async fn has_etcd() -> bool {
    dunlin_harness::Etcd::start(1).await.expect("it starts where it is installed").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nobody_panics_when_a_system_call_fails_or_kills() {
    let is_there = Command::new("strace").args(["-D", "true"]).status();
    if !is_there.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no `strace`, or it may not trace here");
        return;
    }
    dunlin_campaigns::faults(100, 1).await.unwrap();
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_and_no_singleton_runs_twice_when_networks_are_cut() {
    // The campaign says where no networks can be made.
    if !has_etcd().await {
        return;
    }
    let arguments = ["partitions", "--rounds", "10", "--seed", "1"];
    let status = Command::new(env!("CARGO_BIN_EXE_dunlin-campaigns")).args(arguments).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_coordinators_and_members_of_etcd_are_lost() {
    if has_etcd().await {
        dunlin_campaigns::coordinators(10, 1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_by_what_is_done_to_a_fleet_on_purpose() {
    dunlin_campaigns::updates(14, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_processes_are_killed() {
    dunlin_campaigns::kills(100, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_coordinator_serves_soon_after_each_power_cut_and_reports_all_once() {
    dunlin_campaigns::reboots(20, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn all_agents_are_back_after_a_kill_of_their_coordinator_and_none_was_lost() {
    dunlin_campaigns::crowd_of(100, 1).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bit_that_is_not_as_it_was_is_told_or_mended_and_never_believed() {
    dunlin_campaigns::flips(200, 1).await.unwrap();
}
