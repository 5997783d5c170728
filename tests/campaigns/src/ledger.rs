//! A client that writes all the time and remembers what was acknowledged.
//!
//! One writer has each thing, and its values only grow. So whatever is read must be at least what was acknowledged
//! before the question, and at most what was attempted before the answer: a write whose answer was lost may have
//! happened or not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use dunlin_api::{Client, ItemsQuery, RunState, SetSecret, StartRun};
use dunlin_model::{
    AppName, AppSpec, Name, NamespaceSpec, Quota, RunId, SecretId, SecretValue, SecretVersion,
};
use tokio::task::JoinHandle;

/// How many namespaces are written, in turns.
const NAMESPACES: u32 = 8;
/// How many secrets are written, in turns.
const SECRETS: u32 = 8;
/// How many items a run has.
const ITEMS: u32 = 3;
/// How long a run may take, whatever happens meanwhile.
const RUN_TIME: Duration = Duration::from_secs(120);
/// How long a writer waits after a failure.
const PAUSE: Duration = Duration::from_millis(10);

/// What is known of one thing that is written.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    acknowledged: u64,
    attempted: u64,
}

/// What is known of a secret that is written: nobody tells its value, but each value has a number.
#[derive(Clone, Copy, Debug, Default)]
struct Value {
    acknowledged: Option<SecretVersion>,
    /// Whether another one was attempted since, of which nobody knows whether it is there.
    is_unsure: bool,
}

/// What was written.
#[derive(Debug, Default)]
struct Written {
    /// The number of items that each namespace may have.
    namespaces: BTreeMap<Name, Bounds>,
    secrets: BTreeMap<SecretId, Value>,
    /// The revision of an app.
    revision: Bounds,
    /// Writes that were acknowledged: of namespaces, of the app, runs that ended as they should, and secrets.
    counts: [u64; 4],
    /// When the last one was.
    last: Option<Instant>,
    /// What a writer has found wrong.
    wrong: Option<String>,
}

/// The client.
pub(crate) struct Ledger {
    written: Arc<Mutex<Written>>,
    stop: Arc<AtomicBool>,
    /// Whether nobody may begin to write now.
    held: Arc<AtomicBool>,
    writers: Vec<JoinHandle<()>>,
    app: AppName,
}

impl Ledger {
    /// Begins to write. `spec` is an app that is deployed, with one job.
    pub(crate) fn start(client: &Client, spec: AppSpec) -> Self {
        let (written, stop) = (Arc::<Mutex<Written>>::default(), Arc::<AtomicBool>::default());
        let held = Arc::<AtomicBool>::default();
        // It is deployed once already.
        written.lock().unwrap_or_else(PoisonError::into_inner).revision.attempted = 1;
        let app = spec.name.clone();
        let writer = || Writer {
            client: client.clone(),
            written: written.clone(),
            stop: stop.clone(),
            held: held.clone(),
        };
        let writers = vec![
            tokio::spawn(writer().write_namespaces()),
            tokio::spawn(writer().deploy(spec.clone())),
            tokio::spawn(writer().start_runs(spec)),
            tokio::spawn(writer().set_secrets()),
        ];
        Self { written, stop, held, writers, app }
    }

    /// Lets nobody begin to write, so that nothing hides what is lost of the last writes.
    pub(crate) fn hold(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    /// Lets everybody write again.
    pub(crate) fn go_on(&self) {
        self.held.store(false, Ordering::Relaxed);
    }

    /// When the last write was acknowledged.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.lock().last
    }

    /// Compares what is there with what was written.
    pub(crate) async fn check(&self, client: &Client) -> anyhow::Result<()> {
        let acknowledged = |written: &Written| {
            let of = |(name, bounds): (&Name, &Bounds)| (name.clone(), bounds.acknowledged);
            (written.namespaces.iter().map(of).collect::<BTreeMap<_, _>>(), written.revision.acknowledged)
        };
        let (namespaces, revision) = acknowledged(&self.lock());
        self.check_secrets(client).await?;
        let found = client.namespaces().await.context("could not read the namespaces")?.namespaces;
        let status = client.app(&self.app).await.context("could not read the app")?;
        let written = self.lock();
        if let Some(wrong) = &written.wrong {
            anyhow::bail!(wrong.clone());
        }
        for (name, least) in namespaces {
            let found = found.iter().find(|found| found.namespace == name);
            let items = found.and_then(|found| found.spec.quota.items).map_or(0, u64::from);
            let most = written.namespaces[&name].attempted;
            ensure!(
                (least..=most).contains(&items),
                "namespace {name}: {least} was acknowledged, {most} attempted, and {items} is there"
            );
        }
        let (found, most) = (status.revision.0, written.revision.attempted);
        ensure!(
            (revision..=most).contains(&found),
            "revision {revision} was acknowledged, {most} were attempted, and {found} is there"
        );
        Ok(())
    }

    /// Compares the secrets that are there with those that were set. One that is written meanwhile may have any value.
    async fn check_secrets(&self, client: &Client) -> anyhow::Result<()> {
        let before = self.lock().secrets.clone();
        let found = client.secrets(&namespace()).await.context("could not read the secrets")?.secrets;
        let written = self.lock();
        for (id, value) in before {
            let now = written.secrets[&id];
            let is_sure = !value.is_unsure && !now.is_unsure && value.acknowledged == now.acknowledged;
            let found = found.iter().find(|found| found.secret == id).map(|found| found.version);
            ensure!(
                !is_sure || found == value.acknowledged,
                "secret {id}: {:?} was acknowledged, and {found:?} is there",
                value.acknowledged
            );
        }
        Ok(())
    }

    /// Stops writing, and compares a last time; returns how many writes of each kind were acknowledged.
    pub(crate) async fn end(mut self, client: &Client) -> anyhow::Result<BTreeMap<String, u64>> {
        self.stop.store(true, Ordering::Relaxed);
        for writer in std::mem::take(&mut self.writers) {
            writer.await?;
        }
        self.check(client).await?;
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(wrong) = &written.wrong {
            anyhow::bail!(wrong.clone());
        }
        ensure!(!written.counts.contains(&0), "of some kind nothing was acknowledged: {:?}", written.counts);
        let [namespaces, revisions, runs, secrets] = written.counts;
        let kinds = [
            ("changes of namespaces", namespaces),
            ("revisions", revisions),
            ("runs", runs),
            ("secrets", secrets),
        ];
        Ok(kinds.into_iter().map(|(kind, count)| (kind.to_owned(), count)).collect())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The namespace of the secrets.
fn namespace() -> Name {
    "ledger".parse().expect("it is a name")
}

/// One who writes.
struct Writer {
    client: Client,
    written: Arc<Mutex<Written>>,
    stop: Arc<AtomicBool>,
    held: Arc<AtomicBool>,
}

impl Writer {
    /// Waits while nobody may write.
    async fn turn(&self) {
        while self.held.load(Ordering::Relaxed) && self.goes_on() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn note(&self, note: impl FnOnce(&mut Written)) {
        note(&mut self.written.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn write_namespaces(self) {
        for number in 1_u32.. {
            if !self.goes_on() {
                return;
            }
            self.turn().await;
            let name: Name = format!("ledger-{}", number % NAMESPACES).parse().expect("it is a name");
            self.note(|written| {
                written.namespaces.entry(name.clone()).or_default().attempted = number.into();
            });
            let quota = Quota { items: Some(number), ..Quota::default() };
            let spec = NamespaceSpec { quota, ..NamespaceSpec::default() };
            match self.client.set_namespace(&name, &spec).await {
                Ok(_) => self.note(|written| {
                    written.namespaces.entry(name).or_default().acknowledged = number.into();
                    written.counts[0] += 1;
                    written.last = Some(Instant::now());
                }),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn set_secrets(self) {
        for number in 1_u32.. {
            if !self.goes_on() {
                return;
            }
            self.turn().await;
            let name = format!("SECRET_{}", number % SECRETS).parse().expect("it is a name");
            let id = SecretId { namespace: namespace(), name };
            self.note(|written| written.secrets.entry(id.clone()).or_default().is_unsure = true);
            let value = SecretValue::new(number.to_string().into()).expect("it is short");
            match self.client.set_secret(&id, &SetSecret { value }).await {
                Ok(set) => self.note(|written| {
                    let known = Value { acknowledged: Some(set.version), is_unsure: false };
                    written.secrets.insert(id, known);
                    written.counts[3] += 1;
                }),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn deploy(self, mut spec: AppSpec) {
        for number in 1_u64.. {
            if !self.goes_on() {
                return;
            }
            self.turn().await;
            for workload in spec.workloads.values_mut() {
                workload.environment.insert("NUMBER".to_owned(), number.to_string());
            }
            self.note(|written| written.revision.attempted += 1);
            match self.client.deploy(&spec).await {
                Ok(deployed) => self.note(|written| {
                    let revision = deployed.revision.0;
                    if revision <= written.revision.acknowledged {
                        let before = written.revision.acknowledged;
                        written.wrong = Some(format!(
                            "revision {revision} was given after {before} had been acknowledged"
                        ));
                    }
                    written.revision.acknowledged = revision;
                    written.counts[1] += 1;
                }),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn start_runs(self, spec: AppSpec) {
        let job = spec.workloads.keys().next().expect("the app has a job").clone();
        while self.goes_on() {
            self.turn().await;
            let wish = StartRun { items: Some(ITEMS), ..StartRun::default() };
            let Ok(started) = self.client.start_run(&spec.name, &job, &wish).await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            if let Err(wrong) = self.until_ended(started.run).await {
                self.note(|written| written.wrong = Some(wrong));
                return;
            }
            self.note(|written| written.counts[2] += 1);
        }
    }

    /// Waits for the end of a run that was acknowledged, and looks at the record of each of its items.
    async fn until_ended(&self, run: RunId) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let seen = match self.client.run(run).await {
                Ok(status) if status.state == RunState::Completed => {
                    let query = ItemsQuery::default();
                    if let Ok(page) = self.client.run_items(run, &query).await {
                        let items: Vec<u32> = page.items.iter().map(|item| item.item).collect();
                        if items == (0..ITEMS).collect::<Vec<_>>() {
                            return Ok(());
                        }
                        return Err(format!("{run} has completed, and has records of {items:?}"));
                    }
                    "its items cannot be read".to_owned()
                }
                Ok(status) if status.ended.is_some() => {
                    return Err(format!("{run} ended otherwise than it should: {status:?}"));
                }
                Ok(status) => format!("{status:?}"),
                Err(error) if error.problem().is_some_and(|problem| problem.status == 404) => {
                    return Err(format!("{run} was acknowledged, and is not known"));
                }
                Err(error) => error.to_string(),
            };
            if started.elapsed() > RUN_TIME {
                return Err(format!("{run} has not ended within {RUN_TIME:?}; last seen: {seen}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}
