//! What the BootComponent of a driven node says beside its status: why it waits, what comes next, and until when.

use bos_crds::{NodeStatus, reasons};

use super::{called_on, came_on, missing_service, stop_note, stop_switch};
use crate::health::{Service, TRIED_AGAIN};
use crate::model::{Drive, HoldReason, Issued, Node, Phase, Power, PowerAction, World};
use crate::plan::{Evidence, PlannedOperation};
use crate::session::Session;
use crate::time::Timestamp;

/// A driven node with all that its words depend on.
pub(super) struct View<'a> {
    pub(super) world: &'a World,
    pub(super) node: &'a Node,
    pub(super) drive: &'a Drive,
    pub(super) session: &'a Session,
    pub(super) now: Timestamp,
}

/// Message and next step of a driven node with this status and reason.
pub(super) fn of_driven(view: &View<'_>, status: NodeStatus, reason: &'static str) -> (String, String) {
    let parts = [view.why(status, reason), view.away_text(), view.before(), view.last_answer()];
    let message = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    (message, view.next(status, reason))
}

impl View<'_> {
    /// Why it has this status.
    fn why(&self, status: NodeStatus, reason: &'static str) -> String {
        if let Some(hold) = self.drive.hold {
            return self.held(hold.reason, reason);
        }
        match (status, reason) {
            (_, reasons::SUSPENDED) if self.node.suspended => "spec.suspend of this BootComponent is true.".to_owned(),
            (_, reasons::SUSPENDED) => format!("Session {} is suspended.", self.session.title()),
            (_, reasons::EMERGENCY_STOP) => format!("The {} stops all power actions{}.", stop_switch(self.world), stop_note(self.world)),
            (NodeStatus::OnHold, _) if self.drive.held_since > self.now => {
                "An earlier Session has asked for its power; that is waited out before it is looked at.".to_owned()
            }
            (_, reasons::SERVICE_UNAVAILABLE) => String::new(),
            (NodeStatus::OnHold, _) => "Its power has not been looked at yet.".to_owned(),
            (NodeStatus::PowerOnPending, _) => self.pending(reason),
            (NodeStatus::PowerOnCalled, reasons::AWAITING_REPORT | reasons::AWAITING_READY) => self.coming_up().to_owned(),
            (NodeStatus::PowerOnCalled, _) => self.asked("Power-on", "on"),
            (NodeStatus::PowerOffPending, _) => format!("To be switched off: {}.", self.purpose()),
            (NodeStatus::PowerOffGracefullyCalled, _) => format!("{} Switched off: {}.", self.asked("A shutdown", "off"), self.purpose()),
            (NodeStatus::PowerOffForcefullyCalled, reasons::AWAITING_RETRY) => {
                format!("Cutting its power failed. Switched off: {}.", self.purpose())
            }
            (NodeStatus::PowerOffForcefullyCalled, _) => {
                format!("{} Switched off: {}.", self.asked("Cutting its power", "off"), self.purpose())
            }
            (NodeStatus::Configuring, _) => self.configuring(),
            (NodeStatus::Stable | NodeStatus::Failed, _) => String::new(),
        }
    }

    fn held(&self, hold: HoldReason, reason: &'static str) -> String {
        let seen = self.node.power.as_ref().map(|seen| seen.detail.as_ref()).filter(|text| !text.is_empty());
        match seen.filter(|_| hold == HoldReason::PowerUnknown) {
            Some(detail) => format!("{}: {detail}", self.world.power_service),
            None => reasons::describe(reason).unwrap_or_default().to_owned(),
        }
    }

    /// The service that it waits for, with what that said last.
    fn away(&self) -> Option<(Service, &str)> {
        let service = missing_service(self.world, self.node, self.drive, self.session, self.now)?;
        Some((service, self.world.services.down(service)?.words()))
    }

    fn away_text(&self) -> String {
        self.away().map(|(service, detail)| format!("{service} is not available: {detail}.")).unwrap_or_default()
    }

    fn pending(&self, reason: &'static str) -> String {
        match reason {
            reasons::BOOT_PARAMETERS_PENDING => "BSS is given its boot parameters.".to_owned(),
            reasons::CONFIGURATION_PENDING => "CFS is told its configuration.".to_owned(),
            reasons::AWAITING_RETRY => "The last power-on failed.".to_owned(),
            reasons::PREVIOUS_OPERATION if self.drive.not_before > self.now => {
                "It was refused without being touched, as somebody else has it.".to_owned()
            }
            reasons::PREVIOUS_OPERATION => "It was switched off a moment ago and rests before it is powered on.".to_owned(),
            _ => match pace(self.world) {
                Some(options) => format!("Waits for its turn, as {options} says."),
                None => "Ready to be powered on.".to_owned(),
            },
        }
    }

    fn coming_up(&self) -> &'static str {
        match self.session.run().map(|run| run.plan.evidence) {
            Some(Evidence::HsmReady) => "Powered on; HSM has not called it Ready yet.",
            Some(Evidence::PowerState) => "Powered on.",
            Some(Evidence::NodeReport) | None => "Powered on; it has not reported this boot yet.",
        }
    }

    /// A call that was made, as far as anybody knows.
    fn asked(&self, what: &str, power: &str) -> String {
        let service = self.world.power_service;
        if power == "off" && is_kept_off(self.world, self.node, self.drive) {
            return format!("It is off; {service} keeps it until all nodes of the same request are.");
        }
        if self.drive.action.is_some_and(|issued| issued.accepted) {
            format!("{what} was asked for; {service} does not show it {power} yet.")
        } else if self.world.is_asked(self.node) {
            format!("{what} is being asked for.")
        } else {
            format!("{what} was asked for, and {service} has not said yes; it may have been carried out.")
        }
    }

    /// What it is switched off for.
    fn purpose(&self) -> String {
        let Some(run) = self.session.run() else { return String::new() };
        if !self.drive.cause.is_empty() {
            let (on, limit) = (self.drive.attempts.on, self.world.retry_limit(self.node));
            let follows = if on < limit { format!("; power-on {} of {limit} follows", on + 1) } else { String::new() };
            return format!("{}{follows}", self.drive.cause);
        }
        let by = if self.session.by_hand { crate::session::TITLE_BY_HAND } else { "the Session" };
        match run.plan.operation {
            PlannedOperation::Shutdown => format!("{by} shuts it down"),
            PlannedOperation::Reboot => format!("{by} reboots it"),
            PlannedOperation::Boot | PlannedOperation::Configure => {
                let image = run.plan.boot_set(self.drive.boot_set).map_or("", |set| &set.image);
                format!("{by} boots it with {image}")
            }
        }
    }

    fn configuring(&self) -> String {
        match self.session.configuration_of(self.drive.boot_set) {
            Some(name) => format!("CFS configures it with {name}."),
            None => "CFS is told that no configuration is wanted.".to_owned(),
        }
    }

    /// Which attempt this is, and what became of the one before.
    fn before(&self) -> String {
        let called = self.drive.action.is_some_and(|issued| called_on(self.node, &issued));
        let attempt = self.drive.attempts.on + u16::from(!called);
        if self.drive.phase != Phase::PoweringOn || attempt < 2 {
            return String::new();
        }
        let cause = if self.drive.cause.is_empty() { String::new() } else { format!("; before: {}", self.drive.cause) };
        format!("Power-on {attempt} of {}{cause}.", self.world.retry_limit(self.node).max(attempt))
    }

    fn last_answer(&self) -> String {
        let error = &self.drive.error;
        let said = error.is_empty() || self.drive.hold.is_some() || self.away().is_some_and(|(_, detail)| error.starts_with(detail));
        if said { String::new() } else { format!("Last answer: {error}") }
    }

    /// What comes next, and when.
    fn next(&self, status: NodeStatus, reason: &'static str) -> String {
        if let Some(hold) = self.drive.hold {
            return match hold.reason {
                // Whoever has it lets it go; until then no deadline of ours runs.
                HoldReason::PreviousOperation => "goes on when that operation has ended".to_owned(),
                _ => format!("given up at {} if this lasts", hold.until.clock()),
            };
        }
        let issued = self.drive.action;
        match (status, reason) {
            (NodeStatus::PowerOffForcefullyCalled, reasons::AWAITING_RETRY) => {
                format!("forced off again from {} on if still on", self.drive.not_before.clock())
            }
            (NodeStatus::PowerOnCalled, _) => issued.map(|issued| self.after_on(&issued)).unwrap_or_default(),
            (NodeStatus::PowerOffGracefullyCalled | NodeStatus::PowerOffForcefullyCalled, _) => {
                issued.map(|issued| self.after_off(&issued, status)).unwrap_or_default()
            }
            (NodeStatus::Configuring, _) => {
                self.drive.configured_by.map_or_else(String::new, |by| format!("fails at {} if CFS has not finished", by.clock()))
            }
            (_, reasons::SUSPENDED) => "nothing is sent until it is resumed".to_owned(),
            (_, reasons::EMERGENCY_STOP) => "goes on when the ConfigMap is deleted".to_owned(),
            _ if self.away().is_some() => format!("{TRIED_AGAIN}; no attempt is used"),
            (NodeStatus::OnHold, _) if self.drive.held_since > self.now => format!("looked at at {}", self.drive.held_since.clock()),
            (NodeStatus::OnHold, _) => format!("{} is asked for its power, then it is decided what to do", self.world.power_service),
            (NodeStatus::PowerOnPending, reasons::PREVIOUS_OPERATION | reasons::AWAITING_RETRY) => {
                format!("powered on from {} on", self.drive.not_before.max(self.node.rests_until).clock())
            }
            (NodeStatus::PowerOnPending, reasons::BOOT_PARAMETERS_PENDING) => "powered on when BSS has confirmed them".to_owned(),
            (NodeStatus::PowerOnPending, reasons::CONFIGURATION_PENDING) => "powered on when CFS has confirmed it".to_owned(),
            (NodeStatus::PowerOnPending, _) => match pace(self.world) {
                Some(_) => "powered on when others before it are through".to_owned(),
                None => "powered on".to_owned(),
            },
            (NodeStatus::PowerOffPending, _) => "asked to shut down after a fresh look at its power".to_owned(),
            (NodeStatus::Stable | NodeStatus::Failed, _) => String::new(),
        }
    }

    fn after_on(&self, issued: &Issued) -> String {
        let last = self.drive.attempts.on >= self.world.retry_limit(self.node);
        // What somebody holds is sent when the hold is over; the end of the last attempt sends nothing and is not held.
        let (by, then) = (issued.boot_by.clock(), self.held_back());
        let proof = match self.session.run().map(|run| run.plan.evidence) {
            Some(Evidence::HsmReady) => "if HSM does not call it Ready",
            Some(Evidence::NodeReport | Evidence::PowerState) | None => "without a report",
        };
        let judged = self.judged_at(issued);
        match (came_on(self.node, issued), last) {
            (false, true) => format!("fails {judged} if still off"),
            (false, false) => format!("powered on again {judged} if still off{then}"),
            (true, true) => format!("fails at {by} {proof}; left on"),
            (true, false) => format!("power-cycled at {by} {proof}{then}"),
        }
    }

    fn after_off(&self, issued: &Issued, status: NodeStatus) -> String {
        let (judged, then) = (self.judged_at(issued), self.held_back());
        if is_kept_off(self.world, self.node, self.drive) {
            return format!("goes on when {} lets it go", self.world.power_service);
        }
        let last = self.drive.attempts.forceful >= self.world.retry_limit(self.node);
        match (status == NodeStatus::PowerOffForcefullyCalled, last) {
            (true, true) => format!("fails {judged} if still on"),
            (true, false) => format!("forced off again {judged} if still on{then}"),
            (false, _) => format!("forced off {judged} if still on{then}"),
        }
    }

    /// When it is decided what a power action has done: at its deadline, and not while the power service still has the node.
    fn judged_at(&self, issued: &Issued) -> String {
        match self.now >= issued.power_by {
            true if self.world.is_asked(self.node) => format!("when {} lets it go,", self.world.power_service),
            true => "after a fresh look at its power".to_owned(),
            false => format!("at {}", issued.power_by.clock()),
        }
    }

    fn held_back(&self) -> &'static str {
        if self.node.suspended || self.session.spec.suspend {
            ", but nothing is sent until it is resumed"
        } else if self.world.emergency_stop {
            ", but nothing is sent while the stop switch is set"
        } else {
            ""
        }
    }
}

/// It is off, and the request is still open: the power service keeps its nodes until the slowest is through.
pub(crate) fn is_kept_off(world: &World, node: &Node, drive: &Drive) -> bool {
    let off = drive.action.filter(|issued| issued.action != PowerAction::On);
    world.is_asked(node) && off.is_some_and(|issued| node.power_since(issued.at) == Some(Power::Off))
}

/// The options that let nodes wait for their turn, with their values; None where none does.
pub(crate) fn pace(world: &World) -> Option<String> {
    let options = [("maxNodesInFlight", world.options.max_nodes_in_flight), ("powerOnsPerSecond", world.options.power_ons_per_second)];
    let set: Vec<String> = options.into_iter().filter(|(_, most)| *most > 0).map(|(name, most)| format!("{name} {most}")).collect();
    (!set.is_empty()).then(|| set.join(" and "))
}
