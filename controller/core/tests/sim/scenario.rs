//! What happens in one history: nodes and what is wrong with them, sessions, outages, crashes, and what people do meanwhile.

use std::time::Duration;

use bos_core::health::{PowerService, Service};
use bos_core::options::Options;
use bos_core::plan::Evidence;
use bos_core::time::Timestamp;
use bos_crds::{Operation, RunningNodes};

use super::fixture::at;
use super::hands::Hand;
use super::rng::Rng;

/// What is wrong with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quirk {
    None,
    /// Boots, but is never heard.
    NeverReports,
    /// Its power never comes on.
    NeverPowersOn,
    /// Its operating system does not shut down.
    IgnoresSoftOff,
    /// Its controller does not answer until then.
    PowerUnknown(Timestamp),
    /// Every boot takes that long.
    SlowBoot(Duration),
    /// Boots with a kernel command line of its own.
    WrongToken,
    /// The first task for it fails at once.
    TaskFailsOnce,
    /// CFS does not know it until then.
    NotInCfs(Timestamp),
    /// CFS gives up on it.
    ConfigFails,
    /// BSS refuses every call that names it.
    RefusedByBss,
}

/// A node at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    Off,
    /// Runs an image that its record names.
    Runs(&'static str),
    /// Runs something nobody knows.
    RunsUnknown,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Refused connection: nothing left.
    NotSent,
    /// The answer is lost and nothing was done.
    UnknownBefore,
    /// Done, but the answer is lost.
    UnknownAfter,
}

#[derive(Debug, Clone)]
pub(crate) struct Outage {
    pub(crate) service: Service,
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
    pub(crate) way: Way,
}

/// What a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Cancel(usize),
    Suspend(usize, bool),
    Delete(usize),
    Stop(bool),
    /// Switches a node on or off at its own button.
    Button(usize, bool),
    /// Holds a node by its BootComponent, or lets it go on.
    Hold(usize, bool),
    /// Locks a node in HSM, or unlocks it.
    Lock(usize, bool),
    /// Disables a node in HSM, or enables it.
    Disable(usize, bool),
    /// Takes a node out of its slot, or puts it back.
    Empty(usize, bool),
    /// HSM forgets a node, or lists it again.
    Unlist(usize, bool),
    /// Puts another node into the slot; it is off.
    Replace(usize),
    /// The operator refuses reports, as it does when it cannot keep them.
    Deaf(bool),
    /// Edits the options: attempts, and all deadlines in percent of what they were at first.
    Retune(u16, u32),
    /// Asks something of one node by its BootComponent.
    Hand(usize, Hand),
}

#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) at: Timestamp,
    pub(crate) operation: Operation,
    pub(crate) running: RunningNodes,
    pub(crate) image: &'static str,
    pub(crate) configuration: &'static str,
    pub(crate) nodes: Vec<usize>,
    /// Parks its state at the nodes.
    pub(crate) stage: bool,
}

/// One history.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) options: Options,
    /// What switches power.
    pub(crate) power: PowerService,
    pub(crate) quirks: Vec<Quirk>,
    pub(crate) before: Vec<Before>,
    pub(crate) sessions: Vec<Wanted>,
    pub(crate) outages: Vec<Outage>,
    /// Single calls fail in so many of a thousand cases, until [`Scenario::calm_from`].
    pub(crate) noise: u64,
    /// Reports are lost in so many of a thousand cases.
    pub(crate) report_loss: u64,
    pub(crate) commands: Vec<(Timestamp, Command)>,
    pub(crate) crashes: u32,
    /// Chance of a crash at each place where one hurts.
    pub(crate) crash_per_mille: u64,
    /// The operator dies at that place where it hurts, in any case.
    pub(crate) crash_at: Option<u32>,
    /// The power service leaves a node out of its answer in so many of a thousand cases, until [`Scenario::calm_from`].
    pub(crate) omissions: u64,
    /// PCS has forgotten a transition that is over in so many of a thousand looks.
    pub(crate) forgotten: u64,
    /// How long the power service goes on saying what it saw before.
    pub(crate) sampling: Duration,
    /// From then on nothing new goes wrong.
    pub(crate) calm_from: Timestamp,
    /// People write to BootComponents, and these are kept as the engine keeps them.
    pub(crate) hands: bool,
}

/// Options with short deadlines, so that histories are short.
pub(crate) fn options(retry_policy: u16) -> Options {
    Options {
        retry_policy,
        batch_size: 5,
        max_boot_wait: Duration::from_secs(200),
        max_power_on_wait: Duration::from_secs(100),
        max_power_off_wait: Duration::from_secs(120),
        power_unknown_wait: Duration::from_secs(150),
        configuration_wait: Duration::from_secs(400),
        ..Options::default()
    }
}

impl Scenario {
    /// A history without any fault: `count` nodes that are off, and one Boot.
    pub(crate) fn calm(seed: u64, count: usize) -> Self {
        let boot = Wanted {
            at: at(1),
            operation: Operation::Boot,
            running: RunningNodes::RestartIfDifferent,
            image: "new",
            configuration: "conf",
            nodes: (0..count).collect(),
            stage: false,
        };
        Self {
            seed,
            options: options(3),
            power: PowerService::Pcs,
            quirks: vec![Quirk::None; count],
            before: vec![Before::Off; count],
            sessions: vec![boot],
            outages: Vec::new(),
            noise: 0,
            report_loss: 0,
            commands: Vec::new(),
            crashes: 0,
            crash_per_mille: 0,
            crash_at: None,
            omissions: 0,
            forgotten: 0,
            sampling: Duration::ZERO,
            calm_from: at(900),
            hands: false,
        }
    }

    /// The history of a seed, with anything that can go wrong.
    pub(crate) fn random(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = if rng.chance(50) { 40 } else { usize::try_from(rng.between(8, 12)).unwrap() };
        let mut scenario = Self::calm(seed, count);
        scenario.options = options(u16::try_from(rng.between(1, 3)).unwrap());
        if rng.chance(200) {
            scenario.options.max_nodes_in_flight = 3;
            scenario.options.power_ons_per_second = 2;
        }
        scenario.options.evidence = rng.pick(&[
            Evidence::NodeReport,
            Evidence::NodeReport,
            Evidence::NodeReport,
            Evidence::NodeReport,
            Evidence::NodeReport,
            Evidence::NodeReport,
            Evidence::HsmReady,
            Evidence::HsmReady,
            Evidence::PowerState,
        ]);
        scenario.before = (0..count)
            .map(|_| rng.pick(&[Before::Off, Before::Off, Before::Runs("old"), Before::Runs("new"), Before::RunsUnknown]))
            .collect();
        let sick = rng.pick(&[0, 100, 300]);
        scenario.quirks = (0..count).map(|_| if rng.chance(sick) { quirk(&mut rng) } else { Quirk::None }).collect();
        if count == 40 && rng.chance(500) {
            scenario.quirks = (0..count).map(|_| if rng.chance(400) { Quirk::NeverReports } else { Quirk::None }).collect();
        }
        scenario.sessions = vec![wanted(&mut rng, count, at(1))];
        if rng.chance(400) {
            // Now and then within the same second.
            let later = if rng.chance(200) { at(1) + Duration::from_millis(rng.between(1, 900)) } else { at(rng.between(2, 300)) };
            scenario.sessions.push(wanted(&mut rng, count, later));
        }
        for _ in 0..rng.pick(&[0, 0, 1, 3]) {
            let from = at(rng.between(0, 400));
            scenario.outages.push(Outage {
                service: rng.pick(&[Service::Hsm, Service::Pcs, Service::Pcs, Service::Bss, Service::Cfs, Service::S3]),
                from,
                to: from + Duration::from_secs(rng.between(1, 300)),
                way: rng.pick(&[Way::NotSent, Way::UnknownBefore, Way::UnknownAfter]),
            });
        }
        scenario.noise = rng.pick(&[0, 0, 30, 200]);
        scenario.report_loss = rng.pick(&[0, 100, 500]);
        scenario.sampling = Duration::from_secs(rng.pick(&[0, 10, 30]));
        scenario.crashes = rng.pick(&[0, 1, 2, 4]);
        scenario.crash_per_mille = rng.pick(&[10, 50]);
        for _ in 0..rng.pick(&[0, 0, 0, 1, 2]) {
            people(&mut rng, &mut scenario, count);
        }
        scenario.commands.sort_by_key(|(when, _)| *when);
        scenario
    }
}

pub(super) fn quirk(rng: &mut Rng) -> Quirk {
    let until = at(rng.pick(&[30, 200, 100_000]));
    rng.pick(&[
        Quirk::NeverReports,
        Quirk::NeverPowersOn,
        Quirk::IgnoresSoftOff,
        Quirk::PowerUnknown(until),
        Quirk::SlowBoot(Duration::from_secs(205)),
        Quirk::SlowBoot(Duration::from_secs(300)),
        Quirk::WrongToken,
        Quirk::TaskFailsOnce,
        Quirk::NotInCfs(until),
        Quirk::ConfigFails,
    ])
}

pub(super) fn wanted(rng: &mut Rng, count: usize, at: Timestamp) -> Wanted {
    let all = rng.chance(600);
    let operation = rng.pick(&[
        Operation::Boot,
        Operation::Boot,
        Operation::Boot,
        Operation::Reboot,
        Operation::Reboot,
        Operation::Shutdown,
        Operation::Configure,
    ]);
    Wanted {
        at,
        operation,
        running: rng.pick(&[
            RunningNodes::RestartIfDifferent,
            RunningNodes::RestartIfDifferent,
            RunningNodes::Leave,
            RunningNodes::Restart,
        ]),
        image: rng.pick(&["new", "new", "newer"]),
        configuration: if operation == Operation::Configure { "conf" } else { rng.pick(&["", "conf"]) },
        nodes: (0..count).filter(|index| *index == 0 || all || rng.chance(500)).collect(),
        stage: false,
    }
}

/// One thing that people do, and for what holds others up, that they undo it.
pub(super) fn people(rng: &mut Rng, scenario: &mut Scenario, count: usize) {
    let session = usize::try_from(rng.between(0, scenario.sessions.len() as u64 - 1)).unwrap();
    let node = usize::try_from(rng.between(0, count as u64 - 1)).unwrap();
    let (first, then) = (at(rng.between(2, 300)), at(rng.between(300, 600)));
    match rng.between(0, 4) {
        0 => scenario.commands.push((first, Command::Cancel(session))),
        1 => scenario.commands.extend([(first, Command::Suspend(session, true)), (then, Command::Suspend(session, false))]),
        2 => scenario.commands.extend([(first, Command::Stop(true)), (then, Command::Stop(false))]),
        3 => scenario.commands.push((first, Command::Button(node, rng.chance(500)))),
        _ => scenario.commands.push((first, Command::Delete(session))),
    }
}
