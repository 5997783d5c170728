//! What one guest leaves in its memory and its tables, no other finds, though they use the same slots of the pool.

use dunlin_engine::{Failure, Service};
use dunlin_model::{Instances, Outcome};

use crate::rig::{Rig, ask};

/// How many requests each of the guests gets.
const ROUNDS: usize = 300;

/// Returns a service that traps unless its memory of `pages` holds nothing but `data` at its start, and its table
/// nothing at all; that then grows both, looks again, and leaves a canary everywhere.
fn suspicious(pages: u32, grown: u32, data: &str) -> Vec<u8> {
    let length = data.len();
    let begin = length.next_multiple_of(8);
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
                (memory {pages} 256)
                (table $table 50 1000 funcref)
                (data (i32.const 0) "{data}")
                (elem declare func $canary)
                (func $canary)
                (func $must-be-zero (param $from i32) (param $to i32)
                    (block $done (loop $next
                        (br_if $done (i32.ge_u (local.get $from) (local.get $to)))
                        (if (i64.ne (i64.load (local.get $from)) (i64.const 0)) (then unreachable))
                        (local.set $from (i32.add (local.get $from) (i32.const 8)))
                        (br $next))))
                (func $must-be-null
                    (local $index i32)
                    (loop $next
                        (if (i32.eqz (ref.is_null (table.get $table (local.get $index)))) (then unreachable))
                        (local.set $index (i32.add (local.get $index) (i32.const 1)))
                        (br_if $next (i32.lt_u (local.get $index) (table.size $table)))))
                (func $size (result i32) (i32.mul (memory.size) (i32.const 65536)))
                (func (export "handle") (param $request i32) (param $out i32)
                    (local $size i32)
                    (local.set $size (call $size))
                    (call $must-be-zero (i32.const {begin}) (local.get $size))
                    (call $must-be-null)
                    (if (i32.eq (memory.grow (i32.const {grown})) (i32.const -1)) (then unreachable))
                    (call $must-be-zero (local.get $size) (call $size))
                    (if (i32.eq (table.grow $table (ref.null func) (i32.const 500)) (i32.const -1))
                        (then unreachable))
                    (call $must-be-null)
                    (memory.fill (i32.const 0) (i32.const 0xca) (call $size))
                    (table.fill $table (i32.const 0) (ref.func $canary) (table.size $table))
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

async fn found_nothing(service: &Service) -> bool {
    match ask(service).await {
        Err(Failure::NoResponse(_)) => true,
        Err(Failure::Ended(Outcome::Trapped { .. }, _)) => false,
        other => panic!("{:?}", other.map(|response| response.status())),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_guest_finds_what_another_has_left() {
    let rig = Rig::new();
    // Less than what stays resident of a slot, more than that, and one whose memory begins as a copy of an image.
    let guests = [suspicious(1, 1, ""), suspicious(4, 60, ""), suspicious(2, 10, "an image of its own")];
    let mut asking = Vec::new();
    for guest in &guests {
        let service = rig.service(guest, Instances::Fresh).await;
        // Two clients of each, so that slots change hands.
        for _ in 0..2 {
            let service = service.clone();
            asking.push(tokio::spawn(async move {
                for round in 0..ROUNDS {
                    assert!(found_nothing(&service).await, "a canary was found in round {round}");
                }
            }));
        }
    }
    for client in asking {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn the_guest_itself_would_find_it_if_its_instance_were_used_again() {
    let rig = Rig::new();
    let service = rig.service(&suspicious(1, 1, ""), Instances::Reused).await;
    assert!(found_nothing(&service).await);
    assert!(!found_nothing(&service).await, "what it left was not there, so the other test shows nothing");
}
