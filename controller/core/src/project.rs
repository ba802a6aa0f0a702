//! What people see of a node: the status of its BootComponent, derived from the World and from what was shown before.

mod words;

use std::sync::Arc;

use bos_crds::conditions::{self, ConditionStatus, NewCondition, set_condition};
use bos_crds::{
    ActualState, Attempts, BootComponentStatus, LastAction, LastSession, NodePhase, NodeStatus, PowerState, Time, bounded, reasons,
    schema::COMPONENT_MESSAGE_MAX,
};
use smol_str::{SmolStr, format_smolstr};

use crate::health::Service;
use crate::model::{Drive, EndKind, Issued, LastRun, Node, NodeId, Owner, Phase, Power, PowerAction, Prepared, SessionUid, World};
use crate::plan::Evidence;
use crate::session::Session;
use crate::status::hold_reason;
use crate::time::Timestamp;

pub(crate) use words::{is_kept_off, pace};

/// `lastSession.outcome` of a node that failed in its last session: what `retryOf` looks for.
pub const LAST_FAILED: &str = "Failed";

/// The stop switch, as people find it.
pub(crate) fn stop_switch(world: &World) -> String {
    format!("ConfigMap {} in namespace {}", bos_crds::labels::EMERGENCY_STOP, world.install_namespace)
}

/// What was written into the stop switch, for the end of a sentence about it.
pub(crate) fn stop_note(world: &World) -> String {
    if world.stop_note.is_empty() { String::new() } else { format!(": {:?}", world.stop_note) }
}

/// Hardware addresses that are kept: enough to tell one node from another.
const MACS_MAX: usize = 16;

/// Status, reason and words for one node.
struct Shown {
    status: NodeStatus,
    phase: Option<NodePhase>,
    reason: SmolStr,
    /// Why it came to this status, where that is something else than what it waits for now.
    because: Option<&'static str>,
    message: String,
    next: String,
}

/// The status to show of a node, given what was shown last.
#[must_use]
pub fn component(world: &World, id: NodeId, before: &BootComponentStatus, generation: i64, now: Timestamp) -> BootComponentStatus {
    let mut status = before.clone();
    let Some(node) = world.node(id) else { return status };
    // By somebody else's hand: we leave the phase out where nothing is done.
    status.phase = status.phase.filter(|phase| *phase != NodePhase::None);
    status.observed_generation = generation;
    facts(world, node, &mut status, now);
    observations(world, node, &mut status);
    let driven_by = world.driver(id).and_then(|(session, _)| Some((session, world.so_far(id)?)));
    let shown = match driven_by {
        Some((session, drive)) => {
            driven(world, node, &drive, session, &mut status);
            Some(show_driven(world, node, &drive, session, now))
        }
        None => node.last.as_ref().map(|last| {
            rested(last, &mut status);
            show_rested(node, last)
        }),
    };
    status.run = node.asked.answer().cloned().map(SmolStr::from);
    status.applied_staged = node.asked.applied.clone().map(SmolStr::from);
    status.owned_since = node.owner.as_ref().and_then(Owner::since_by_hand).map(time);
    if node.drive.is_none() {
        status.next = said(&asked(world, node));
    }
    let shown = shown.or_else(|| newly_discovered(world, node, &mut status)).or_else(|| records_lost(&mut status));
    let Some(shown) = shown else { return status };
    if before.status != Some(shown.status) {
        let at = node.drive.as_ref().map_or(now, |drive| drive.since.max(Timestamp::from_millis(0)));
        status.change_status(shown.status, shown.because.unwrap_or(&shown.reason), time(at));
    }
    status.phase = shown.phase;
    status.reason = shown.reason;
    status.message = said(&shown.message);
    if node.drive.is_some() {
        // What was asked meanwhile and is not done comes first.
        let parts = [&*node.asked.refused, &shown.next];
        let next = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
        status.next = said(&next);
    }
    status
}

/// A text within the bound of the schema.
fn said(text: &str) -> SmolStr {
    if text.len() <= COMPONENT_MESSAGE_MAX { text.into() } else { bounded(text, COMPONENT_MESSAGE_MAX).into() }
}

/// What becomes of a node that is not driven: what was asked of it and is not done, or what waits there.
fn asked(world: &World, node: &Node) -> String {
    if !node.asked.refused.is_empty() {
        return node.asked.refused.to_string();
    }
    if node.suspended {
        return "Held by spec.suspend of this object: nothing is sent to it until that is false.".to_owned();
    }
    if node.asked.is_open() && world.discovery.accepted < node.asked.since {
        let why = world.discovery.fault.as_deref().unwrap_or("HSM is being asked for its inventory first.");
        return format!("What was asked of it begins when HSM has told of all nodes anew. {why}");
    }
    match node.staged.as_ref().and_then(|(uid, _)| world.sessions.get(uid)) {
        Some(session) => format!("{} as Session {} staged, once that is applied.", session.spec.operation.as_str(), session.title()),
        None => String::new(),
    }
}

fn time(at: Timestamp) -> Time {
    Time(at.wall())
}

fn facts(world: &World, node: &Node, status: &mut BootComponentStatus, now: Timestamp) {
    in_inventory(node, world, status, now);
    let Some(facts) = &node.facts else { return };
    status.nid = facts.nid.filter(|nid| *nid >= 0);
    status.macs = node.macs.iter().take(MACS_MAX).cloned().map(SmolStr::from).collect();
    status.arch.clone_from(&facts.arch);
    status.role = match (&facts.role, &facts.sub_role) {
        (Some(role), Some(sub)) => Some(format_smolstr!("{role}_{sub}")),
        (Some(role), None) => Some(role.clone()),
        (None, _) => None,
    };
}

/// Of a node that was removed, and of one that somebody made up.
const NOT_LISTED: &str = "HSM does not list this node. If it was removed for good, or its name is a mistake, delete this object.";

/// Said only where it does not hold: of ten thousand nodes in their places nobody needs to be told.
fn in_inventory(node: &Node, world: &World, status: &mut BootComponentStatus, now: Timestamp) {
    let empty = node.facts.as_ref().is_some_and(crate::discovery::is_empty);
    let (reason, message) = match &node.facts {
        None if !world.discovery.complete => return,
        None => (reasons::NOT_IN_HSM, NOT_LISTED),
        Some(_) if empty => {
            (reasons::EMPTY_IN_HSM, "HSM says that the slot is empty. What is known of the node holds until another one is there.")
        }
        Some(_) => return status.conditions.retain(|known| known.type_ != conditions::IN_INVENTORY),
    };
    let new = NewCondition {
        type_: conditions::IN_INVENTORY,
        status: ConditionStatus::False,
        reason,
        message: message.to_owned(),
        observed_generation: None,
    };
    set_condition(&mut status.conditions, &new, now.wall());
}

fn observations(world: &World, node: &Node, status: &mut BootComponentStatus) {
    if let Some(seen) = &node.power {
        status.power = match node.power_since(seen.at).unwrap_or(seen.power) {
            Power::On => PowerState::On,
            Power::Off => PowerState::Off,
            Power::Unknown => PowerState::Unknown,
        };
    }
    let Some(report) = &node.reported else {
        // Whatever was shown last: that it was off in between need not have been.
        status.actual_state = None;
        return;
    };
    let artifacts = report.artifacts.as_ref().map(|digest| SmolStr::from(Arc::clone(&digest.0)));
    let known = status.actual_state.as_ref().filter(|actual| actual.bss_token.as_deref() == Some(&*report.token.0)).cloned();
    let image =
        report.artifacts.as_ref().filter(|_| !report.expired).and_then(|digest| Some(SmolStr::from(&world.artifacts.get(digest)?.image)));
    let mut actual = known.unwrap_or_else(|| ActualState {
        artifacts: None,
        image: None,
        configuration: None,
        bss_token: Some(Arc::clone(&report.token.0).into()),
        last_updated: Some(time(report.since)),
    });
    actual.artifacts = artifacts.or(actual.artifacts);
    actual.image = image.or(actual.image).filter(|_| !report.expired);
    status.actual_state = Some(actual);
}

fn driven(world: &World, node: &Node, drive: &Drive, session: &Session, status: &mut BootComponentStatus) {
    status.enabled = true;
    status.last_session = (!session.by_hand).then(|| last_session(&session.uid, &session.namespace, &session.name, ""));
    // As it was by the wall clock: a restart moves the other instant on.
    let action = drive.last_action().map(|(action, at)| (last_action(action), at));
    let (action, at) = action.unwrap_or_else(|| match (status.last_action, &status.last_action_time) {
        // A journal of a release that did not store the one before.
        (Some(action), Some(at)) if drive.attempts != crate::model::Attempts::default() => (action, Timestamp::from(at.0)),
        _ if drive.applied => (LastAction::ApplyStaged, drive.held_since),
        _ => (LastAction::SessionSetup, drive.held_since),
    });
    status.last_action = Some(action);
    status.last_action_time = Some(time(at));
    status.attempts = attempts(drive.attempts);
    status.tries = tries(drive.attempts, drive.action, drive.phase, world.retry_limit(node));
}

fn rested(last: &LastRun, status: &mut BootComponentStatus) {
    let outcome = match last.end.kind {
        EndKind::Succeeded => "Succeeded",
        EndKind::Failed => LAST_FAILED,
        EndKind::LeftRunning => "LeftRunning",
        EndKind::Superseded => "Superseded",
        EndKind::Cancelled => "Cancelled",
    };
    status.enabled = false;
    if let (Some(actual), Some(configuration)) = (&mut status.actual_state, &last.configuration) {
        actual.configuration = Some(Arc::clone(configuration).into());
    }
    status.last_session = (!last.by_hand).then(|| last_session(&last.session, &last.namespace, &last.name, outcome));
    if let Some((action, at)) = last.last_action() {
        status.last_action = Some(last_action(action));
        status.last_action_time = Some(time(at));
    } else if last.attempts == crate::model::Attempts::default() && status.last_action != Some(LastAction::ApplyStaged) {
        status.last_action = Some(LastAction::SessionSetup);
    }
    status.attempts = attempts(last.attempts);
    status.tries = tries(last.attempts, last.action, last.phase, last.limit);
}

fn last_session(uid: &SessionUid, namespace: &Arc<str>, name: &Arc<str>, outcome: &'static str) -> LastSession {
    let shared = |text: &Arc<str>| Arc::clone(text).into();
    LastSession { namespace: shared(namespace), name: shared(name), uid: shared(&uid.0), outcome: SmolStr::new_static(outcome) }
}

const fn last_action(action: PowerAction) -> LastAction {
    match action {
        PowerAction::On => LastAction::PoweringOn,
        PowerAction::SoftOff => LastAction::PoweringOffGracefully,
        PowerAction::ForceOff => LastAction::PoweringOffForcefully,
    }
}

fn attempts(used: crate::model::Attempts) -> Attempts {
    Attempts { power_on: i32::from(used.on), power_off_graceful: i32::from(used.graceful), power_off_forceful: i32::from(used.forceful) }
}

fn tries(used: crate::model::Attempts, action: Option<Issued>, phase: Phase, limit: u16) -> SmolStr {
    let count = match (phase, action.map(|issued| issued.action)) {
        (Phase::PoweringOff, Some(PowerAction::ForceOff)) => used.forceful,
        (Phase::PoweringOff, _) => used.graceful,
        (Phase::None | Phase::PoweringOn | Phase::Configuring, _) => used.on,
    };
    // The option may have been lowered meanwhile: "1/0" would be no share of anything.
    format_smolstr!("{count}/{}", limit.max(count))
}

/// A node that no Session has acted on, or none since another was put in its place.
fn newly_discovered(world: &World, node: &Node, status: &mut BootComponentStatus) -> Option<Shown> {
    let untouched = status.status.is_none() || (status.last_action == Some(LastAction::NewlyDiscovered) && status.last_session.is_none());
    let (reason, message) = if node.replaced && status.status.is_some() {
        status.enabled = false;
        status.actual_state = None;
        status.attempts = Attempts::default();
        status.tries = SmolStr::default();
        (reasons::NODE_REPLACED, "Discovered anew: HSM says that another node is in its place. No Session has acted on it.")
    } else if !untouched || status.reason == reasons::NODE_REPLACED {
        return None;
    } else if node.facts.is_some() {
        ("", "Discovered; no Session has acted on it.")
    } else if world.discovery.complete {
        (reasons::NOT_IN_HSM, NOT_LISTED)
    } else {
        ("", "Not looked for in HSM yet; no Session has acted on it.")
    };
    status.last_action = Some(LastAction::NewlyDiscovered);
    Some(Shown {
        status: NodeStatus::Stable,
        phase: None,
        reason: SmolStr::new_static(reason),
        because: None,
        message: message.to_owned(),
        next: String::new(),
    })
}

/// Shown as driven, although no record of a run names it: somebody deleted the record.
fn records_lost(status: &mut BootComponentStatus) -> Option<Shown> {
    std::mem::replace(&mut status.enabled, false).then(|| {
        if let Some(session) = &mut status.last_session {
            session.outcome = SmolStr::new_static(LAST_FAILED);
        }
        Shown {
            status: NodeStatus::Failed,
            phase: status.phase,
            reason: SmolStr::new_static(reasons::RECORDS_LOST),
            because: None,
            message: reasons::describe(reasons::RECORDS_LOST).unwrap_or_default().to_owned(),
            next: String::new(),
        }
    })
}

fn show_rested(node: &Node, last: &LastRun) -> Shown {
    let (status, phase) = match last.end.kind {
        EndKind::Failed => (NodeStatus::Failed, node_phase(last.phase)),
        EndKind::Succeeded | EndKind::LeftRunning | EndKind::Superseded | EndKind::Cancelled => (NodeStatus::Stable, None),
    };
    let (mut reason, mut message) = (SmolStr::from(Arc::clone(&last.end.reason)), last.end.message.to_string());
    let known = node.reported.as_ref().is_some_and(|report| report.artifacts.is_some() && !report.expired);
    if *last.end.reason == *reasons::UNKNOWN_IMAGE_RUNNING && known {
        reason = SmolStr::default();
        "It was left alone, for nobody knew then what it ran. It has said so since: see status.actualState.".clone_into(&mut message);
    }
    Shown { status, phase, reason, because: None, message, next: String::new() }
}

const fn node_phase(phase: Phase) -> Option<NodePhase> {
    match phase {
        Phase::None => None,
        Phase::PoweringOff => Some(NodePhase::PoweringOff),
        Phase::PoweringOn => Some(NodePhase::PoweringOn),
        Phase::Configuring => Some(NodePhase::Configuring),
    }
}

/// The displayed status of a driven node, as BOS computes it (§2.9), with the reason why it waits.
fn show_driven(world: &World, node: &Node, drive: &Drive, session: &Session, now: Timestamp) -> Shown {
    let (status, reason) = standing(world, node, drive, session, now);
    // Its history shall say that it was cycled for its silence, not that power-offs take time.
    let silent = drive.phase == Phase::PoweringOff && !drive.cause.is_empty();
    let (message, next) = words::of_driven(&words::View { world, node, drive, session, now }, status, reason);
    Shown {
        status,
        phase: node_phase(drive.phase),
        reason: SmolStr::new_static(reason),
        because: silent.then_some(reasons::BOOT_TIMEOUT),
        message,
        next,
    }
}

/// Status and reason of a driven node: what the Session counts.
#[must_use]
pub fn standing(world: &World, node: &Node, drive: &Drive, session: &Session, now: Timestamp) -> (NodeStatus, &'static str) {
    match drive.hold {
        Some(hold) => (NodeStatus::OnHold, hold_reason(hold.reason)),
        None => status_and_reason(world, node, drive, session, now),
    }
}

/// The service that a driven node waits for, where that is not available now.
#[must_use]
pub fn missing_service(world: &World, node: &Node, drive: &Drive, session: &Session, now: Timestamp) -> Option<Service> {
    let power = world.power_service.service();
    let service = match (drive.phase, drive.action) {
        (Phase::None | Phase::PoweringOff, _) => power,
        (Phase::Configuring, _) => Service::Cfs,
        (Phase::PoweringOn, Some(issued)) if called_on(node, &issued) && !came_on(node, &issued) => power,
        (Phase::PoweringOn, Some(issued)) if called_on(node, &issued) => {
            let by_hsm = session.run().is_some_and(|run| run.plan.evidence == Evidence::HsmReady);
            return by_hsm.then_some(Service::Hsm).filter(|service| world.services.down(*service).is_some());
        }
        (Phase::PoweringOn, _) => next_call(world, node, drive, now).0,
    };
    world.services.down(service).map(|_| service)
}

fn status_and_reason(world: &World, node: &Node, drive: &Drive, session: &Session, now: Timestamp) -> (NodeStatus, &'static str) {
    let unavailable = |service| world.services.down(service).is_some();
    // Also where a call is under way: what would follow it is not sent.
    let suspended = (node.suspended || session.spec.suspend).then_some(reasons::SUSPENDED);
    let blocked = suspended.or(world.emergency_stop.then_some(reasons::EMERGENCY_STOP));
    let off_called = suspended.unwrap_or(reasons::AWAITING_POWER);
    match (drive.phase, drive.action) {
        (Phase::None, _) if unavailable(world.power_service.service()) => (NodeStatus::OnHold, reasons::SERVICE_UNAVAILABLE),
        (Phase::None, _) => (NodeStatus::OnHold, reasons::NOT_OBSERVED),
        (Phase::Configuring, _) => (NodeStatus::Configuring, reasons::AWAITING_CONFIGURATION),
        (Phase::PoweringOn, Some(issued)) if called_on(node, &issued) => {
            // What an agent sees of the power of its nodes is not known here; on or not, their boot is what is waited for.
            let elsewhere = session.run().is_some_and(|run| run.by_agent);
            let reason = if elsewhere || came_on(node, &issued) { awaited_proof(session) } else { reasons::AWAITING_POWER };
            (NodeStatus::PowerOnCalled, suspended.unwrap_or(reason))
        }
        (Phase::PoweringOn, _) => (NodeStatus::PowerOnPending, blocked.unwrap_or_else(|| pending_reason(world, node, drive, now))),
        (Phase::PoweringOff, Some(issued)) if issued.action == PowerAction::SoftOff => (NodeStatus::PowerOffGracefullyCalled, off_called),
        (Phase::PoweringOff, Some(issued)) if issued.action == PowerAction::ForceOff => {
            let reason = if tried_again(drive, now) { blocked.unwrap_or(reasons::AWAITING_RETRY) } else { off_called };
            (NodeStatus::PowerOffForcefullyCalled, reason)
        }
        (Phase::PoweringOff, _) => (NodeStatus::PowerOffPending, blocked.unwrap_or(reasons::AWAITING_POWER)),
    }
}

/// What it waits for once its power is on.
fn awaited_proof(session: &Session) -> &'static str {
    match session.run().map(|run| run.plan.evidence) {
        Some(Evidence::HsmReady) => reasons::AWAITING_READY,
        Some(Evidence::NodeReport | Evidence::PowerState) | None => reasons::AWAITING_REPORT,
    }
}

/// The last power action failed, and the pause before the next is not over.
fn tried_again(drive: &Drive, now: Timestamp) -> bool {
    drive.not_before > now && drive.action.is_some_and(|issued| issued.failed)
}

/// Power-on was asked for. One that was said to have failed may have come on all the same.
fn called_on(node: &Node, issued: &Issued) -> bool {
    issued.action == PowerAction::On && (!issued.failed || came_on(node, issued))
}

/// Seen on since it was switched on.
fn came_on(node: &Node, issued: &Issued) -> bool {
    node.power_since(issued.at) == Some(Power::On)
}

/// The service that is called next for a node in `PowerOnPending`, and what it waits for.
fn next_call(world: &World, node: &Node, drive: &Drive, now: Timestamp) -> (Service, &'static str) {
    let power = world.power_service.service();
    let looked_at = node.batch.is_some() || node.power_fresh(drive.acted_or_held_since(), now).is_some();
    match (drive.params, drive.config) {
        // Nothing is asked for it before it was seen off anew.
        _ if !looked_at && world.services.down(power).is_some() => (power, reasons::NOT_OBSERVED),
        // IMS must project some images first, and while it is away none is stored.
        (Prepared::No, _) if world.services.down(Service::Bss).is_none() && world.services.down(Service::Ims).is_some() => {
            (Service::Ims, reasons::BOOT_PARAMETERS_PENDING)
        }
        (Prepared::No, _) => (Service::Bss, reasons::BOOT_PARAMETERS_PENDING),
        (Prepared::Yes, _) if node.rests_until > now => (power, reasons::PREVIOUS_OPERATION),
        (Prepared::Yes, Prepared::No) if world.services.has(Service::Cfs) => (Service::Cfs, reasons::CONFIGURATION_PENDING),
        (Prepared::Yes, _) => (power, reasons::PACED),
    }
}

fn pending_reason(world: &World, node: &Node, drive: &Drive, now: Timestamp) -> &'static str {
    let (service, reason) = next_call(world, node, drive, now);
    match world.services.down(service) {
        Some(_) => reasons::SERVICE_UNAVAILABLE,
        None if tried_again(drive, now) => reasons::AWAITING_RETRY,
        // Refused without being touched: somebody else has it reserved or locked.
        None if drive.not_before > now => reasons::PREVIOUS_OPERATION,
        None => reason,
    }
}
