//! The staging operator: state that Sessions park at nodes until somebody applies it (BOS behaviour §12).
//!
//! A staged Session takes no node. Its part in a node waits until the node's staged state is applied, by the token
//! `spec.applyStaged` or by a workload manager's call; from then on it is driven like any other, as new as its application.
//! `spec.stagedState` is complete in itself: it can be applied again when its Session is over.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bos_crds::reasons;

use crate::by_hand::{Goal, Group, Parked, bare};
use crate::journal::RunRoom;
use crate::model::{EndKind, NodeId, Owner, SessionUid, World};
use crate::plan::PlannedOperation;
use crate::session::{Run, Session, Stage};
use crate::time::Timestamp;
use crate::want::Want;

/// Nodes, each with the token that asks for it.
type Requests = Vec<(NodeId, Arc<str>)>;

/// What became of a request to apply staged state, in BOS's three kinds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applied {
    /// Nodes that are driven from now on, by which session. It counts when that session's journal is durable.
    pub begun: Vec<(NodeId, SessionUid)>,
    /// Nodes that have staged state which cannot be applied, and why.
    pub failed: Vec<(NodeId, String)>,
    /// Nodes that have none.
    pub ignored: Vec<NodeId>,
}

/// Ends what waits in Sessions that were cancelled or deleted.
#[must_use]
pub fn reconcile(world: &World, _now: Timestamp) -> Vec<Want> {
    let stopped = world.sessions.values().filter(|session| session.stopping() && session.running().is_some_and(waits));
    stopped.map(|session| Want::Unstage(session.uid.clone())).collect()
}

fn waits(run: &Run) -> bool {
    run.plan.staged && run.slots.iter().any(|slot| slot.is_staged())
}

impl World {
    /// Parks a session's state at a node. The newer session's state is the one that waits.
    pub(crate) fn stage(&mut self, uid: &SessionUid, index: u32, id: NodeId, now: Timestamp) {
        let Some(session) = self.sessions.get(uid) else { return };
        let (title, ours) = (session.title(), Owner { created: session.created, uid: uid.clone() });
        let before = self.node(id).and_then(|node| node.staged.clone()).filter(|(before, _)| before != uid);
        if let Some((before, place)) = before {
            let Some(other) = self.sessions.get(&before) else { return };
            let theirs = Owner { created: other.created, uid: before.clone() };
            if self.order_of(&theirs) > self.order_of(&ours) {
                let message = format!("Newer state was staged by {}.", other.title());
                return self.never_taken(uid, index, EndKind::Superseded, reasons::SUPERSEDED, &message, now);
            }
            let message = format!("Newer state was staged by {title}.");
            self.never_taken(&before, place, EndKind::Superseded, reasons::SUPERSEDED, &message, now);
            self.touched_sessions.insert(before.clone());
            self.journal_due.insert(before);
        }
        if let Some(node) = self.node_mut(id) {
            node.staged = Some((uid.clone(), index));
            node.unstaged = None;
        }
    }

    /// A session's part in a node has ended: what it staged there does not wait any more.
    pub(crate) fn forget_staged(&mut self, uid: &SessionUid, index: u32, id: NodeId, end: EndKind) {
        let taken =
            self.sessions.get(uid).and_then(Session::run).and_then(|run| run.slots.get(index as usize)).is_some_and(|slot| slot.taken);
        let clear = if taken { self.options.clear_stage } else { end == EndKind::Cancelled };
        let staged = self.sessions.get(uid).and_then(Session::run).is_some_and(|run| run.plan.staged);
        let Some(node) = self.node_mut(id).filter(|_| staged) else { return };
        node.staged = node.staged.take().filter(|(of, _)| of != uid);
        if clear {
            node.unstaged = Some(uid.clone());
        }
    }

    /// A staged session was cancelled or deleted.
    pub(crate) fn unstage_all(&mut self, uid: &SessionUid, now: Timestamp) {
        let Some(run) = self.sessions.get(uid).and_then(Session::running) else { return };
        let waiting: Vec<(u32, NodeId)> =
            (0_u32..).zip(&run.slots).filter(|(_, slot)| slot.is_staged()).map(|(index, slot)| (index, slot.node)).collect();
        for (index, id) in waiting {
            let message = "Cancelled before its staged state was applied.";
            self.never_taken(uid, index, EndKind::Cancelled, reasons::CANCELLED, message, now);
            self.forget_staged(uid, index, id, EndKind::Cancelled);
        }
        self.touched_sessions.insert(uid.clone());
        self.journal_due.insert(uid.clone());
    }

    /// Another node is in this one's place: what was staged was not meant for it.
    pub(crate) fn unstage_replaced(&mut self, id: NodeId, now: Timestamp) {
        let Some(node) = self.node(id) else { return };
        let parked = node.asked.wish.parked.as_ref().map(|parked| parked.session.clone());
        if let Some((uid, index)) = node.staged.clone() {
            let message = "HSM says that another node is in its place, so its staged state is dropped.";
            self.never_taken(&uid, index, EndKind::Failed, reasons::NODE_REPLACED, message, now);
            self.forget_staged(&uid, index, id, EndKind::Cancelled);
            self.touched_sessions.insert(uid.clone());
            self.journal_due.insert(uid);
        } else if let Some(node) = self.node_mut(id) {
            node.unstaged = parked.or_else(|| node.unstaged.take());
        }
    }

    /// Applies the staged state of nodes; `token` names the request. Asked again while a node is on its way there it changes
    /// nothing, so that a caller whose answer was lost may repeat itself.
    pub fn apply_staged(&mut self, nodes: &[(NodeId, Arc<str>)], now: Timestamp) -> Applied {
        let mut applied = Applied::default();
        let mut groups: BTreeMap<(u8, Goal), (PlannedOperation, Requests)> = BTreeMap::new();
        // Newer than all that is known, whatever the clocks say.
        let since = (self.newest().whole_seconds() + Duration::from_secs(1)).max(now.whole_seconds());
        let mut rooms = HashMap::new();
        for (id, token) in nodes {
            let Some(node) = self.node(*id) else { continue };
            // What is about to be emptied is not there any more.
            let left = |parked: &Parked| node.unstaged.as_ref() != Some(&parked.session);
            let (staged, parked) = (node.staged.clone(), node.asked.wish.parked.clone().filter(left));
            match (staged, parked) {
                (Some((uid, index)), _) => match self.apply_waiting(*id, (&uid, index), token, &mut rooms, since, now) {
                    Ok(()) => applied.begun.push((*id, uid)),
                    Err(why) => applied.failed.push((*id, why)),
                },
                (None, parked) => match (self.on_its_way(*id, parked.as_ref()), parked) {
                    (Some(uid), _) => applied.begun.push((*id, uid)),
                    (None, None) => applied.ignored.push(*id),
                    (None, Some(parked)) => match self.not_applicable(*id, &parked) {
                        Some(why) => applied.failed.push((*id, why)),
                        None => {
                            let key = (parked.operation as u8, parked.goal);
                            groups.entry(key).or_insert((parked.operation, Vec::new())).1.push((*id, token.clone()));
                        }
                    },
                },
            }
        }
        for ((_, goal), (operation, nodes)) in groups {
            let ids: Vec<NodeId> = nodes.iter().map(|(id, _)| *id).collect();
            if let Some(uid) = self.drive_by_hand(Group { operation, goal, nodes, applied: true }, now) {
                applied.begun.extend(ids.into_iter().map(|id| (id, uid.clone())));
            }
        }
        applied
    }

    /// Applies the state of nodes because their BootComponents say so.
    pub(crate) fn apply_asked(&mut self, nodes: &[(NodeId, Arc<str>)], now: Timestamp) {
        let applied = self.apply_staged(nodes, now);
        let failed: HashMap<NodeId, String> = applied.failed.into_iter().collect();
        for (id, token) in nodes {
            let Some(node) = self.node(*id) else { continue };
            let begun = node.asked.applied.as_ref() == Some(token) || node.asked.planning.as_ref().is_some_and(|(run, _)| run == token);
            match failed.get(id) {
                Some(why) => self.refuse_application(*id, token, why),
                None if applied.ignored.contains(id) => self.refuse_application(*id, token, "it has none."),
                None if begun => {}
                None => self.refuse_application(*id, token, "the node is on its way there already."),
            }
        }
    }

    fn apply_waiting(
        &mut self,
        id: NodeId,
        (uid, index): (&SessionUid, u32),
        token: &Arc<str>,
        rooms: &mut HashMap<SessionUid, RunRoom>,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<(), String> {
        let Some(session) = self.sessions.get(uid) else { return Err("its Session is gone.".to_owned()) };
        if session.halted() {
            let why = if session.stopping() { "cancelled" } else { "suspended" };
            return Err(format!("Session {} is {why}.", session.title()));
        }
        let Some((run, (set, xname))) = session.running().and_then(|run| Some((run, run.plan.member(index)?))) else {
            return Err(format!("Session {} is over.", session.title()));
        };
        let room = rooms.entry(uid.clone()).or_insert_with(|| RunRoom::of(run));
        if !room.is_left() {
            return Err(format!(
                "too many nodes of Session {} were applied one by one; apply what is left with one token or call.",
                session.title()
            ));
        }
        if let Some(foreign) = self.not_of_namespace(&session.namespace, xname) {
            return Err(foreign);
        }
        room.add(token);
        let slot = self.sessions.get_mut(uid).and_then(Session::running_mut).and_then(|run| run.slots.get_mut(index as usize));
        if let Some(slot) = slot {
            slot.run = Some(token.clone());
            slot.applied = Some(since);
            slot.since = Some(now);
        }
        self.claim(uid, index, set, id, false, now);
        if self.node(id).and_then(|node| node.drive.as_ref()).is_none_or(|drive| drive.session != *uid) {
            return Err("a newer Session has the node.".to_owned());
        }
        let clear = self.options.clear_stage;
        if let Some(node) = self.node_mut(id) {
            node.staged = None;
            node.unstaged = clear.then(|| uid.clone());
        }
        self.touched_sessions.insert(uid.clone());
        self.journal_due.insert(uid.clone());
        Ok(())
    }

    /// The session that is bringing a node to what was staged because that was applied already, or is about to.
    fn on_its_way(&self, id: NodeId, parked: Option<&Parked>) -> Option<SessionUid> {
        let planned = self.node(id)?.asked.planning.as_ref().map(|(_, uid)| uid);
        let applies = |uid: &&SessionUid| match self.sessions.get(*uid).map(|session| &session.stage) {
            Some(Stage::Recording(recording)) => recording.plan.by_hand.as_ref().is_some_and(|by_hand| by_hand.applied),
            _ => false,
        };
        if let Some(uid) = planned.filter(applies) {
            return Some(uid.clone());
        }
        let (session, drive) = self.driver(id).filter(|(_, drive)| drive.applied)?;
        let plan = &session.run()?.plan;
        let set = plan.boot_set(drive.boot_set)?;
        // Emptied when it was applied.
        let Some(parked) = parked else { return Some(session.uid.clone()) };
        let named = parked.goal.artifacts.as_deref().map(bare);
        let same = named == set.artifacts.as_ref().map(|digest| &*digest.0) && parked.goal.configuration == set.configuration;
        (same && plan.operation == parked.operation).then(|| session.uid.clone())
    }

    fn not_applicable(&self, id: NodeId, parked: &Parked) -> Option<String> {
        let node = self.node(id)?;
        if node.asked.planning.is_some() {
            return Some("something else that was asked of it is just about to begin; ask again.".to_owned());
        }
        let fits = match parked.operation {
            PlannedOperation::Boot | PlannedOperation::Reboot => parked.goal.artifacts.is_some(),
            PlannedOperation::Shutdown => parked.goal.artifacts.is_none(),
            PlannedOperation::Configure => false,
        };
        if !fits {
            return Some("its artifacts do not fit its operation.".to_owned());
        }
        let foreign = self.not_of_namespace(&parked.namespace, &node.xname);
        foreign.or_else(|| self.not_to_be_driven(node)).or_else(|| self.not_bootable(&parked.goal))
    }
}
