//! Each change must pass this campaign in its small size.

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_processes_are_killed() {
    dunlin_campaigns::kills(100, 1).await.unwrap();
}
