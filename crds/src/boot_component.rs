//! BootComponent: one node, what it should run and what it does.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::boot_component_status::BootComponentStatus;
use crate::schema;
use crate::session::Operation;

/// What one node should run.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "bos.hpe.com",
    version = "v1alpha1",
    kind = "BootComponent",
    status = "BootComponentStatus",
    derive = "PartialEq",
    shortname = "bc",
    category = "bos",
    doc = "A BootComponent is one node, named by its xname: what it should run, what it runs, and what is being done about it. Discovery creates them from HSM and never deletes one. Sessions write the spec. Nothing is done to a node until spec.run changes.",
    validation = Rule::new(r"self.metadata.name.matches('^x(0|[1-9]\\d{0,3})c(0|[1-9]\\d?)s(0|[1-9]\\d{0,2})b(0|[1-9]\\d?)n(0|[1-9]\\d{0,2})$')").message("the name of a BootComponent is the xname of a node in lower case without leading zeros, for example x3000c0s19b1n0"),
    selectable = ".spec.session.name",
    selectable = ".spec.session.namespace",
    selectable = ".status.status",
    selectable = ".status.phase",
    selectable = ".status.power",
    selectable = ".status.reason",
    selectable = ".status.enabled",
    printcolumn(name = "Status", type_ = "string", json_path = ".status.status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Session", type_ = "string", json_path = ".spec.session.name"),
    printcolumn(name = "Power", type_ = "string", json_path = ".status.power"),
    printcolumn(name = "Last Action", type_ = "string", json_path = ".status.lastAction"),
    printcolumn(name = "Tries", type_ = "string", json_path = ".status.tries", description = "Attempts of the action at hand, of how many are allowed"),
    printcolumn(name = "Since", type_ = "date", json_path = ".status.since", description = "How long it has had this status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(name = "Enabled", type_ = "boolean", json_path = ".status.enabled", description = "Being driven now; not the enabled flag of HSM", priority = 1),
    printcolumn(name = "NID", type_ = "integer", json_path = ".status.nid", priority = 1),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.actualState.image", priority = 1),
    printcolumn(name = "Config", type_ = "string", json_path = ".status.actualState.configuration", priority = 1),
    printcolumn(name = "Next", type_ = "string", json_path = ".status.next", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.message", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp", priority = 1),
)]
pub struct BootComponentSpec {
    /// What the node should run. Written by Sessions; a person may write it too, and then sets a new run. Changing it alone does nothing to the node. Left out: nothing is wanted, and a new run is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub desired_state: Option<DesiredState>,

    /// State parked by a staged Session until it is applied. The node does not see it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub staged_state: Option<StagedState>,

    /// The Session that owns the node. A newer Session takes it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub session: Option<SessionRef>,

    /// A token: the node is driven towards its desired state when this differs from status.run. Any new text of at most 40 characters starts one run with fresh attempts, for example the time of day. To retry a failed node by hand, set a new one. In an object that is created, restored or tracked by a GitOps tool it asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub run: Option<String>,

    /// A token: the staged state is applied when this differs from status.appliedStaged. Any new text applies it once, for example the time of day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub apply_staged: Option<String>,

    /// Most attempts of each power action in one run, instead of defaultRetryPolicy of the BootOptions. 0 fails at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1048576))]
    pub retry_policy: Option<i32>,

    /// Hold this node: nothing new is sent for it until this is false again. Default false.
    #[serde(default, skip_serializing_if = "schema::is_false")]
    pub suspend: bool,
}

/// What a node should run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct DesiredState {
    /// Digest of kernel, initrd, kernel parameters and root file system together, 20 hexadecimal digits. The ConfigMap bos-artifacts-DIGEST in the operator's namespace holds them. Left out: the node should be off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 80), regex(pattern = "^(sha256:)?[0-9a-f]{8,64}$"))]
    pub artifacts: Option<String>,

    /// Short name of the image, for people: its name in IMS where known, otherwise the beginning of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub image: Option<String>,

    /// CFS configuration the node should have. Left out: none is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 127))]
    pub configuration: Option<String>,
}

/// State that waits to be applied.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct StagedState {
    /// What is done to the node when the state is applied.
    pub operation: Operation,

    /// Digest of kernel, initrd and kernel parameters together, sha256:... Left out: the node will be powered off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 8, max = 80), regex(pattern = "^(sha256:)?[0-9a-f]{8,64}$"))]
    pub artifacts: Option<String>,

    /// Short name of the image, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub image: Option<String>,

    /// CFS configuration the node will get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 127))]
    pub configuration: Option<String>,

    /// The Session that staged it.
    pub session: SessionRef,
}

/// A Session, named so that another of the same name is not mistaken for it.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SessionRef {
    /// Namespace of the Session.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,

    /// Name of the Session.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its metadata.uid.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,

    /// Its metadata.creationTimestamp; the newer of two Sessions owns a node.
    pub created_at: Time,
}
