//! Names of the conditions in our statuses, and the one way to set them.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::schema::{TEXT_MAX, bounded};

/// Session: it ended, however. The reason is the outcome.
pub const COMPLETE: &str = "Complete";
/// Session: it ended and every node that was not taken over succeeded.
pub const SUCCEEDED: &str = "Succeeded";
/// Session: the services it needs answer. If False the message names the one that is waited for.
pub const SERVICES_AVAILABLE: &str = "ServicesAvailable";
/// Session: so many nodes timed out together that none is power-cycled. A person decides.
pub const MASS_BOOT_TIMEOUT: &str = "MassBootTimeout";
/// Session of mode v1: its agent is at work. The message says how Job and pod are.
pub const AGENT: &str = "Agent";
/// Every kind: fit for use, or done. Tools wait for this one.
pub const READY: &str = "Ready";
/// Session: work is going on. Present for tools that know kstatus.
pub const RECONCILING: &str = "Reconciling";
/// Session: it ended without success. False while it runs, even where a person holds it up: the message says what does. Present for
/// tools that know kstatus.
pub const STALLED: &str = "Stalled";
/// SessionTemplate: the fields make sense together.
pub const VALID: &str = "Valid";
/// SessionTemplate: manifest, kernel and initrd of every boot set are in S3.
pub const ARTIFACTS_AVAILABLE: &str = "ArtifactsAvailable";
/// SessionTemplate: CFS has every configuration that is named.
pub const CONFIGURATION_KNOWN: &str = "ConfigurationKnown";
/// BootComponent: HSM lists the node.
pub const IN_INVENTORY: &str = "InInventory";

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows.
    Unknown,
}

impl ConditionStatus {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl std::fmt::Display for ConditionStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a condition shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCondition {
    /// Its name, one of this module.
    pub type_: &'static str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, one of [`crate::reasons`].
    pub reason: &'static str,
    /// Why, for people. Cut to its bound when set.
    pub message: String,
    /// The generation it was judged on.
    pub observed_generation: Option<i64>,
}

/// Sets a condition and says whether anything changed.
///
/// `lastTransitionTime` becomes `now` only when the status changes. A condition that says the same already is left
/// alone, so that a caller can skip the write.
pub fn set_condition(conditions: &mut Vec<Condition>, new: &NewCondition, now: Timestamp) -> bool {
    // The wire carries whole seconds; without this a condition would differ from itself after a round trip.
    let whole_seconds = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let mut wanted = Condition {
        type_: new.type_.to_owned(),
        status: new.status.as_str().to_owned(),
        reason: new.reason.to_owned(),
        message: bounded(&new.message, TEXT_MAX),
        observed_generation: new.observed_generation,
        last_transition_time: Time(whole_seconds),
    };
    let Some(known) = conditions.iter_mut().find(|condition| condition.type_ == new.type_) else {
        conditions.push(wanted);
        return true;
    };
    if known.status == wanted.status {
        wanted.last_transition_time = known.last_transition_time.clone();
    }
    if *known == wanted {
        return false;
    }
    *known = wanted;
    true
}

/// The condition of this name.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this name is there and holds.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == ConditionStatus::True.as_str())
}
