//! What is new in a status of a Session: what people are told of it by Events and log, once.

use bos_crds::{FailureGroup, Outcome, SessionCounts, SessionPhase, SessionStatus};

/// What is new in the status of a Session against the one before.
#[derive(Debug, Default)]
pub struct SessionChange {
    /// The phase before; None before the first.
    pub before: Option<SessionPhase>,
    /// The phase that it has come to; None where that is the same.
    pub phase: Option<SessionPhase>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// What it says.
    pub message: String,
    /// Its counts.
    pub counts: SessionCounts,
    /// Causes of failures that it did not have before.
    pub causes: Vec<FailureGroup>,
}

impl SessionChange {
    /// The difference of two statuses.
    #[must_use]
    pub fn between(before: &SessionStatus, after: &SessionStatus) -> Self {
        let known = |group: &&FailureGroup| !before.failures.iter().any(|old| old.reason == group.reason);
        Self {
            before: before.phase,
            phase: after.phase.filter(|phase| before.phase != Some(*phase)),
            outcome: after.outcome,
            message: after.message.clone(),
            counts: after.counts,
            causes: after.failures.iter().filter(known).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(phase: SessionPhase, reasons: &[&str]) -> SessionStatus {
        let group =
            |reason: &&str| FailureGroup { reason: (*reason).to_owned(), count: 1, sample: "x1000c0s0b0n0".into(), message: "m".into() };
        SessionStatus { phase: Some(phase), failures: reasons.iter().map(group).collect(), ..SessionStatus::default() }
    }

    #[test]
    fn only_what_is_new_in_a_session_is_told() {
        let causes = |change: &SessionChange| change.causes.iter().map(|group| group.reason.clone()).collect::<Vec<_>>();
        let accepted = SessionChange::between(&SessionStatus::default(), &status(SessionPhase::Pending, &[]));
        assert_eq!((accepted.before, accepted.phase), (None, Some(SessionPhase::Pending)));
        let before = status(SessionPhase::Running, &["BootTimeout"]);
        let mut after = status(SessionPhase::Running, &["PowerUnknown", "BootTimeout"]);
        after.failures[1].count = 5;
        let change = SessionChange::between(&before, &after);
        assert_eq!((change.phase, causes(&change)), (None, vec!["PowerUnknown".to_owned()]), "a cause is told once, not per node");
        let ended = status(SessionPhase::Complete, &["BootTimeout"]);
        assert_eq!(SessionChange::between(&before, &ended).phase, Some(SessionPhase::Complete));
        let again = SessionChange::between(&ended, &ended);
        assert_eq!((again.phase, causes(&again)), (None, vec![]), "what ended before is not ended again");
    }
}
