//! The conditions of a Session.

use bos_crds::conditions::{self, ConditionStatus, NewCondition, set_condition};
use bos_crds::{SessionStatus, reasons};

use super::{SAMPLE, services};
use crate::hostlist;
use crate::model::{End, EndKind, HoldReason, Phase, World};
use crate::plan::PlannedOperation;
use crate::project::{stop_note, stop_switch};
use crate::session::{Run, Session, SessionEnd, SessionOutcome, Slot, Stage};
use crate::time::Timestamp;
use crate::xname::Xname;

/// Sets every condition.
pub(super) fn set(world: &World, session: &Session, end: Option<&SessionEnd>, status: &mut SessionStatus, now: Timestamp) {
    // What it showed last, within the pace of its writes, may be an outage that was over before it ended.
    let down = conditions::find(&status.conditions, conditions::SERVICES_AVAILABLE)
        .is_some_and(|known| known.status == ConditionStatus::False.as_str());
    let mut set = |type_, truth: ConditionStatus, reason: &'static str, message: &str| {
        let observed_generation = Some(session.generation);
        let new = NewCondition { type_, status: truth, reason, message: message.to_owned(), observed_generation };
        set_condition(&mut status.conditions, &new, now.wall());
    };
    match end {
        Some(end) => {
            let reason = registered(&end.reason);
            let succeeded = end.outcome == SessionOutcome::Succeeded;
            set(conditions::COMPLETE, ConditionStatus::True, outcome_reason(end.outcome), &end.message);
            set(conditions::SUCCEEDED, succeeded.into(), reason, &end.message);
            set(conditions::READY, succeeded.into(), reason, &end.message);
            set(conditions::RECONCILING, ConditionStatus::False, reasons::COMPLETE, "It has ended.");
            // What is neither ready nor stalled is in progress for such tools: they would wait for it for ever.
            set(conditions::STALLED, (!succeeded).into(), reason, &end.message);
            if down {
                let (truth, reason, message) = services::condition_at_end(world, session, end);
                set(conditions::SERVICES_AVAILABLE, truth, reason, &message);
            }
        }
        None => {
            let reason = if session.run().is_some() { reasons::RUNNING } else { reasons::PENDING };
            set(conditions::COMPLETE, ConditionStatus::False, reason, "It has not ended.");
            set(conditions::SUCCEEDED, ConditionStatus::Unknown, reason, "It has not ended.");
            set(conditions::READY, ConditionStatus::False, reason, "It has not ended.");
            let (held, message) = held_up(world, session).unwrap_or((reason, String::new()));
            let or = |otherwise: &str| if message.is_empty() { otherwise.to_owned() } else { message.clone() };
            set(conditions::RECONCILING, ConditionStatus::True, held, &or("It goes on; status.message says what is waited for."));
            set(conditions::STALLED, ConditionStatus::False, held, &or("Nothing holds it up."));
            let (truth, reason, message) = services::condition(world, session);
            set(conditions::SERVICES_AVAILABLE, truth, reason, &message);
        }
    }
    if !session.agent.reason.is_empty() {
        set(conditions::AGENT, session.agent.running.into(), session.agent.reason, &session.agent.message);
    }
    if let Some(run) = session.run().filter(|run| run.mass_timeout.is_some()) {
        let (truth, reason) = match end {
            None => (ConditionStatus::True, reasons::MASS_BOOT_TIMEOUT),
            Some(_) => (ConditionStatus::False, reasons::COMPLETE),
        };
        set(conditions::MASS_BOOT_TIMEOUT, truth, reason, &mass_timeout(world, session, run, end.is_some()));
    }
}

/// What keeps a Session from going on: what a person set first, then what it waits for. None where it goes on.
fn held_up(world: &World, session: &Session) -> Option<(&'static str, String)> {
    if session.spec.suspend {
        let message = "Suspended: nothing new is sent until spec.suspend is set to false.";
        return Some((reasons::SUSPENDED, message.to_owned()));
    }
    let switches = session.run().is_some_and(|run| run.plan.operation != PlannedOperation::Configure);
    if world.emergency_stop && switches {
        let message = format!("The {} stops all power actions{}; delete it to go on.", stop_switch(world), stop_note(world));
        return Some((reasons::EMERGENCY_STOP, message));
    }
    let (truth, reason, message) = services::condition(world, session);
    if truth == ConditionStatus::False {
        return Some((reason, format!("{message}. It goes on by itself when that is over.")));
    }
    match &session.stage {
        Stage::Pending(pending) if !pending.waiting.is_empty() => Some((reasons::PENDING, pending.waiting.to_string())),
        Stage::Running(run) if run.mass_timeout.is_some() => {
            Some((reasons::MASS_BOOT_TIMEOUT, "Many nodes fell silent together; see the condition MassBootTimeout.".to_owned()))
        }
        Stage::Running(run) if run.by_agent && AGENT_AWAITED.contains(&session.agent.reason) => {
            Some((session.agent.reason, session.agent.message.to_string()))
        }
        Stage::Pending(_) | Stage::Recording(_) | Stage::Running(_) | Stage::Ended(_) => None,
    }
}

/// Nothing goes on in a Session whose agent is not at work yet.
const AGENT_AWAITED: [&str; 2] = [reasons::AGENT_WAITING, reasons::AGENT_STARTING];

/// How many nodes ended so, and which: ` 2 failed: x1000c0s0b0n[0-1].`; empty where there are none.
fn ended_so(world: &World, run: &Run, what: &str, so: impl Fn(&Slot, &End) -> bool) -> String {
    let ended = run.slots.iter().filter(|slot| slot.end.as_ref().is_some_and(|end| so(slot, end)));
    let names: Vec<&Xname> = ended.filter_map(|slot| Some(&world.node(slot.node)?.xname)).collect();
    match names.len() {
        0 => String::new(),
        some => format!(" {some} {what}: {}.", hostlist::fold(names, SAMPLE)),
    }
}

/// Which nodes are silent, until when they are waited for, and what a person can do.
fn mass_timeout(world: &World, session: &Session, run: &Run, over: bool) -> String {
    let failed = ended_so(world, run, "failed for it and were left on", |_, end| &*end.reason == reasons::MASS_BOOT_TIMEOUT);
    if over {
        let cancelled = ended_so(world, run, "were cancelled before they had booted", |slot, end| {
            end.kind == EndKind::Cancelled && matches!(slot.reached, Phase::PoweringOff | Phase::PoweringOn)
        });
        return format!("It has ended. Many nodes fell silent together, and no more of them were power-cycled.{failed}{cancelled}");
    }
    let held = run.open().filter_map(|id| {
        let node = world.node(id)?;
        let hold = node.drive.as_ref()?.hold.filter(|hold| hold.reason == HoldReason::MassBootTimeout)?;
        Some((&node.xname, hold.until))
    });
    let (names, until): (Vec<&Xname>, Vec<Timestamp>) = held.unzip();
    let silent = until.into_iter().max().map_or_else(String::new, |until| {
        let (count, sample) = (names.len(), hostlist::fold(names, SAMPLE));
        format!(" Silent now: {count}: {sample}. What is not heard until {} fails and is left on.", until.clock())
    });
    format!(
        "Many nodes fell silent together, which is rarely their own fault, so no more of them are power-cycled.{silent}{failed} Look why they cannot report: image, network, the route of reports to the operator. A person decides: wait, and when it has ended restart those that have failed by a Session with operation Reboot and retryOf: {}; or cancel it, and restart those that it leaves by a Reboot with a limit.",
        session.name
    )
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
