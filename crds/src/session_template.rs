//! SessionTemplate: which nodes, which boot artifacts, which configuration.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::wire::words;

words! {
    /// Where the boot artifacts of a boot set lie.
    #[derive(Default)]
    BootSetType {
        /// An image manifest in S3.
        #[default]
        S3 = "s3",
    }
}

words! {
    /// Processor architecture as HSM records it.
    #[derive(Default)]
    Arch {
        /// x86-64; also takes the nodes whose architecture HSM does not know.
        #[default]
        X86 = "X86",
        /// 64-bit ARM.
        Arm = "ARM",
        /// Neither of the two.
        Other = "Other",
        /// Only nodes whose architecture HSM does not know.
        Unknown = "Unknown",
    }
}

/// What a Session does, and to which nodes: the nodes, their boot artifacts and their configuration.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "bos.hpe.com",
    version = "v1alpha1",
    kind = "SessionTemplate",
    namespaced,
    status = "SessionTemplateStatus",
    derive = "PartialEq",
    shortname = "bst",
    category = "bos",
    doc = "A SessionTemplate says which nodes boot which image with which configuration. It does nothing by itself: a Session names it and acts. It is read when a Session starts; a later edit changes no running Session.",
    validation = Rule::new("size(self.metadata.name) <= 127").message("the name of a SessionTemplate has at most 127 characters"),
    printcolumn(name = "Configuration", type_ = "string", json_path = ".spec.cfs.configuration"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Description", type_ = "string", json_path = ".spec.description", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
)]
pub struct SessionTemplateSpec {
    /// Free text for people, for example "COS 3.3.12 for the compute cabinets".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1023))]
    pub description: Option<String>,

    /// Configuration for every boot set that names none of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cfs: Option<CfsSpec>,

    /// Whether nodes are configured by CFS after they booted. If false no configuration is set, whatever the boot sets say. Default true.
    #[serde(default = "schema::yes")]
    pub enable_cfs: bool,

    /// Sets of nodes that boot the same image, at least one. Each has a name of its own. A node should fit one of them only: if several fit, it gets the last one, and the Session's warnings say so.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    #[schemars(length(min = 1, max = 127))]
    pub boot_sets: Vec<BootSet>,
}

impl Default for SessionTemplateSpec {
    fn default() -> Self {
        Self { description: None, cfs: None, enable_cfs: true, boot_sets: Vec::new() }
    }
}

/// Which CFS configuration.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CfsSpec {
    /// Name of a configuration in CFS, for example cos-3.3.12. It must exist when the Session starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 127))]
    pub configuration: Option<String>,
}

/// Nodes that boot the same image.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.nodeList) && size(self.nodeList) > 0) || (has(self.nodeGroups) && size(self.nodeGroups) > 0) || (has(self.nodeRolesGroups) && size(self.nodeRolesGroups) > 0)")
    .message("a boot set needs nodes: give nodeList, nodeGroups or nodeRolesGroups at least one entry"))]
pub struct BootSet {
    /// Name of the boot set, unique in its template, for example compute. Letters, digits, "." "-" "_"; first and last a letter or digit.
    #[schemars(length(min = 1, max = 127), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub name: String,

    /// Where the boot artifacts lie. Only s3. Default s3.
    #[serde(default, rename = "type")]
    pub type_: BootSetType,

    /// Architecture: X86 (default), ARM, Other or Unknown. Nodes of another architecture are excluded, and counted, as ArchMismatch. X86 also takes nodes whose architecture HSM does not know.
    #[serde(default)]
    pub arch: Arch,

    /// Image manifest, for example s3://boot-images/7f0c5c1e/manifest.json. The manifest names kernel, initrd and root file system.
    #[schemars(length(min = 8, max = 4095))]
    #[x_kube(validation = Rule::new(r"self.matches('^s3://[^/]+/.+$')").message("path must name an object in S3: s3://bucket/key, for example s3://boot-images/7f0c5c1e/manifest.json"))]
    pub path: String,

    /// ETag the manifest is expected to have, without quotation marks. If it has another, the status of the template (Ready=True, CheckedWithWarnings) and the warnings of the Session say so; the boot goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub etag: Option<String>,

    /// Words added to the kernel command line, as they are, after the image's own, for example "console=ttyS0,115200 quiet". They are part of what a node runs: a Boot power-cycles nodes that run the image with other words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub kernel_parameters: Option<String>,

    /// Nodes by xname, for example x3000c0s19b1n0. Upper case and leading zeros are accepted; NIDs are not. At most 16384. At least one of nodeList, nodeGroups and nodeRolesGroups must have an entry; their nodes are added up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(
        length(max = 16384),
        inner(length(min = 10, max = 32), regex(pattern = r"^[xX][0-9]{1,4}[cC][0-9]{1,3}[sS][0-9]{1,3}[bB][0-9]{1,3}[nN][0-9]{1,3}$"))
    )]
    pub node_list: Vec<String>,

    /// Nodes by HSM group label, for example blue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 4095), inner(length(min = 1, max = 127)))]
    pub node_groups: Vec<String>,

    /// Nodes by HSM role, or role and sub-role joined by "_", for example Compute or Application_UAN.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 1023), inner(length(min = 1, max = 127)))]
    pub node_roles_groups: Vec<String>,

    /// How nodes get their root file system: sbps, or cpss3 where CPS and DVS are still there. Without it no root= is added unless rootfsProviderPassthrough is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 511))]
    pub rootfs_provider: Option<String>,

    /// Text for the root file system provider, added to root=. For sbps: "sbps:v1:IQN-DOMAIN:DNS-SRV-NAME:TIMEOUT-SECONDS"; without it nodes do not find their root file system, and the template says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub rootfs_provider_passthrough: Option<String>,

    /// Configuration of this boot set, instead of the template's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cfs: Option<CfsSpec>,
}

/// What was found out about a template. Conditions: Valid, ArtifactsAvailable, ConfigurationKnown, Ready.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SessionTemplateStatus {
    /// The metadata.generation that was last looked at; -1 before the first look.
    #[serde(default = "schema::not_observed")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,

    /// Valid (fields make sense together), ArtifactsAvailable (manifest, kernel and initrd are in S3), ConfigurationKnown (CFS has the configuration), Ready (all of them).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// What was found for each boot set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    #[schemars(length(max = 127))]
    pub boot_sets: Vec<BootSetReport>,
}

impl Default for SessionTemplateStatus {
    fn default() -> Self {
        Self { observed_generation: schema::not_observed(), conditions: Vec::new(), boot_sets: Vec::new() }
    }
}

/// What was found for one boot set of a template.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BootSetReport {
    /// Name of the boot set.
    #[schemars(length(max = 127))]
    pub name: String,

    /// Kernel named by the manifest, as s3:// path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4095))]
    pub kernel: String,

    /// Initial RAM disk named by the manifest, as s3:// path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4095))]
    pub initrd: String,

    /// Short name of the image: its name in IMS where known, otherwise its id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub image: String,

    /// What is wrong with this boot set; empty if nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub message: String,
}
