//! What is being done to one node: its phase, its last power action with deadlines, its attempts, and how its part ends.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::model::{Digest, Owner, SessionUid, Token};
use crate::time::Timestamp;

/// The phase of a driven node, as BOS names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Phase {
    /// Not decided yet, or nothing left to do.
    None,
    /// Must go off.
    PoweringOff,
    /// Must come up.
    PoweringOn,
    /// Up with the right image, being configured.
    Configuring,
}

/// An action on a node's power, BOS's `last_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum PowerAction {
    /// Power on.
    On,
    /// Ask the operating system to shut down.
    SoftOff,
    /// Cut the power.
    ForceOff,
}

/// The last power action of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Issued {
    /// What was asked.
    pub action: PowerAction,
    /// When the call was decided, or left; moved on by our own downtime like the deadlines below. For comparisons with looks at
    /// the power service.
    pub at: Timestamp,
    /// The same instant as it was, for comparisons with the times of reports: those are not moved by a restart.
    pub decided: Timestamp,
    /// When the power must have followed; fixed when the action starts (rule 4).
    pub power_by: Timestamp,
    /// For On: when the node must have reported; fixed when the action starts.
    pub boot_by: Timestamp,
    /// Whether the power service is known to have accepted it. False after a lost answer or a crash: it may or may not have
    /// been carried out, so it is waited out, never repeated in doubt.
    pub accepted: bool,
    /// It did not take effect: the power service said so, or its deadline passed.
    pub failed: bool,
}

/// Attempts of one run, per kind of action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Attempts {
    /// Power-ons accepted, or possibly accepted.
    pub on: u16,
    /// Graceful power-offs.
    pub graceful: u16,
    /// Forceful power-offs.
    pub forceful: u16,
}

impl Attempts {
    /// The counter of one action.
    pub fn of(&mut self, action: PowerAction) -> &mut u16 {
        match action {
            PowerAction::On => &mut self.on,
            PowerAction::SoftOff => &mut self.graceful,
            PowerAction::ForceOff => &mut self.forceful,
        }
    }

    /// A power-off was asked for.
    #[must_use]
    pub const fn any_off(self) -> bool {
        self.graceful > 0 || self.forceful > 0
    }

    /// Reads the counter of one action.
    #[must_use]
    pub fn used(mut self, action: PowerAction) -> u16 {
        *self.of(action)
    }
}

/// Progress of something that must be confirmed before power-on (rule 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Prepared {
    /// Not confirmed for this power-on.
    No,
    /// The service confirmed it for this node.
    Yes,
}

/// What BSS says of a node's boot script, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Script {
    /// Not asked yet.
    #[default]
    NotAsked,
    /// BSS did not answer.
    Unknown,
    /// Not fetched since the power-on.
    NeverFetched,
    /// Fetched then.
    Fetched(Timestamp),
}

/// Why a driven node waits, where it is not simply the next step's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HoldReason {
    /// The power service does not know the node's power.
    PowerUnknown,
    /// CFS has no record of the node.
    NotInConfigurationService,
    /// An operation of an earlier session has not ended.
    PreviousOperation,
    /// Too many nodes of the session fell silent together (rule 8).
    MassBootTimeout,
    /// Nothing that would prove a boot can reach us, so silence proves nothing (rule 8).
    ReportPathDown,
}

/// A hold with its beginning and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    pub since: Timestamp,
    /// When it ends in failure (rule 15).
    pub until: Timestamp,
}

/// How a node's part in a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum EndKind {
    /// In the desired state, on evidence.
    Succeeded,
    /// Given up, for the reason beside it.
    Failed,
    /// Running something else and left alone.
    LeftRunning,
    /// A newer session took it.
    Superseded,
    /// The session was cancelled or deleted first.
    Cancelled,
}

/// The end of one node's part in a session, with the reason from the registry in `bos_crds::reasons`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct End {
    /// How.
    pub kind: EndKind,
    /// Reason; empty for success.
    pub reason: Arc<str>,
    /// What happened and what a person can do.
    pub message: Arc<str>,
    /// When.
    pub at: Timestamp,
}

/// A boot that an older session has begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flight {
    /// What it boots.
    pub artifacts: Option<Digest>,
    /// Its power-on.
    pub issued: Issued,
    /// As [`Drive::last_on`].
    pub last_on: Option<Timestamp>,
    /// As [`Drive::down_seen`].
    pub down_seen: bool,
}

/// A token that an older session has stored for a node, and what it stands for: that session may be gone when it is reported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "StoredInherited")]
pub struct Inherited(pub Token, pub Option<Digest>);

/// As journals hold it. Those of the first release have the token alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredInherited {
    Token(Token),
    Both(Token, Option<Digest>),
}

impl From<StoredInherited> for Inherited {
    fn from(stored: StoredInherited) -> Self {
        match stored {
            StoredInherited::Token(token) => Self(token, None),
            StoredInherited::Both(token, digest) => Self(token, digest),
        }
    }
}

/// What a session leaves behind at a node that it lost or gave up. Whoever takes the node next goes on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// Whose it was, as new as that was to the node.
    pub by: Owner,
    /// What it sent may still take effect until then.
    pub unsettled_until: Timestamp,
    /// The boot that is still to come up: its own, or one that it had found.
    pub flight: Option<Flight>,
    /// Tokens by which the node may be known.
    pub tokens: Vec<Inherited>,
}

/// A node being driven to the desired state of its session: BOS's enabled component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Owner.
    pub session: SessionUid,
    /// Position in the session's plan.
    pub index: u32,
    /// Boot set of the plan.
    pub boot_set: u16,
    /// `spec.run` that goes with it: the session's uid, or the token of whoever asked for this run.
    pub run: Arc<str>,
    /// Its staged state was applied.
    pub applied: bool,
    /// When the session took the node; older observations are not evidence.
    pub held_since: Timestamp,
    /// Current phase.
    pub phase: Phase,
    /// Last power action of this run.
    pub action: Option<Issued>,
    /// The one before it, and when that was decided: what people see once `action` is forgotten with a phase, or has not left.
    pub earlier: Option<(PowerAction, Timestamp)>,
    /// Attempts of this run.
    pub attempts: Attempts,
    /// When its last power-on was decided, by the wall clock: what the node says after that shows that it is up (rule 8).
    pub last_on: Option<Timestamp>,
    /// Boot parameters confirmed by BSS for the power-on to come.
    pub params: Prepared,
    /// Configuration confirmed by CFS for the power-on to come.
    pub config: Prepared,
    /// HSM was seen to call it something else than Ready since its last power-on, or in mode v1 just before: only then does a Ready prove a boot.
    pub down_seen: bool,
    /// Whether it came for its boot script after its last power-on; asked once, when it stays silent. Not durable.
    pub script: Script,
    /// The node runs the desired image, on evidence, since then.
    pub booted: Option<Timestamp>,
    /// Deadline of the phase Configuring.
    pub configured_by: Option<Timestamp>,
    /// Why it waits.
    pub hold: Option<Hold>,
    /// Refused as part of a larger batch: travels with at most so many others from now on (rule 13); 0 for no limit.
    pub together: u32,
    /// Nothing is sent before: after an error, or while a call of the session or the agent before may still take effect.
    pub not_before: Timestamp,
    /// Attempts given back because nothing showed that they were carried out.
    pub refunds: u8,
    /// Tokens of the session it was taken from while that was booting it: a report of one of them is no boot by somebody else.
    pub inherited: Vec<Inherited>,
    /// That boot, where this session wants something else. The next one may want it again.
    pub in_flight: Option<Box<Flight>>,
    /// Why it was last switched off after it had been powered on, for people: it did not come up. Empty where it was not.
    pub cause: Arc<str>,
    /// Last error a service named for this node.
    pub error: Arc<str>,
    /// In its displayed status since then; not durable, for display only.
    pub since: Timestamp,
}

impl Drive {
    /// The oldest observation of power that may be believed now: newer than the session's hold on the node, than its last
    /// action, and than any deadline of it that has passed, for a fresh observation precedes every escalation (rule 4).
    #[must_use]
    pub fn evidence_since(&self, now: Timestamp) -> Timestamp {
        let Some(issued) = self.action else { return self.held_since };
        let boot_by = Some(issued.boot_by).filter(|_| issued.action == PowerAction::On);
        let passed = [Some(issued.power_by), boot_by].into_iter().flatten().filter(|at| *at <= now).max();
        passed.unwrap_or(issued.at).max(issued.at).max(self.held_since)
    }

    /// Powered on, and past the deadline for its boot.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        matches!(self.action, Some(issued) if issued.action == PowerAction::On && now >= issued.boot_by)
    }

    /// Powered on at or before `asked`, and not known to be up: what was asked then may prove its boot.
    #[must_use]
    pub fn awaits_boot_since(&self, asked: Timestamp) -> bool {
        let on = self.action.is_some_and(|issued| issued.action == PowerAction::On && issued.at <= asked);
        on && self.booted.is_none() && self.phase == Phase::PoweringOn
    }

    /// Forgets the last action: what comes next is judged by itself.
    pub(crate) fn forget_action(&mut self) {
        self.earlier = self.last_action();
        self.action = None;
    }

    /// Takes an action back that did not reach its service: no attempt (rule 14).
    pub(crate) fn take_back(&mut self, action: PowerAction, before: Option<Issued>) {
        if self.action.is_some_and(|issued| issued.action == action) {
            self.action = before;
            let attempts = self.attempts.of(action);
            *attempts = attempts.saturating_sub(1);
        }
    }

    /// Its last power action, whatever phase it was for, and when that was decided.
    #[must_use]
    pub fn last_action(&self) -> Option<(PowerAction, Timestamp)> {
        last_of(self.action, self.earlier)
    }

    /// The session has switched it off and on, in whichever order.
    #[must_use]
    pub const fn cycled(&self) -> bool {
        self.attempts.on > 0 && self.attempts.any_off()
    }

    /// The session's last power action, or where there is none its hold on the node.
    #[must_use]
    pub fn acted_or_held_since(&self) -> Timestamp {
        self.action.map_or(self.held_since, |issued| issued.at.max(self.held_since))
    }
}

/// The last of two power actions, and when it was decided.
fn last_of(action: Option<Issued>, earlier: Option<(PowerAction, Timestamp)>) -> Option<(PowerAction, Timestamp)> {
    action.map(|issued| (issued.action, issued.decided)).or(earlier)
}

/// What remains for display of a node's last run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    /// The session.
    pub session: SessionUid,
    /// `spec.run` that went with it.
    pub run: Arc<str>,
    /// It was no Session's: namespace and name say nothing.
    pub by_hand: bool,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// How it ended.
    pub end: End,
    /// Attempts used.
    pub attempts: Attempts,
    /// Attempts allowed.
    pub limit: u16,
    /// Last power action.
    pub action: Option<Issued>,
    /// As [`Drive::earlier`].
    pub earlier: Option<(PowerAction, Timestamp)>,
    /// Phase at the end, shown for failures.
    pub phase: Phase,
    /// The configuration it was brought to; None where it did not succeed or none was wanted.
    pub configuration: Option<Arc<str>>,
}

impl LastRun {
    /// As [`Drive::last_action`].
    #[must_use]
    pub fn last_action(&self) -> Option<(PowerAction, Timestamp)> {
        last_of(self.action, self.earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first release wrote the tokens alone.
    #[test]
    fn inherited_tokens_are_read_as_every_release_wrote_them() {
        let token = |text: &str| Token(text.into());
        let digest = Digest("d".into());
        let read: Vec<Inherited> = serde_json::from_str(r#"["a", ["b", null], ["c", "d"]]"#).unwrap();
        let known = vec![Inherited(token("a"), None), Inherited(token("b"), None), Inherited(token("c"), Some(digest))];
        assert_eq!(read, known);
        let again = serde_json::to_string(&known).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Inherited>>(&again).unwrap(), known);
    }
}
