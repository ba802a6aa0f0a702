//! The same case in front of our status operator.

use std::collections::HashMap;
use std::time::Duration;

use bos_core::model::{ConfigRecord, ConfigStatus, EndKind, Issued, NodeId, Phase, Power, PowerAction, SessionUid, Token, World};
use bos_core::options::Options;
use bos_core::plan::PlannedOperation;
use bos_core::time::Timestamp;
use bos_core::want::{Decision, Effect, Want};
use bos_core::{pass, project, status};
use bos_crds::{BootComponentStatus, NodeStatus, reasons};

use super::reading::{Image, Reading, Report, Standing};
use super::record::{Last, Override, Record, Said};
use super::table::pass as bos_pass;
use crate::desk::token;
use crate::fixture::{START, plan, reported, run_plan, world, xname};

/// What a pass of the status operator means for a node, in BOS's words for the phase and the computed status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not looked at.
    Untouched,
    /// Driven on.
    GoesOn(Phase, &'static str),
    /// In the wanted state.
    Succeeded,
    /// Given up, for a reason of our registry; none where it had been given up before.
    Failed(&'static str),
    /// Left as it runs; BOS knows no such end.
    Left,
    /// No longer driven, on hold and neither failed nor done; we know no such end.
    Dropped,
}

/// What BOS's table says of a record.
pub(crate) fn bos(record: &Record) -> Answer {
    match bos_pass(record) {
        (None, _) => Answer::Untouched,
        (Some(_), after) if after.enabled => Answer::GoesOn(after.phase, after.shown),
        (Some(_), after) => match after.overriding {
            Override::OnHold => Answer::Dropped,
            Override::Failed if record.overriding == Override::Failed => Answer::Failed(""),
            Override::Failed => Answer::Failed(reasons::CONFIGURATION_FAILED),
            Override::None => Answer::Succeeded,
        },
    }
}

const ID: NodeId = NodeId(0);
const MINUTE: Duration = Duration::from_secs(60);

/// A reading as a World: one node in one session, about to be looked at.
pub(crate) struct Scene<'a> {
    reading: &'a Reading,
    pub(crate) world: World,
    pub(crate) uid: SessionUid,
    taken: Timestamp,
    acted: Timestamp,
    pub(crate) now: Timestamp,
}

/// What our status operator makes of a reading.
pub(crate) fn answer(reading: &Reading) -> Answer {
    let scene = Scene::of(reading, &Options::default());
    match reading.standing {
        Standing::Disabled => scene.undriven(),
        Standing::Failed => scene.given_up(),
        Standing::Fresh | Standing::PoweringOff | Standing::PoweringOn | Standing::Configuring => scene.judged(),
    }
}

impl<'a> Scene<'a> {
    pub(crate) fn of(reading: &'a Reading, options: &Options) -> Self {
        let now = START + 24 * 60 * MINUTE;
        // An action without a time is older than every deadline.
        let acted = now - reading.record.age.map_or(6 * 60 * MINUTE, Duration::from_millis);
        let taken = if reading.standing == Standing::Fresh { now } else { acted.min(now - 3 * MINUTE) - 10 * MINUTE };
        let mut world = world(1, START);
        world.options = options.clone();
        let record = &reading.record;
        let mut plan = plan(reading.operation, 1, "image", record.configuration.as_deref().unwrap_or_default());
        plan.boot_sets[0].artifacts = record.wanted().filter(|_| reading.operation != PlannedOperation::Shutdown).map(|set| set.digest());
        let uid = if reading.standing == Standing::Disabled { "none".into() } else { run_plan(&mut world, "first", plan, taken) };
        let mut scene = Scene { reading, world, uid, taken, acted, now };
        if reading.standing != Standing::Disabled {
            let run = scene.world.sessions.get_mut(&scene.uid).and_then(|session| session.running_mut()).unwrap();
            run.tokens.push((token(), 0));
            scene.world.nodes[0].retry_policy = record.retry_policy;
            scene.drive();
            scene.report();
            scene.observe();
        }
        scene
    }

    /// No session drives it: a whole pass of all operators must leave it alone.
    fn undriven(mut self) -> Answer {
        let effects = pass::run(&mut self.world, self.now);
        let idle = effects.iter().all(|effect| *effect == Effect::ReadInventory) && self.world.nodes[0].drive.is_none();
        assert!(idle, "{effects:?}");
        Answer::Untouched
    }

    /// Phase, attempts and last action of the run.
    fn drive(&mut self) {
        let record = &self.reading.record;
        let [on, graceful, forceful] = self.reading.attempts();
        let action = match (self.reading.standing, record.last) {
            (Standing::PoweringOn | Standing::Configuring, Last::On) => Some(PowerAction::On),
            (Standing::PoweringOff, Last::SoftOff) => Some(PowerAction::SoftOff),
            (Standing::PoweringOff, Last::ForceOff) => Some(PowerAction::ForceOff),
            _ => None,
        };
        let (at, options) = (self.acted, &self.world.options);
        let issued = action.map(|action| Issued {
            action,
            at,
            decided: at,
            power_by: at + if action == PowerAction::On { options.max_power_on_wait } else { options.max_power_off_wait },
            boot_by: at + options.max_boot_wait,
            accepted: true,
            failed: record.last_failed && action == PowerAction::On,
        });
        let drive = self.world.nodes[0].drive.as_mut().unwrap();
        drive.attempts.on = on;
        drive.attempts.graceful = graceful;
        drive.attempts.forceful = forceful;
        drive.action = issued;
        drive.last_on =
            (on > 0).then_some(issued.filter(|issued| issued.action == PowerAction::On).map_or(at - MINUTE, |issued| issued.decided));
        drive.phase = match self.reading.standing {
            Standing::Disabled | Standing::Failed | Standing::Fresh => Phase::None,
            Standing::PoweringOff => Phase::PoweringOff,
            Standing::PoweringOn => Phase::PoweringOn,
            Standing::Configuring => Phase::Configuring,
        };
    }

    /// What the node said of itself.
    fn report(&mut self) {
        let now = self.now;
        let mut lately = now - (now.since(self.acted) / 2).min(MINUTE);
        if self.reading.standing == Standing::Configuring {
            // It is configured because it reported the token of its boot.
            let booted = now - 2 * MINUTE;
            let drive = self.world.nodes[0].drive.as_mut().unwrap();
            drive.booted = Some(booted);
            drive.configured_by = Some(booted + self.world.options.configuration_wait);
            self.said(token(), &Image::Wanted, booted);
            lately = now - MINUTE;
        }
        match &self.reading.report {
            Report::None => {}
            Report::Before(image) => {
                self.said(Token("old".into()), image, self.taken - 60 * MINUTE);
                self.world.nodes[0].heard = None;
            }
            Report::After(Image::Wanted) if self.reading.standing == Standing::Configuring => {}
            Report::After(Image::Wanted) if self.reading.attempts()[0] > 0 => {
                let _ = self.world.fold_report(xname(0).as_str(), &token(), lately);
            }
            Report::After(image) => self.said(Token("foreign".into()), image, lately),
        }
    }

    fn said(&mut self, token: Token, image: &Image, at: Timestamp) {
        let artifacts = match image {
            Image::Wanted => self.reading.record.wanted().map(|wanted| wanted.digest()),
            Image::Other(digest) => digest.clone(),
        };
        self.world.nodes[0].heard = Some(at);
        self.world.nodes[0].reported = Some(reported(token, artifacts, at));
    }

    /// What PCS and CFS say of it now.
    fn observe(&mut self) {
        let now = self.now;
        let readings = match &self.reading.record.power {
            Said::Missing => Vec::new(),
            Said::On => vec![(ID, Power::On, "".into())],
            Said::Off => vec![(ID, Power::Off, "".into())],
            Said::Text(text) => vec![(ID, Power::Unknown, text.as_str().into())],
        };
        self.world.fold_power(&[ID], now, Ok(readings), now);
        let records = self.reading.record.cfs.iter().map(|cfs| {
            let status = match cfs.status.as_deref().unwrap_or_default() {
                "configured" => ConfigStatus::Configured,
                "pending" => ConfigStatus::Pending,
                "failed" => ConfigStatus::Failed,
                "unconfigured" => ConfigStatus::Unconfigured,
                other => ConfigStatus::Other(other.into()),
            };
            (ID, ConfigRecord { desired: cfs.desired.as_deref().unwrap_or_default().into(), status })
        });
        self.world.fold_config(&[ID], now, Ok(records.collect()), now);
    }

    /// Ends the node's part as a failure.
    pub(crate) fn give_up(&mut self) {
        let end = Decision::End(EndKind::Failed, reasons::POWER_ON_TIMEOUT.into(), "".into());
        let _ = self.world.accept(Want::Decide(ID, end), self.now);
    }

    /// A node that was given up earlier.
    fn given_up(mut self) -> Answer {
        self.give_up();
        let effects = pass::run(&mut self.world, self.now);
        assert!(effects.iter().all(|effect| *effect == Effect::ReadInventory), "{effects:?}");
        let shown = project::component(&self.world, ID, &BootComponentStatus::default(), 1, self.now);
        assert_eq!((shown.status, shown.enabled), (Some(NodeStatus::Failed), false));
        Answer::Failed("")
    }

    /// The status operator alone, until it has nothing more to say.
    pub(crate) fn judged(mut self) -> Answer {
        for _ in 0..6 {
            let (wants, _) = status::reconcile(&self.world, self.now);
            let mut said = false;
            for want in wants {
                match want {
                    Want::Decide(..) => drop(self.world.accept(want, self.now)),
                    // Nobody came for a boot script, as far as BSS knows.
                    Want::ReadScripts(nodes) => self.world.fold_scripts(&nodes, Ok(HashMap::new()), self.now),
                    _ => continue,
                }
                said = true;
            }
            if !said {
                break;
            }
        }
        self.stands()
    }

    /// Where the node stands now.
    pub(crate) fn stands(&self) -> Answer {
        let Some(session) = self.world.sessions.get(&self.uid) else { return Answer::Untouched };
        let Some(end) = &session.run().unwrap().slots[0].end else {
            let node = &self.world.nodes[0];
            let drive = node.drive.as_ref().unwrap();
            let (shown, _) = project::standing(&self.world, node, drive, session, self.now);
            return Answer::GoesOn(drive.phase, word(shown));
        };
        match end.kind {
            EndKind::Succeeded => Answer::Succeeded,
            EndKind::LeftRunning => Answer::Left,
            EndKind::Failed => Answer::Failed(reasons::ALL.iter().find(|(reason, _)| *reason == &*end.reason).unwrap().0),
            other => panic!("{other:?}"),
        }
    }
}

/// BOS's word for a status.
fn word(status: NodeStatus) -> &'static str {
    match status {
        NodeStatus::PowerOnPending => "power_on_pending",
        NodeStatus::PowerOnCalled => "power_on_called",
        NodeStatus::PowerOffPending => "power_off_pending",
        NodeStatus::PowerOffGracefullyCalled => "power_off_gracefully_called",
        NodeStatus::PowerOffForcefullyCalled => "power_off_forcefully_called",
        NodeStatus::Configuring => "configuring",
        NodeStatus::Stable => "stable",
        NodeStatus::Failed => "failed",
        NodeStatus::OnHold => "on_hold",
    }
}
