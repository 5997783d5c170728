//! What the crate `tracing` is told becomes lines in the guest's log: the spans an event happened in, each with its
//! fields, then the event's message and its fields.
//!
//! A guest has one thread, so the spans that are entered are one stack.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::{Interest, set_global_default};
use tracing::{Event, Metadata, Subscriber};

use crate::log_level::Level;
use crate::platform;

thread_local! {
    /// The spans that are entered, outermost first.
    static ENTERED: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

struct Lines {
    most: LevelFilter,
    last_id: AtomicU64,
    spans: Mutex<BTreeMap<u64, Span>>,
}

/// A span that somebody holds.
struct Span {
    holders: usize,
    /// `name field=value field=value`.
    text: String,
}

/// Makes it the subscriber of the process, unless the guest has set one of its own.
pub(crate) fn install(wanted: Option<Level>) {
    let most = match wanted {
        None => LevelFilter::OFF,
        Some(Level::Error) => LevelFilter::ERROR,
        Some(Level::Warn) => LevelFilter::WARN,
        Some(Level::Info) => LevelFilter::INFO,
        Some(Level::Debug) => LevelFilter::DEBUG,
        Some(Level::Trace) => LevelFilter::TRACE,
    };
    // An error says that the guest has a subscriber already, and then that is the one it wants.
    let _ = set_global_default(Lines { most, last_id: AtomicU64::new(0), spans: Mutex::default() });
}

impl Lines {
    fn spans(&self) -> MutexGuard<'_, BTreeMap<u64, Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Lines {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.most
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.most)
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let id = self.last_id.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let text = format!("{}{}", attributes.metadata().name(), fields.text);
        self.spans().insert(id, Span { holders: 1, text });
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        if let Some(span) = self.spans().get_mut(&id.into_u64()) {
            let mut fields = Fields::default();
            values.record(&mut fields);
            span.text.push_str(&fields.text);
        }
    }

    fn record_follows_from(&self, _id: &Id, _follows: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = String::new();
        let spans = self.spans();
        ENTERED.with_borrow(|entered| {
            for span in entered.iter().filter_map(|id| spans.get(id)) {
                line.push_str(&span.text);
                line.push_str(": ");
            }
        });
        drop(spans);
        line.push_str(&fields.message);
        line.push_str(if fields.message.is_empty() { fields.text.trim_start() } else { &fields.text });
        platform::log(level(*metadata.level()), metadata.target(), &line);
    }

    fn enter(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(id.into_u64()));
    }

    fn exit(&self, id: &Id) {
        ENTERED.with_borrow_mut(|entered| {
            if let Some(place) = entered.iter().rposition(|found| *found == id.into_u64()) {
                entered.remove(place);
            }
        });
    }

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(span) = self.spans().get_mut(&id.into_u64()) {
            span.holders += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut spans = self.spans();
        let Some(span) = spans.get_mut(&id.into_u64()) else { return false };
        span.holders -= 1;
        let is_last = span.holders == 0;
        if is_last {
            spans.remove(&id.into_u64());
        }
        is_last
    }
}

fn level(level: tracing::Level) -> Level {
    match level {
        tracing::Level::ERROR => Level::Error,
        tracing::Level::WARN => Level::Warn,
        tracing::Level::INFO => Level::Info,
        tracing::Level::DEBUG => Level::Debug,
        tracing::Level::TRACE => Level::Trace,
    }
}

/// The fields of a span or an event, as ` name=value name=value`.
#[derive(Default)]
struct Fields {
    message: String,
    text: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            self.record_debug(field, &value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a text never fails.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.text, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
#[cfg(not(target_family = "wasm"))]
mod tests {
    use crate::test::Host;

    #[test]
    fn an_event_is_told_with_its_fields_and_the_spans_it_happened_in() {
        let host = Host::new();
        host.within(|| {
            let request = tracing::info_span!("request", path = "/a", user = tracing::field::Empty);
            request.record("user", 7);
            let _entered = request.enter();
            tracing::info!(colour = "red", "painted {} walls", 4);
            tracing::warn!(left = 2);
            tracing::debug!("not wanted");
        });
        tracing::info!("of no host");
        let target = "dunlin_guest::trace_lines::tests";
        assert_eq!(
            host.log(),
            [
                format!("INFO {target}: request path=\"/a\" user=7: painted 4 walls colour=\"red\""),
                format!("WARN {target}: request path=\"/a\" user=7: left=2"),
            ]
        );
    }
}
