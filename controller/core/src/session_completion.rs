//! The session-completion operator: ends a session when no part of it is left to do, and says how it went.

use bos_crds::reasons;

use crate::batch::{Batch, BatchState, Work};
use crate::model::{PowerAction, World};
use crate::session::{Run, Session, SessionEnd, SessionOutcome, Tally};
use crate::time::Timestamp;
use crate::want::Want;

/// Ends every session whose nodes have all ended.
#[must_use]
pub fn reconcile(world: &World, now: Timestamp) -> Vec<Want> {
    let running = world.sessions.values().filter_map(|session| Some((session, session.running()?)));
    let over = running.filter(|(session, run)| run.open().next().is_none() && !has_open_batches(world, session));
    over.map(|(session, run)| Want::EndSession(session.uid.clone(), end(session, run, now))).collect()
}

/// Calls whose end says something about the session. A power-on that is only being confirmed does not: its nodes have reported.
/// It is followed all the same, for a newer session must wait for it (rule 11).
fn has_open_batches(world: &World, session: &Session) -> bool {
    let confirming = |batch: &Batch| batch.work == Work::Power(PowerAction::On) && matches!(batch.state, BatchState::Following { .. });
    world.batches.values().any(|batch| batch.session == session.uid && !confirming(batch))
}

fn end(session: &Session, run: &Run, now: Timestamp) -> SessionEnd {
    let tally = run.tally();
    let outcome = outcome(&tally, session.stopping());
    let reason = match outcome {
        SessionOutcome::Succeeded => reasons::SESSION_SUCCEEDED,
        SessionOutcome::Superseded => reasons::SUPERSEDED,
        SessionOutcome::Cancelled => reasons::CANCELLED,
        SessionOutcome::NotStarted | SessionOutcome::Failed | SessionOutcome::PartiallyFailed => reasons::NODES_FAILED,
    };
    SessionEnd { outcome, reason: reason.into(), message: message(&tally, &session.name).into(), at: now }
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

fn message(tally: &Tally, name: &str) -> String {
    let mut text = format!("{} of {} nodes done", tally.succeeded, tally.nodes);
    for (count, what) in [
        (tally.failed, "failed"),
        (tally.left, "left as they run"),
        (tally.superseded, "taken over by newer sessions"),
        (tally.cancelled, "cancelled"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    text.push('.');
    if tally.failed > 0 {
        text.push_str(&format!(" To try those again: a Session with retryOf: {name}."));
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
}
