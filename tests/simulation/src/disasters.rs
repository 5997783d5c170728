//! Larger faults: nodes and zones that are cut off or lose power, processes that die.

use dunlin_model::{DurationMs, NodeId};

use crate::network::Blocked;
use crate::options::Kind;
use crate::world::{Happening, World};

/// How long a connection is believed in after the last sign of life.
const SILENCE: DurationMs = DurationMs(6_000);

impl World {
    /// Lets one large thing go wrong, and plans the next.
    pub(crate) fn fault(&mut self) -> Result<(), String> {
        // What goes wrong goes wrong more often where there is more of it.
        let pace = 1 + self.agents.len() as u64 / 10;
        let wait = self.draw(500, (self.faults.pause / pace).max(1_000));
        self.plan(wait, Happening::Fault);
        let nodes: Vec<NodeId> = self.agents.keys().cloned().collect();
        let node = self.random.choose(&nodes).clone();
        let kind = match self.random.between(0, 99) {
            0..28 => Kind::Partitions,
            28..33 => Kind::Flapping,
            33..38 => Kind::Outages,
            38..58 => Kind::Agents,
            58..75 => Kind::Workers,
            75..94 => Kind::Coordinator,
            _ => Kind::Machines,
        };
        if !self.options.allows(kind) {
            return Ok(());
        }
        match kind {
            Kind::Partitions => self.partition(&node),
            Kind::Flapping => self.flap(&node),
            Kind::Outages => self.zone_goes(&node),
            Kind::Agents => {
                self.agent_is_to_start_again(&node)?;
                self.agent_crashes(&node);
            }
            Kind::Workers => self.any_worker_dies(&node)?,
            Kind::Machines => self.power_is_lost(&node),
            _ => self.coordinator_crashes("by chance"),
        }
        Ok(())
    }

    fn partition(&mut self, node: &NodeId) {
        let wait = if self.random.chance(300) { self.draw(30_000, 90_000) } else { self.draw(1_000, 20_000) };
        let blocked = match self.random.between(0, 3) {
            0 => Blocked { to_agent: true, ..Blocked::default() },
            1 if self.options.allows(Kind::Lateness) => return self.choke(node, wait),
            1 => Blocked { to_coordinator: true, ..Blocked::default() },
            _ => Blocked::BOTH,
        };
        self.cut_off(node, blocked, wait);
    }

    /// Cuts the way from a node, and what was sent to it just before may still come during that time: the node hears
    /// that all is well when the coordinator has long taken it for lost.
    fn choke(&mut self, node: &NodeId, time: DurationMs) {
        let slow = self.draw(1, 40_000);
        self.note(format_args!("what is sent to {node} is slow, up to {slow}"));
        self.blocked.insert(node.clone(), Blocked { slow, ..self.blocked(node) });
        let blocked = Blocked { to_coordinator: true, slow, ..Blocked::default() };
        let wait = self.draw(1, 10_000);
        self.plan(wait, Happening::CutOff { node: node.clone(), blocked, time });
    }

    /// Cuts a node off for a while.
    pub(crate) fn cut_off(&mut self, node: &NodeId, blocked: Blocked, time: DurationMs) {
        self.note(format_args!("{node} is partitioned: {blocked:?}"));
        self.counts.partitions += 1;
        self.blocked.insert(node.clone(), blocked);
        if let Some(connection) = self.agents[node].connection {
            self.plan(SILENCE, Happening::Silence { node: node.clone(), connection });
        }
        self.plan(time, Happening::PartitionHeals { node: node.clone() });
    }

    /// Cuts a node off several times, each time long enough for its lease to end.
    fn flap(&mut self, node: &NodeId) {
        let mut wait = DurationMs(0);
        for _ in 0..self.random.between(3, 4) {
            let away = self.draw(11_000, 18_000);
            let blocked = Blocked::BOTH;
            self.plan(wait, Happening::CutOff { node: node.clone(), blocked, time: away });
            wait = wait.plus(away).plus(self.draw(4_000, 9_000));
        }
    }

    /// Cuts off the zone of a node for longer than a lease, or takes its power; some machines do not survive that.
    fn zone_goes(&mut self, node: &NodeId) {
        let zone = self.agents[node].info.labels.get("zone").cloned();
        let there = self.agents.values().filter(|agent| agent.info.labels.get("zone") == zone.as_ref());
        let there: Vec<NodeId> = there.map(|agent| agent.node.clone()).collect();
        self.note(format_args!("the zone of {node} goes with {} nodes", there.len()));
        self.counts.outages += 1;
        let time = self.draw(12_000, 60_000);
        let is_power = self.random.chance(500);
        for node in there {
            if !is_power {
                let time = time.plus(self.draw(0, 5_000));
                self.cut_off(&node, Blocked::BOTH, time);
            } else if self.options.allows(Kind::Machines) && self.random.chance(300) {
                self.power_is_lost(&node);
            } else {
                self.agent_crashes(&node);
            }
        }
    }

    /// Takes a node away for good, unless too few would be left to run anything.
    fn power_is_lost(&mut self, node: &NodeId) {
        let gone = self.agents.values().filter(|agent| agent.gone).count();
        if self.agents.len() < 4 || (gone + 1) * 4 > self.agents.len() || self.agents[node].gone {
            return;
        }
        self.agent_crashes(node);
        self.agents.get_mut(node).expect("it is a node").gone = true;
        self.counts.nodes_gone += 1;
        self.note(format_args!("{node} is gone for good"));
    }
}
