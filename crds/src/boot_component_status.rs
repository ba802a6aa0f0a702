//! Status of a BootComponent: what the node does and why.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use smol_str::SmolStr;

use crate::schema::{self, bounded};
use crate::wire::words;

words! {
    /// What is being done to a node.
    #[derive(Default)]
    NodePhase {
        /// Nothing.
        #[default]
        None = "None",
        /// It is being powered off.
        PoweringOff = "PoweringOff",
        /// It is being powered on, until it reports.
        PoweringOn = "PoweringOn",
        /// CFS configures it.
        Configuring = "Configuring",
    }
}

words! {
    /// Where a node stands.
    NodeStatus {
        /// Must be powered on; nothing was sent yet.
        PowerOnPending = "PowerOnPending",
        /// Power-on was sent; its report is waited for.
        PowerOnCalled = "PowerOnCalled",
        /// Must go off; nothing was sent yet.
        PowerOffPending = "PowerOffPending",
        /// A graceful shutdown was sent.
        PowerOffGracefullyCalled = "PowerOffGracefullyCalled",
        /// A forced power-off was sent.
        PowerOffForcefullyCalled = "PowerOffForcefullyCalled",
        /// It runs the wanted image and CFS configures it.
        Configuring = "Configuring",
        /// Nothing is to be done.
        Stable = "Stable",
        /// Given up; a person is needed.
        Failed = "Failed",
        /// Held until something unknown is known, or because a person holds it.
        OnHold = "OnHold",
    }
}

words! {
    /// Power of a node as the power service (PCS or CAPMC) says.
    #[derive(Default)]
    PowerState {
        /// On.
        On = "On",
        /// Off.
        Off = "Off",
        /// Not known. This is neither on nor off.
        #[default]
        Unknown = "Unknown",
    }
}

words! {
    /// The last thing done to a node.
    LastAction {
        /// What the node reported became too old and was forgotten.
        ActualStateCleanup = "ActualStateCleanup",
        /// Its staged state was applied.
        ApplyStaged = "ApplyStaged",
        /// HSM named it for the first time.
        NewlyDiscovered = "NewlyDiscovered",
        /// A forced power-off was sent.
        PoweringOffForcefully = "PoweringOffForcefully",
        /// A graceful shutdown was sent.
        PoweringOffGracefully = "PoweringOffGracefully",
        /// Power-on was sent.
        PoweringOn = "PoweringOn",
        /// A Session took it.
        SessionSetup = "SessionSetup",
    }
}

/// What a node does and why.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct BootComponentStatus {
    /// The metadata.generation that was last looked at; -1 before the first look.
    #[serde(default = "schema::not_observed")]
    #[schemars(range(min = -1))]
    pub observed_generation: i64,

    /// Whether the operator drives this node now. This is not the enabled flag of HSM: a node disabled in HSM is left out of Sessions, this one only says whether a run is in progress.
    #[serde(default)]
    pub enabled: bool,

    /// The spec.run that was last taken up, or refused as next says. While it differs from spec.run the node waits to be driven.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub run: Option<SmolStr>,

    /// The spec.applyStaged that was last answered: applied, or refused as the message says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub applied_staged: Option<SmolStr>,

    /// Only of a node whose last run was no Session's: Sessions that were created up to then are older than that run and do not take the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_since: Option<Time>,

    /// What is being done: PoweringOff, PoweringOn or Configuring; left out if nothing is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<NodePhase>,

    /// PowerOnPending and PowerOffPending: nothing was sent yet. PowerOnCalled, PowerOffGracefullyCalled, PowerOffForcefullyCalled: sent, the effect is waited for. Configuring: CFS is at work. Stable: nothing to do. Failed: given up, a person is needed. OnHold: held, see reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<NodeStatus>,

    /// Why it has this status, as one word, for example AwaitingReport or BootTimeout; Suspended where a person holds the node or its Session.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: SmolStr,

    /// Why it has this status, for people.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    #[schemars(length(max = 512))]
    pub message: SmolStr,

    /// What happens next and when at the latest, for example "power-cycle at 14:22 if it has not reported".
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    #[schemars(length(max = 512))]
    pub next: SmolStr,

    /// Since when it has this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,

    /// What the node runs, as it reported itself. Left out: unknown, which is not the same as something else than wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub actual_state: Option<ActualState>,

    /// On, Off or Unknown, as the power service last said. Unknown is neither on nor off.
    #[serde(default)]
    pub power: PowerState,

    /// The last thing done to the node, for example PoweringOn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_action: Option<LastAction>,

    /// When it was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_action_time: Option<Time>,

    /// How often each power action was sent in this run.
    #[serde(default, skip_serializing_if = "Attempts::is_empty")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub attempts: Attempts,

    /// Attempts of the action at hand, of how many are allowed, for example "1/3".
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    #[schemars(length(max = 24))]
    pub tries: SmolStr,

    /// The last eight changes of status, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 8))]
    pub transitions: Vec<Transition>,

    /// The last Session that drove the node and how that went for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(merge_strategy = MapMerge::Atomic)]
    pub last_session: Option<LastSession>,

    /// Node id from HSM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub nid: Option<i64>,

    /// Hardware addresses of its interfaces from HSM. When none of them stays, another node was put in its place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub macs: Vec<SmolStr>,

    /// Architecture from HSM, for example X86.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub arch: Option<SmolStr>,

    /// Role from HSM, with sub-role if there is one, for example Compute or Application_UAN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 127))]
    pub role: Option<SmolStr>,

    /// Ready (Stable with the wanted state) and InInventory (HSM lists the node).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

impl Default for BootComponentStatus {
    fn default() -> Self {
        Self {
            observed_generation: schema::not_observed(),
            enabled: false,
            run: None,
            applied_staged: None,
            owned_since: None,
            phase: None,
            status: None,
            reason: SmolStr::default(),
            message: SmolStr::default(),
            next: SmolStr::default(),
            since: None,
            actual_state: None,
            power: PowerState::Unknown,
            last_action: None,
            last_action_time: None,
            attempts: Attempts::default(),
            tries: SmolStr::default(),
            transitions: Vec::new(),
            last_session: None,
            nid: None,
            macs: Vec::new(),
            arch: None,
            role: None,
            conditions: Vec::new(),
        }
    }
}

impl BootComponentStatus {
    /// Whether the operator ever wrote this status. The API server fills a new object's in, so `Some` does not say it.
    #[must_use]
    pub const fn is_observed(&self) -> bool {
        self.observed_generation >= 0
    }

    /// Notes that the status becomes `to`, and sets it with its reason and since when.
    ///
    /// Only the last [`schema::TRANSITIONS_MAX`] are kept, and `from` only where the entry before does not say it:
    /// there may be 10,000 of these objects.
    pub fn change_status(&mut self, to: NodeStatus, reason: &str, time: Time) {
        let from = self.status.map(NodeStatus::as_str).unwrap_or_default();
        let said_before = self.transitions.last().is_some_and(|last| last.to == from);
        self.transitions.push(Transition {
            time: time.clone(),
            from: if said_before { "".into() } else { from.into() },
            to: to.as_str().into(),
            reason: bounded(reason, schema::REASON_MAX).into(),
        });
        let surplus = self.transitions.len().saturating_sub(schema::TRANSITIONS_MAX);
        self.transitions.drain(..surplus);
        self.status = Some(to);
        self.reason = bounded(reason, schema::REASON_MAX).into();
        self.since = Some(time);
    }
}

/// What a node reported that it runs.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ActualState {
    /// Digest of kernel, initrd, kernel parameters and root file system together, 20 hexadecimal digits, found by the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 80))]
    pub artifacts: Option<SmolStr>,

    /// Short name of the image: its name in IMS where known, otherwise the beginning of its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub image: Option<SmolStr>,

    /// CFS configuration it was last configured with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 127))]
    pub configuration: Option<SmolStr>,

    /// The boot token from its kernel command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub bss_token: Option<SmolStr>,

    /// When it reported last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_updated: Option<Time>,
}

/// How often each power action was sent in this run.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Attempts {
    /// Power-ons.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub power_on: i32,

    /// Graceful shutdowns.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub power_off_graceful: i32,

    /// Forced power-offs.
    #[serde(default, skip_serializing_if = "schema::is_zero")]
    #[schemars(range(min = 0))]
    pub power_off_forceful: i32,
}

impl Attempts {
    /// Whether nothing was tried yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One change of status.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// When.
    pub time: Time,

    /// The status before; left out where the entry before names it, and for the first.
    #[serde(default, deserialize_with = "word", skip_serializing_if = "str::is_empty")]
    #[schemars(length(max = 32))]
    pub from: Cow<'static, str>,

    /// The status after.
    #[serde(deserialize_with = "word")]
    #[schemars(length(max = 32))]
    pub to: Cow<'static, str>,

    /// Why, as one word; BootTimeout where the node is switched off because it did not come up.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    #[schemars(length(max = 64))]
    pub reason: SmolStr,
}

/// The last Session that drove a node.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Debug, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct LastSession {
    /// Namespace of the Session.
    #[schemars(length(max = 63))]
    pub namespace: SmolStr,

    /// Name of the Session.
    #[schemars(length(max = 253))]
    pub name: SmolStr,

    /// Its metadata.uid.
    #[schemars(length(max = 64))]
    pub uid: SmolStr,

    /// How it went for this node: Succeeded, or the reason why not.
    #[serde(default, skip_serializing_if = "SmolStr::is_empty")]
    #[schemars(length(max = 64))]
    pub outcome: SmolStr,
}

/// A status, which takes no memory if it is one of ours. Another release may know more of them, and its history stays readable.
fn word<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'static, str>, D::Error> {
    let word = String::deserialize(deserializer)?;
    Ok(word.parse::<NodeStatus>().map_or(Cow::Owned(word), |status| status.as_str().into()))
}
