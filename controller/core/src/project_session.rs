//! What people see of a Session: phase, outcome, counts by cause, bounded samples of names, and what it waits for.

mod conditions;
mod phases;
mod services;
mod waits;

use std::collections::BTreeMap;

use bos_crds::schema::{GROUPS_MAX, TEXT_MAX};
use bos_crds::{
    BootSetStatus, ExcludedGroup, FailureGroup, NodeStatus, Outcome, SessionCounts, SessionPercentages, SessionPhase, SessionStatus, Time,
    bounded, reasons,
};

use crate::hostlist;
use crate::model::{EndKind, World};
use crate::project::standing;
use crate::session::{Run, Session, SessionEnd, SessionOutcome, Stage, Tally};
use crate::session_completion::left_off;
use crate::time::{Timestamp, duration_text};
use crate::xname::Xname;

pub use services::{lasting, recovered, switches_power, told_away, unavailable, uses};
use waits::Waits;

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
        if before.phase == Some(SessionPhase::Complete) {
            // What it left off is history, whatever somebody does with those nodes now.
            status.counts.left_off = before.counts.left_off;
        }
        status.percentages = SessionPercentages::of(&counted.by_phase);
        let starting = run.by_agent && !session.agent.running && !session.agent.message.is_empty();
        waiting = Some(if starting { session.agent.message.to_string() } else { counted.message });
        describe_plan(world, session, run, &mut status);
    }
    if session.run().is_none() && end.is_some_and(|end| *end.reason == *reasons::RECORDS_LOST) {
        lose_records(&mut status);
    }
    if let Some(end) = end {
        status.end_time = Some(Time(end.at.wall()));
        status.duration = session.run().map_or_else(String::new, |run| duration_text(end.at.since(run.started)));
    }
    status.message = bounded(&message(session, end, waiting), TEXT_MAX);
    conditions::set(world, session, end, &mut status, now);
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
        left_off: int(left_off(world, run).count()),
        ..SessionCounts::default()
    };
    let (mut to_power_on, mut to_power_off) = (0, 0);
    let mut waits = Waits::default();
    for slot in run.slots.iter().filter(|slot| slot.end.is_none()) {
        if slot.is_staged() {
            counts.staged += i32::from(run.plan.staged);
            continue;
        }
        let driven = world.node(slot.node).zip(world.so_far(slot.node).filter(|drive| drive.session == session.uid));
        let Some((node, drive)) = driven else { continue };
        let (status, reason) = standing(world, node, &drive, session, now);
        counts.power_cycled += i32::from(!slot.power_cycled && !slot.cycled && drive.cycled());
        // Decided, and nothing was sent.
        counts.power_cycled -= i32::from(slot.power_cycled && !slot.cycled && !drive.attempts.any_off());
        waits.add(world, session, node, &drive, (status, reason), now);
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
    let (powering_on, powering_off) = (counts.powering_on + to_power_on, counts.powering_off + to_power_off);
    let by_phase = SessionCounts { powering_on, powering_off, ..counts };
    Counted { counts, by_phase, message: waits.text(world, session, counts.staged) }
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

fn describe_plan(world: &World, session: &Session, run: &Run, status: &mut SessionStatus) {
    let plan = &*run.plan;
    let mut phases = phases::of(world, session, run).into_iter();
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
                phases: phases.next().unwrap_or_default(),
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
