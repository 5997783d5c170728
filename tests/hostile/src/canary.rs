//! The canary: a client which asks a healthy service at a steady pace, on a thread of its own, and writes down how
//! long each answer took.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// One request each so often.
const PACE: Duration = Duration::from_millis(10);
/// An answer that takes longer is a failure.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the canary went through in some span of time.
#[derive(Clone, Debug, Default)]
pub struct Latencies {
    sorted: Vec<Duration>,
    /// What went wrong.
    pub failures: Vec<String>,
}

impl Latencies {
    /// How many requests were answered.
    pub fn count(&self) -> usize {
        self.sorted.len()
    }

    /// The latency below which this share of a thousand is.
    pub fn permille(&self, share: usize) -> Duration {
        let index = (self.sorted.len() * share / 1000).min(self.sorted.len().saturating_sub(1));
        self.sorted.get(index).copied().unwrap_or_default()
    }
}

/// The client. It stops when this value is dropped.
pub struct Canary {
    seen: Arc<Mutex<Latencies>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Canary {
    /// Begins to ask for `path` at `address`.
    pub fn start(address: SocketAddr, path: &str) -> Self {
        let seen = Arc::<Mutex<Latencies>>::default();
        let is_over = Arc::<AtomicBool>::default();
        let request = format!("GET {path} HTTP/1.1\r\nHost: canary.test\r\n\r\n");
        let (written, stop) = (Arc::clone(&seen), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || ask_on(address, &request, &written, &stop));
        Self { seen, is_over, thread: Some(thread) }
    }

    /// Returns what it went through since it was last asked.
    pub fn take(&self) -> Latencies {
        let mut latencies = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        latencies.sorted.sort_unstable();
        latencies
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of it was told already.
            let _ended = thread.join();
        }
    }
}

fn ask_on(address: SocketAddr, request: &str, seen: &Mutex<Latencies>, is_over: &AtomicBool) {
    let mut connection = None;
    let mut next = Instant::now();
    while !is_over.load(Ordering::Relaxed) {
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        // An answer that came late does not make the following ones come in a heap.
        next = (next + PACE).max(Instant::now());
        let asked = Instant::now();
        let answered = ask(&mut connection, address, request.as_bytes());
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        match answered {
            Ok(()) => seen.sorted.push(asked.elapsed()),
            Err(failure) => {
                connection = None;
                seen.failures.push(format!("{failure} after {:?}", asked.elapsed()));
            }
        }
    }
}

fn ask(connection: &mut Option<TcpStream>, address: SocketAddr, request: &[u8]) -> Result<(), String> {
    let said = |error: std::io::Error| error.to_string();
    if connection.is_none() {
        let stream = TcpStream::connect(address).map_err(said)?;
        stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_nodelay(true)).map_err(said)?;
        *connection = Some(stream);
    }
    let Some(stream) = connection else { return Err("no connection".to_owned()) };
    stream.write_all(request).map_err(said)?;
    let mut answer = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let length = stream.read(&mut piece).map_err(said)?;
        answer.extend_from_slice(&piece[..length]);
        if length == 0 {
            return Err(format!("cut off: {}", answer.escape_ascii()));
        }
        let text = String::from_utf8_lossy(&answer);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let is_whole = match length.and_then(|length| length.parse::<usize>().ok()) {
            Some(length) => body.len() >= length,
            None => body.ends_with("0\r\n\r\n"),
        };
        if is_whole && head.starts_with("http/1.1 200") && body.contains("hello") {
            return Ok(());
        }
        if is_whole {
            return Err(text.into_owned());
        }
    }
}
