//! What a rig is made of.

use std::path::PathBuf;
use std::time::Duration;

use super::binaries::Profile;
use crate::node_agent::NodeAgentConfig;
use crate::site::SiteConfig;

/// Where the simulated site runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SitePlace {
    /// In a process of its own, so that its CPU time is not counted with anything else.
    #[default]
    OwnProcess,
    /// In this process: tests can then hold requests with [`crate::site::SiteHandle::on`].
    InProcess,
}

/// Which service the operator switches power with. The site has both, for the same nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PowerBy {
    /// PCS.
    #[default]
    Pcs,
    /// CAPMC.
    Capmc,
}

/// Settings of a [`super::Rig`]. The default is ten nodes that boot in a second, and an operator that is started again when it ends.
#[derive(Debug, Clone)]
pub struct RigConfig {
    /// Nodes, images, delays, faults and outages of the site.
    pub site: SiteConfig,
    /// Where the site runs.
    pub site_place: SitePlace,
    /// Options of the boot service that differ from their defaults: a part of the spec of BootOptions.
    pub options: serde_json::Value,
    /// Which service the operator switches power with.
    pub power: PowerBy,
    /// Whether a second operator stands by, with a way to the API server of its own, and nodes report to that one first.
    pub standby: bool,
    /// Whether the operator is told that the site has neither CFS nor IMS, as an OpenCHAMI site.
    pub bare: bool,
    /// Whether the operator reaches the API server through a [`crate::proxy::Proxy`].
    pub proxy: bool,
    /// Whether a controller manager runs too (garbage collection, Jobs).
    pub controller_manager: bool,
    /// A node for Jobs, and with it the controller manager. With `proxy`, pods too reach the API server through it.
    pub node_agent: Option<NodeAgentConfig>,
    /// Whether Sessions of mode v1 are carried out, by agents in Jobs; takes the node.
    pub agents: bool,
    /// Whether the API server writes an audit log.
    pub audit_log: bool,
    /// Whether the operator is started at all; see [`super::Rig::start_operator`].
    pub start_operator: bool,
    /// Whether the operator is started again when it ends, as the kubelet does it, after a short pause.
    pub supervise: bool,
    /// The folder of manifests; otherwise ours.
    pub manifests: Option<PathBuf>,
    /// The operator's binary; otherwise see [`super::operator_binary`].
    pub operator_binary: Option<PathBuf>,
    /// In which profile the operator is built.
    pub profile: Profile,
    /// What the operator logs.
    pub log: String,
    /// Further flags of the operator.
    pub operator_args: Vec<String>,
}

impl Default for RigConfig {
    fn default() -> Self {
        Self::with_nodes(10)
    }
}

impl RigConfig {
    /// The default with this many nodes, which boot in a second.
    pub fn with_nodes(nodes: usize) -> Self {
        let mut site = SiteConfig::with_nodes(nodes);
        site.settings.boot_time = Duration::from_secs(1);
        Self {
            site,
            site_place: SitePlace::default(),
            options: serde_json::json!({}),
            power: PowerBy::default(),
            standby: false,
            bare: false,
            proxy: false,
            controller_manager: false,
            node_agent: None,
            agents: false,
            audit_log: false,
            start_operator: true,
            supervise: true,
            manifests: None,
            operator_binary: None,
            profile: Profile::Dev,
            log: "info,bos_core=debug,bos_engine=debug,bos_operator=debug".to_owned(),
            operator_args: Vec::new(),
        }
    }

    /// How long a node takes from power to its report.
    #[must_use]
    pub fn boot_time(mut self, time: Duration) -> Self {
        self.site.settings.boot_time = time;
        self
    }

    /// Sets options of the boot service.
    #[must_use]
    pub fn options(mut self, spec: serde_json::Value) -> Self {
        self.options = spec;
        self
    }

    /// Switches power with CAPMC.
    #[must_use]
    pub fn through_capmc(mut self) -> Self {
        self.power = PowerBy::Capmc;
        self
    }

    /// Does without CFS and IMS.
    #[must_use]
    pub fn without_cfs_and_ims(mut self) -> Self {
        self.bare = true;
        self
    }

    /// Runs the site in this process.
    #[must_use]
    pub fn in_process_site(mut self) -> Self {
        self.site_place = SitePlace::InProcess;
        self
    }

    /// Puts a proxy between operator and API server.
    #[must_use]
    pub fn through_proxy(mut self) -> Self {
        self.proxy = true;
        self
    }

    /// Runs Jobs, on a node with these settings.
    #[must_use]
    pub fn with_node(mut self, config: NodeAgentConfig) -> Self {
        self.node_agent = Some(config);
        self
    }

    /// Carries Sessions of mode v1 out, by agents in Jobs that run for real.
    #[must_use]
    pub fn with_agents(mut self) -> Self {
        self.node_agent.get_or_insert_default();
        self.agents = true;
        self
    }

    /// Has a second operator stand by.
    #[must_use]
    pub fn with_standby(mut self) -> Self {
        self.standby = true;
        self
    }

    /// Leaves a dead operator dead.
    #[must_use]
    pub fn unsupervised(mut self) -> Self {
        self.supervise = false;
        self
    }
}
