//! What people see of a Session: phase, outcome, counts by cause, bounded samples of names, and what it waits for.

use std::collections::BTreeMap;

use bos_crds::conditions::{self, ConditionStatus, NewCondition, set_condition};
use bos_crds::schema::{GROUPS_MAX, TEXT_MAX};
use bos_crds::{
    BootSetStatus, ExcludedGroup, FailureGroup, NodeStatus, Outcome, SessionCounts, SessionPercentages, SessionPhase, SessionStatus, Time,
    bounded, reasons,
};

use crate::health::{Outage, Service};
use crate::hostlist;
use crate::model::{EndKind, World};
use crate::plan::Plan;
use crate::project::standing;
use crate::session::{Run, Session, SessionEnd, SessionOutcome, Stage, Tally};
use crate::time::{Timestamp, duration_text};
use crate::xname::Xname;

/// Characters of a sample of names.
const SAMPLE: usize = 240;

/// The status to show of a Session, given what was shown last (which holds the transition times of conditions).
#[must_use]
pub fn session(world: &World, session: &Session, before: &SessionStatus, now: Timestamp) -> SessionStatus {
    let mut status = before.clone();
    status.observed_generation = session.generation;
    if matches!(&session.stage, Stage::Ended(ended) if ended.before_us) {
        for condition in &mut status.conditions {
            condition.observed_generation = Some(session.generation);
        }
        return status;
    }
    let end = match &session.stage {
        Stage::Ended(ended) => Some(&ended.end),
        Stage::Pending(_) | Stage::Recording(_) | Stage::Running(_) => None,
    };
    status.phase = Some(match (&session.stage, session.spec.suspend) {
        (Stage::Ended(_), _) => SessionPhase::Complete,
        (_, true) => SessionPhase::Suspended,
        (Stage::Pending(_) | Stage::Recording(_), false) => SessionPhase::Pending,
        (Stage::Running(_), false) => SessionPhase::Running,
    });
    status.outcome = end.map(|end| outcome(end.outcome));
    let mut waiting = None;
    if let Some(run) = session.run() {
        let counted = count(world, session, run, now);
        status.start_time = Some(Time(run.started.wall()));
        status.progress = progress(&run.tally());
        status.failures = failures(world, run);
        status.counts = counted.counts;
        status.percentages = SessionPercentages::of(&counted.by_phase);
        waiting = Some(counted.message);
        describe_plan(world, &run.plan, &mut status);
    }
    if session.run().is_none() && end.is_some_and(|end| *end.reason == *reasons::RECORDS_LOST) {
        lose_records(&mut status);
    }
    if let Some(end) = end {
        status.end_time = Some(Time(end.at.wall()));
        status.duration = session.run().map_or_else(String::new, |run| duration_text(end.at.since(run.started)));
    }
    status.message = bounded(&message(session, end, waiting), TEXT_MAX);
    set_conditions(world, session, end, &mut status, now);
    status
}

/// What was open when the records were deleted is given up, once.
fn lose_records(status: &mut SessionStatus) {
    let counts = status.counts;
    let lost = counts.nodes - counts.done;
    let over = SessionCounts { pending: 0, powering_off: 0, powering_on: 0, configuring: 0, on_hold: 0, ..counts };
    status.counts = SessionCounts { failed: counts.failed + lost, done: counts.nodes, ..over };
    status.percentages = SessionPercentages::of(&status.counts);
    if counts.nodes > 0 {
        "100%".clone_into(&mut status.progress);
    }
}

const fn outcome(outcome: SessionOutcome) -> Outcome {
    match outcome {
        SessionOutcome::NotStarted => Outcome::NotStarted,
        SessionOutcome::Failed => Outcome::Failed,
        SessionOutcome::Superseded => Outcome::Superseded,
        SessionOutcome::Cancelled => Outcome::Cancelled,
        SessionOutcome::Succeeded => Outcome::Succeeded,
        SessionOutcome::PartiallyFailed => Outcome::PartiallyFailed,
    }
}

fn progress(tally: &Tally) -> String {
    format!("{}%", (tally.ended() * 100).checked_div(tally.nodes).unwrap_or(0))
}

struct Counted {
    counts: SessionCounts,
    /// The same with pending nodes in the phase they are in, as BOS's percentages count them (§2.6).
    by_phase: SessionCounts,
    message: String,
}

/// Counts of all nodes, and in words what the open ones wait for.
fn count(world: &World, session: &Session, run: &Run, now: Timestamp) -> Counted {
    let tally = run.tally();
    let excluded: usize = run.plan.excluded.values().map(Vec::len).sum();
    let mut counts = SessionCounts {
        nodes: int(tally.nodes),
        done: int(tally.ended()),
        succeeded: int(tally.succeeded),
        failed: int(tally.failed),
        superseded: int(tally.superseded),
        excluded: int(excluded),
        power_cycled: int(tally.power_cycled),
        left_running: int(tally.left),
        cancelled: int(tally.cancelled),
        ..SessionCounts::default()
    };
    let (mut to_power_on, mut to_power_off) = (0, 0);
    let mut waits: BTreeMap<&'static str, (usize, Option<Timestamp>)> = BTreeMap::new();
    for id in run.open() {
        let Some((node, drive)) = world.node(id).and_then(|node| Some((node, node.drive.as_ref()?))) else { continue };
        let (status, reason) = standing(world, node, drive, session, now);
        let deadline = drive.action.filter(|_| status == NodeStatus::PowerOnCalled).map(|issued| issued.boot_by);
        let wait = waits.entry(reason).or_default();
        wait.0 += 1;
        wait.1 = wait.1.max(deadline);
        match status {
            NodeStatus::PowerOnCalled => counts.powering_on += 1,
            NodeStatus::PowerOffGracefullyCalled | NodeStatus::PowerOffForcefullyCalled => counts.powering_off += 1,
            NodeStatus::Configuring => counts.configuring += 1,
            NodeStatus::OnHold => counts.on_hold += 1,
            NodeStatus::PowerOnPending | NodeStatus::PowerOffPending | NodeStatus::Stable | NodeStatus::Failed => counts.pending += 1,
        }
        to_power_on += i32::from(status == NodeStatus::PowerOnPending);
        to_power_off += i32::from(status == NodeStatus::PowerOffPending);
    }
    let open: usize = waits.values().map(|(nodes, _)| nodes).sum();
    let parts: Vec<String> = waits.iter().map(|(reason, (nodes, by))| wait_text(reason, *nodes, *by)).collect();
    let (powering_on, powering_off) = (counts.powering_on + to_power_on, counts.powering_off + to_power_off);
    let by_phase = SessionCounts { powering_on, powering_off, ..counts };
    Counted { counts, by_phase, message: format!("{open} in progress: {}", parts.join(", ")) }
}

fn wait_text(reason: &str, nodes: usize, deadline: Option<Timestamp>) -> String {
    let words = match reason {
        reasons::AWAITING_REPORT => "wait for their report",
        reasons::AWAITING_POWER => "wait for their power to change",
        reasons::AWAITING_CONFIGURATION => "being configured",
        reasons::PACED => "wait for their turn",
        reasons::POWER_UNKNOWN => "power unknown",
        reasons::NOT_OBSERVED => "being looked at",
        reasons::BOOT_PARAMETERS_PENDING => "wait for boot parameters",
        reasons::CONFIGURATION_PENDING => "wait for CFS",
        reasons::SERVICE_UNAVAILABLE => "wait for a service that does not answer",
        reasons::EMERGENCY_STOP => "held by the stop switch",
        reasons::SUSPENDED => "suspended",
        reasons::MASS_BOOT_TIMEOUT => "silent together, none is power-cycled",
        reasons::PREVIOUS_OPERATION => "wait for an earlier operation",
        other => other,
    };
    let deadline = deadline.map_or_else(String::new, |by| format!(" (latest deadline {})", by.clock()));
    format!("{nodes} {words}{deadline}")
}

fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn failures(world: &World, run: &Run) -> Vec<FailureGroup> {
    let mut groups: BTreeMap<&str, (Vec<&Xname>, &str)> = BTreeMap::new();
    for slot in &run.slots {
        let Some(end) = slot.end.as_ref().filter(|end| matches!(end.kind, EndKind::Failed | EndKind::LeftRunning)) else { continue };
        let Some(node) = world.node(slot.node) else { continue };
        groups.entry(&end.reason).or_insert_with(|| (Vec::new(), &end.message)).0.push(&node.xname);
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, (nodes, _))| std::cmp::Reverse(nodes.len()));
    groups
        .into_iter()
        .take(GROUPS_MAX)
        .map(|(reason, (nodes, message))| FailureGroup {
            reason: reason.to_owned(),
            count: int(nodes.len()),
            sample: hostlist::fold(nodes, SAMPLE),
            message: bounded(message, 512),
        })
        .collect()
}

fn describe_plan(world: &World, plan: &Plan, status: &mut SessionStatus) {
    status.excluded = plan
        .excluded
        .iter()
        .take(GROUPS_MAX)
        .map(|(reason, nodes)| ExcludedGroup { reason: reason.to_string(), count: int(nodes.len()), sample: hostlist::fold(nodes, SAMPLE) })
        .collect();
    status.warnings = plan.warnings.iter().map(ToString::to_string).collect();
    status.boot_sets = plan
        .boot_sets
        .iter()
        .map(|set| {
            let artifacts = set.artifacts.as_ref().and_then(|digest| world.artifacts.get(digest));
            BootSetStatus {
                name: set.name.to_string(),
                image: set.image.to_string(),
                kernel: artifacts.map(|artifacts| artifacts.kernel.clone()).unwrap_or_default(),
                initrd: artifacts.map(|artifacts| artifacts.initrd.clone()).unwrap_or_default(),
                configuration: set.configuration.to_string(),
                artifacts: set.artifacts.as_ref().map(|digest| digest.0.to_string()).unwrap_or_default(),
                nodes: int(set.nodes.len()),
            }
        })
        .collect();
}

fn message(session: &Session, end: Option<&SessionEnd>, waiting: Option<String>) -> String {
    if let Some(end) = end {
        return end.message.to_string();
    }
    match &session.stage {
        Stage::Pending(pending) if pending.waiting.is_empty() => "Waiting for its set-up.".to_owned(),
        Stage::Pending(pending) => pending.waiting.to_string(),
        Stage::Recording(recording) => format!("Writing the plan for {} nodes.", recording.plan.len()),
        Stage::Running(_) | Stage::Ended(_) => waiting.unwrap_or_default(),
    }
}

fn set_conditions(world: &World, session: &Session, end: Option<&SessionEnd>, status: &mut SessionStatus, now: Timestamp) {
    let generation = Some(session.generation);
    // What it showed last, within the pace of its writes, may be an outage that was over before it ended.
    let down = status
        .conditions
        .iter()
        .any(|known| known.type_ == conditions::SERVICES_AVAILABLE && known.status == ConditionStatus::False.as_str());
    let mut set = |type_, truth: ConditionStatus, reason: &'static str, message: &str| {
        let new = NewCondition { type_, status: truth, reason, message: message.to_owned(), observed_generation: generation };
        set_condition(&mut status.conditions, &new, now.wall());
    };
    let is = |holds: bool| if holds { ConditionStatus::True } else { ConditionStatus::False };
    match end {
        Some(end) => {
            let reason = registered(&end.reason);
            let succeeded = end.outcome == SessionOutcome::Succeeded;
            set(conditions::COMPLETE, ConditionStatus::True, outcome_reason(end.outcome), &end.message);
            set(conditions::SUCCEEDED, is(succeeded), reason, &end.message);
            set(conditions::READY, is(succeeded), reason, &end.message);
            set(conditions::RECONCILING, ConditionStatus::False, reasons::COMPLETE, "It has ended.");
            let stalled = matches!(end.outcome, SessionOutcome::Failed | SessionOutcome::PartiallyFailed | SessionOutcome::NotStarted);
            set(conditions::STALLED, is(stalled), reason, &end.message);
        }
        None => {
            let reason = if session.run().is_some() { reasons::RUNNING } else { reasons::PENDING };
            set(conditions::COMPLETE, ConditionStatus::False, reason, "It has not ended.");
            set(conditions::SUCCEEDED, ConditionStatus::Unknown, reason, "It has not ended.");
            set(conditions::READY, ConditionStatus::False, reason, "It has not ended.");
            set(conditions::RECONCILING, ConditionStatus::True, reason, "Nodes are being driven, or it waits; see status.message.");
            set(conditions::STALLED, ConditionStatus::False, reason, "Nothing stops it.");
        }
    }
    if end.is_none() || down {
        let (truth, reason, message) = services(world, session, now);
        set(conditions::SERVICES_AVAILABLE, truth, reason, &message);
    }
    if end.is_none() && session.run().is_some_and(|run| run.mass_timeout.is_some()) {
        let message =
            "Many nodes fell silent together, so none is power-cycled. A person decides: cancel the Session, or wait for reports.";
        set(conditions::MASS_BOOT_TIMEOUT, ConditionStatus::True, reasons::MASS_BOOT_TIMEOUT, message);
    }
}

const fn outcome_reason(outcome: SessionOutcome) -> &'static str {
    match outcome {
        SessionOutcome::NotStarted => reasons::NOT_STARTED,
        SessionOutcome::Failed => reasons::FAILED,
        SessionOutcome::Superseded => reasons::SUPERSEDED,
        SessionOutcome::Cancelled => reasons::CANCELLED,
        SessionOutcome::Succeeded => reasons::SESSION_SUCCEEDED,
        SessionOutcome::PartiallyFailed => reasons::PARTIALLY_FAILED,
    }
}

/// The registry's own word for a reason that travelled as text.
fn registered(reason: &str) -> &'static str {
    reasons::ALL.iter().map(|(word, _)| *word).find(|word| *word == reason).unwrap_or(reasons::SETUP_FAILED)
}

/// One condition for all services: what is away, and what was away since this session began.
fn services(world: &World, session: &Session, now: Timestamp) -> (ConditionStatus, &'static str, String) {
    let since = session.run().map_or(session.created, |run| run.started.min(session.created));
    let relevant: Vec<(Service, &Outage)> =
        world.services.outages().filter(|(_, outage)| outage.until.is_none_or(|until| until >= since)).collect();
    let texts: Vec<String> = relevant.iter().map(|(service, outage)| outage_text(*service, outage)).collect();
    let fault = world.discovery.fault.as_deref();
    let _ = now;
    match relevant.iter().find(|(_, outage)| outage.until.is_none()) {
        Some((service, _)) => (ConditionStatus::False, unavailable(*service), texts.join("; ")),
        None if fault.is_some() && session.run().is_none() => {
            (ConditionStatus::False, reasons::HSM_FAULT, fault.unwrap_or_default().to_owned())
        }
        None => (ConditionStatus::True, reasons::SERVICES_ANSWER, texts.join("; ")),
    }
}

fn outage_text(service: Service, outage: &Outage) -> String {
    let from = outage.since.clock();
    match outage.until {
        None => format!("{service} does not answer since {from}: {}; trying again, no attempt is used", outage.detail),
        Some(until) => format!("{service} did not answer from {from} to {}: {}; no attempt was used", until.clock(), outage.detail),
    }
}

/// The reason that says that a service does not answer.
#[must_use]
pub const fn unavailable(service: Service) -> &'static str {
    match service {
        Service::Hsm => reasons::HSM_UNAVAILABLE,
        Service::Pcs => reasons::PCS_UNAVAILABLE,
        Service::Capmc => reasons::CAPMC_UNAVAILABLE,
        Service::Bss => reasons::BSS_UNAVAILABLE,
        Service::Cfs => reasons::CFS_UNAVAILABLE,
        Service::Ims => reasons::IMS_UNAVAILABLE,
        Service::S3 => reasons::S3_UNAVAILABLE,
    }
}
