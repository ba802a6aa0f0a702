//! The transitions of the power control service: accepted whole, judged node by node later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;

use super::core::{Core, Event};
use super::names::{self, XnameKind};
use super::node::Command;
use super::world::{Reservation, World};

/// Transitions that are kept; the oldest finished ones go first.
const KEEP: usize = 2_000;

/// Operations of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Operation {
    On,
    Off,
    #[serde(rename = "Soft-Off")]
    SoftOff,
    #[serde(rename = "Soft-Restart")]
    SoftRestart,
    #[serde(rename = "Hard-Restart")]
    HardRestart,
    Init,
    #[serde(rename = "Force-Off")]
    ForceOff,
}

impl Operation {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text.to_ascii_lowercase().as_str() {
            "on" => Self::On,
            "off" => Self::Off,
            "soft-off" => Self::SoftOff,
            "soft-restart" => Self::SoftRestart,
            "hard-restart" => Self::HardRestart,
            "init" => Self::Init,
            "force-off" => Self::ForceOff,
            _ => return None,
        })
    }

    /// Whether the node goes off first and comes on again.
    fn restarts(self) -> bool {
        matches!(self, Self::SoftRestart | Self::HardRestart | Self::Init)
    }

    fn goal(self) -> bool {
        self == Self::On || self.restarts()
    }

    fn first_command(self, on: bool) -> Command {
        match self {
            Self::On => Command::On,
            Self::SoftOff | Self::Off => Command::SoftOff,
            Self::ForceOff => Command::ForceOff,
            _ if !on => Command::On,
            Self::HardRestart => Command::ForceOff,
            _ => Command::SoftOff,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TransitionStatus {
    New,
    InProgress,
    Completed,
    Aborted,
    AbortSignaled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum TaskStatus {
    New,
    InProgress,
    Failed,
    Succeeded,
    Unsupported,
}

/// The work for one node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Task {
    pub(crate) xname: String,
    pub(crate) task_status: TaskStatus,
    pub(crate) task_status_description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip)]
    node: Option<usize>,
    #[serde(skip)]
    command: Option<Command>,
}

impl Task {
    pub(crate) fn new(xname: String) -> Self {
        Self { xname, task_status: TaskStatus::New, task_status_description: "Gathering data", error: None, node: None, command: None }
    }

    fn fail(&mut self, error: impl Into<String>) {
        self.task_status = TaskStatus::Failed;
        self.task_status_description = "Failed to achieve transition";
        self.error = Some(error.into());
    }

    fn succeed(&mut self, description: &'static str) {
        self.task_status = TaskStatus::Succeeded;
        self.task_status_description = description;
    }
}

/// A transition.
#[derive(Debug)]
pub(crate) struct Transition {
    pub(crate) id: Uuid,
    pub(crate) operation: Operation,
    pub(crate) created: Timestamp,
    pub(crate) status: TransitionStatus,
    pub(crate) tasks: Vec<Task>,
    /// Minutes a task may take: none = do not wait, negative = for ever.
    pub(crate) minutes: i64,
    deadline: Option<Instant>,
    open: Vec<usize>,
}

impl Transition {
    pub(crate) fn expires(&self) -> Timestamp {
        self.created.saturating_add(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MAX)
    }

    pub(crate) fn count(&self, status: TaskStatus) -> usize {
        self.tasks.iter().filter(|t| t.task_status == status).count()
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.status, TransitionStatus::Completed | TransitionStatus::Aborted)
    }
}

/// What the service has stored.
#[derive(Debug, Default)]
pub(crate) struct Pcs {
    pub(crate) transitions: BTreeMap<Uuid, Transition>,
}

/// Power as PCS tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    On,
    Off,
    Undefined,
}

impl World {
    pub(crate) fn reading(&self, at: usize) -> Reading {
        let node = &self.nodes[at];
        match (node.faults.bmc_undefined, node.sampled) {
            (true, _) => Reading::Undefined,
            (false, true) => Reading::On,
            (false, false) => Reading::Off,
        }
    }

    /// Takes a transition; its tasks begin at once, but in their own time.
    pub(crate) fn transition_accept(&mut self, core: &Core, operation: Operation, xnames: Vec<String>, minutes: i64) -> Uuid {
        let id = core.uuid();
        let tasks = xnames.into_iter().map(Task::new).collect();
        let transition = Transition {
            id,
            operation,
            created: Timestamp::now(),
            status: TransitionStatus::New,
            tasks,
            minutes,
            deadline: None,
            open: Vec::new(),
        };
        self.forget_old();
        self.pcs.transitions.insert(id, transition);
        self.timers.set(core, Duration::ZERO, Event::TransitionStart(id));
        id
    }

    fn forget_old(&mut self) {
        if self.pcs.transitions.len() >= KEEP {
            let oldest = self.pcs.transitions.values().filter(|t| t.is_over()).min_by_key(|t| t.created).map(|t| t.id);
            if let Some(id) = oldest {
                self.pcs.transitions.remove(&id);
            }
        }
    }

    pub(crate) fn transition_start(&mut self, core: &Core, id: Uuid) {
        let Some(mut transition) = self.pcs.transitions.remove(&id) else { return };
        let minute = core.settings().task_minute;
        transition.deadline = u32::try_from(transition.minutes).ok().map(|m| Instant::now() + minute * m);
        if transition.status != TransitionStatus::AbortSignaled {
            transition.status = TransitionStatus::InProgress;
            let expires = deadline_stamp(&transition);
            for at in 0..transition.tasks.len() {
                self.task_start(core, &mut transition, at, expires);
            }
        }
        self.transition_settle(core, transition);
    }

    /// Judges one node and, where there is something to do, reserves it and commands its BMC.
    fn task_start(&mut self, core: &Core, transition: &mut Transition, at: usize, expires: Timestamp) {
        let (id, operation, no_wait) = (transition.id, transition.operation, transition.minutes == 0);
        let task = &mut transition.tasks[at];
        let node = match names::kind(&task.xname) {
            None => return task.fail("Invalid xname"),
            Some(XnameKind::Other(kind)) => {
                task.task_status = TaskStatus::Unsupported;
                task.task_status_description = "Failed to achieve transition";
                task.error = Some(format!("No power control for component type {kind}"));
                return;
            }
            Some(XnameKind::Node) => match self.index.get(&task.xname) {
                Some(node) if !self.nodes[*node].faults.missing_from_pcs => *node,
                _ => return task.fail("Missing xname"),
            },
        };
        let faults = &self.nodes[node].faults;
        if let Some(error) = if operation.goal() { &faults.power_on_error } else { &faults.power_off_error } {
            return task.fail(error.clone());
        }
        let reading = self.reading(node);
        match (operation, reading) {
            (Operation::On, Reading::On) | (Operation::Off | Operation::SoftOff | Operation::ForceOff, Reading::Off) => {
                return task.succeed("Component already in desired state");
            }
            (Operation::HardRestart, Reading::Off) => return task.fail("Component is in the wrong power state"),
            _ => {}
        }
        // CAPMC reserves its nodes itself and tells PCS the keys.
        let held = self.nodes[node].locked || self.nodes[node].reserved.as_ref().is_some_and(|held| held.by != id);
        if held {
            return task.fail("Unable to reserve component");
        }
        self.nodes[node].reserved = Some(Reservation { by: id, created: Timestamp::now(), expires });
        let command = operation.first_command(reading == Reading::On);
        self.command(core, node, command, &id.to_string());
        task.node = Some(node);
        task.command = Some(command);
        if no_wait {
            task.succeed("Transition command sent");
        } else {
            task.task_status = TaskStatus::InProgress;
            task.task_status_description = "Confirming successful transition";
            transition.open.push(at);
        }
    }

    pub(crate) fn transition_check(&mut self, core: &Core, id: Uuid) {
        let Some(mut transition) = self.pcs.transitions.remove(&id) else { return };
        let late = transition.deadline.is_some_and(|d| Instant::now() >= d);
        let mut open = std::mem::take(&mut transition.open);
        if transition.status == TransitionStatus::AbortSignaled {
            for at in open.drain(..) {
                transition.tasks[at].fail("Transition aborted");
            }
        }
        open.retain(|at| self.task_check(core, &mut transition, *at, late));
        transition.open = open;
        if late && !transition.open.is_empty() {
            // Only tasks that were forced at the deadline are left; they get another minute.
            transition.deadline = Some(Instant::now() + core.settings().task_minute);
        }
        self.transition_settle(core, transition);
    }

    /// Looks whether a task has ended; true = it is still open.
    fn task_check(&mut self, core: &Core, transition: &mut Transition, at: usize, late: bool) -> bool {
        let (id, operation) = (transition.id, transition.operation);
        let task = &mut transition.tasks[at];
        let (Some(node), Some(command)) = (task.node, task.command) else { return false };
        let reached = match command {
            Command::On => self.reading(node) == Reading::On,
            Command::SoftOff | Command::ForceOff => self.reading(node) == Reading::Off,
        };
        if reached && operation.restarts() && command != Command::On {
            task.command = Some(Command::On);
            self.command(core, node, Command::On, &id.to_string());
            return true;
        }
        if reached {
            task.succeed(if operation.goal() { "Transition confirmed, on" } else { "Transition confirmed, off" });
            return false;
        }
        if !late {
            return true;
        }
        if command == Command::SoftOff && matches!(operation, Operation::Off | Operation::Init | Operation::SoftRestart) {
            task.command = Some(Command::ForceOff);
            self.command(core, node, Command::ForceOff, &id.to_string());
            return true;
        }
        task.fail(match command {
            Command::On => "Timeout waiting for transition, on.",
            Command::SoftOff => "Timeout waiting for transition, gracefulshutdown.",
            Command::ForceOff => "Timeout waiting for transition, forceoff.",
        });
        false
    }

    /// Ends a transition whose tasks have all ended; only then its nodes are free again.
    fn transition_settle(&mut self, core: &Core, mut transition: Transition) {
        let id = transition.id;
        if transition.open.is_empty() {
            let aborted = transition.status == TransitionStatus::AbortSignaled;
            transition.status = if aborted { TransitionStatus::Aborted } else { TransitionStatus::Completed };
            for task in &mut transition.tasks {
                if task.task_status == TaskStatus::New {
                    task.fail("Transition aborted");
                }
                let held = task.node.and_then(|node| self.nodes.get_mut(node));
                if let Some(node) = held.filter(|n| n.reserved.as_ref().is_some_and(|r| r.by == id)) {
                    node.reserved = None;
                }
            }
        } else {
            let wait = core.settings().confirm_delay.max(Duration::from_millis(5));
            self.timers.set(core, wait, Event::TransitionCheck(id));
        }
        self.pcs.transitions.insert(id, transition);
    }
}

fn deadline_stamp(transition: &Transition) -> Timestamp {
    let minutes = transition.minutes.clamp(1, 60);
    transition.created.saturating_add(SignedDuration::from_mins(minutes)).unwrap_or(Timestamp::MAX)
}
