//! The nodes that one session drives, as the status operator goes over them.

use crate::by_phase::Actionable;
use crate::model::{Drive, Node, NodeId, World};
use crate::session::{Run, Session};
use crate::status::looks::Looks;
use crate::status::{Case, Silence};
use crate::time::Timestamp;
use crate::want::{Decision, Want};

/// One session's part in a round. Every node is looked at once; those that did not come up in time are judged at the end, when it is
/// known how many they are.
pub(super) struct Part<'a> {
    world: &'a World,
    pub(super) session: &'a Session,
    run: &'a Run,
    now: Timestamp,
    actionable: Actionable,
    overdue: Vec<NodeId>,
    pub(super) silence: Silence,
    mass_silence: bool,
    cycled: usize,
    wants: Vec<Want>,
}

impl<'a> Part<'a> {
    /// Goes over the nodes of a session that is at work.
    pub(super) fn of(world: &'a World, session: &'a Session, now: Timestamp, looks: &mut Looks) -> Option<Self> {
        let run = session.running()?;
        let mut part = Self {
            world,
            session,
            run,
            now,
            actionable: Actionable::default(),
            overdue: Vec::new(),
            silence: Silence::lately(run, &world.options, now),
            mass_silence: false,
            cycled: run.plan.max_power_cycled.map_or(0, |_| run.slots.iter().filter(|slot| slot.power_cycled).count()),
            wants: Vec::new(),
        };
        for slot in &run.slots {
            part.silence.among += usize::from(slot.taken);
            if slot.end.is_none() {
                part.see(slot.node, looks);
            }
        }
        Some(part)
    }

    fn see(&mut self, id: NodeId, looks: &mut Looks) {
        let Some((node, drive)) = self.world.node(id).and_then(|node| Some((node, node.drive.as_ref()?))) else { return };
        if drive.session != self.session.uid {
            return;
        }
        self.actionable.add(id, node, drive, self.now);
        if drive.is_overdue(self.now) {
            self.silence.silent += usize::from(drive.booted.is_none());
            self.overdue.push(id);
        } else {
            self.judge(id, node, drive, looks);
        }
    }

    fn judge(&mut self, id: NodeId, node: &Node, drive: &Drive, looks: &mut Looks) {
        let Some(boot_set) = self.run.plan.boot_set(drive.boot_set) else { return };
        let &mut Self { world, session, run, now, mass_silence, cycled, .. } = self;
        let case = Case { world, session, run, boot_set, node, drive, mass_silence, cycled, now };
        if let Some(decision) = case.judge() {
            self.cycled += usize::from(decision == Decision::Cycle);
            self.wants.push(Want::Decide(id, decision));
        } else {
            looks.add(id, &case);
        }
    }

    /// Judges those that are overdue, and hands over what is decided of all, and which may be acted on where nothing is.
    pub(super) fn finish(mut self, by_hand: Silence, looks: &mut Looks) -> (Vec<Want>, Actionable) {
        let others = self.session.by_hand && by_hand.is_of_many(&self.world.options);
        self.mass_silence = others || self.silence.is_of_many(&self.world.options);
        if self.run.mass_timeout.is_none() && self.mass_silence {
            self.wants.push(Want::MassTimeout(self.session.uid.clone()));
        }
        let overdue = std::mem::take(&mut self.overdue);
        for (id, node, drive) in self.world.driven(overdue) {
            self.judge(id, node, drive, looks);
        }
        (self.wants, self.actionable)
    }
}
