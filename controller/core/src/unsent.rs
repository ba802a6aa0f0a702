//! A call that is decided and has not left: its record is still to become durable, and it may be withdrawn at the last moment. To
//! people it is none yet, and a node that is let go meanwhile has not been asked for anything.

use std::borrow::Cow;

use crate::batch::{Batch, BatchState, Member, Work};
use crate::model::{Drive, Node, NodeId, World};

impl World {
    /// The call with a node in it that has not left, and the node's part in it.
    pub(crate) fn unsent(&self, id: NodeId) -> Option<(&Batch, &Member)> {
        let batch = self.batches.get(&self.node(id)?.batch?).filter(|batch| batch.state == BatchState::Recording)?;
        let place = batch.nodes.binary_search_by_key(&id, |member| member.node).ok()?;
        Some((batch, batch.nodes.get(place)?))
    }

    /// An operation on a node is open, and has left.
    pub(crate) fn is_asked(&self, node: &Node) -> bool {
        let open = node.batch.and_then(|id| self.batches.get(&id));
        open.is_some_and(|batch| batch.state != BatchState::Recording)
    }

    /// What is being done to a node, as far as it has left.
    pub(crate) fn so_far(&self, id: NodeId) -> Option<Cow<'_, Drive>> {
        let drive = self.node(id)?.drive.as_ref()?;
        let unsent = self.unsent(id).filter(|(batch, _)| batch.session == drive.session);
        let Some((Work::Power(action), member)) = unsent.map(|(batch, member)| (batch.work, member)) else {
            return Some(Cow::Borrowed(drive));
        };
        let mut drive = drive.clone();
        drive.take_back(action, member.before);
        Some(Cow::Owned(drive))
    }
}
