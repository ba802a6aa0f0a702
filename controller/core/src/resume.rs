//! Taking up again: from Session objects, plans and journals to a World that goes on where the last process ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bos_crds::{Operation, SessionSpec, reasons};

use crate::batch::{Batch, BatchId, BatchState, Member, Work};

use crate::journal::{BatchRecord, Clock, DriveRecord, IssuedRecord, Journal, JournalError, State, session_end};
use crate::model::{Drive, End, EndKind, Hold, Issued, LastRun, Left, NodeId, PowerAction, Reported, SessionUid, World};
use crate::plan::Plan;
use crate::ranges;
use crate::session::{Ended, Session, SessionSeen, Stage};
use crate::time::Timestamp;
use crate::want::Decision;

/// The records of one session as they were found.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its uid.
    pub uid: SessionUid,
    /// Its plan.
    pub plan: Arc<Plan>,
    /// Its journal.
    pub journal: StoredJournal,
    /// An agent carried it out, and it was taken back from that.
    pub taken_back: bool,
}

/// The journal of a session as it was found.
#[derive(Debug, Clone)]
pub enum StoredJournal {
    /// Made before the plan and never written since: nothing was sent.
    Empty,
    /// Its last state.
    Written(Box<Journal>),
    /// It is made before the plan, so somebody removed it; what was sent is not known any more.
    Lost,
}

/// How long a request that has left may be on its way to BSS or CFS after whoever sent it is gone.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Why a session cannot be taken up; it must not be driven.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("session {uid}: {error}")]
pub struct ResumeError {
    /// The session.
    pub uid: SessionUid,
    /// What is wrong with its journal.
    pub error: JournalError,
}

impl World {
    /// Takes up every session that has records, in the order in which they took their nodes, and folds all others in.
    ///
    /// `objects` are the Sessions that can be read, `unreadable` those that are there and cannot. Returns the sessions taken up;
    /// records of others (they had ended) are of no use any more.
    ///
    /// # Errors
    /// When a journal does not fit its plan.
    pub fn take_up(
        &mut self,
        mut objects: Vec<SessionSeen>,
        unreadable: &[SessionUid],
        stored: Vec<Stored>,
        now: Timestamp,
    ) -> Result<Vec<SessionUid>, ResumeError> {
        // What has no plan yet appears after all that has one.
        self.last_sequence = stored.iter().map(|stored| stored.plan.sequence).max().unwrap_or(0).max(self.last_sequence);
        objects.sort_by_key(|object| (object.created, object.uid.clone()));
        let mut there: BTreeSet<SessionUid> = unreadable.iter().cloned().collect();
        for object in objects {
            there.insert(object.uid.clone());
            self.fold_session(object, now);
        }
        let mut order: BTreeMap<(Timestamp, u64, SessionUid), Stored> = BTreeMap::new();
        for stored in stored {
            if stored.plan.by_hand.is_some() {
                match stored.journal {
                    // Nothing was sent. What asked for it asks again; a leader that was deposed may have left it.
                    StoredJournal::Empty => continue,
                    StoredJournal::Lost => {
                        self.give_up_by_hand(&stored.plan);
                        continue;
                    }
                    StoredJournal::Written(_) => {}
                }
                self.fold_by_hand(&stored.uid, stored.plan.clone(), now);
                there.insert(stored.uid.clone());
            } else if !self.sessions.contains_key(&stored.uid) {
                if matches!(stored.journal, StoredJournal::Lost) && !there.contains(&stored.uid) {
                    // Over and deleted; the removal of its records was cut short.
                    continue;
                }
                // Deleted while we were away: its nodes are released as they are (rule 10).
                self.fold_session(gone(&stored), now);
            }
            let Some(session) = self.sessions.get_mut(&stored.uid) else { continue };
            if !matches!(session.stage, Stage::Ended(_)) {
                session.sequence = stored.plan.sequence;
                order.insert((session.created, session.sequence, session.uid.clone()), stored);
            }
        }
        // One after the other, so that a newer session finds what the older one had come to at a node, and goes on from there.
        let mut ends = Vec::new();
        for stored in order.into_values() {
            let (uid, lost) = (stored.uid, matches!(stored.journal, StoredJournal::Lost));
            match stored.journal {
                StoredJournal::Written(journal) => {
                    self.restore(&uid, stored.plan, Some(&journal), now);
                    if stored.taken_back {
                        // Its calls are ours to follow.
                        self.keep_from_agent(&uid);
                    }
                    self.resume(&uid, *journal, now).map_err(|error| ResumeError { uid: uid.clone(), error })?;
                }
                StoredJournal::Empty | StoredJournal::Lost => self.restore(&uid, stored.plan, None, now),
            }
            ends.push((uid, lost));
        }
        for (uid, lost) in ends {
            if lost {
                self.abandon(&uid, now);
            }
            if !there.contains(&uid) {
                self.fold_session_gone(&uid);
            }
        }
        let up = self.sessions.values().filter(|session| session.run().is_some());
        Ok(up.map(|session| session.uid.clone()).collect())
    }

    /// Puts a session back as its plan says, with the nodes it had taken.
    pub fn restore(&mut self, uid: &SessionUid, plan: Arc<Plan>, before: Option<&Journal>, now: Timestamp) {
        if let Some(session) = self.sessions.get(uid).filter(|session| !session.by_hand) {
            self.ran.insert((session.namespace.clone(), session.name.clone()), uid.clone());
        }
        self.begin(uid, plan, before, now);
        let driven: Vec<NodeId> = self.sessions.get(uid).and_then(Session::running).map(|run| run.open().collect()).unwrap_or_default();
        for id in driven {
            self.drop_asked(id);
        }
    }

    /// Nobody knows what was sent for the nodes of a session: they are left as they are.
    pub(crate) fn abandon(&mut self, uid: &SessionUid, now: Timestamp) {
        let message = "The journal of the Session was deleted, so nobody knows what was done. The node is left as it is; look at it, then use a new Session.";
        self.fail_open(uid, reasons::RECORDS_LOST, message, now);
    }

    /// Every node of a session whose part is not over has failed, for this reason.
    pub(crate) fn fail_open(&mut self, uid: &SessionUid, reason: &str, message: &str, now: Timestamp) {
        let open: Vec<NodeId> = self.sessions.get(uid).and_then(Session::running).map(|run| run.open().collect()).unwrap_or_default();
        for id in open {
            self.decide(id, Decision::End(EndKind::Failed, reason.into(), message.into()), now);
        }
    }

    /// Applies a journal to a restored session.
    ///
    /// # Errors
    /// When the journal does not fit the plan; the session must then not be driven.
    pub fn resume(&mut self, uid: &SessionUid, journal: Journal, now: Timestamp) -> Result<(), JournalError> {
        let clock = Clock(now);
        let Some(run) = self.sessions.get_mut(uid).and_then(Session::running_mut) else { return Ok(()) };
        let bound = u32::try_from(run.slots.len()).unwrap_or(u32::MAX);
        let started = clock.past(journal.started_ms);
        run.started = journal.started_at_ms.map_or(started, |at| started.min(Timestamp::from_millis(at)));
        run.tokens = journal.tokens;
        run.timeout_cycles = journal.timeout_cycles.iter().map(|(age, nodes)| (clock.past(*age), *nodes)).collect();
        run.mass_timeout = journal.mass_timeout_ms.map(|age| clock.past(age));
        run.outages = journal.outages.iter().filter_map(|record| record.read(clock)).collect();
        for group in journal.groups {
            for index in ranges::decode(&group.nodes, bound).ok_or(JournalError::Positions(group.nodes))? {
                self.resume_node(uid, index, &group.state, clock);
            }
        }
        for record in journal.batches {
            let positions = ranges::decode(&record.nodes, bound).ok_or(JournalError::Positions(record.nodes.clone()))?;
            self.resume_batch(uid, &positions, record, clock);
        }
        if let Some(end) = journal.end {
            let end = session_end(end, clock);
            let Some(session) = self.sessions.get_mut(uid) else { return Ok(()) };
            let stage = std::mem::replace(&mut session.stage, Stage::Ended(Box::new(Ended::new(end, None))));
            if let (Stage::Running(run), Stage::Ended(ended)) = (stage, &mut session.stage) {
                ended.run = Some(run);
            }
        }
        Ok(())
    }

    fn resume_node(&mut self, uid: &SessionUid, index: u32, state: &State, clock: Clock) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let (namespace, name, by_hand) = (session.namespace.clone(), session.name.clone(), session.by_hand);
        let Some(slot) = session.running_mut().and_then(|run| run.slots.get_mut(index as usize)) else { return };
        slot.power_cycled = state.power_cycled;
        slot.cycled = state.cycled;
        slot.reached = state.phase;
        let id = slot.node;
        let action = state.action.map(|record| clock.issued(record));
        if state.end.as_ref().is_none_or(|end| end.kind != EndKind::Succeeded)
            && state.drive.as_ref().is_none_or(|drive| drive.booted_ms.is_none())
        {
            self.drop_outdated_report(id, state.action);
        }
        self.resume_report(uid, id, state, clock);
        let Some(slot) = self.sessions.get_mut(uid).and_then(Session::running_mut).and_then(|run| run.slots.get_mut(index as usize)) else {
            return;
        };
        if let Some(record) = &state.end {
            let end =
                End { kind: record.kind, reason: record.reason.clone(), message: record.message.clone(), at: clock.past(record.age_ms) };
            slot.end = Some(Box::new(end.clone()));
            let run = slot.run.clone().unwrap_or_else(|| uid.0.clone());
            if !state.untaken {
                let left = self.sessions.get(uid).map(|session| session.as_owner(index));
                let left = left.and_then(|by| Some(clock.left(state.left.as_ref()?, by)));
                self.resume_left(uid, index, id, left);
            }
            self.forget_staged(uid, index, id, end.kind);
            let Some(limit) = self.node(id).map(|node| self.retry_limit(node)) else { return };
            let configuration = self
                .node(id)
                .and_then(|node| node.drive.as_ref())
                .filter(|_| end.kind == EndKind::Succeeded)
                .and_then(|drive| self.sessions.get(&drive.session)?.configuration_of(drive.boot_set));
            let Some(node) = self.node_mut(id) else { return };
            // What a newer session, over already, made of the node is in its status, and stays.
            let newest = node.owner.as_ref().is_none_or(|owner| owner.uid == *uid);
            if newest && node.drive.as_ref().is_none_or(|drive| drive.session == *uid) {
                node.drive = None;
                node.failed_in = (end.kind == EndKind::Failed && !by_hand).then(|| (namespace.clone(), name.clone()));
                node.last = Some(Box::new(LastRun {
                    session: uid.clone(),
                    run,
                    by_hand,
                    namespace,
                    name,
                    end,
                    attempts: state.attempts,
                    limit,
                    action,
                    earlier: state.earlier.map(|record| clock.earlier(record)),
                    phase: state.phase,
                    configuration,
                }));
            }
            return;
        }
        let Some(record) = &state.drive else { return };
        let of_agent = self.sessions.get(uid).and_then(Session::run).is_some_and(|run| run.plan.agent);
        let others = |drive: &Drive| of_agent && drive.session != *uid;
        if self.node(id).is_some_and(|node| node.drive.as_ref().is_none_or(others)) {
            // Its object names a newer session already, whose own journal does not; or its agent does not know that yet.
            let left = self.left_open(uid, index, (state, record), clock);
            return self.resume_left(uid, index, id, left);
        }
        let said_by_another = self.said_by_another_since(uid, id, action);
        let Some(node) = self.node_mut(id) else { return };
        let Some(drive) = node.drive.as_mut().filter(|drive| drive.session == *uid) else { return };
        resume_drive(drive, state, record, action, clock);
        if let Some(booted) = &mut drive.booted {
            // Stored to the minute, and rounded to later: a boot by somebody else that the node told of since must stay behind it (rule 7).
            *booted = said_by_another.map_or(*booted, |said| (*booted).min(said - Duration::from_millis(1)));
            // It may have spoken just before we died, so that an off of PCS may be older (rule 2).
            node.heard = Some(clock.0);
        }
    }

    /// When a node told, after an action of ours, that it runs what somebody else booted.
    fn said_by_another_since(&self, uid: &SessionUid, id: NodeId, action: Option<Issued>) -> Option<Timestamp> {
        let node = self.node(id)?;
        let (drive, report, run) = (node.drive.as_ref()?, node.reported.as_ref()?, self.sessions.get(uid)?.run()?);
        (report.since > action?.decided && !run.stands_for(&report.token, drive.boot_set)).then_some(report.since)
    }

    /// What the session left at a node is there for whoever takes the node next, unless somebody newer had it since: one may have
    /// become so by what was staged, and was resumed before.
    fn resume_left(&mut self, uid: &SessionUid, index: u32, id: NodeId, left: Option<Left>) {
        let Some(session) = self.sessions.get(uid) else { return };
        let (ours, left) = (session.as_owner(index), left.map(Box::new));
        let newest = self.node(id).is_some_and(|node| {
            let driven = node.drive.as_ref().is_some_and(|drive| drive.session != *uid);
            !driven && node.left.as_ref().is_none_or(|left| self.order_of(&left.by) <= self.order_of(&ours))
        });
        if let Some(node) = self.nodes.get_mut(id.0 as usize).filter(|_| newest) {
            node.left.clone_from(&left);
        }
        let run = self.sessions.get_mut(uid).and_then(Session::running_mut);
        if let Some(slot) = run.and_then(|run| run.slots.get_mut(index as usize)) {
            slot.left = left;
        }
    }

    /// What a session leaves that lost a node in the middle.
    fn left_open(&self, uid: &SessionUid, index: u32, (state, record): (&State, &DriveRecord), clock: Clock) -> Option<Left> {
        let session = self.sessions.get(uid)?;
        let (run, untold) = (session.run()?, self.untold());
        let (boot_set, _) = run.plan.member(index)?;
        let action = state.action.map(|record| clock.issued(record));
        let unsettled = action.and_then(|issued| issued.unsettled_until(false, untold));
        let held = record.held_in_ms.map(|remaining| clock.future(remaining));
        let flight = match action {
            _ if record.booted_ms.is_some() => None,
            Some(issued) if issued.action == PowerAction::On => {
                let last_on = record.last_on_ms.map(|at| Timestamp::from_millis(at).min(clock.0));
                Some(run.flight(boot_set, issued, last_on, record.down_seen))
            }
            Some(_) => None,
            None => record.in_flight.as_ref().map(|flight| clock.flight(flight)),
        };
        let unsettled_until = unsettled.max(held).unwrap_or_default();
        Some(Left { by: session.as_owner(index), unsettled_until, flight, tokens: run.bequeathed(boot_set, &record.inherited) })
    }

    /// What a node ran before a power action of ours it does not run any more, whatever its status, which may lag, still says.
    fn drop_outdated_report(&mut self, id: NodeId, action: Option<IssuedRecord>) {
        let Some(issued) = action.and_then(|record| record.wall_ms).map(Timestamp::from_millis) else { return };
        if let Some(node) = self.node_mut(id).filter(|node| node.reported.as_ref().is_some_and(|report| report.since < issued)) {
            node.reported = None;
        }
    }

    /// What a node reported and was answered 200 to, where its status did not get that far.
    fn resume_report(&mut self, uid: &SessionUid, id: NodeId, state: &State, clock: Clock) {
        let run = self.sessions.get(uid).and_then(Session::run);
        let place = state.token.map(usize::from);
        let Some((run, (token, boot_set))) = run.zip(place).and_then(|(run, place)| Some((run, run.tokens.get(place)?.clone()))) else {
            return;
        };
        let artifacts = run.plan.boot_set(boot_set).and_then(|set| set.artifacts.clone());
        // It came up with this token by our power-on; only what it said later than that is newer.
        let since = state.action.and_then(|record| record.wall_ms).map_or(clock.0, Timestamp::from_millis).min(clock.0);
        let Some(node) = self.node_mut(id) else { return };
        if node.reported.as_ref().is_none_or(|known| known.token != token && known.since <= since) {
            node.reported = Some(Reported { token, artifacts, since, at: clock.0, expired: false });
        }
    }

    /// Whether an operation on a node is that of a session newer to it than this one: it began after that of this one had ended,
    /// which this one's journal does not know yet.
    fn is_newer_batch(&self, batch: BatchId, node: NodeId, uid: &SessionUid, index: u32) -> bool {
        let theirs = self.batches.get(&batch).and_then(|batch| self.sessions.get(&batch.session)).filter(|other| other.uid != *uid);
        let place = theirs.and_then(Session::run).and_then(|run| run.slots.iter().position(|slot| slot.node == node));
        let theirs = theirs.zip(place.and_then(|place| u32::try_from(place).ok())).map(|(other, place)| other.as_owner(place));
        let ours = self.sessions.get(uid).map(|session| session.as_owner(index));
        theirs.zip(ours).is_some_and(|(theirs, ours)| self.order_of(&theirs) > self.order_of(&ours))
    }

    /// An agent that is gone may have sent something just before: whoever takes its nodes next lets that arrive first, so that what
    /// BSS or CFS store last is what the newer session sent.
    fn let_last_words_arrive(&mut self, uid: &SessionUid, positions: &[u32], now: Timestamp) {
        let Some(run) = self.sessions.get_mut(uid).and_then(Session::running_mut).filter(|run| run.plan.agent) else { return };
        let arrived = now + LAST_WORDS;
        for index in positions {
            let Some(slot) = run.slots.get_mut(*index as usize) else { continue };
            if let Some(left) = slot.left.as_mut() {
                left.unsettled_until = left.unsettled_until.max(arrived);
            }
            let ours = self.nodes.get_mut(slot.node.0 as usize).and_then(|node| node.drive.as_mut());
            if let Some(drive) = ours.filter(|drive| drive.session == *uid) {
                drive.held_since = drive.held_since.max(arrived);
            }
        }
    }

    fn resume_batch(&mut self, uid: &SessionUid, positions: &[u32], record: BatchRecord, clock: Clock) {
        if self.sessions.get(uid).is_some_and(|session| session.with_agent().is_some()) {
            // Its agent follows it.
            return;
        }
        let Work::Power(_) = record.work else {
            // Boot parameters and configuration are set again before anything else happens: harmless, and the only way to know.
            return self.let_last_words_arrive(uid, positions, clock.0);
        };
        let Some(transition) = record.transition else {
            // It may have been sent. Its nodes are looked at, and it is waited out (`accepted` is false in their action).
            return;
        };
        self.last_batch += 1;
        let id = BatchId(self.last_batch);
        let slots: Vec<(u32, NodeId)> = match self.sessions.get(uid).and_then(Session::run) {
            Some(run) => positions.iter().filter_map(|index| Some((*index, run.slots.get(*index as usize)?.node))).collect(),
            None => return,
        };
        let mut nodes = Vec::with_capacity(slots.len());
        for (index, node) in slots {
            let before = self.node(node).and_then(|node| node.batch);
            if before.is_some_and(|before| self.is_newer_batch(before, node, uid, index)) {
                continue;
            }
            if let Some(older) = before.and_then(|before| self.batches.get_mut(&before)) {
                older.nodes.retain(|member| member.node != node);
            }
            if let Some(node) = self.node_mut(node) {
                node.batch = Some(id);
                if node.drive.as_ref().is_some_and(|drive| drive.session == *uid) {
                    node.last_batch = Some(id);
                }
            }
            nodes.push(Member { node, before: None });
        }
        if nodes.is_empty() {
            return;
        }
        let state = BatchState::Following { transition, next: clock.0, reading: false };
        let opened = clock.past(record.age_ms);
        let batch = Batch { id, session: uid.clone(), boot_set: record.boot_set, work: record.work, nodes, opened, state };
        self.batches.insert(id, batch);
    }
}

/// `held_since` stays the instant of the restore, if not later: whatever was seen before we died is looked at again.
fn resume_drive(drive: &mut Drive, state: &State, record: &DriveRecord, action: Option<Issued>, clock: Clock) {
    drive.phase = state.phase;
    drive.action = action;
    drive.earlier = state.earlier.map(|record| clock.earlier(record));
    drive.attempts = state.attempts;
    drive.last_on = record.last_on_ms.map(|at| Timestamp::from_millis(at).min(clock.0));
    drive.params = record.params;
    drive.config = record.config;
    drive.booted = record.booted_ms.map(|age| clock.past(age));
    drive.configured_by = record.configured_in_ms.map(|remaining| clock.future(remaining));
    drive.hold = record.hold.map(|(reason, age, remaining)| Hold {
        reason,
        since: clock.past(age),
        until: clock.future(remaining.max(i64::try_from(Duration::from_secs(1).as_millis()).unwrap_or(1000))),
    });
    drive.held_since = record.held_in_ms.map_or(drive.held_since, |remaining| drive.held_since.max(clock.future(remaining)));
    drive.together = record.together;
    drive.refunds = record.refunds;
    drive.down_seen = record.down_seen;
    drive.inherited.clone_from(&record.inherited);
    drive.in_flight = record.in_flight.as_ref().map(|flight| Box::new(clock.flight(flight)));
    drive.cause = record.cause.clone();
    drive.error = record.error.clone();
}

/// A Session that is not there any more, or cannot be read. It keeps its place in the order of Sessions, so that no older one gets a
/// node back that it had taken (rule 11), and it sends nothing.
fn gone(stored: &Stored) -> SessionSeen {
    SessionSeen {
        uid: stored.uid.clone(),
        namespace: stored.plan.namespace.clone(),
        name: stored.plan.name.clone(),
        created: Timestamp::from_millis(stored.plan.created_ms),
        generation: 0,
        tracked: false,
        spec: SessionSpec { suspend: true, ..SessionSpec::new(Operation::Boot, "") },
        complete: None,
    }
}
