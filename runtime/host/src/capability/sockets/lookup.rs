//! The addresses of one name, asked of the connector.

use std::net::{IpAddr, Ipv6Addr};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use std::vec;

use tokio::time::timeout;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::Pollable;
use wasmtime_wasi::p2::bindings::sockets::network::ErrorCode;
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn};

use super::super::outbound::{ConnectFailure, Resolving};
use super::Caller;

type Answer = Result<vec::IntoIter<IpAddr>, ErrorCode>;

/// A question and its answer.
pub(super) struct Lookup {
    /// What was asked for; absent where it was an address.
    name: Option<String>,
    state: State,
}

enum State {
    UnderWay(AbortOnDropJoinHandle<Answer>),
    Answered(Answer),
}

/// Returns the address which `text` is.
pub(super) fn literal(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match bare {
        Some(bare) => bare.parse::<Ipv6Addr>().ok()?.into(),
        None => text.parse::<IpAddr>().ok()?,
    };
    Some(address.to_canonical())
}

impl Lookup {
    /// Returns the answer for who asks for the addresses of an address.
    pub(super) fn of_address(address: IpAddr) -> Self {
        Self { name: None, state: State::Answered(Ok(vec![address].into_iter())) }
    }

    /// Waits, then has `resolving` go on by itself.
    pub(super) fn begin(name: String, (resolving, wait): (Resolving, Duration), caller: Caller) -> Self {
        let task = spawn(async move {
            let late = caller.time();
            let answer = timeout(late, async {
                tokio::time::sleep(wait).await;
                resolving.await
            });
            match answer.await {
                Ok(Ok(addresses)) => Ok(addresses.into_iter()),
                Ok(Err(failure)) => Err(failed(failure, &caller)),
                Err(_elapsed) => {
                    caller.late();
                    Err(ErrorCode::TemporaryResolverFailure)
                }
            }
        });
        Self { name: Some(name), state: State::UnderWay(task) }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn is_under_way(&self) -> bool {
        matches!(self.state, State::UnderWay(_))
    }

    /// Returns the next address; `would-block` as long as there is no answer.
    pub(super) fn next(&mut self) -> Result<Option<IpAddr>, ErrorCode> {
        match self.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Err(ErrorCode::WouldBlock),
            Poll::Ready(Ok(addresses)) => Ok(addresses.next()),
            Poll::Ready(Err(code)) => Err(*code),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<&mut Answer> {
        if let State::UnderWay(task) = &mut self.state
            && let Poll::Ready(answer) = Pin::new(task).poll(context)
        {
            self.state = State::Answered(answer);
        }
        match &mut self.state {
            State::UnderWay(_) => Poll::Pending,
            State::Answered(answer) => Poll::Ready(answer),
        }
    }
}

fn failed(failure: ConnectFailure, caller: &Caller) -> ErrorCode {
    match failure {
        ConnectFailure::Denied(rule) => {
            caller.say(&format!("name lookup denied: {rule}"));
            ErrorCode::AccessDenied
        }
        ConnectFailure::NotResolved(_) => ErrorCode::NameUnresolvable,
        ConnectFailure::LimitHit(hit) => {
            caller.hit(&hit);
            ErrorCode::TemporaryResolverFailure
        }
        ConnectFailure::NotConnected(_) | ConnectFailure::Unreachable(_) | ConnectFailure::TimedOut => {
            ErrorCode::TemporaryResolverFailure
        }
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        std::future::poll_fn(|context| self.poll(context).map(drop)).await;
    }
}
