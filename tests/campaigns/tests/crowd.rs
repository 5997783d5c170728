//! Each change must pass this campaign in its small size.

#[tokio::test(flavor = "multi_thread")]
async fn all_agents_are_back_after_a_kill_of_their_coordinator_and_none_was_lost() {
    dunlin_campaigns::crowd_of(100, 1).await.unwrap();
}
