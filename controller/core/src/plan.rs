//! The plan of a Session: what was resolved at set-up, written once before the first effect, and never resolved again.

use std::collections::BTreeMap;
use std::sync::Arc;

use bos_crds::Operation;
use serde::{Deserialize, Serialize};

use crate::model::Digest;
use crate::xname::Xname;

/// Version of the stored form; a plan of a newer version is refused, never guessed at.
pub const PLAN_VERSION: u32 = 1;

/// What a Session will do, in a fixed order of nodes. The position of a node in that order is its index in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// Place of the session in the order of appearance.
    #[serde(default)]
    pub sequence: u64,
    /// When the Session was created, in milliseconds since 1970; 0 where that is not known. It is looked at when the object is gone.
    #[serde(default)]
    pub created_ms: i64,
    /// What the session does.
    pub operation: PlannedOperation,
    /// Namespace of the Session.
    pub namespace: Arc<str>,
    /// Name of the Session.
    pub name: Arc<str>,
    /// `metadata.generation` of the template that was read.
    pub template_generation: i64,
    /// What to do with nodes that run already.
    pub running: RunningPolicy,
    /// What proves that a node has booted.
    #[serde(default)]
    pub evidence: Evidence,
    /// Nodes that HSM reports as disabled are acted on too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub include_disabled: bool,
    /// Running nodes that may be power-cycled at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_power_cycled: Option<u32>,
    /// Its nodes are taken one by one, when their staged state is applied.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub staged: bool,
    /// An agent of its own carries it out, in a Job (mode v1).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub agent: bool,
    /// How many nodes HSM listed when it was made, for its agent, which has records of its own nodes alone (rule 9).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<usize>,
    /// Set where this is no Session's plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by_hand: Option<ByHand>,
    /// Boot sets with their nodes; a node is in one of them only.
    pub boot_sets: Vec<PlannedBootSet>,
    /// What a person should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Arc<str>>,
    /// Nodes left out, by reason.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub excluded: BTreeMap<Arc<str>, Vec<Xname>>,
}

/// What takes the place of a Session object for nodes that are driven by hand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ByHand {
    /// What takes the place of the creation time, in milliseconds since 1970.
    pub since_ms: i64,
    /// The new `spec.run` of each node, in the order of the plan.
    pub runs: Vec<Arc<str>>,
    /// Staged state was applied, after the Session that staged it had ended.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub applied: bool,
}

/// The operations a plan can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlannedOperation {
    /// Bring nodes up that are off or run another image.
    Boot,
    /// Take nodes down and bring them up.
    Reboot,
    /// Take nodes down.
    Shutdown,
    /// Give nodes that are on another configuration; their power is never touched.
    Configure,
}

impl From<Operation> for PlannedOperation {
    fn from(operation: Operation) -> Self {
        match operation {
            Operation::Boot => Self::Boot,
            Operation::Reboot => Self::Reboot,
            Operation::Shutdown => Self::Shutdown,
            Operation::Configure => Self::Configure,
        }
    }
}

impl From<PlannedOperation> for Operation {
    fn from(operation: PlannedOperation) -> Self {
        match operation {
            PlannedOperation::Boot => Self::Boot,
            PlannedOperation::Reboot => Self::Reboot,
            PlannedOperation::Shutdown => Self::Shutdown,
            PlannedOperation::Configure => Self::Configure,
        }
    }
}

/// What proves that a node has booted (rule 3); fixed when the session starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Evidence {
    /// Its own report of the token that BSS gave for this boot.
    #[default]
    NodeReport,
    /// HSM calls it Ready, after it called it something else since the power-on.
    HsmReady,
    /// Its power is on.
    PowerState,
}

/// `spec.runningNodes` of a Boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunningPolicy {
    /// Power-cycle a node that runs another, known image.
    RestartIfDifferent,
    /// Leave every running node alone.
    Leave,
    /// The same without a look at what runs: mode v1 boots what is off, and nothing else is done to what is on.
    Skip,
    /// Power-cycle every running node.
    Restart,
}

/// One boot set of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlannedBootSet {
    /// Name in the template.
    pub name: Arc<str>,
    /// What its nodes are to run; None to be off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifacts: Option<Digest>,
    /// Short human name of the image.
    #[serde(default)]
    pub image: Arc<str>,
    /// CFS configuration; empty for none.
    #[serde(default)]
    pub configuration: Arc<str>,
    /// Its nodes, in order.
    pub nodes: Vec<Xname>,
}

impl Plan {
    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.boot_sets.iter().map(|set| set.nodes.len()).sum()
    }

    /// Whether it has no nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.boot_sets.iter().all(|set| set.nodes.is_empty())
    }

    /// All nodes in order, with the position of their boot set.
    pub fn nodes(&self) -> impl Iterator<Item = (u16, &Xname)> {
        self.boot_sets.iter().zip(0_u16..).flat_map(|(set, position)| set.nodes.iter().map(move |xname| (position, xname)))
    }

    /// The boot set and the name of the node with this index.
    #[must_use]
    pub fn member(&self, index: u32) -> Option<(u16, &Xname)> {
        let mut rest = index as usize;
        for (set, position) in self.boot_sets.iter().zip(0_u16..) {
            match set.nodes.get(rest) {
                Some(xname) => return Some((position, xname)),
                None => rest -= set.nodes.len(),
            }
        }
        None
    }

    /// A boot set by position.
    #[must_use]
    pub fn boot_set(&self, position: u16) -> Option<&PlannedBootSet> {
        self.boot_sets.get(usize::from(position))
    }
}
