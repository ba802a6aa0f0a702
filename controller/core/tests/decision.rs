//! The decisions of the status operator as tables. A row of a file in `data/` is read and compared with what [`Case::judge`]
//! says; `*` stands for every value of its column, and the rows together cover every combination once.
//!
//! After a wanted change: `BOS_GOLDEN_WRITE=1 cargo test -p bos-core --test decision`, then read the difference.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "sim/desk.rs"]
mod desk;
#[path = "sim/fixture.rs"]
mod fixture;
#[path = "sim/golden.rs"]
mod golden;

use std::time::Duration;

use bos_core::health::Services;
use bos_core::model::{ConfigRecord, ConfigSeen, ConfigStatus, Issued, Phase, Power, PowerAction, PowerSeen, Reported, Script, Token};
use bos_core::plan::{PlannedOperation, RunningPolicy};
use bos_core::status::{Case, Silence};
use bos_core::time::Timestamp;
use bos_core::want::Decision;
use desk::{Desk, token};
use fixture::{digest, plan};
use golden::{Column, Table};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A node in a session, about to be judged.
struct Scene {
    desk: Desk,
    silent: usize,
}

impl Scene {
    fn new(operation: &str, configuration: &str) -> Self {
        let (operation, running) = match operation {
            "Boot" => (PlannedOperation::Boot, RunningPolicy::RestartIfDifferent),
            "Boot, Leave" => (PlannedOperation::Boot, RunningPolicy::Leave),
            "Boot, Restart" => (PlannedOperation::Boot, RunningPolicy::Restart),
            "Reboot" => (PlannedOperation::Reboot, RunningPolicy::RestartIfDifferent),
            "Shutdown" => (PlannedOperation::Shutdown, RunningPolicy::RestartIfDifferent),
            other => panic!("operation {other}"),
        };
        let mut plan = plan(operation, 1, "new", configuration);
        plan.running = running;
        let mut desk = Desk::at_a_site(1, plan, Services::default());
        let uid = desk.uid.clone();
        let run = desk.world.sessions.get_mut(&uid).and_then(|session| session.running_mut()).unwrap();
        run.tokens.push((token(), 0));
        desk.wait(60 * MINUTE);
        Self { desk, silent: 0 }
    }

    fn drive(&mut self) -> &mut bos_core::model::Drive {
        self.desk.world.nodes[0].drive.as_mut().unwrap()
    }

    fn phase(&mut self, phase: &str) {
        self.drive().phase = match phase {
            "None" => Phase::None,
            "PoweringOff" => Phase::PoweringOff,
            "PoweringOn" => Phase::PoweringOn,
            "Configuring" => Phase::Configuring,
            other => panic!("phase {other}"),
        };
    }

    fn power(&mut self, power: &str, at: Timestamp) {
        let power = match power {
            "on" => Power::On,
            "off" => Power::Off,
            "unknown" => Power::Unknown,
            "not seen" => return,
            other => panic!("power {other}"),
        };
        self.desk.world.nodes[0].power = Some(PowerSeen { power, at, detail: "".into() });
    }

    /// The last power action and where it stands.
    fn action(&mut self, action: &str) {
        let now = self.desk.now;
        let mut words = action.split(' ');
        let kind = match words.next().unwrap() {
            "-" => return,
            "On" => PowerAction::On,
            "SoftOff" => PowerAction::SoftOff,
            "ForceOff" => PowerAction::ForceOff,
            other => panic!("action {other}"),
        };
        let standing = words.collect::<Vec<_>>().join(" ");
        let (age, power_in, boot_in) = match standing.as_str() {
            "called" | "failed" => (MINUTE, MINUTE, 19 * MINUTE),
            "overdue" | "overdue, answer lost" => (3 * MINUTE, Duration::ZERO, 17 * MINUTE),
            "silent" => (20 * MINUTE, Duration::ZERO, Duration::ZERO),
            other => panic!("standing {other}"),
        };
        self.drive().script = Script::NeverFetched;
        self.drive().action = Some(Issued {
            decided: now - age,
            action: kind,
            at: now - age,
            power_by: now + power_in,
            boot_by: now + boot_in,
            accepted: !standing.ends_with("lost"),
            failed: standing == "failed",
        });
    }

    fn attempts(&mut self, attempts: &str) {
        let attempts_used = match attempts {
            "first" => 1,
            "last" => 3,
            other => panic!("attempts {other}"),
        };
        let now = self.desk.now;
        let drive = self.drive();
        if drive.phase == Phase::None {
            return;
        }
        let powered_on = drive.phase == Phase::PoweringOn && drive.action.is_some();
        drive.attempts.on = if powered_on || attempts_used == 3 { attempts_used } else { 0 };
        let powered_on_at =
            drive.action.filter(|issued| issued.action == PowerAction::On).map_or(now - 20 * MINUTE, |issued| issued.decided);
        drive.last_on = (drive.attempts.on > 0).then_some(powered_on_at);
        drive.attempts.graceful =
            if drive.phase == Phase::PoweringOff && (drive.action.is_some() || attempts_used == 3) { attempts_used } else { 0 };
        drive.attempts.forceful =
            if matches!(drive.action, Some(issued) if issued.action == PowerAction::ForceOff) { attempts_used } else { 0 };
    }

    /// What it reported, and when: before the session, or half a minute ago.
    fn report(&mut self, report: &str) {
        let (token, artifacts) = match report {
            "-" => return,
            text if text.starts_with("wanted image") => (Token("of another session".into()), Some(digest("new"))),
            text if text.starts_with("other image") => (Token("old".into()), Some(digest("old"))),
            text if text.starts_with("unknown image") => (Token("foreign".into()), None),
            "this boot" => (token(), Some(digest("new"))),
            other => panic!("report {other}"),
        };
        let since = if report.ends_with("since then") || report == "this boot" { self.desk.now - 30 * SECOND } else { fixture::START };
        self.desk.world.nodes[0].heard = Some(since);
        self.desk.world.nodes[0].reported = Some(Reported { token, artifacts, since, at: since, expired: false });
    }

    fn judge(&self) -> String {
        let world = &self.desk.world;
        let session = &world.sessions[&self.desk.uid];
        let run = session.running().unwrap();
        let node = &world.nodes[0];
        let drive = node.drive.as_ref().unwrap();
        let mass_silence = Silence { silent: self.silent, among: run.slots.len() }.is_of_many(&world.options);
        let case = Case { world, session, run, boot_set: &run.plan.boot_sets[0], node, drive, mass_silence, cycled: 0, now: self.desk.now };
        words(case.judge())
    }
}

fn words(decision: Option<Decision>) -> String {
    match decision {
        None => "wait".to_owned(),
        Some(Decision::Hold(hold)) => format!("hold {:?}", hold.reason),
        Some(Decision::Release) => "go on".to_owned(),
        Some(Decision::Enter(phase)) => format!("enter {phase:?}"),
        Some(Decision::Cycle) => "power-cycle".to_owned(),
        Some(Decision::CycleSilent(_)) => "power-cycle, silent".to_owned(),
        Some(Decision::ActionFailed { refund: false, .. }) => "action failed".to_owned(),
        Some(Decision::ActionFailed { refund: true, .. }) => "action failed, attempt given back".to_owned(),
        Some(Decision::AlreadyBooted) => "is booted".to_owned(),
        Some(Decision::End(kind, reason, _)) => format!("end {kind:?} {reason}").trim_end().to_owned(),
    }
}

const OPERATIONS: Column = ("operation", &["Boot", "Boot, Leave", "Boot, Restart", "Reboot", "Shutdown"]);
const POWERS: Column = ("power", &["not seen", "unknown", "off", "on"]);

#[test]
fn power() {
    let reports: Column = ("report", &["-", "wanted image", "other image", "other image since then", "unknown image", "this boot"]);
    let attempts: Column = ("attempt", &["first", "last"]);
    let doing: Column = (
        "phase, last action",
        &[
            "None: -",
            "PoweringOff: -",
            "PoweringOff: SoftOff called",
            "PoweringOff: SoftOff overdue",
            "PoweringOff: SoftOff overdue, answer lost",
            "PoweringOff: SoftOff failed",
            "PoweringOff: ForceOff called",
            "PoweringOff: ForceOff overdue",
            "PoweringOff: ForceOff failed",
            "PoweringOn: -",
            "PoweringOn: On called",
            "PoweringOn: On overdue",
            "PoweringOn: On overdue, answer lost",
            "PoweringOn: On silent",
            "PoweringOn: On failed",
        ],
    );
    let table = Table { file: "golden-power.txt", columns: &[doing, POWERS, attempts, reports, OPERATIONS], says: "decision" };
    table.check(|row| {
        let [doing, power, attempts, report, operation] = row else { panic!("{row:?}") };
        let (phase, action) = doing.split_once(": ").unwrap();
        let mut scene = Scene::new(operation, "");
        scene.phase(phase);
        scene.action(action);
        scene.attempts(attempts);
        scene.report(report);
        // Off is believed only where no report contradicts it, so it is seen as late as can be.
        scene.power(power, scene.desk.now);
        Some(scene.judge())
    });
}

#[test]
fn configuration() {
    let columns: &[Column] = &[
        ("phase", &["PoweringOn", "Configuring"]),
        ("wanted", &["nothing", "conf"]),
        ("CFS has", &["not asked", "no record", "other", "configured", "pending", "failed", "unconfigured", "odd"]),
        ("deadline", &["ahead", "passed"]),
        ("session", &["runs", "cancelled"]),
    ];
    Table { file: "golden-configuration.txt", columns, says: "decision" }.check(|row| {
        let [phase, wanted, record, deadline, session] = row else { panic!("{row:?}") };
        let mut scene = Scene::new("Boot", if *wanted == "conf" { "conf" } else { "" });
        scene.phase(phase);
        scene.action("On called");
        let now = scene.desk.now;
        scene.drive().booted = Some(now - 30 * SECOND);
        scene.drive().configured_by = Some(if *deadline == "passed" { now } else { now + MINUTE });
        let desired = if *record == "other" { "old" } else { "conf" };
        let status = match *record {
            "configured" => ConfigStatus::Configured,
            "failed" => ConfigStatus::Failed,
            "unconfigured" => ConfigStatus::Unconfigured,
            "odd" => ConfigStatus::Other("odd".into()),
            _ => ConfigStatus::Pending,
        };
        let record = (*record != "no record").then(|| ConfigRecord { desired: desired.into(), status });
        if row[2] != "not asked" {
            scene.desk.world.nodes[0].config = Some(ConfigSeen { record, at: now });
        }
        let uid = scene.desk.uid.clone();
        scene.desk.world.sessions.get_mut(&uid).unwrap().spec.cancel = *session == "cancelled";
        Some(scene.judge())
    });
}

#[test]
fn silence() {
    let columns: &[Column] = &[
        ("reports are heard", &["no", "since a moment", "yes"]),
        ("silent together", &["8", "9"]),
        ("attempt", &["first", "last"]),
        ("report", &["-", "unknown image", "unknown image since then"]),
        ("last look", &["fresh", "stale"]),
    ];
    Table { file: "golden-silence.txt", columns, says: "decision" }.check(|row| {
        let [heard, together, attempts, report, look] = row else { panic!("{row:?}") };
        let mut scene = Scene::new("Boot", "");
        let now = scene.desk.now;
        scene.phase("PoweringOn");
        scene.action("On silent");
        // The deadline passed a while ago, so that there can be a look after it that is not fresh any more.
        let issued = scene.drive().action.as_mut().unwrap();
        issued.boot_by = now - 5 * MINUTE;
        issued.power_by = now - 5 * MINUTE;
        scene.attempts(attempts);
        scene.report(report);
        scene.power("on", if *look == "fresh" { now - 10 * SECOND } else { now - 2 * MINUTE });
        scene.desk.world.reports.listening_since = match *heard {
            "no" => None,
            "yes" => Some(fixture::START),
            _ => Some(now - 10 * SECOND),
        };
        scene.silent = together.parse().unwrap();
        Some(scene.judge())
    });
}
