//! BootOptions: the settings of the whole service, one object named `default`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::wire::words;

words! {
    /// What proves that a node has booted.
    #[derive(Default)]
    BootEvidence {
        /// The node's own report.
        #[default]
        NodeReport = "NodeReport",
        /// HSM calls it Ready.
        HsmReady = "HSMReady",
        /// Its power is on.
        PowerState = "PowerState",
    }
}

words! {
    /// How much the operator logs.
    #[derive(Default)]
    LoggingLevel {
        /// Everything, for finding faults.
        Debug = "DEBUG",
        /// Decisions and results.
        #[default]
        Info = "INFO",
        /// Only what may need attention.
        Warning = "WARNING",
        /// Only errors.
        Error = "ERROR",
        /// The same as ERROR; kept because BOS knows it.
        Critical = "CRITICAL",
    }
}

/// Settings of the whole service.
//
// `Default` below is the one source of the defaults: serde fills gaps from it and the schema is made from it.
#[derive(CustomResource, Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
#[kube(
    group = "bos.hpe.com",
    version = "v1alpha1",
    kind = "BootOptions",
    plural = "bootoptions",
    singular = "bootoptions",
    status = "BootOptionsStatus",
    derive = "PartialEq",
    shortname = "bopt",
    category = "bos",
    doc = "BootOptions holds the settings of the boot service. There is one, named default. Changes take effect at once, except that a deadline that already runs is not changed. If a value cannot be used, the last good one stays in force and status.problems says so; a value that is likely a mistake is in force, and the message of condition Ready says so.",
    validation = Rule::new("self.metadata.name == 'default'").message("there is one BootOptions, and its name is default"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Retries", type_ = "integer", json_path = ".spec.defaultRetryPolicy"),
    printcolumn(name = "Boot Wait", type_ = "integer", json_path = ".spec.maxBootWaitTimeSeconds", description = "Seconds"),
    printcolumn(name = "In Flight", type_ = "integer", json_path = ".spec.maxNodesInFlight", description = "0 is no limit"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Problems", type_ = "string", json_path = ".status.problems", priority = 1),
)]
pub struct BootOptionsSpec {
    /// How long to wait for an answer of BSS (boot parameters). Seconds, 10 to 86400, default 20.
    #[schemars(range(min = 10, max = 86400))]
    pub bss_read_timeout_seconds: i32,

    /// How long to wait for an answer of CFS (configuration). Seconds, 10 to 86400, default 20.
    #[schemars(range(min = 10, max = 86400))]
    pub cfs_read_timeout_seconds: i32,

    /// How long to wait for an answer of HSM (inventory). Seconds, 10 to 86400, default 20.
    #[schemars(range(min = 10, max = 86400))]
    pub hsm_read_timeout_seconds: i32,

    /// How long to wait for an answer of IMS (images). Seconds, 10 to 86400, default 20.
    #[schemars(range(min = 10, max = 86400))]
    pub ims_read_timeout_seconds: i32,

    /// How long to wait for an answer of PCS (power), or of CAPMC where that is the power service. Seconds, 10 to 86400, default 20.
    #[schemars(range(min = 10, max = 86400))]
    pub pcs_read_timeout_seconds: i32,

    /// Sessions that ended longer ago than this are removed, except those a GitOps tool tracks. A number and m, h, d or w, default 7d; 0 keeps them for ever.
    #[schemars(length(min = 1, max = 8), regex(pattern = "^(0|(0|[1-9][0-9]*)[mhdwMHDW])$"))]
    pub cleanup_completed_session_ttl: String,

    /// Whether the staged state of a node is emptied once it was applied. Default false: it can be applied again.
    pub clear_stage: bool,

    /// How long the word of a node about what it runs is believed; nodes are told to report more often than that. A number and h, d or w, at least 1h, default 4h. It is part of the kernel command line, so a change reaches a node at its next boot.
    #[schemars(length(min = 2, max = 8), regex(pattern = "^[1-9][0-9]*[hdwHDW]$"))]
    pub component_actual_state_ttl: String,

    /// How often each power action is tried for a node in one run, unless its retryPolicy says otherwise. 0 to 1048576, default 3; 0 sends none, and every node that needs one fails at once.
    #[schemars(range(min = 0, max = 1048576))]
    pub default_retry_policy: i32,

    /// How often HSM is asked for its nodes. Seconds, 0 to 33554432, default 300; 0 is taken for 1.
    #[schemars(range(min = 0, max = 33554432))]
    pub discovery_frequency_seconds: i32,

    /// Whether a template is invalid when IMS cannot be asked about its image. Default false: only a warning.
    pub ims_errors_fatal: bool,

    /// Whether a template is invalid when IMS does not know its image. Default false: only a warning.
    pub ims_images_must_exist: bool,

    /// How much is logged: DEBUG, INFO (default), WARNING, ERROR or CRITICAL.
    pub logging_level: LoggingLevel,

    /// How long after a power-on a node may take to report the right image. Then it is power-cycled, or failed after the last attempt. Seconds, 0 to 1048576, default 1200; with 0 no node can come up in time.
    #[schemars(range(min = 0, max = 1048576))]
    pub max_boot_wait_time_seconds: i32,

    /// In mode v1: how long after a power-on HSM may take to call a node Ready, before the node fails; it is left on. Seconds, 0 to 1048576, default 1800; with 0 no node can come up in time.
    #[schemars(range(min = 0, max = 1048576))]
    pub v1_boot_wait_time_seconds: i32,

    /// In mode v1: whether a node counts as booted only when its port 22 (SSH) can be reached too, as Ansible will want it. The agent's pod must reach the network of the nodes, and their xnames must resolve there. Default false.
    pub v1_ssh_check: bool,

    /// Most nodes in one call to a service. 0 to 131071, default 2800; 0 is no limit.
    #[schemars(range(min = 0, max = 131071))]
    pub max_component_batch_size: i32,

    /// How long after a graceful shutdown a node may take to go off before it is forced, and how long between forced power-offs. Seconds, 0 to 1048576, default 300; 0 forces it at once.
    #[schemars(range(min = 0, max = 1048576))]
    pub max_power_off_wait_time_seconds: i32,

    /// How long after a power-on a node may still be off before the power-on counts as failed and is tried again. Seconds, 0 to 1048576, default 120; with 0 it fails unless the power service says on at once.
    #[schemars(range(min = 0, max = 1048576))]
    pub max_power_on_wait_time_seconds: i32,

    /// How often the power service and CFS are asked about nodes that wait for their answer, at least; it is asked sooner where an answer is expected. Seconds, 0 to 1048576, default 15; 0 asks about power once a second and CFS four times a second.
    #[schemars(range(min = 0, max = 1048576))]
    pub polling_frequency_seconds: i32,

    /// Whether a NID (nid000123) in a limit is an error instead of a warning. Default false.
    pub reject_nids: bool,

    /// Whether a Session without limit is refused. Default false. With true, write "*" for all nodes.
    pub session_limit_required: bool,

    /// How long the power of a node may be unknown, or CFS may not know the node, before it fails. It is not touched meanwhile. Seconds, 0 to 1048576, default 900; 0 fails it at the next look.
    #[schemars(range(min = 0, max = 1048576))]
    pub power_unknown_wait_time_seconds: i32,

    /// How long CFS may take to configure a node before the node fails; it stays on. Seconds, 0 to 1048576, default 14400 (4 hours): CFS works through a large system in batches and tries again by itself, and a shorter time would fail nodes that only wait for their turn. 0 fails every node that CFS has not finished at the first look.
    #[schemars(range(min = 0, max = 1048576))]
    pub configuration_wait_time_seconds: i32,

    /// How long a Session waits for a template that does not exist yet. Seconds, 0 to 1048576, default 300; 0 does not wait.
    #[schemars(range(min = 0, max = 1048576))]
    pub template_wait_time_seconds: i32,

    /// Most nodes that are between power-on and their report at any time. Others wait, reason Paced. 0 to 1000000; 0 (default) is no limit.
    #[schemars(range(min = 0, max = 1000000))]
    pub max_nodes_in_flight: i32,

    /// Most nodes that are powered on in one second. Others wait, reason Paced. 0 to 100000; 0 (default) is no limit.
    #[schemars(range(min = 0, max = 100000))]
    pub power_ons_per_second: i32,

    /// What proves that a node has booted. NodeReport (default): the node itself reports the boot it runs, which needs bos-reporter in the image. HSMReady: HSM calls it Ready, after it called it something else since the power-on. PowerState: its power is on, which says nothing of its operating system. Fixed for a Session when it starts.
    pub boot_evidence: BootEvidence,

    /// Whether Sessions may act on nodes of role Management. Default false: they are excluded, and counted, as ManagementRole.
    pub include_management: bool,

    /// Namespaces whose Sessions are carried out. Empty (default): only the namespace the operator is installed in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub session_namespaces: Vec<String>,

    /// If HSM suddenly lists fewer nodes by this share or more, its answer is taken for a fault and nothing is changed. Percent, 1 to 100, default 10.
    #[schemars(range(min = 1, max = 100))]
    pub inventory_shrink_percent: i32,

    /// If more nodes of one Session than this number, and more than massBootTimeoutPercent, time out together, none is power-cycled and the Session says MassBootTimeout. 0 to 1000000, default 8; with 0 here and there no silent node is ever power-cycled.
    #[schemars(range(min = 0, max = 1000000))]
    pub mass_boot_timeout_minimum: i32,

    /// See massBootTimeoutMinimum. Percent of the nodes of the Session, 0 to 100, default 5; with 0 the number alone counts.
    #[schemars(range(min = 0, max = 100))]
    pub mass_boot_timeout_percent: i32,
}

impl Default for BootOptionsSpec {
    fn default() -> Self {
        const READ_TIMEOUT: i32 = 20;
        Self {
            bss_read_timeout_seconds: READ_TIMEOUT,
            cfs_read_timeout_seconds: READ_TIMEOUT,
            hsm_read_timeout_seconds: READ_TIMEOUT,
            ims_read_timeout_seconds: READ_TIMEOUT,
            pcs_read_timeout_seconds: READ_TIMEOUT,
            cleanup_completed_session_ttl: "7d".to_owned(),
            clear_stage: false,
            component_actual_state_ttl: "4h".to_owned(),
            default_retry_policy: 3,
            discovery_frequency_seconds: 300,
            ims_errors_fatal: false,
            ims_images_must_exist: false,
            logging_level: LoggingLevel::Info,
            max_boot_wait_time_seconds: 1200,
            v1_boot_wait_time_seconds: 1800,
            v1_ssh_check: false,
            max_component_batch_size: 2800,
            max_power_off_wait_time_seconds: 300,
            max_power_on_wait_time_seconds: 120,
            polling_frequency_seconds: 15,
            reject_nids: false,
            session_limit_required: false,
            power_unknown_wait_time_seconds: 900,
            configuration_wait_time_seconds: 14_400,
            template_wait_time_seconds: 300,
            max_nodes_in_flight: 0,
            power_ons_per_second: 0,
            boot_evidence: BootEvidence::NodeReport,
            include_management: false,
            session_namespaces: Vec::new(),
            inventory_shrink_percent: 10,
            mass_boot_timeout_minimum: 8,
            mass_boot_timeout_percent: 5,
        }
    }
}

/// Whether the settings are in force.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BootOptionsStatus {
    /// The metadata.generation that was last looked at; -1 before the first look.
    #[serde(default = "schema::not_observed")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,

    /// Ready: every value is in force; its message names values that are likely a mistake. If False, the last good value stays in force where problems names one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// What cannot be used, one text each naming field, value and what is allowed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 64), inner(length(max = 2048)))]
    pub problems: Vec<String>,
}

impl Default for BootOptionsStatus {
    fn default() -> Self {
        Self { observed_generation: schema::not_observed(), conditions: Vec::new(), problems: Vec::new() }
    }
}
