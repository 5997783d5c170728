//! Why a request got no answer from a guest, as the client is told.
//!
//! The client hears what happened, not where in the guest: its stack is for the owner, in the log.

use dunlin_engine::Failure as EngineFailure;
use dunlin_ingress::Failure;
use dunlin_model::{LimitHit, Outcome};
use http::StatusCode;

/// After how many seconds it makes sense to ask again.
const RETRY_SECONDS: u32 = 1;

pub(crate) fn no_allocation(detail: String) -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, Failure::NO_ALLOCATION, detail).retry_after(RETRY_SECONDS)
}

pub(crate) fn of(failure: EngineFailure) -> Failure {
    match failure {
        EngineFailure::Overloaded(hit) => {
            let detail = "every instance that may run is busy".to_owned();
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
                .limit(hit)
                .retry_after(RETRY_SECONDS)
        }
        EngineFailure::TooLarge(hit) => {
            let detail = "the request's body is too long".to_owned();
            Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail).limit(hit)
        }
        EngineFailure::HeadTooLarge(hit) => {
            let detail = "the request's header fields are too many, or too large".to_owned();
            Failure::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", detail).limit(hit)
        }
        EngineFailure::TooManyHops(hit) => {
            let detail = "the request has come through too many services, each asking the next".to_owned();
            Failure::new(StatusCode::LOOP_DETECTED, "loop_detected", detail)
                .limit(hit)
                .hint("does a service ask itself, or one that asks it?".to_owned())
        }
        EngineFailure::ResponseTooLarge(hit) => {
            let detail = "the guest's response is more than it may be".to_owned();
            Failure::new(StatusCode::BAD_GATEWAY, "response_too_large", detail).limit(hit)
        }
        EngineFailure::Malformed(detail) => {
            Failure::new(StatusCode::BAD_REQUEST, "malformed_request", detail)
        }
        EngineFailure::NoResponse(detail) => Failure::new(StatusCode::BAD_GATEWAY, "no_response", detail),
        EngineFailure::Ended(outcome, instance) => {
            let failure = of_outcome(outcome);
            // By it the owner finds what is known of the instance.
            instance.into_iter().fold(failure, Failure::instance)
        }
    }
}

fn of_outcome(outcome: Outcome) -> Failure {
    let bad_gateway = |code, detail: &str| Failure::new(StatusCode::BAD_GATEWAY, code, detail.to_owned());
    match outcome {
        Outcome::Trapped { .. } | Outcome::Completed => {
            bad_gateway("guest_trapped", "the guest failed before it answered; its log says how")
        }
        Outcome::Exited { code } => {
            bad_gateway("guest_exited", &format!("the guest exited with code {code} before it answered"))
        }
        Outcome::OutOfFuel { limit } => {
            bad_gateway("out_of_fuel", "the guest burned all the fuel a request may burn")
                .limit(LimitHit::new("fuel", limit, limit))
                .hint("raise `fuel` in the workload's limits, or compute less".to_owned())
        }
        Outcome::OutOfMemory { limit, observed } => {
            bad_gateway("out_of_memory", "the guest wanted more memory than it may have")
                .limit(LimitHit::new("memory", limit, observed))
                .hint("raise `memory` in the workload's limits, or hold less".to_owned())
        }
        Outcome::DeadlineExceeded { limit } => {
            let detail = "the guest did not answer in time".to_owned();
            Failure::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", detail)
                .limit(LimitHit::new("deadline", limit, "more"))
                .hint("raise `deadline` in the workload's limits, or answer sooner".to_owned())
        }
        Outcome::LimitExceeded { hit } => {
            let hint = format!("see `{}` in the workload's limits", hit.limit);
            bad_gateway("limit_exceeded", "the guest hit one of its limits").limit(hit).hint(hint)
        }
        Outcome::Cancelled => {
            let detail = "the allocation was stopped before it answered".to_owned();
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, "allocation_stopped", detail)
                .retry_after(RETRY_SECONDS)
        }
        // Of a request it is always known.
        Outcome::NotStarted { .. } | Outcome::Unknown { .. } => {
            let detail = "the guest could not be started; its log says why".to_owned();
            Failure::new(StatusCode::SERVICE_UNAVAILABLE, "not_started", detail).retry_after(RETRY_SECONDS)
        }
    }
}
