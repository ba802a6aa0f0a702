//! The way between operator and site: calls that leave, arrive or are lost, and what the hardware does of itself.

use std::sync::Arc;
use std::time::Duration;

use bos_core::batch::{BatchId, Outcome, Task};
use bos_core::health::{PowerService, Service};
use bos_core::model::{ConfigStatus, NodeId, PowerAction};
use bos_core::running::{Dispatch, Order};

use super::operator::{Event, Sim};
use super::scenario::{Quirk, Way};
use super::site::{By, Effect};

impl Sim {
    /// How a call to a service fails now, if it does.
    pub(crate) fn fails(&mut self, service: Service) -> Option<Way> {
        let now = self.now;
        // An outage of PCS is one of what switches power.
        let service = if service == Service::Capmc { Service::Pcs } else { service };
        let outages = self.scenario.outages.iter().enumerate();
        let outage = { outages }.find(|(_, outage)| outage.service == service && outage.from <= now && now < outage.to);
        let outage = outage.map(|(index, outage)| {
            self.met.insert(index);
            outage
        });
        let noise = now < self.scenario.calm_from && self.rng.chance(self.scenario.noise);
        outage.map(|outage| outage.way).or_else(|| noise.then(|| self.rng.pick(&[Way::NotSent, Way::UnknownBefore, Way::UnknownAfter])))
    }

    /// A call leaves the process.
    pub(crate) fn leave(&mut self, dispatch: Dispatch) {
        let service = match dispatch.order {
            Order::BootParameters { .. } => Service::Bss,
            Order::Configuration { .. } => Service::Cfs,
            Order::Power(_) => self.scenario.power.service(),
        };
        let (life, id) = (self.life, dispatch.id);
        let way = self.fails(service);
        self.check.leaves(self.world.as_ref(), &dispatch, way, &self.site, self.now);
        let lost = Outcome::Unknown { detail: "connection reset".into() };
        match way {
            None => self.after(5, 300, Event::Arrive(life, Box::new(dispatch), None)),
            Some(Way::NotSent) => self.after(5, 300, Event::Answer(life, id, Outcome::NotSent { service, detail: "refused".into() })),
            Some(Way::UnknownBefore) => self.after(500, 3000, Event::Answer(life, id, lost)),
            Some(Way::UnknownAfter) => self.after(5, 300, Event::Arrive(life, Box::new(dispatch), Some(lost))),
        }
    }

    /// A call reaches its service, which does it whether or not anybody hears the answer.
    pub(crate) fn arrive(&mut self, life: u32, dispatch: &Dispatch, lost: Option<Outcome>) {
        let nodes: Vec<NodeId> = dispatch.nodes.iter().map(|(node, _)| *node).collect();
        let outcome = match &dispatch.order {
            Order::BootParameters { .. } if nodes.iter().any(|node| self.site.node(*node).quirk == Quirk::RefusedByBss) => {
                Outcome::Rejected { detail: "400".into() }
            }
            Order::BootParameters { artifacts } => {
                let token = self.site.store(&nodes, artifacts);
                self.check.stored(dispatch, &token);
                Outcome::Stored { token }
            }
            Order::Configuration { name, enabled, .. } => {
                let changed = self.site.configure(&nodes, name, *enabled, self.now);
                for node in changed.iter().filter(|_| *enabled) {
                    let boot = self.site.node(*node).boot;
                    self.after(10_000, 40_000, Event::Configured(*node, boot));
                }
                Outcome::Configured { changed }
            }
            Order::Power(action) if self.scenario.power == PowerService::Capmc => self.capmc(life, dispatch, &nodes, *action),
            Order::Power(action) => Outcome::Accepted { transition: self.transition(dispatch, &nodes, *action) },
        };
        // The service has done it and nobody knows.
        if life == self.life && self.crash_here() {
            return;
        }
        // CAPMC answers when PCS has begun.
        let (least, most) = if matches!(outcome, Outcome::Taken { .. }) { (2000, 6000) } else { (5, 300) };
        self.after(least, most, Event::Answer(life, dispatch.id, lost.unwrap_or(outcome)));
    }

    fn transition(&mut self, dispatch: &Dispatch, nodes: &[NodeId], action: PowerAction) -> Arc<str> {
        let (id, effects) = self.site.transition(nodes, action, &dispatch.session, self.now, &mut self.rng);
        self.check.transition(dispatch, action, &id, &self.site);
        for effect in effects {
            self.schedule(effect.at, Event::Hardware(effect));
        }
        id
    }

    /// CAPMC: refuses all for some, or begins. What fails at once it names now and then.
    fn capmc(&mut self, life: u32, dispatch: &Dispatch, nodes: &[NodeId], action: PowerAction) -> Outcome {
        let names = self.rng.chance(500);
        let held: Vec<NodeId> = nodes.iter().copied().filter(|_| self.now < self.scenario.calm_from && self.rng.chance(30)).collect();
        if !held.is_empty() {
            let id = self.site.refuse(nodes, self.now);
            self.check.transition(dispatch, action, &id, &self.site);
            let detail: Arc<str> = "Failed to reserve components".into();
            let because = held.into_iter().filter(|_| names);
            let because = because.map(|node| (node, Task::Untouched { detail: detail.clone(), permanent: false })).collect();
            return Outcome::Refused { because, detail };
        }
        let id = self.transition(dispatch, nodes, action);
        let parts = &self.site.transitions[&id].parts;
        let soon = self.now + Duration::from_secs(2);
        let failed: Vec<(NodeId, Task)> = parts
            .iter()
            .filter(|part| part.result != Task::Succeeded && part.done_at <= soon)
            .map(|part| (part.node, part.result.clone()))
            .collect();
        let note = if failed.is_empty() { "" } else { "Errors encountered" };
        if life == self.life {
            self.check.begun(&id, action, &self.site);
            self.taken.insert((life, dispatch.id), id);
        }
        Outcome::Taken { failed: failed.into_iter().filter(|_| names).collect(), note: note.into() }
    }

    pub(crate) fn answer(&mut self, life: u32, batch: BatchId, outcome: Outcome) {
        if life != self.life {
            return;
        }
        self.note_outcome(batch, &outcome);
        self.check.answered(batch);
        if let Outcome::Accepted { transition } = &outcome {
            self.check.accepted(transition, &self.site);
        }
        if let (Outcome::Taken { .. }, Some(id)) = (&outcome, self.taken.remove(&(life, batch))) {
            self.check.tried(&id, &self.site);
        }
        self.fold(life, |world, now| world.fold_outcome(batch, outcome, now));
        // Folded, but no journal holds it.
        self.crash_here();
    }

    pub(crate) fn hardware(&mut self, effect: &Effect) {
        self.switch(effect.node, effect.on, By::Session(effect.by.clone()));
    }

    pub(crate) fn button(&mut self, node: NodeId, on: bool) {
        self.check.touched_by_person(node, self.now);
        self.switch(node, on, By::Person);
    }

    pub(crate) fn switch(&mut self, node: NodeId, on: bool, by: By) {
        self.check.switching(node, on, &by, &self.site, self.now);
        if !self.site.switch(node, on, by, self.now) || !on {
            return;
        }
        let boot = self.site.node(node).boot;
        match self.site.node(node).quirk {
            Quirk::SlowBoot(span) => self.schedule(self.now + span, Event::Up(node, boot)),
            _ => self.after(20_000, 60_000, Event::Up(node, boot)),
        }
    }

    pub(crate) fn up(&mut self, node: NodeId, boot: u64) {
        let now = self.now;
        let hardware = &mut self.site.nodes[node.0 as usize];
        if hardware.boot != boot || !hardware.on {
            return;
        }
        hardware.up = true;
        // The state reporter of the node enables it in CFS.
        hardware.config.enabled = true;
        if hardware.quirk != Quirk::NeverReports {
            self.schedule(now + Duration::from_millis(50), Event::Report(node, boot));
        }
        self.after(10_000, 40_000, Event::Configured(node, boot));
    }

    pub(crate) fn configured(&mut self, node: NodeId, boot: u64) {
        let hardware = &mut self.site.nodes[node.0 as usize];
        if hardware.boot != boot || !hardware.up || hardware.config.desired.is_empty() {
            return;
        }
        hardware.config.status = if hardware.quirk == Quirk::ConfigFails { ConfigStatus::Failed } else { ConfigStatus::Configured };
    }
}
