//! What the guests of one allocation say, cut into lines and kept within a rate.
//!
//! A guest is never made to wait for its log: what exceeds the rate is dropped, counted, and the count is told in
//! a record of the host's own, so that a gap is never mistaken for silence.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use dunlin_model::{Bytes, InstanceId, Limits, LogRecord, LogSource, Timestamp, TrapRecord};
use tokio::sync::OwnedSemaphorePermit;

/// What a line costs beyond its bytes: an empty line is a record too.
const LINE_COST: u64 = 64;
/// What stands at the end of a line that was cut.
const CUT: &str = " [cut]";
/// How often at most the host says that lines were dropped.
const NOTICE_INTERVAL: Duration = Duration::from_secs(1);

/// Where records go. It must not block; what it cannot take it drops and counts.
pub trait LogSink: Send + Sync {
    /// Takes one record.
    fn record(&self, record: LogRecord);

    /// Takes what is known of an instance that ended badly.
    fn trap(&self, _trap: Box<TrapRecord>) {}

    /// Takes the same, and the instance's core dump.
    fn trap_with_dump(&self, trap: Box<TrapRecord>, _dump: DumpBytes) {
        self.trap(trap);
    }
}

/// A core dump. As long as it is held no other is made.
pub struct DumpBytes {
    /// A module with what is known of the instance.
    pub bytes: Vec<u8>,
    /// What is held.
    pub turn: OwnedSemaphorePermit,
}

/// The log of one allocation, shared by its instances.
pub struct Logs {
    sink: Arc<dyn LogSink>,
    limits: LogLimits,
    budget: Mutex<Budget>,
}

#[derive(Clone, Copy)]
struct LogLimits {
    rate: Bytes,
    burst: Bytes,
    /// The most bytes of one line.
    line: usize,
}

struct Budget {
    left: u64,
    refilled: Instant,
    dropped: u64,
    /// Everything that was dropped since the allocation was started.
    dropped_in_all: u64,
    lines_dropped: u64,
    lines_cut: u64,
    dropped_of: Option<InstanceId>,
    noticed: Option<Instant>,
}

impl Logs {
    /// Returns a log that goes to `sink`, within the limits on logs.
    pub fn new(sink: Arc<dyn LogSink>, limits: &Limits) -> Self {
        let line = usize::try_from(limits.log_line.0).unwrap_or(usize::MAX).min(LogRecord::MAX_TEXT);
        let limits = LogLimits { rate: limits.log_rate, burst: limits.log_burst, line };
        let budget = Budget {
            left: limits.burst.0,
            refilled: Instant::now(),
            dropped: 0,
            dropped_in_all: 0,
            lines_dropped: 0,
            lines_cut: 0,
            dropped_of: None,
            noticed: None,
        };
        Self { sink, limits, budget: Mutex::new(budget) }
    }

    /// Returns how many lines of guests, and how many bytes, were dropped since the allocation was started.
    pub fn dropped(&self) -> (u64, Bytes) {
        let budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        (budget.lines_dropped, Bytes(budget.dropped_in_all))
    }

    /// Returns how many lines of guests were longer than they may be, and were cut.
    pub fn cut(&self) -> u64 {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner).lines_cut
    }

    /// Records what the host has to say of an instance; it counts against no rate.
    pub fn say(&self, instance: InstanceId, text: &str) {
        // A guest's stack has a line for each frame; one record with all of them could not be read.
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (text, _) = fitted(line.as_bytes(), false, LogRecord::MAX_TEXT);
            self.record(instance, LogSource::Host, text);
        }
    }

    /// Passes on what is known of an instance that ended badly.
    pub fn trap(&self, trap: TrapRecord) {
        self.sink.trap(Box::new(trap.bounded()));
    }

    /// Passes on what is known of an instance that ended badly, and its core dump.
    pub fn trap_with_dump(&self, trap: TrapRecord, dump: DumpBytes) {
        self.sink.trap_with_dump(Box::new(trap.bounded()), dump);
    }

    /// Returns the time of this moment, as records have it.
    pub fn now() -> Timestamp {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }

    /// Tells what was dropped, if anything was and it was not told a moment ago.
    pub fn settle(&self) {
        let notice = {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            let recent = budget.noticed.is_some_and(|at| at.elapsed() < NOTICE_INTERVAL);
            if recent { None } else { budget.take_notice() }
        };
        self.tell(notice);
    }

    /// Takes one line of a guest, without its end.
    pub(crate) fn line(&self, instance: InstanceId, source: LogSource, line: &[u8], is_cut: bool) {
        let (text, was_cut) = fitted(line, is_cut, self.limits.line);
        let cost = text.len() as u64 + LINE_COST;
        let notice = {
            let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
            budget.refill(self.limits);
            if cost > budget.left {
                budget.dropped += line.len() as u64 + 1;
                budget.dropped_in_all += line.len() as u64 + 1;
                budget.lines_dropped += 1;
                budget.dropped_of = Some(instance);
                return;
            }
            budget.left -= cost;
            budget.lines_cut += u64::from(was_cut);
            budget.take_notice()
        };
        self.tell(notice);
        self.record(instance, source, text);
    }

    fn tell(&self, notice: Option<(InstanceId, u64)>) {
        if let Some((instance, dropped)) = notice {
            let text = format!(
                "{} of output dropped: limit `log_rate` is {}/s, `log_burst` {}",
                Bytes(dropped),
                self.limits.rate,
                self.limits.burst
            );
            self.say(instance, &text);
        }
    }

    fn record(&self, instance: InstanceId, source: LogSource, text: String) {
        self.sink.record(LogRecord { at: Self::now(), instance, source, text });
    }
}

impl Budget {
    fn refill(&mut self, limits: LogLimits) {
        let elapsed = u64::try_from(self.refilled.elapsed().as_millis()).unwrap_or(u64::MAX);
        let earned = elapsed.saturating_mul(limits.rate.0) / 1000;
        if earned > 0 {
            self.left = self.left.saturating_add(earned).min(limits.burst.0);
            self.refilled = Instant::now();
        }
    }

    fn take_notice(&mut self) -> Option<(InstanceId, u64)> {
        let instance = self.dropped_of.take()?;
        self.noticed = Some(Instant::now());
        Some((instance, std::mem::take(&mut self.dropped)))
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let notice = self.budget.get_mut().unwrap_or_else(PoisonError::into_inner).take_notice();
        self.tell(notice);
    }
}

/// Returns a line as text of at most so many bytes, which says so if it was cut; and whether it was.
fn fitted(line: &[u8], is_cut: bool, most: usize) -> (String, bool) {
    let mut text = String::from_utf8_lossy(line).into_owned();
    let is_cut = is_cut || text.len() > most;
    if is_cut {
        text.truncate(text.floor_char_boundary(most.saturating_sub(CUT.len())));
        text.push_str(CUT);
    }
    (text, is_cut)
}

/// Cuts a stream of bytes into lines.
pub(crate) struct Lines {
    logs: Arc<Logs>,
    instance: InstanceId,
    source: LogSource,
    partial: Vec<u8>,
    is_cut: bool,
    /// The last lines of standard error, whether or not the log had room for them.
    last: VecDeque<Vec<u8>>,
}

impl Lines {
    pub(crate) fn new(logs: Arc<Logs>, instance: InstanceId, source: LogSource) -> Self {
        Self { logs, instance, source, partial: Vec::new(), is_cut: false, last: VecDeque::new() }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let mut pieces = bytes.split(|byte| *byte == b'\n');
        // The piece after the last line end is a line that is not yet complete.
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            self.extend(piece);
            self.end_line();
        }
        self.extend(last);
    }

    /// Ends the line that was begun, if one was.
    pub(crate) fn flush(&mut self) {
        if !self.partial.is_empty() {
            self.end_line();
        }
    }

    /// Returns the last lines of standard error.
    pub(crate) fn last(&self) -> Vec<String> {
        self.last.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }

    /// Forgets the last lines.
    pub(crate) fn forget(&mut self) {
        self.last.clear();
    }

    /// Keeps the beginning of the line that ends, in the memory of the one that goes.
    fn remember(&mut self) {
        let is_full = self.last.len() == TrapRecord::MAX_LINES;
        let mut kept = if is_full { self.last.pop_front() } else { None }.unwrap_or_default();
        kept.clear();
        kept.extend_from_slice(&self.partial[..self.partial.len().min(TrapRecord::MAX_LINE)]);
        self.last.push_back(kept);
    }

    fn extend(&mut self, piece: &[u8]) {
        let room = self.logs.limits.line - self.partial.len();
        self.is_cut |= piece.len() > room;
        self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
    }

    fn end_line(&mut self) {
        if self.source == LogSource::Stderr {
            self.remember();
        }
        let line = self.partial.strip_suffix(b"\r").unwrap_or(&self.partial);
        self.logs.line(self.instance, self.source, line, self.is_cut);
        self.partial.clear();
        self.is_cut = false;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use dunlin_model::AllocationId;

    use super::*;

    #[derive(Default)]
    pub(crate) struct Kept(pub(crate) Mutex<Vec<LogRecord>>);

    impl LogSink for Kept {
        fn record(&self, record: LogRecord) {
            self.0.lock().unwrap().push(record);
        }
    }

    pub(crate) const INSTANCE: InstanceId = InstanceId { allocation: AllocationId::new(1), number: 7 };

    fn texts(kept: &Kept) -> Vec<String> {
        kept.0.lock().unwrap().iter().map(|record| record.text.clone()).collect()
    }

    #[test]
    fn output_is_cut_into_lines_however_it_comes() {
        let kept = Arc::new(Kept::default());
        let mut lines =
            Lines::new(Arc::new(Logs::new(kept.clone(), &Limits::SERVICE)), INSTANCE, LogSource::Stdout);
        for piece in ["one\ntw", "o\n\n", "three\r\n", "fo", "ur"] {
            lines.write(piece.as_bytes());
        }
        lines.flush();
        assert_eq!(texts(&kept), ["one", "two", "", "three", "four"]);
    }

    #[test]
    fn a_long_line_is_cut_and_says_so() {
        let kept = Arc::new(Kept::default());
        let logs = Arc::new(Logs::new(kept.clone(), &Limits::SERVICE));
        let mut lines = Lines::new(logs.clone(), INSTANCE, LogSource::Stdout);
        lines.write(&[b'x'; 20_000]);
        lines.write(b"\nnext\n");
        // Bytes that are not UTF-8 take three times their room as text.
        lines.write(&[0xff; 8_000]);
        lines.write(b"\n");
        let texts = texts(&kept);
        assert_eq!(texts[1], "next");
        for text in [&texts[0], &texts[2]] {
            assert!(text.len() as u64 <= Limits::SERVICE.log_line.0 && text.ends_with(CUT));
        }
        assert_eq!(logs.cut(), 2);
    }

    #[test]
    fn the_last_lines_of_standard_error_are_known() {
        let logs = Arc::new(Logs::new(Arc::new(Kept::default()), &Limits::SERVICE));
        let mut lines = Lines::new(logs, INSTANCE, LogSource::Stderr);
        for number in 0..50 {
            lines.write(format!("{number} {}\n", "x".repeat(5000)).as_bytes());
        }
        lines.write(b"and this");
        lines.flush();
        let last = lines.last();
        assert_eq!(last.len(), TrapRecord::MAX_LINES);
        assert!(last[0].starts_with("31 xx") && last[0].len() == TrapRecord::MAX_LINE, "{last:?}");
        assert_eq!(last[TrapRecord::MAX_LINES - 1], "and this");
        lines.forget();
        assert!(lines.last().is_empty());
    }

    #[test]
    fn what_is_within_the_burst_is_kept_and_what_is_beyond_it_is_dropped() {
        let kept = Arc::new(Kept::default());
        let limits = Limits { log_rate: Bytes(0), log_burst: Bytes(10 << 10), ..Limits::SERVICE };
        let logs = Arc::new(Logs::new(kept.clone(), &limits));
        let mut lines = Lines::new(logs.clone(), INSTANCE, LogSource::Stdout);
        let line = [b'x'; 36];
        for _ in 0..105 {
            lines.write(&line);
            lines.write(b"\n");
        }
        // A hundred bytes each, with what a line costs: 102 of them are within 10 KiB.
        assert_eq!(logs.dropped(), (3, Bytes(3 * (line.len() as u64 + 1))));
        assert_eq!(texts(&kept).len(), 102);
        logs.settle();
        let told = texts(&kept).pop().unwrap();
        assert_eq!(told, "111B of output dropped: limit `log_rate` is 0B/s, `log_burst` 10KiB");
    }

    #[test]
    fn a_flood_is_dropped_counted_and_told_once() {
        let kept = Arc::new(Kept::default());
        let logs = Arc::new(Logs::new(kept.clone(), &Limits::SERVICE));
        let mut lines = Lines::new(logs.clone(), INSTANCE, LogSource::Stderr);
        for _ in 0..4096 {
            lines.write(&[b'x'; 1023]);
            lines.write(b"\n");
        }
        logs.settle();
        logs.settle();
        let kept = kept.0.lock().unwrap();
        let bytes: usize = kept.iter().map(|record| record.text.len()).sum();
        assert!(bytes < 2 << 20, "{bytes} bytes were kept of 4 MiB");
        let told: Vec<_> = kept.iter().filter(|record| record.source == LogSource::Host).collect();
        assert!(told.last().unwrap().text.contains("limit `log_rate` is 64KiB/s"), "{told:?}");
    }
}
