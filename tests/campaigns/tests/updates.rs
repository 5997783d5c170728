//! Each change must pass this campaign in its small size.

#[tokio::test(flavor = "multi_thread")]
async fn no_request_fails_by_what_is_done_to_a_fleet_on_purpose() {
    dunlin_campaigns::updates(14, 1).await.unwrap();
}
