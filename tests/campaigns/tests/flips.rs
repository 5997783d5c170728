//! Each change must pass this campaign in its small size.

#[tokio::test(flavor = "multi_thread")]
async fn one_bit_that_is_not_as_it_was_is_told_or_mended_and_never_believed() {
    dunlin_campaigns::flips(200, 1).await.unwrap();
}
