//! From a durable plan to a running session, and from a durable journal to a call that may leave.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::batch::{Batch, BatchId, BatchState, Work};
use crate::journal::Journal;
use crate::model::{Digest, Drive, End, EndKind, Node, NodeId, Power, PowerAction, Prepared, SessionUid, World};
use crate::plan::Plan;
use crate::session::{Run, Slot, Stage};
use crate::time::Timestamp;
use crate::xname::Xname;

/// A call that may leave now: its record is durable and it is still wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dispatch {
    /// The batch.
    pub id: BatchId,
    /// The session, for the log and for tags.
    pub session: SessionUid,
    /// `namespace/name` of the session.
    pub title: Arc<str>,
    /// What to do.
    pub order: Order,
    /// The nodes, in the order of their indexes.
    pub nodes: Vec<(NodeId, Xname)>,
}

/// What to ask of which service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Store boot parameters.
    BootParameters {
        /// Artifact set to boot.
        artifacts: Digest,
    },
    /// Set the configuration.
    Configuration {
        /// Its name.
        name: Arc<str>,
        /// Enabled afterwards: only for nodes that are up.
        enabled: bool,
        /// Forget what was applied: before a boot.
        clear_state: bool,
    },
    /// Change power.
    Power(PowerAction),
}

impl World {
    /// The plan of a session is durable: its nodes are its own from now on. The newer session owns a node (rule 11).
    pub fn start_session(&mut self, uid: &SessionUid, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let Stage::Recording(recording) = &session.stage else { return };
        let plan = recording.plan.clone();
        if !session.by_hand {
            self.ran.insert((session.namespace.clone(), session.name.clone()), uid.clone());
        }
        self.begin(uid, plan, None, now);
        self.journal_due.insert(uid.clone());
    }

    /// Builds the run of a session and takes its nodes: all of them, none if they are staged, or those that it had taken before
    /// we were started.
    pub(crate) fn begin(&mut self, uid: &SessionUid, plan: Arc<Plan>, before: Option<&Journal>, now: Timestamp) {
        let members: Vec<(u16, NodeId)> = plan.nodes().map(|(set, xname)| (set, self.intern(xname))).collect();
        let mut slots: Vec<Slot> = members.iter().map(|(_, node)| Slot::new(*node)).collect();
        if let Some(by_hand) = &plan.by_hand {
            for (slot, run) in slots.iter_mut().zip(&by_hand.runs) {
                slot.run = Some(run.clone());
            }
        }
        let bound = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let taken = before.map(|journal| journal.taken(bound));
        if let Some(journal) = before {
            journal.restore_runs(&mut slots);
        }
        let (staged, by_agent) = (plan.staged, plan.agent && !self.is_agent);
        if self.is_agent {
            self.discovery.largest = self.discovery.largest.max(plan.inventory.unwrap_or(0));
        }
        for slot in &slots {
            self.note_begun(slot.node, slot.run.as_ref());
        }
        let (tokens, timeout_cycles, paced) = (Vec::new(), Vec::new(), Vec::new());
        let (outages, unverified) = (Vec::new(), BTreeSet::new());
        let run = Run { plan, slots, started: now, tokens, timeout_cycles, mass_timeout: None, paced, outages, unverified, by_agent };
        let Some(session) = self.sessions.get_mut(uid) else { return };
        session.stage = Stage::Running(Box::new(run));
        self.touched_sessions.insert(uid.clone());
        for (index, (boot_set, node)) in (0_u32..).zip(members) {
            match &taken {
                Some(taken) if taken.contains(&index) => self.claim(uid, index, boot_set, node, true, now),
                _ if staged => self.stage(uid, index, node, now),
                Some(_) => {}
                None => self.claim(uid, index, boot_set, node, false, now),
            }
        }
    }

    /// `again`: the session had the node before we were started; what stopped it since does not give the node back.
    pub(crate) fn claim(&mut self, uid: &SessionUid, index: u32, boot_set: u16, id: NodeId, again: bool, now: Timestamp) {
        let Some(session) = self.sessions.get(uid) else { return };
        let (ours, stopping) = (session.as_owner(index), session.stopping() && !again);
        let Some(node) = self.node(id) else { return };
        let driver = node.drive.as_ref().map(|drive| drive.session.clone()).filter(|driver| driver != uid);
        // Its own name at the node is no newer Session, also where it is not known how old it is.
        let newer = node.owner.clone().filter(|owner| owner.uid != *uid && self.order_of(owner) > self.order_of(&ours));
        let title =
            |uid: &SessionUid| self.sessions.get(uid).map_or_else(|| format!("the Session with uid {uid}"), |session| session.title());
        if let Some(owner) = newer {
            // A node never moves to an older session: this one loses it before it began.
            let message = match owner.since_by_hand() {
                Some(_) => "It was driven by hand since this session was created.".to_owned(),
                None => format!("Owned by {}, a newer session.", title(&owner.uid)),
            };
            return self.never_taken(uid, index, EndKind::Superseded, bos_crds::reasons::SUPERSEDED, &message, now);
        }
        if stopping && driver.is_some() {
            let message = "Cancelled before the node was taken.";
            return self.never_taken(uid, index, EndKind::Cancelled, bos_crds::reasons::CANCELLED, message, now);
        }
        if driver.is_none() {
            self.forget_what_is_over(id, now);
            return self.take_what_was_left(id, uid, index, boot_set, now);
        }
        let by = title(uid);
        self.supersede(id, &by, now);
        self.take_what_was_left(id, uid, index, boot_set, now);
    }

    pub(crate) fn never_taken(&mut self, uid: &SessionUid, index: u32, kind: EndKind, reason: &str, message: &str, now: Timestamp) {
        let run = self.sessions.get_mut(uid).and_then(|session| session.running_mut());
        let Some(slot) = run.and_then(|run| run.slots.get_mut(index as usize)) else { return };
        slot.end = Some(Box::new(End { kind, reason: reason.into(), message: message.into(), at: now }));
        let id = slot.node;
        if let Some(node) = self.nodes.get_mut(id.0 as usize) {
            node.asked.planning = node.asked.planning.take().filter(|(_, planned)| planned != uid);
        }
    }

    /// The journal that names this batch is durable: what of it may leave. A node that is no longer this session's, that a
    /// person holds, or that has come up meanwhile is withdrawn first.
    pub fn release(&mut self, id: BatchId, now: Timestamp) -> Option<Dispatch> {
        let batch = self.batches.get(&id).filter(|batch| batch.state == BatchState::Recording)?.clone();
        let halted = self.sessions.get(&batch.session).is_none_or(|session| session.halted() || session.running().is_none());
        let stopped = matches!(batch.work, Work::Power(_)) && self.emergency_stop;
        let (stay, go): (Vec<_>, Vec<_>) = batch.nodes.iter().copied().partition(|member| {
            let node = self.node(member.node);
            let drive = node.and_then(|node| node.drive.as_ref()).filter(|drive| drive.session == batch.session);
            let known = node.is_some_and(|node| !self.is_agent || node.recorded);
            let justified = known && node.is_some_and(|node| !node.suspended && still_justified(node, &batch, now));
            !halted && !stopped && justified && drive.is_some_and(|drive| still_wanted(drive, &batch))
        });
        for member in &go {
            self.withdraw_member(&batch, member);
        }
        self.touched_sessions.insert(batch.session.clone());
        if !go.is_empty() {
            // The journal says of these that they may have been asked.
            self.journal_due.insert(batch.session.clone());
        }
        if stay.is_empty() {
            self.batches.remove(&id);
            return None;
        }
        let order = self.order(&batch, stay.first()?.node)?;
        let nodes = stay.iter().filter_map(|member| Some((member.node, self.node(member.node)?.xname.clone()))).collect();
        if let Work::Power(_) = batch.work {
            // The time its record took to become durable is not the node's.
            self.postpone(&stay, now.since(batch.opened), now);
        }
        for member in &stay {
            if let Some(node) = self.nodes.get_mut(member.node.0 as usize) {
                node.last_batch = Some(id);
            }
        }
        let title = self.sessions.get(&batch.session).map_or_else(String::new, |session| session.title()).into();
        let open = self.batches.get_mut(&id)?;
        open.nodes = stay;
        open.state = BatchState::Sent;
        open.opened = now;
        Some(Dispatch { id, session: batch.session, title, order, nodes })
    }

    fn postpone(&mut self, members: &[crate::batch::Member], span: std::time::Duration, now: Timestamp) {
        for member in members {
            let Some(drive) = self.node_mut(member.node).and_then(|node| node.drive.as_mut()) else { continue };
            drive.since = now;
            if let Some(issued) = drive.action.as_mut() {
                issued.at = issued.at + span;
                issued.decided = issued.decided + span;
                issued.power_by = issued.power_by + span;
                issued.boot_by = issued.boot_by + span;
            }
        }
    }

    /// Withdraws every call that has not left, because this process is about to end.
    pub fn withdraw_unsent(&mut self) {
        let unsent: Vec<Batch> = self.batches.values().filter(|batch| batch.state == BatchState::Recording).cloned().collect();
        for batch in unsent {
            for member in &batch.nodes {
                self.withdraw_member(&batch, member);
            }
            self.batches.remove(&batch.id);
            self.journal_due.insert(batch.session);
        }
    }

    fn withdraw_member(&mut self, batch: &Batch, member: &crate::batch::Member) {
        let Some(node) = self.node_mut(member.node).filter(|node| node.batch == Some(batch.id)) else { return };
        node.batch = None;
        self.withdraw(member, &batch.session, batch.work);
    }

    fn order(&self, batch: &Batch, first: NodeId) -> Option<Order> {
        let run = self.sessions.get(&batch.session)?.running()?;
        let boot_set = if matches!(batch.work, Work::Power(_)) { self.node(first)?.drive.as_ref()?.boot_set } else { batch.boot_set };
        let set = run.plan.boot_set(boot_set)?;
        Some(match batch.work {
            Work::BootParameters => Order::BootParameters { artifacts: set.artifacts.clone()? },
            Work::PrepareConfiguration => Order::Configuration { name: set.configuration.clone(), enabled: false, clear_state: true },
            Work::Configure => Order::Configuration { name: set.configuration.clone(), enabled: true, clear_state: false },
            Work::Power(action) => Order::Power(action),
        })
    }
}

/// Whether a power action still rests on a fresh look when it is about to leave: its record may have taken long to become
/// durable, and meanwhile somebody may have switched or booted the node (rules 4 and 7). It is looked at anew otherwise.
fn still_justified(node: &Node, batch: &Batch, now: Timestamp) -> bool {
    let Work::Power(action) = batch.work else { return true };
    let wanted = if action == PowerAction::On { Power::Off } else { Power::On };
    // A node that is to go off because it was silent may have spoken, whatever it runs (rule 8).
    let spoke = node.heard.filter(|_| node.drive.as_ref().is_some_and(|drive| drive.last_on.is_some()));
    let booted_since = node.reported.as_ref().is_some_and(|report| report.since > batch.opened) || spoke > Some(batch.opened);
    node.power_fresh(Timestamp::default(), now) == Some(wanted) && !booted_since
}

/// Whether the reason for a call still holds when it is about to leave.
fn still_wanted(drive: &Drive, batch: &Batch) -> bool {
    match batch.work {
        Work::BootParameters | Work::PrepareConfiguration => drive.booted.is_none(),
        Work::Configure => drive.booted.is_some(),
        Work::Power(PowerAction::On) => drive.booted.is_none() && drive.params == Prepared::Yes,
        Work::Power(PowerAction::SoftOff | PowerAction::ForceOff) => drive.booted.is_none(),
    }
}
