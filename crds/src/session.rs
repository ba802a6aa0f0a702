//! Session: one operation on the nodes of a template, carried out once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::session_status::SessionStatus;
use crate::wire::words;

words! {
    /// Which machinery carries the Session out.
    #[derive(Default)]
    Mode {
        /// The operator drives every node.
        #[default]
        V2 = "v2",
        /// A Job runs the Boot Orchestration Agent.
        V1 = "v1",
    }
}

words! {
    /// What a Session does to its nodes.
    Operation {
        /// Bring nodes up with the wanted image; nodes that run it already are left alone.
        Boot = "Boot",
        /// Power every node off and bring it up with the wanted image.
        Reboot = "Reboot",
        /// Power every node off.
        Shutdown = "Shutdown",
        /// Configure running nodes; power is not touched.
        Configure = "Configure",
    }
}

words! {
    /// What a Boot does with nodes that are on.
    #[derive(Default)]
    RunningNodes {
        /// Power-cycle a node only if it is known to run another image.
        #[default]
        RestartIfDifferent = "RestartIfDifferent",
        /// Touch no node that is on.
        Leave = "Leave",
        /// Power-cycle also nodes of which nobody knows what they run. One known to run the image is left alone, as by every Boot.
        Restart = "Restart",
    }
}

/// What to do, by which template, to which nodes.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "bos.hpe.com",
    version = "v1alpha1",
    kind = "Session",
    namespaced,
    status = "SessionStatus",
    derive = "PartialEq",
    shortname = "bs",
    category = "bos",
    doc = "A Session boots, reboots, shuts down or configures the nodes of a SessionTemplate, once. It begins when it is created. Its name runs once in its namespace: a second Session of a name that ran before ends NotStarted. Wait for its end with kubectl wait --for=condition=Complete (also on failure) or --for=condition=Succeeded.",
    validation = Rule::new("size(self.metadata.name) <= 50").message("the name of a Session has at most 50 characters, because names of Jobs are made from it"),
    validation = Rule::new("!has(self.spec.retryOf) || self.spec.retryOf != self.metadata.name").message("retryOf names an earlier Session, not this one").field_path(".spec.retryOf"),
    selectable = ".spec.operation",
    selectable = ".spec.templateName",
    selectable = ".spec.mode",
    selectable = ".status.phase",
    selectable = ".status.outcome",
    printcolumn(name = "Operation", type_ = "string", json_path = ".spec.operation"),
    printcolumn(name = "Template", type_ = "string", json_path = ".spec.templateName"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".status.outcome"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.counts.nodes", description = "Nodes this Session acts on"),
    printcolumn(name = "Done", type_ = "integer", json_path = ".status.counts.done", description = "Nodes whose part is over, well or not"),
    printcolumn(name = "Failed", type_ = "integer", json_path = ".status.counts.failed"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Limit", type_ = "string", json_path = ".spec.limit", priority = 1),
    printcolumn(name = "Excluded", type_ = "integer", json_path = ".status.counts.excluded", description = "Nodes of the template that are not acted on; empty for none", priority = 1),
    printcolumn(name = "Superseded", type_ = "integer", json_path = ".status.counts.superseded", description = "Nodes taken over by newer Sessions; empty for none", priority = 1),
    printcolumn(name = "PowerCycled", type_ = "integer", json_path = ".status.counts.powerCycled", description = "Nodes powered off in order to power them on again; empty for none", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
)]
#[x_kube(
    validation = schema::unchanged("mode", true),
    validation = schema::unchanged("operation", true),
    validation = schema::unchanged("templateName", true),
    validation = schema::unchanged("limit", false),
    validation = schema::unchanged("stage", true),
    validation = schema::unchanged("includeDisabled", true),
    validation = schema::unchanged("startBefore", false),
    validation = schema::unchanged("retryOf", false),
    validation = schema::unchanged("runningNodes", true),
    validation = schema::unchanged("maxPowerCycled", false),
    validation = Rule::new("!oldSelf.cancel || self.cancel").message("cancel cannot be taken back; create another Session").field_path(".cancel"),
    validation = Rule::new("self.operation == 'Boot' || self.runningNodes == 'RestartIfDifferent'").message("runningNodes can be set for operation Boot only; leave it out").field_path(".runningNodes"),
    validation = Rule::new("self.mode != 'v1' || !self.stage").message("stage needs mode v2").field_path(".stage"),
    validation = Rule::new("self.operation != 'Configure' || !self.stage").message("stage is for operations Boot, Reboot and Shutdown").field_path(".stage"),
)]
pub struct SessionSpec {
    /// Which machinery carries the Session out: v2 (default), the operator drives every node; v1, a Job runs the Boot Orchestration Agent.
    #[serde(default)]
    pub mode: Mode,

    /// Boot: bring nodes up with the wanted image; nodes that run it already are left alone. The same image means the same kernel, initrd, kernel parameters and root file system: where only a kernel parameter was changed, running nodes are power-cycled too (see runningNodes). Reboot: power every node off and bring it up. Shutdown: power every node off. Configure: configure running nodes, power is not touched.
    pub operation: Operation,

    /// Name of a SessionTemplate in the same namespace. If it does not exist yet it is waited for, five minutes by default.
    #[schemars(length(min = 1, max = 127))]
    pub template_name: String,

    /// Only these of the template's nodes: xnames, HSM groups, partitions, roles, all or *, separated by commas without blanks, read from left to right; "!" before an item takes its nodes away, "&" keeps only them. Example: "x1000,!x1000c0s3b0n1". Leave it out for all nodes; an empty text is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262144))]
    #[x_kube(validation = Rule::new(r"self.matches('^[!&]?[^,!&\\s][^,\\s]*(,[!&]?[^,!&\\s][^,\\s]*)*$')").message("limit is a list of xnames, groups, partitions, roles, all or *, separated by commas, each with at most one ! or & before it; no blanks and no empty items"))]
    pub limit: Option<String>,

    /// Only park the wanted state in each BootComponent. Nothing happens to a node until a workload manager or a person applies it. Default false.
    #[serde(default)]
    pub stage: bool,

    /// Also act on nodes that are disabled in HSM. Default false: they are excluded, and counted, as DisabledInHSM.
    #[serde(default)]
    pub include_disabled: bool,

    /// Do not start after this time, for example 2026-11-23T18:00:00Z. If it is later when the Session is seen, it ends NotStarted. Give it to every Session that a GitOps tool applies, so that re-applying old manifests starts nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_before: Option<Time>,

    /// Act only on the nodes that failed in this earlier Session of the same namespace. It is waited for until it has ended; its object may be deleted by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 50))]
    pub retry_of: Option<String>,

    /// For Boot, what happens to nodes that are on. RestartIfDifferent (default): a node known to run another image, or the same one with other kernel parameters, is power-cycled; one of which nobody knows what it runs is left and counted. Leave: no node that is on is touched. Restart: also nodes of which nobody knows what they run are power-cycled. A node that runs the image already is left alone in any case; operation Reboot restarts that too.
    #[serde(default)]
    pub running_nodes: RunningNodes,

    /// At most this many nodes may be power-cycled by this Session; further ones are left as they are, reason MaxPowerCycled. Leave it out for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub max_power_cycled: Option<i32>,

    /// Set to true to send nothing new until it is false again. Calls already made finish; no node is powered off by it. Default false. Can be changed at any time.
    #[serde(default)]
    pub suspend: bool,

    /// Set to true to end the Session. Nothing new is sent and nothing is undone: calls already made finish, nodes left off are counted. Default false. Cannot be taken back.
    #[serde(default)]
    pub cancel: bool,
}

impl SessionSpec {
    /// A v2 Session of this operation and template, everything else as by default.
    #[must_use]
    pub fn new(operation: Operation, template_name: impl Into<String>) -> Self {
        Self {
            mode: Mode::default(),
            operation,
            template_name: template_name.into(),
            limit: None,
            stage: false,
            include_disabled: false,
            start_before: None,
            retry_of: None,
            running_nodes: RunningNodes::default(),
            max_power_cycled: None,
            suspend: false,
            cancel: false,
        }
    }
}
