//! Health checks: a service is asked by its own worker, as a client would ask it, and what it answers is told.
//!
//! Not here: how many bad answers make it unwell (the supervisor decides that).

use std::time::Duration;

use bytes::Bytes;
use dunlin_engine::{Failure, Service};
use dunlin_model::{AllocationId, AssignedAllocation, HealthSpec, WorkloadKind};
use dunlin_protocol::FromWorker;
use http::Request;
use http::header::{HOST, USER_AGENT};
use http_body_util::{BodyExt as _, Empty};

use crate::control::Agent;
use crate::failure;

/// Returns how it is known that an allocation is well, if its spec says.
pub(crate) fn health(allocation: &AssignedAllocation) -> Option<&HealthSpec> {
    match &allocation.spec.kind {
        WorkloadKind::Service(service) => service.health.as_ref(),
        WorkloadKind::Job(_) => None,
    }
}

/// Asks a service again and again, for ever, and tells what it answers.
pub(crate) async fn check(service: &Service, spec: &HealthSpec, allocation: AllocationId, agent: &Agent) {
    loop {
        let time = Duration::from_millis(spec.timeout.0);
        let answer = match tokio::time::timeout(time, ask(service, &spec.path)).await {
            Ok(answer) => answer,
            Err(_) => Answer::Bad(format!("no answer within {}", spec.timeout)),
        };
        let problem = match answer {
            Answer::Good => Some(None),
            Answer::Bad(problem) => Some(Some(format!("GET {}: {problem}", spec.path))),
            Answer::None => None,
        };
        if let Some(problem) = problem {
            agent.send(FromWorker::Checked { allocation, problem }).await;
        }
        tokio::time::sleep(Duration::from_millis(spec.interval.0)).await;
    }
}

/// What a check has shown.
enum Answer {
    Good,
    /// What is wrong.
    Bad(String),
    /// Nothing: all its instances answer others, which is a sign neither of good health nor of ill.
    None,
}

/// Asks a service once.
async fn ask(service: &Service, path: &str) -> Answer {
    let request = Request::get(path)
        .header(HOST, "localhost")
        .header(USER_AGENT, "dunlin-health")
        .body(Empty::<Bytes>::new());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Answer::Bad(error.to_string()),
    };
    let response = match service.handle(request).await {
        Ok(response) => response,
        Err(Failure::Overloaded(_)) => return Answer::None,
        Err(failure) => return Answer::Bad(failure::of(failure).detail().to_owned()),
    };
    let status = response.status();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        if let Err(error) = frame {
            return Answer::Bad(format!("the answer broke off: {error}"));
        }
    }
    if status.is_success() || status.is_redirection() {
        return Answer::Good;
    }
    Answer::Bad(format!("the answer is {status}"))
}
