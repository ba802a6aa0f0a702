//! HSM, the Hardware State Manager: which nodes there are, their roles, groups, partitions and locks.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bos_core::xname::Xname;

use crate::error::ServiceError;

/// A node as HSM knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// The node.
    pub xname: Xname,
    /// The node id; absent on nodes that have none.
    pub nid: Option<i64>,
    /// For example `Compute`; absent where HSM has none.
    pub role: Option<String>,
    /// For example `Worker`.
    pub sub_role: Option<String>,
    /// `X86`, `ARM`, `Other` or `UNKNOWN`; a node that was never discovered has none.
    pub arch: Option<String>,
    /// For example `Ready`. It does not follow power by itself: ask PCS for power.
    pub state: Option<String>,
    /// Whether the node is enabled in HSM; `None` when HSM does not say.
    pub enabled: Option<bool>,
    /// Whether an administrator has locked the node.
    pub locked: bool,
    /// `River`, `Mountain` or `Hill`.
    pub class: Option<String>,
}

/// All nodes of the system.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Components {
    /// The nodes, ordered by name, each once.
    pub nodes: Vec<Component>,
    /// How many components of type Node had an id that is not the name of a node; they are left out of `nodes`.
    pub skipped: usize,
}

/// A group of HSM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The label.
    pub label: String,
    /// The members that are nodes; a group may hold other hardware too.
    pub members: Vec<Xname>,
}

/// A partition of HSM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// The name, `pN` or `pN.M`.
    pub name: String,
    /// The members that are nodes.
    pub members: Vec<Xname>,
}

/// The inventory. Every read is whole or an error: half an inventory is a fault, never an answer.
#[async_trait]
pub trait Inventory: Send + Sync {
    /// Every node.
    ///
    /// # Errors
    /// When HSM cannot be asked, or one entry of the answer cannot be read.
    async fn components(&self) -> Result<Components, ServiceError>;

    /// Every group.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    async fn groups(&self) -> Result<Vec<Group>, ServiceError>;

    /// Every partition.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    async fn partitions(&self) -> Result<Vec<Partition>, ServiceError>;

    /// Every node that is locked now.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    async fn locked(&self) -> Result<BTreeSet<Xname>, ServiceError>;
}
