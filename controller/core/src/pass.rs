//! One pass of all operators, and what their wants do to the World.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::{Batch, BatchId, BatchState, Member, Work};
use crate::by_phase::ByPhase;
use crate::model::{Drive, End, EndKind, Issued, LastRun, NodeId, Phase, PowerAction, Prepared, Script, SessionUid, World};
use crate::session::{Ended, Session, SessionEnd, Stage};
use crate::time::Timestamp;
use crate::want::{Decision, Effect, Want};
use crate::{
    actual_state_cleanup, by_hand, configuration, discovery, forceful_power_off, graceful_power_off, power_on, session_cleanup,
    session_completion, session_setup, staging, status,
};

/// An operator: looks at the World, says what it wants.
enum Operator {
    /// Decides for the nodes, and tells which of them may be acted on, by phase.
    Decides(fn(&World, Timestamp) -> (Vec<Want>, ByPhase)),
    /// Acts on the nodes of one phase, and moves none to another.
    Acts(fn(&World, &ByPhase, Timestamp) -> Vec<Want>),
    /// Any other.
    Else(fn(&World, Timestamp) -> Vec<Want>),
}

/// The operators in the order in which they run; each sees what those before it decided.
const OPERATORS: [(&str, Operator); 12] = [
    ("discovery", Operator::Else(discovery::reconcile)),
    ("session-setup", Operator::Else(session_setup::reconcile)),
    ("status", Operator::Decides(status::reconcile)),
    ("power-on", Operator::Acts(power_on::reconcile)),
    ("graceful-power-off", Operator::Acts(graceful_power_off::reconcile)),
    ("forceful-power-off", Operator::Acts(forceful_power_off::reconcile)),
    ("configuration", Operator::Acts(configuration::reconcile)),
    ("by-hand", Operator::Else(by_hand::reconcile)),
    ("staging", Operator::Else(staging::reconcile)),
    ("session-completion", Operator::Else(session_completion::reconcile)),
    ("session-cleanup", Operator::Else(session_cleanup::reconcile)),
    ("actual-state-cleanup", Operator::Else(actual_state_cleanup::reconcile)),
];

/// Those of them that an agent runs: set-up, what people ask of nodes, and what is over are the operator's.
const AGENTS: [&str; 7] =
    ["discovery", "status", "power-on", "graceful-power-off", "forceful-power-off", "configuration", "session-completion"];

/// Attempts given back at most, so that a service that loses every answer cannot keep a session going for ever.
pub(crate) const MAX_REFUNDS: u8 = 16;

/// A Session that could not be removed is tried again after this.
const REMOVAL_RETRY: Duration = Duration::from_secs(60);

/// Decisions of one pass may lead to others at once; this many rounds at most, the rest waits for the next pass.
const ROUNDS: usize = 6;

/// Runs all operators until they want nothing more, and returns what must leave the process.
pub fn run(world: &mut World, now: Timestamp) -> Vec<Effect> {
    let mut effects = Vec::new();
    for _ in 0..ROUNDS {
        let mut decided = false;
        let is_agent = world.is_agent;
        let (mut found, mut by_phase) = (ByPhase::default(), None);
        for (_, operator) in OPERATORS.iter().filter(|(name, _)| !is_agent || AGENTS.contains(name)) {
            let wants = match operator {
                Operator::Decides(reconcile) => {
                    let (wants, phases) = reconcile(world, now);
                    found = phases;
                    wants
                }
                Operator::Acts(reconcile) => {
                    let by_phase = by_phase.get_or_insert_with(|| std::mem::take(&mut found).completed(world, now));
                    reconcile(world, by_phase, now)
                }
                Operator::Else(reconcile) => reconcile(world, now),
            };
            for want in wants {
                decided |= matches!(want, Want::Decide(..) | Want::EndSession(..));
                effects.extend(world.accept(want, now));
            }
        }
        if !decided {
            break;
        }
    }
    effects.extend(follow_due(world, now));
    effects
}

/// Transitions to look at now.
fn follow_due(world: &mut World, now: Timestamp) -> Vec<Effect> {
    if !world.services.may_call(world.power_service.service(), now) {
        return Vec::new();
    }
    let mut effects = Vec::new();
    for batch in world.batches.values_mut() {
        if let BatchState::Following { next, reading, .. } = &mut batch.state
            && !*reading
            && now >= *next
        {
            *reading = true;
            effects.push(Effect::Follow(batch.id));
        }
    }
    effects
}

impl World {
    /// Makes a want true in the World; returns what must leave the process.
    pub fn accept(&mut self, want: Want, now: Timestamp) -> Option<Effect> {
        match want {
            Want::ReadInventory => {
                self.discovery.reading = true;
                self.discovery.began = now;
                return Some(Effect::ReadInventory);
            }
            Want::SetUp(uid) => {
                if let Stage::Pending(pending) = &mut self.sessions.get_mut(&uid)?.stage {
                    pending.reading = true;
                    return Some(Effect::SetUp(uid));
                }
            }
            Want::Wait(uid, waiting) => {
                if let Stage::Pending(pending) = &mut self.sessions.get_mut(&uid)?.stage {
                    pending.waiting = waiting;
                    self.touched_sessions.insert(uid);
                }
            }
            Want::EndSession(uid, end) => self.end_session(&uid, end),
            Want::ReadPower(nodes) => {
                self.mark_reading(&nodes, |node| &mut node.reading_power);
                self.power_reads.begin(now);
                return Some(Effect::ReadPower(nodes));
            }
            Want::ReadConfiguration(nodes) => {
                self.mark_reading(&nodes, |node| &mut node.reading_config);
                self.config_reads.begin(now);
                return Some(Effect::ReadConfiguration(nodes));
            }
            Want::ReadStates(nodes) => {
                self.mark_reading(&nodes, |node| &mut node.reading_state);
                self.state_reads.begin(now);
                return Some(Effect::ReadStates(nodes));
            }
            Want::ReadScripts(nodes) => {
                self.script_reads.begin(now);
                return Some(Effect::ReadScripts(nodes));
            }
            Want::Decide(node, decision) => self.decide(node, decision, now),
            Want::MassTimeout(uid) => {
                self.sessions.get_mut(&uid)?.running_mut()?.mass_timeout.get_or_insert(now);
                self.touched_sessions.insert(uid);
            }
            Want::Expire(nodes) => {
                self.reports.looked = now;
                for id in nodes {
                    if let Some(report) = self.node_mut(id).and_then(|node| node.reported.as_mut()) {
                        report.expired = true;
                    }
                }
            }
            Want::RemoveSession(uid) => {
                if let Stage::Ended(ended) = &mut self.sessions.get_mut(&uid)?.stage {
                    ended.remove_not_before = now + REMOVAL_RETRY;
                    return Some(Effect::RemoveSession(uid));
                }
            }
            Want::DriveByHand(group) => drop(self.drive_by_hand(group, now)),
            Want::DriveAgain(node) => self.drive_again(node, now),
            Want::Refuse(node, message) => self.refuse_asked(node, message),
            Want::ApplyStaged(nodes) => self.apply_asked(&nodes, now),
            Want::Unstage(uid) => self.unstage_all(&uid, now),
            Want::Open { session, boot_set, work, nodes } => return self.open(session, boot_set, work, nodes, now),
        }
        None
    }

    fn mark_reading(&mut self, nodes: &[NodeId], flag: impl Fn(&mut crate::model::Node) -> &mut bool) {
        for id in nodes {
            if let Some(node) = self.nodes.get_mut(id.0 as usize) {
                *flag(node) = true;
            }
        }
    }

    fn end_session(&mut self, uid: &SessionUid, end: SessionEnd) {
        let Some(session) = self.sessions.get_mut(uid) else { return };
        let stage = std::mem::replace(&mut session.stage, Stage::Ended(Box::new(Ended::new(end, None))));
        if let (Stage::Running(run), Stage::Ended(ended)) = (stage, &mut session.stage) {
            ended.run = Some(run);
        }
        self.touched_sessions.insert(uid.clone());
        self.journal_due.insert(uid.clone());
    }

    /// Carries out one decision of the status operator.
    pub(crate) fn decide(&mut self, id: NodeId, decision: Decision, now: Timestamp) {
        if let Decision::End(kind, reason, message) = decision {
            self.end_node(id, End { kind, reason, message, at: now });
            return;
        }
        let Some(drive) = self.node_mut(id).and_then(|node| node.drive.as_mut()) else { return };
        let uid = drive.session.clone();
        let (index, cycle) = (drive.index as usize, decision == Decision::Cycle);
        let silent = matches!(decision, Decision::CycleSilent(_));
        match decision {
            Decision::Hold(hold) => drive.hold = Some(hold),
            Decision::Release => drive.hold = None,
            Decision::Enter(phase) => drive.enter(phase),
            Decision::Cycle => drive.enter(Phase::PoweringOff),
            Decision::CycleSilent(why) => {
                drive.enter(Phase::PoweringOff);
                drive.error = Arc::from("");
                drive.cause = why;
            }
            Decision::ActionFailed { refund, error } => drive.action_failed(refund, error),
            Decision::AlreadyBooted => {
                drive.booted = Some(now);
                // A shutdown that was asked for in vain is given up.
                if drive.action.is_some_and(|issued| issued.action != PowerAction::On) {
                    drive.forget_action();
                }
            }
            Decision::End(..) => {}
        }
        drive.since = now;
        let wait = self.options.configuration_wait;
        if let Some(drive) = self.node_mut(id).and_then(|node| node.drive.as_mut())
            && drive.phase == Phase::Configuring
        {
            drive.configured_by.get_or_insert(now + wait);
        }
        self.touched_sessions.insert(uid.clone());
        self.journal_due.insert(uid.clone());
        let Some(run) = self.sessions.get_mut(&uid).and_then(|session| session.running_mut()) else { return };
        if let Some(slot) = run.slots.get_mut(index) {
            slot.power_cycled |= cycle;
        }
        if silent {
            count(&mut run.timeout_cycles, now, 1);
        }
    }

    /// A node's part in its session is over.
    pub(crate) fn end_node(&mut self, id: NodeId, end: End) {
        let limit = self.nodes.get(id.0 as usize).map_or(0, |node| self.retry_limit(node));
        let left = self.left_behind(id, end.kind).map(Box::new);
        // What has not left will not.
        let Some(drive) = self.so_far(id).map(Cow::into_owned) else { return };
        if let Some(node) = self.node_mut(id) {
            node.drive = None;
        }
        let uid = drive.session.clone();
        self.touched_sessions.insert(uid.clone());
        self.journal_due.insert(uid.clone());
        let Some(session) = self.sessions.get_mut(&uid) else { return };
        let (namespace, name, by_hand) = (session.namespace.clone(), session.name.clone(), session.by_hand);
        let configuration = (end.kind == EndKind::Succeeded).then(|| session.configuration_of(drive.boot_set)).flatten();
        if let Some(slot) = session.running_mut().and_then(|run| run.slots.get_mut(drive.index as usize)) {
            // Decided, but let go before anything was sent, or without effect.
            let in_vain = end.kind == EndKind::Failed && drive.phase == Phase::PoweringOff;
            slot.power_cycled &= slot.cycled || (end.kind != EndKind::LeftRunning && drive.attempts.any_off() && !in_vain);
            slot.cycled |= drive.cycled();
            slot.reached = drive.phase;
            slot.end = Some(Box::new(end.clone()));
            slot.left.clone_from(&left);
        }
        let Some(node) = self.node_mut(id) else { return };
        node.left = left;
        node.config = None;
        node.failed_in = (end.kind == EndKind::Failed && !by_hand).then(|| (namespace.clone(), name.clone()));
        let Drive { run, attempts, action, earlier, phase, .. } = drive;
        let last = LastRun { session: uid, run, by_hand, namespace, name, end, attempts, limit, action, earlier, phase, configuration };
        node.last = Some(Box::new(last));
        if node.replaced {
            node.forget_hardware();
        }
    }

    fn open(&mut self, session: SessionUid, boot_set: u16, work: Work, mut nodes: Vec<NodeId>, now: Timestamp) -> Option<Effect> {
        nodes.sort_unstable();
        self.last_batch += 1;
        let id = BatchId(self.last_batch);
        let mut members = Vec::with_capacity(nodes.len());
        let by_agent = self.sessions.get(&session).and_then(Session::run).is_some_and(|run| run.plan.agent);
        let boot_wait = if by_agent { self.options.v1_boot_wait } else { self.options.max_boot_wait };
        let spans = (self.options.max_power_on_wait, boot_wait, self.options.max_power_off_wait);
        for node_id in nodes {
            let Some(node) = self.node_mut(node_id) else { continue };
            let Some(drive) = node.drive.as_mut().filter(|drive| drive.session == session) else { continue };
            if node.batch.is_some() {
                continue;
            }
            members.push(Member { node: node_id, before: drive.action });
            node.batch = Some(id);
            if let Work::Power(action) = work {
                let power_by = now + if action == PowerAction::On { spans.0 } else { spans.2 };
                drive.earlier = drive.last_action();
                drive.action =
                    Some(Issued { action, at: now, decided: now, power_by, boot_by: now + spans.1, accepted: false, failed: false });
                let attempts = drive.attempts.of(action);
                *attempts = attempts.saturating_add(1);
                drive.last_on = if action == PowerAction::On { Some(now) } else { drive.last_on };
                // What HSM called it while it was off counts for an agent, which looks then: one that is killed now may find it Ready at once.
                let before = node.state.is_some_and(|seen| !seen.ready && seen.at >= drive.held_since);
                drive.down_seen = by_agent && action == PowerAction::On && before;
                drive.script = Script::NotAsked;
                drive.since = now;
                drive.error = "".into();
            }
        }
        if members.is_empty() {
            return None;
        }
        if work == Work::Power(PowerAction::On)
            && let Some(run) = self.sessions.get_mut(&session).and_then(|session| session.running_mut())
        {
            count(&mut run.paced, now, u32::try_from(members.len()).unwrap_or(u32::MAX));
        }
        self.journal_due.insert(session.clone());
        self.touched_sessions.insert(session.clone());
        self.batches.insert(id, Batch { id, session, boot_set, work, nodes: members, opened: now, state: BatchState::Recording });
        Some(Effect::Record(id))
    }

    /// The node is given to a session: it is observed anew, from `now` on, before anything is done to it.
    pub(crate) fn take(&mut self, id: NodeId, session: &SessionUid, index: u32, boot_set: u16, now: Timestamp) {
        let (mut run, mut applied) = (session.0.clone(), false);
        if let Some(slot) =
            self.sessions.get_mut(session).and_then(|known| known.running_mut()).and_then(|run| run.slots.get_mut(index as usize))
        {
            slot.taken = true;
            run = slot.run.clone().unwrap_or(run);
            applied = slot.applied.is_some();
        }
        let known = self.sessions.get(session);
        applied |= known.and_then(Session::run).and_then(|run| run.plan.by_hand.as_ref()).is_some_and(|by_hand| by_hand.applied);
        let before = self.node(id).and_then(|node| node.owner.clone());
        let ours = known.map(|known| known.as_owner(index));
        let owned = ours.as_ref().map_or_else(Timestamp::default, |ours| ours.created);
        let owner = ours.map(|ours| self.newer(ours, before));
        self.answer_asked(id, session, &run, owned);
        let Some(node) = self.node_mut(id) else { return };
        node.config = None;
        node.failed_in = None;
        node.replaced = false;
        node.last_batch = None;
        node.owner = owner.or(node.owner.take());
        node.drive = Some(Drive {
            session: session.clone(),
            index,
            boot_set,
            run,
            applied,
            held_since: now,
            phase: Phase::None,
            action: None,
            earlier: None,
            attempts: crate::model::Attempts::default(),
            last_on: None,
            params: Prepared::No,
            config: Prepared::No,
            down_seen: false,
            script: Script::NotAsked,
            booted: None,
            configured_by: None,
            hold: None,
            together: 0,
            not_before: now,
            refunds: 0,
            inherited: Vec::new(),
            in_flight: None,
            cause: Arc::from(""),
            error: Arc::from(""),
            since: now,
        });
    }

    /// Ends the older session's part in a node that a newer one takes.
    pub(crate) fn supersede(&mut self, id: NodeId, by: &str, now: Timestamp) {
        let message: Arc<str> = format!("Taken over by {by}.").into();
        let end = End { kind: EndKind::Superseded, reason: bos_crds::reasons::SUPERSEDED.into(), message, at: now };
        self.end_node(id, end);
    }
}

/// Adds to the newest entry of the same instant, so that such lists stay short.
fn count(list: &mut Vec<(Timestamp, u32)>, now: Timestamp, nodes: u32) {
    const KEPT: usize = 256;
    match list.last_mut() {
        Some((at, total)) if *at == now => *total = total.saturating_add(nodes),
        _ => list.push((now, nodes)),
    }
    if list.len() > KEPT {
        list.remove(0);
    }
}

impl Drive {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.hold = None;
        match phase {
            Phase::PoweringOn => {
                self.params = Prepared::No;
                self.config = Prepared::No;
                self.booted = None;
                self.forget_action();
                // It went off, whoever was booting it.
                self.in_flight = None;
            }
            Phase::PoweringOff => {
                self.booted = None;
                // The boot that did not come up is judged; what follows is the power-off.
                self.forget_action();
            }
            Phase::None | Phase::Configuring => {}
        }
    }

    fn action_failed(&mut self, refund: bool, error: Arc<str>) {
        let Some(issued) = self.action.as_mut() else { return };
        issued.failed = true;
        if refund && self.refunds < MAX_REFUNDS {
            self.refunds += 1;
            let attempts = self.attempts.of(issued.action);
            *attempts = attempts.saturating_sub(1);
            if issued.action == PowerAction::SoftOff {
                // It is asked again, not forced.
                self.forget_action();
            }
        }
        // A new power-on needs a new token, so that a report proves this boot and no other.
        self.params = Prepared::No;
        self.config = Prepared::No;
        if self.error.is_empty() {
            self.error = error;
        }
    }
}
