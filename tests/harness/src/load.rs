//! Clients that ask all the time and keep their connections, in HTTP/1.1 and HTTP/2, with and without a body.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::{eventually, http};

/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long a client that is to be quiet is.
const QUIET: Duration = Duration::from_millis(2);
/// How many failures are kept; more say nothing new.
const MAX_FAILURES: usize = 100;

/// Four clients at each of some addresses. They ask the guest `hello`: `GET /`, and `POST /echo` with a body.
pub struct Load {
    told: Arc<Told>,
    clients: Vec<JoinHandle<()>>,
}

/// What all of them are told, and what they tell.
struct Told {
    is_over: AtomicBool,
    /// Whether those with a body are to be quiet.
    no_bodies: AtomicBool,
    /// Whether those at an address are to be quiet.
    quiet: Vec<AtomicBool>,
    answered: AtomicU64,
    /// How many wait for an answer at each address,
    waiting: Vec<AtomicUsize>,
    /// and how many of all have sent a body.
    with_bodies: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl Load {
    /// Starts them.
    ///
    /// # Panics
    ///
    /// If a client cannot be made.
    pub fn start(addresses: &[SocketAddr]) -> Self {
        // What does TLS, which nothing here asks for, is installed with it.
        let _plain = http();
        let told = Arc::new(Told {
            is_over: AtomicBool::new(false),
            no_bodies: AtomicBool::new(false),
            quiet: addresses.iter().map(|_| AtomicBool::new(false)).collect(),
            answered: AtomicU64::new(0),
            waiting: addresses.iter().map(|_| AtomicUsize::new(0)).collect(),
            with_bodies: AtomicUsize::new(0),
            failures: Mutex::default(),
        });
        let mut clients = Vec::new();
        for (index, address) in addresses.iter().enumerate() {
            for (is_http2, has_body) in [(false, false), (false, true), (true, false), (true, true)] {
                let builder = reqwest::Client::builder().no_proxy().timeout(ANSWER);
                let builder = if is_http2 { builder.http2_prior_knowledge() } else { builder.http1_only() };
                let client = builder.build().expect("a client can be made");
                let url = format!("http://{address}/{}", if has_body { "echo" } else { "" });
                clients.push(tokio::spawn(ask(client, url, has_body, index, Arc::clone(&told))));
            }
        }
        Self { told, clients }
    }

    /// How many requests were answered as they should.
    pub fn answered(&self) -> u64 {
        self.told.answered.load(Ordering::Relaxed)
    }

    /// What failed.
    pub fn failures(&self) -> Vec<String> {
        self.told.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for so many answers more.
    pub async fn until_answered(&self, more: u64) {
        let wanted = self.answered() + more;
        eventually("requests are answered", || async {
            let answered = self.answered();
            if answered >= wanted {
                Ok(())
            } else {
                Err(format!("{answered} of {wanted}, {:?}", self.failures()))
            }
        })
        .await;
    }

    /// Asks nothing at this address, and nothing anywhere that must not be asked twice; returns when all that was asked
    /// before is answered.
    pub async fn spare(&self, address: usize) {
        self.told.no_bodies.store(true, Ordering::SeqCst);
        self.told.quiet[address].store(true, Ordering::SeqCst);
        let told = &self.told;
        eventually("what was asked before is answered", || async {
            let waiting = [&told.waiting[address], &told.with_bodies].map(|it| it.load(Ordering::SeqCst));
            if waiting == [0, 0] { Ok(()) } else { Err(format!("{waiting:?} are not")) }
        })
        .await;
    }

    /// Asks everything everywhere again.
    pub fn spare_nobody(&self) {
        self.told.no_bodies.store(false, Ordering::SeqCst);
        self.told.quiet.iter().for_each(|quiet| quiet.store(false, Ordering::SeqCst));
    }

    /// Ends them; returns how many were answered, and what failed.
    pub async fn end(self) -> (u64, Vec<String>) {
        self.told.is_over.store(true, Ordering::Relaxed);
        for client in self.clients {
            // One that has panicked has told nothing more.
            let _panicked = client.await;
        }
        let failures = self.told.failures.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.told.answered.load(Ordering::Relaxed), failures)
    }
}

/// One client.
async fn ask(client: reqwest::Client, url: String, has_body: bool, address: usize, told: Arc<Told>) {
    while !told.is_over.load(Ordering::Relaxed) {
        // Counted before it looks whether it may: who waits for none to be under way must not miss one.
        told.waiting[address].fetch_add(1, Ordering::SeqCst);
        told.with_bodies.fetch_add(usize::from(has_body), Ordering::SeqCst);
        let is_quiet =
            told.quiet[address].load(Ordering::SeqCst) || has_body && told.no_bodies.load(Ordering::SeqCst);
        let answered = if is_quiet { None } else { Some(ask_once(&client, &url, has_body).await) };
        told.waiting[address].fetch_sub(1, Ordering::SeqCst);
        told.with_bodies.fetch_sub(usize::from(has_body), Ordering::SeqCst);
        match answered {
            None => tokio::time::sleep(QUIET).await,
            Some(Ok(())) => drop(told.answered.fetch_add(1, Ordering::Relaxed)),
            Some(Err(error)) => {
                let mut failures = told.failures.lock().unwrap_or_else(PoisonError::into_inner);
                if failures.len() < MAX_FAILURES {
                    failures.push(format!("{url}: {error}"));
                }
            }
        }
    }
}

async fn ask_once(client: &reqwest::Client, url: &str, has_body: bool) -> Result<(), String> {
    let body = "x".repeat(1000);
    let request = if has_body { client.post(url).body(body.clone()) } else { client.get(url) };
    let response = request.send().await.map_err(|error| format!("{error:?}"))?;
    let (status, version) = (response.status(), response.version());
    let text = response.text().await.map_err(|error| format!("{error:?}"))?;
    match status.is_success() && (!has_body || text == body) {
        true => Ok(()),
        false => Err(format!("{version:?} {status}: {text}")),
    }
}
