//! The journal of a session: its whole changing state in one small document, written before anything leaves.
//!
//! Nodes in the same state share one entry, so ten thousand nodes take a few kilobytes. Times are ages and remainders, never
//! instants: what happens while nobody runs does not count against a deadline, and a step of the clock cannot shorten one (rule 4).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, BatchId, BatchState, Member, Work};
use crate::model::{
    Attempts, Drive, End, EndKind, Hold, HoldReason, Issued, LastRun, Node, NodeId, Phase, PowerAction, Prepared, Reported, SessionUid,
    Token, World,
};
use crate::ranges;
use crate::session::{Ended, Run, Session, SessionEnd, SessionOutcome, Stage};
use crate::time::Timestamp;

/// Version of the stored form; a newer one is refused.
pub const JOURNAL_VERSION: u32 = 1;

/// How exact instants are that only people read.
const MINUTE_MS: i64 = 60_000;

/// The stored form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    version: u32,
    started_ms: i64,
    /// The same by the wall clock: the beginning is compared with the times of reports, which come from statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    started_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<(Token, u16)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    timeout_cycles: Vec<(i64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mass_timeout_ms: Option<i64>,
    groups: Vec<Group>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    batches: Vec<BatchRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<EndRecord>,
}

/// Nodes in the same state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(flatten)]
    state: State,
    nodes: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    power_cycled: bool,
    attempts: Attempts,
    phase: Phase,
    /// Which of the journal's tokens the node has reported: an answered report is nowhere else until its status is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action: Option<IssuedRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    drive: Option<DriveRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<NodeEndRecord>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct DriveRecord {
    params: Prepared,
    config: Prepared,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    booted_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    configured_in_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hold: Option<(HoldReason, i64, i64)>,
    #[serde(default)]
    together: u32,
    #[serde(default)]
    refunds: u8,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    error: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IssuedRecord {
    action: PowerAction,
    age_ms: i64,
    power_in_ms: i64,
    boot_in_ms: i64,
    accepted: bool,
    failed: bool,
    /// The instant by the wall clock, to compare with the times of reports in statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    wall_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeEndRecord {
    kind: EndKind,
    reason: Arc<str>,
    message: Arc<str>,
    age_ms: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchRecord {
    work: Work,
    boot_set: u16,
    nodes: String,
    age_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transition: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndRecord {
    outcome: OutcomeRecord,
    reason: Arc<str>,
    message: Arc<str>,
    age_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum OutcomeRecord {
    NotStarted,
    Failed,
    Superseded,
    Cancelled,
    Succeeded,
    PartiallyFailed,
}

/// Why a stored journal cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// Not readable at all.
    #[error("not a journal: {0}")]
    Unreadable(String),
    /// Written by a newer operator.
    #[error("journal version {0} is newer than this operator understands ({JOURNAL_VERSION})")]
    Newer(u32),
    /// It names positions its plan does not have.
    #[error("node positions {0:?} do not fit the plan")]
    Positions(String),
}

/// The journal of a session as it is now; None where it has no run.
#[must_use]
pub fn snapshot(world: &World, session: &Session, now: Timestamp) -> Option<Journal> {
    let run = session.run()?;
    let clock = Clock(now);
    let mut groups: BTreeMap<State, Vec<u32>> = BTreeMap::new();
    for (index, slot) in (0_u32..).zip(&run.slots) {
        if let Some(state) = state_of(world, session, run, slot, clock) {
            groups.entry(state).or_default().push(index);
        }
    }
    Some(Journal {
        version: JOURNAL_VERSION,
        started_ms: clock.age(run.started),
        started_at_ms: Some(run.started.as_millis()),
        tokens: run.tokens.clone(),
        timeout_cycles: run.timeout_cycles.iter().map(|(at, nodes)| (clock.age(*at), *nodes)).collect(),
        mass_timeout_ms: run.mass_timeout.map(|at| clock.age(at)),
        groups: groups.into_iter().map(|(state, nodes)| Group { state, nodes: ranges::encode(&nodes) }).collect(),
        batches: world.batches.values().filter(|batch| batch.session == session.uid).map(|batch| batch_record(run, batch, clock)).collect(),
        end: match &session.stage {
            Stage::Ended(ended) => Some(end_record(&ended.end, clock)),
            Stage::Pending(_) | Stage::Recording(_) | Stage::Running(_) => None,
        },
    })
}

impl Journal {
    /// The stored bytes.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, JournalError> {
        serde_json::to_vec(self).map_err(|error| JournalError::Unreadable(error.to_string()))
    }

    /// The stored bytes, at most `limit` of them: where per-node texts of services would make it longer, they are left out.
    /// What decides is kept; a journal that cannot be written would stop every Session of the site (rule 15).
    ///
    /// # Errors
    /// As [`Journal::encode`].
    pub fn encode_within(mut self, limit: usize) -> Result<Vec<u8>, JournalError> {
        let whole = self.encode()?;
        if whole.len() <= limit {
            return Ok(whole);
        }
        let mut merged: BTreeMap<State, Vec<u32>> = BTreeMap::new();
        for Group { mut state, nodes } in std::mem::take(&mut self.groups) {
            if let Some(drive) = &mut state.drive {
                drive.error = "".into();
            }
            if let Some(end) = &mut state.end {
                end.message = "See the log of the operator.".into();
            }
            // Nodes that differed in their texts alone share an entry again: one entry each would still be too long.
            let nodes = ranges::decode(&nodes, u32::MAX).ok_or(JournalError::Positions(nodes))?;
            merged.entry(state).or_default().extend(nodes);
        }
        self.groups = merged
            .into_iter()
            .map(|(state, mut nodes)| {
                nodes.sort_unstable();
                Group { state, nodes: ranges::encode(&nodes) }
            })
            .collect();
        self.encode()
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// When they are damaged or of a newer version.
    pub fn decode(bytes: &[u8]) -> Result<Self, JournalError> {
        let journal: Self = serde_json::from_slice(bytes).map_err(|error| JournalError::Unreadable(error.to_string()))?;
        if journal.version > JOURNAL_VERSION { Err(JournalError::Newer(journal.version)) } else { Ok(journal) }
    }
}

/// Ages and remainders relative to one instant.
#[derive(Clone, Copy)]
struct Clock(Timestamp);

impl Clock {
    /// In whole seconds, so that nodes that went the same way within a second share one entry.
    fn age(self, at: Timestamp) -> i64 {
        self.0.as_millis().saturating_sub(at.as_millis()).div_euclid(1000) * 1000
    }

    /// The age of an instant that need not be exact, rounded to later: nodes that came one by one share an entry all the same.
    fn coarse_age(self, at: Timestamp, step_ms: i64) -> i64 {
        let rounded = at.as_millis().saturating_add(step_ms - 1).div_euclid(step_ms).saturating_mul(step_ms);
        self.age(Timestamp::from_millis(rounded)).max(0)
    }

    /// What is left till a deadline that may be a little late.
    fn coarse_remaining(self, at: Timestamp, step_ms: i64) -> i64 {
        let rounded = at.as_millis().saturating_add(step_ms - 1).div_euclid(step_ms).saturating_mul(step_ms);
        self.remaining(Timestamp::from_millis(rounded))
    }

    fn remaining(self, at: Timestamp) -> i64 {
        at.as_millis().saturating_sub(self.0.as_millis())
    }

    fn past(self, age: i64) -> Timestamp {
        Timestamp::from_millis(self.0.as_millis().saturating_sub(age))
    }

    fn future(self, remaining: i64) -> Timestamp {
        Timestamp::from_millis(self.0.as_millis().saturating_add(remaining))
    }

    fn issued(self, record: IssuedRecord) -> Issued {
        Issued {
            action: record.action,
            at: self.past(record.age_ms),
            decided: record.wall_ms.map_or_else(|| self.past(record.age_ms), Timestamp::from_millis),
            power_by: self.future(record.power_in_ms),
            boot_by: self.future(record.boot_in_ms),
            accepted: record.accepted,
            failed: record.failed,
        }
    }

    fn record(self, issued: Issued) -> IssuedRecord {
        IssuedRecord {
            action: issued.action,
            age_ms: self.age(issued.at),
            power_in_ms: self.remaining(issued.power_by),
            boot_in_ms: self.remaining(issued.boot_by),
            accepted: issued.accepted,
            failed: issued.failed,
            wall_ms: Some(issued.decided.as_millis()),
        }
    }
}

/// The place of the token that a node has reported among those of the run.
fn token_of(run: &Run, node: &Node) -> Option<u16> {
    let reported = &node.reported.as_ref()?.token;
    run.tokens.iter().position(|(token, _)| token == reported).and_then(|place| u16::try_from(place).ok())
}

fn state_of(world: &World, session: &Session, run: &Run, slot: &crate::session::Slot, clock: Clock) -> Option<State> {
    let node = world.node(slot.node)?;
    if let Some(end) = &slot.end {
        let last = node.last.as_ref().filter(|last| last.session == session.uid);
        let end = NodeEndRecord {
            kind: end.kind,
            reason: end.reason.clone(),
            message: end.message.clone(),
            age_ms: clock.coarse_age(end.at, MINUTE_MS),
        };
        return Some(State {
            power_cycled: slot.power_cycled,
            attempts: last.map(|last| last.attempts).unwrap_or_default(),
            phase: last.map_or(Phase::None, |last| last.phase),
            token: token_of(run, node),
            action: last.and_then(|last| last.action).map(|issued| clock.record(issued)),
            drive: None,
            end: Some(end),
        });
    }
    let drive = node.drive.as_ref().filter(|drive| drive.session == session.uid)?;
    Some(State {
        power_cycled: slot.power_cycled,
        attempts: drive.attempts,
        phase: drive.phase,
        token: drive.booted.and_then(|_| token_of(run, node)),
        action: drive.action.map(|issued| clock.record(issued)),
        drive: Some(DriveRecord {
            params: drive.params,
            config: drive.config,
            booted_ms: drive.booted.map(|at| clock.coarse_age(at, MINUTE_MS)),
            configured_in_ms: drive.configured_by.map(|at| clock.coarse_remaining(at, MINUTE_MS)),
            hold: drive.hold.map(|hold| (hold.reason, clock.age(hold.since), clock.remaining(hold.until))),
            together: drive.together,
            refunds: drive.refunds,
            error: drive.error.clone(),
        }),
        end: None,
    })
}

fn batch_record(run: &Run, batch: &Batch, clock: Clock) -> BatchRecord {
    let members: std::collections::HashSet<NodeId> = batch.nodes.iter().map(|member| member.node).collect();
    let positions: Vec<u32> = (0_u32..).zip(&run.slots).filter(|(_, slot)| members.contains(&slot.node)).map(|(index, _)| index).collect();
    let transition = match &batch.state {
        BatchState::Following { transition, .. } => Some(transition.clone()),
        BatchState::Recording | BatchState::Sent => None,
    };
    BatchRecord {
        work: batch.work,
        boot_set: batch.boot_set,
        nodes: ranges::encode(&positions),
        age_ms: clock.age(batch.opened),
        transition,
    }
}

fn end_record(end: &SessionEnd, clock: Clock) -> EndRecord {
    let outcome = match end.outcome {
        SessionOutcome::NotStarted => OutcomeRecord::NotStarted,
        SessionOutcome::Failed => OutcomeRecord::Failed,
        SessionOutcome::Superseded => OutcomeRecord::Superseded,
        SessionOutcome::Cancelled => OutcomeRecord::Cancelled,
        SessionOutcome::Succeeded => OutcomeRecord::Succeeded,
        SessionOutcome::PartiallyFailed => OutcomeRecord::PartiallyFailed,
    };
    EndRecord { outcome, reason: end.reason.clone(), message: end.message.clone(), age_ms: clock.age(end.at) }
}

fn session_end(record: EndRecord, clock: Clock) -> SessionEnd {
    let outcome = match record.outcome {
        OutcomeRecord::NotStarted => SessionOutcome::NotStarted,
        OutcomeRecord::Failed => SessionOutcome::Failed,
        OutcomeRecord::Superseded => SessionOutcome::Superseded,
        OutcomeRecord::Cancelled => SessionOutcome::Cancelled,
        OutcomeRecord::Succeeded => SessionOutcome::Succeeded,
        OutcomeRecord::PartiallyFailed => SessionOutcome::PartiallyFailed,
    };
    SessionEnd { outcome, reason: record.reason, message: record.message, at: clock.past(record.age_ms) }
}

impl World {
    /// Puts a session back as its plan and journal say. Call it for every stored session in order of creation, with
    /// [`World::resume`] after all plans are in place.
    pub fn restore(&mut self, uid: &SessionUid, plan: Arc<crate::plan::Plan>, now: Timestamp) {
        if let Some(session) = self.sessions.get(uid) {
            self.ran.insert((session.namespace.clone(), session.name.clone()), uid.clone());
        }
        self.begin(uid, plan, now);
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
            let stage = std::mem::replace(&mut session.stage, Stage::Ended(Box::new(Ended { end, run: None, before_us: false })));
            if let (Stage::Running(run), Stage::Ended(ended)) = (stage, &mut session.stage) {
                ended.run = Some(run);
            }
        }
        Ok(())
    }

    fn resume_node(&mut self, uid: &SessionUid, index: u32, state: &State, clock: Clock) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let (namespace, name) = (session.namespace.clone(), session.name.clone());
        let Some(slot) = session.running_mut().and_then(|run| run.slots.get_mut(index as usize)) else { return };
        slot.power_cycled = state.power_cycled;
        let id = slot.node;
        let action = state.action.map(|record| clock.issued(record));
        self.wait_out(uid, id, action);
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
            slot.end = Some(end.clone());
            let Some(limit) = self.node(id).map(|node| self.retry_limit(node)) else { return };
            let configuration = self
                .node(id)
                .and_then(|node| node.drive.as_ref())
                .filter(|_| end.kind == EndKind::Succeeded)
                .and_then(|drive| self.sessions.get(&drive.session)?.configuration_of(drive.boot_set));
            let Some(node) = self.node_mut(id) else { return };
            // What a newer session, over already, made of the node is in its status, and stays.
            let newest = node.owner.as_ref().is_none_or(|(_, owner)| owner == uid);
            if newest && node.drive.as_ref().is_none_or(|drive| drive.session == *uid) {
                node.drive = None;
                node.last = Some(LastRun {
                    session: uid.clone(),
                    namespace,
                    name,
                    end,
                    attempts: state.attempts,
                    limit,
                    action,
                    phase: state.phase,
                    configuration,
                });
            }
            return;
        }
        let Some(record) = &state.drive else { return };
        let Some(drive) = self.node_mut(id).and_then(|node| node.drive.as_mut()).filter(|drive| drive.session == *uid) else { return };
        resume_drive(drive, state, record, action, clock);
    }

    /// A power action of this session may still be on its way to a node that a newer session owns: that one looks at the node
    /// only after the action's deadline (rule 11).
    fn wait_out(&mut self, uid: &SessionUid, id: NodeId, action: Option<Issued>) {
        let Some(issued) = action.filter(|issued| !issued.accepted && !issued.failed) else { return };
        if let Some(drive) = self.node_mut(id).and_then(|node| node.drive.as_mut()).filter(|drive| drive.session != *uid) {
            drive.held_since = drive.held_since.max(issued.power_by);
        }
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
            node.reported = Some(Reported { token, artifacts, since, at: clock.0 });
        }
    }

    fn resume_batch(&mut self, uid: &SessionUid, positions: &[u32], record: BatchRecord, clock: Clock) {
        let Work::Power(_) = record.work else {
            // Boot parameters and configuration are set again before anything else happens: harmless, and the only way to know.
            return;
        };
        let Some(transition) = record.transition else {
            // It may have been sent. Its nodes are looked at, and it is waited out (`accepted` is false in their action).
            return;
        };
        self.last_batch += 1;
        let id = BatchId(self.last_batch);
        let slots: Vec<NodeId> = match self.sessions.get(uid).and_then(Session::run) {
            Some(run) => positions.iter().filter_map(|index| Some(run.slots.get(*index as usize)?.node)).collect(),
            None => return,
        };
        for node in &slots {
            let before = self.node_mut(*node).and_then(|node| node.batch.replace(id));
            // A newer session's operation began after the older one had ended.
            if let Some(older) = before.and_then(|before| self.batches.get_mut(&before)) {
                older.nodes.retain(|member| member.node != *node);
            }
        }
        let nodes = slots.into_iter().map(|node| Member { node, before: None }).collect();
        let state = BatchState::Following { transition, next: clock.0, reading: false };
        let opened = clock.past(record.age_ms);
        let batch = Batch { id, session: uid.clone(), boot_set: record.boot_set, work: record.work, nodes, opened, state };
        self.batches.insert(id, batch);
    }
}

/// `held_since` stays the instant of the restore: whatever was seen before we died is looked at again.
fn resume_drive(drive: &mut Drive, state: &State, record: &DriveRecord, action: Option<Issued>, clock: Clock) {
    drive.phase = state.phase;
    drive.action = action;
    drive.attempts = state.attempts;
    drive.params = record.params;
    drive.config = record.config;
    drive.booted = record.booted_ms.map(|age| clock.past(age));
    drive.configured_by = record.configured_in_ms.map(|remaining| clock.future(remaining));
    drive.hold = record.hold.map(|(reason, age, remaining)| Hold {
        reason,
        since: clock.past(age),
        until: clock.future(remaining.max(i64::try_from(Duration::from_secs(1).as_millis()).unwrap_or(1000))),
    });
    drive.together = record.together;
    drive.refunds = record.refunds;
    drive.error = record.error.clone();
}
