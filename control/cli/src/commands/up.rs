//! `dunlin up`: a whole fleet on this machine, as separate processes which join as they would on separate machines.
//!
//! There is no special path for development: one coordinator and N agents on loopback, each with a folder of its own,
//! real join tokens, real QUIC. What is special is only that this command starts them, watches them and ends them.

mod member;
mod sources;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use dunlin_api::{Client, CreateJoinToken, LogsQuery};
use dunlin_model::{AppName, Bytes, DurationMs, FuelRate, Name};
use futures_util::StreamExt as _;

use self::member::{Member, private_folder};
use self::sources::Sources;
use super::deploy::{self, DeployArgs, DeployHow};
use super::logs;
use super::processes::{Stop, failed};
use crate::args::Global;
use crate::client;
use crate::context::{self, Context as FleetContext};
use crate::error::CommandError;
use crate::output::{Output, Raw, table};

/// Start a whole fleet on this machine and run an app on it.
#[derive(Debug, Args)]
#[command(before_help = "Example: dunlin up guests/examples/quickstart")]
pub(crate) struct UpArgs {
    /// The folder of an app to deploy, or its manifest.
    pub(crate) app: Option<PathBuf>,
    /// How many nodes, 1 to 20.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=20), value_name = "N")]
    pub(crate) nodes: u16,
    /// The folder where everything is kept; with the same one the fleet and its apps are back. The user's state
    /// folder if absent.
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Take the components as they are; do not run `[build] command`.
    #[arg(long)]
    pub(crate) no_build: bool,
    /// Build and deploy the app again whenever a file of its folder changes.
    #[arg(long, requires = "app")]
    pub(crate) watch: bool,
}

/// A coordinator that dies is started again after so long.
const COORDINATOR_PAUSE: Duration = Duration::from_secs(3);
/// An agent that dies is started again after so long: longer than its lease, so that one can watch the fleet move
/// its work.
const AGENT_PAUSE: Duration = Duration::from_secs(20);
/// How often the processes are looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(200);
/// How often the files of an app are looked at.
const SOURCES_PERIOD: Duration = Duration::from_millis(300);
/// How long a deploy may take until its services run.
const DEPLOY_TIME: DurationMs = DurationMs(120_000);
const MEBI: u64 = 1 << 20;
const MILLION: u64 = 1_000_000;
/// Left to the system and to Dunlin itself when the machine's memory is divided among the nodes.
const MEMORY_RESERVE: Bytes = Bytes(512 << 20);

/// All processes of the fleet.
struct LocalFleet {
    state: PathBuf,
    coordinator: Member,
    agents: Vec<Member>,
    /// Held as long as this command runs: two must not share a state folder.
    _lock: std::fs::File,
}

/// Runs `dunlin up` until Ctrl-C or SIGTERM.
pub(crate) async fn run(global: &Global, args: UpArgs, output: &Output) -> Result<(), CommandError> {
    let cannot = |error| failed("cannot start a fleet on this machine", &error);
    let state = match args.state {
        Some(state) => {
            std::path::absolute(state).context("could not resolve the state folder").map_err(cannot)?
        }
        None => default_state().map_err(cannot)?,
    };
    let mut stop = Stop::new().map_err(cannot)?;
    let mut fleet = LocalFleet::claim(state, args.nodes).map_err(cannot)?;
    let app = args.app.map(|path| DeployArgs {
        path,
        no_build: args.no_build,
        // It is one's own fleet, so nobody else is to be asked.
        how: DeployHow { accept: true, no_wait: false, timeout: DEPLOY_TIME },
        plan: false,
    });
    let app = app.map(|deploy| App { deploy, namespace: global.namespace.clone(), is_watched: args.watch });
    let worked = tokio::select! {
        worked = fleet.work(app, output) => worked,
        () = stop.asked() => Ok(()),
    };
    output.note("stopping; Ctrl-C again ends it at once");
    tokio::select! {
        () = fleet.end() => {}
        // What is left is killed when it is dropped.
        () = stop.asked() => {}
    }
    worked.map_err(|error| match error {
        Trouble::Command(error) => error,
        Trouble::Process(error) => cannot(error),
    })
}

/// The app that the fleet is to run.
struct App {
    deploy: DeployArgs,
    namespace: Option<Name>,
    /// Whether it is built and deployed again when its sources change.
    is_watched: bool,
}

impl App {
    /// Looks at its sources. Without a manifest that can be read all files are some.
    fn sources(&self) -> Sources {
        let path = &self.deploy.path;
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        let built = deploy::read_manifest(path).map(|(manifest, folder)| {
            let components = manifest.workloads.values().map(|workload| folder.join(&workload.component));
            components.collect::<BTreeSet<PathBuf>>()
        });
        Sources::of(folder, &built.unwrap_or_default())
    }
}

/// What can go wrong: a process of the fleet, or what it was asked.
enum Trouble {
    Process(anyhow::Error),
    Command(CommandError),
}

impl From<anyhow::Error> for Trouble {
    fn from(error: anyhow::Error) -> Self {
        Self::Process(error)
    }
}

impl From<CommandError> for Trouble {
    fn from(error: CommandError) -> Self {
        Self::Command(error)
    }
}

impl LocalFleet {
    fn claim(state: PathBuf, nodes: u16) -> anyhow::Result<Self> {
        private_folder(&state)?;
        let path = state.join("lock");
        let lock =
            std::fs::File::create(&path).with_context(|| format!("could not open {}", path.display()))?;
        lock.try_lock().map_err(|_| {
            let state = state.display();
            anyhow::anyhow!(
                "another `dunlin up` runs on {state}; end it, or choose another folder with --state"
            )
        })?;
        let coordinator = Member::new("coordinator", state.join("coordinator"), COORDINATOR_PAUSE);
        let agents = (1..=nodes).map(|number| {
            let name = format!("node-{number}");
            Member::new(&name, state.join(&name), AGENT_PAUSE)
        });
        let agents = agents.collect();
        Ok(Self { state, coordinator, agents, _lock: lock })
    }

    async fn work(&mut self, app: Option<App>, output: &Output) -> Result<(), Trouble> {
        let client = self.start(output).await?;
        let mut named = None;
        let mut watched = None;
        if let Some(app) = app {
            let before = app.is_watched.then(|| app.sources());
            let deployed = self.deploy(&client, &app, output).await?;
            match (deployed, before) {
                (Ok(name), None) => named = Some(name),
                (Err(error), None) => return Err(error.into()),
                (deployed, Some(before)) => {
                    // What is wrong can be mended while the fleet waits.
                    named = deployed.map_err(|error| output.error(&error)).ok();
                    watched = Some((app, before));
                }
            }
        }
        self.show(&client, output).await?;
        self.attend(&client, named, watched, output).await
    }

    /// Builds an app and brings it into the fleet, or says why not.
    async fn deploy(
        &mut self,
        client: &Client,
        app: &App,
        output: &Output,
    ) -> anyhow::Result<Result<AppName, CommandError>> {
        let deploying = deploy::build_and_deploy(client, &app.deploy, app.namespace.as_ref(), output);
        // A member that dies meanwhile is started again, and its news told, as ever after.
        let deployed = self.while_watched(deploying, output).await?;
        Ok(deployed.map(|deployed| deployed.app))
    }

    /// Builds and deploys an app again if its sources have changed since `before`, which is brought up to date.
    async fn follow(
        &mut self,
        client: &Client,
        (app, before): &mut (App, Sources),
        output: &Output,
    ) -> anyhow::Result<()> {
        let mut now = app.sources();
        // Twice at most: who edits meanwhile is seen, and a build that writes to its own sources does not go on for ever.
        for _ in 0..2 {
            let Some(changed) = now.changed(before).map(Path::to_owned) else { break };
            output.note(&format!("{} has changed", changed.display()));
            let began = Instant::now();
            match self.deploy(client, app, output).await? {
                Ok(name) => {
                    output.note(&format!("{name} is up to date after {:.1}s", began.elapsed().as_secs_f32()));
                }
                Err(error) => output.error(&error),
            }
            *before = std::mem::replace(&mut now, app.sources());
        }
        *before = now;
        Ok(())
    }

    /// Keeps the processes running while `work` goes on.
    async fn while_watched<T>(
        &mut self,
        work: impl Future<Output = T>,
        output: &Output,
    ) -> anyhow::Result<T> {
        let mut watch = tokio::time::interval(WATCH_PERIOD);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return Ok(done),
                _ = watch.tick() => self.look(output)?,
            }
        }
    }

    /// Starts all processes and returns a client of the fleet.
    async fn start(&mut self, output: &Output) -> Result<Client, Trouble> {
        self.start_coordinator().await?;
        output.note("coordinator ready");
        let folder = self.coordinator.folder();
        let context = FleetContext {
            url: format!("https://{}", self.coordinator.address("api")?),
            token_file: folder.join("admin.token"),
            authority_file: folder.join("ca.pem"),
        };
        let file = self.state.join("context.toml");
        context::write(&file, &context)?;
        if let Some(path) = context::default_path() {
            match context::read(&path)? {
                Some(other) if !is_of_up(&other) => {
                    let path = path.display();
                    output.note(&format!(
                        "{path} names another fleet ({}) and is left as it is; for this fleet give `--context {}`",
                        other.url,
                        file.display()
                    ));
                }
                Some(_) | None => context::write(&path, &context)?,
            }
        }
        let client = client::connect(&Global { context: Some(file), ..Global::default() })?;

        let share = self.share_of_each_node().await?;
        let coordinator = self.coordinator.address("fleet")?.to_string();
        for index in 0..self.agents.len() {
            start_agent(&mut self.agents[index], &client, &coordinator, share).await?;
            output.note(&format!("{} ready", self.agents[index].name));
            self.write_processes()?;
        }
        Ok(client)
    }

    async fn start_coordinator(&mut self) -> anyhow::Result<()> {
        let member = &mut self.coordinator;
        let folder = member.folder().display().to_string();
        let (fleet, api) = (member.wanted_address("fleet", true), member.wanted_address("api", false));
        let arguments = |fleet: &str, api: &str| {
            words(&["coordinator", "--state", &folder, "--profile", "lan", "--fleet", fleet, "--api", api])
        };
        member.arguments = arguments(&fleet, &api);
        member.start(&[]).await?;
        // When it must be started again it has to be found at the same place.
        member.arguments =
            arguments(&member.address("fleet")?.to_string(), &member.address("api")?.to_string());
        Ok(())
    }

    /// Divides this machine among the nodes, so that they do not promise the same memory three times.
    async fn share_of_each_node(&self) -> anyhow::Result<(Bytes, FuelRate)> {
        let nodes = self.agents.len().max(1) as u64;
        let info = std::fs::read_to_string("/proc/meminfo").context("could not read /proc/meminfo")?;
        let kib: u64 = info
            .lines()
            .find_map(|line| {
                line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse().ok()
            })
            .context("/proc/meminfo has no line MemAvailable")?;
        let memory = Bytes(kib * 1024).minus(MEMORY_RESERVE);
        let fuel_rate = tokio::task::spawn_blocking(dunlin_worker::calibrate).await??;
        // Whole units, so that people can read them.
        let memory = Bytes(memory.0 / nodes / MEBI * MEBI);
        Ok((memory, FuelRate(fuel_rate.0 / nodes / MILLION * MILLION)))
    }

    /// Writes down which process is which, for people and for tests.
    fn write_processes(&self) -> anyhow::Result<()> {
        let processes: std::collections::BTreeMap<&str, serde_json::Value> =
            std::iter::once(&self.coordinator)
                .chain(&self.agents)
                .filter_map(|member| {
                    let entry =
                        serde_json::json!({ "process": member.process()?, "arguments": member.arguments });
                    Some((member.name.as_str(), entry))
                })
                .collect();
        let path = self.state.join("processes.json");
        std::fs::write(&path, serde_json::to_vec_pretty(&processes)?)
            .with_context(|| format!("could not write {}", path.display()))
    }

    async fn show(&self, client: &Client, output: &Output) -> Result<(), Trouble> {
        let apps =
            client.apps().await.map_err(|error| CommandError::client("cannot show the apps", &error))?;
        let allocations = apps.apps.iter().flat_map(|app| &app.workloads).flat_map(|workload| {
            workload.allocations.iter().map(move |allocation| {
                let (node, id) = (allocation.node.to_string(), allocation.id.to_string());
                let limits = [workload.limits.memory.to_string(), workload.limits.fuel.to_string()];
                let [memory, fuel] = limits;
                vec![node, id, workload.name.to_string(), allocation.state.name().to_owned(), memory, fuel]
            })
        });
        let mut rows: Vec<Vec<String>> = allocations.collect();
        rows.sort();
        if !rows.is_empty() {
            output.text(&table(&["NODE", "ALLOCATION", "WORKLOAD", "STATE", "MEMORY", "FUEL"], rows))?;
        }
        for agent in &self.agents {
            output.text(&format!("{}  http://{}/", agent.name, agent.address("ingress")?))?;
        }
        output.text(&format!("state   {}", self.state.display()))?;
        output.note("the fleet runs; Ctrl-C ends it");
        Ok(())
    }

    /// Shows what guests print, and keeps the processes running.
    async fn attend(
        &mut self,
        client: &Client,
        app: Option<AppName>,
        mut watched: Option<(App, Sources)>,
        output: &Output,
    ) -> Result<(), Trouble> {
        let mut watch = tokio::time::interval(WATCH_PERIOD);
        let mut sources = tokio::time::interval(SOURCES_PERIOD);
        let query = LogsQuery {
            namespace: app.as_ref().map(|name| name.namespace.clone()),
            app: app.map(|name| name.app),
            tail: Some(0),
            follow: Some(true),
            ..LogsQuery::default()
        };
        let mut lines = client.logs(&query).await.ok();
        loop {
            tokio::select! {
                _ = watch.tick() => self.look(output)?,
                _ = sources.tick(), if watched.is_some() => {
                    if let Some(watched) = &mut watched {
                        self.follow(client, watched, output).await?;
                    }
                }
                line = next_line(&mut lines) => match line {
                    Some(line) => output.text(&logs::shown(&line, Raw::No))?,
                    // The coordinator went away; its logs are asked for again once it is back.
                    None => lines = reopen(client, &query).await,
                },
            }
        }
    }

    fn look(&mut self, output: &Output) -> anyhow::Result<()> {
        let mut changed = false;
        for member in std::iter::once(&mut self.coordinator).chain(&mut self.agents) {
            if let Some(news) = member.look()? {
                output.note(&news);
                changed = true;
            }
        }
        if changed { self.write_processes() } else { Ok(()) }
    }

    /// Ends all processes: agents first, so that none reports a coordinator which is not there.
    async fn end(&mut self) {
        futures_util::future::join_all(self.agents.iter_mut().map(Member::end)).await;
        self.coordinator.end().await;
        let _never_written = std::fs::remove_file(self.state.join("processes.json"));
    }
}

/// Tells whether a context was written by `dunlin up`: only its fleets have their token in such a place.
fn is_of_up(context: &FleetContext) -> bool {
    let folder = context.token_file.parent().and_then(Path::parent);
    context.token_file.ends_with("coordinator/admin.token")
        && folder.is_some_and(|folder| folder.join("context.toml").exists() || !folder.exists())
}

/// Returns the zone of a node, one of three in turn: so that spreading, and the loss of a zone, can be tried.
fn zone(node: &str) -> &'static str {
    let number: usize = node.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(1);
    ["a", "b", "c"][number.saturating_sub(1) % 3]
}

async fn start_agent(
    agent: &mut Member,
    client: &Client,
    coordinator: &str,
    (memory, fuel_rate): (Bytes, FuelRate),
) -> Result<(), Trouble> {
    let mut environment = Vec::new();
    if !agent.folder().join("identity").join(dunlin_agent::IDENTITY_FILE).exists() {
        let created = client.create_join_token(&CreateJoinToken::default()).await;
        let created = created.map_err(|error| CommandError::client("cannot make a join token", &error))?;
        // By environment: the arguments of a process can be read by everybody on the machine.
        environment.push(("DUNLIN_JOIN_TOKEN", created.token));
    }
    let (folder, name) = (agent.folder().display().to_string(), agent.name.clone());
    let (memory, fuel_rate) = (memory.to_string(), fuel_rate.to_string());
    let zone = format!("zone={}", zone(&name));
    let arguments = |ingress: &str, endpoint: &str| {
        words(&[
            "agent",
            "--state",
            &folder,
            "--node",
            &name,
            "--fleet",
            coordinator,
            "--memory",
            &memory,
            "--fuel-rate",
            &fuel_rate,
            "--label",
            &zone,
            "--ingress",
            ingress,
            "--endpoint",
            endpoint,
        ])
    };
    agent.arguments =
        arguments(&agent.wanted_address("ingress", false), &agent.wanted_address("endpoint", true));
    agent.start(&environment).await?;
    agent.arguments =
        arguments(&agent.address("ingress")?.to_string(), &agent.address("endpoint")?.to_string());
    Ok(())
}

async fn next_line(lines: &mut Option<dunlin_api::LogStream>) -> Option<dunlin_api::LogLine> {
    lines.as_mut()?.next().await?.ok()
}

async fn reopen(client: &Client, query: &LogsQuery) -> Option<dunlin_api::LogStream> {
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.logs(query).await.ok()
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(|&word| word.to_owned()).collect()
}

/// The user's folder for state that survives a restart, as the XDG base directories have it.
fn default_state() -> anyhow::Result<PathBuf> {
    let base = match std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(base) => base,
        None => {
            let home =
                std::env::var_os("HOME").context("neither XDG_STATE_HOME nor HOME is set; give --state")?;
            PathBuf::from(home).join(".local/state")
        }
    };
    Ok(base.join("dunlin/up"))
}
