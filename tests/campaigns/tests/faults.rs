//! Each change must pass this campaign in its small size, where there is `strace`.

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_and_nobody_panics_when_a_system_call_fails_or_kills() {
    let is_there = std::process::Command::new("strace").args(["-D", "true"]).status();
    if !is_there.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there is no `strace`, or it may not trace here");
        return;
    }
    dunlin_campaigns::faults(100, 1).await.unwrap();
}
