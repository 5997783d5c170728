//! Core dumps: made of what traps, within their limit, and of nothing else; what is told of a trap is the same.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use dunlin_engine::{Failure, Service};
use dunlin_guest_artifacts as guests;
use dunlin_host::{DumpBytes, LogSink};
use dunlin_model::{
    Bytes as Size, CoreDump, DurationMs, Fuel, FuelRate, Limits, LogRecord, Metering, TrapRecord,
};
use http::Request;
use http_body_util::Full;
use tokio::sync::Notify;

use crate::rig::Rig;

const LIMITS: Limits = Limits {
    memory: Size(16 << 20),
    fuel_rate: FuelRate(1_000_000_000_000),
    fuel_burst: Fuel(1_000_000_000_000),
    ..Limits::SERVICE
};

/// What was told of traps.
#[derive(Default)]
struct Told {
    traps: Mutex<Vec<(TrapRecord, Option<Vec<u8>>)>>,
    lines: Mutex<Vec<String>>,
    arrived: Notify,
}

impl LogSink for Told {
    fn record(&self, record: LogRecord) {
        self.lines.lock().unwrap().push(record.text);
    }

    fn trap(&self, trap: Box<TrapRecord>) {
        self.traps.lock().unwrap().push((*trap, None));
        self.arrived.notify_one();
    }

    fn trap_with_dump(&self, trap: Box<TrapRecord>, dump: DumpBytes) {
        self.traps.lock().unwrap().push((*trap, Some(dump.bytes)));
        self.arrived.notify_one();
    }
}

impl Told {
    /// Asks a service that fails, and returns what is told of it.
    async fn asked(&self, service: &Service) -> (TrapRecord, Option<Vec<u8>>) {
        let request = Request::get("/").header("host", "h").body(Full::new(Bytes::new())).unwrap();
        let failure = service.handle(request).await.map(drop).unwrap_err();
        assert!(matches!(failure, Failure::Ended(..)), "{failure:?}");
        self.arrived.notified().await;
        self.traps.lock().unwrap().pop().unwrap()
    }
}

async fn told(
    component: &[u8],
    limits: Limits,
    (dumps, metering, size): (bool, Metering, u64),
) -> (TrapRecord, Option<Vec<u8>>, Vec<String>) {
    let (rig, told) = (Rig::new(), Arc::new(Told::default()));
    rig.engine.set_coredump_size(Size(size));
    let service = rig.service_as(component, limits, (dumps, metering), told.clone()).await;
    let (trap, dump) = told.asked(&service).await;
    let lines = told.lines.lock().unwrap().clone();
    (trap, dump, lines)
}

#[tokio::test]
async fn what_traps_leaves_a_dump_and_says_the_same_as_without() {
    for metering in [Metering::Fuel, Metering::Time] {
        let (plain, none, lines) = told(guests::TRACED_HTTP, LIMITS, (false, metering, 16 << 20)).await;
        assert_eq!((&plain.coredump, none), (&None, None));
        let (dumped, dump, dumped_lines) =
            told(guests::TRACED_HTTP, LIMITS, (true, metering, 16 << 20)).await;
        let dump = dump.unwrap();
        assert!(dump.starts_with(b"\0asm"));
        assert_eq!(dumped.coredump, Some(CoreDump::Made { size: Size(dump.len() as u64) }));
        let needle = b"about to fail";
        assert!(dump.windows(needle.len()).any(|bytes| bytes == needle), "what the guest held is in it");
        assert_eq!((&dumped.outcome, &dumped.frames), (&plain.outcome, &plain.frames));
        assert_eq!(dumped_lines, lines, "the log says no more than it does without");
        assert!(lines.iter().any(|line| line.contains("wasm backtrace")), "{lines:?}");
    }
}

#[tokio::test]
async fn a_dump_that_would_be_too_large_is_not_made_and_the_record_says_so() {
    let (trap, dump, _) = told(guests::TRACED_HTTP, LIMITS, (true, Metering::Fuel, 1 << 20)).await;
    assert_eq!(dump, None);
    let Some(CoreDump::NotMade { reason }) = trap.coredump else { panic!("{trap:#?}") };
    assert!(reason.starts_with("limit `coredump_size` is 1MiB, observed 1"), "{reason}");
}

#[tokio::test]
async fn what_is_ended_from_outside_has_no_dump_and_what_hits_a_limit_has_one() {
    let limits = Limits { deadline: DurationMs(50), ..LIMITS };
    let (trap, dump, _) = told(guests::SLEEP_HTTP, limits, (true, Metering::Fuel, 16 << 20)).await;
    assert_eq!(dump, None);
    let reason = "it did not trap, but was ended from outside".to_owned();
    assert_eq!(trap.coredump, Some(CoreDump::NotMade { reason }));
    let limits = Limits { memory: Size(4 << 20), ..LIMITS };
    let (trap, dump, _) = told(guests::HOG_HTTP, limits, (true, Metering::Fuel, 16 << 20)).await;
    assert!(dump.is_some(), "{trap:#?}");
    assert_eq!(trap.outcome.name(), "OutOfMemory");
}

#[tokio::test]
async fn one_dump_is_made_at_a_time() {
    let (rig, told) = (Rig::new(), Arc::new(Held::default()));
    rig.engine.set_coredump_size(Size(16 << 20));
    let service = rig.service_as(guests::TRAP_HTTP, LIMITS, (true, Metering::Fuel), told.clone()).await;
    for expected in [true, false] {
        let request = Request::get("/").header("host", "h").body(Full::new(Bytes::new())).unwrap();
        service.handle(request).await.map(drop).unwrap_err();
        told.arrived.notified().await;
        let trap = told.traps.lock().unwrap().pop().unwrap();
        let is_made = matches!(trap.coredump, Some(CoreDump::Made { .. }));
        assert_eq!(is_made, expected, "{trap:#?}");
    }
}

/// Takes dumps and lets go of none.
#[derive(Default)]
struct Held {
    traps: Mutex<Vec<TrapRecord>>,
    dumps: Mutex<Vec<DumpBytes>>,
    arrived: Notify,
}

impl LogSink for Held {
    fn record(&self, _: LogRecord) {}

    fn trap(&self, trap: Box<TrapRecord>) {
        self.traps.lock().unwrap().push(*trap);
        self.arrived.notify_one();
    }

    fn trap_with_dump(&self, trap: Box<TrapRecord>, dump: DumpBytes) {
        self.dumps.lock().unwrap().push(dump);
        self.trap(trap);
    }
}
