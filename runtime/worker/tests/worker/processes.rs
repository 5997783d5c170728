//! Workers in processes of their own: what is the same in all of them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::Command;

use bytes::Bytes;
use dunlin_guest_artifacts as guests;
use dunlin_model::{Fuel, FuelRate, Limits, Work, WorkloadKind};
use http::Request;
use http_body_util::{BodyExt, Full};

use crate::support::{LIMITS, Worker, allocation};

/// The variable by which this program knows that it is to be a worker.
const ROLE: &str = "DUNLIN_TEST_IS_WORKER";

/// Starts this program again, as a worker.
fn begin(control: UnixStream, channel: OwnedFd) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "processes::this_process_is_a_worker_if_it_was_told_to_be_one"]);
    let mut child = command.env(ROLE, "1").stdin(OwnedFd::from(control)).stdout(channel).spawn().unwrap();
    // It ends with its control socket.
    std::thread::spawn(move || child.wait());
}

#[test]
fn this_process_is_a_worker_if_it_was_told_to_be_one() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let control = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let channel = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    dunlin_worker::run(control.into(), channel).unwrap();
}

#[tokio::test]
async fn the_same_request_burns_the_same_fuel_a_thousand_times_and_in_two_processes() {
    let plenty = 1_000_000_000_000;
    let limits = Limits { fuel_rate: FuelRate(plenty), fuel_burst: Fuel(plenty), ..LIMITS };
    let mut seen = BTreeSet::new();
    for _ in 0..2 {
        let mut worker = Worker::start_by(begin).await;
        let mut allocation = allocation(guests::HELLO, Work::Serve, limits);
        if let WorkloadKind::Service(service) = &mut std::sync::Arc::make_mut(&mut allocation.spec).kind {
            service.fuel_header = true;
        }
        let compiled = worker.compile(guests::HELLO).unwrap();
        worker.try_start_compiled(compiled, allocation).await.unwrap();
        for _ in 0..500 {
            let request = Request::get("/").header("host", "hello.test").header("dunlin-allocation", "a1");
            let response = worker.request(request.body(Full::<Bytes>::default()).unwrap()).await;
            assert_eq!(response.status(), 200);
            seen.insert(response.headers()["dunlin-fuel"].to_str().unwrap().to_owned());
            response.into_body().collect().await.unwrap();
        }
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}
