//! What operators want. A reconciler says it, [`World::accept`](crate::model::World::accept) makes it true, and what must
//! leave the process comes out as an [`Effect`].

use std::sync::Arc;

use crate::batch::{BatchId, Work};
use crate::by_hand::Group;
use crate::model::{EndKind, Hold, NodeId, Phase, SessionUid};
use crate::session::SessionEnd;

/// One wish of an operator.
#[derive(Debug, Clone)]
pub enum Want {
    /// Read the inventory from HSM.
    ReadInventory,
    /// Read all that set-up of this session needs.
    SetUp(SessionUid),
    /// Write the session's waiting message.
    Wait(SessionUid, Arc<str>),
    /// End a session.
    EndSession(SessionUid, SessionEnd),
    /// Ask the power service for these nodes.
    ReadPower(Vec<NodeId>),
    /// Ask CFS for these nodes.
    ReadConfiguration(Vec<NodeId>),
    /// Ask HSM for the states of these nodes.
    ReadStates(Vec<NodeId>),
    /// Ask BSS whether these nodes fetched their boot scripts.
    ReadScripts(Vec<NodeId>),
    /// Change what we know or intend of one node.
    Decide(NodeId, Decision),
    /// Note that nodes of a session fell silent together (rule 8).
    MassTimeout(SessionUid),
    /// What these nodes said they run is too old to be believed.
    Expire(Vec<NodeId>),
    /// Delete the object of a session that ended long ago.
    RemoveSession(SessionUid),
    /// Drive nodes to what their BootComponents ask for.
    DriveByHand(Group),
    /// Drive a node again in the session it is in, with a fresh budget.
    DriveAgain(NodeId),
    /// What the BootComponent of a node asks for is not done, and why.
    Refuse(NodeId, Arc<str>),
    /// Apply the staged state of nodes, as their BootComponents ask with these tokens.
    ApplyStaged(Vec<(NodeId, Arc<str>)>),
    /// A staged session was cancelled: what of it was not applied is not to be any more.
    Unstage(SessionUid),
    /// Record an operation and then send it.
    Open {
        /// The session it is for.
        session: SessionUid,
        /// Boot set of the plan.
        boot_set: u16,
        /// What to do.
        work: Work,
        /// With which nodes.
        nodes: Vec<NodeId>,
    },
}

/// A decision about one node, made by the status operator alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Wait, and why.
    Hold(Hold),
    /// Stop waiting.
    Release,
    /// Enter a phase.
    Enter(Phase),
    /// Enter PoweringOff in order to boot another image: counted as power-cycled.
    Cycle,
    /// Enter PoweringOff because the node did not come up, with what is known of that: remembered for rule 8.
    CycleSilent(Arc<str>),
    /// The last power action had no effect; `refund` where it is not known to have been accepted.
    ActionFailed {
        /// Give the attempt back.
        refund: bool,
        /// What to show.
        error: Arc<str>,
    },
    /// The desired image runs, on evidence found by looking at an old report.
    AlreadyBooted,
    /// The node's part is over.
    End(EndKind, Arc<str>, Arc<str>),
}

/// What leaves the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Read the inventory.
    ReadInventory,
    /// Read for set-up.
    SetUp(SessionUid),
    /// Read power.
    ReadPower(Vec<NodeId>),
    /// Read configuration.
    ReadConfiguration(Vec<NodeId>),
    /// Read states.
    ReadStates(Vec<NodeId>),
    /// Read who fetched a boot script.
    ReadScripts(Vec<NodeId>),
    /// Write the session's journal, then call [`World::release`](crate::model::World::release) for the batch.
    Record(BatchId),
    /// Look at a transition.
    Follow(BatchId),
    /// Delete the object of a session.
    RemoveSession(SessionUid),
}
