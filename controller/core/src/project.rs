//! What people see of a node: the status of its BootComponent, derived from the World and from what was shown before.

use std::borrow::Cow;

use bos_crds::conditions::{self, ConditionStatus, NewCondition, set_condition};
use bos_crds::{
    ActualState, Attempts, BootComponentStatus, LastAction, LastSession, NodePhase, NodeStatus, PowerState, Time, bounded, reasons,
    schema::COMPONENT_MESSAGE_MAX,
};

use crate::model::{Drive, EndKind, HoldReason, Issued, LastRun, Node, NodeId, Phase, Power, PowerAction, Prepared, World};
use crate::session::Session;
use crate::status::hold_reason;
use crate::time::Timestamp;

/// `lastSession.outcome` of a node that failed in its last session: what `retryOf` looks for.
pub const LAST_FAILED: &str = "Failed";

/// Status, reason and words for one node.
struct Shown {
    status: NodeStatus,
    phase: Option<NodePhase>,
    reason: Cow<'static, str>,
    message: String,
    next: String,
}

/// The status to show of a node, given what was shown last.
#[must_use]
pub fn component(world: &World, id: NodeId, before: &BootComponentStatus, generation: i64, now: Timestamp) -> BootComponentStatus {
    let mut status = before.clone();
    let Some(node) = world.node(id) else { return status };
    status.observed_generation = generation;
    facts(world, node, &mut status, now);
    observations(world, node, &mut status);
    let shown = match world.driver(id) {
        Some((session, drive)) => {
            driven(world, node, drive, session, &mut status);
            Some(show_driven(world, node, drive, session, now))
        }
        None => node.last.as_ref().map(|last| {
            rested(last, &mut status);
            show_rested(last)
        }),
    };
    let Some(shown) = shown.or_else(|| newly_discovered(node, &mut status)).or_else(|| records_lost(&mut status)) else { return status };
    if before.status != Some(shown.status) {
        let at = node.drive.as_ref().map_or(now, |drive| drive.since.max(Timestamp::from_millis(0)));
        status.change_status(shown.status, &shown.reason, time(at));
    }
    status.phase = shown.phase;
    status.reason = shown.reason.into_owned();
    status.message = bounded(&shown.message, COMPONENT_MESSAGE_MAX);
    status.next = bounded(&shown.next, COMPONENT_MESSAGE_MAX);
    status
}

fn time(at: Timestamp) -> Time {
    Time(at.wall())
}

fn facts(world: &World, node: &Node, status: &mut BootComponentStatus, now: Timestamp) {
    in_inventory(node, world, status, now);
    let Some(facts) = &node.facts else { return };
    status.nid = facts.nid.filter(|nid| *nid >= 0);
    status.arch.clone_from(&facts.arch);
    status.role = match (&facts.role, &facts.sub_role) {
        (Some(role), Some(sub)) => Some(format!("{role}_{sub}")),
        (Some(role), None) => Some(role.clone()),
        (None, _) => None,
    };
}

/// Said only where it does not hold: of ten thousand nodes in their places nobody needs to be told.
fn in_inventory(node: &Node, world: &World, status: &mut BootComponentStatus, now: Timestamp) {
    let empty = node.facts.as_ref().is_some_and(crate::discovery::is_empty);
    let (reason, message) = match &node.facts {
        None if !world.discovery.complete => return,
        None => (reasons::NOT_IN_HSM, "HSM does not list this node any more. If it was removed for good, delete this object."),
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
        if seen.power == Power::Off {
            status.actual_state = None;
        }
    }
    let Some(report) = &node.reported else { return };
    let artifacts = report.artifacts.as_ref().map(|digest| digest.0.to_string());
    let known = status.actual_state.as_ref().filter(|actual| actual.bss_token.as_deref() == Some(&*report.token.0)).cloned();
    let image = report.artifacts.as_ref().filter(|_| !report.expired).and_then(|digest| Some(world.artifacts.get(digest)?.image.clone()));
    let mut actual = known.unwrap_or_else(|| ActualState {
        artifacts: None,
        image: None,
        configuration: None,
        bss_token: Some(report.token.0.to_string()),
        last_updated: Some(time(report.since)),
    });
    actual.artifacts = artifacts.or(actual.artifacts);
    actual.image = image.or(actual.image).filter(|_| !report.expired);
    status.actual_state = Some(actual);
}

fn driven(world: &World, node: &Node, drive: &Drive, session: &Session, status: &mut BootComponentStatus) {
    status.enabled = true;
    status.run = Some(drive.run.to_string());
    status.last_session = Some(last_session(session.uid.0.as_ref(), &session.namespace, &session.name, ""));
    let action = drive.action.map(|issued| (last_action(issued.action), issued.at));
    let (action, at) = action.unwrap_or_else(|| match (status.last_action, &status.last_action_time) {
        (Some(action), Some(at)) if drive.attempts != crate::model::Attempts::default() => (action, Timestamp::from(at.0)),
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
        actual.configuration = Some(configuration.to_string());
    }
    status.run = Some(last.run.to_string());
    status.last_session = Some(last_session(last.session.0.as_ref(), &last.namespace, &last.name, outcome));
    if let Some(issued) = last.action {
        status.last_action = Some(last_action(issued.action));
        status.last_action_time = Some(time(issued.at));
    } else if last.attempts == crate::model::Attempts::default() {
        status.last_action = Some(LastAction::SessionSetup);
    }
    status.attempts = attempts(last.attempts);
    status.tries = tries(last.attempts, last.action, last.phase, last.limit);
}

fn last_session(uid: &str, namespace: &str, name: &str, outcome: &str) -> LastSession {
    LastSession { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.to_owned(), outcome: outcome.to_owned() }
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

fn tries(used: crate::model::Attempts, action: Option<Issued>, phase: Phase, limit: u16) -> String {
    let count = match (phase, action.map(|issued| issued.action)) {
        (Phase::PoweringOff, Some(PowerAction::ForceOff)) => used.forceful,
        (Phase::PoweringOff, _) => used.graceful,
        (Phase::None | Phase::PoweringOn | Phase::Configuring, _) => used.on,
    };
    format!("{count}/{limit}")
}

fn newly_discovered(node: &Node, status: &mut BootComponentStatus) -> Option<Shown> {
    let (reason, message) = if status.status.is_none() {
        ("", "Discovered; no Session has acted on it.")
    } else if node.replaced {
        status.enabled = false;
        status.actual_state = None;
        status.attempts = Attempts::default();
        status.tries = String::new();
        (reasons::NODE_REPLACED, "Discovered anew: HSM says that another node is in its place. No Session has acted on it.")
    } else {
        return None;
    };
    status.last_action = Some(LastAction::NewlyDiscovered);
    Some(Shown { status: NodeStatus::Stable, phase: None, reason: reason.into(), message: message.to_owned(), next: String::new() })
}

/// Shown as driven, although no record of a run names it: somebody deleted the record.
fn records_lost(status: &mut BootComponentStatus) -> Option<Shown> {
    std::mem::replace(&mut status.enabled, false).then(|| {
        if let Some(session) = &mut status.last_session {
            LAST_FAILED.clone_into(&mut session.outcome);
        }
        Shown {
            status: NodeStatus::Failed,
            phase: status.phase,
            reason: reasons::RECORDS_LOST.into(),
            message: reasons::describe(reasons::RECORDS_LOST).unwrap_or_default().to_owned(),
            next: String::new(),
        }
    })
}

fn show_rested(last: &LastRun) -> Shown {
    let (status, phase) = match last.end.kind {
        EndKind::Failed => (NodeStatus::Failed, node_phase(last.phase)),
        EndKind::Succeeded | EndKind::LeftRunning | EndKind::Superseded | EndKind::Cancelled => (NodeStatus::Stable, None),
    };
    Shown { status, phase, reason: last.end.reason.to_string().into(), message: last.end.message.to_string(), next: String::new() }
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
    let (status, reason, message, next) = standing_in_words(world, node, drive, session, now);
    Shown { status, phase: node_phase(drive.phase), reason: reason.into(), message, next }
}

/// Status and reason of a driven node: what the Session counts.
#[must_use]
pub fn standing(world: &World, node: &Node, drive: &Drive, session: &Session, now: Timestamp) -> (NodeStatus, &'static str) {
    match drive.hold {
        Some(hold) => (NodeStatus::OnHold, hold_reason(hold.reason)),
        None => status_and_reason(world, node, drive, session, now),
    }
}

/// Status and reason of a driven node with what its BootComponent says beside them.
fn standing_in_words(
    world: &World,
    node: &Node,
    drive: &Drive,
    session: &Session,
    now: Timestamp,
) -> (NodeStatus, &'static str, String, String) {
    if let Some(hold) = drive.hold {
        let detail = node
            .power
            .as_ref()
            .map(|seen| seen.detail.to_string())
            .filter(|text| !text.is_empty() && hold.reason == HoldReason::PowerUnknown);
        let message = detail.map_or_else(
            || reasons::describe(hold_reason(hold.reason)).unwrap_or("").to_owned(),
            |text| format!("{}: {text}", world.power_service),
        );
        return (NodeStatus::OnHold, hold_reason(hold.reason), message, format!("given up at {} if this lasts", hold.until.clock()));
    }
    let (status, reason) = status_and_reason(world, node, drive, session, now);
    let message = if drive.error.is_empty() { String::new() } else { format!("Last answer: {}", drive.error) };
    (status, reason, message, next_step(world, node, drive, status))
}

fn status_and_reason(world: &World, node: &Node, drive: &Drive, session: &Session, now: Timestamp) -> (NodeStatus, &'static str) {
    let unavailable = |service| world.services.down(service).is_some();
    let blocked = if node.suspended || session.spec.suspend {
        Some(reasons::SUSPENDED)
    } else if world.emergency_stop {
        Some(reasons::EMERGENCY_STOP)
    } else {
        None
    };
    match (drive.phase, drive.action) {
        (Phase::None, _) if unavailable(world.power_service.service()) => (NodeStatus::OnHold, reasons::SERVICE_UNAVAILABLE),
        (Phase::None, _) => (NodeStatus::OnHold, reasons::NOT_OBSERVED),
        (Phase::Configuring, _) => (NodeStatus::Configuring, reasons::AWAITING_CONFIGURATION),
        // One that was said to have failed may have come on all the same.
        (Phase::PoweringOn, Some(issued)) if issued.action == PowerAction::On && (!issued.failed || came_on(node, &issued)) => {
            let on = came_on(node, &issued);
            (NodeStatus::PowerOnCalled, if on { reasons::AWAITING_REPORT } else { reasons::AWAITING_POWER })
        }
        (Phase::PoweringOn, _) => (NodeStatus::PowerOnPending, blocked.unwrap_or_else(|| pending_reason(world, node, drive, now))),
        (Phase::PoweringOff, Some(issued)) if issued.action == PowerAction::SoftOff => {
            (NodeStatus::PowerOffGracefullyCalled, reasons::AWAITING_POWER)
        }
        (Phase::PoweringOff, Some(issued)) if issued.action == PowerAction::ForceOff => {
            (NodeStatus::PowerOffForcefullyCalled, reasons::AWAITING_POWER)
        }
        (Phase::PoweringOff, _) => (NodeStatus::PowerOffPending, blocked.unwrap_or(reasons::AWAITING_POWER)),
    }
}

/// Seen on since it was switched on.
fn came_on(node: &Node, issued: &Issued) -> bool {
    node.power_since(issued.at) == Some(Power::On)
}

fn pending_reason(world: &World, node: &Node, drive: &Drive, now: Timestamp) -> &'static str {
    use crate::health::Service;
    let (waits_for, reason) = match (drive.params, drive.config) {
        (Prepared::No, _) => (Service::Bss, reasons::BOOT_PARAMETERS_PENDING),
        (Prepared::Yes, _) if node.rests_until > now => (world.power_service.service(), reasons::PREVIOUS_OPERATION),
        (Prepared::Yes, Prepared::No) if world.services.has(Service::Cfs) => (Service::Cfs, reasons::CONFIGURATION_PENDING),
        (Prepared::Yes, _) => (world.power_service.service(), reasons::PACED),
    };
    match world.services.down(waits_for) {
        Some(_) => reasons::SERVICE_UNAVAILABLE,
        // Refused without being touched: somebody else has it reserved or locked.
        None if drive.not_before > now => reasons::PREVIOUS_OPERATION,
        None => reason,
    }
}

fn next_step(world: &World, node: &Node, drive: &Drive, status: NodeStatus) -> String {
    let last = drive.attempts.on >= world.retry_limit(node);
    match (status, drive.action) {
        (NodeStatus::PowerOnCalled, Some(issued)) if last => format!("fails at {} without a report; left on", issued.boot_by.clock()),
        (NodeStatus::PowerOnCalled, Some(issued)) => format!("power-cycled at {} without a report", issued.boot_by.clock()),
        (NodeStatus::PowerOffGracefullyCalled | NodeStatus::PowerOffForcefullyCalled, Some(issued)) => {
            format!("forced off at {} if still on", issued.power_by.clock())
        }
        (NodeStatus::Configuring, _) => {
            drive.configured_by.map_or_else(String::new, |by| format!("fails at {} if CFS has not finished", by.clock()))
        }
        _ => String::new(),
    }
}
