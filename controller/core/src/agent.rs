//! Sessions of mode v1: an agent in a Job of its own carries each out. It is this same core over that Session's nodes alone, and the
//! only one that calls a service for them and writes its journal. The operator takes the nodes for the Session, hands them over, and
//! from then on knows what the journal says; when the agent has gone it takes the Session back.

use std::collections::BTreeSet;
use std::time::Duration;

use bos_crds::reasons;

use crate::health::{Outage, Service};
use crate::journal::{Journal, JournalError};
use crate::model::{Left, NodeId, SessionUid, World};
use crate::plan::Plan;
use crate::ranges;
use crate::session::{AgentSeen, Session};
use crate::time::Timestamp;

/// Ages in a journal count from when it was written, and it is read a little later: no other outage for that.
const SAME_OUTAGE: Duration = Duration::from_secs(5);

impl World {
    /// Whether no node of a session is busy with what an older session asked for: its agent knows nothing of that (rule 11).
    #[must_use]
    pub fn is_ready_for_agent(&self, uid: &SessionUid, now: Timestamp) -> bool {
        let Some(run) = self.sessions.get(uid).and_then(Session::with_agent) else { return false };
        run.open().filter_map(|id| self.node(id)).all(|node| {
            let settled = node.drive.as_ref().is_none_or(|drive| drive.session != *uid || drive.held_since <= now);
            settled && node.batch.is_none() && node.agent.is_none()
        })
    }

    /// The session is not given to an agent after all: nothing of it is left to do, or a person said stop before anything was sent.
    pub fn keep_from_agent(&mut self, uid: &SessionUid) {
        if let Some(run) = self.sessions.get_mut(uid).and_then(Session::run_mut) {
            run.by_agent = false;
        }
        self.touched_sessions.insert(uid.clone());
    }

    /// Whether the status of a node is its agent's to write: the node is driven by a session that is with its agent, or was last.
    #[must_use]
    pub fn is_shown_by_agent(&self, id: NodeId) -> bool {
        let Some(node) = self.node(id) else { return false };
        let session = node.drive.as_ref().map(|drive| &drive.session).or(node.last.as_ref().map(|last| &last.session));
        session.and_then(|uid| self.sessions.get(uid)).is_some_and(|session| session.with_agent().is_some())
    }

    /// How the agent of a session is, for people.
    pub fn see_agent(&mut self, uid: &SessionUid, seen: AgentSeen) {
        let Some(session) = self.sessions.get_mut(uid).filter(|session| session.agent != seen) else { return };
        session.agent = seen;
        self.touched_sessions.insert(uid.clone());
    }

    /// The agent of a session may be at work from now on.
    pub fn hand_over(&mut self, uid: &SessionUid) {
        let open: Vec<NodeId> = self.sessions.get(uid).and_then(Session::with_agent).map(|run| run.open().collect()).unwrap_or_default();
        self.lend(uid, &open);
    }

    /// An earlier operator has given the session to an agent, of which nothing is known yet: any of its nodes may be in its hands, also
    /// one that a newer session has taken since.
    pub fn may_be_with_agent(&mut self, uid: &SessionUid) {
        let run = self.sessions.get(uid).and_then(Session::with_agent);
        let all: Vec<NodeId> = run.map(|run| run.slots.iter().map(|slot| slot.node).collect()).unwrap_or_default();
        self.lend(uid, &all);
    }

    fn lend(&mut self, uid: &SessionUid, nodes: &[NodeId]) {
        for id in nodes {
            if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                node.agent = Some(uid.clone());
            }
        }
        self.touched_sessions.insert(uid.clone());
    }

    /// There is no agent after all, and there was none.
    pub fn no_agent_was_launched(&mut self, uid: &SessionUid) {
        for node in self.nodes.iter_mut().filter(|node| node.agent.as_ref() == Some(uid)) {
            node.agent = None;
        }
        self.touched_sessions.insert(uid.clone());
    }

    /// The agent has written its journal.
    ///
    /// # Errors
    /// When the journal does not fit the plan.
    pub fn mirror(&mut self, uid: &SessionUid, journal: Journal, now: Timestamp) -> Result<(), JournalError> {
        let Some(plan) = self.sessions.get(uid).and_then(Session::run).filter(|run| run.by_agent).map(|run| run.plan.clone()) else {
            return Ok(());
        };
        let busy = busy(&plan, &journal)?;
        self.put_back(uid, Some(journal), true, now)?;
        self.let_go(uid, &busy, now);
        Ok(())
    }

    /// Nodes with which the agent is through may be given to others.
    fn let_go(&mut self, uid: &SessionUid, busy: &BTreeSet<u32>, now: Timestamp) {
        let slots = self.sessions.get(uid).and_then(Session::run).map(|run| run.slots.iter().map(|slot| (slot.node, slot.left.clone())));
        for (index, (id, left)) in (0_u32..).zip(slots.map(Iterator::collect::<Vec<_>>).unwrap_or_default()) {
            let Some(node) = self.nodes.get_mut(id.0 as usize) else { continue };
            let with_us = node.agent.as_ref() == Some(uid);
            if busy.contains(&index) {
                node.agent.get_or_insert_with(|| uid.clone());
            } else if with_us {
                node.agent = None;
                self.go_on_from(uid, id, left.map(|left| *left), now);
            }
            self.touched.insert(id);
        }
    }

    /// A newer session that waits for a node goes on from what the agent has left there, as if it had taken the node just now.
    fn go_on_from(&mut self, uid: &SessionUid, id: NodeId, left: Option<Left>, now: Timestamp) {
        let Some(drive) = self.node_mut(id).and_then(|node| node.drive.as_mut()).filter(|drive| drive.session != *uid) else { return };
        let until = left.as_ref().map_or(now, |left| left.unsettled_until.max(now));
        (drive.held_since, drive.not_before) = (until, until);
        let (newer, boot_set) = (drive.session.clone(), drive.boot_set);
        if let Some(Left { flight: Some(flight), tokens, .. }) = left {
            self.take_over(id, &newer, boot_set, (flight, tokens));
        }
    }

    /// Nobody carries the session out any more, and nobody can: this process does from here on. What is not over is ended, as
    /// cancelled or for this reason.
    ///
    /// # Errors
    /// When the journal does not fit the plan.
    pub fn take_back(&mut self, uid: &SessionUid, journal: Option<Journal>, why: &str, now: Timestamp) -> Result<(), JournalError> {
        self.put_back(uid, journal, false, now)?;
        self.give_up_agent(uid, why, now);
        Ok(())
    }

    /// The same where somebody deleted the journal: nobody knows what the agent did last. `last` is what it had written as far as this
    /// process has read it; calls that it tells of are followed to their end.
    ///
    /// # Errors
    /// When the journal does not fit the plan.
    pub fn take_back_without_journal(&mut self, uid: &SessionUid, last: Option<Journal>, now: Timestamp) -> Result<(), JournalError> {
        if last.is_some() {
            self.put_back(uid, last, false, now)?;
        }
        self.without_agent(uid, |world| world.abandon(uid, now), now);
        Ok(())
    }

    /// Nobody carries the session out any more: what is not over is ended for this reason, unless a person said stop.
    pub fn give_up_agent(&mut self, uid: &SessionUid, why: &str, now: Timestamp) {
        self.without_agent(uid, |world| world.fail_open(uid, reasons::AGENT_LOST, why, now), now);
    }

    fn without_agent(&mut self, uid: &SessionUid, end: impl FnOnce(&mut Self), now: Timestamp) {
        self.let_go(uid, &BTreeSet::new(), now);
        self.keep_from_agent(uid);
        self.journal_due.insert(uid.clone());
        if self.sessions.get(uid).is_some_and(|session| !session.stopping()) {
            end(self);
        }
    }

    /// Builds the run of a session anew, as its journal has it.
    fn put_back(&mut self, uid: &SessionUid, journal: Option<Journal>, by_agent: bool, now: Timestamp) -> Result<(), JournalError> {
        let Some(run) = self.sessions.get(uid).and_then(Session::run) else { return Ok(()) };
        let (plan, known) = (run.plan.clone(), run.outages.clone());
        let slots: Vec<NodeId> = run.slots.iter().map(|slot| slot.node).collect();
        for id in slots {
            if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                node.drive = node.drive.take().filter(|drive| drive.session != *uid);
            }
        }
        self.begin(uid, plan, journal.as_ref(), now);
        if let Some(run) = self.sessions.get_mut(uid).and_then(Session::running_mut) {
            run.by_agent &= by_agent;
        }
        if let Some(journal) = journal {
            self.resume(uid, journal, now)?;
        }
        self.keep_beginnings(uid, &known);
        Ok(())
    }

    /// An outage that was known begins when it did: what people are told of it does not change with each journal that is read.
    fn keep_beginnings(&mut self, uid: &SessionUid, known: &[(Service, Outage)]) {
        let Some(run) = self.sessions.get_mut(uid).and_then(Session::run_mut) else { return };
        for (service, outage) in &mut run.outages {
            let before = known.iter().find(|(known, _)| known == service).map(|(_, before)| before.since);
            let same = |before: &Timestamp| outage.since.since(*before).max(before.since(outage.since)) < SAME_OUTAGE;
            outage.since = before.filter(same).unwrap_or(outage.since);
        }
    }

    /// In the agent: nodes of a boot set are not touched before what they are to boot was seen to be there.
    pub fn hold_unverified(&mut self, uid: &SessionUid, boot_set: u16) {
        if let Some(run) = self.sessions.get_mut(uid).and_then(Session::running_mut) {
            run.unverified.insert(boot_set);
        }
    }

    /// In the agent: it was looked at.
    pub fn release_verified(&mut self, uid: &SessionUid, boot_set: u16) {
        if let Some(run) = self.sessions.get_mut(uid).and_then(Session::running_mut) {
            run.unverified.remove(&boot_set);
        }
    }

    /// In the agent: the operator has given a node to somebody else.
    pub fn taken_from_agent(&mut self, id: NodeId, by: &str, now: Timestamp) {
        if self.node(id).is_some_and(|node| node.drive.is_some()) {
            self.supersede(id, by, now);
        }
    }
}

/// Places of the plan with which the agent is not through: their part is open, or a call for them is.
fn busy(plan: &Plan, journal: &Journal) -> Result<BTreeSet<u32>, JournalError> {
    let bound = u32::try_from(plan.len()).unwrap_or(u32::MAX);
    let open = journal.groups.iter().filter(|group| group.state.end.is_none() && !group.state.untaken).map(|group| &group.nodes);
    // Boot parameters too: what BSS stores last is what a node boots (rule 6).
    let called = journal.batches.iter().map(|batch| &batch.nodes);
    let mut busy = BTreeSet::new();
    for nodes in open.chain(called) {
        busy.extend(ranges::decode(nodes, bound).ok_or_else(|| JournalError::Positions(nodes.clone()))?);
    }
    Ok(busy)
}
