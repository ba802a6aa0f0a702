//! CFS, the Configuration Framework Service: which configuration a node shall have and whether it has it.

use std::collections::HashMap;

use async_trait::async_trait;
use bos_core::xname::Xname;

use crate::error::ServiceError;

/// The configuration status that CFS computes for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigStatus {
    /// Every layer is applied.
    Configured,
    /// Some layer is still to be applied.
    Pending,
    /// CFS gave up.
    Failed,
    /// Nothing to apply. CFS says this too when the named configuration does not exist.
    Unconfigured,
    /// A word that we do not know.
    Other(String),
}

/// What CFS says about one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigReading {
    /// The desired configuration; empty when none.
    pub desired: String,
    /// How far it is.
    pub status: ConfigStatus,
    /// Whether CFS acts on the node; the node itself turns this on when it is up.
    pub enabled: bool,
    /// Failed tries so far.
    pub error_count: i64,
}

/// A change to nodes in CFS; what is `None` or false stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigPatch {
    /// Whether CFS shall act on the node now.
    pub enabled: Option<bool>,
    /// The desired configuration.
    pub desired_config: Option<String>,
    /// The name of the session, kept as tag `bos_session`.
    pub session_tag: Option<String>,
    /// Forget what was applied, so that every layer runs again.
    pub clear_state: bool,
}

/// Configuration of nodes.
#[async_trait]
pub trait Configuration: Send + Sync {
    /// Whether a configuration of this name exists.
    ///
    /// # Errors
    /// When CFS cannot be asked.
    async fn configuration_exists(&self, name: &str) -> Result<bool, ServiceError>;

    /// What CFS knows about these nodes; a node it does not know is absent. An empty list is refused.
    ///
    /// # Errors
    /// When CFS cannot be asked, or a page cannot be read.
    async fn components(&self, nodes: &[Xname]) -> Result<HashMap<Xname, ConfigReading>, ServiceError>;

    /// Changes these nodes and returns those that CFS really changed (it leaves out unknown ones without a word).
    /// An empty list is refused, because to CFS it means every node of the system; so is a patch that changes nothing.
    ///
    /// # Errors
    /// When CFS cannot be asked or refuses. With more than 1000 nodes some of them may be changed nevertheless.
    async fn patch(&self, nodes: &[Xname], patch: &ConfigPatch) -> Result<Vec<Xname>, ServiceError>;
}
