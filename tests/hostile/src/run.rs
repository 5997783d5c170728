//! How the cases are run: on one fleet of one node, some at a time, each with a look at whether anything died.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use dunlin_api::{Client, ItemsQuery, StartRun};
use dunlin_guest_artifacts as guests;
use dunlin_harness::{App, Fleet, eventually};
use dunlin_model::{
    AppName, AppSpec, Digest, DurationMs, Fuel, FuelRate, JobSpec, Limits, Outcome, WorkloadKind,
    WorkloadSpec,
};
use tokio::sync::Semaphore;

use crate::case::{Case, Component, How, Special, Verdict};
use crate::expected::Ends;
use crate::network::{get, send};
use crate::special::Lure;
use crate::{machine, tamper};

/// How many cases run at the same time.
const AT_ONCE: usize = 3;
/// A run of one item which takes longer will not end at all.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the canary alone knows.
const SECRET: &str = "c4n4ry-s3cr3t";
/// How much compiled code the node keeps of a namespace, beyond what is assigned: little, so that it is filled.
pub(crate) const COMPILED_KEPT: u64 = 12 << 20;
/// The limits of all hostile guests: small, so that the whole list takes a minute.
const LIMITS: Limits = Limits {
    memory: dunlin_model::Bytes(16 << 20),
    fuel: Fuel(60_000_000),
    fuel_rate: FuelRate(60_000_000),
    fuel_burst: Fuel(60_000_000),
    deadline: DurationMs(1_000),
    concurrency: 8,
    ..Limits::JOB
};

/// The fleet on which the cases run: one node with the canary and the hostile service.
pub struct Arena {
    fleet: Fleet,
    agent: u32,
    canary_worker: Option<u32>,
    hostile_worker: Option<u32>,
    metrics: SocketAddr,
    lure: Lure,
    /// The compiled code of the hostile namespace's services: files, and how long they are.
    assigned: Vec<(u64, u64)>,
}

fn service(app: &str, route: &str, limits: &str, more: &str, component: &[u8]) -> App {
    let manifest = format!(
        "[app]\nname = \"{app}\"\nnamespace = \"{app}\"\n[service.web]\ncomponent = \"guest.wasm\"\nallocations = 1\n\
         routes = [{{ {route} }}]\nlimits = {{ {limits} }}\n{more}\n"
    );
    App::new(&manifest, &[("guest.wasm", component)])
}

impl Arena {
    /// Starts the fleet and deploys the canary at its host and the hostile service at `/hostile`.
    pub async fn start() -> anyhow::Result<Self> {
        let mut fleet = Fleet::start(0).await?;
        let metrics = free_address()?;
        let config = fleet.folder().join("node.toml");
        // Guests of the list are lured to servers on this machine.
        let text = format!(
            "[egress]\nallow = [\"127.0.0.0/8\"]\n[limits]\ncompiled_kept = \"{}\"\n",
            dunlin_model::Bytes(COMPILED_KEPT)
        );
        std::fs::write(&config, text)?;
        let config = config.to_str().context("a path of letters")?;
        fleet.add_agent(&["--config", config, "--metrics", &metrics.to_string()]).await?;
        let agent = fleet.agent(0).id().context("the agent runs")?;
        let limits = "memory = \"32MiB\", fuel = \"100M\", fuel_rate = \"200M/s\", deadline = \"5s\"";
        let secret = format!("environment = {{ SECRET = \"{SECRET}\" }}");
        fleet
            .deploy(&service(
                "canary",
                "host = \"canary.test\", path = \"/\"",
                limits,
                &secret,
                guests::HELLO,
            ))
            .await?;
        fleet.until_running("canary/canary").await;
        let canary_worker = workers(agent).pop_first();
        let limits = "memory = \"16MiB\", fuel = \"60M\", fuel_rate = \"60M/s\", deadline = \"300ms\", concurrency = 8";
        fleet.deploy(&service("hostile", "path = \"/hostile\"", limits, "", guests::HOSTILE_HTTP)).await?;
        fleet.until_running("hostile/hostile").await;
        let lure = Lure::start().await?;
        let assigned = Vec::new();
        let mut arena = Self { fleet, agent, canary_worker, hostile_worker: None, metrics, lure, assigned };
        arena.deploy_askers().await?;
        arena.until_answers("/hostile/fine").await;
        arena.renew().await;
        arena.assigned = tamper::identities(&tamper::compiled(&arena.state()));
        Ok(arena)
    }

    /// Deploys services which ask others: the server that lures, also from the canary's namespace, and each other.
    async fn deploy_askers(&self) -> anyhow::Result<()> {
        let limits = "memory = \"16MiB\", fuel = \"60M\", fuel_rate = \"60M/s\", deadline = \"10s\"";
        let lure = self.lure.address;
        let granted = format!(
            "capabilities = {{ outbound_http = [\"http://{lure}\", \"http://localhost:{}\"] }}",
            lure.port()
        );
        for (app, namespace, path) in [("net", "hostile", "/net"), ("neighbour", "canary", "/neighbour")] {
            let manifest = format!(
                "[app]\nname = \"{app}\"\nnamespace = \"{namespace}\"\n[service.web]\n\
                 component = \"guest.wasm\"\nroutes = [{{ path = \"{path}\" }}]\nlimits = {{ {limits} }}\n{granted}\n"
            );
            self.fleet.deploy(&App::new(&manifest, &[("guest.wasm", guests::FETCH_HTTP)])).await?;
            self.fleet.until_running(&format!("{namespace}/{app}")).await;
        }
        let ingress = self.ingress();
        let mut manifest = "[app]\nname = \"loops\"\nnamespace = \"hostile\"\n".to_owned();
        for (name, next) in [("itself", "itself"), ("there", "back"), ("back", "there")] {
            manifest += &format!(
                "[service.{name}]\ncomponent = \"guest.wasm\"\nroutes = [{{ path = \"/loop/{name}\" }}]\n\
                 limits = {{ {limits} }}\nenvironment = {{ NEXT = \"http://{ingress}/loop/{next}\" }}\n\
                 capabilities = {{ outbound_http = [\"http://{ingress}\"] }}\n"
            );
        }
        self.fleet.deploy(&App::new(&manifest, &[("guest.wasm", guests::ASK_HTTP)])).await?;
        self.fleet.until_running("hostile/loops").await;
        Ok(())
    }

    /// The server that lures.
    pub(crate) fn lure(&self) -> &Lure {
        &self.lure
    }

    /// Where the agent tells its figures.
    pub(crate) fn metrics(&self) -> SocketAddr {
        self.metrics
    }

    /// The compiled code of the hostile namespace's services.
    pub(crate) fn assigned(&self) -> &[(u64, u64)] {
        &self.assigned
    }

    /// Waits until a path is answered with success.
    pub(crate) async fn until_answers(&self, path: &str) {
        let what = format!("{path} answers");
        eventually(&what, || async {
            let answer = get(self.ingress(), path).await.map_err(|error| error.to_string())?;
            if answer.status() == Some(200) { Ok(()) } else { Err(answer.bytes.escape_ascii().to_string()) }
        })
        .await;
    }

    /// Where the node listens.
    pub fn ingress(&self) -> SocketAddr {
        self.fleet.ingress(0)
    }

    /// The agent's process.
    pub fn agent(&self) -> u32 {
        self.agent
    }

    /// The coordinator's process.
    pub fn coordinator(&mut self) -> u32 {
        self.fleet.coordinator().id().unwrap_or(0)
    }

    /// The workers: the children of the agent that stay.
    pub fn workers(&self) -> BTreeSet<u32> {
        workers(self.agent)
    }

    /// The canary's worker, which must be the same at the end.
    pub fn canary_worker(&self) -> Option<u32> {
        self.canary_worker
    }

    /// The worker of the hostile namespace, as it was last seen.
    pub fn hostile_worker(&self) -> Option<u32> {
        self.hostile_worker
    }

    /// Looks for the worker of the hostile namespace.
    pub(crate) async fn renew(&mut self) {
        let others = || self.workers().into_iter().find(|id| Some(*id) != self.canary_worker);
        self.hostile_worker = machine::settled(others, Option::is_some).await;
    }

    /// What the processes have said, for the message of a failed test.
    pub fn logs(&self) -> String {
        self.fleet.logs().into_iter().map(|(path, log)| format!("{}\n{log}\n", path.display())).collect()
    }

    pub(crate) fn client(&self) -> &Client {
        self.fleet.client()
    }

    /// The agent's state folder.
    pub(crate) fn state(&mut self) -> std::path::PathBuf {
        self.fleet.agent(0).folder().to_owned()
    }

    /// Runs all `cases` and returns what became of each, in their order.
    pub async fn run(&mut self, cases: &[Case]) -> Vec<Verdict> {
        let (alone, together): (Vec<_>, Vec<_>) =
            cases.iter().enumerate().partition(|(_, case)| matches!(case.how, How::Special(_)));
        let mut verdicts = vec![None; cases.len()];
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let arena = &*self;
        let running = together.into_iter().map(|(index, case)| {
            let permits = Arc::clone(&permits);
            async move {
                let _permit = permits.acquire().await;
                let before = arena.workers();
                let verdict = arena.verdict(index, case).await;
                let dead: Vec<u32> = before.into_iter().filter(|id| !machine::is_alive(*id)).collect();
                let verdict = match dead.as_slice() {
                    [] => verdict,
                    _ => Verdict::Harmed(format!("worker {dead:?} died; {}", verdict.seen())),
                };
                (index, verdict)
            }
        });
        for (index, verdict) in join_all(running).await {
            verdicts[index] = Some(verdict);
        }
        for (index, case) in alone {
            verdicts[index] = Some(self.special(case).await);
        }
        verdicts.into_iter().flatten().collect()
    }

    async fn verdict(&self, index: usize, case: &Case) -> Verdict {
        let tried = match &case.how {
            How::Refused(component, codes) => self.refused(component, codes).await,
            How::Item(component, variable, ends, says) => {
                self.item(&format!("case-{index}"), component, variable, ends, says).await
            }
            How::Asked(path, statuses, says) => self.asked(path, statuses, says).await,
            How::BreaksOff(path) => self.breaks_off(path).await,
            How::Sent(bytes, answers) => self.sent(bytes, answers).await,
            How::Special(_) => unreachable!("run alone"),
        };
        tried.unwrap_or_else(|error| Verdict::WrongCode(format!("{error:#}")))
    }

    async fn refused(&self, component: &Component, codes: &[&str]) -> anyhow::Result<Verdict> {
        let bytes = Bytes::from(component.bytes.clone());
        let answer = self.client().upload_component(&Digest::of(&bytes), bytes.clone(), |_| {}).await;
        let (code, status, seen) = match &answer {
            Ok(_) => ("admitted".to_owned(), 200, "admitted".to_owned()),
            Err(error) => {
                let problem = error.problem().with_context(|| format!("no problem: {error}"))?;
                (problem.code.clone(), problem.status, problem.code.clone())
            }
        };
        let is_right = if codes.is_empty() { status < 500 } else { codes.contains(&code.as_str()) };
        Ok(judged(is_right, seen))
    }

    /// Runs `component` as the one item of a job of its own.
    pub(crate) async fn item(
        &self,
        app: &str,
        component: &Component,
        variable: &str,
        ends: Ends,
        says: &[&str],
    ) -> anyhow::Result<Verdict> {
        let bytes = Bytes::from(component.bytes.clone());
        let digest = Digest::of(&bytes);
        self.client().upload_component(&digest, bytes, |_| {}).await?;
        let name: AppName = format!("hostile/{app}").parse()?;
        let job: dunlin_model::Name = "job".parse()?;
        let kind = WorkloadKind::Job(JobSpec { attempts: 1, ..JobSpec::default() });
        let workload = job_spec(digest, kind, variable);
        let workloads = [(job.clone(), workload)].into();
        self.client().deploy(&AppSpec { name: name.clone(), workloads }).await?;
        let start = StartRun { items: Some(1), ..StartRun::default() };
        let run = self.client().start_run(&name, &job, &start).await?.run;
        let started = tokio::time::Instant::now();
        let status = loop {
            let status = self.client().run(run).await?;
            if status.state.is_ended() {
                break status;
            }
            if started.elapsed() > PATIENCE {
                let app = self.client().app(&name).await?;
                let states: Vec<String> = app
                    .workloads
                    .iter()
                    .flat_map(|one| &one.allocations)
                    .map(|one| format!("{:?}", one.state))
                    .collect();
                self.client().cancel_run(run).await?;
                self.client().delete_app(&name).await?;
                anyhow::bail!("the run does not end: {:?} {states:?}", status.waiting);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        };
        let page = self.client().run_items(run, &ItemsQuery::default()).await?;
        self.client().delete_app(&name).await?;
        let record = &page.items.first().with_context(|| format!("no record: {status:?}"))?.record;
        let (outcome, output) = (&record.outcome, record.output.trim());
        let seen = match limit(outcome) {
            Some(limit) => format!("{} ({limit})", outcome.name()),
            None => outcome.name().to_owned(),
        };
        let is_end = ends.iter().any(|(name, wanted)| {
            outcome.name() == *name && (wanted.is_none() || wanted.map(str::to_owned) == limit(outcome))
        });
        let is_said =
            says.is_empty() || says.iter().any(|word| output.starts_with(word)) || !outcome.is_completed();
        if output.contains(SECRET) {
            return Ok(Verdict::Harmed("it knows the canary's secret".to_owned()));
        }
        let mut seen =
            if outcome.is_completed() && !output.is_empty() { format!("{seen}: {output}") } else { seen };
        if !is_end {
            seen = format!("{seen}; {outcome}");
        }
        Ok(judged(is_end && is_said, seen))
    }

    async fn asked(&self, path: &str, statuses: &[u16], says: &[&str]) -> anyhow::Result<Verdict> {
        let answer = get(self.ingress(), path).await?;
        let Some(status) = answer.status() else {
            return Ok(Verdict::WrongCode(format!("no answer: {}", answer.bytes.escape_ascii())));
        };
        let (body, code) = (answer.body(), answer.code());
        if body.contains(SECRET) {
            return Ok(Verdict::Harmed("it knows the canary's secret".to_owned()));
        }
        let is_said = says.is_empty()
            || says.iter().any(|word| code.as_deref() == Some(word) || status == 200 && body.contains(word));
        let seen = format!("{status} {}", code.unwrap_or_else(|| body.chars().take(60).collect()));
        Ok(judged(statuses.contains(&status) && is_said, seen))
    }

    async fn breaks_off(&self, path: &str) -> anyhow::Result<Verdict> {
        let answer = get(self.ingress(), path).await?;
        let status = answer.status().unwrap_or(0);
        let is_right = [502, 504].contains(&status) || !answer.is_whole();
        Ok(judged(is_right, format!("{status}, {} bytes, then it breaks off", answer.bytes.len())))
    }

    async fn sent(&self, bytes: &[u8], answers: &[&str]) -> anyhow::Result<Verdict> {
        if answers.iter().all(|begin| begin.starts_with("HTTP/1.1 200")) {
            // What its guests burned in cases before this one slows the service down for a while.
            self.until_answers("/hostile/fine").await;
        }
        let answer = send(self.ingress(), bytes, 1 << 20).await?;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        let is_right = answers
            .iter()
            .any(|begin| if begin.is_empty() { text.is_empty() } else { text.starts_with(begin) });
        let line = text.lines().next().unwrap_or("closed").chars().take(40).collect::<String>();
        Ok(judged(is_right && answer.is_over, line.escape_default().to_string()))
    }

    async fn special(&mut self, case: &Case) -> Verdict {
        let How::Special(special) = case.how else { unreachable!("chosen so") };
        let workers = self.workers();
        let tried = match special {
            Special::Disconnects => self.disconnects().await,
            Special::Storm => self.storm().await,
            Special::Remains => self.remains().await,
            Special::Redirects => self.redirects().await,
            Special::Names => self.names().await,
            Special::CrashLoop => self.crash_loop().await,
            Special::ManyArtefacts => self.many_artefacts().await,
            Special::Labels => self.labels().await,
            Special::Timers => self.timers().await,
            Special::Tampering(way) => return tamper::tried(self, way).await.unwrap_or_else(failed),
        };
        let verdict = tried.unwrap_or_else(failed);
        if workers.iter().all(|id| machine::is_alive(*id)) {
            verdict
        } else {
            Verdict::Harmed(format!("a worker died; {}", verdict.seen()))
        }
    }

    /// Clients go away at all moments of a request.
    async fn disconnects(&self) -> anyhow::Result<Verdict> {
        use tokio::io::AsyncWriteExt;
        let paths = ["sleep", "stall", "endless", "spin", "fine"];
        for round in 0..300_u64 {
            let mut stream = tokio::net::TcpStream::connect(self.ingress()).await?;
            let path = paths[usize::try_from(round).unwrap_or(0) % paths.len()];
            let request = format!("GET /hostile/{path} HTTP/1.1\r\nHost: a\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            tokio::time::sleep(Duration::from_micros(round * 37 % 4_000)).await;
        }
        self.until_answers("/hostile/fine").await;
        Ok(Verdict::Contained("300 clients went away, the next is answered".to_owned()))
    }

    /// More requests of every kind than may run.
    async fn storm(&self) -> anyhow::Result<Verdict> {
        let paths = ["spin", "hog", "sleep", "trap", "flood", "recursion", "endless", "fine"];
        let asking = (0..64).map(|number| {
            let path = format!("/hostile/{}", paths[number % paths.len()]);
            async move { get(self.ingress(), &path).await }
        });
        let mut statuses = BTreeSet::new();
        for answer in join_all(asking).await {
            statuses.insert(answer?.status().unwrap_or(0));
        }
        self.until_answers("/hostile/fine").await;
        let is_right = statuses.iter().all(|status| [200, 502, 503, 504].contains(status));
        Ok(judged(is_right, format!("64 requests: {statuses:?}")))
    }

    /// One guest fills its memory and table, the next looks for it.
    async fn remains(&self) -> anyhow::Result<Verdict> {
        let writer = crate::wat::running(
            "(memory 200)",
            "(memory.fill (i32.const 0) (i32.const 0x5a) (i32.const 13107200))",
        );
        let reader = crate::wat::running(
            "(memory 200)",
            "(local $at i32)
            (loop $next
                (if (i64.ne (i64.load (local.get $at)) (i64.const 0)) (then unreachable))
                (local.set $at (i32.add (local.get $at) (i32.const 8)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const 13107200))))",
        );
        let ends = crate::expected::COMPLETED;
        for round in 0..6 {
            for (name, component) in [("writer", &writer), ("reader", &reader)] {
                let verdict = self.item(&format!("{name}-{round}"), component, "", ends, &[]).await?;
                if !matches!(verdict, Verdict::Contained(_)) {
                    return Ok(Verdict::Harmed(format!("{name} {round}: {}", verdict.seen())));
                }
            }
        }
        Ok(Verdict::Contained("nothing of the one before is found".to_owned()))
    }
}

/// Returns the spec of a hostile job, with this variable `CASE`.
pub(crate) fn job_spec(component: Digest, kind: WorkloadKind, variable: &str) -> WorkloadSpec {
    WorkloadSpec {
        component,
        kind,
        limits: LIMITS,
        environment: [("CASE".to_owned(), variable.to_owned())].into(),
        node_labels: Default::default(),
        capabilities: Default::default(),
        instances: Default::default(),
        metering: Default::default(),
        coredump: false,
        signed: None,
        placement: Default::default(),
        priority: Default::default(),
    }
}

/// Returns an address that nobody has at this moment.
fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn failed(error: anyhow::Error) -> Verdict {
    Verdict::WrongCode(format!("{error:#}"))
}

pub(crate) fn judged(is_right: bool, seen: String) -> Verdict {
    let seen: String = seen.chars().take(160).collect::<String>().replace(['\n', '|'], " ");
    if is_right { Verdict::Contained(seen) } else { Verdict::WrongCode(seen) }
}

fn limit(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::LimitExceeded { hit } => Some(hit.limit.clone()),
        _ => None,
    }
}

fn workers(agent: u32) -> BTreeSet<u32> {
    let is_worker = |process: &u32| {
        let command = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let has = |wanted: &[u8]| command.split(|byte| *byte == 0).any(|word| word == wanted);
        has(b"worker") && !has(b"--probe") && machine::is_alive(*process)
    };
    machine::children(agent).into_iter().filter(is_worker).collect()
}

pub(crate) async fn join_all<T>(tasks: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    use std::task::Poll;
    let mut tasks: Vec<_> = tasks.map(|task| (Some(Box::pin(task)), None)).collect();
    std::future::poll_fn(|context| {
        for (task, result) in &mut tasks {
            if let Some(Poll::Ready(value)) = task.as_mut().map(|task| task.as_mut().poll(context)) {
                (*task, *result) = (None, Some(value));
            }
        }
        if tasks.iter().all(|(task, _)| task.is_none()) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    tasks.into_iter().filter_map(|(_, result)| result).collect()
}

/// Returns the table for people.
pub fn table(cases: &[Case], verdicts: &[Verdict]) -> String {
    let mut text = String::new();
    for (case, verdict) in cases.iter().zip(verdicts) {
        text += &format!(
            "{:>3}  {:<44.44} {:<10} {:<10} {:<18} {}\n",
            case.row,
            case.name,
            case.made(),
            case.tried(),
            verdict.to_string(),
            verdict.seen()
        );
    }
    text
}

/// Returns the table for the book.
pub fn markdown(cases: &[Case], verdicts: &[Verdict]) -> String {
    let mut text =
        "| line | case | made as | tried as | result | what it came to |\n|---|---|---|---|---|---|\n"
            .to_owned();
    for (case, verdict) in cases.iter().zip(verdicts) {
        let name = case.name.replace('|', "\\|");
        text += &format!(
            "| {} | `{name}` | {} | {} | {verdict} | {} |\n",
            case.row,
            case.made(),
            case.tried(),
            verdict.seen()
        );
    }
    text
}
