//! Spans of what is done for each Session: they name it in log lines of calls that fail, and are the traces of a program that sends any.

use tracing::Span;

use super::*;

/// One for each Session of which something was done, until it is over.
#[derive(Default)]
pub(super) struct Spans(HashMap<SessionUid, Span>);

impl Spans {
    /// The span of a Session; after a restart it begins anew.
    pub(super) fn of(&mut self, session: &bos_core::session::Session) -> &Span {
        self.0.entry(session.uid.clone()).or_insert_with(|| {
            let (title, operation) = (session.title(), session.spec.operation.as_str());
            tracing::info_span!(parent: None, "session", session = title, session_uid = %session.uid, operation, outcome = tracing::field::Empty)
        })
    }

    /// It has ended so.
    pub(super) fn ended(&self, uid: &SessionUid, outcome: &str) {
        if let Some(span) = self.0.get(uid) {
            span.record("outcome", outcome);
        }
    }

    /// Nothing more is done for it.
    pub(super) fn over(&mut self, uid: &SessionUid) {
        self.0.remove(uid);
    }
}
