//! What workloads use on this node, as counters for Prometheus: text over HTTP, on an address of the operator's choice.
//!
//! Every label is chosen by Dunlin. Names of outcomes and limits come from workers, which run strangers' code, so only
//! those that there are become labels.
//!
//! Not here: figures of the whole fleet (`control/coordinator`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_model::{AllocationId, Bytes, Fuel, LimitRow, Outcome, Resources, WorkloadName};
use dunlin_protocol::Account;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How many ask at the same time; further ones wait.
const MAX_CONNECTIONS: usize = 8;
/// How long one may take to ask, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The most bytes of a question.
const MAX_HEAD: usize = 8 << 10;
/// How many workloads have figures; those of further ones are not kept.
const MAX_WORKLOADS: usize = 10_000;
/// How long to wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The figures of all workloads that ran here since the agent was started.
#[derive(Debug, Default)]
pub(crate) struct Metrics(Mutex<Figures>);

#[derive(Debug, Default)]
struct Figures {
    allocations: BTreeMap<AllocationId, Told>,
    workloads: BTreeMap<WorkloadName, Use>,
}

/// What one allocation has said last; it counts from its start.
#[derive(Debug)]
struct Told {
    workload: WorkloadName,
    used: Use,
}

/// What was used.
#[derive(Clone, Debug, Default)]
pub(crate) struct Use {
    /// Fuel burned.
    pub(crate) fuel: Fuel,
    /// The most memory one instance held.
    pub(crate) memory: Bytes,
    /// The rest.
    pub(crate) account: Account,
}

impl Metrics {
    /// Takes note of an allocation that is started, or started again.
    pub(crate) fn started(&self, allocation: AllocationId, workload: &WorkloadName) {
        let told = Told { workload: workload.clone(), used: Use::default() };
        self.figures().allocations.insert(allocation, told);
    }

    /// Forgets an allocation; what it used stays counted.
    pub(crate) fn stopped(&self, allocation: AllocationId) {
        self.figures().allocations.remove(&allocation);
    }

    /// Takes what an allocation has used since it was started.
    pub(crate) fn used(&self, allocation: AllocationId, used: Use) {
        let mut figures = self.figures();
        let Some(told) = figures.allocations.get_mut(&allocation) else { return };
        let before = std::mem::replace(&mut told.used, used.clone());
        let workload = told.workload.clone();
        if figures.workloads.len() >= MAX_WORKLOADS && !figures.workloads.contains_key(&workload) {
            return;
        }
        figures.workloads.entry(workload).or_default().add(&before, &used);
    }

    /// Returns the figures as Prometheus reads them.
    pub(crate) fn text(&self, capacity: Resources) -> String {
        let figures = self.figures();
        let mut text = String::new();
        family(&mut text, "dunlin_node_memory_bytes", "gauge", "Memory that guests may use on this node.");
        sample(&mut text, "dunlin_node_memory_bytes", "", capacity.memory.0);
        family(
            &mut text,
            "dunlin_node_fuel_rate",
            "gauge",
            "Fuel per second that guests may burn on this node.",
        );
        sample(&mut text, "dunlin_node_fuel_rate", "", capacity.fuel_rate.0);
        for (name, kind, help, value) in PLAIN {
            family(&mut text, name, kind, help);
            for (workload, used) in &figures.workloads {
                sample(&mut text, name, &format!("workload=\"{workload}\""), value(used));
            }
        }
        family(&mut text, "dunlin_wall_seconds_total", "counter", "How long instances took together.");
        for (workload, used) in &figures.workloads {
            let (seconds, millis) = (used.account.wall_ms / 1000, used.account.wall_ms % 1000);
            sample(
                &mut text,
                "dunlin_wall_seconds_total",
                &format!("workload=\"{workload}\""),
                format_args!("{seconds}.{millis:03}"),
            );
        }
        for (name, label, help, counts) in BY_NAME {
            family(&mut text, name, "counter", help);
            for (workload, used) in &figures.workloads {
                for (value, count) in counts(used) {
                    sample(&mut text, name, &format!("workload=\"{workload}\",{label}=\"{value}\""), *count);
                }
            }
        }
        text
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Plain = (&'static str, &'static str, &'static str, fn(&Use) -> u64);

const PLAIN: &[Plain] = &[
    ("dunlin_fuel_total", "counter", "Fuel burned.", |used| used.fuel.0),
    ("dunlin_host_calls_total", "counter", "Calls into the host.", |used| used.account.host.calls),
    (
        "dunlin_host_bytes_total",
        "counter",
        "Bytes that went to and from guests through calls into the host.",
        |used| used.account.host.bytes.0,
    ),
    ("dunlin_peak_memory_bytes", "gauge", "The most memory one instance has held.", |used| used.memory.0),
    (
        "dunlin_log_dropped_bytes_total",
        "counter",
        "Bytes of log beyond its rate, which were dropped.",
        |used| used.account.log_dropped.0,
    ),
];

type ByName = (&'static str, &'static str, &'static str, fn(&Use) -> &BTreeMap<String, u64>);

const BY_NAME: &[ByName] = &[
    ("dunlin_instances_total", "outcome", "Instances that have ended, by how they did.", |used| {
        &used.account.outcomes
    }),
    ("dunlin_limit_hits_total", "limit", "How often guests hit a limit, by its name.", |used| {
        &used.account.limit_hits
    }),
];

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn sample(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    let _ = if labels.is_empty() {
        writeln!(text, "{name} {value}")
    } else {
        writeln!(text, "{name}{{{labels}}} {value}")
    };
}

impl Use {
    /// Adds what was used between `before` and `now`. A worker that was started again counts from nothing.
    fn add(&mut self, before: &Self, now: &Self) {
        let grown = |before: u64, now: u64| now.checked_sub(before).unwrap_or(now);
        let add = |sum: &mut u64, before: u64, now: u64| *sum = sum.saturating_add(grown(before, now));
        add(&mut self.fuel.0, before.fuel.0, now.fuel.0);
        self.memory = self.memory.max(now.memory);
        let (sum, before, now) = (&mut self.account, &before.account, &now.account);
        add(&mut sum.wall_ms, before.wall_ms, now.wall_ms);
        add(&mut sum.host.calls, before.host.calls, now.host.calls);
        add(&mut sum.host.bytes.0, before.host.bytes.0, now.host.bytes.0);
        add(&mut sum.log_dropped.0, before.log_dropped.0, now.log_dropped.0);
        let add_all = |sum: &mut BTreeMap<String, u64>,
                       before: &BTreeMap<_, _>,
                       now: &BTreeMap<_, _>,
                       known: fn(&str) -> bool| {
            for (name, count) in now.iter().filter(|(name, _): &(&String, &u64)| known(name)) {
                add(sum.entry(name.clone()).or_default(), before.get(name).copied().unwrap_or(0), *count);
            }
        };
        add_all(&mut sum.outcomes, &before.outcomes, &now.outcomes, |name| Outcome::NAMES.contains(&name));
        add_all(&mut sum.limit_hits, &before.limit_hits, &now.limit_hits, |name| {
            LimitRow::TABLE.iter().any(|row| row.name == name)
        });
    }
}

/// Answers whoever asks on `listener` until `stop` is cancelled.
pub(crate) async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    capacity: Resources,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await.expect("the semaphore is never closed");
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            let _permit = permit;
            // Who is too slow, or gone, asks again.
            drop(tokio::time::timeout(PATIENCE, answer(stream, &metrics, capacity)).await);
        });
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics, capacity: Resources) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.windows(4).any(|window| window == b"\r\n\r\n") && head.len() < MAX_HEAD {
        if stream.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = if head.starts_with(b"GET /metrics ") {
        ("200 OK", metrics.text(capacity))
    } else {
        ("404 Not Found", "figures are at GET /metrics\n".to_owned())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: text/plain; version=0.0.4; charset=utf-8\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use dunlin_model::FuelRate;

    use super::*;

    const CAPACITY: Resources = Resources { memory: Bytes(1 << 30), fuel_rate: FuelRate(5) };

    fn used(fuel: u64, limit: &str, hits: u64) -> Use {
        let mut account = Account { wall_ms: 1_234, ..Account::default() };
        account.outcomes.insert("Completed".to_owned(), 3);
        account.limit_hits.insert(limit.to_owned(), hits);
        Use { fuel: Fuel(fuel), memory: Bytes(7), account }
    }

    #[test]
    fn what_a_worker_counts_anew_is_added_to_what_was_counted() {
        let (metrics, id) = (Metrics::default(), AllocationId::new(1));
        metrics.started(id, &"default/shop/web".parse().unwrap());
        metrics.used(id, used(10, "memory", 1));
        metrics.used(id, used(15, "memory", 4));
        metrics.started(id, &"default/shop/web".parse().unwrap());
        metrics.used(id, used(2, "memory", 1));
        let text = metrics.text(CAPACITY);
        for line in [
            "dunlin_node_memory_bytes 1073741824",
            "dunlin_node_fuel_rate 5",
            "dunlin_fuel_total{workload=\"default/shop/web\"} 17",
            "dunlin_wall_seconds_total{workload=\"default/shop/web\"} 2.468",
            "dunlin_instances_total{workload=\"default/shop/web\",outcome=\"Completed\"} 6",
            "dunlin_limit_hits_total{workload=\"default/shop/web\",limit=\"memory\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn a_worker_cannot_make_up_labels() {
        let (metrics, id) = (Metrics::default(), AllocationId::new(1));
        metrics.started(id, &"default/shop/web".parse().unwrap());
        let mut made_up = used(1, "x\"} 1\ny", 1);
        made_up.account.outcomes.insert("Won".to_owned(), 1);
        metrics.used(id, made_up);
        metrics.used(AllocationId::new(2), used(1, "memory", 1));
        let text = metrics.text(CAPACITY);
        assert!(!text.contains("limit=") && !text.contains("Won"), "{text}");
    }

    #[tokio::test]
    async fn the_figures_are_read_over_http() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, Arc::default(), CAPACITY, stop.clone()));
        for (path, status) in [("/metrics", "200 OK"), ("/", "404 Not Found")] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{answer}");
        }
        stop.cancel();
        serving.await.unwrap();
    }
}
