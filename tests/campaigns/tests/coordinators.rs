//! Each change must pass this campaign in its small size.

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_coordinators_and_members_of_etcd_are_lost() {
    // Where there is no etcd this says so.
    if dunlin_harness::Etcd::start(1).await.unwrap().is_some() {
        dunlin_campaigns::coordinators(10, 1).await.unwrap();
    }
}
