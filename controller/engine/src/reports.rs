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
