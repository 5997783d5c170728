//! Each change must pass this campaign in its small size.

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_its_coordinator_serves_soon_after_each_power_cut_and_reports_all_once() {
    dunlin_campaigns::reboots(20, 1).await.unwrap();
}
