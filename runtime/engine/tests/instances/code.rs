//! Code is in memory while it is wanted.

use dunlin_engine::{EngineConfig, Failure, MAX_LOADED_CODE, Renewal};
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

#[tokio::test]
async fn what_guests_left_is_given_back_and_those_that_are_there_go_on() {
    let rig = Rig::new();
    let fresh = rig.service(HELLO, Instances::Fresh).await;
    for _ in 0..20 {
        assert!(ask(&fresh).await.is_ok());
        assert_eq!(rig.engine.renew(), Renewal::Done, "nothing runs");
    }
    // Each of these leaves an instance, which waits to be used again, in the places that are to be replaced.
    let code = dunlin_engine::compile(HELLO).unwrap();
    let mut waiting = Vec::new();
    for number in 0..10_u64 {
        let digest = Digest::of(&number.to_le_bytes());
        let service = rig.service_of(&code, digest, Instances::Reused).await;
        assert!(ask(&service).await.is_ok());
        waiting.push(service);
        match rig.engine.renew() {
            Renewal::Begun => {}
            Renewal::Refused => break,
            Renewal::Done => panic!("an instance waits"),
        }
    }
    assert!((2..10).contains(&waiting.len()), "{} old pools are in use", waiting.len());
    for service in [&fresh].into_iter().chain(&waiting) {
        assert!(ask(service).await.is_ok());
    }
    drop(waiting);
    assert_eq!(rig.engine.renew(), Renewal::Done, "they are gone");
    assert!(ask(&fresh).await.is_ok());
}

#[tokio::test]
async fn places_that_take_all_mappings_of_a_process_are_replaced_when_nobody_is_in_them() {
    let rig = Rig::for_instances(EngineConfig::MOST_INSTANCES);
    let service = rig.service(HELLO, Instances::Reused).await;
    assert!(ask(&service).await.is_ok());
    assert_eq!(rig.engine.renew(), Renewal::Refused, "an instance waits");
    assert!(ask(&service).await.is_ok());
    drop(service);
    assert_eq!(rig.engine.renew(), Renewal::Done);
}
