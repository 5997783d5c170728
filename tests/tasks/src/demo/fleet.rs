//! The fleet of the demo: a `dunlin up` process, and what its user can see of it.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::demo::eventually;
use crate::step::{program, root};

/// A running `dunlin up`.
pub(crate) struct LocalFleet {
    up: Child,
    state: PathBuf,
}

/// Sends `signal` to a process.
pub(crate) fn signal(process: u32, signal: Signal) -> anyhow::Result<()> {
    let id = i32::try_from(process).context("the process number is too large")?;
    kill(Pid::from_raw(id), signal).with_context(|| format!("could not signal process {process}"))
}

impl LocalFleet {
    /// Starts `dunlin up` on a new state folder and waits until all services of the app run.
    pub(crate) fn start(app: &Path, once: bool) -> anyhow::Result<Self> {
        let state = root().join("target/demo");
        if state.exists() {
            std::fs::remove_dir_all(&state)
                .with_context(|| format!("could not remove {}", state.display()))?;
        }
        let mut command = Command::new(program("dunlin"));
        command.arg("up").arg(app).arg("--no-build").args(["--nodes", "3", "--state"]).arg(&state);
        command.current_dir(root()).stdin(Stdio::null());
        if once {
            // The context of whoever runs the tests is left alone.
            command.env("XDG_CONFIG_HOME", state.join("config"));
        }
        let up = command.spawn().context("could not start `dunlin up`")?;
        let mut fleet = Self { up, state };
        eventually("the fleet is up", || {
            if let Some(status) = fleet.up.try_wait()? {
                // Waiting longer would not help; the reason was printed by `dunlin up` itself.
                std::process::exit(status.code().unwrap_or(1).max(1));
            }
            let nodes = fleet.nodes_of_hello()?;
            ensure!(nodes.len() == 3, "hello runs on {nodes:?}");
            Ok(())
        })?;
        Ok(fleet)
    }

    /// Runs `dunlin` as the fleet's user and returns what it prints; fails if it fails.
    pub(crate) fn dunlin(&self, arguments: &[&str]) -> anyhow::Result<String> {
        self.dunlin_in(".", arguments)
    }

    /// The same, whether or not it fails: a result is printed of a failed run too.
    pub(crate) fn printed(&self, arguments: &[&str]) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&self.output_in(".", arguments)?.stdout).into_owned())
    }

    fn output_in(&self, folder: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        Command::new(program("dunlin"))
            .args(arguments)
            .env("DUNLIN_CONTEXT", self.state.join("context.toml"))
            .current_dir(root().join(folder))
            .stdin(Stdio::null())
            .output()
            .context("could not start dunlin")
    }

    fn dunlin_in(&self, folder: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.output_in(folder, arguments)?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        ensure!(output.status.success(), "`dunlin {}` failed: {said}", arguments.join(" "));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn json(&self, arguments: &[&str]) -> anyhow::Result<Value> {
        let printed = self.dunlin(&[arguments, &["--output", "json"]].concat())?;
        serde_json::from_str(&printed)
            .with_context(|| format!("`dunlin {}` printed no JSON", arguments.join(" ")))
    }

    /// Starts a run of a job and returns its id.
    pub(crate) fn start_run(&self, job: &str) -> anyhow::Result<String> {
        self.run_id(".", &["job", "run", job, "--items", "1"])
    }

    /// The same from the folder of an app, whose manifest says what the items are.
    pub(crate) fn start_run_in(&self, folder: &str, job: &str) -> anyhow::Result<String> {
        self.run_id(folder, &["job", "run", job])
    }

    fn run_id(&self, folder: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let printed = self.dunlin_in(folder, &[arguments, &["--output", "json"]].concat())?;
        let started: Value = serde_json::from_str(&printed).context("`dunlin job run` printed no JSON")?;
        Ok(started["run"].as_str().context("`dunlin job run` printed no run id")?.to_owned())
    }

    /// Waits until a run has ended and returns its state.
    pub(crate) fn until_ended(&self, run: &str) -> anyhow::Result<String> {
        eventually("the run ends", || {
            let status = self.json(&["job", "status", run])?;
            let state = status["state"].as_str().unwrap_or_default().to_owned();
            ensure!(state != "running", "the run is {status}");
            Ok(state)
        })
    }

    /// Returns the nodes on which allocations of `hello` run.
    pub(crate) fn nodes_of_hello(&self) -> anyhow::Result<Vec<String>> {
        let status = self.json(&["status", "quickstart"])?;
        let workloads = status["workloads"].as_array().context("the status has no workloads")?;
        let hello =
            workloads.iter().find(|workload| workload["name"] == "hello").context("there is no hello")?;
        let running =
            hello["allocations"].as_array().into_iter().flatten().filter(|one| one["state"] == "running");
        let mut nodes: Vec<String> =
            running.filter_map(|one| Some(one["node"].as_str()?.to_owned())).collect();
        nodes.sort();
        Ok(nodes)
    }

    /// Returns all apps with their revisions and allocations, without figures that change by themselves.
    pub(crate) fn apps(&self) -> anyhow::Result<Value> {
        let mut apps = self.json(&["status"])?;
        strip(&mut apps);
        Ok(apps)
    }

    /// Tells whether the coordinator hears of a node.
    pub(crate) fn is_alive(&self, node: &str) -> anyhow::Result<bool> {
        let nodes = self.json(&["nodes"])?;
        let all = nodes["nodes"].as_array().context("there are no nodes")?;
        Ok(all.iter().any(|one| one["node"] == node && one["state"] == "alive"))
    }

    /// Returns the process of a member of the fleet.
    pub(crate) fn process(&self, name: &str) -> anyhow::Result<u32> {
        let processes: Value = serde_json::from_slice(&std::fs::read(self.state.join("processes.json"))?)?;
        let process = processes[name]["process"].as_u64().with_context(|| format!("{name} does not run"))?;
        Ok(u32::try_from(process)?)
    }

    /// Returns where the ingresses of the nodes listen.
    pub(crate) fn ingresses(&self) -> anyhow::Result<Vec<SocketAddr>> {
        let nodes = self.json(&["nodes"])?;
        let all = nodes["nodes"].as_array().context("there are no nodes")?;
        all.iter().map(|one| Ok(one["ingress"].as_str().context("a node has no ingress")?.parse()?)).collect()
    }

    /// Waits until the user ends the fleet.
    pub(crate) fn wait(mut self) -> anyhow::Result<()> {
        let status = self.up.wait()?;
        ensure!(status.success(), "the fleet ended with {status}");
        Ok(())
    }

    /// Ends the fleet as Ctrl-C does, and checks that no process and no port of it is left.
    pub(crate) fn end_and_check(mut self, entries: &[SocketAddr]) -> anyhow::Result<()> {
        let members = ["coordinator", "node-1", "node-2", "node-3"];
        let processes = members.iter().map(|name| self.process(name)).collect::<Result<Vec<u32>, _>>()?;
        let workers: Vec<u32> = processes.iter().flat_map(|process| children(*process)).collect();
        ensure!(!workers.is_empty(), "no worker process was found below the agents");
        signal(self.up.id(), Signal::SIGINT)?;
        let status = self.up.wait()?;
        ensure!(status.success(), "`dunlin up` ended with {status}");
        for process in processes.iter().chain(&workers) {
            ensure!(!Path::new(&format!("/proc/{process}")).exists(), "process {process} is left behind");
        }
        for entry in entries {
            TcpListener::bind(entry).with_context(|| format!("the port of {entry} is still taken"))?;
        }
        crate::step::say(format_args!(
            "  {} processes ended, no port is left open",
            processes.len() + workers.len() + 1
        ));
        Ok(())
    }
}

impl Drop for LocalFleet {
    fn drop(&mut self) {
        // After a failed step: nothing may be left running.
        if matches!(self.up.try_wait(), Ok(None)) {
            let _already_gone = signal(self.up.id(), Signal::SIGINT);
            let _ended = self.up.wait();
        }
    }
}

/// Returns the processes that `process` has started.
fn children(process: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    let files = tasks.into_iter().flatten().flatten().map(|task| task.path().join("children"));
    let lists = files.filter_map(|file| std::fs::read_to_string(file).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>())
        .collect()
}

/// Removes figures that change by themselves.
fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for figure in ["memory", "fuel", "instances", "restarts", "term"] {
                fields.remove(figure);
            }
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
