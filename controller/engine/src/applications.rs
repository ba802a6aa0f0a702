//! Requests to apply staged state on their way from the HTTP endpoint to the engine, and the answers back.

use bos_core::xname::Xname;
use tokio::sync::oneshot;

/// One request, as a workload manager makes it.
#[derive(Debug)]
pub struct Application {
    /// The nodes, each once.
    pub xnames: Vec<Xname>,
    /// Where the answer goes, once what was begun is durable. Dropped without an answer: ask again, nothing is done twice.
    pub answer: oneshot::Sender<Applications>,
}

/// What became of the nodes of a request, in BOS's three kinds (BOS behaviour §12).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Applications {
    /// On their way to what was staged.
    pub succeeded: Vec<Xname>,
    /// Staged state is there but cannot be applied, and why.
    pub failed: Vec<(Xname, String)>,
    /// Nothing is staged, or no such node.
    pub ignored: Vec<Xname>,
}
