//! The status operator: the only one that decides. It looks at every driven node, asks for what it does not know, and moves
//! nodes between phases, to their end, or into a hold with a reason (BOS behaviour §8; deviations under the rules of the design).

mod looks;
mod part;
mod silence;

use looks::Looks;
use part::Part;
pub use silence::Silence;

use std::time::Duration;

use bos_crds::reasons;

use crate::by_phase::ByPhase;
use crate::discovery;
use crate::health::Service;
use crate::model::{ConfigStatus, Drive, EndKind, Hold, HoldReason, Inherited, Node, Phase, Power, PowerAction, Prepared, World};
use crate::pass::MAX_REFUNDS;
use crate::plan::{PlannedBootSet, PlannedOperation, RunningPolicy};
use crate::session::{Run, Session};
use crate::time::{Timestamp, span_text};
use crate::want::{Decision, Want};

/// Everything one judgement looks at.
pub struct Case<'a> {
    /// The World.
    pub world: &'a World,
    /// The session.
    pub session: &'a Session,
    /// Its run.
    pub run: &'a Run,
    /// The boot set the node is in.
    pub boot_set: &'a PlannedBootSet,
    /// The node.
    pub node: &'a Node,
    /// Its drive.
    pub drive: &'a Drive,
    /// So many nodes are silent together that none is cycled for it (rule 8); known of those that are overdue, see
    /// [`Drive::is_overdue`].
    pub mass_silence: bool,
    /// Running nodes that the session has decided to power-cycle in order to boot another image; counted where there is a limit to them.
    pub cycled: usize,
    /// Now.
    pub now: Timestamp,
}

/// Decides for every driven node, and asks for what is not known. Tells which nodes may be acted on, by phase, where it decides nothing.
#[must_use]
pub fn reconcile(world: &World, now: Timestamp) -> (Vec<Want>, ByPhase) {
    let (mut wants, mut by_phase) = (Vec::new(), ByPhase::default());
    if world.is_agent && !world.discovery.complete {
        // An agent lets HSM tell of its nodes first.
        return (wants, by_phase);
    }
    let mut looks = Looks::default();
    let parts: Vec<Part<'_>> = world.sessions.values().filter_map(|session| Part::of(world, session, now, &mut looks)).collect();
    let by_hand: Silence = parts.iter().filter(|part| part.session.by_hand).map(|part| part.silence).sum();
    for part in parts {
        let uid = &part.session.uid;
        let (decided, actionable) = part.finish(by_hand, &mut looks);
        if decided.is_empty() {
            by_phase.found(uid, actionable);
        }
        wants.extend(decided);
    }
    wants.extend(looks.wants(world, now));
    (wants, by_phase)
}

impl Case<'_> {
    /// The decision for this node, or None where there is nothing to decide now.
    #[must_use]
    pub fn judge(&self) -> Option<Decision> {
        if self.operation() != PlannedOperation::Shutdown && self.drive.booted.is_some() && !self.being_switched_off() {
            return self.released().filter(|_| self.node.batch.is_none()).or_else(|| self.judge_booted());
        }
        if let Some(decision) = self.judge_occupied() {
            return decision;
        }
        if let Some(decision) = self.released() {
            return Some(decision);
        }
        match self.node.power_since(self.evidence_since())? {
            Power::Unknown => self.hold_or_fail(HoldReason::PowerUnknown, self.world.options.power_unknown_wait),
            Power::Off => self.judge_off(),
            Power::On => self.judge_on(),
        }
    }

    /// HSM says since set-up that the node must not be acted on: it is let go as it is.
    fn released(&self) -> Option<Decision> {
        let facts = self.node.facts.as_ref();
        let disabled = !self.run.plan.include_disabled && facts.is_some_and(|facts| !facts.enabled);
        let (reason, what) = if self.node.locked {
            (reasons::LOCKED_IN_HSM, "It was locked in HSM")
        } else if facts.is_some_and(discovery::is_empty) {
            (reasons::EMPTY_IN_HSM, "HSM says that its slot is empty")
        } else if disabled {
            (reasons::DISABLED_IN_HSM, "It was disabled in HSM")
        } else if self.world.is_agent && facts.is_none() {
            (reasons::NOT_IN_HSM, "HSM does not list it any more")
        } else if self.node.replaced {
            (reasons::NODE_REPLACED, "Another node was put in its place")
        } else {
            return None;
        };
        let message = format!("{what} after the session had begun, so nothing more is done; {}.", self.left_how());
        Some(Decision::End(EndKind::LeftRunning, reason.into(), message.into()))
    }

    /// How a node that is let go is left, in words.
    fn left_how(&self) -> &'static str {
        match self.node.power.as_ref().map(|seen| seen.power) {
            Some(Power::Off) => "the node is left off",
            Some(Power::On) => "the node is left on",
            Some(Power::Unknown) | None => "its power is not known",
        }
    }

    /// Outer None: the node is free to be judged. Inner None: it is occupied and there is nothing to say.
    fn judge_occupied(&self) -> Option<Option<Decision>> {
        let held = matches!(self.drive.hold, Some(hold) if hold.reason == HoldReason::PreviousOperation);
        if self.world.is_agent && !self.node.recorded {
            // It may be another's by now; that is being asked.
            return Some(None);
        }
        if self.node.agent.is_some() {
            return Some((!held).then(|| self.wait_for_previous()));
        }
        let Some(batch) = self.node.batch else {
            if self.session.stopping() {
                // A call that may still take effect: the node is not given away before it has, or has been waited out.
                let unsettled = self.node.unsettled_until(self.world.untold()).is_some_and(|until| self.now < until);
                return Some((!unsettled).then(|| self.cancelled()));
            }
            let waits = self.drive.action.is_none() && self.run.unverified.contains(&self.drive.boot_set);
            return waits.then_some(None);
        };
        let ours = self.world.batches.get(&batch).is_none_or(|open| open.session == self.session.uid);
        Some((!ours && !held).then(|| self.wait_for_previous()))
    }

    fn wait_for_previous(&self) -> Decision {
        let until = self.now + self.world.options.max_power_off_wait + self.world.options.max_power_on_wait;
        Decision::Hold(Hold { reason: HoldReason::PreviousOperation, since: self.now, until })
    }

    fn cancelled(&self) -> Decision {
        let message = format!("Cancelled before it was done; {}.", self.left_how());
        Decision::End(EndKind::Cancelled, reasons::CANCELLED.into(), message.into())
    }

    /// A power-off that was asked for is carried through: the node is or will be off, whatever it said before.
    fn being_switched_off(&self) -> bool {
        matches!(self.drive.action, Some(issued) if issued.action != PowerAction::On && self.drive.phase == Phase::PoweringOff)
    }

    fn evidence_since(&self) -> Timestamp {
        self.drive.evidence_since(self.now)
    }

    fn operation(&self) -> PlannedOperation {
        self.run.plan.operation
    }

    fn judge_off(&self) -> Option<Decision> {
        match self.operation() {
            PlannedOperation::Shutdown => return Some(Decision::End(EndKind::Succeeded, "".into(), "Off, as desired.".into())),
            PlannedOperation::Configure => {
                let message = "It is off, and Configure powers nothing on. To boot and configure it: a Session with operation Boot.";
                return Some(Decision::End(EndKind::Failed, reasons::POWERED_OFF.into(), message.into()));
            }
            PlannedOperation::Boot | PlannedOperation::Reboot => {}
        }
        match self.drive.action {
            // Also a node that had booted and went off again: it is not waited for, it is powered on anew.
            _ if self.drive.phase != Phase::PoweringOn => Some(Decision::Enter(Phase::PoweringOn)),
            Some(issued) if issued.action == PowerAction::On && !issued.failed => (self.now >= issued.power_by).then(|| {
                let waited = span_text(issued.power_by.since(issued.at));
                let error = match issued.accepted {
                    true => format!("still off {waited} after power-on"),
                    false => format!("still off {waited} after a power-on that {} never confirmed", self.world.power_service),
                };
                Decision::ActionFailed { refund: !issued.accepted, error: error.into() }
            }),
            _ if self.drive.attempts.on >= self.limit() && !self.node.suspended => Some(self.power_on_exhausted()),
            _ if self.held_by(HoldReason::NotInConfigurationService) => self.wait_for_config_record(),
            _ => self.drive.hold.map(|_| Decision::Release),
        }
    }

    fn held_by(&self, reason: HoldReason) -> bool {
        matches!(self.drive.hold, Some(hold) if hold.reason == reason)
    }

    /// CFS did not know the node when power-on wanted to set its configuration; the power-on operator goes on asking.
    fn wait_for_config_record(&self) -> Option<Decision> {
        let hold = self.drive.hold.filter(|hold| self.now >= hold.until)?;
        let waited = span_text(hold.until.since(hold.since));
        let message = format!("CFS has no record of it for {waited}, so it was not powered on.");
        Some(Decision::End(EndKind::Failed, reasons::NOT_IN_CONFIGURATION_SERVICE.into(), message.into()))
    }

    /// It may not be tried even once.
    fn nothing_tried(&self, left: &str) -> String {
        format!(
            "No attempt is allowed (spec.retryPolicy of its BootComponent, or option defaultRetryPolicy, is 0), so nothing was done; it is left {left}."
        )
    }

    fn power_on_exhausted(&self) -> Decision {
        if self.limit() == 0 {
            return Decision::End(EndKind::Failed, reasons::POWER_ON_TIMEOUT.into(), self.nothing_tried("off").into());
        }
        let why = if self.drive.error.is_empty() { "no service reported why" } else { &self.drive.error };
        let (count, service) = (self.drive.attempts.on, self.world.power_service);
        let power_ons = if count == 1 { "power-on" } else { "power-ons" };
        let message = format!("{count} {power_ons} without effect: {why}. The node is off; see its controller and {service}.");
        Decision::End(EndKind::Failed, reasons::POWER_ON_TIMEOUT.into(), message.into())
    }

    fn judge_on(&self) -> Option<Decision> {
        match self.drive.phase {
            Phase::PoweringOff => self.judge_power_off(),
            Phase::PoweringOn => self.judge_coming_up(),
            Phase::None | Phase::Configuring => self.judge_running(),
        }
    }

    /// On, and the session has done nothing to it yet.
    fn judge_running(&self) -> Option<Decision> {
        let coming = self.drive.in_flight.as_ref().filter(|flight| !self.node.spoke_since(flight.issued.decided));
        let (image, same) = (self.known_image().or(coming.and_then(|flight| flight.artifacts.as_ref())), self.runs_wanted_image());
        Some(match (self.operation(), self.run.plan.running) {
            (PlannedOperation::Configure, _) => Decision::AlreadyBooted,
            (PlannedOperation::Boot, RunningPolicy::Skip) if self.is_retry() => self.still_failed(),
            (PlannedOperation::Boot, RunningPolicy::Skip) => self.left(
                reasons::ALREADY_ON,
                "It was on, and a Boot of mode v1 powers on only what is off. To restart it: operation Reboot.",
            ),
            (PlannedOperation::Boot, _) if same => Decision::AlreadyBooted,
            (PlannedOperation::Boot, RunningPolicy::RestartIfDifferent | RunningPolicy::Leave) if image.is_none() && self.is_retry() => {
                self.still_failed()
            }
            (PlannedOperation::Boot, RunningPolicy::RestartIfDifferent | RunningPolicy::Leave) if image.is_none() => self.left(
                reasons::UNKNOWN_IMAGE_RUNNING,
                "It is on and runs an image we do not know, so it is left alone. To restart it: a Session with runningNodes: Restart, or operation Reboot.",
            ),
            (PlannedOperation::Boot, RunningPolicy::Leave) => {
                self.left(reasons::LEFT_RUNNING, "It runs another image and runningNodes is Leave.")
            }
            _ if self.came_back() => Decision::AlreadyBooted,
            _ if self.booted_by_another() => self.left_to_another(),
            (PlannedOperation::Shutdown, _) => Decision::Enter(Phase::PoweringOff),
            (PlannedOperation::Reboot, _) | (PlannedOperation::Boot, RunningPolicy::RestartIfDifferent | RunningPolicy::Restart) => {
                self.cycle()
            }
        })
    }

    fn is_retry(&self) -> bool {
        self.session.spec.retry_of.is_some()
    }

    /// It failed in the Session that is tried again, and stays failed, so that it can be tried again once more.
    fn still_failed(&self) -> Decision {
        let why = match self.run.plan.running {
            RunningPolicy::Skip => "is on, and a Boot of mode v1 powers on only what is off",
            RunningPolicy::RestartIfDifferent | RunningPolicy::Leave | RunningPolicy::Restart => {
                "is on and runs an image we do not know, so this Boot left it alone"
            }
        };
        let message = format!(
            "It failed before, {why}. To restart it, unless it says that it runs the image: a Session with retryOf: {} and runningNodes: Restart.",
            self.session.name
        );
        Decision::End(EndKind::Failed, reasons::UNKNOWN_IMAGE_RUNNING.into(), message.into())
    }

    fn cycle(&self) -> Decision {
        match self.run.plan.max_power_cycled {
            Some(most) if self.cycled >= most as usize => {
                self.left(reasons::MAX_POWER_CYCLED, "It is running, and maxPowerCycled nodes have been power-cycled already.")
            }
            _ => Decision::Cycle,
        }
    }

    /// It came up after the session began, by neither this session nor the one it was taken from (rule 7). The session's
    /// beginning counts, not the restart of the operator since which the node has been held again.
    fn booted_by_another(&self) -> bool {
        if self.drive.last_on.is_some() {
            // It came up for this session and went off again, and it was not this session that switched it on after that.
            return true;
        }
        let slot = self.run.slots.get(self.drive.index as usize);
        let since = slot.and_then(|slot| slot.since).unwrap_or(self.run.started).min(self.drive.held_since);
        let foreign = |token| !self.drive.inherited.iter().any(|Inherited(ours, _)| ours == token);
        self.node.reported.as_ref().is_some_and(|report| report.since > since && foreign(&report.token))
    }

    /// It says that it runs what this session powered it on for.
    fn came_back(&self) -> bool {
        let report = self.node.reported.as_ref().filter(|_| self.drive.last_on.is_some());
        report.is_some_and(|report| self.run.stands_for(&report.token, self.drive.boot_set))
    }

    /// It came up with something else after it had booted for the session: what CFS says of it is not about the session's image.
    fn booted_again_since(&self, booted: Timestamp) -> bool {
        let ours = |token| self.run.stands_for(token, self.drive.boot_set);
        let report = self.node.reported.as_ref().filter(|report| report.since > booted);
        report.is_some_and(|report| !ours(&report.token) && report.artifacts != self.boot_set.artifacts)
    }

    fn left_to_another(&self) -> Decision {
        self.left(
            reasons::LEFT_RUNNING,
            "Somebody booted it after this session began, so it is left alone (a running job may be on it). If it is meant all the same: a new Session.",
        )
    }

    fn left(&self, reason: &str, message: &str) -> Decision {
        Decision::End(EndKind::LeftRunning, reason.into(), message.into())
    }

    /// It runs the image that its boot set wants, by its own last report.
    fn runs_wanted_image(&self) -> bool {
        self.boot_set.artifacts.is_some() && self.known_image() == self.boot_set.artifacts.as_ref()
    }

    /// The image of the last report, unless it has expired.
    fn known_image(&self) -> Option<&crate::model::Digest> {
        let report = self.node.reported.as_ref().filter(|report| !report.expired)?;
        (self.now.since(report.at) < self.world.options.actual_state_ttl).then_some(report.artifacts.as_ref()?)
    }

    /// On in the phase PoweringOff.
    fn judge_power_off(&self) -> Option<Decision> {
        let Some(issued) = self.drive.action.filter(|issued| issued.action != PowerAction::On) else {
            let reconsidered = self.reconsider();
            if reconsidered.is_none() && self.silence_means_nothing_any_more() {
                return self.wait_for_the_path();
            }
            return reconsidered.or_else(|| self.exhausted(PowerAction::SoftOff)).or_else(|| self.drive.hold.map(|_| Decision::Release));
        };
        let over = self.now >= issued.power_by || issued.failed;
        if let Some(decision) = self.reconsider().filter(|_| over) {
            return Some(decision);
        }
        if over && issued.action == PowerAction::SoftOff && !issued.accepted && !issued.failed && self.drive.refunds < MAX_REFUNDS {
            if self.silence_means_nothing_any_more() {
                return self.wait_for_the_path();
            }
            // Its power is not cut because of a request to shut down that may never have been heard.
            return Some(Decision::ActionFailed {
                refund: true,
                error: "still on, and nothing shows that the shutdown was asked for".into(),
            });
        }
        over.then(|| self.exhausted(PowerAction::ForceOff)).flatten().or_else(|| self.drive.hold.map(|_| Decision::Release))
    }

    /// To be switched off, but nothing has been asked yet, or without effect: what came in since may speak against it.
    fn reconsider(&self) -> Option<Decision> {
        match self.drive.last_on {
            Some(_) if self.came_back() => Some(Decision::AlreadyBooted),
            Some(on) => self.node.spoke_since(on).then(unknown_image_up),
            None => self.booted_by_another().then(|| self.left_to_another()),
        }
    }

    fn exhausted(&self, action: PowerAction) -> Option<Decision> {
        // What a person holds is held, whatever its budget is.
        (self.drive.attempts.used(action) >= self.limit() && !self.node.suspended).then(|| {
            if self.limit() == 0 {
                return Decision::End(EndKind::Failed, reasons::POWER_OFF_TIMEOUT.into(), self.nothing_tried("on").into());
            }
            let detail = if self.drive.error.is_empty() { String::new() } else { format!(" Last answer: {}.", self.drive.error) };
            let message = format!(
                "Still on after {} graceful and {} forced power-offs.{detail} It is left as it is; see its controller.",
                self.drive.attempts.graceful, self.drive.attempts.forceful
            );
            Decision::End(EndKind::Failed, reasons::POWER_OFF_TIMEOUT.into(), message.into())
        })
    }

    /// On in the phase PoweringOn.
    fn judge_coming_up(&self) -> Option<Decision> {
        let Some(issued) = self.drive.action.filter(|issued| issued.action == PowerAction::On) else {
            if self.operation() == PlannedOperation::Boot && self.runs_wanted_image() {
                return Some(Decision::AlreadyBooted);
            }
            return Some(self.left(
                reasons::LEFT_RUNNING,
                "Somebody powered it on after this session began, before our power-on, so it is left alone.",
            ));
        };
        if self.node.spoke_since(issued.decided) && self.came_back() {
            return Some(Decision::AlreadyBooted);
        }
        if self.drive.is_overdue(self.now) {
            return self.judge_silent(&issued);
        }
        self.drive.hold.map(|_| Decision::Release)
    }

    /// The last look at its power is too old to escalate on (rule 4).
    fn stale(&self) -> bool {
        self.node.power_stale(self.now)
    }

    /// Nothing but a fresh look keeps the next power action from leaving.
    fn about_to_act(&self) -> bool {
        let halted = self.session.halted() || self.node.suspended || self.world.emergency_stop;
        !halted && matches!(self.drive.phase, Phase::PoweringOff | Phase::PoweringOn) && self.stale()
    }

    /// Runs the desired image.
    fn judge_booted(&self) -> Option<Decision> {
        let booted = self.drive.booted?;
        if self.operation() != PlannedOperation::Configure && self.booted_again_since(booted) {
            return Some(self.left_to_another());
        }
        let nothing_wanted = self.boot_set.configuration.is_empty();
        let booted_alone = || Decision::End(EndKind::Succeeded, "".into(), "Booted.".into());
        if nothing_wanted && (self.drive.config == Prepared::Yes || !self.world.services.has(Service::Cfs)) {
            return Some(booted_alone());
        }
        if self.drive.phase != Phase::Configuring {
            return Some(Decision::Enter(Phase::Configuring));
        }
        if self.session.stopping() && self.node.batch.is_none() {
            return Some(self.cancelled());
        }
        let overdue = self.drive.configured_by.is_some_and(|by| self.now >= by);
        let seen = self.node.config.as_ref().filter(|seen| seen.at >= booted)?;
        let Some(record) = &seen.record else {
            if nothing_wanted {
                return Some(booted_alone());
            }
            return self.hold_or_fail(HoldReason::NotInConfigurationService, self.world.options.power_unknown_wait);
        };
        // What CFS says counts only once it was told what this session wants.
        let told = self.operation() != PlannedOperation::Configure || self.drive.config == Prepared::Yes;
        if record.desired != self.boot_set.configuration || !told {
            return overdue.then(|| self.configuration_late("still to be set"));
        }
        match &record.status {
            _ if nothing_wanted => Some(booted_alone()),
            ConfigStatus::Configured => Some(Decision::End(EndKind::Succeeded, "".into(), "Booted and configured.".into())),
            ConfigStatus::Pending => overdue.then(|| self.configuration_late("pending")),
            ConfigStatus::Failed => Some(self.configuration_failed("failed")),
            ConfigStatus::Unconfigured => Some(self.configuration_failed("unconfigured (does the configuration still exist?)")),
            ConfigStatus::Other(text) => Some(self.configuration_failed(text)),
        }
    }

    fn configuration_late(&self, standing: &str) -> Decision {
        let message = format!("Booted, but CFS did not finish {} in time ({standing}). See its CFS sessions.", self.boot_set.configuration);
        Decision::End(EndKind::Failed, reasons::CONFIGURATION_TIMEOUT.into(), message.into())
    }

    fn configuration_failed(&self, status: &str) -> Decision {
        let message = format!("Booted, but CFS says of {}: {status}. See its CFS sessions.", self.boot_set.configuration);
        Decision::End(EndKind::Failed, reasons::CONFIGURATION_FAILED.into(), message.into())
    }

    /// Begins a hold, goes on with it, or ends it in failure once its deadline has passed and a newer look still says so.
    fn hold_or_fail(&self, reason: HoldReason, patience: Duration) -> Option<Decision> {
        match self.drive.hold.filter(|hold| hold.reason == reason) {
            None => Some(Decision::Hold(Hold { reason, since: self.now, until: self.now + patience })),
            Some(hold) if self.now >= hold.until && self.seen_after(hold) => {
                Some(Decision::End(EndKind::Failed, hold_reason(reason).into(), self.hold_message(hold).into()))
            }
            Some(_) => None,
        }
    }

    fn seen_after(&self, hold: Hold) -> bool {
        match hold.reason {
            HoldReason::NotInConfigurationService => self.node.config.as_ref().is_some_and(|seen| seen.at >= hold.until),
            _ => self.node.power.as_ref().is_some_and(|seen| seen.at >= hold.until),
        }
    }

    fn hold_message(&self, hold: Hold) -> String {
        let waited = span_text(hold.until.since(hold.since));
        let detail = self.node.power.as_ref().map(|seen| seen.detail.as_ref()).filter(|text| !text.is_empty()).unwrap_or("undefined");
        match hold.reason {
            HoldReason::PowerUnknown => {
                format!("{} for {waited}: {detail}; not touched. See its controller.", self.world.power_service)
            }
            HoldReason::NotInConfigurationService => format!("CFS has no record of it for {waited}; it is booted but not configured."),
            HoldReason::PreviousOperation => format!("An operation of an earlier session did not end within {waited}."),
            HoldReason::MassBootTimeout => {
                format!(
                    "No report, like many nodes of this session at the same time, so it was not power-cycled any more and is left on. Waited {waited} more."
                )
            }
            HoldReason::ReportPathDown => {
                format!("Nothing shows that it is up, but nothing could have shown it; not power-cycled, left on. Waited {waited} more.")
            }
        }
    }

    fn limit(&self) -> u16 {
        self.world.retry_limit(self.node)
    }
}

/// A node that speaks is up, whatever it runs: it is not cycled for its silence (rule 8).
fn unknown_image_up() -> Decision {
    let message = "It is up but reports an image we do not know; left on. See its kernel command line and BSS.";
    Decision::End(EndKind::Failed, reasons::BOOT_TIMEOUT.into(), message.into())
}

/// The registry's reason for a hold.
#[must_use]
pub const fn hold_reason(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::PowerUnknown => reasons::POWER_UNKNOWN,
        HoldReason::NotInConfigurationService => reasons::NOT_IN_CONFIGURATION_SERVICE,
        HoldReason::PreviousOperation => reasons::PREVIOUS_OPERATION,
        HoldReason::MassBootTimeout => reasons::MASS_BOOT_TIMEOUT,
        HoldReason::ReportPathDown => reasons::REPORT_PATH_DOWN,
    }
}
