//! The journal of a session: its whole changing state in one small document, written before anything leaves.
//!
//! Nodes in the same state share one entry, so ten thousand nodes take a few kilobytes. Times are ages and remainders, never
//! instants: what happens while nobody runs does not count against a deadline, and a step of the clock cannot shorten one (rule 4).

mod short;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, BatchState, Work};
use crate::health::{Outage, Service};
use crate::model::{
    Attempts, Digest, EndKind, Flight, HoldReason, Inherited, Issued, Left, Node, NodeId, Owner, Phase, PowerAction, Prepared, Token, World,
};
use crate::ranges;
use crate::session::{Run, Session, SessionEnd, SessionOutcome, Slot, Stage};
use crate::time::Timestamp;
use short::rounded_up;

/// Version of the stored form; a newer one is refused.
pub const JOURNAL_VERSION: u32 = 1;

/// How exact instants are that only people read.
const MINUTE_MS: i64 = 60_000;

/// The stored form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Journal {
    pub(crate) version: u32,
    pub(crate) started_ms: i64,
    /// The same by the wall clock: the beginning is compared with the times of reports, which come from statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) started_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tokens: Vec<(Token, u16)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) timeout_cycles: Vec<(i64, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mass_timeout_ms: Option<i64>,
    pub(crate) groups: Vec<Group>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) batches: Vec<BatchRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<EndRecord>,
    /// Nodes whose run is not named by the uid of the session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) runs: Vec<RunRecord>,
    /// Services that an agent has found away, for the operator to show.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) outages: Vec<OutageRecord>,
}

/// An outage of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OutageRecord {
    pub(crate) service: Arc<str>,
    pub(crate) age_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) over_ms: Option<i64>,
    pub(crate) detail: Arc<str>,
}

impl OutageRecord {
    fn of(service: Service, outage: &Outage, clock: Clock) -> Self {
        let over_ms = outage.until.map(|at| clock.age(at));
        Self { service: service.label().into(), age_ms: clock.age(outage.since), over_ms, detail: outage.detail.clone() }
    }

    /// None of a service that a later release knows.
    pub(crate) fn read(&self, clock: Clock) -> Option<(Service, Outage)> {
        let service = Service::ALL.into_iter().find(|service| service.label() == &*self.service)?;
        let (since, until) = (clock.past(self.age_ms), self.over_ms.map(|age| clock.past(age)));
        Some((service, Outage { since, until, detail: self.detail.clone(), failures: 0, next_try: clock.0 }))
    }
}

/// Nodes in the same state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    #[serde(flatten)]
    pub(crate) state: State,
    pub(crate) nodes: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    /// The session never owned the node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) untaken: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) power_cycled: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) cycled: bool,
    pub(crate) attempts: Attempts,
    pub(crate) phase: Phase,
    /// Which of the journal's tokens the node has reported: an answered report is nowhere else until its status is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) action: Option<IssuedRecord>,
    /// Where there is none, or one that may still be taken back: the one before, and when that was decided, by the wall clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) earlier: Option<(PowerAction, i64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drive: Option<DriveRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<NodeEndRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) left: Option<LeftRecord>,
}

/// What the session left at the node at that end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LeftRecord {
    /// What was sent may still take effect for so long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unsettled_in_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    flight: Option<FlightRecord>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<Inherited>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DriveRecord {
    pub(crate) params: Prepared,
    pub(crate) config: Prepared,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) booted_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) configured_in_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold: Option<(HoldReason, i64, i64)>,
    /// What an older session sent may still take effect for so long; its own records may be gone by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held_in_ms: Option<i64>,
    #[serde(default)]
    pub(crate) together: u32,
    #[serde(default)]
    pub(crate) refunds: u8,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) down_seen: bool,
    /// By the wall clock, as in `IssuedRecord`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_on_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) inherited: Vec<Inherited>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) in_flight: Option<FlightRecord>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub(crate) cause: Arc<str>,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub(crate) error: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FlightRecord {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    artifacts: Option<Digest>,
    issued: IssuedRecord,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_on_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    down_seen: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IssuedRecord {
    pub(crate) action: PowerAction,
    pub(crate) age_ms: i64,
    pub(crate) power_in_ms: i64,
    pub(crate) boot_in_ms: i64,
    pub(crate) accepted: bool,
    pub(crate) failed: bool,
    /// The instant by the wall clock, to compare with the times of reports in statuses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) wall_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeEndRecord {
    pub(crate) kind: EndKind,
    pub(crate) reason: Arc<str>,
    pub(crate) message: Arc<str>,
    pub(crate) age_ms: i64,
}

/// A run; when staged state was applied with it, in milliseconds after the session started; when it began, in milliseconds after
/// that; and its nodes. A tuple of small numbers, for ten thousand nodes may have one each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord(pub(crate) Arc<str>, pub(crate) Option<i64>, pub(crate) Option<i64>, pub(crate) String);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BatchRecord {
    pub(crate) work: Work,
    pub(crate) boot_set: u16,
    pub(crate) nodes: String,
    pub(crate) age_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) transition: Option<Arc<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndRecord {
    pub(crate) outcome: OutcomeRecord,
    pub(crate) reason: Arc<str>,
    pub(crate) message: Arc<str>,
    pub(crate) age_ms: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OutcomeRecord {
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
        runs: run_records(run),
        outages: match world.is_agent {
            true => world.services.outages().map(|(service, outage)| OutageRecord::of(service, outage, clock)).collect(),
            false => Vec::new(),
        },
    })
}

/// Plans made by hand name the runs of their nodes themselves.
fn run_records(run: &Run) -> Vec<RunRecord> {
    type Key = (Arc<str>, Option<i64>, Option<i64>);
    let mut records: BTreeMap<Key, Vec<u32>> = BTreeMap::new();
    for (index, slot) in (0_u32..).zip(&run.slots).filter(|_| run.plan.by_hand.is_none()) {
        if let Some(token) = &slot.run {
            let base = slot.applied.unwrap_or(run.started);
            let after = |at: Timestamp, base: Timestamp| at.as_millis().saturating_sub(base.as_millis());
            let (applied, since) = (slot.applied.map(|at| after(at, run.started)), slot.since.map(|at| after(at, base)));
            records.entry((token.clone(), applied, since)).or_default().push(index);
        }
    }
    records.into_iter().map(|((run, applied, since), nodes)| RunRecord(run, applied, since, ranges::encode(&nodes))).collect()
}

/// How much of a session's journal the runs take that name nodes by themselves.
pub(crate) struct RunRoom {
    bytes: usize,
    last: Option<Arc<str>>,
}

impl RunRoom {
    /// What stands around the text of a run.
    const FRAME: usize = 32;
    /// The rest of the journal fits beside that.
    const MAX: usize = 800_000;

    /// As the journal would be written now.
    pub(crate) fn of(run: &Run) -> Self {
        let mut room = Self { bytes: 0, last: None };
        for token in run.slots.iter().filter_map(|slot| slot.run.as_ref()) {
            room.add(token);
        }
        room
    }

    /// Whether one more run has room.
    pub(crate) const fn is_left(&self) -> bool {
        self.bytes < Self::MAX
    }

    /// Nodes that are applied together share an entry.
    pub(crate) fn add(&mut self, token: &Arc<str>) {
        if self.last.as_ref() != Some(token) {
            self.bytes += token.len() + Self::FRAME;
            self.last = Some(token.clone());
        }
    }
}

impl Journal {
    /// The stored bytes.
    ///
    /// # Errors
    /// Never in practice: every field has a JSON form.
    pub fn encode(&self) -> Result<Vec<u8>, JournalError> {
        serde_json::to_vec(self).map_err(|error| JournalError::Unreadable(error.to_string()))
    }

    /// Positions of the nodes that the session has owned, of so many.
    pub(crate) fn taken(&self, bound: u32) -> BTreeSet<u32> {
        let groups = self.groups.iter().filter(|group| !group.state.untaken);
        groups.filter_map(|group| ranges::decode(&group.nodes, bound)).flatten().collect()
    }

    /// Gives the places of a plan their runs back.
    pub(crate) fn restore_runs(&self, slots: &mut [Slot]) {
        let bound = u32::try_from(slots.len()).unwrap_or(u32::MAX);
        let started = self.started_at_ms.unwrap_or_default();
        for record in &self.runs {
            let RunRecord(run, applied, since, nodes) = record;
            let applied = applied.map(|after| started.saturating_add(after));
            let since = since.map(|after| applied.unwrap_or(started).saturating_add(after));
            for index in ranges::decode(nodes, bound).unwrap_or_default() {
                if let Some(slot) = slots.get_mut(index as usize) {
                    slot.run = Some(run.clone());
                    slot.applied = applied.map(Timestamp::from_millis);
                    slot.since = since.map(Timestamp::from_millis);
                }
            }
        }
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
pub(crate) struct Clock(pub(crate) Timestamp);

impl Clock {
    /// In whole seconds, so that nodes that went the same way within a second share one entry.
    fn age(self, at: Timestamp) -> i64 {
        self.0.as_millis().saturating_sub(at.as_millis()).div_euclid(1000) * 1000
    }

    /// The age of an instant that need not be exact, rounded to later: nodes that came one by one share an entry all the same.
    fn coarse_age(self, at: Timestamp, step_ms: i64) -> i64 {
        self.age(Timestamp::from_millis(rounded_up(at.as_millis(), step_ms))).max(0)
    }

    /// What is left till a deadline that may be a little late.
    fn coarse_remaining(self, at: Timestamp, step_ms: i64) -> i64 {
        self.remaining(Timestamp::from_millis(rounded_up(at.as_millis(), step_ms)))
    }

    fn remaining(self, at: Timestamp) -> i64 {
        at.as_millis().saturating_sub(self.0.as_millis())
    }

    pub(crate) fn past(self, age: i64) -> Timestamp {
        Timestamp::from_millis(self.0.as_millis().saturating_sub(age))
    }

    pub(crate) fn future(self, remaining: i64) -> Timestamp {
        Timestamp::from_millis(self.0.as_millis().saturating_add(remaining))
    }

    pub(crate) fn issued(self, record: IssuedRecord) -> Issued {
        Issued {
            action: record.action,
            at: self.past(record.age_ms),
            // Whatever is said from now on is newer, also by a clock that was put back meanwhile.
            decided: record.wall_ms.map_or_else(|| self.past(record.age_ms), Timestamp::from_millis).min(self.0),
            power_by: self.future(record.power_in_ms),
            boot_by: self.future(record.boot_in_ms),
            accepted: record.accepted,
            failed: record.failed,
        }
    }

    pub(crate) fn earlier(self, (action, at_ms): (PowerAction, i64)) -> (PowerAction, Timestamp) {
        (action, Timestamp::from_millis(at_ms).min(self.0))
    }

    pub(crate) fn flight(self, record: &FlightRecord) -> Flight {
        Flight {
            artifacts: record.artifacts.clone(),
            issued: self.issued(record.issued),
            last_on: record.last_on_ms.map(|at| Timestamp::from_millis(at).min(self.0)),
            down_seen: record.down_seen,
        }
    }

    pub(crate) fn left(self, record: &LeftRecord, by: Owner) -> Left {
        Left {
            by,
            unsettled_until: record.unsettled_in_ms.map(|remaining| self.future(remaining)).unwrap_or_default(),
            flight: record.flight.as_ref().map(|flight| self.flight(flight)),
            tokens: record.tokens.clone(),
        }
    }

    fn left_record(self, left: &Left) -> Option<LeftRecord> {
        let record = LeftRecord {
            unsettled_in_ms: Some(self.remaining(left.unsettled_until)).filter(|remaining| *remaining > 0),
            flight: left.flight.as_ref().map(|flight| self.flight_record(flight)),
            tokens: left.tokens.clone(),
        };
        Some(record).filter(|record| record.unsettled_in_ms.is_some() || record.flight.is_some() || !record.tokens.is_empty())
    }

    fn flight_record(self, flight: &Flight) -> FlightRecord {
        FlightRecord {
            artifacts: flight.artifacts.clone(),
            issued: self.record(flight.issued),
            last_on_ms: flight.last_on.map(Timestamp::as_millis),
            down_seen: flight.down_seen,
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

fn state_of(world: &World, session: &Session, run: &Run, slot: &Slot, clock: Clock) -> Option<State> {
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
            untaken: !slot.taken,
            power_cycled: slot.power_cycled,
            cycled: slot.cycled,
            attempts: last.map(|last| last.attempts).unwrap_or_default(),
            phase: slot.reached,
            token: token_of(run, node),
            action: last.and_then(|last| last.action).map(|issued| clock.record(issued)),
            earlier: last.filter(|last| last.action.is_none()).and_then(|last| last.earlier).map(earlier_record),
            drive: None,
            end: Some(end),
            left: slot.left.as_ref().and_then(|left| clock.left_record(left)),
        });
    }
    let drive = node.drive.as_ref().filter(|drive| drive.session == session.uid)?;
    Some(State {
        untaken: false,
        power_cycled: slot.power_cycled,
        cycled: slot.cycled,
        attempts: drive.attempts,
        phase: drive.phase,
        token: drive.booted.and_then(|_| token_of(run, node)),
        action: drive.action.map(|issued| clock.record(issued)),
        earlier: drive.earlier.filter(|_| drive.action.is_none() || node.batch.is_some()).map(earlier_record),
        drive: Some(DriveRecord {
            params: drive.params,
            config: drive.config,
            booted_ms: drive.booted.map(|at| clock.coarse_age(at, MINUTE_MS)),
            configured_in_ms: drive.configured_by.map(|at| clock.coarse_remaining(at, MINUTE_MS)),
            hold: drive.hold.map(|hold| (hold.reason, clock.age(hold.since), clock.remaining(hold.until))),
            held_in_ms: Some(clock.remaining(drive.held_since)).filter(|remaining| *remaining > 0),
            together: drive.together,
            refunds: drive.refunds,
            down_seen: drive.down_seen,
            last_on_ms: drive.last_on.map(Timestamp::as_millis),
            inherited: drive.inherited.clone(),
            in_flight: drive.in_flight.as_ref().map(|flight| clock.flight_record(flight)),
            cause: drive.cause.clone(),
            error: drive.error.clone(),
        }),
        end: None,
        left: None,
    })
}

const fn earlier_record((action, at): (PowerAction, Timestamp)) -> (PowerAction, i64) {
    (action, at.as_millis())
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

pub(crate) fn session_end(record: EndRecord, clock: Clock) -> SessionEnd {
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
