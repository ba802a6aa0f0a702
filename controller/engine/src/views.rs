//! What the API server shows of each object, what it should show, and the writes between the two.
//!
//! A write that changes nothing is not made. While one is on its way the next is a difference against everything the server
//! may hold by then, so that whichever arrives last leaves the newest status.

mod shown;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bos_core::by_hand::Wish;
use bos_core::model::{Node, NodeId, SessionUid, World};
use bos_core::session::Session;
use bos_core::time::Timestamp;
use bos_core::{project, project_session};
use bos_crds::{
    BootComponent, BootComponentSpec, BootComponentStatus, BootOptions, BootOptionsStatus, ConditionStatus, NewCondition, NodePhase,
    NodeStatus, SessionPhase, SessionStatus, bounded, conditions, labels, reasons, schema::TEXT_MAX, set_condition,
};
use kube::ResourceExt;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::change::SessionChange;
use crate::convert;
use crate::reports::{self, ReportAnswer};
use crate::telemetry::Counts;
use crate::views::shown::Shown;
use crate::views::spec::{SpecSeen, SpecShown, digests};
use crate::writer::{GiveWay, Kind, ObjectKey, StatusWriter, Target, Urgency, WriteJob, WriteOutcome};

/// A status that does not last this long need not be shown (design "What is durable").
const LASTING: Duration = Duration::from_secs(2);

/// While writes are saturated, a status that may be passing waits for about as long as the queue takes, so that the next one
/// takes its place: towards two writes a node instead of four. An API server takes 500 to 900 a second.
const PER_QUEUED_WRITE: Duration = Duration::from_millis(3);

/// The bound of `status.requestedBy` in the schema.
const REQUESTED_BY_MAX: usize = 253;

/// Session statuses are written at most this often.
const SESSION_PACE: Duration = Duration::from_secs(1);

/// A BootComponent.
#[derive(Debug)]
struct Component {
    shown: Shown<BootComponentStatus>,
    /// What of our part of the spec the server holds.
    held: SpecShown,
    /// What of it is on its way there, and the version of the write.
    submitted: Option<(u64, SpecShown)>,
    /// `metadata.generation` after our last write of the spec: what the watch says of older ones is overwritten.
    ours: i64,
    /// What was seen of the spec while a write of ours was on its way, and its generation.
    unheard: Option<(i64, SpecSeen)>,
    /// Artifact sets that the spec names.
    digests: Vec<String>,
    /// Reports that are answered when the status is written.
    reports: Vec<oneshot::Sender<ReportAnswer>>,
    /// Somebody applies it server-side: the API server is to know which fields are whose.
    is_applied: bool,
}

impl Component {
    fn new(shown: Shown<BootComponentStatus>, spec: &BootComponentSpec) -> Self {
        Self {
            shown,
            held: SpecShown::of(spec),
            submitted: None,
            ours: 0,
            unheard: None,
            digests: digests(spec),
            reports: Vec::new(),
            is_applied: false,
        }
    }

    /// Takes over what the server says the spec is; what it asks for is left.
    fn see_spec(&mut self, seen: SpecSeen) -> Wish {
        self.held = seen.held;
        self.digests = seen.digests;
        seen.wish
    }
}

/// What else became known with the answer to a write.
#[derive(Debug, Default)]
pub struct Written {
    /// What somebody asked for after it, meanwhile.
    pub asked: Option<Wish>,
    /// Somebody else has written the status since: ours is to be written again.
    pub overwritten: bool,
}

/// All objects.
#[derive(Debug)]
pub struct Views {
    components: HashMap<NodeId, Component>,
    sessions: HashMap<SessionUid, (Shown<SessionStatus>, Instant)>,
    creating: HashMap<NodeId, u64>,
    options: Option<Shown<BootOptionsStatus>>,
    last_version: u64,
    writer: StatusWriter,
}

impl Views {
    /// No objects yet.
    #[must_use]
    pub fn new(writer: StatusWriter) -> Self {
        Self { components: HashMap::new(), sessions: HashMap::new(), creating: HashMap::new(), options: None, last_version: 0, writer }
    }

    fn next_version(&mut self) -> u64 {
        self.last_version += 1;
        self.last_version
    }

    /// A BootComponent was seen. Its status counts only the first time, or where it stands in the way of our write of a version:
    /// then somebody else wrote it. Returns what its spec asks for, if that is not behind a write of ours.
    pub fn component_seen(&mut self, id: NodeId, object: &BootComponent, in_the_way: Option<u64>) -> Option<Wish> {
        let uid = object.uid().unwrap_or_default();
        let generation = object.metadata.generation.unwrap_or_default();
        let known = self.components.get_mut(&id).filter(|known| known.shown.uid == uid);
        if let Some(known) = known {
            known.is_applied = is_applied(object);
            let newest = generation >= known.shown.generation;
            known.shown.generation = known.shown.generation.max(generation);
            if let Some(version) = in_the_way {
                known.shown.adopt(object.status.clone().unwrap_or_default(), object.resource_version(), version);
                known.submitted = None;
                // A watch may have told of a newer spec already.
                let unheard = known.unheard.take();
                let spec = if newest { Some(SpecSeen::of(object)) } else { unheard.map(|(_, seen)| seen) };
                return spec.map(|seen| known.see_spec(seen));
            }
            known.shown.advance(object.resource_version(), object.status.as_ref());
            if generation < known.ours || !newest {
                return None;
            }
            if known.submitted.is_some() {
                known.unheard = Some((generation, SpecSeen::of(object)));
                return None;
            }
            return Some(known.see_spec(SpecSeen::of(object)));
        }
        let status = object.status.clone().unwrap_or_default();
        let shown = Shown::new(uid, object.resource_version(), generation, status);
        self.creating.remove(&id);
        self.components.insert(id, Component { is_applied: is_applied(object), ..Component::new(shown, &object.spec) });
        Some(convert::wish(object))
    }

    /// The status of a node that its agent writes: it is what the server holds, and what is to be shown.
    pub fn shown_by_agent(&mut self, id: NodeId, object: &BootComponent) {
        let Some(known) = self.components.get_mut(&id).filter(|known| Some(known.shown.uid.as_str()) == object.metadata.uid.as_deref())
        else {
            return;
        };
        let status = object.status.clone().unwrap_or_default();
        known.shown.adopt(status.clone(), object.resource_version(), u64::MAX);
        known.shown.want(status);
    }

    /// Whether a watch tells that somebody else wrote the status of a node. Call it before [`Views::component_seen`].
    pub fn notice_overwritten(&mut self, id: NodeId, object: &BootComponent) -> bool {
        let known = self.components.get_mut(&id).filter(|known| Some(known.shown.uid.as_str()) == object.metadata.uid.as_deref());
        let seen = object.metadata.resource_version.as_deref();
        known.is_some_and(|known| known.shown.notice_overwritten(seen, object.status.as_ref()))
    }

    /// Whether a node's BootComponent is another object than that of a write.
    #[must_use]
    pub fn is_another(&self, id: NodeId, uid: &str) -> bool {
        !uid.is_empty() && self.components.get(&id).is_some_and(|known| known.shown.uid != uid)
    }

    /// Whether a newer spec of this object has been seen.
    #[must_use]
    pub fn is_behind(&self, id: NodeId, object: &BootComponent) -> bool {
        let generation = object.metadata.generation.unwrap_or_default();
        self.is_known(id, object) && self.components.get(&id).is_some_and(|known| generation < known.shown.generation)
    }

    /// Whether this very object is known.
    #[must_use]
    pub fn is_known(&self, id: NodeId, object: &BootComponent) -> bool {
        self.components.get(&id).is_some_and(|known| Some(known.shown.uid.as_str()) == object.metadata.uid.as_deref())
    }

    /// A BootComponent is gone.
    pub fn component_gone(&mut self, id: NodeId) {
        self.components.remove(&id);
        self.creating.remove(&id);
    }

    /// Creates a BootComponent for a node that has none.
    pub fn create_component(&mut self, world: &World, id: NodeId) {
        if self.components.contains_key(&id) || self.creating.contains_key(&id) {
            return;
        }
        let Some(node) = world.node(id) else { return };
        let version = self.next_version();
        self.creating.insert(id, version);
        self.writer.submit(WriteJob {
            key: ObjectKey::cluster(Kind::BootComponent, &node.xname),
            uid: String::new(),
            resource_version: None,
            target: Target::Create,
            body: json!({}).into(),
            version,
            urgency: Urgency::Normal,
            not_before: None,
            untracked: false,
        });
    }

    /// Creation has ended: the node has a BootComponent now.
    pub fn created(&mut self, id: NodeId, version: u64, uid: &str, resource_version: &str, generation: i64) {
        if self.creating.get(&id) != Some(&version) {
            return;
        }
        self.creating.remove(&id);
        let shown = Shown::new(uid.to_owned(), Some(resource_version.to_owned()), generation, BootComponentStatus::default());
        self.components.entry(id).or_insert_with(|| Component::new(shown, &BootComponentSpec::default()));
    }

    /// Creation failed for good; it is tried again at the next inventory.
    pub fn not_created(&mut self, id: NodeId) {
        self.creating.remove(&id);
    }

    /// Projects a node and submits what has changed, spec first.
    ///
    /// `crowd` is how many nodes change together with this one: their writes are about to be queued too. True when it stands elsewhere
    /// than before, for another reason, or with another power: what its Session says of it has changed too.
    pub fn update_component(&mut self, world: &World, id: NodeId, crowd: usize, now: Timestamp) -> bool {
        let version = self.next_version();
        let Some(component) = self.components.get_mut(&id) else { return false };
        let Some(node) = world.node(id) else { return false };
        let key = || ObjectKey::cluster(Kind::BootComponent, &node.xname);
        let underway = component.submitted.as_ref().map_or(&component.held, |(_, spec)| spec);
        let wanted = underway.wanted(world, id);
        if !world.is_agent
            && *underway != wanted
            && let Some(body) = wanted.patch(world, id, [&component.held, underway])
        {
            component.submitted = Some((version, wanted));
            self.writer.submit(WriteJob {
                key: key(),
                uid: component.shown.uid.clone(),
                resource_version: component.shown.resource_version.clone(),
                target: Target::Spec,
                body: body.into(),
                version,
                urgency: Urgency::Normal,
                not_before: None,
                untracked: !component.is_applied,
            });
        }
        if !world.is_agent && world.is_shown_by_agent(id) {
            // Its agent writes that.
            return false;
        }
        let wanted = project::component(world, id, component.shown.wanted(), component.shown.generation, now);
        let before = component.shown.wanted();
        if wanted.status != before.status {
            log_transition(node, before.status, &wanted);
        }
        let moved = (wanted.status, &wanted.reason, wanted.power) != (before.status, &before.reason, before.power);
        component.shown.want(wanted);
        let wanted = component.shown.wanted();
        let awaited = !component.reports.is_empty();
        let urgent = awaited || wanted.status == Some(NodeStatus::Failed);
        if component.submitted.is_some() && !urgent {
            // The write of the spec makes a new generation, for which the status would have to be written once more.
            return moved;
        }
        let version = version + 1;
        self.last_version = version;
        // What will change soon may wait, and be skipped; what lasts is written at once.
        let passing = wanted.enabled && wanted.status != Some(NodeStatus::OnHold) && !awaited;
        let first = wanted.enabled && !component.shown.written().enabled && !awaited;
        let queued = u32::try_from(self.writer.backlog().max(crowd)).unwrap_or(u32::MAX);
        if let Some(body) = component.shown.patch(version) {
            let submitted = self.writer.submit(WriteJob {
                key: key(),
                uid: component.shown.uid.clone(),
                resource_version: component.shown.resource_version.clone(),
                target: Target::Status,
                body,
                version,
                urgency: if urgent { Urgency::Urgent } else { Urgency::Normal },
                not_before: (passing || first).then(|| Instant::now() + LASTING + PER_QUEUED_WRITE.saturating_mul(queued)),
                untracked: false,
            });
            component.shown.submitted(submitted);
        }
        moved
    }

    /// Whether the status of a node waits for the write of its spec, of which nothing is to be changed. That of one that failed does not
    /// wait, nor one that a report waits for.
    #[must_use]
    pub fn is_held_up(&self, world: &World, id: NodeId) -> bool {
        let Some(component) = self.components.get(&id).filter(|component| component.reports.is_empty()) else { return false };
        component.submitted.as_ref().is_some_and(|(_, spec)| spec.wanted(world, id) == *spec) && !world.has_failed(id)
    }

    /// What is to be shown as applied of a node.
    #[cfg(test)]
    pub(crate) fn applied(&self, id: NodeId) -> Option<&str> {
        self.components.get(&id)?.shown.wanted().applied_staged.as_deref()
    }

    /// Few statuses are written as long as what is returned lives.
    #[must_use]
    pub fn give_way(&self) -> GiveWay {
        self.writer.give_way()
    }

    /// A report is answered once the node's status is written. Call [`Views::answer_settled`] after the projection.
    pub fn await_status(&mut self, world: &World, id: NodeId, answer: oneshot::Sender<ReportAnswer>) {
        let (Some(component), Some(node)) = (self.components.get_mut(&id), world.node(id)) else {
            let _ = answer.send(ReportAnswer::UnknownNode);
            return;
        };
        reports::wait(&mut component.reports, answer);
        if !component.shown.is_current() {
            // Behind the statuses of ten thousand nodes it would be told to come again.
            self.writer.hurry(&ObjectKey::cluster(Kind::BootComponent, &node.xname));
        }
    }

    /// Answers the reports of a node whose status is written.
    pub fn answer_settled(&mut self, id: NodeId) {
        let Some(component) = self.components.get_mut(&id).filter(|component| component.shown.is_current()) else { return };
        for answer in component.reports.drain(..) {
            let _ = answer.send(ReportAnswer::Stored);
        }
    }

    /// A write of a BootComponent arrived.
    pub fn component_written(&mut self, id: NodeId, target: Target, version: u64, resource_version: &str, generation: i64) -> Written {
        let mut written = Written::default();
        let Some(component) = self.components.get_mut(&id) else { return written };
        match target {
            Target::Status => written.overwritten = component.shown.acknowledged(version, resource_version, generation),
            Target::Spec | Target::Create => {
                component.ours = component.ours.max(generation);
                component.shown.reached(resource_version, generation);
                if let Some((_, spec)) = component.submitted.take_if(|(submitted, _)| *submitted == version) {
                    component.held = spec;
                    if let Some((_, seen)) = component.unheard.take().filter(|(seen, _)| *seen >= generation) {
                        written.asked = Some(component.see_spec(seen));
                    }
                }
            }
        }
        self.answer_settled(id);
        written
    }

    /// The run that the spec of a node names, as far as the server is known to hold it.
    #[must_use]
    pub fn run_held(&self, id: NodeId) -> Option<&Arc<str>> {
        self.components.get(&id)?.held.run()
    }

    /// Whether the server holds what a node's spec should say, and nothing of it is on its way: an agent finds the node by it.
    #[must_use]
    pub fn is_written(&self, world: &World, id: NodeId) -> bool {
        let Some(component) = self.components.get(&id) else { return false };
        component.submitted.is_none() && component.held.wanted(world, id) == component.held && component.shown.is_current()
    }

    /// Whether everything about a node is on the server. A node without BootComponent has nothing to be written.
    #[must_use]
    pub fn component_settled(&self, id: NodeId) -> bool {
        self.components.get(&id).is_none_or(|component| component.submitted.is_none() && component.shown.is_current())
    }

    /// A Session was seen. Its status counts only the first time, or where it stands in the way of our write of a version. True
    /// when somebody else wrote it, so that ours is to be written again.
    pub fn session_seen(&mut self, object: &bos_crds::Session, in_the_way: Option<u64>) -> bool {
        let Some(uid) = object.uid() else { return false };
        let key = SessionUid(uid.as_str().into());
        let status = object.status.clone().unwrap_or_default();
        let generation = object.metadata.generation.unwrap_or_default();
        match (self.sessions.get_mut(&key), in_the_way) {
            (Some((shown, _)), Some(version)) => {
                shown.adopt(status, object.resource_version(), version);
                return true;
            }
            (Some((shown, _)), None) => {
                let overwritten = shown.notice_overwritten(object.metadata.resource_version.as_deref(), object.status.as_ref());
                shown.advance(object.resource_version(), object.status.as_ref());
                shown.generation = shown.generation.max(generation);
                return overwritten;
            }
            (None, _) => {
                let begun = Instant::now().checked_sub(SESSION_PACE).unwrap_or_else(Instant::now);
                let mut shown = Shown::new(uid, object.resource_version(), generation, status);
                // Who created it is told once: admission wrote it down then, and nobody changes it later.
                let requested_by = object.annotations().get(labels::REQUESTED_BY).map(|who| bounded(who, REQUESTED_BY_MAX));
                let requested_by = shown.wanted().requested_by.clone().or(requested_by);
                shown.want(SessionStatus { requested_by, ..shown.wanted().clone() });
                self.sessions.insert(key, (shown, begun));
            }
        }
        false
    }

    /// The options were taken up: says so in their status, with what cannot be used.
    pub fn options_taken(&mut self, object: &BootOptions, problems: Vec<String>, doubts: &[String], now: Timestamp) {
        let (version, uid) = (self.next_version(), object.uid().unwrap_or_default());
        let generation = object.metadata.generation.unwrap_or_default();
        if self.options.as_ref().is_none_or(|shown| shown.uid != uid) {
            self.options = Some(Shown::new(uid, object.resource_version(), generation, object.status.clone().unwrap_or_default()));
        }
        let Some(shown) = self.options.as_mut() else { return };
        shown.advance(object.resource_version(), object.status.as_ref());
        let (status, reason) =
            if problems.is_empty() { (ConditionStatus::True, reasons::IN_FORCE) } else { (ConditionStatus::False, reasons::INVALID_VALUE) };
        let first = if problems.is_empty() { "Every value is in force.".to_owned() } else { format!("{}.", problems.join("; ")) };
        let message = std::iter::once(first).chain(doubts.iter().map(|doubt| format!("{doubt}."))).collect::<Vec<_>>().join(" ");
        let message = bounded(&message, TEXT_MAX);
        let ready = NewCondition { type_: conditions::READY, status, reason, message, observed_generation: Some(generation) };
        let mut status = shown.wanted().clone();
        set_condition(&mut status.conditions, &ready, now.wall());
        status.observed_generation = generation;
        status.problems = problems;
        shown.want(status);
        if let Some(body) = shown.patch(version) {
            let submitted = self.writer.submit(WriteJob {
                key: ObjectKey::cluster(Kind::BootOptions, object.name_any()),
                uid: shown.uid.clone(),
                resource_version: shown.resource_version.clone(),
                target: Target::Status,
                body,
                version,
                urgency: Urgency::Normal,
                not_before: None,
                untracked: false,
            });
            shown.submitted(submitted);
        }
    }

    /// A write of the options arrived; after a conflict the watch brings them again.
    pub fn options_written(&mut self, outcome: &WriteOutcome, version: u64) {
        match (outcome, self.options.as_mut()) {
            (WriteOutcome::Written { resource_version, generation, .. }, Some(shown)) => {
                // Of no consequence: it is written anew with the next change.
                let _overwritten = shown.acknowledged(version, resource_version, *generation);
            }
            (WriteOutcome::Conflict { .. } | WriteOutcome::Gone | WriteOutcome::Refused { .. }, _) => self.options = None,
            (WriteOutcome::Written { .. }, None) => {}
        }
    }

    /// Nodes that are shown as driven.
    pub fn driven(&self) -> impl Iterator<Item = NodeId> {
        self.components.iter().filter(|(_, component)| component.shown.wanted().enabled).map(|(id, _)| *id)
    }

    /// A Session is gone.
    pub fn session_gone(&mut self, uid: &SessionUid) {
        self.sessions.remove(uid);
    }

    /// Projects a Session and submits what has changed. None when it was not its turn yet.
    pub fn update_session(&mut self, world: &World, session: &Session, last: bool, now: Timestamp) -> Option<SessionChange> {
        let version = self.next_version();
        let Some((shown, submitted)) = self.sessions.get_mut(&session.uid) else { return Some(SessionChange::default()) };
        // While its nodes are switched already it is not said to be set up.
        let begun = session.running().is_some() && shown.wanted().start_time.is_none();
        if !last && !begun && submitted.elapsed() < SESSION_PACE {
            return None;
        }
        let wanted = project_session::session(world, session, shown.wanted(), now);
        let change = SessionChange::between(shown.wanted(), &wanted);
        shown.want(wanted);
        if let Some(body) = shown.patch(version) {
            *submitted = Instant::now();
            let submitted = self.writer.submit(WriteJob {
                key: ObjectKey::namespaced(Kind::Session, Arc::clone(&session.namespace), Arc::clone(&session.name)),
                uid: shown.uid.clone(),
                resource_version: shown.resource_version.clone(),
                target: Target::Status,
                body,
                version,
                urgency: Urgency::Urgent,
                not_before: None,
                untracked: false,
            });
            shown.submitted(submitted);
        }
        Some(change)
    }

    /// A write of a Session arrived. True when somebody else has written its status since, so that ours is to be written again.
    pub fn session_written(&mut self, uid: &SessionUid, version: u64, resource_version: &str, generation: i64) -> bool {
        self.sessions.get_mut(uid).is_some_and(|(shown, _)| shown.acknowledged(version, resource_version, generation))
    }

    /// Whether the newest status of a Session is on the server.
    #[must_use]
    pub fn session_settled(&self, uid: &SessionUid) -> bool {
        self.sessions.get(uid).is_none_or(|(shown, _)| shown.is_current())
    }

    /// Nodes and Sessions as they are shown, and the writes that wait, for metrics.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for status in self.components.values().map(|component| component.shown.wanted()) {
            *counts.statuses.entry(status.status.map_or("Unknown", NodeStatus::as_str)).or_default() += 1;
            *counts.phases.entry(status.phase.map_or("None", NodePhase::as_str)).or_default() += 1;
            match status.status {
                Some(NodeStatus::Failed) => count_word(&mut counts.failed, &status.reason),
                Some(NodeStatus::OnHold) => count_word(&mut counts.on_hold, &status.reason),
                _ => {}
            }
        }
        for (shown, _) in self.sessions.values() {
            let phase = shown.wanted().phase.map_or("Pending", SessionPhase::as_str);
            *counts.sessions.entry(phase).or_default() += 1;
        }
        counts.status_queue = u64::try_from(self.writer.queue_len()).unwrap_or(u64::MAX);
        counts.status_queue_age = self.writer.oldest_age();
        counts
    }

    /// Artifact sets that BootComponents refer to.
    pub fn referred(&self) -> impl Iterator<Item = &str> {
        self.components.values().flat_map(|component| {
            let runs = component.shown.wanted().actual_state.as_ref().and_then(|actual| actual.artifacts.as_deref());
            runs.into_iter().chain(component.digests.iter().map(String::as_str))
        })
    }
}

/// Of managedFields, what is read keeps only those of objects that are applied server-side.
fn is_applied(object: &BootComponent) -> bool {
    !object.managed_fields().is_empty()
}

fn count_word(counts: &mut BTreeMap<String, u64>, word: &str) {
    match counts.get_mut(word) {
        Some(count) => *count += 1,
        None => drop(counts.insert(word.to_owned(), 1)),
    }
}

/// One line per change, so that a node's history can be read from the log alone.
fn log_transition(node: &Node, before: Option<NodeStatus>, status: &BootComponentStatus) {
    let (xname, batch) = (node.xname.as_str(), node.last_batch.map(|batch| batch.0));
    let session = status.last_session.as_ref().map(|session| format!("{}/{}", session.namespace, session.name)).unwrap_or_default();
    let from = before.map_or("", NodeStatus::as_str);
    let to = status.status.map_or("", NodeStatus::as_str);
    tracing::info!(xname, session, batch, from, to, why = status.reason.as_str(), text = status.message.as_str(), "node");
}
