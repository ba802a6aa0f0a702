//! What the status operator asks for: power, configuration, and what else tells whether a node is up.

use std::time::Duration;

use crate::health::Service;
use crate::model::{Issued, Node, NodeId, Phase, Power, PowerAction, ReadPace, Script, World};
use crate::plan::Evidence;
use crate::status::Case;
use crate::time::Timestamp;
use crate::want::Want;

/// The pause between looks at the power of a node that is being configured: nothing is expected to change.
const WHILE_CONFIGURED: Duration = Duration::from_secs(60);

/// Nodes to ask about.
#[derive(Default)]
pub(super) struct Looks {
    power: Vec<NodeId>,
    config: Vec<NodeId>,
    states: Vec<NodeId>,
    scripts: Vec<NodeId>,
}

impl Looks {
    /// Adds what is not known of a node.
    pub(super) fn add(&mut self, id: NodeId, case: &Case<'_>) {
        let wanted = [
            (case.wants_power(), &mut self.power),
            (case.wants_config(), &mut self.config),
            (case.wants_state(), &mut self.states),
            (case.wants_script(), &mut self.scripts),
        ];
        for (_, nodes) in wanted.into_iter().filter(|(wanted, _)| *wanted) {
            nodes.push(id);
        }
    }

    /// The reads that may leave now.
    pub(super) fn wants(self, world: &World, now: Timestamp) -> Vec<Want> {
        let size = world.options.batch_size.max(1);
        let mut wants = Vec::new();
        let mut ask = |service, pace: ReadPace, nodes: Vec<NodeId>, want: fn(Vec<NodeId>) -> Want| {
            if world.services.may_call(service, now) && pace.is_free(now) {
                wants.extend(nodes.chunks(size).map(|nodes| want(nodes.to_vec())));
            }
        };
        ask(world.power_service.service(), world.power_reads, self.power, Want::ReadPower);
        ask(Service::Cfs, world.config_reads, self.config, Want::ReadConfiguration);
        ask(Service::Hsm, world.state_reads, self.states, Want::ReadStates);
        ask(Service::Bss, world.script_reads, self.scripts, Want::ReadScripts);
        wants
    }
}

impl Case<'_> {
    /// Whether the power service must be asked about this node now.
    fn wants_power(&self) -> bool {
        let since = self.evidence_since();
        if self.node.reading_power || self.node.batch.is_some() || since > self.now {
            return false;
        }
        if self.drive.booted.is_some() && !self.being_switched_off() {
            // One that goes off while it is configured is powered on anew.
            return self.drive.phase == Phase::Configuring
                && self.node.power.as_ref().is_none_or(|seen| self.now >= seen.at + WHILE_CONFIGURED);
        }
        match self.node.power.as_ref().filter(|seen| seen.at >= since) {
            None => true,
            Some(seen) => {
                let pause = self.pause(since, Duration::from_secs(1));
                self.awaits_change() && self.now >= seen.at + pause
            }
        }
    }

    /// Looks follow each other at `shortest` at first, then at ever longer pauses up to the option.
    fn pause(&self, since: Timestamp, shortest: Duration) -> Duration {
        (self.now.since(since) / 4).clamp(shortest, self.world.options.polling_frequency.max(shortest))
    }

    /// Whether another answer than the last one is waited for.
    fn awaits_change(&self) -> bool {
        match self.node.power_since(self.evidence_since()) {
            None | Some(Power::Unknown) => true,
            Some(Power::On) => {
                self.being_switched_off()
                    || (self.drive.phase == Phase::PoweringOff && self.about_to_act())
                    || (self.drive.is_overdue(self.now) && self.stale())
                    || matches!(self.drive.hold, Some(hold) if self.now >= hold.until)
            }
            Some(Power::Off) => {
                matches!(self.drive.action, Some(issued) if issued.action == PowerAction::On && !issued.failed) || self.about_to_act()
            }
        }
    }

    /// Whether HSM must be asked for the state of this node now: where that is what proves a boot.
    fn wants_state(&self) -> bool {
        if self.run.plan.evidence != Evidence::HsmReady || self.node.reading_state {
            return false;
        }
        let Some(issued) = self.coming_up() else {
            // In mode v1, once before the power-on: what it is called then tells whether a later Ready is news.
            let about_to_come_up = self.drive.booted.is_none() && self.drive.phase == Phase::PoweringOn;
            return self.run.plan.agent && about_to_come_up && self.node.state.is_none_or(|seen| seen.at < self.drive.held_since);
        };
        let seen = self.node.state.filter(|seen| seen.at >= issued.at);
        seen.is_none_or(|seen| self.now >= seen.at + self.pause(issued.at, Duration::from_secs(1)))
    }

    /// Whether BSS must be asked if the node ever fetched its boot script: once, when it stays silent.
    fn wants_script(&self) -> bool {
        self.drive.script == Script::NotAsked && self.coming_up().is_some() && self.drive.is_overdue(self.now)
    }

    /// The power-on after which the node is to come up, until it is up.
    pub(super) fn coming_up(&self) -> Option<Issued> {
        // One that was said to have failed may have come on all the same.
        let issued = self.drive.action.filter(|issued| issued.action == PowerAction::On)?;
        (self.drive.booted.is_none() && self.drive.phase == Phase::PoweringOn).then_some(issued)
    }

    /// Whether CFS must be asked about this node now.
    fn wants_config(&self) -> bool {
        let Some(booted) = self.drive.booted.filter(|_| self.drive.phase == Phase::Configuring) else { return false };
        if self.node.reading_config || self.node.batch_is_configure(self.world) {
            return false;
        }
        self.node
            .config
            .as_ref()
            .filter(|seen| seen.at >= booted)
            .is_none_or(|seen| self.now >= seen.at + self.pause(booted, Duration::from_millis(250)))
    }
}

impl Node {
    fn batch_is_configure(&self, world: &World) -> bool {
        let open = self.batch.and_then(|id| world.batches.get(&id));
        open.is_some_and(|batch| batch.work == crate::batch::Work::Configure)
    }
}
