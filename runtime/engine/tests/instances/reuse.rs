//! `instances = "reused"`: the same instance answers as long as it does well.

use std::collections::BTreeSet;

use dunlin_engine::{Failure, Service};
use dunlin_guest_artifacts::HELLO;
use dunlin_model::{Instances, Outcome};
use http_body::Body as _;
use http_body_util::BodyExt as _;

use crate::rig::{Rig, ask};

/// Returns a service that counts its requests in a global, runs `core` with the count in `$count`, computes, and
/// answers nothing.
fn counting(core: &str) -> Vec<u8> {
    let text = format!(
        r#"(component
            (import "wasi:http/types@0.2.0" (instance $types
                (export "incoming-request" (type (sub resource)))
                (export "response-outparam" (type (sub resource)))))
            (alias export $types "incoming-request" (type $request))
            (alias export $types "response-outparam" (type $out))
            (core func $drop-request (canon resource.drop $request))
            (core func $drop-out (canon resource.drop $out))
            (core module $code
                (import "host" "drop-request" (func $drop-request (param i32)))
                (import "host" "drop-out" (func $drop-out (param i32)))
                (memory 1)
                (global $count (mut i32) (i32.const 0))
                (func (export "handle") (param $request i32) (param $out i32)
                    (local $i i32)
                    (global.set $count (i32.add (global.get $count) (i32.const 1)))
                    {core}
                    (loop $again
                        (i32.store (local.get $i) (local.get $i))
                        (local.set $i (i32.add (local.get $i) (i32.const 1)))
                        (br_if $again (i32.lt_u (local.get $i) (i32.const 1000))))
                    (call $drop-request (local.get $request))
                    (call $drop-out (local.get $out))))
            (core instance $host
                (export "drop-request" (func $drop-request))
                (export "drop-out" (func $drop-out)))
            (core instance $main (instantiate $code (with "host" (instance $host))))
            (func $handle (param "request" (own $request)) (param "response-out" (own $out))
                (canon lift (core func $main "handle")))
            (instance $handler (export "handle" (func $handle)))
            (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#
    );
    wat::parse_str(text).unwrap()
}

/// Sends one request and returns what it burned, and whether its guest returned.
async fn burned(service: &Service) -> (u64, bool) {
    let before = service.usage().fuel;
    let returned = match ask(service).await {
        Err(Failure::NoResponse(_)) => true,
        Err(Failure::Ended(Outcome::Trapped { .. }, _)) => false,
        other => panic!("{:?}", other.map(|response| response.status())),
    };
    (service.usage().fuel.minus(before).0, returned)
}

#[tokio::test]
async fn the_same_request_burns_the_same_fuel_in_fresh_and_in_reused_instances() {
    let rig = Rig::new();
    let component = counting("");
    let mut seen = BTreeSet::new();
    for instances in [Instances::Fresh, Instances::Reused] {
        let service = rig.service(&component, instances).await;
        for _ in 0..1_000 {
            seen.insert(burned(&service).await);
        }
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn what_a_guest_keeps_is_there_only_if_instances_are_reused() {
    let rig = Rig::new();
    let component = counting("(if (i32.gt_u (global.get $count) (i32.const 3)) (then unreachable))");
    let fresh = rig.service(&component, Instances::Fresh).await;
    let reused = rig.service(&component, Instances::Reused).await;
    let (mut of_fresh, mut of_reused) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        of_fresh.push(burned(&fresh).await.1);
        of_reused.push(burned(&reused).await.1);
    }
    assert_eq!(of_fresh, [true; 6]);
    // The one that failed is not used again, and the next begins anew.
    assert_eq!(of_reused, [true, true, true, false, true, true]);
}

#[tokio::test]
async fn an_instance_that_takes_more_handles_with_every_request_is_not_kept() {
    let rig = Rig::new();
    // It traps at its third request, and drops nothing before.
    let leak = "(if (i32.gt_u (global.get $count) (i32.const 2)) (then unreachable)) (return)";
    let service = rig.service(&counting(leak), Instances::Reused).await;
    for _ in 0..6 {
        assert!(burned(&service).await.1);
    }
}

#[tokio::test]
async fn a_guest_of_rust_answers_from_one_instance_again_and_again() {
    let rig = Rig::new();
    let service = rig.service(HELLO, Instances::Reused).await;
    let mut known = 0;
    for _ in 0..100 {
        let response = ask(&service).await.unwrap();
        let body = response.into_body();
        // A guest that had to let others run before it was done is one whose length is not known; few are.
        let length = body.size_hint().exact();
        let bytes = body.collect().await.unwrap().to_bytes();
        if let Some(length) = length {
            assert_eq!(bytes.len() as u64, length);
            known += 1;
        }
        assert!(bytes.starts_with(b"hello from a1 on node-1"));
    }
    assert!(known > 0, "no answer had a length");
    service.stop(std::time::Duration::ZERO).await;
    assert!(matches!(ask(&service).await, Err(Failure::Overloaded(_))));
}
