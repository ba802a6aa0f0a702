//! Operations under way: one call to a service for many nodes, recorded before it leaves.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::health::{PowerService, Service};
use crate::model::{Issued, NodeId, PowerAction, SessionUid, Token};
use crate::time::Timestamp;

/// Number of a batch, unique for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BatchId(pub u64);

/// What a batch does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Work {
    /// Sets boot parameters in BSS.
    BootParameters,
    /// Sets the configuration in CFS and disables the nodes there, before power-on.
    PrepareConfiguration,
    /// Sets another configuration in CFS on nodes that are up, and enables them.
    Configure,
    /// Changes power.
    Power(PowerAction),
}

impl Work {
    /// The service it calls, where this one switches power.
    #[must_use]
    pub const fn service(self, power: PowerService) -> Service {
        match self {
            Self::BootParameters => Service::Bss,
            Self::PrepareConfiguration | Self::Configure => Service::Cfs,
            Self::Power(_) => power.service(),
        }
    }
}

/// An open operation.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Its number.
    pub id: BatchId,
    /// The session it is for.
    pub session: SessionUid,
    /// Boot set of that session; all nodes of a batch share it but for power, where it is the first one's.
    pub boot_set: u16,
    /// What it does.
    pub work: Work,
    /// Its nodes that are not done, in their order; those of one that was resumed in the order of the plan.
    pub nodes: Vec<Member>,
    /// When it was decided.
    pub opened: Timestamp,
    /// Where it stands.
    pub state: BatchState,
}

/// A node in a batch, with what to restore when the batch is known not to have been sent.
#[derive(Debug, Clone, Copy)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Its last action before this one.
    pub before: Option<Issued>,
}

/// Where a batch stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchState {
    /// Not in the journal yet; nothing has left.
    Recording,
    /// Released to its dispatcher.
    Sent,
    /// PCS accepted it; its tasks are followed.
    Following {
        /// Id of the PCS transition.
        transition: Arc<str>,
        /// Next look.
        next: Timestamp,
        /// A look is under way.
        reading: bool,
    },
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Known not to have reached the service: no attempt (rule 14).
    NotSent {
        /// The service that was not reached; IMS where an image had to be tagged first.
        service: Service,
        /// Why, for people.
        detail: Arc<str>,
    },
    /// Held back at the last moment, because a person said stop: no attempt, and nothing is wrong with the service.
    HeldBack,
    /// May have been carried out: waited out, never repeated in doubt.
    Unknown {
        /// Why, for people.
        detail: Arc<str>,
    },
    /// The service refused the call as a whole and did nothing.
    Rejected {
        /// Its words.
        detail: Arc<str>,
    },
    /// It can never work for any node of the batch.
    Impossible {
        /// Why, for people.
        detail: Arc<str>,
    },
    /// BSS stored the parameters for all nodes of the batch.
    Stored {
        /// The token the nodes will report.
        token: Token,
    },
    /// CFS changed these nodes; the others it does not know.
    Configured {
        /// Nodes it named in its answer.
        changed: Vec<NodeId>,
    },
    /// PCS accepted the transition.
    Accepted {
        /// Its id.
        transition: Arc<str>,
    },
    /// CAPMC carried the call out, and there is nothing to follow: from now on only looks at the nodes show what became of it.
    Taken {
        /// Nodes it named as not done.
        failed: Vec<(NodeId, Task)>,
        /// What it said of all of them, for people; empty when nothing.
        note: Arc<str>,
    },
    /// CAPMC refused the call as a whole and did nothing, because of some of its nodes; the others are asked again without them.
    Refused {
        /// Those nodes; none where it does not say.
        because: Vec<(NodeId, Task)>,
        /// Its words.
        detail: Arc<str>,
    },
}

/// What a transition's task says of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// Not done.
    Open,
    /// Done and confirmed.
    Succeeded,
    /// Refused before the node was touched: reserved by another, unknown, unsupported. No attempt.
    Untouched {
        /// PCS's words.
        detail: Arc<str>,
        /// Trying again is of no use.
        permanent: bool,
    },
    /// Tried, without effect or without proof of one.
    Failed {
        /// PCS's words.
        detail: Arc<str>,
    },
}

/// A look at a transition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// The tasks as they stand.
    Tasks {
        /// No task will change any more.
        done: bool,
        /// Per node.
        tasks: Vec<(NodeId, Task)>,
    },
    /// PCS has forgotten the transition.
    Gone,
    /// PCS did not answer.
    Unavailable {
        /// Its words.
        detail: Arc<str>,
    },
}
