//! One request and its response: who polls the guest, and until when.
//!
//! The guest runs in the task of whoever asked, as far as it gets without waiting: most guests are done at the first
//! poll, and then nothing had to be spawned, woken or sent to another thread, and the response is known as a whole.
//! A guest that has given the head of its response and goes on is moved to a task of its own, from which the body
//! streams. Until then, to drop the request is to end the instance.

use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use dunlin_model::{Bytes as Size, Outcome};
use futures_util::FutureExt as _;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use tokio::sync::oneshot;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};

use crate::body::{Begun, End, GuestBody, Stream, too_long};
use crate::code::{Linked, ServiceCode};
use crate::dump::Untold;
use crate::gate::Permit;
use crate::limits::WHOLE_BODY;
use crate::outcome::Ending;
use crate::reuse::{Idle, Live};
use crate::sandbox::{Ended, Sandbox, Used};
use crate::service::{Failure, Spent};
use crate::wasi03;

/// What a guest answers: a response, or an error in its place.
pub(crate) type Answer = Result<Response<HyperOutgoingBody>, ErrorCode>;

/// Where the answer of a guest comes from, by the version of WASI.
pub(crate) enum Head {
    Wasi02(oneshot::Receiver<Answer>),
    Wasi03(oneshot::Receiver<wasi03::Answer>),
}

impl Head {
    /// Takes the answer, if it is there; an error in its place in words.
    fn take(&mut self) -> Option<Result<Response<HyperOutgoingBody>, String>> {
        match self {
            Self::Wasi02(head) => Some(head.try_recv().ok()?.map_err(|code| code.to_string())),
            Self::Wasi03(head) => Some(head.try_recv().ok()?.map_err(|code| code.to_string())),
        }
    }
}

/// What a guest is asked, by the version of WASI.
pub(crate) enum Asked {
    Wasi02(Resource<HostIncomingRequest>, Resource<HostResponseOutparam>),
    Wasi03(Box<wasi03::Asked>),
}

/// How an instance ended its request, and what it used, as soon as that is known. It is known before the instance is
/// taken down.
pub(crate) type Record = Arc<OnceLock<(Outcome, Option<Used>)>>;

/// An instance with a request.
pub(crate) struct Running {
    pub(crate) live: Option<Live>,
    pub(crate) sandbox: Arc<Sandbox>,
    /// Where the instance goes after a clean end, if it may answer more than one request.
    pub(crate) idle: Option<Idle>,
    pub(crate) record: Record,
    pub(crate) _permit: Permit,
}

impl Running {
    /// Runs the guest to its end.
    pub(crate) async fn run(mut self, linked: Arc<Linked>, asked: Asked) {
        let Some(live) = &mut self.live else { return };
        let ending = {
            let (gauge, pause) = (live.instance.gauge.clone(), live.instance.pause.clone());
            let last_calls = live.instance.store.data().last_calls().clone();
            // Whoever is handed a future has room for it twice, and copies it. So the call stays where it is.
            let call = pin!(async {
                match (linked.service().map_err(wasmtime::Error::new)?, asked) {
                    (ServiceCode::Wasi02(service), Asked::Wasi02(request, answer)) => {
                        let proxy = match live.proxy.take() {
                            Some(proxy) => proxy,
                            None => service.instantiate_async(&mut live.instance.store).await?,
                        };
                        let handler = proxy.wasi_http_incoming_handler();
                        let result = handler.call_handle(&mut live.instance.store, request, answer).await;
                        live.proxy = Some(proxy);
                        result
                    }
                    (ServiceCode::Wasi03(service), Asked::Wasi03(asked)) => {
                        // Boxed, so that it takes no room in the futures of all others.
                        Box::pin(wasi03::answer(&mut live.instance.store, service, *asked)).await
                    }
                    (ServiceCode::Wasi02(_), Asked::Wasi03(_))
                    | (ServiceCode::Wasi03(_), Asked::Wasi02(..)) => {
                        unreachable!("a component is asked as its code says")
                    }
                }
            });
            self.sandbox.until_end((&gauge, &pause), last_calls.during(call), std::future::pending()).await
        };
        let (is_clean, untold) = self.end(&ending);
        if let (Some(untold), Ending::Returned(Err(error))) = (untold, ending) {
            // The client does not wait for it. The instance keeps its place meanwhile.
            tokio::task::spawn_blocking(move || {
                if let Some(live) = &mut self.live {
                    untold.tell(&error, &mut live.instance.store);
                }
            });
            return;
        }
        if let (true, Some(idle), Some(live)) = (is_clean, &self.idle, self.live.take()) {
            idle.keep(live);
        }
    }

    /// Accounts for the request and tells whether all went well, with what is still to be told of it.
    fn end(&self, ending: &Ending<()>) -> (bool, Option<Untold>) {
        let Some(live) = &self.live else { return (false, None) };
        let Ended { outcome, used, untold } =
            self.sandbox.end("request", &live.instance, ending, |()| Outcome::Completed);
        // A guest that exits does so in the middle of a call: nothing can be called in it again.
        let is_clean = outcome.is_completed() && matches!(ending, Ending::Returned(Ok(())));
        // Nobody else sets it while this is here.
        let _ = self.record.set((outcome, Some(used)));
        (is_clean, untold)
    }
}

impl Drop for Running {
    /// An instance that has no end yet is dropped by whoever asked, or by a panic in the host's own code.
    fn drop(&mut self) {
        if self.record.get().is_some() {
            return;
        }
        if std::thread::panicking() {
            let _ = self.record.set((host_panicked(), None));
        } else {
            self.end(&Ending::Cancelled);
        }
    }
}

fn host_panicked() -> Outcome {
    Outcome::Trapped {
        reason: "the host panicked while the guest called it; this is a bug of Dunlin".to_owned(),
    }
}

/// A request that is being answered.
pub(crate) struct Exchange {
    run: Pin<Box<dyn Future<Output = ()> + Send>>,
    head: Head,
    record: Record,
    answers_head: bool,
    limit: Size,
}

impl Exchange {
    /// Returns the exchange in which `run`, which sets `record`, may answer through `head`. `answers_head` tells that
    /// the client wants no body; it gets no more than `limit` bytes of it.
    pub(crate) fn new(
        run: impl Future<Output = ()> + Send + 'static,
        head: Head,
        record: Record,
        answers_head: bool,
        limit: Size,
    ) -> Self {
        // A panic in the host's own code ends nothing but this instance, in whosever task it runs.
        let run = Box::pin(AssertUnwindSafe(run).catch_unwind().map(drop));
        Self { run, head, record, answers_head, limit }
    }

    /// Returns the response as soon as its head is there.
    pub(crate) async fn answer(mut self) -> Result<Response<GuestBody>, Failure> {
        let mut answer = None;
        let mut begun = Begun::default();
        let is_done =
            std::future::poll_fn(|context| self.poll_answer(&mut answer, &mut begun, context)).await;
        match answer {
            Some(Ok(response)) if is_done => self.done(response, begun),
            Some(Ok(response)) => Ok(self.streaming(response, begun)),
            Some(Err(code)) => {
                if !is_done {
                    go_on(self.run, None);
                }
                Err(Failure::NoResponse(format!("the guest answered with the error {code}")))
            }
            None => Err(self.unanswered()),
        }
    }

    /// Lets the guest run until it is done, or until the head of its response is there and it makes no progress that
    /// could be seen from here. Tells whether it is done.
    fn poll_answer(
        &mut self,
        answer: &mut Option<Result<Response<HyperOutgoingBody>, String>>,
        begun: &mut Begun,
        context: &mut Context<'_>,
    ) -> Poll<bool> {
        loop {
            let is_done = self.run.as_mut().poll(context).is_ready();
            if answer.is_none() {
                // Who sends is polled right here, so there is no need to wait for it.
                *answer = self.head.take();
            }
            match answer {
                None if is_done => return Poll::Ready(true),
                None => return Poll::Pending,
                Some(Err(_)) => return Poll::Ready(is_done),
                Some(Ok(response)) => {
                    let enough = if is_done { u64::MAX } else { WHOLE_BODY };
                    let went_on = begun.take_ready(response.body_mut(), enough, context);
                    if is_done || !went_on || begun.length >= WHOLE_BODY {
                        return Poll::Ready(is_done);
                    }
                }
            }
        }
    }

    /// Returns the response of a guest that has ended.
    fn done(
        self,
        response: Response<HyperOutgoingBody>,
        mut begun: Begun,
    ) -> Result<Response<GuestBody>, Failure> {
        let declared = content_length(response.headers());
        let (outcome, used) = self.record.get().cloned().unwrap_or_else(|| (host_panicked(), None));
        if !outcome.is_completed() && declared != Some(begun.length) {
            return Err(Failure::Ended(outcome, used.map(|used| used.instance)));
        }
        if begun.length > self.limit.0 {
            return Err(Failure::ResponseTooLarge(too_long(self.limit)));
        }
        match begun.end.take() {
            Some(End::Broken(error)) => {
                Err(Failure::NoResponse(format!("the guest's response is broken: {error}")))
            }
            Some(End::Finished) if begun.is_data() => {
                let spent = used.map(Spent::from);
                Ok(response.map(|_| GuestBody::whole(begun.into_whole(), spent)))
            }
            // Trailers, or a rest that is there but not yet to be had.
            end => {
                begun.end = end;
                Ok(self.stream(response, begun, (None, None)))
            }
        }
    }

    /// Returns the response of a guest that goes on.
    fn streaming(mut self, response: Response<HyperOutgoingBody>, begun: Begun) -> Response<GuestBody> {
        let ((lifeline, cut), (running, ended)) = (oneshot::channel(), oneshot::channel());
        let run = std::mem::replace(&mut self.run, Box::pin(std::future::ready(())));
        go_on(run, Some((cut, running)));
        self.stream(response, begun, (Some(lifeline), Some(ended)))
    }

    fn stream(
        self,
        response: Response<HyperOutgoingBody>,
        begun: Begun,
        (lifeline, ended): (Option<oneshot::Sender<()>>, Option<oneshot::Receiver<()>>),
    ) -> Response<GuestBody> {
        let (parts, rest) = response.into_parts();
        let bodiless = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&parts.status);
        let left = content_length(&parts.headers).filter(|length| *length <= self.limit.0);
        let is_unread = self.answers_head || bodiless || left == Some(0);
        let stream = Stream {
            begun: begun.frames,
            is_ended: begun.end.is_some(),
            rest,
            record: self.record,
            lifeline,
            limit: self.limit,
            sent: 0,
            left,
            is_unread,
            trailers: None,
            ended,
            fuel: None,
            is_let_live: false,
        };
        Response::from_parts(parts, GuestBody::stream(stream))
    }

    /// Returns why there is no answer of a guest that has ended.
    fn unanswered(&self) -> Failure {
        match self.record.get() {
            Some((Outcome::Completed, _)) | None => {
                Failure::NoResponse("the guest returned without a response".to_owned())
            }
            Some((outcome, used)) => Failure::Ended(outcome.clone(), used.map(|used| used.instance)),
        }
    }
}

/// Lets the guest go on in a task of its own, until it is done or nobody wants its response any more: `cut` was
/// dropped by the other side. If that was used, the response is complete. The sender is dropped when the guest is done.
fn go_on(
    mut run: Pin<Box<dyn Future<Output = ()> + Send>>,
    ties: Option<(oneshot::Receiver<()>, oneshot::Sender<()>)>,
) {
    tokio::spawn(async move {
        let (cut, _running) = ties.unzip();
        let unwanted = async {
            let is_cut = match cut {
                Some(cut) => cut.await.is_err(),
                None => false,
            };
            if !is_cut {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = &mut run => {}
            () = unwanted => {}
        }
    });
}

pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
