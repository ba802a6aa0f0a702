//! PCS, the Power Control Service: what the power of a node is, and changing it.
//!
//! PCS accepts every request with 200, even for nodes that are locked, unknown or cannot do it; only the tasks of the
//! transition tell what became of each node.

use std::collections::HashMap;
use std::fmt;

use async_trait::async_trait;
use bos_core::xname::Xname;

use crate::error::ServiceError;

/// What a power service says about the power of one node. Only `On` and `Off` are knowledge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    /// Powered on.
    On,
    /// Powered off.
    Off,
    /// The service cannot tell: its hardware controller is silent, or the service does not know the node.
    Undefined {
        /// Why, in the service's words; never empty.
        detail: String,
    },
    /// The answer has no entry for this node.
    Missing,
}

/// One reading for every node that was asked for.
pub type PowerReadings = HashMap<Xname, Reading>;

/// A change of power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerOperation {
    /// Power on.
    On,
    /// Ask the operating system to shut down; fails at its deadline where it does not.
    SoftOff,
    /// Cut the power.
    ForceOff,
}

/// The name a power service gave to an accepted request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransitionId(String);

impl TransitionId {
    /// An id as it was answered or kept in a journal.
    #[must_use]
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the power of a node was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskFailure {
    /// The node is locked, or another transition still holds it. The hardware was not touched.
    Reservation,
    /// The service does not know the node. The hardware was not touched.
    Missing,
    /// The hardware cannot do this. It was not touched.
    Unsupported,
    /// Sent to the hardware, not confirmed within the deadline; it may still happen.
    Timeout,
    /// Anything else.
    Other,
}

/// What became of one node in a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskState {
    /// Not decided yet.
    Open,
    /// Done, or there was nothing to do.
    Succeeded,
    /// Not done.
    Failed {
        /// In the service's words.
        error: String,
        /// What kind of failure this is.
        kind: TaskFailure,
    },
}

/// A transition and its nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transition {
    /// Nothing will change any more; then no task is `Open`. Success is a matter of each task.
    pub done: bool,
    /// Each node once, as far as its name is the name of a node.
    pub tasks: Vec<(Xname, TaskState)>,
}

/// Power of nodes.
#[async_trait]
pub trait Power: Send + Sync {
    /// The power of each of these nodes. An empty list is refused, because to PCS it means every node of the system.
    ///
    /// # Errors
    /// When the service cannot be asked or refuses.
    async fn status(&self, nodes: &[Xname]) -> Result<PowerReadings, ServiceError>;

    /// Starts a change of power. An empty list is refused.
    ///
    /// # Errors
    /// [`ServiceError::reached`] says whether it may have started nevertheless.
    async fn request(&self, operation: PowerOperation, nodes: &[Xname]) -> Result<TransitionId, ServiceError>;

    /// How far a transition is; `None` when the service does not know it (it forgets after a day).
    ///
    /// # Errors
    /// When the service cannot be asked.
    async fn transition(&self, id: &TransitionId) -> Result<Option<Transition>, ServiceError>;
}
