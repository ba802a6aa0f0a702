//! Status of a Session: what it waits for while it runs, what came of it afterwards.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;
use crate::wire::words;

words! {
    /// Where a Session is in its life.
    SessionPhase {
        /// Not started: it waits for its template, for services or for its turn.
        Pending = "Pending",
        /// Nodes are being driven.
        Running = "Running",
        /// A person suspended it.
        Suspended = "Suspended",
        /// It ended; see the outcome.
        Complete = "Complete",
    }
}

words! {
    /// What came of a Session.
    Outcome {
        /// Nothing was done: it ran before, expired or was refused.
        NotStarted = "NotStarted",
        /// Set-up failed, there were no nodes, or none succeeded and at least one failed.
        Failed = "Failed",
        /// Newer Sessions took every node over.
        Superseded = "Superseded",
        /// A person cancelled it.
        Cancelled = "Cancelled",
        /// Every node that was not taken over succeeded, at least one.
        Succeeded = "Succeeded",
        /// Some nodes succeeded, some did not.
        PartiallyFailed = "PartiallyFailed",
    }
}

/// What a Session waits for while it runs, and what came of it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// The metadata.generation that was last looked at; -1 before the first look.
    #[serde(default = "schema::not_observed")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,

    /// Pending, Running, Suspended or Complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SessionPhase>,

    /// How it ended. NotStarted: it ran before, expired or was refused. Failed: set-up failed, there were no nodes, or none succeeded and at least one failed. Superseded: newer Sessions took every node. Cancelled. Succeeded: all nodes that remained, at least one. PartiallyFailed: some did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,

    /// While it runs, what it waits for and until when; afterwards, what came of it and how to retry.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub message: String,

    /// Share of nodes whose part is over, well or not, for example "71%".
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8))]
    pub progress: String,

    /// Numbers of nodes.
    #[serde(default, skip_serializing_if = "SessionCounts::is_empty")]
    pub counts: SessionCounts,

    /// The same as shares of all nodes, in percent with two decimals. Those at zero are left out.
    #[serde(default, skip_serializing_if = "SessionPercentages::is_empty")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub percentages: SessionPercentages,

    /// Nodes that failed or were left as they are, by reason; the most frequent first, at most 32 reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 32))]
    pub failures: Vec<FailureGroup>,

    /// Nodes of the template that are not acted on, by reason; at most 32 reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 32))]
    pub excluded: Vec<ExcludedGroup>,

    /// What a person should know of this Session, for example a group that HSM does not have, or nodes that two boot sets fit; at most ten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 10), inner(length(max = 256)))]
    pub warnings: Vec<String>,

    /// What each boot set stood for when the Session started. A template edited later changes nothing here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    #[schemars(length(max = 127))]
    pub boot_sets: Vec<BootSetStatus>,

    /// Complete (ended, the reason is the outcome), Succeeded, ServicesAvailable (False names the service that is waited for), MassBootTimeout (so many nodes fell silent together that none is power-cycled), and for tools Ready, Reconciling and Stalled; the messages of the last two say what holds the Session up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,

    /// When the nodes were resolved and work began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Time>,

    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Time>,

    /// How long it took, for example "6m12s"; set when it has ended.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32))]
    pub duration: String,

    /// Who created it, as the API server knew them. The admission webhook fills it in; empty without the webhook.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub requested_by: Option<String>,
}

impl Default for SessionStatus {
    fn default() -> Self {
        Self {
            observed_generation: schema::not_observed(),
            phase: None,
            outcome: None,
            message: String::new(),
            progress: String::new(),
            counts: SessionCounts::default(),
            percentages: SessionPercentages::default(),
            failures: Vec::new(),
            excluded: Vec::new(),
            warnings: Vec::new(),
            boot_sets: Vec::new(),
            conditions: Vec::new(),
            start_time: None,
            end_time: None,
            duration: String::new(),
            requested_by: None,
        }
    }
}

/// Numbers of nodes of a Session. Numbers that nobody misses at zero are left out then.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SessionCounts {
    /// Nodes this Session acts on; excluded ones are not among them.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub nodes: i32,

    /// Nodes whose part is over, well or not: succeeded, failed, superseded, cancelled and left as they are, together.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub done: i32,

    /// Reached the wanted state.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub succeeded: i32,

    /// Given up, see failures.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub failed: i32,

    /// Taken over by newer Sessions.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub superseded: i32,

    /// Nodes of the template not acted on, see excluded.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub excluded: i32,

    /// Nodes that this Session has asked to go off, in order to power them on again: those that were on, and those that did not come up in time.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub power_cycled: i32,

    /// Nodes that were left as they are: nobody knows what they run, runningNodes says so, or HSM locked or disabled them meanwhile.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub left_running: i32,

    /// Nodes not driven further because the Session was cancelled.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub cancelled: i32,

    /// Of those that are cancelled or left as they are: nodes whose power was off then. The message names some of them.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub left_off: i32,

    /// Nodes whose staged state waits to be applied.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub staged: i32,

    /// Nodes for which nothing was sent yet.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub pending: i32,

    /// Nodes held until something unknown is known, for example their power.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub on_hold: i32,

    /// Nodes being powered off.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub powering_off: i32,

    /// Nodes being powered on, until they report.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub powering_on: i32,

    /// Nodes being configured by CFS.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub configuring: i32,
}

impl SessionStatus {
    /// Whether the operator ever wrote this status. The API server fills a new object's in, so `Some` does not say it.
    #[must_use]
    pub const fn is_observed(&self) -> bool {
        self.observed_generation >= 0
    }
}

impl SessionCounts {
    /// Whether nothing was counted yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Shares of the nodes of a Session, each as text such as "98.81".
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct SessionPercentages {
    /// Whose staged state waits to be applied.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8))]
    pub staged: String,

    /// To be powered off, or being powered off.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8))]
    pub powering_off: String,

    /// To be powered on, or being powered on, until they are up.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8))]
    pub powering_on: String,

    /// Being configured by CFS.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8))]
    pub configuring: String,

    /// Reached the wanted state.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8))]
    pub succeeded: String,

    /// Given up.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 8))]
    pub failed: String,
}

impl SessionPercentages {
    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The shares that counts stand for.
    #[must_use]
    pub fn of(counts: &SessionCounts) -> Self {
        let share = |part: i32| if part == 0 { String::new() } else { percent(part, counts.nodes) };
        Self {
            staged: share(counts.staged),
            powering_off: share(counts.powering_off),
            powering_on: share(counts.powering_on),
            configuring: share(counts.configuring),
            succeeded: share(counts.succeeded),
            failed: share(counts.failed),
        }
    }
}

/// `part` of `whole` in percent with two decimals, a half rounded to the even digit as BOS does (§2.6).
fn percent(part: i32, whole: i32) -> String {
    let (part, whole) = (i64::from(part.max(0)), i64::from(whole.max(1)));
    let (hundredths, rest) = (part * 10_000 / whole, part * 10_000 % whole);
    let up = rest * 2 > whole || (rest * 2 == whole && hundredths % 2 == 1);
    let hundredths = hundredths + i64::from(up);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// Nodes that failed for the same reason.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct FailureGroup {
    /// Reason as one word, for example BootTimeout.
    #[schemars(length(max = 64))]
    pub reason: String,

    /// How many nodes.
    #[schemars(range(min = 0))]
    pub count: i32,

    /// Some of the nodes, folded, for example x1000c0s[0-3]b0n0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub sample: String,

    /// What happened to one of them, and what to look at.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub message: String,
}

/// Nodes not acted on for the same reason.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ExcludedGroup {
    /// Reason as one word, for example LockedInHSM.
    #[schemars(length(max = 64))]
    pub reason: String,

    /// How many nodes.
    #[schemars(range(min = 0))]
    pub count: i32,

    /// Some of the nodes, folded, for example x1000c1s[0-1]b0n0.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048))]
    pub sample: String,
}

/// What one boot set stood for when the Session started.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BootSetStatus {
    /// Name of the boot set.
    #[schemars(length(max = 127))]
    pub name: String,

    /// Short name of the image: its name in IMS where known, otherwise the beginning of its id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 256))]
    pub image: String,

    /// Kernel, as s3:// path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4095))]
    pub kernel: String,

    /// Initial RAM disk, as s3:// path.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 4095))]
    pub initrd: String,

    /// CFS configuration; empty if none is wanted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 127))]
    pub configuration: String,

    /// Digest of kernel, initrd, kernel parameters and root file system together, 20 hexadecimal digits. The ConfigMap bos-artifacts-DIGEST in the operator's namespace holds them.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 80))]
    pub artifacts: String,

    /// Nodes of this boot set that the Session acts on.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub nodes: i32,

    /// Mode v1: where the nodes of this boot set are, phase by phase. In each phase a node counts once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 3), extend("x-kubernetes-list-type" = "atomic"))]
    pub phases: Vec<BootSetPhase>,
}

words! {
    /// A phase of a boot set in mode v1.
    BootSetPhaseName {
        /// Nodes are powered off.
        Shutdown = "Shutdown",
        /// Nodes are powered on, until they are up.
        Boot = "Boot",
        /// CFS configures them.
        Configure = "Configure",
    }
}

/// Nodes of a boot set in one phase, by category; the categories of BOS v1.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BootSetPhase {
    /// Shutdown, Boot or Configure.
    pub name: BootSetPhaseName,

    /// Nodes that have not come to this phase.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub not_started: i32,

    /// Nodes that are in it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub in_progress: i32,

    /// Nodes that are through.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub succeeded: i32,

    /// Nodes that failed in it.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub failed: i32,

    /// Nodes that will not come to it, or were left as they are: they failed before, were on already, were taken over or cancelled.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub excluded: i32,

    /// Why nodes failed here or are excluded; the most frequent first, at most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub reasons: Vec<BootSetReason>,
}

/// Nodes of one phase that failed or are excluded for the same reason.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BootSetReason {
    /// Reason as one word, for example BootTimeout.
    #[schemars(length(max = 64))]
    pub reason: String,

    /// How many nodes.
    #[schemars(range(min = 0))]
    pub count: i32,
}

#[cfg(test)]
mod tests {
    use super::percent;

    #[test]
    fn percentages_have_two_decimals() {
        for (part, whole, want) in [(1, 800, "0.12"), (1, 3, "33.33"), (2, 3, "66.67"), (7, 7, "100.00"), (0, 0, "0.00"), (3, 800, "0.38")]
        {
            assert_eq!(percent(part, whole), want, "{part} of {whole}");
        }
    }
}
