//! The session-completion operator: ends a session when no part of it is left to do, and says how it went.

use std::collections::BTreeSet;

use bos_crds::reasons;

use crate::batch::{Batch, BatchState, Work};
use crate::hostlist;
use crate::model::{End, EndKind, Owner, Power, PowerAction, World};
use crate::session::{Run, Session, SessionEnd, SessionOutcome, Tally};
use crate::time::Timestamp;
use crate::want::Want;
use crate::xname::Xname;

/// Characters of a sample of names.
const SAMPLE: usize = 160;

/// Ends every session whose nodes have all ended.
#[must_use]
pub fn reconcile(world: &World, now: Timestamp) -> Vec<Want> {
    let running = world.sessions.values().filter_map(|session| Some((session, session.running()?)));
    let over = running.filter(|(session, run)| run.open().next().is_none() && !has_open_batches(world, session));
    over.map(|(session, run)| Want::EndSession(session.uid.clone(), end(world, session, run, now))).collect()
}

/// Calls whose end says something about the session. A power-on that is only being confirmed does not: its nodes have reported.
/// It is followed all the same, for a newer session must wait for it (rule 11).
fn has_open_batches(world: &World, session: &Session) -> bool {
    let confirming = |batch: &Batch| batch.work == Work::Power(PowerAction::On) && matches!(batch.state, BatchState::Following { .. });
    world.batches.values().any(|batch| batch.session == session.uid && !confirming(batch))
}

fn end(world: &World, session: &Session, run: &Run, now: Timestamp) -> SessionEnd {
    let tally = run.tally();
    let skipped = only_left(&tally) && run.slots.iter().filter_map(|slot| slot.end.as_deref()).all(is_skipped);
    let outcome = if skipped { SessionOutcome::Succeeded } else { outcome(&tally, session.stopping()) };
    let reason = match outcome {
        SessionOutcome::Succeeded => reasons::SESSION_SUCCEEDED,
        SessionOutcome::Superseded => reasons::SUPERSEDED,
        SessionOutcome::Cancelled => reasons::CANCELLED,
        SessionOutcome::PartiallyFailed if only_left(&tally) => reasons::NODES_LEFT_RUNNING,
        SessionOutcome::NotStarted | SessionOutcome::Failed | SessionOutcome::PartiallyFailed => reasons::NODES_FAILED,
    };
    let off: Vec<&Xname> = left_off(world, run).collect();
    let (retry, takers) = (retry_hint(session, run), takers(world, session, run));
    SessionEnd { outcome, reason: reason.into(), message: message(&tally, &takers, &retry, &off).into(), at: now }
}

/// Who has the nodes now that were taken from a session, or had them last: `by boot-x1000c4`.
fn takers(world: &World, session: &Session, run: &Run) -> String {
    const NAMED: usize = 3;
    let (mut sessions, mut by_hand, mut others) = (BTreeSet::new(), false, false);
    let superseded = (0_u32..).zip(&run.slots).filter(|(_, slot)| slot.end.as_ref().is_some_and(|end| end.kind == EndKind::Superseded));
    for (index, slot) in superseded {
        // Whoever staged newer state is no owner yet.
        let newer = |owner: &&Owner| world.order_of(owner) > world.order_of(&session.as_owner(index));
        let owner = world.node(slot.node).and_then(|node| node.owner.as_ref()).filter(newer);
        match owner.map(|owner| (owner.since_by_hand(), world.sessions.get(&owner.uid))) {
            Some((Some(_), _)) => by_hand = true,
            Some((None, Some(taker))) if taker.namespace == session.namespace => drop(sessions.insert(taker.name.to_string())),
            Some((None, Some(taker))) => drop(sessions.insert(taker.title())),
            Some((None, None)) | None => others = true,
        }
    }
    let more = sessions.len().saturating_sub(NAMED);
    let mut by: Vec<String> = sessions.into_iter().take(NAMED).collect();
    by.extend((more > 0).then(|| format!("{more} more")));
    by.extend(by_hand.then(|| "hand".to_owned()));
    if by.is_empty() {
        return "by newer sessions or by hand".to_owned();
    }
    by.extend(others.then(|| "others".to_owned()));
    match by.split_last() {
        Some((last, others)) if !others.is_empty() => format!("by {} and {last}", others.join(", ")),
        _ => format!("by {}", by.concat()),
    }
}

/// Nodes that were let go before their part was done, and that are off: nobody powers them on again.
pub(crate) fn left_off<'a>(world: &'a World, run: &'a Run) -> impl Iterator<Item = &'a Xname> {
    let let_go = run.slots.iter().filter(|slot| {
        let kind = slot.end.as_ref().map(|end| end.kind);
        matches!(kind, Some(EndKind::Cancelled | EndKind::LeftRunning))
    });
    let nodes = let_go.filter_map(|slot| world.node(slot.node));
    nodes.filter(|node| node.power.as_ref().is_some_and(|seen| seen.power == Power::Off)).map(|node| &node.xname)
}

/// Nothing failed, but nothing was done either.
const fn only_left(tally: &Tally) -> bool {
    tally.left > 0 && tally.succeeded == 0 && tally.failed == 0 && tally.cancelled == 0
}

/// A Boot of mode v1 has nothing to do for a node that is on (v1 behaviour §3.7): where all are, it is done.
fn is_skipped(end: &End) -> bool {
    end.kind == EndKind::LeftRunning && *end.reason == *reasons::ALREADY_ON
}

/// The outcome, first that holds (design "API").
#[must_use]
pub const fn outcome(tally: &Tally, cancelled: bool) -> SessionOutcome {
    if tally.succeeded == 0 && tally.failed > 0 {
        SessionOutcome::Failed
    } else if tally.superseded == tally.nodes {
        SessionOutcome::Superseded
    } else if cancelled && tally.cancelled > 0 {
        SessionOutcome::Cancelled
    } else if tally.succeeded > 0 && tally.failed == 0 && tally.cancelled == 0 {
        SessionOutcome::Succeeded
    } else {
        SessionOutcome::PartiallyFailed
    }
}

/// How what failed is tried again with effect: a Boot leaves alone what is on and unknown, and asks CFS nothing where the image runs.
fn retry_hint(session: &Session, run: &Run) -> String {
    let failed: Vec<&str> =
        run.slots.iter().filter_map(|slot| slot.end.as_ref()).filter(|end| end.kind == EndKind::Failed).map(|end| &*end.reason).collect();
    let name = &session.name;
    let left_on = [reasons::BOOT_TIMEOUT, reasons::MASS_BOOT_TIMEOUT, reasons::REPORT_PATH_DOWN, reasons::UNKNOWN_IMAGE_RUNNING];
    let operation = session.spec.operation;
    let boot = operation == bos_crds::Operation::Boot;
    let mut hint = format!("a Session with retryOf: {name}");
    if !boot {
        hint.push_str(&format!(" and operation: {}", operation.as_str()));
    }
    if boot && failed.iter().any(|reason| left_on.contains(reason)) {
        hint.push_str(" and runningNodes: Restart, which power-cycles those that are on, unless they say that they run the image");
    }
    if boot && failed.iter().any(|reason| [reasons::CONFIGURATION_FAILED, reasons::CONFIGURATION_TIMEOUT].contains(reason)) {
        hint.push_str("; operation: Configure where only the configuration failed");
    }
    hint
}

fn message(tally: &Tally, takers: &str, retry: &str, off: &[&Xname]) -> String {
    let mut text = format!("{} of {} nodes succeeded", tally.succeeded, tally.nodes);
    let taken = format!("taken over {takers}");
    for (count, what) in
        [(tally.failed, "failed"), (tally.left, "left running"), (tally.superseded, &*taken), (tally.cancelled, "cancelled")]
    {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text.push('.');
    if only_left(tally) {
        text.push_str(" None failed, and none was acted on; status.failures says why each was left.");
    }
    if !off.is_empty() {
        let are = if off.len() == 1 { "is" } else { "are" };
        text.push_str(&format!(" {} of these {are} left off: {}.", off.len(), hostlist::fold(off.iter().copied(), SAMPLE)));
    }
    if tally.failed > 0 {
        text.push_str(&format!(" To try those again: {retry}."));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_outcome_that_holds() {
        let tally = |succeeded, failed, superseded, cancelled, left| Tally {
            nodes: succeeded + failed + superseded + cancelled + left,
            succeeded,
            failed,
            superseded,
            cancelled,
            left,
            power_cycled: 0,
        };
        assert_eq!(outcome(&tally(5, 0, 0, 0, 0), false), SessionOutcome::Succeeded);
        assert_eq!(outcome(&tally(5, 0, 3, 0, 2), false), SessionOutcome::Succeeded);
        assert_eq!(outcome(&tally(5, 1, 0, 0, 0), false), SessionOutcome::PartiallyFailed);
        assert_eq!(outcome(&tally(0, 1, 4, 0, 0), false), SessionOutcome::Failed);
        assert_eq!(outcome(&tally(0, 0, 4, 0, 0), false), SessionOutcome::Superseded);
        assert_eq!(outcome(&tally(3, 0, 1, 2, 0), true), SessionOutcome::Cancelled);
        assert_eq!(outcome(&tally(0, 0, 0, 0, 4), false), SessionOutcome::PartiallyFailed);
    }

    #[test]
    fn the_message_says_first_what_succeeded() {
        let tally = Tally { nodes: 64, succeeded: 37, left: 27, ..Tally::default() };
        assert_eq!(message(&tally, "", "s", &[]), "37 of 64 nodes succeeded, 27 left running.");
        let names: Vec<Xname> = ["x1000c0s5b0n0", "x1000c0s6b0n0"].iter().map(|name| Xname::parse(name).unwrap()).collect();
        let tally = Tally { nodes: 5, succeeded: 1, failed: 1, cancelled: 3, ..Tally::default() };
        assert_eq!(
            message(&tally, "", "a Session with retryOf: s", &names.iter().collect::<Vec<_>>()),
            "1 of 5 nodes succeeded, 1 failed, 3 cancelled. 2 of these are left off: x1000c0s[5-6]b0n0. To try those again: a Session with retryOf: s."
        );
        let tally = Tally { nodes: 64, left: 64, ..Tally::default() };
        let taken = Tally { nodes: 2, succeeded: 1, superseded: 1, ..Tally::default() };
        assert_eq!(message(&taken, "by b and hand", "s", &[]), "1 of 2 nodes succeeded, 1 taken over by b and hand.");
        assert!(message(&tally, "", "s", &[]).starts_with("0 of 64 nodes succeeded, 64 left running. None failed"));
    }
}
