//! The options in force, in the units that decisions use. Defaults are BOS's where BOS has the option.

use std::sync::Arc;
use std::time::Duration;

use crate::plan::Evidence;

/// Options of the operator; see `kubectl explain bootoptions.spec` for what each means to a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The staged state of a node is emptied once it was applied.
    pub clear_stage: bool,
    /// Attempts per kind of power action.
    pub retry_policy: u16,
    /// Nodes a call carries at most.
    pub batch_size: usize,
    /// From power-on to the node's report.
    pub max_boot_wait: Duration,
    /// The same in mode v1, from power-on to HSM's Ready.
    pub v1_boot_wait: Duration,
    /// In mode v1 a node is up only when its port 22 is reached too.
    pub v1_ssh_check: bool,
    /// From power-on to power seen on.
    pub max_power_on_wait: Duration,
    /// From power-off to power seen off, before it is forced.
    pub max_power_off_wait: Duration,
    /// How long a node whose power is unknown is held before it fails.
    pub power_unknown_wait: Duration,
    /// How long CFS may take.
    pub configuration_wait: Duration,
    /// How long a Session waits for its template to appear.
    pub template_wait: Duration,
    /// How often HSM is asked for its inventory.
    pub discovery_frequency: Duration,
    /// A reported image older than this is unknown.
    pub actual_state_ttl: Duration,
    /// The same as text, for the kernel parameter `bos_update_frequency`.
    pub actual_state_ttl_text: Arc<str>,
    /// A template whose image IMS cannot be asked about is not booted.
    pub ims_errors_fatal: bool,
    /// A template whose image IMS does not know is not booted.
    pub ims_images_must_exist: bool,
    /// What proves that a node has booted.
    pub evidence: Evidence,
    /// Ended Sessions older than this are removed; None keeps them for ever.
    pub session_ttl: Option<Duration>,
    /// PCS and CFS are asked about nodes that wait for their answer at least this often.
    pub polling_frequency: Duration,
    /// Nodes between power-on and report at most; 0 for no limit.
    pub max_nodes_in_flight: usize,
    /// Power-ons a second; 0 for no limit.
    pub power_ons_per_second: usize,
    /// Nodes with role Management may be targeted.
    pub include_management: bool,
    /// A Session without limit is refused.
    pub limit_required: bool,
    /// Names that look like NIDs are refused.
    pub reject_nids: bool,
    /// Namespaces whose Sessions act; empty for the install namespace alone.
    pub session_namespaces: Vec<Arc<str>>,
    /// An inventory smaller by this many percent is HSM's fault.
    pub inventory_shrink_percent: usize,
    /// Nodes that may time out together before none is cycled, at least.
    pub mass_timeout_minimum: usize,
    /// The same as a share of the session.
    pub mass_timeout_percent: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clear_stage: false,
            retry_policy: 3,
            batch_size: 2800,
            max_boot_wait: Duration::from_secs(1200),
            v1_boot_wait: Duration::from_secs(1800),
            v1_ssh_check: false,
            max_power_on_wait: Duration::from_secs(120),
            max_power_off_wait: Duration::from_secs(300),
            power_unknown_wait: Duration::from_secs(900),
            configuration_wait: Duration::from_secs(14_400),
            template_wait: Duration::from_secs(300),
            discovery_frequency: Duration::from_secs(300),
            actual_state_ttl: Duration::from_secs(4 * 3600),
            actual_state_ttl_text: "4h".into(),
            ims_errors_fatal: false,
            ims_images_must_exist: false,
            evidence: Evidence::NodeReport,
            session_ttl: Some(Duration::from_secs(7 * 86_400)),
            polling_frequency: Duration::from_secs(15),
            max_nodes_in_flight: 0,
            power_ons_per_second: 0,
            include_management: false,
            limit_required: false,
            reject_nids: false,
            session_namespaces: Vec::new(),
            inventory_shrink_percent: 10,
            mass_timeout_minimum: 8,
            mass_timeout_percent: 5,
        }
    }
}

impl Options {
    /// How many nodes of a session may time out together before silence is taken for a fault of something else (rule 8).
    #[must_use]
    pub fn mass_timeout_limit(&self, nodes: usize) -> usize {
        self.mass_timeout_minimum.max(nodes.saturating_mul(self.mass_timeout_percent) / 100)
    }
}
