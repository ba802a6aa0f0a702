//! Reports of nodes on their way from the HTTP endpoint to the engine, and the answers back.

use bos_core::xname::Xname;
use tokio::sync::oneshot;

/// One report: the node says which boot token is on its kernel command line.
#[derive(Debug)]
pub struct Report {
    /// The node.
    pub xname: Xname,
    /// Its token.
    pub token: String,
    /// Where the answer goes. Dropped without an answer means [`ReportAnswer::TryLater`].
    pub answer: oneshot::Sender<ReportAnswer>,
}

/// What to tell the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportAnswer {
    /// What it changes is durable: 200.
    Stored,
    /// No such node: 404 with a JSON body, which bos-reporter retries.
    UnknownNode,
    /// An agent drives the node, and the operator does not write its status now: 503 with Retry-After, as below. It says nothing of our
    /// ability to hear others.
    WithAgent,
    /// Not durable yet: 503 with Retry-After, which bos-reporter retries for ever.
    TryLater,
}

/// Adds one who waits for an answer. Before more room is taken, those who gave up make theirs.
pub(crate) fn wait(waiting: &mut Vec<oneshot::Sender<ReportAnswer>>, answer: oneshot::Sender<ReportAnswer>) {
    if waiting.len() == waiting.capacity() {
        waiting.retain(|known| !known.is_closed());
    }
    waiting.push(answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_gave_up_takes_no_room() {
        let mut waiting = Vec::new();
        let (kept, _answer) = oneshot::channel();
        wait(&mut waiting, kept);
        for _ in 0..10_000 {
            wait(&mut waiting, oneshot::channel().0);
        }
        assert!(waiting.capacity() <= 16, "{}", waiting.capacity());
        assert!(waiting.iter().any(|known| !known.is_closed()));
    }
}
