//! `metering = "time"`: what a processor works for a guest is its fuel.

use bytes::Bytes;
use dunlin_engine::{Failure, LoadError, Service};
use dunlin_guest_artifacts::{HELLO, SPIN_HTTP};
use dunlin_model::{Fuel, FuelRate, Instances, Limits, Metering, Outcome};
use http::Request;
use http_body_util::{BodyExt as _, Empty};

use crate::support::{LIMITS, Rig, job_of, run, times};

/// A processor of the node burns a million in a millisecond.
const RATE: FuelRate = FuelRate(1_000_000_000);

fn spin() -> Vec<u8> {
    wat::parse_str(job_of("", "", "(loop $again (br $again))")).unwrap()
}

async fn ask(service: &Service) -> Result<Bytes, Failure> {
    let request = Request::get("http://guest.test/").header("host", "guest.test");
    let response = service.handle(request.body(Empty::<Bytes>::new()).unwrap()).await?;
    Ok(response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn a_guest_that_is_metered_by_time_ends_when_its_fuel_is_used_up() {
    let limits = Limits { fuel: Fuel(100_000_000), ..LIMITS };
    let job = Rig::new().job_by_time(&spin(), limits, RATE).await;
    let end = run(&job).await;
    assert_eq!(end.outcome, Outcome::OutOfFuel { limit: limits.fuel });
    assert!(end.fuel > limits.fuel, "{}", end.fuel);
    // It is looked at once in ten milliseconds, on a busy machine later.
    assert!(end.fuel < Fuel(1_000_000_000), "{}", end.fuel);
    assert!(end.wall.0 >= 100, "{}", end.wall);
    let usage = job.usage();
    assert_eq!(usage.limit_hits.get("fuel"), Some(&1), "{usage:?}");
    assert_eq!(usage.fuel, end.fuel);
}

#[tokio::test]
async fn a_guest_that_is_metered_by_time_waits_beyond_its_fuel_rate() {
    // It works for a burst of 10 ms, and then a tenth of the time.
    let limits = Limits { fuel_rate: FuelRate(100_000_000), fuel_burst: Fuel(10_000_000), ..LIMITS };
    let limits = Limits { fuel: Fuel(40_000_000), ..limits };
    let job = Rig::new().job_by_time(&spin(), limits, RATE).await;
    let end = run(&job).await;
    assert_eq!(end.outcome, Outcome::OutOfFuel { limit: limits.fuel });
    assert!(job.usage().limit_hits.contains_key("fuel_rate"), "{:?}", job.usage());
    // At its last look it may have had one slice more than was earned.
    assert!(end.wall.0 >= 150, "{}", end.wall);
}

#[tokio::test]
async fn the_faster_the_node_the_more_its_time_counts() {
    let component = wat::parse_str(job_of("", "", &times(50_000_000, ""))).unwrap();
    let mut burned = Vec::new();
    for rate in [RATE, FuelRate(RATE.0 * 100)] {
        let limits = Limits { fuel: Limits::MAXIMUM.fuel, ..LIMITS };
        let job = Rig::new().job_by_time(&component, limits, rate).await;
        let end = run(&job).await;
        assert_eq!(end.outcome, Outcome::Completed);
        burned.push(end.fuel.0);
    }
    assert!(burned[1] > burned[0] * 10, "{burned:?}");
}

#[tokio::test]
async fn services_are_metered_by_time_in_fresh_and_in_reused_instances() {
    let limits = Limits { fuel: Fuel(100_000_000), ..LIMITS };
    let rig = Rig::new();
    for instances in [Instances::Fresh, Instances::Reused] {
        let service = rig.service_by_time(HELLO, limits, (instances, RATE)).await;
        // Together they burn more than one may.
        let mut most = Fuel(0);
        let mut last = Fuel(0);
        while last <= Fuel(limits.fuel.0 * 2) {
            assert!(ask(&service).await.unwrap().starts_with(b"hello"));
            let burned = service.usage().fuel;
            most = most.max(burned.minus(last));
            last = burned;
        }
        assert!(Fuel(0) < most && most < limits.fuel, "{most}");
        let spinning = rig.service_by_time(SPIN_HTTP, limits, (instances, RATE)).await;
        for _ in 0..2 {
            let failure = ask(&spinning).await.unwrap_err();
            let out_of_fuel = Outcome::OutOfFuel { limit: limits.fuel };
            assert!(matches!(&failure, Failure::Ended(outcome, _) if *outcome == out_of_fuel), "{failure:?}");
        }
    }
}

#[tokio::test]
async fn code_of_one_metering_never_runs_as_that_of_another() {
    let rig = Rig::new();
    let component = spin();
    for (made, wanted) in [(Metering::Fuel, Metering::Time), (Metering::Time, Metering::Fuel)] {
        let code = dunlin_engine::compile_as(&component, made).unwrap();
        // Even where an agent has kept it under the wrong name.
        let refused = rig.load_code(&code, wanted, &component).await.map(drop).unwrap_err();
        assert!(matches!(&refused, LoadError::Failed(_)), "{refused}");
        let code = dunlin_engine::compile_as(&component, wanted).unwrap();
        assert!(rig.load_code(&code, wanted, &component).await.is_ok(), "compiled again, it is");
    }
}
