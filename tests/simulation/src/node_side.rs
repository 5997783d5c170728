//! What happens on a node: its agent boots, hears, acts and crashes; its workers load, run and die.

use dunlin_model::{
    AllocationId, AssignedAllocation, Bytes, DurationMs, Fuel, ItemRange, Name, NodeId, Outcome, RunId,
    ServiceSpec, Work, WorkloadKind,
};
use dunlin_supervisor::{Action, Event, Kept};

use crate::agent::Loaded;
use crate::options::Sabotage;
use crate::random::mix;
use crate::wishes::{broken_component, never_well};
use crate::world::{Happening, ToAgent, World};

/// How often an agent reports as long as there are faults.
const HEARTBEAT: DurationMs = DurationMs(1_000);
/// How often it does in the calm, which may be long.
const CALM_HEARTBEAT: DurationMs = DurationMs(2_000);

impl World {
    pub(crate) fn agent_boots(&mut self, node: &NodeId) -> Result<(), String> {
        let (now, cluster) = (self.now, self.cluster.clone());
        let agent = self.agents.get_mut(node).expect("it is a node");
        if agent.gone || agent.supervisor.is_some() {
            return Ok(());
        }
        agent.counts_start();
        agent.start(&cluster);
        agent.clock.set(now, &mut self.random);
        let own = agent.clock.at(now);
        (agent.began, agent.heard) = (own, own);
        let life = agent.life;
        let (disk, kept) = (agent.disk.clone(), agent.kept_items.clone());
        let begun = std::mem::take(&mut agent.begun_items);
        let supervisor = agent.supervisor.as_mut();
        let supervisor = supervisor.expect("it was started");
        let program = Some(agent.program.clone());
        let kept = Kept { assignment: disk, items: kept, begun, is_unsure: false, program };
        let actions = supervisor.restore(kept, own);
        self.note(format_args!("{node} boots"));
        self.plan(DurationMs(1), Happening::Dial { node: node.clone(), life });
        self.plan(HEARTBEAT, Happening::Heartbeat { node: node.clone(), life });
        self.agent_acts(node, actions)
    }

    /// Every third time an agent that is about to end knows so, and does what is to be done last.
    pub(crate) fn agent_is_to_start_again(&mut self, node: &NodeId) -> Result<(), String> {
        let agent = self.agents.get_mut(node).expect("it is a node");
        let now = agent.clock.at(self.now);
        let Some(supervisor) = agent.supervisor.as_mut().filter(|_| agent.life.is_multiple_of(3)) else {
            return Ok(());
        };
        supervisor.leave(now);
        let actions = supervisor.last_actions(now);
        self.note(format_args!("{node} is to start again"));
        self.agent_acts(node, actions)
    }

    pub(crate) fn agent_crashes(&mut self, node: &NodeId) {
        let agent = self.agents.get_mut(node).expect("it is a node");
        if agent.supervisor.is_none() {
            return;
        }
        let connection = agent.connection;
        agent.crash();
        self.counts.agent_crashes += 1;
        self.note(format_args!("{node} crashes"));
        if let Some(connection) = connection {
            let wait = self.draw(10, 8_000);
            self.plan(wait, Happening::ConnectionLost { node: node.clone(), connection });
        }
        let wait = if self.random.chance(200) { self.draw(20_000, 80_000) } else { self.draw(200, 10_000) };
        self.plan(wait, Happening::AgentBoots { node: node.clone() });
    }

    pub(crate) fn agent_tick(&mut self, node: &NodeId, life: u64) -> Result<(), String> {
        let now = self.now;
        let agent = self.agents.get_mut(node).expect("it is a node");
        let Some(supervisor) = agent.supervisor.as_mut().filter(|_| agent.life == life) else {
            return Ok(());
        };
        agent.wake = None;
        let actions = supervisor.tick(agent.clock.at(now));
        self.agent_acts(node, actions)
    }

    pub(crate) fn heartbeat(&mut self, node: &NodeId, life: u64) -> Result<(), String> {
        if self.agents[node].life != life {
            return Ok(());
        }
        self.check_silence(node)?;
        if self.is_broken(Sabotage::OwnLeases) {
            self.own_leases(node)?;
        }
        self.report_now(node);
        let wait = if self.is_calm { CALM_HEARTBEAT } else { HEARTBEAT };
        self.plan(wait, Happening::Heartbeat { node: node.clone(), life });
        Ok(())
    }

    /// Lets an agent believe that it has the lease of all that it was ever told to run.
    fn own_leases(&mut self, node: &NodeId) -> Result<(), String> {
        let agent = self.agents.get_mut(node).expect("it is a node");
        let sent = agent.clock.at(self.now);
        let (term, saved) = (agent.saved().0, agent.disk.iter().flat_map(|saved| &saved.allocations));
        let leases = saved.map(|assigned| (assigned.id, DurationMs(10_000))).collect();
        let Some(supervisor) = &mut agent.supervisor else { return Ok(()) };
        let actions = supervisor.observe(Event::Heard { term, sent, leases }, sent);
        agent.heard = sent;
        self.agent_acts(node, actions)
    }

    /// Sends a heartbeat, if there is a connection.
    pub(crate) fn report_now(&mut self, node: &NodeId) {
        let agent = self.agents.get_mut(node).expect("it is a node");
        if agent.connection.is_none() {
            return;
        }
        if let Some(report) = agent.report(&self.cluster, agent.clock.at(self.now)) {
            self.send(Happening::ToCoordinator { node: node.clone(), report: Box::new(report) });
        }
    }

    pub(crate) fn agent_receives(&mut self, node: &NodeId, message: ToAgent) -> Result<(), String> {
        if self.blocked(node).to_agent || self.agents[node].is_deaf() {
            return Ok(());
        }
        let skips_check = self.is_broken(Sabotage::SkipTermCheck);
        let believes_all = self.is_broken(Sabotage::NewAnswers);
        let agent = self.agents.get_mut(node).expect("it is a node");
        let now = agent.clock.at(self.now);
        let stored = agent.saved();
        let Some(supervisor) = &mut agent.supervisor else { return Ok(()) };
        let actions = match message {
            ToAgent::Assign(mut assignment) => {
                if skips_check && (assignment.term, assignment.generation) < stored {
                    (assignment.term, assignment.generation) = (stored.0, stored.1.next());
                }
                let (term, generation) = (assignment.term, assignment.generation);
                let taken = supervisor.assign(*assignment, now);
                if taken.is_ok() {
                    agent.heard = now;
                }
                match taken {
                    Ok(actions) if actions.is_empty() => return Ok(()),
                    Ok(actions) => {
                        self.note(format_args!("{node} takes {term}.{generation}"));
                        actions
                    }
                    Err(stale) => {
                        self.counts.refused_assignments += 1;
                        self.note(format_args!("{node} refuses: {stale}"));
                        return Ok(());
                    }
                }
            }
            ToAgent::Recorded { term, items } => supervisor.observe(Event::Recorded { term, items }, now),
            ToAgent::Heard { term, sent, leases } => {
                let sent = if believes_all { now } else { sent };
                if term >= stored.0 && sent >= agent.began && sent <= now {
                    agent.heard = agent.heard.max(sent);
                }
                supervisor.observe(Event::Heard { term, sent, leases }, now)
            }
        };
        self.agent_acts(node, actions)
    }

    pub(crate) fn on_node(
        &mut self,
        node: &NodeId,
        life: u64,
        load: Option<u64>,
        event: Event,
    ) -> Result<(), String> {
        let agent = self.agents.get_mut(node).expect("it is a node");
        let now = agent.clock.at(self.now);
        let is_void = load.is_some_and(|load| agent.loaded.values().all(|loaded| loaded.load != load));
        if agent.life != life || is_void {
            return Ok(());
        }
        let (mut freed, mut checked) = (None, None);
        match &event {
            Event::Started { allocation } => {
                let Some(loaded) = agent.loaded.get_mut(allocation) else { return Ok(()) };
                loaded.started = true;
                checked = Some(*allocation);
            }
            Event::Checked { allocation, .. } => checked = Some(*allocation),
            Event::Stopped { allocation } => drop(agent.ending.remove(allocation)),
            Event::NotStarted { allocation, .. } => {
                if agent.loaded.remove(allocation).is_none() {
                    return Ok(());
                }
            }
            Event::ItemEnded { allocation, item, .. } | Event::ItemNotRun { allocation, item, .. } => {
                let Some(loaded) = agent.loaded.get_mut(allocation) else {
                    // The last word of what is being broken off.
                    return self.agent_hears_of_the_broken_off(node, event);
                };
                loaded.running.remove(item);
                freed = Some((*allocation, loaded.assigned.workload.namespace.clone()));
            }
            Event::SecretFetched { secret, version } => {
                if !agent.keep_secret(secret, *version) {
                    return Ok(());
                }
            }
            Event::SecretNotFetched { .. }
            | Event::NotTaken { .. }
            | Event::Fetched { .. }
            | Event::FetchFailed { .. }
            | Event::Recorded { .. }
            | Event::Heard { .. }
            | Event::Usage { .. }
            | Event::WorkerDied { .. } => {}
        }
        let line = shown(&event);
        let Some(supervisor) = &mut agent.supervisor else { return Ok(()) };
        let actions = supervisor.observe(event, now);
        self.note(format_args!("{node}: {line}"));
        if let Some((allocation, namespace)) = freed {
            self.worker_takes(node, allocation, &namespace)?;
        }
        if let Some(allocation) = checked {
            self.worker_checks(node, allocation);
        }
        self.agent_acts(node, actions)
    }

    /// Has a worker ask an allocation how it is, some time from now, if that is wanted.
    fn worker_checks(&mut self, node: &NodeId, id: AllocationId) {
        let Some(loaded) = self.agents[node].loaded.get(&id) else { return };
        let WorkloadKind::Service(ServiceSpec { health: Some(health), .. }) = &loaded.assigned.spec.kind
        else {
            return;
        };
        let (load, interval) = (loaded.load, health.interval);
        let is_bad = never_well(&loaded.assigned.spec) || self.random.chance(self.faults.check_fails);
        let problem = is_bad.then(|| "simulated".to_owned());
        self.plan_on_node(node, interval, Some(load), Event::Checked { allocation: id, problem });
    }

    pub(crate) fn any_worker_dies(&mut self, node: &NodeId) -> Result<(), String> {
        let agent = &self.agents[node];
        let namespaces = agent.loaded.values().map(|it| it.assigned.workload.namespace.clone());
        let namespaces: Vec<Name> = namespaces.collect();
        if namespaces.is_empty() {
            return Ok(());
        }
        let namespace = self.random.choose(&namespaces).clone();
        let agent = &self.agents[node];
        let worker = (namespace.clone(), agent.worker_life(&namespace));
        self.worker_dies(node, agent.life, &worker)
    }

    pub(crate) fn worker_dies(
        &mut self,
        node: &NodeId,
        life: u64,
        worker: &(Name, u64),
    ) -> Result<(), String> {
        let (namespace, worker_life) = worker;
        let agent = self.agents.get_mut(node).expect("it is a node");
        let now = agent.clock.at(self.now);
        if agent.life != life || agent.worker_life(namespace) != *worker_life {
            return Ok(());
        }
        agent.worker_lives.insert(namespace.clone(), worker_life + 1);
        agent.loaded.retain(|_, loaded| loaded.assigned.workload.namespace != *namespace);
        agent.ending.retain(|_, loaded| loaded.assigned.workload.namespace != *namespace);
        let Some(supervisor) = &mut agent.supervisor else { return Ok(()) };
        let actions = supervisor.observe(Event::WorkerDied { namespace: namespace.clone() }, now);
        self.note(format_args!("{node}: the worker of {namespace} dies"));
        self.counts.worker_deaths += 1;
        self.agent_acts(node, actions)
    }

    /// Carries out what a supervisor wants, and checks what it has done.
    fn agent_acts(&mut self, node: &NodeId, actions: Vec<Action>) -> Result<(), String> {
        for action in actions {
            match action {
                Action::Save(assignment) => {
                    let key = (node.clone(), assignment.term, assignment.generation);
                    if self.sent.get(&key) != Some(&*assignment) {
                        return Err(format!("{node} saves a {}.{} that was never sent", key.1, key.2));
                    }
                    let saved = self.agents[node].saved();
                    if (assignment.term, assignment.generation) <= saved {
                        return Err(format!(
                            "{node} goes from {}.{} back to {}.{}",
                            saved.0, saved.1, key.1, key.2
                        ));
                    }
                    if self.is_broken(Sabotage::ForgetSavedAssignment) && self.random.chance(100) {
                        continue;
                    }
                    self.agents.get_mut(node).expect("it is a node").disk = Some(*assignment);
                    if self.random.chance(self.faults.crash_after_save) {
                        self.agent_crashes(node);
                        return Ok(());
                    }
                }
                Action::SetRoutes(routes) => self.agents.get_mut(node).expect("it is a node").routes = routes,
                Action::KeepItems { reports, in_place } => {
                    let kept = &mut self.agents.get_mut(node).expect("it is a node").kept_items;
                    if in_place {
                        kept.clear();
                    }
                    self.counts.kept_items += reports.len() as u64;
                    kept.extend(reports);
                }
                Action::KeepBegun(begun) => {
                    self.agents.get_mut(node).expect("it is a node").begun_items = begun;
                }
                // There is no code here: whether it is kept shows on real nodes.
                Action::KeepCode { components: _ } => {}
                action @ (Action::KeepSecrets { .. }
                | Action::FetchSecret { .. }
                | Action::GiveSecrets { .. }) => self.minds_secrets(node, action)?,
                action @ (Action::TakeProgram { .. }
                | Action::KeepTried { .. }
                | Action::ReturnProgram { .. }) => {
                    if self.minds_program(node, action)? {
                        return Ok(());
                    }
                }
                Action::Fetch { digest } => {
                    let fails = self.random.chance(self.faults.fetch_fails);
                    let failed = || Event::FetchFailed { digest, reason: "simulated".to_owned() };
                    let event = if fails { failed() } else { Event::Fetched { digest } };
                    let wait = self.draw(5, 3_000);
                    self.plan_on_node(node, wait, None, event);
                }
                Action::Start { allocation } => self.worker_loads(node, *allocation)?,
                Action::Stop { allocation, namespace, at_once } => {
                    self.note(format_args!("{node} stops {allocation} in {namespace}"));
                    if !self.is_broken(Sabotage::IgnoreStops) {
                        self.worker_stops(node, allocation, at_once);
                    }
                }
                Action::RunItems { allocation, namespace, run, range, combine, inputs } => {
                    let may_wait = !inputs && !combine;
                    self.worker_is_told(node, allocation, (run, range), may_wait)?;
                    self.worker_takes(node, allocation, &namespace)?;
                }
            }
        }
        self.agent_sets_alarm(node);
        self.agents[node].check()
    }

    fn agent_sets_alarm(&mut self, node: &NodeId) {
        let now = self.now;
        let agent = self.agents.get_mut(node).expect("it is a node");
        let Some(deadline) = agent.supervisor.as_ref().and_then(|it| it.next_deadline()) else { return };
        if agent.wake.is_none_or(|wake| deadline < wake) {
            agent.wake = Some(deadline);
            let (node, life) = (node.clone(), agent.life);
            let wait = agent.clock.until(now, deadline);
            self.plan(wait, Happening::AgentTick { node, life });
        }
    }

    pub(crate) fn plan_on_node(&mut self, node: &NodeId, wait: DurationMs, load: Option<u64>, event: Event) {
        let life = self.agents[node].life;
        self.plan(wait, Happening::OnNode { node: node.clone(), life, load, event });
    }

    /// An agent hears how an item ended that its worker breaks off.
    fn agent_hears_of_the_broken_off(&mut self, node: &NodeId, event: Event) -> Result<(), String> {
        let line = shown(&event);
        let agent = self.agents.get_mut(node).expect("it is a node");
        let now = agent.clock.at(self.now);
        let Some(supervisor) = &mut agent.supervisor else { return Ok(()) };
        let actions = supervisor.observe(event, now);
        self.note(format_args!("{node}: {line}"));
        self.agent_acts(node, actions)
    }

    /// Has a worker stop what it holds; what must stop at once has done so within the time for which an agent waits before
    /// it kills the worker.
    fn worker_stops(&mut self, node: &NodeId, id: AllocationId, at_once: bool) {
        let agent = self.agents.get_mut(node).expect("it is a node");
        let loaded = agent.loaded.remove(&id);
        let mut broken_off = Vec::new();
        if let Some(loaded) = loaded.filter(|_| at_once) {
            broken_off = loaded.running.iter().copied().collect();
            agent.ending.insert(id, loaded);
        }
        // What is to be done at once takes most of the time that it may: that finds who does not wait for it.
        let wait = if at_once { self.draw(300, 500) } else { self.draw(1, 5_000) };
        for item in broken_off {
            // In most cases it is told what became of it.
            if self.random.chance(900) {
                self.plan_on_node(node, wait, None, broken_off_event(id, item));
            }
        }
        self.plan_on_node(node, wait, None, Event::Stopped { allocation: id });
    }

    fn worker_loads(&mut self, node: &NodeId, assigned: AssignedAllocation) -> Result<(), String> {
        let id = assigned.id;
        self.check_alone(node, &assigned)?;
        self.loads += 1;
        let load = self.loads;
        let component = assigned.spec.component;
        let (running, waiting) = Default::default();
        let agent = self.agents.get_mut(node).expect("it is a node");
        let secrets = agent.secrets_for(&assigned)?;
        let loaded = Loaded { load, assigned, secrets, started: false, running, waiting };
        if agent.loaded.insert(id, loaded).is_some() {
            return Err(format!("{node} starts {id}, which its worker has already"));
        }
        let is_broken = component == broken_component();
        let event = if is_broken || self.random.chance(self.faults.start_fails) {
            Event::NotStarted { allocation: id, reason: "simulated".to_owned(), refused: is_broken }
        } else {
            Event::Started { allocation: id }
        };
        let wait = self.draw(5, 2_000);
        self.plan_on_node(node, wait, Some(load), event);
        Ok(())
    }

    /// The worker is told of items; those without inputs may wait until it has room.
    fn worker_is_told(
        &mut self,
        node: &NodeId,
        id: AllocationId,
        (run, range): (RunId, ItemRange),
        may_wait: bool,
    ) -> Result<(), String> {
        let agent = self.agents.get_mut(node).expect("it is a node");
        let loaded = agent.loaded.get_mut(&id).filter(|loaded| loaded.started);
        let Some(loaded) = loaded else {
            return Err(format!("{node} runs items of {id}, which is not up"));
        };
        for item in range.start..range.end {
            if loaded.running.contains(&item) || loaded.waiting.contains(&(run, item)) {
                return Err(format!("{node} runs item {item} of {id} twice"));
            }
            loaded.waiting.push_back((run, item));
        }
        if !may_wait && loaded.running.len() + loaded.waiting.len() > loaded.room() {
            return Err(format!("{node} runs items {range} of {id} beside too many others"));
        }
        Ok(())
    }

    /// The worker begins as many of the items which wait as it may run at a time.
    fn worker_takes(&mut self, node: &NodeId, id: AllocationId, namespace: &Name) -> Result<(), String> {
        loop {
            let agent = self.agents.get_mut(node).expect("it is a node");
            let Some(loaded) = agent.loaded.get_mut(&id) else { return Ok(()) };
            if loaded.running.len() >= loaded.room() {
                return Ok(());
            }
            let Some((run, item)) = loaded.waiting.pop_front() else { return Ok(()) };
            self.worker_runs(node, id, namespace, run, item)?;
        }
    }

    fn worker_runs(
        &mut self,
        node: &NodeId,
        id: AllocationId,
        namespace: &Name,
        run: RunId,
        item: u32,
    ) -> Result<(), String> {
        let agent = self.agents.get_mut(node).expect("it is a node");
        let loaded = agent.loaded.get_mut(&id).expect("it takes items");
        let load = loaded.load;
        let is_at_most_once = match &loaded.assigned.spec.kind {
            WorkloadKind::Job(job) => job.is_at_most_once(),
            WorkloadKind::Service(_) => false,
        };
        loaded.running.insert(item);
        let attempt = match loaded.assigned.work {
            Work::Items { attempt, .. } => u64::from(attempt),
            Work::Serve => return Err(format!("{node} runs an item of the service {id}")),
        };
        let worker = (namespace.clone(), agent.worker_life(namespace));
        let life = agent.life;
        let fate = mix(mix(self.seed ^ run.number() << 32) ^ u64::from(item));
        let luck = mix(fate ^ attempt);
        // Some runs have items that take longer than who makes way is given.
        let is_slow = mix(self.seed ^ run.number() << 32).is_multiple_of(4) && item < 12;
        let wait = DurationMs(if is_slow { 5_000 + luck % 35_000 } else { 20 + luck % 4_000 });
        let has_input = !self.random.chance(self.faults.input_fails);
        if has_input && !self.begun.insert((run, item)) && is_at_most_once {
            return Err(format!(
                "{node} starts item {item} of {run}, which may be started once, a second time"
            ));
        }
        if fate.is_multiple_of(150) {
            self.plan(wait, Happening::WorkerDies { node: node.clone(), life, worker, load, item });
            return Ok(());
        }
        let event = if !has_input {
            Event::ItemNotRun { allocation: id, item, reason: "simulated".to_owned() }
        } else {
            let fails = fate.is_multiple_of(20) || luck.is_multiple_of(10);
            let trapped = || Outcome::Trapped { reason: "simulated".to_owned() };
            Event::ItemEnded {
                allocation: id,
                item,
                outcome: if fails { trapped() } else { Outcome::Completed },
                fuel: Fuel(luck % 1_000_000),
                memory: Bytes(1 << 20),
                wall: wait,
                host: Default::default(),
                output: format!("{item}\n"),
                output_cut: false,
            }
        };
        self.plan_on_node(node, wait, Some(load), event);
        Ok(())
    }
}

/// Returns the end of an item that a worker has broken off.
fn broken_off_event(allocation: AllocationId, item: u32) -> Event {
    Event::ItemEnded {
        allocation,
        item,
        outcome: Outcome::Cancelled,
        fuel: Fuel(1_000),
        memory: Bytes(1 << 20),
        wall: DurationMs(1_000),
        host: Default::default(),
        output: String::new(),
        output_cut: false,
    }
}

/// Returns an event in few words.
fn shown(event: &Event) -> String {
    match event {
        Event::Fetched { digest } => format!("fetched {}", digest.short()),
        Event::FetchFailed { digest, .. } => format!("could not fetch {}", digest.short()),
        Event::NotTaken { number, again, .. } => format!("did not take {number}, again: {again}"),
        Event::SecretFetched { secret, version } => format!("fetched {secret} {version}"),
        Event::SecretNotFetched { secret, version, .. } => format!("could not fetch {secret} {version}"),
        Event::Started { allocation } => format!("started {allocation}"),
        Event::NotStarted { allocation, .. } => format!("could not start {allocation}"),
        Event::ItemEnded { allocation, item, outcome, .. } => {
            format!("item {item} of {allocation} ended: {}", outcome.name())
        }
        Event::ItemNotRun { allocation, item, .. } => format!("item {item} of {allocation} had no input"),
        Event::Stopped { allocation } => format!("stopped {allocation}"),
        Event::Checked { allocation, problem } => {
            format!("{allocation} is {}", if problem.is_none() { "well" } else { "unwell" })
        }
        Event::Heard { .. } | Event::Recorded { .. } | Event::Usage { .. } | Event::WorkerDied { .. } => {
            "other".to_owned()
        }
    }
}
