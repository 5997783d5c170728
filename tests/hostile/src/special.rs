//! Cases that need something beside the fleet: a server which lures guests, another tenant, or a look at what the node
//! has kept.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use dunlin_api::{StartRun, TrapsQuery};
use dunlin_model::{AppName, AppSpec, Digest, JobSpec, LimitRow, Outcome, WorkloadKind};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::case::{Component, Verdict};
use crate::expected::COMPLETED;
use crate::network::{Answer, get, send};
use crate::run::{Arena, COMPILED_KEPT, job_spec, join_all, judged};
use crate::tamper::{compiled, compiled_of, identities};

/// How long the crash loop is looked at.
const LOOP_TIME: Duration = Duration::from_secs(5);
/// How many attempts there can be meanwhile, of which each waits twice as long as the one before: half a second first.
const MOST_ATTEMPTS: usize = 5;

/// A server that answers every request with a redirect to another one, which nobody may reach.
pub(crate) struct Lure {
    /// Where it is.
    pub(crate) address: SocketAddr,
    /// How many requests each of its connections brought.
    requests: Arc<Mutex<Vec<usize>>>,
    /// How many connections came to where it leads.
    trapped: Arc<AtomicUsize>,
}

impl Lure {
    /// Starts both servers.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let (listener, forbidden) =
            (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let (address, target) = (listener.local_addr()?, forbidden.local_addr()?);
        let (requests, trapped) = (Arc::<Mutex<Vec<usize>>>::default(), Arc::<AtomicUsize>::default());
        let (counted, caught) = (Arc::clone(&requests), Arc::clone(&trapped));
        tokio::spawn(async move {
            while forbidden.accept().await.is_ok() {
                caught.fetch_add(1, Ordering::Relaxed);
            }
        });
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                tokio::spawn(async move {
                    let mut heard = Vec::new();
                    let mut piece = [0; 4096];
                    let mut asked = 0;
                    // The connection is left open, for whoever would use it again.
                    while let Ok(length @ 1..) = stream.read(&mut piece).await {
                        heard.extend_from_slice(&piece[..length]);
                        while let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") {
                            heard.drain(..end + 4);
                            asked += 1;
                            let answer = format!(
                                "HTTP/1.1 302 Found\r\nlocation: http://{target}/\r\ncontent-length: 5\r\n\r\nlured"
                            );
                            let _gone = stream.write_all(answer.as_bytes()).await;
                        }
                    }
                    counted.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
                });
            }
        });
        Ok(Self { address, requests, trapped })
    }
}

/// Has the service at `path` ask for `url`.
async fn fetch(ingress: SocketAddr, path: &str, url: &str) -> anyhow::Result<Answer> {
    let length = url.len();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: hostile.test\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{url}"
    );
    send(ingress, request.as_bytes(), 1 << 20).await
}

impl Arena {
    /// Guests of two tenants are lured from a server that they may ask to one that they may not.
    pub(crate) async fn redirects(&self) -> anyhow::Result<Verdict> {
        let url = format!("http://{}/", self.lure().address);
        let before = self.lure().requests.lock().unwrap_or_else(PoisonError::into_inner).len();
        for _ in 0..4 {
            for path in ["/net", "/neighbour"] {
                let answer = fetch(self.ingress(), path, &url).await?;
                let body = answer.body();
                if !body.contains("302") || !body.contains("lured") {
                    return Ok(judged(false, format!("{path} heard: {body}")));
                }
            }
        }
        let is_told =
            || self.lure().requests.lock().unwrap_or_else(PoisonError::into_inner).len() >= before + 8;
        crate::machine::settled(is_told, |is_told| *is_told).await;
        let requests = self.lure().requests.lock().unwrap_or_else(PoisonError::into_inner)[before..].to_vec();
        let trapped = self.lure().trapped.load(Ordering::Relaxed);
        let is_right = trapped == 0 && requests == [1; 8];
        let verdict = judged(
            is_right,
            format!("8 redirects, {trapped} followed; requests of each connection: {requests:?}"),
        );
        Ok(if trapped > 0 { Verdict::Harmed(verdict.seen().to_owned()) } else { verdict })
    }

    /// A guest has names looked up, more than may be.
    pub(crate) async fn names(&self) -> anyhow::Result<Verdict> {
        let url = format!("http://localhost:{}/", self.lure().address.port());
        let asking = (0..150).map(|_| fetch(self.ingress(), "/net", &url));
        let (mut answered, mut refused, mut odd) = (0, 0, Vec::new());
        for answer in join_all(asking).await {
            let body = answer?.body();
            match body.as_str() {
                body if body.contains("lured") => answered += 1,
                body if body.contains("ConnectionLimitReached") || body.contains("overloaded") => {
                    refused += 1
                }
                body => odd.push(body.chars().take(60).collect::<String>()),
            }
        }
        self.until_answers("/hostile/fine").await;
        let seen = format!("150 at once: {answered} answered, {refused} told a limit {odd:?}");
        Ok(judged(odd.is_empty() && answered > 0 && refused > 0, seen))
    }

    /// A guest computes long before it traps, again and again.
    pub(crate) async fn crash_loop(&mut self) -> anyhow::Result<Verdict> {
        let burning = "(local $i i32) (loop $on (br_if $on (i32.lt_u (local.tee $i (i32.add (local.get $i) \
                       (i32.const 1))) (i32.const 4000000)))) unreachable";
        let component = crate::wat::job(&format!(
            "(func $first {burning}) (start $first) (func (export \"run\") (result i32) i32.const 0)"
        ));
        let digest = Digest::of(&component.bytes);
        self.client().upload_component(&digest, Bytes::from(component.bytes), |_| {}).await?;
        let (name, job): (AppName, dunlin_model::Name) = ("hostile/crash-loop".parse()?, "job".parse()?);
        let kind = WorkloadKind::Job(JobSpec { attempts: 50, ..JobSpec::default() });
        let workloads = [(job.clone(), job_spec(digest, kind, ""))].into();
        let query = TrapsQuery { app: Some("crash-loop".parse()?), ..TrapsQuery::default() };
        let earlier = self.client().traps(&query).await?.traps.len();
        let before = identities(&compiled(&self.state()));
        self.client().deploy(&AppSpec { name: name.clone(), workloads }).await?;
        let run = self
            .client()
            .start_run(&name, &job, &StartRun { items: Some(1), ..StartRun::default() })
            .await?
            .run;
        tokio::time::sleep(LOOP_TIME).await;
        let traps = self.client().traps(&query).await?.traps;
        let now = identities(&compiled(&self.state()));
        let made = now.iter().filter(|file| !before.contains(file)).count();
        self.client().cancel_run(run).await?;
        self.client().delete_app(&name).await?;
        let all_trapped = traps.iter().all(|one| matches!(one.trap.outcome, Outcome::Trapped { .. }));
        let attempts = traps.len() - earlier;
        // What was tried before is compiled already.
        let is_right = all_trapped && (2..=MOST_ATTEMPTS).contains(&attempts) && made <= 1;
        Ok(judged(is_right, format!("{attempts} attempts in {LOOP_TIME:?}, compiled once at most")))
    }

    /// Many distinct components, more than the node keeps of one namespace.
    pub(crate) async fn many_artefacts(&mut self) -> anyhow::Result<Verdict> {
        let state = self.state();
        let canary = identities(&self.canary_compiled());
        for number in 0..16_u32 {
            let data = "x".repeat(1 << 20);
            let component = crate::wat::job(&format!(
                "(memory 17) (data (i32.const 0) \"{number}{data}\") (func (export \"run\") (result i32) i32.const 0)"
            ));
            let verdict = self.item(&format!("artefact-{number}"), &component, "", COMPLETED, &[]).await?;
            if !matches!(verdict, Verdict::Contained(_)) {
                return Ok(verdict);
            }
        }
        let files = identities(&compiled(&state));
        let length = |files: &[(u64, u64)]| files.iter().map(|(_, length)| length).sum::<u64>();
        let (kept, needed) = (length(&files), length(self.assigned()));
        let all_there = self.assigned().iter().all(|file| files.contains(file));
        let is_unharmed = identities(&self.canary_compiled()) == canary;
        self.until_answers("/hostile/fine").await;
        let seen = format!("16 of more than 1 MiB: the oldest go, what is assigned stays: {all_there}");
        if !is_unharmed {
            return Ok(Verdict::Harmed("the canary's compiled code is gone".to_owned()));
        }
        Ok(judged(all_there && kept <= COMPILED_KEPT.max(needed) + (2 << 20), seen))
    }

    /// A guest chooses words that it would like to see as metrics.
    pub(crate) async fn labels(&self) -> anyhow::Result<Verdict> {
        const WORD: &str = "chosen-by-guest";
        for number in 0..200 {
            get(self.ingress(), &format!("/hostile/{WORD}-{number}")).await?;
        }
        let component = Component { made: "Rust", bytes: dunlin_guest_artifacts::HOSTILE.to_vec() };
        let said =
            self.item("labels", &component, &format!("says {WORD}"), crate::expected::ANY, &[]).await?;
        let text = get(self.metrics(), "/metrics").await?.body();
        let lines: Vec<&str> =
            text.lines().filter(|line| !line.starts_with('#') && line.contains('{')).collect();
        anyhow::ensure!(lines.len() > 10, "no figures were found: {text}");
        let odd: Vec<&&str> = lines.iter().filter(|line| !is_own(line)).collect();
        let is_right = odd.is_empty() && !text.contains(WORD);
        Ok(judged(
            is_right,
            format!("{} series, each of the host's words; {} {odd:?}", lines.len(), said.seen()),
        ))
    }

    /// A guest measures time as finely as it can; what it could learn of a neighbour in its process is not there.
    pub(crate) async fn timers(&self) -> anyhow::Result<Verdict> {
        let (own, canary) =
            (self.hostile_worker().context("no worker")?, self.canary_worker().context("no canary")?);
        let component = Component { made: "Rust", bytes: dunlin_guest_artifacts::HOSTILE.to_vec() };
        let timed = self.item("timers", &component, "precision", COMPLETED, &["steps of "]).await?;
        let is_right = own != canary && matches!(timed, Verdict::Contained(_));
        Ok(judged(is_right, format!("{}; the canary is in another process", timed.seen())))
    }

    /// The files with compiled code of the canary.
    fn canary_compiled(&mut self) -> Vec<PathBuf> {
        compiled_of(&self.state(), "canary")
    }
}

/// Tells whether every label of a series has a value that Dunlin has chosen.
fn is_own(line: &str) -> bool {
    let Some((_, rest)) = line.split_once('{') else { return true };
    let Some((labels, _)) = rest.rsplit_once('}') else { return false };
    labels.split("\",").all(|label| {
        let Some((name, value)) = label.split_once("=\"") else { return false };
        let value = value.trim_end_matches('"');
        match name {
            "workload" => value.starts_with("hostile/") || value.starts_with("canary/"),
            "limit" => LimitRow::named(value).is_some(),
            "outcome" => Outcome::NAMES.contains(&value),
            _ => false,
        }
    })
}
