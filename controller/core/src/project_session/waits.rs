//! In words what the open nodes of a Session wait for.

use std::collections::BTreeMap;

use bos_crds::{NodeStatus, reasons};

use crate::health::Service;
use crate::model::{Drive, Node, World};
use crate::project::{is_kept_off, missing_service, pace, stop_note, stop_switch};
use crate::session::Session;
use crate::time::Timestamp;

/// What nodes wait for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wait {
    reason: &'static str,
    /// Off already, and kept by the power service for others of the same request.
    kept_off: bool,
    /// The service that is away, where it is one.
    away: Option<Service>,
}

/// Numbers of nodes by what they wait for, each with its latest deadline.
#[derive(Default)]
pub(super) struct Waits(BTreeMap<Wait, (usize, Option<Timestamp>)>);

impl Waits {
    /// Counts one open node.
    pub(super) fn add(
        &mut self,
        world: &World,
        session: &Session,
        node: &Node,
        drive: &Drive,
        (status, reason): (NodeStatus, &'static str),
        now: Timestamp,
    ) {
        let kept_off = reason == reasons::AWAITING_POWER && is_kept_off(world, node, drive);
        let deadline = match (reason, drive.action) {
            (reasons::AWAITING_REPORT | reasons::AWAITING_READY, Some(issued)) => Some(issued.boot_by),
            (reasons::AWAITING_POWER, Some(issued)) if status != NodeStatus::PowerOffPending && !kept_off => Some(issued.power_by),
            (reasons::MASS_BOOT_TIMEOUT | reasons::REPORT_PATH_DOWN | reasons::POWER_UNKNOWN, _) => drive.hold.map(|hold| hold.until),
            _ => None,
        };
        // One that has passed says nothing: what holds the node does.
        let deadline = deadline.filter(|by| now < *by);
        // A person's hold and the stop switch come before whatever service is away.
        let held = matches!(reason, reasons::SUSPENDED | reasons::EMERGENCY_STOP);
        let away = if held { None } else { missing_service(world, node, drive, session, now) };
        let (nodes, latest) = self.0.entry(Wait { reason, kept_off, away }).or_default();
        *nodes += 1;
        *latest = (*latest).max(deadline);
    }

    /// One sentence about all of them.
    pub(super) fn text(&self, world: &World, session: &Session, staged: i32) -> String {
        let open: usize = self.0.values().map(|(nodes, _)| nodes).sum();
        let waiting = if staged == 0 {
            String::new()
        } else {
            format!("{staged} staged: applied by spec.applyStaged of their BootComponents, or by a workload manager. ")
        };
        if open == 0 && staged > 0 {
            return waiting.trim_end().to_owned();
        }
        if open == 0 {
            return "Every node is done; the last calls to services are waited for.".to_owned();
        }
        let parts: Vec<String> = self.0.iter().map(|(wait, (nodes, by))| part(world, *wait, *nodes, *by)).collect();
        if session.stopping() {
            return format!(
                "Cancelled: nothing new is sent. {open} in progress, as calls that were accepted are followed to their end: {}.",
                parts.join(", ")
            );
        }
        let suspended = if session.spec.suspend { "Suspended: nothing new is sent until spec.suspend is false. " } else { "" };
        format!("{suspended}{waiting}{open} in progress: {}.", parts.join(", "))
    }
}

fn part(world: &World, Wait { reason, kept_off, away: service }: Wait, nodes: usize, deadline: Option<Timestamp>) -> String {
    let wait = |what: &str| format!("{nodes} {} {what}", if nodes == 1 { "waits" } else { "wait" });
    let their = if nodes == 1 { "its" } else { "their" };
    let plain = |what: &str| format!("{nodes} {what}");
    let text = match (reason, service) {
        (reasons::SERVICE_UNAVAILABLE, Some(service)) => return wait(&format!("for {service}, which is not available")),
        (reasons::SERVICE_UNAVAILABLE, None) => wait("for a service that is not available"),
        (reasons::AWAITING_REPORT, _) => wait(&format!("for {their} report")),
        (reasons::AWAITING_READY, _) => wait("until HSM says Ready"),
        (reasons::AWAITING_RETRY, _) => wait("before the power action that failed is tried again"),
        (reasons::AWAITING_POWER, _) if kept_off => {
            plain(&format!("off, kept by {} until all of the same request are", world.power_service))
        }
        (reasons::AWAITING_POWER, _) => wait(&format!("for {their} power to change")),
        (reasons::AWAITING_CONFIGURATION, _) => plain("being configured"),
        (reasons::PACED, _) => match pace(world) {
            Some(options) => wait(&format!("for {their} turn ({options})")),
            None => plain("about to be powered on"),
        },
        (reasons::POWER_UNKNOWN, _) => plain("power unknown"),
        (reasons::NOT_OBSERVED, _) => plain("being looked at"),
        (reasons::BOOT_PARAMETERS_PENDING, _) => wait("for boot parameters"),
        (reasons::CONFIGURATION_PENDING, _) => wait("for CFS"),
        (reasons::EMERGENCY_STOP, _) => {
            plain(&format!("held by the stop switch ({}{}; delete it to go on)", stop_switch(world), stop_note(world)))
        }
        (reasons::SUSPENDED, _) => plain("suspended"),
        (reasons::MASS_BOOT_TIMEOUT, _) => plain("silent together, no more are power-cycled"),
        (reasons::REPORT_PATH_DOWN, _) => plain("silent while nobody could hear them"),
        (reasons::PREVIOUS_OPERATION, _) => wait("for an earlier operation"),
        (reasons::NOT_IN_CONFIGURATION_SERVICE, _) => plain("not known to CFS"),
        (other, _) => plain(other),
    };
    let deadline = deadline.map(|by| format!("latest deadline {}", by.clock()));
    let away = service.map(|service| format!("{service} is not available"));
    let notes: Vec<String> = deadline.into_iter().chain(away).collect();
    if notes.is_empty() { text } else { format!("{text} ({})", notes.join("; ")) }
}
