//! Code is in memory while it is wanted.

use dunlin_engine::{Failure, MAX_LOADED_CODE};
use dunlin_guest_artifacts::HELLO;
use dunlin_model::{Digest, Instances, Outcome};

use crate::rig::{Rig, ask};

#[tokio::test]
async fn code_that_made_way_for_other_code_is_loaded_again_and_only_if_it_is_genuine() {
    let rig = Rig::new();
    let code = dunlin_engine::compile(HELLO).unwrap();
    let first = Digest::of(b"first");
    let service = rig.service_of(&code, first, Instances::Fresh).await;
    assert!(ask(&service).await.is_ok());

    // The same code under other names, until there is no room for that of the first.
    let mut others = Vec::new();
    for number in 0..=MAX_LOADED_CODE / code.len() as u64 {
        let digest = Digest::of(&number.to_le_bytes());
        others.push(rig.service_of(&code, digest, Instances::Fresh).await);
    }
    let path = rig.keep(&code, first);
    let mut forged = std::fs::read(&path).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    std::fs::write(&path, forged).unwrap();
    match ask(&service).await {
        Err(Failure::Ended(Outcome::NotStarted { reason }, _)) => {
            assert!(reason.contains("genuine"), "{reason}")
        }
        other => panic!("{:?}", other.map(|response| response.status())),
    }
    rig.keep(&code, first);
    assert!(ask(&service).await.is_ok());
    assert!(ask(&others[0]).await.is_ok());
}
