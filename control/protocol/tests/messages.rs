//! The bytes of every message of the wire, and what bytes that are none of them come to.
//!
//! A golden that changes is a change of the wire: older agents must still understand it.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

use std::collections::BTreeMap;

use dunlin_model::{
    Affinity, AllocationId, AllocationReport, AssignedAllocation, Assignment, Bytes, Chunk, Digest,
    DurationMs, Endpoint, Fuel, FuelRate, Generation, ItemRange, ItemRecord, ItemReport, JobSpec, Limits,
    NodeInfo, ObservedState, Outcome, Overcommit, Percent, Placement, Preference, Priority, Program,
    ProgramOrder, ProgramReport, Report, Resources, Revision, Route, RouteRules, RouteSpec, RouteTable,
    RunId, ServiceSpec, Spread, Sticky, Term, Timestamp, Work, WorkloadKind, WorkloadSpec,
};
use dunlin_protocol::{
    ChunkList, ChunkPlace, ConnectError, FrameError, Hello, JoinReply, JoinRequest, LogQuery, MAX_FRAME,
    Neighbour, Outbound, PackedChunk, PassedToAgent, PassedToWorker, RefusalCode, Relayed, StreamReply,
    StreamRequest, ToAgent, ToCoordinator, TrapQuery, Version, decode, decode_known, encode, frame_length,
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

#[path = "goldens/bytes.rs"]
mod goldens;

fn hello() -> Hello {
    Hello {
        min_version: Version(1),
        max_version: Version(2),
        node: "node-1".parse().unwrap(),
        cluster: "c4".parse().unwrap(),
        term: Term(7),
        software: "0.1.0".into(),
    }
}

fn stream_requests() -> Vec<StreamRequest> {
    vec![
        StreamRequest::Control(hello()),
        StreamRequest::Component { digest: Digest::of(b"component") },
        StreamRequest::Input { run: RunId::new(3), item: 9 },
        StreamRequest::Logs(LogQuery { allocations: vec![AllocationId::new(12)], tail: 100, follow: true }),
        StreamRequest::Traps(TrapQuery {
            app: Some("shop".parse().unwrap()),
            tail: 50,
            ..TrapQuery::default()
        }),
        StreamRequest::CoreDump { instance: "a12.3".parse().unwrap() },
        StreamRequest::Renew { signing_request: vec![0x30, 0x82, 1] },
        StreamRequest::Secret {
            secret: "default/DATABASE_URL".parse().unwrap(),
            version: "6c1f0a9be2d34478".parse().unwrap(),
        },
    ]
}

fn stream_replies() -> Vec<StreamReply> {
    vec![
        StreamReply::Ok { length: Some(75_000), name: None },
        StreamReply::Ok { length: None, name: None },
        StreamReply::Error { message: "not in the store".into() },
    ]
}

fn spec(kind: WorkloadKind) -> WorkloadSpec {
    WorkloadSpec {
        component: Digest::of(b"component"),
        kind,
        limits: Limits::SERVICE,
        environment: BTreeMap::from([("A".into(), "b".into())]),
        node_labels: BTreeMap::from([("zone".into(), "a".into())]),
        capabilities: Default::default(),
        instances: Default::default(),
        metering: Default::default(),
        coredump: false,
        signed: None,
        placement: Default::default(),
        priority: Default::default(),
    }
}

fn assignment() -> Assignment {
    let route = RouteSpec::new(Some("shop.example"), "/");
    let service = ServiceSpec {
        allocations: 2,
        routes: vec![route.clone()],
        fuel_header: false,
        everywhere: false,
        rollout: Default::default(),
        health: None,
        on_partition: Default::default(),
    };
    let job = JobSpec { parallelism: 2, combine: true, ..JobSpec::default() };
    let endpoint = Endpoint::new(AllocationId::new(12), "node-1".parse().unwrap());
    Assignment {
        cluster: "c4".parse().unwrap(),
        term: Term(7),
        generation: Generation(41),
        allocations: vec![
            AssignedAllocation {
                id: AllocationId::new(12),
                workload: "default/shop/web".parse().unwrap(),
                revision: Revision(4),
                spec: spec(WorkloadKind::Service(service)).into(),
                work: Work::Serve,
            },
            AssignedAllocation {
                id: AllocationId::new(13),
                workload: "default/shop/count".parse().unwrap(),
                revision: Revision(4),
                spec: spec(WorkloadKind::Job(job)).into(),
                work: Work::Items {
                    run: RunId::new(3),
                    range: ItemRange { start: 0, end: 64 },
                    attempt: 1,
                    combine: false,
                    inputs: true,
                },
            },
        ],
        finishing: Default::default(),
        kept: Default::default(),
        secrets: Default::default(),
        program: None,
        routes: RouteTable {
            routes: vec![Route { spec: route, workload: "default/shop/web".parse().unwrap() }],
            endpoints: BTreeMap::from([("default/shop/web".parse().unwrap(), vec![endpoint])]),
            peers: BTreeMap::from([("node-1".parse().unwrap(), "10.0.0.1:4433".parse().unwrap())]),
            revoked: Default::default(),
            everywhere: Default::default(),
            shares: Default::default(),
            narrow: Default::default(),
        },
    }
}

fn to_agent() -> Vec<ToAgent> {
    vec![
        ToAgent::Welcome {
            version: Version(1),
            cluster: "c4".parse().unwrap(),
            term: Term(7),
            heartbeat_ms: 1000,
        },
        ToAgent::Refused { code: RefusalCode::WrongCluster, message: "this is fleet c4".into() },
        ToAgent::Assign(Box::new(assignment())),
        ToAgent::Recorded {
            cluster: "c4".parse().unwrap(),
            term: Term(7),
            items: vec![(AllocationId::new(13), 5)],
        },
    ]
}

fn to_coordinator() -> Vec<ToCoordinator> {
    let record = ItemRecord {
        outcome: Outcome::OutOfFuel { limit: Fuel(1_000_000) },
        node: "node-1".parse().unwrap(),
        attempt: 1,
        fuel: Fuel(1_000_000),
        memory: Bytes(65_536),
        wall: dunlin_model::DurationMs(12),
        host: Default::default(),
        output: "partial".into(),
        output_cut: false,
    };
    vec![ToCoordinator::Report(Report {
        cluster: "c4".parse().unwrap(),
        term: Term(7),
        generation: Generation(41),
        info: NodeInfo {
            capacity: Resources { memory: Bytes(1 << 30), fuel_rate: FuelRate(1_000_000_000) },
            labels: BTreeMap::from([("zone".into(), "a".into())]),
            ingress: "10.0.0.1:8080".parse().unwrap(),
            peer: "[fd00::1]:4433".parse().unwrap(),
            version: "0.1.0".into(),
            resources: BTreeMap::new(),
            batch_overcommit: Default::default(),
            clock_unset: false,
            program: None,
        },
        sent: Default::default(),
        allocations: vec![AllocationReport {
            id: AllocationId::new(12),
            state: ObservedState::BackingOff { reason: "worker died".into() },
            restarts: 2,
            fuel: Fuel(5),
            memory: Bytes(65_536),
            instances: 17,
            failed: 0,
        }],
        items: vec![ItemReport { allocation: AllocationId::new(13), run: RunId::new(3), item: 5, record }],
    })]
}

fn join_request() -> JoinRequest {
    JoinRequest {
        token_id: "abcdefghij".into(),
        secret: vec![0x5a; 4],
        node: "node-1".parse().unwrap(),
        signing_request: vec![0x30, 0x00],
    }
}

fn join_replies() -> Vec<JoinReply> {
    vec![
        JoinReply::Joined {
            cluster: "c4".parse().unwrap(),
            certificate: vec![0x30, 0x01],
            authority: vec![0x30, 0x02],
        },
        JoinReply::Refused { code: "token_used".into(), message: "the token was used at 12:00".into() },
    ]
}

/// What a worker asks its agent for on behalf of guests.
fn passed_to_agent() -> Vec<PassedToAgent> {
    let (allocation, host) = (AllocationId::new(12), "db.example.org".to_owned());
    let address = Some("10.0.0.1".parse().unwrap());
    vec![
        PassedToAgent::Connect { request: 3, allocation, using: Outbound::Tcp, host, port: 5432, address },
        PassedToAgent::Resolve { request: 4, allocation, name: "db.example.org".into() },
    ]
}

/// What the agent answers.
fn passed_to_worker() -> Vec<PassedToWorker> {
    vec![
        PassedToWorker::Connected { request: 3, result: Ok("10.0.0.1:5432".parse().unwrap()) },
        PassedToWorker::Connected { request: 3, result: Err(ConnectError::TimedOut) },
        PassedToWorker::Connected { request: 3, result: Err(ConnectError::Unreachable("no route".into())) },
        PassedToWorker::Resolved {
            request: 4,
            result: Ok(vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()]),
        },
        PassedToWorker::Resolved { request: 4, result: Err(ConnectError::Denied("egress_denied".into())) },
    ]
}

/// The answer to a report, with leases and without.
fn heard() -> Vec<ToAgent> {
    let leases = BTreeMap::from([(AllocationId::new(12), DurationMs(10_000))]);
    let heard = |leases| ToAgent::Heard {
        cluster: "c4".parse().unwrap(),
        term: Term(7),
        sent: Timestamp(70_000),
        leases,
    };
    vec![heard(leases), heard(BTreeMap::new())]
}

/// Those by which an agent becomes another program.
fn of_upgrades() -> (StreamRequest, ToAgent, ToCoordinator) {
    let digest = Digest::of(b"program");
    let program = Some(Program { digest, signature: "untrusted comment: signature\n".to_owned() });
    let order = ProgramOrder { number: 3, program };
    let assignment = Assignment { allocations: Vec::new(), program: Some(order), ..assignment() };
    let mut reports = to_coordinator();
    let ToCoordinator::Report(report) = &mut reports[0];
    (report.allocations, report.items) = Default::default();
    report.info.program = Some(ProgramReport {
        architecture: "x86_64".parse().unwrap(),
        tried: 3,
        digest: Some(digest),
        failed: Some("it has no lights".to_owned()),
    });
    (StreamRequest::Program { digest }, ToAgent::Assign(Box::new(assignment)), reports.remove(0))
}

/// Routes by which canaries have a share, and clients stay where they are.
fn shared() -> ToAgent {
    let mut assignment = assignment();
    let RouteTable { routes, endpoints, shares, narrow, .. } = &mut assignment.routes;
    routes[0].spec.rules = Some(Box::new(RouteRules {
        headers: BTreeMap::from([("x-beta".to_owned(), "*".to_owned())]),
        sticky: Some(Sticky::Cookie("shop".to_owned())),
        ..RouteRules::default()
    }));
    for (service, endpoints) in endpoints {
        endpoints[0].canary = true;
        shares.insert(service.clone(), Percent(5));
        narrow.insert(service.clone(), 2);
    }
    ToAgent::Assign(Box::new(assignment))
}

/// What is said of the chunks of a component.
fn of_chunks() -> ([StreamRequest; 2], ChunkList, [PackedChunk; 2]) {
    let digest = Digest::of(b"component");
    let neighbour = |node: &str, has_all| Neighbour {
        node: node.parse().unwrap(),
        address: "10.0.0.1:4433".parse().unwrap(),
        has_all,
    };
    let list = ChunkList {
        chunks: vec![Chunk { digest: Digest::of(b"chunk"), length: 5 }],
        neighbours: vec![neighbour("node-1", true), neighbour("node-2", false)],
    };
    let requests = [
        StreamRequest::ChunkList { digest },
        StreamRequest::Chunk { digest, place: ChunkPlace { offset: 65_536, length: 70_000 } },
    ];
    let chunks = [PackedChunk::Plain(b"chunk".to_vec()), PackedChunk::Zstd(b"chunk".to_vec())];
    (requests, list, chunks)
}

/// Every message once, as frames, in a fixed order.
fn all_frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    frames.extend(stream_requests().iter().map(|message| encode(message).unwrap()));
    frames.extend(stream_replies().iter().map(|message| encode(message).unwrap()));
    frames.extend(to_agent().iter().map(|message| encode(message).unwrap()));
    frames.extend(to_coordinator().iter().map(|message| encode(message).unwrap()));
    frames.push(encode(&join_request()).unwrap());
    frames.extend(join_replies().iter().map(|message| encode(message).unwrap()));
    frames.extend(passed_to_agent().iter().map(|message| encode(message).unwrap()));
    frames.extend(passed_to_worker().iter().map(|message| encode(message).unwrap()));
    frames.extend(heard().iter().map(|message| encode(message).unwrap()));
    let (request, told, said) = of_upgrades();
    frames.extend([encode(&request).unwrap(), encode(&told).unwrap(), encode(&said).unwrap()]);
    frames.push(encode(&StreamRequest::Relay).unwrap());
    frames.push(Relayed::encode(&"attic".parse().unwrap(), b"a packet").unwrap());
    frames.push(encode(&shared()).unwrap());
    let (requests, list, replies) = of_chunks();
    frames.extend(requests.iter().map(|message| encode(message).unwrap()));
    frames.push(encode(&list).unwrap());
    frames.extend(replies.iter().map(|message| encode(message).unwrap()));
    frames
}

#[test]
fn every_message_has_the_bytes_it_always_had() {
    let frames: Vec<String> = all_frames().iter().map(hex::encode).collect();
    assert_eq!(frames.len(), goldens::FRAMES.len());
    for (number, (frame, golden)) in frames.iter().zip(goldens::FRAMES).enumerate() {
        assert_eq!(frame, golden, "message {number} has other bytes; if that is wanted, see tests/goldens");
    }
}

#[test]
fn every_message_reads_back() {
    fn check<M: Serialize + for<'a> Deserialize<'a> + PartialEq + std::fmt::Debug>(messages: &[M]) {
        for message in messages {
            let frame = encode(message).unwrap();
            let length = frame_length(frame[..4].try_into().unwrap()).unwrap();
            assert_eq!(length, frame.len() - 4);
            assert_eq!(&decode::<M>(&frame[4..]).unwrap(), message);
        }
    }
    check(&stream_requests());
    check(&stream_replies());
    check(&to_agent());
    check(&heard());
    let (request, told, said) = of_upgrades();
    check(&[request]);
    check(&[told]);
    check(&[shared()]);
    check(&[said]);
    check(&to_coordinator());
    check(&[join_request()]);
    check(&join_replies());
    check(&passed_to_agent());
    check(&passed_to_worker());
    let (requests, list, replies) = of_chunks();
    check(&requests);
    check(&[list]);
    check(&replies);
}

#[test]
fn what_is_asked_of_places_and_what_nodes_declare_cross_the_wire() {
    let near = Affinity {
        workload: "default/shop/web".parse().unwrap(),
        over: Placement::EACH_NODE.into(),
        required: false,
    };
    let placement = Placement {
        require: vec!["zone in (a, b)".parse().unwrap()],
        prefer: vec![Preference { expression: "kernel >= 6.1".parse().unwrap(), weight: -100 }],
        spread: vec![Spread { over: "zone".into(), weights: BTreeMap::from([("a".into(), 2)]) }],
        near: vec![near.clone()],
        apart: vec![near],
        resources: BTreeMap::from([("gpu".into(), 1)]),
    };
    let mut assignment = assignment();
    for allocation in &mut assignment.allocations {
        let spec = std::sync::Arc::make_mut(&mut allocation.spec);
        spec.placement = placement.clone();
        spec.priority = Priority::HIGHEST;
        if let WorkloadKind::Service(service) = &mut spec.kind {
            service.everywhere = true;
        }
    }
    let frame = encode(&assignment).unwrap();
    assert_eq!(decode::<Assignment>(&frame[4..]).unwrap(), assignment);
    let Some(ToCoordinator::Report(mut report)) = to_coordinator().pop() else { panic!("it is a report") };
    report.info.resources.insert("gpu".to_owned(), 1);
    report.info.batch_overcommit = Overcommit::MOST;
    let frame = encode(&report).unwrap();
    assert_eq!(decode::<Report>(&frame[4..]).unwrap(), report);
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    fn check<M: Serialize + for<'a> Deserialize<'a>>(messages: &[M]) {
        for message in messages {
            let frame = encode(message).unwrap();
            for cut in 4..frame.len() {
                assert!(decode_known::<M>(&frame[4..cut]).is_err(), "cut at {cut} of {}", frame.len());
            }
        }
    }
    check(&stream_requests());
    check(&stream_replies());
    check(&to_agent());
    check(&to_coordinator());
    check(&[join_request()]);
    check(&join_replies());
    check(&passed_to_agent());
    check(&passed_to_worker());
}

#[test]
fn a_field_of_a_later_version_is_skipped() {
    #[derive(Serialize)]
    #[serde(rename_all = "kebab-case")]
    enum Later {
        Refused { code: &'static str, message: &'static str, retry_after_ms: u64, hints: Vec<&'static str> },
    }
    let later =
        Later::Refused { code: "busy", message: "later", retry_after_ms: 5000, hints: vec!["a", "b"] };
    let frame = encode(&later).unwrap();
    let message: ToAgent = decode(&frame[4..]).unwrap();
    assert_eq!(message, ToAgent::Refused { code: RefusalCode::Other, message: "later".into() });
}

#[test]
fn a_field_left_out_takes_its_default() {
    #[derive(Serialize)]
    struct Bare {
        min_version: u16,
        max_version: u16,
        node: &'static str,
        cluster: &'static str,
        term: u64,
    }
    let bare = Bare { min_version: 1, max_version: 2, node: "node-1", cluster: "c4", term: 7 };
    let frame = encode(&bare).unwrap();
    assert_eq!(decode::<Hello>(&frame[4..]).unwrap(), Hello { software: String::new(), ..hello() });
    let frame = encode(&BTreeMap::from([("ok", BTreeMap::<&str, u8>::new())])).unwrap();
    assert_eq!(decode::<StreamReply>(&frame[4..]).unwrap(), StreamReply::Ok { length: None, name: None });
}

#[test]
fn a_message_of_an_unknown_kind_is_told_from_nonsense() {
    let with_fields = encode(&BTreeMap::from([("drain", BTreeMap::from([("by_ms", 5)]))])).unwrap();
    assert_eq!(decode_known::<ToAgent>(&with_fields[4..]).unwrap(), None);
    let without_fields = encode(&"drain").unwrap();
    assert_eq!(decode_known::<ToAgent>(&without_fields[4..]).unwrap(), None);

    let wrong_fields = encode(&BTreeMap::from([("welcome", BTreeMap::from([("version", "x")]))])).unwrap();
    assert!(decode_known::<ToAgent>(&wrong_fields[4..]).is_err());
    let two_kinds = encode(&BTreeMap::from([("drain", 1), ("welcome", 2)])).unwrap();
    assert!(decode_known::<ToAgent>(&two_kinds[4..]).is_err());
    let number = encode(&17).unwrap();
    assert!(decode_known::<ToAgent>(&number[4..]).is_err());
    // What is no enum has no kinds.
    assert!(decode_known::<JoinRequest>(&with_fields[4..]).is_err());
    for message in to_agent() {
        let frame = encode(&message).unwrap();
        assert_eq!(decode_known(&frame[4..]).unwrap(), Some(message));
    }
}

#[test]
fn bytes_after_the_message_are_refused() {
    let mut frame = encode(&join_replies()[0]).unwrap();
    frame.push(0);
    let error = decode::<JoinReply>(&frame[4..]).unwrap_err();
    assert_eq!(error.to_string(), "the frame is not a message: 1 bytes follow the message");
    assert!(decode_known::<JoinReply>(&frame[4..]).is_err());
}

#[test]
fn a_frame_over_the_limit_is_refused_on_both_sides() {
    let over = u32::try_from(MAX_FRAME).unwrap() + 1;
    assert!(matches!(frame_length(over.to_be_bytes()), Err(FrameError::TooLong { .. })));
    assert_eq!(frame_length((over - 1).to_be_bytes()).unwrap(), MAX_FRAME);
    let message = StreamReply::Error { message: "x".repeat(MAX_FRAME) };
    assert!(matches!(encode(&message), Err(FrameError::TooLong { .. })));
}

#[test]
fn nesting_beyond_the_depth_is_refused() {
    // As an unknown field, which is skipped: skipping must not run deep either.
    for depth in [33, 1000, 1_000_000] {
        let mut body = vec![0xa1, 0x61, b'x'];
        body.extend(std::iter::repeat_n(0x81, depth));
        body.push(0x00);
        assert!(decode::<JoinRequest>(&body).is_err());
        assert!(decode_known::<ToAgent>(&body).is_err());
    }
}

#[test]
fn a_string_that_claims_to_be_huge_is_refused_without_its_memory() {
    for head in [0x5b, 0x7b, 0x9b, 0xbb] {
        let mut body = vec![0xa1, 0x68];
        body.extend(b"token_id");
        body.push(head);
        body.extend(u64::MAX.to_be_bytes());
        assert!(decode::<JoinRequest>(&body).is_err());
        assert!(decode_known::<ToAgent>(&body).is_err());
    }
}

#[test]
fn secrets_are_not_shown() {
    let shown = format!("{:?}", join_request());
    assert!(shown.contains("abcdefghij") && !shown.contains("90"), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_known::<StreamRequest>(&bytes);
        let _ = decode_known::<StreamReply>(&bytes);
        let _ = decode_known::<ToAgent>(&bytes);
        let _ = decode_known::<ToCoordinator>(&bytes);
        let _ = decode_known::<JoinRequest>(&bytes);
        let _ = decode_known::<JoinReply>(&bytes);
        let _ = decode_known::<PassedToAgent>(&bytes);
        let _ = decode_known::<PassedToWorker>(&bytes);
    }

    #[test]
    fn a_message_with_some_bytes_changed_never_panics(
        message in 0..23_usize,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut frame = all_frames().swap_remove(message);
        for (at, byte) in changes {
            let at = 4 + at.index(frame.len() - 4);
            frame[at] = byte;
        }
        let body = &frame[4..];
        let _ = decode_known::<StreamRequest>(body);
        let _ = decode_known::<StreamReply>(body);
        let _ = decode_known::<ChunkList>(body);
        let _ = decode_known::<PackedChunk>(body);
        let _ = decode_known::<ToAgent>(body);
        let _ = decode_known::<ToCoordinator>(body);
        let _ = decode_known::<JoinRequest>(body);
        let _ = decode_known::<JoinReply>(body);
        let _ = decode_known::<PassedToAgent>(body);
        let _ = decode_known::<PassedToWorker>(body);
    }
}
