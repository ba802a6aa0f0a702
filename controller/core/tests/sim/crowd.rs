//! Crowded histories: two sessions that overlap, at least three faults and a crash in each, and people who change things meanwhile.

use std::time::Duration;

use bos_core::health::{PowerService, Service};
use bos_core::model::NodeId;
use bos_crds::Operation;

use super::fixture::at;
use super::operator::Sim;
use super::rng::Rng;
use super::scenario::{Before, Command, Outage, Quirk, Scenario, Way, people, quirk, wanted};

impl Scenario {
    /// A history with everything at once. Every third site has CAPMC.
    pub(crate) fn crowded(seed: u64) -> Self {
        let mut scenario = Self::random(seed);
        let mut rng = Rng::new(seed ^ 0xc0de);
        let count = scenario.quirks.len();
        if seed.is_multiple_of(3) {
            scenario.power = PowerService::Capmc;
        }
        scenario.options.discovery_frequency = Duration::from_secs(rng.pick(&[20, 60]));
        scenario.options.actual_state_ttl = Duration::from_secs(rng.pick(&[60, 200, 14_400, 14_400]));
        let first = rng.pick(&[1, 1, 1, 60]);
        let (least, most) = rng.pick(&[(0, 8), (5, 40), (20, 120), (60, 300)]);
        let later = first + rng.between(least, most);
        scenario.sessions = vec![wanted(&mut rng, count, at(first)), wanted(&mut rng, count, at(later))];
        // The first session has work that lasts with a node that the second one wants too.
        let boots = scenario.sessions[0].operation == Operation::Boot;
        scenario.before[0] = if boots { Before::Off } else { Before::Runs("old") };
        for sick in &mut scenario.quirks[1..] {
            if rng.chance(100) {
                *sick = if rng.chance(150) { Quirk::RefusedByBss } else { quirk(&mut rng) };
            }
        }
        scenario.commands.clear();
        theme(&mut rng, &mut scenario);
        scenario.outages = (0..rng.between(3, 6)).map(|_| outage(&mut rng, later)).collect();
        scenario.noise = rng.pick(&[0, 30, 30, 200]);
        scenario.omissions = rng.pick(&[0, 30]);
        scenario.forgotten = rng.pick(&[0, 100]);
        let (least, most) = rng.pick(&[(1, 10), (10, 30), (20, 60)]);
        scenario.crash_at = Some(u32::try_from(rng.between(least, most)).unwrap());
        let count = scenario.quirks.len();
        for _ in 0..rng.pick(&[0, 1, 2]) {
            people(&mut rng, &mut scenario, count);
        }
        for _ in 0..rng.pick(&[0, 1, 2, 4, 6]) {
            change(&mut rng, &mut scenario, count);
        }
        let shift = Duration::from_secs(rng.pick(&[0, 0, 150, 350]));
        scenario.commands.iter_mut().for_each(|(when, _)| *when = *when + shift);
        scenario.commands.sort_by_key(|(when, _)| *when);
        scenario
    }
}

/// What is seldom met by chance alone fills some histories: with nodes that stay silent, stay on, are not in CFS and so on, and with
/// an operator that cannot hear.
fn theme(rng: &mut Rng, scenario: &mut Scenario) {
    let until = at(rng.pick(&[200, 400, 100_000]));
    let (share, quirk) = match scenario.seed % 16 {
        0 => (500, Quirk::NeverReports),
        1 | 2 => (300, Quirk::IgnoresSoftOff),
        3 | 4 => (400, Quirk::NotInCfs(until)),
        5 => (400, Quirk::PowerUnknown(until)),
        6 => (300, Quirk::ConfigFails),
        7 => (300, Quirk::TaskFailsOnce),
        8 | 9 => (250, rng.pick(&[Quirk::NeverReports, Quirk::SlowBoot(Duration::from_secs(300))])),
        _ => return,
    };
    if quirk == Quirk::NeverReports && share == 500 {
        let more = 24_usize.saturating_sub(scenario.quirks.len());
        scenario.quirks.extend(vec![Quirk::None; more]);
        scenario.before.extend(vec![Before::Off; more]);
        let all = 0..scenario.quirks.len();
        scenario.sessions.iter_mut().for_each(|session| session.nodes = all.clone().collect());
    }
    for sick in &mut scenario.quirks[1..] {
        if rng.chance(share) {
            *sick = quirk;
        }
    }
    if matches!(scenario.seed % 16, 8 | 9) {
        let from = rng.between(60, 400);
        scenario.commands.extend([(at(from), Command::Deaf(true)), (at(from + rng.between(60, 500)), Command::Deaf(false))]);
    }
    if matches!(scenario.seed % 16, 1 | 2) {
        scenario.sessions[0].operation = rng.pick(&[Operation::Reboot, Operation::Shutdown]);
        scenario.before.fill(Before::Runs("old"));
    }
}

fn outage(rng: &mut Rng, later: u64) -> Outage {
    let from = at(rng.between(0, later + 200));
    Outage {
        service: rng.pick(&[Service::Hsm, Service::Pcs, Service::Pcs, Service::Pcs, Service::Bss, Service::Cfs, Service::S3]),
        from,
        to: from + Duration::from_secs(rng.between(1, 300)),
        way: rng.pick(&[Way::NotSent, Way::UnknownBefore, Way::UnknownAfter]),
    }
}

/// One change that a person makes to nodes, HSM, options or the operator, and where it would last for ever, that it is undone.
fn change(rng: &mut Rng, scenario: &mut Scenario, count: usize) {
    let node = usize::try_from(rng.between(0, count as u64 - 1)).unwrap();
    let (first, then) = (rng.between(2, 400), rng.between(10, 300));
    let (first, then) = (at(first), at(first + then));
    let mut meanwhile = |to: fn(usize, bool) -> Command| scenario.commands.extend([(first, to(node, true)), (then, to(node, false))]);
    match rng.between(0, 7) {
        0 | 1 => meanwhile(Command::Hold),
        2 => meanwhile(Command::Lock),
        3 => meanwhile(Command::Disable),
        4 => meanwhile(if rng.chance(500) { Command::Empty } else { Command::Unlist }),
        5 => scenario.commands.push((first, Command::Replace(node))),
        6 => meanwhile(|_, deaf| Command::Deaf(deaf)),
        _ => {
            let attempts = u16::try_from(rng.between(1, 4)).unwrap();
            scenario.commands.push((first, Command::Retune(attempts, rng.pick(&[30, 70, 150, 300]))));
        }
    }
}

impl Sim {
    /// Faults that were met: outages in which something was asked of the service, and nodes with something wrong that were driven.
    pub(crate) fn faults(&self) -> usize {
        let sick =
            self.scenario.quirks.iter().zip(0..).filter(|(quirk, node)| **quirk != Quirk::None && self.check.was_taken(NodeId(*node)));
        self.met.len() + sick.count()
    }

    /// Whether all of that really happened: nodes, sessions that overlapped in nodes and time, faults, a crash.
    pub(crate) fn was_crowded(&self) -> bool {
        self.scenario.quirks.len() >= 8 && self.overlapped && self.faults() >= 3 && self.crashes > 0
    }
}
