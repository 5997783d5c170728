//! The last calls of an instance into the host, by name and with what came of them, for the author of its guest.
//!
//! wasmtime's bindings open a tracing span for each call and record an event with its result. A [`HostCallWatch`]
//! around a process's subscriber sees both, and does so little with them that it can be done for every call: the
//! place in the program from which the span comes stands for the name, which is read once, and the span itself is
//! then declined. Of a result so much is formatted as tells success from failure, and what the failure is.
//!
//! Which instance calls is known from who polls it: [`LastCalls::during`] puts its ring in reach of the thread for
//! as long as one poll takes, so a call that waits, and goes on on another thread, stays with its instance.
//!
//! Not here: how many calls there were, and what they cost (`calls`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_model::{HostCall, TrapRecord};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};

/// How many calls are kept.
const KEPT: usize = TrapRecord::MAX_HOST_CALLS;
/// How many bytes of what came of a call are kept.
const OUTCOME: usize = 48;
/// The span of a call, as wasmtime's bindings name it.
const SPAN: &str = "wit-bindgen import";
/// The field of the event at its end.
const RESULT: &str = "result";
/// Whose events these are.
const TARGETS: [&str; 2] = ["wasmtime_wasi", "dunlin_host"];
/// The one span that is not the inner subscriber's: it is opened once per place, to read the name.
const OWN_SPAN: u64 = u64::MAX;
/// How many places each thread remembers to have a name.
const REMEMBERED: usize = 256;

/// Whether anybody watches; if not, instances need no rings.
static IS_WATCHING: AtomicBool = AtomicBool::new(false);
/// The names of calls, by the place of their spans in the program.
static NAMES: Mutex<BTreeMap<usize, String>> = Mutex::new(BTreeMap::new());

thread_local! {
    /// The ring of the instance that this thread polls.
    static CURRENT: RefCell<Option<Box<Ring>>> = const { RefCell::new(None) };
    /// Places that have a name, each where its address says.
    static NAMED: [Cell<usize>; REMEMBERED] = const { [const { Cell::new(0) }; REMEMBERED] };
    /// Places at which calls return, each where its address says.
    static RETURNS: [Cell<usize>; REMEMBERED] = const { [const { Cell::new(0) }; REMEMBERED] };
}

/// From now on the calls of instances are noted. The process's subscriber must be a [`HostCallWatch`].
pub fn watch_host_calls() {
    IS_WATCHING.store(true, Ordering::Relaxed);
    // Which places are of interest, and up to which level, was decided when the subscriber was set.
    tracing::callsite::rebuild_interest_cache();
}

/// The last calls of one instance.
#[derive(Clone, Debug, Default)]
pub struct LastCalls(Arc<Mutex<Option<Box<Ring>>>>);

/// The last calls, in the order of their coming, from `next` on.
#[derive(Debug)]
struct Ring {
    calls: [Call; KEPT],
    next: usize,
    /// How many there are, as far as they are kept.
    count: usize,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    /// Where in the program its span is.
    place: usize,
    outcome: Text,
}

/// A short text that needs no memory of its own.
#[derive(Clone, Copy)]
struct Text {
    bytes: [u8; OUTCOME],
    length: usize,
}

impl LastCalls {
    /// Polls `call`, in which the instance runs, and notes the calls into the host that it makes meanwhile.
    pub async fn during<T>(self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        poll_fn(move |context| {
            let _current = self.enter();
            call.as_mut().poll(context)
        })
        .await
    }

    /// Returns the last calls, the oldest first.
    pub fn calls(&self) -> Vec<HostCall> {
        self.ring().as_deref().map(Ring::calls).unwrap_or_default()
    }

    /// Forgets all calls.
    pub(crate) fn clear(&self) {
        if let Some(ring) = self.ring().as_deref_mut() {
            (ring.next, ring.count) = (0, 0);
        }
    }

    fn enter(&self) -> Option<Entered<'_>> {
        if !IS_WATCHING.load(Ordering::Relaxed) {
            return None;
        }
        let own = self.ring().take().unwrap_or_default();
        let before = CURRENT.try_with(|current| current.replace(Some(own))).ok()?;
        Some(Entered { calls: self, before })
    }

    fn ring(&self) -> MutexGuard<'_, Option<Box<Ring>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Has an instance's ring in reach of the thread, and brings it back.
struct Entered<'a> {
    calls: &'a LastCalls,
    before: Option<Box<Ring>>,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let before = self.before.take();
        if let Ok(own) = CURRENT.try_with(|current| current.replace(before)) {
            *self.calls.ring() = own;
        }
    }
}

impl Default for Ring {
    fn default() -> Self {
        let none = Call { place: 0, outcome: Text::EMPTY };
        Self { calls: [none; KEPT], next: 0, count: 0 }
    }
}

impl Ring {
    fn begin(&mut self, place: usize) {
        let call = &mut self.calls[self.next];
        call.place = place;
        call.outcome.length = 0;
        self.next = (self.next + 1) % KEPT;
        self.count = (self.count + 1).min(KEPT);
    }

    /// Returns where it is noted what came of the last call, if there was one.
    fn last_outcome(&mut self) -> Option<&mut Text> {
        (self.count > 0).then(|| &mut self.calls[(self.next + KEPT - 1) % KEPT].outcome)
    }

    fn calls(&self) -> Vec<HostCall> {
        let names = names();
        let oldest = self.next + KEPT - self.count;
        (oldest..self.next + KEPT)
            .map(|index| {
                let Call { place, outcome } = &self.calls[index % KEPT];
                let name = names.get(place).map_or("unknown", String::as_str);
                HostCall { name: name.to_owned(), outcome: outcome.meaning() }
            })
            .collect()
    }
}

impl Text {
    const EMPTY: Self = Self { bytes: [0; OUTCOME], length: 0 };

    fn as_str(&self) -> &str {
        let bytes = &self.bytes[..self.length];
        // It may have been cut within a character.
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
        }
    }

    /// Returns what a result means of which this is the beginning.
    fn meaning(&self) -> String {
        let text = self.as_str();
        let error = text.strip_prefix("Err(").or_else(|| text.strip_prefix("Ok(Err("));
        match error {
            None if text.is_empty() => "did not return".to_owned(),
            // The bindings show no result with lists in it.
            None if text.starts_with('"') => "returned".to_owned(),
            None => "ok".to_owned(),
            Some(error) => {
                let error = error.lines().next().unwrap_or_default();
                let surplus = error.matches(')').count().saturating_sub(error.matches('(').count());
                let mut error = error;
                for _ in 0..surplus {
                    error = error.strip_suffix(')').unwrap_or(error);
                }
                match error.trim() {
                    "" | "()" => "error".to_owned(),
                    error => format!("error: {error}"),
                }
            }
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// Takes so much of a result as is needed, and then wants no more.
impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let taken = text.len().min(OUTCOME - self.length);
        self.bytes[self.length..self.length + taken].copy_from_slice(&text.as_bytes()[..taken]);
        self.length += taken;
        let bytes = &self.bytes[..self.length];
        let is_success = bytes.len() > 3 && bytes.starts_with(b"Ok(") && bytes[3] != b'E';
        if taken < text.len() || is_success { Err(fmt::Error) } else { Ok(()) }
    }
}

fn names() -> MutexGuard<'static, BTreeMap<usize, String>> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns what tells a place in the program from all others.
fn place(metadata: &Metadata<'_>) -> usize {
    std::ptr::from_ref(metadata).addr()
}

/// Notes a call of the instance that this thread polls, and tells whether its name is still to be read.
fn begin(metadata: &Metadata<'_>) -> bool {
    let place = place(metadata);
    let noted = CURRENT.try_with(|current| match current.try_borrow_mut().as_deref_mut() {
        Ok(Some(ring)) => {
            ring.begin(place);
            true
        }
        Ok(None) | Err(_) => false,
    });
    noted.unwrap_or(false) && !has_name(place)
}

fn has_name(place: usize) -> bool {
    let has_name = NAMED.try_with(|named| {
        // Places are structures of some size, so their addresses differ above the lowest bits.
        let slot = &named[(place >> 4) % REMEMBERED];
        if slot.get() != place && names().contains_key(&place) {
            slot.set(place);
        }
        slot.get() == place
    });
    has_name.unwrap_or(true)
}

/// Tells whether calls return at this place.
fn is_return(metadata: &Metadata<'_>) -> bool {
    if *metadata.level() != Level::TRACE {
        return false;
    }
    let place = place(metadata);
    let is_known = RETURNS.try_with(|known| known[(place >> 4) % REMEMBERED].get() == place);
    if is_known.unwrap_or(false) {
        return true;
    }
    let is_return = matches!(Place::of(metadata), Place::Return);
    if is_return {
        // A thread that is about to end looks again.
        let _remembered = RETURNS.try_with(|known| known[(place >> 4) % REMEMBERED].set(place));
    }
    is_return
}

fn end(event: &Event<'_>) {
    // If the thread is about to end there is no instance.
    let _noted = CURRENT.try_with(|current| {
        if let Ok(Some(ring)) = current.try_borrow_mut().as_deref_mut()
            && let Some(outcome) = ring.last_outcome()
        {
            outcome.length = 0;
            event.record(&mut Outcome(outcome));
        }
    });
}

struct Outcome<'a>(&'a mut Text);

impl Visit for Outcome<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == RESULT {
            // An error says that it wants no more.
            let _enough = write!(self.0, "{value:?}");
        }
    }
}

#[derive(Default)]
struct Named {
    module: String,
    function: String,
}

impl Visit for Named {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "module" => value.clone_into(&mut self.module),
            "function" => value.clone_into(&mut self.function),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// Returns the name of a call, as `wasi:http/types.fields.append`.
fn name(target: &str, Named { module, function }: &Named) -> String {
    // The bindings of `wasi:io/streams` are in a module `wasi::io::streams`.
    let package = target.rsplit("::").nth(1).unwrap_or_default().replace('_', "-");
    let function = match function.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some(("constructor", resource)) => format!("{resource}.new"),
        Some((_, method)) => method.to_owned(),
        None => function.clone(),
    };
    format!("wasi:{package}/{module}.{function}")
}

/// A subscriber that notes calls into the host and passes on all else.
#[derive(Debug)]
pub struct HostCallWatch<S>(S);

impl<S: Subscriber> HostCallWatch<S> {
    /// Returns a watch around `inner`. It does nothing before [`watch_host_calls`].
    pub fn new(inner: S) -> Self {
        Self(inner)
    }
}

/// What a place in the program is to the watch.
enum Place {
    Call,
    Return,
    Other,
}

impl Place {
    fn of(metadata: &Metadata<'_>) -> Self {
        if *metadata.level() != Level::TRACE {
            Self::Other
        } else if metadata.is_span() && metadata.name() == SPAN {
            Self::Call
        } else if metadata.is_event()
            && metadata.fields().field(RESULT).is_some()
            && TARGETS.iter().any(|target| metadata.target().starts_with(target))
        {
            Self::Return
        } else {
            Self::Other
        }
    }
}

fn is_own(span: &Id) -> bool {
    span.into_u64() == OWN_SPAN
}

impl<S: Subscriber> Subscriber for HostCallWatch<S> {
    fn on_register_dispatch(&self, subscriber: &Dispatch) {
        self.0.on_register_dispatch(subscriber);
    }

    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match Place::of(metadata) {
            Place::Call | Place::Return if !IS_WATCHING.load(Ordering::Relaxed) => Interest::never(),
            // So `enabled` is asked each time.
            Place::Call => Interest::sometimes(),
            Place::Return => Interest::always(),
            Place::Other => self.0.register_callsite(metadata),
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        if IS_WATCHING.load(Ordering::Relaxed) { Some(LevelFilter::TRACE) } else { self.0.max_level_hint() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        match Place::of(metadata) {
            Place::Call => begin(metadata),
            Place::Return => true,
            Place::Other => self.0.enabled(metadata),
        }
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let metadata = attributes.metadata();
        if !matches!(Place::of(metadata), Place::Call) {
            return self.0.new_span(attributes);
        }
        let mut named = Named::default();
        attributes.record(&mut named);
        names().entry(place(metadata)).or_insert_with(|| name(metadata.target(), &named));
        Id::from_u64(OWN_SPAN)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if !is_own(span) {
            self.0.record(span, values);
        }
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        if !is_own(span) && !is_own(follows) {
            self.0.record_follows_from(span, follows);
        }
    }

    fn event_enabled(&self, event: &Event<'_>) -> bool {
        // Asked before every event: of this level those that are not the watch's own were wanted by `enabled`.
        *event.metadata().level() == Level::TRACE || self.0.event_enabled(event)
    }

    fn event(&self, event: &Event<'_>) {
        if is_return(event.metadata()) {
            end(event);
        } else {
            self.0.event(event);
        }
    }

    fn enter(&self, span: &Id) {
        if !is_own(span) {
            self.0.enter(span);
        }
    }

    fn exit(&self, span: &Id) {
        if !is_own(span) {
            self.0.exit(span);
        }
    }

    fn clone_span(&self, span: &Id) -> Id {
        if is_own(span) { span.clone() } else { self.0.clone_span(span) }
    }

    fn try_close(&self, span: Id) -> bool {
        !is_own(&span) && self.0.try_close(span)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn text(value: &dyn fmt::Debug) -> String {
        let mut text = Text::EMPTY;
        let _enough = write!(text, "{value:?}");
        text.meaning()
    }

    #[test]
    fn of_a_result_is_told_whether_it_is_a_failure_and_which() {
        #[derive(Debug)]
        #[expect(dead_code, reason = "it is shown, not read")]
        enum Code {
            Closed,
            Failed(String),
        }
        assert_eq!(text(&Ok::<_, ()>(vec![1; 1_000_000])), "ok");
        assert_eq!(text(&()), "ok");
        assert_eq!(text(&Ok::<_, ()>(())), "ok");
        assert_eq!(text(&Err::<(), _>(Code::Closed)), "error: Closed");
        assert_eq!(text(&Ok::<_, ()>(Err::<(), _>(Code::Closed))), "error: Closed");
        assert_eq!(text(&Ok::<_, ()>(Err::<(), _>(()))), "error");
        assert_eq!(text(&Err::<(), _>(Code::Failed("no".to_owned()))), "error: Failed(\"no\")");
        let long = text(&Err::<(), _>(Code::Failed("ü".repeat(1000))));
        assert!(long.starts_with("error: Failed(\"üü") && long.len() < 60, "{long}");
        assert_eq!(text(&"..."), "returned");
        assert_eq!(Text::EMPTY.meaning(), "did not return");
    }

    #[test]
    fn a_result_is_formatted_no_further_than_it_is_of_use() {
        struct Endless<'a>(&'a AtomicUsize);
        impl fmt::Debug for Endless<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                loop {
                    self.0.fetch_add(1, Ordering::Relaxed);
                    f.write_str("more")?;
                }
            }
        }
        let written = AtomicUsize::new(0);
        assert_eq!(text(&Ok::<_, ()>(Endless(&written))), "ok");
        assert_eq!(written.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn names_are_those_of_the_interfaces() {
        let shown = |target: &str, module: &str, function: &str| {
            name(target, &Named { module: module.to_owned(), function: function.to_owned() })
        };
        let target = "wasmtime_wasi_http::p2::bindings::generated::wasi::http::types";
        assert_eq!(shown(target, "types", "[method]fields.append"), "wasi:http/types.fields.append");
        assert_eq!(shown(target, "types", "[constructor]fields"), "wasi:http/types.fields.new");
        let target = "wasmtime_wasi::p2::bindings::async_io::wasi::clocks::wall_clock";
        assert_eq!(shown(target, "wall-clock", "now"), "wasi:clocks/wall-clock.now");
    }

    /// Counts what comes through, and wants everything.
    #[derive(Default)]
    struct Inner {
        spans: AtomicUsize,
        events: AtomicUsize,
    }

    impl Subscriber for Inner {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            self.spans.fetch_add(1, Ordering::Relaxed);
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &Event<'_>) {
            self.events.fetch_add(1, Ordering::Relaxed);
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    /// Does what wasmtime's bindings do around each call.
    fn call(number: u32) {
        let span = tracing::span!(
            target: "wasmtime_wasi::wasi::tests::calls",
            Level::TRACE,
            "wit-bindgen import",
            module = "calls",
            function = "[method]test.call",
        );
        let _entered = span.enter();
        let result: Result<u32, u32> = if number.is_multiple_of(2) { Ok(number) } else { Err(number) };
        tracing::event!(
            target: "wasmtime_wasi::wasi::tests::calls",
            Level::TRACE,
            result = tracing::field::debug(&result),
            "return"
        );
    }

    #[test]
    fn the_last_calls_stay_with_their_instance_and_the_inner_subscriber_sees_none() {
        let inner: Arc<Inner> = Arc::default();
        IS_WATCHING.store(true, Ordering::Relaxed);
        let _subscriber = tracing::subscriber::set_default(HostCallWatch::new(inner.clone()));
        tracing::callsite::rebuild_interest_cache();
        let (one, other) = (LastCalls::default(), LastCalls::default());
        let waker = std::task::Waker::noop();
        let mut context = std::task::Context::from_waker(waker);
        // Two instances take turns on one thread.
        let run = |calls: &LastCalls, count: u32| {
            let calls = calls.clone();
            Box::pin(calls.during(async move {
                for number in 0..count {
                    call(number);
                    tokio::task::yield_now().await;
                }
            }))
        };
        let (mut first, mut second) = (run(&one, 25), run(&other, 3));
        for _ in 0..26 {
            let _pending = first.as_mut().poll(&mut context);
            if !other.calls().len().eq(&3) {
                let _pending = second.as_mut().poll(&mut context);
            }
        }
        call(99);
        tracing::info!("something else");

        let calls = one.calls();
        assert_eq!(calls.len(), KEPT);
        assert!(calls.iter().all(|call| call.name == "wasi:tests/calls.test.call"), "{calls:?}");
        assert_eq!(calls.last().unwrap().outcome, "ok");
        assert_eq!(calls[KEPT - 2].outcome, "error: 23");
        let outcomes: Vec<_> = other.calls().into_iter().map(|call| call.outcome).collect();
        assert_eq!(outcomes, ["ok", "error: 1", "ok"]);
        assert_eq!(inner.spans.load(Ordering::Relaxed), 0);
        assert_eq!(inner.events.load(Ordering::Relaxed), 1);
        one.clear();
        assert!(one.calls().is_empty());
    }
}
