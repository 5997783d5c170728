//! The host as it is where there is none: what `wasi` does with interfaces, this does with the host of a test.
//!
//! Without one, as in `cargo run`, there is no configuration, log lines go to standard error, and no request is
//! answered.

use std::cell::RefCell;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::log_level::Level;
use crate::test::State;
use crate::{Request, Response, Result, bail, body_length};

thread_local! {
    /// The host that the running test has installed. Each thread has its own, so that tests do not meet.
    static HOST: RefCell<Option<Rc<RefCell<State>>>> = const { RefCell::new(None) };
}

/// Does some work with this host in place of the present one.
pub(crate) fn with_host<T>(host: &Rc<RefCell<State>>, work: impl FnOnce() -> T) -> T {
    /// Puts the former host back, also where the work panics.
    struct Former(Option<Rc<RefCell<State>>>);

    impl Drop for Former {
        fn drop(&mut self) {
            HOST.set(self.0.take());
        }
    }

    let _former = Former(HOST.replace(Some(Rc::clone(host))));
    work()
}

fn host() -> Option<Rc<RefCell<State>>> {
    HOST.with_borrow(Clone::clone)
}

pub(crate) fn config_value(key: &str) -> Result<Option<String>, String> {
    Ok(host().and_then(|host| host.borrow().config_value(key)))
}

pub(crate) fn config_values() -> Result<Vec<(String, String)>, String> {
    Ok(host().map(|host| host.borrow().config_values()).unwrap_or_default())
}

pub(crate) fn log(level: Level, context: &str, message: &str) {
    let line = format!("{} {context}: {message}", level.word());
    eprintln!("{line}");
    if let Some(host) = host() {
        host.borrow_mut().log(line);
    }
}

pub(crate) async fn send(request: Request, _patience: Option<Duration>) -> Result<Response> {
    let Some(host) = host() else {
        bail!("there is no host here: call it with `dunlin_guest::test::Host`, or compile it to wasm");
    };
    let (mut parts, body) = request.into_parts();
    let (length, mut body) = body_length::fit_request(&parts, body).await?;
    length.say(&mut parts.headers);
    let body = body.bytes().await?;
    host.borrow_mut().send(parts, body)
}

/// Polls the future on this thread, which sleeps in between.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
