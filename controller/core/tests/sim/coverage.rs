//! Which inputs reached nodes in which displayed status, counted over all histories.

use std::collections::BTreeSet;
use std::fmt::Write;

use bos_core::batch::{BatchId, Outcome, Progress, Task};
use bos_core::health::Service;
use bos_core::model::{ConfigRecord, ConfigStatus, EndKind, HoldReason, NodeId, Power, PowerAction, SessionUid, Token, World};
use bos_core::project::standing;
use bos_core::session::Stage;
use bos_core::time::Timestamp;
use bos_crds::NodeStatus;

use super::fixture::uid;
use super::operator::{Event, Sim};
use super::scenario::Command;

/// What people see of a node; a hold by its reason, for each is left in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// No session drives it, and its last one did not fail.
    Stable,
    /// No session drives it; it failed in the last one.
    Failed,
    /// Driven, not looked at yet.
    NotObserved,
    PowerUnknown,
    PreviousOperation,
    MassTimeout,
    PathDown,
    NotInCfs,
    PowerOffPending,
    GracefulCalled,
    ForcefulCalled,
    PowerOnPending,
    PowerOnCalled,
    Configuring,
}

impl Row {
    pub(crate) const ALL: [Self; 14] = [
        Self::Stable,
        Self::Failed,
        Self::NotObserved,
        Self::PowerUnknown,
        Self::PreviousOperation,
        Self::MassTimeout,
        Self::PathDown,
        Self::NotInCfs,
        Self::PowerOffPending,
        Self::GracefulCalled,
        Self::ForcefulCalled,
        Self::PowerOnPending,
        Self::PowerOnCalled,
        Self::Configuring,
    ];

    fn of(world: &World, id: NodeId, now: Timestamp) -> Self {
        let Some(node) = world.node(id) else { return Self::Stable };
        let Some((session, drive)) = world.driver(id) else {
            let failed = node.last.as_ref().is_some_and(|last| last.end.kind == EndKind::Failed);
            return if failed { Self::Failed } else { Self::Stable };
        };
        if let Some(hold) = drive.hold {
            return match hold.reason {
                HoldReason::PowerUnknown => Self::PowerUnknown,
                HoldReason::NotInConfigurationService => Self::NotInCfs,
                HoldReason::PreviousOperation => Self::PreviousOperation,
                HoldReason::MassBootTimeout => Self::MassTimeout,
                HoldReason::ReportPathDown => Self::PathDown,
            };
        }
        match standing(world, node, drive, session, now).0 {
            NodeStatus::OnHold => Self::NotObserved,
            NodeStatus::PowerOffPending => Self::PowerOffPending,
            NodeStatus::PowerOffGracefullyCalled => Self::GracefulCalled,
            NodeStatus::PowerOffForcefullyCalled => Self::ForcefulCalled,
            NodeStatus::PowerOnPending => Self::PowerOnPending,
            NodeStatus::PowerOnCalled => Self::PowerOnCalled,
            NodeStatus::Configuring => Self::Configuring,
            NodeStatus::Stable | NodeStatus::Failed => panic!("{} is driven", node.xname),
        }
    }
}

/// What can reach a node, from a service, a person, the clock or the death of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Input {
    PowerOn,
    PowerOff,
    PowerUnknown,
    ReportRight,
    ReportWrong,
    ReportAgain,
    ReportRefused,
    ReportExpired,
    HsmReady,
    HsmNotReady,
    ConfigPending,
    ConfigDone,
    ConfigFailed,
    ConfigDiffers,
    ConfigAbsent,
    ScriptsRead,
    TaskOpen,
    TaskSucceeded,
    TaskFailed,
    TaskUntouched,
    TransitionGone,
    BssStored,
    BssRejected,
    CfsSet,
    PowerAccepted,
    PowerRefused,
    CallNotSent,
    CallUnknown,
    PowerServiceAway,
    BssAway,
    CfsAway,
    HsmAway,
    NewerSession,
    RunBoot,
    RunOff,
    RunAgain,
    RunSame,
    RunRestored,
    Staged,
    Applied,
    AppliedSame,
    Cancel,
    Delete,
    SuspendSession,
    ResumeSession,
    HoldNode,
    ReleaseNode,
    Stop,
    StopLifted,
    OptionsEdited,
    ButtonOn,
    ButtonOff,
    Locked,
    Unlocked,
    Disabled,
    Enabled,
    Emptied,
    Unlisted,
    Replaced,
    InventoryShrunk,
    PowerDeadline,
    BootDeadline,
    ConfigDeadline,
    HoldDeadline,
    Crash,
    Restart,
}

impl Input {
    pub(crate) const ALL: [Self; 66] = [
        Self::PowerOn,
        Self::PowerOff,
        Self::PowerUnknown,
        Self::ReportRight,
        Self::ReportWrong,
        Self::ReportAgain,
        Self::ReportRefused,
        Self::ReportExpired,
        Self::HsmReady,
        Self::HsmNotReady,
        Self::ConfigPending,
        Self::ConfigDone,
        Self::ConfigFailed,
        Self::ConfigDiffers,
        Self::ConfigAbsent,
        Self::ScriptsRead,
        Self::TaskOpen,
        Self::TaskSucceeded,
        Self::TaskFailed,
        Self::TaskUntouched,
        Self::TransitionGone,
        Self::BssStored,
        Self::BssRejected,
        Self::CfsSet,
        Self::PowerAccepted,
        Self::PowerRefused,
        Self::CallNotSent,
        Self::CallUnknown,
        Self::PowerServiceAway,
        Self::BssAway,
        Self::CfsAway,
        Self::HsmAway,
        Self::NewerSession,
        Self::RunBoot,
        Self::RunOff,
        Self::RunAgain,
        Self::RunSame,
        Self::RunRestored,
        Self::Staged,
        Self::Applied,
        Self::AppliedSame,
        Self::Cancel,
        Self::Delete,
        Self::SuspendSession,
        Self::ResumeSession,
        Self::HoldNode,
        Self::ReleaseNode,
        Self::Stop,
        Self::StopLifted,
        Self::OptionsEdited,
        Self::ButtonOn,
        Self::ButtonOff,
        Self::Locked,
        Self::Unlocked,
        Self::Disabled,
        Self::Enabled,
        Self::Emptied,
        Self::Unlisted,
        Self::Replaced,
        Self::InventoryShrunk,
        Self::PowerDeadline,
        Self::BootDeadline,
        Self::ConfigDeadline,
        Self::HoldDeadline,
        Self::Crash,
        Self::Restart,
    ];
}

/// How often each input reached a node in each status.
#[derive(Debug, Clone)]
pub(crate) struct Coverage(Vec<u64>);

impl Default for Coverage {
    fn default() -> Self {
        Self(vec![0; Row::ALL.len() * Input::ALL.len()])
    }
}

impl Coverage {
    fn add(&mut self, row: Row, input: Input) {
        self.0[row as usize * Input::ALL.len() + input as usize] += 1;
    }

    pub(crate) fn count(&self, row: Row, input: Input) -> u64 {
        self.0[row as usize * Input::ALL.len() + input as usize]
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (ours, theirs) in self.0.iter_mut().zip(&other.0) {
            *ours += theirs;
        }
    }

    /// A line per input, a column per status.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("{:<16}", "");
        for row in Row::ALL {
            let _ = write!(text, " {:>17}", format!("{row:?}"));
        }
        for input in Input::ALL {
            let _ = write!(text, "\n{:<16}", format!("{input:?}"));
            for row in Row::ALL {
                match self.count(row, input) {
                    0 => text.push_str(&format!(" {:>17}", ".")),
                    count => text.push_str(&format!(" {count:>17}")),
                }
            }
        }
        text
    }
}

/// What is noted of a pass: inputs of the clock, and images not yet expired.
pub(crate) struct BeforePass {
    due: Vec<(Input, Row)>,
    fresh: Vec<(NodeId, Row)>,
}

/// Deadlines that have passed since the last pass.
pub(crate) fn before_pass(world: &World, passed: Timestamp, now: Timestamp) -> BeforePass {
    let mut before = BeforePass { due: Vec::new(), fresh: Vec::new() };
    let lately = |at: Timestamp| passed < at && at <= now;
    for (id, node) in (0..).map(NodeId).zip(&world.nodes) {
        if node.reported.as_ref().is_some_and(|report| !report.expired) {
            before.fresh.push((id, Row::of(world, id, now)));
        }
        let Some(drive) = &node.drive else { continue };
        let open = drive.action.filter(|issued| !issued.failed);
        let coming = open.filter(|issued| issued.action == PowerAction::On && drive.booted.is_none());
        let deadlines = [
            (Input::PowerDeadline, open.map(|issued| issued.power_by)),
            (Input::BootDeadline, coming.map(|issued| issued.boot_by)),
            (Input::ConfigDeadline, drive.configured_by),
            (Input::HoldDeadline, drive.hold.map(|hold| hold.until)),
        ];
        let row = Row::of(world, id, now);
        before.due.extend(deadlines.into_iter().filter(|(_, at)| at.is_some_and(lately)).map(|(input, _)| (input, row)));
    }
    before
}

impl Sim {
    /// An input reaches nodes.
    pub(crate) fn note(&mut self, input: Input, nodes: impl IntoIterator<Item = NodeId>) {
        let Some(world) = &self.world else { return };
        for id in nodes {
            self.coverage.add(Row::of(world, id, self.now), input);
        }
    }

    fn note_driven(&mut self, input: Input) {
        let driven: Vec<_> = self.world.iter().flat_map(|world| world.nodes_where(|node| node.drive.is_some())).collect();
        self.note(input, driven);
    }

    fn note_of_session(&mut self, input: Input, uid: &SessionUid) {
        let of = |world: &World| world.nodes_where(|node| node.drive.as_ref().is_some_and(|drive| drive.session == *uid)).collect();
        let nodes: Vec<_> = self.world.as_ref().map(of).unwrap_or_default();
        self.note(input, nodes);
    }

    pub(crate) fn note_crash(&mut self) {
        self.note_driven(Input::Crash);
    }

    pub(crate) fn note_start(&mut self) {
        self.passed = self.now;
        if self.crashes > 0 {
            self.note_driven(Input::Restart);
        }
    }

    /// A session is about to take nodes that another one drives.
    pub(crate) fn note_taking(&mut self, uid: &SessionUid) {
        let Some(world) = &self.world else { return };
        let Some(Stage::Recording(recording)) = world.sessions.get(uid).map(|session| &session.stage) else { return };
        let ids = recording.plan.nodes().filter_map(|(_, xname)| world.by_name.get(xname).copied());
        let lost: Vec<_> = ids.filter(|id| world.driver(*id).is_some_and(|(driver, _)| driver.uid != *uid)).collect();
        self.overlapped |= !lost.is_empty();
        self.note(Input::NewerSession, lost);
    }

    pub(crate) fn note_report(&mut self, id: NodeId, token: &Token) {
        let Some(world) = &self.world else { return };
        let Some(node) = world.node(id) else { return };
        let right = world.driver(id).is_some_and(|(session, drive)| {
            session.running().and_then(|run| run.boot_set_of(token)).is_some_and(|boot_set| boot_set == drive.boot_set)
        });
        let again = node.reported.as_ref().is_some_and(|report| report.token == *token);
        let input = match (again, right) {
            (true, _) => Input::ReportAgain,
            (false, true) => Input::ReportRight,
            (false, false) => Input::ReportWrong,
        };
        self.note(input, [id]);
    }

    pub(crate) fn note_pass(&mut self, before: BeforePass) {
        let Some(world) = &self.world else { return };
        let expired = |id: &NodeId| world.node(*id).and_then(|node| node.reported.as_ref()).is_some_and(|report| report.expired);
        for (_, row) in before.fresh.iter().filter(|(id, _)| expired(id)) {
            self.coverage.add(*row, Input::ReportExpired);
        }
        for (input, row) in before.due {
            self.coverage.add(row, input);
        }
    }

    pub(crate) fn note_outcome(&mut self, batch: BatchId, outcome: &Outcome) {
        let Some(open) = self.world.as_ref().and_then(|world| world.batches.get(&batch)) else { return };
        let nodes: Vec<_> = open.nodes.iter().map(|member| member.node).collect();
        let input = match outcome {
            Outcome::NotSent { service, .. } => {
                self.note_away(*service);
                Input::CallNotSent
            }
            Outcome::HeldBack => return,
            Outcome::Unknown { .. } => Input::CallUnknown,
            Outcome::Rejected { .. } | Outcome::Impossible { .. } => Input::BssRejected,
            Outcome::Stored { .. } => Input::BssStored,
            Outcome::Configured { .. } => Input::CfsSet,
            Outcome::Accepted { .. } | Outcome::Taken { .. } => Input::PowerAccepted,
            Outcome::Refused { .. } => Input::PowerRefused,
        };
        self.note(input, nodes);
    }

    /// An outage reaches every node that is driven.
    fn note_away(&mut self, service: Service) {
        match service {
            Service::Pcs | Service::Capmc => self.note_driven(Input::PowerServiceAway),
            Service::Bss => self.note_driven(Input::BssAway),
            Service::Cfs => self.note_driven(Input::CfsAway),
            Service::Hsm => self.note_driven(Input::HsmAway),
            Service::Ims | Service::S3 => {}
        }
    }

    /// Notes what an event is for the nodes that it names.
    pub(crate) fn note_event(&mut self, event: &Event) {
        match event {
            Event::Power(life, nodes, _, read) if *life == self.life => match read {
                Ok(read) => {
                    read.iter().for_each(|(id, power, _)| self.note(power_input(*power), [*id]));
                    let named: BTreeSet<_> = read.iter().map(|(id, ..)| *id).collect();
                    self.note(Input::PowerUnknown, nodes.iter().copied().filter(|id| !named.contains(id)));
                }
                Err(fault) => self.note_away(fault.service),
            },
            Event::Config(life, nodes, _, read) if *life == self.life => match read {
                Ok(read) => self.note_configuration(nodes, read),
                Err(fault) => self.note_away(fault.service),
            },
            Event::States(life, _, _, read) if *life == self.life => match read {
                Ok(read) => read.iter().for_each(|(id, ready)| self.note(if *ready { Input::HsmReady } else { Input::HsmNotReady }, [*id])),
                Err(fault) => self.note_away(fault.service),
            },
            Event::Scripts(life, nodes, read) if *life == self.life => match read {
                Ok(_) => self.note(Input::ScriptsRead, nodes.iter().copied()),
                Err(fault) => self.note_away(fault.service),
            },
            Event::Progress(life, batch, _, progress) if *life == self.life => self.note_progress(*batch, progress),
            Event::Command(command) => self.note_command(*command),
            _ => {}
        }
    }

    fn note_configuration(&mut self, nodes: &[NodeId], read: &[(NodeId, ConfigRecord)]) {
        for id in nodes {
            let wanted = self
                .world
                .as_ref()
                .and_then(|world| world.driver(*id))
                .and_then(|(session, drive)| session.configuration_of(drive.boot_set));
            let input = match read.iter().find(|(of, _)| of == id) {
                None => Input::ConfigAbsent,
                Some((_, record)) if wanted.is_none_or(|wanted| wanted != record.desired) => Input::ConfigDiffers,
                Some((_, record)) => match record.status {
                    ConfigStatus::Configured => Input::ConfigDone,
                    ConfigStatus::Pending => Input::ConfigPending,
                    ConfigStatus::Failed | ConfigStatus::Unconfigured | ConfigStatus::Other(_) => Input::ConfigFailed,
                },
            };
            self.note(input, [*id]);
        }
    }

    fn note_progress(&mut self, batch: BatchId, progress: &Progress) {
        let Some(open) = self.world.as_ref().and_then(|world| world.batches.get(&batch)) else { return };
        let members: Vec<_> = open.nodes.iter().map(|member| member.node).collect();
        match progress {
            Progress::Unavailable { .. } => self.note_away(Service::Pcs),
            Progress::Gone => self.note(Input::TransitionGone, members),
            Progress::Tasks { tasks, .. } => {
                for (id, task) in tasks.iter().filter(|(id, _)| members.contains(id)) {
                    let input = match task {
                        Task::Open => Input::TaskOpen,
                        Task::Succeeded => Input::TaskSucceeded,
                        Task::Failed { .. } => Input::TaskFailed,
                        Task::Untouched { .. } => Input::TaskUntouched,
                    };
                    self.note(input, [*id]);
                }
            }
        }
    }

    fn note_command(&mut self, command: Command) {
        let node = |index: usize| [NodeId(u32::try_from(index).unwrap())];
        match command {
            Command::Cancel(index) => self.note_of_session(Input::Cancel, &uid(index)),
            Command::Delete(index) => self.note_of_session(Input::Delete, &uid(index)),
            Command::Suspend(index, true) => self.note_of_session(Input::SuspendSession, &uid(index)),
            Command::Suspend(index, false) => self.note_of_session(Input::ResumeSession, &uid(index)),
            Command::Stop(stop) => self.note_driven(if stop { Input::Stop } else { Input::StopLifted }),
            Command::Button(index, on) => self.note(if on { Input::ButtonOn } else { Input::ButtonOff }, node(index)),
            Command::Hold(index, hold) => self.note(if hold { Input::HoldNode } else { Input::ReleaseNode }, node(index)),
            Command::Retune(..) => self.note_driven(Input::OptionsEdited),
            // Noted when the operator learns of it.
            Command::Lock(..)
            | Command::Disable(..)
            | Command::Empty(..)
            | Command::Unlist(..)
            | Command::Replace(_)
            | Command::Deaf(_)
            | Command::Hand(..) => {}
        }
    }
}

fn power_input(power: Power) -> Input {
    match power {
        Power::On => Input::PowerOn,
        Power::Off => Input::PowerOff,
        Power::Unknown => Input::PowerUnknown,
    }
}
