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
        if seed % 3 == 0 {
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
        scenario.outages = (0..rng.between(2, 5)).map(|_| outage(&mut rng, later)).collect();
        scenario.noise = rng.pick(&[0, 30, 30, 200]);
        scenario.omissions = rng.pick(&[0, 30]);
        scenario.forgotten = rng.pick(&[0, 100]);
        let (least, most) = rng.pick(&[(1, 10), (10, 40), (30, 80)]);
        scenario.crash_at = Some(u32::try_from(rng.between(least, most)).unwrap());
        scenario.commands.clear();
        for _ in 0..rng.pick(&[0, 1, 2]) {
            people(&mut rng, &mut scenario, count);
        }
        for _ in 0..rng.pick(&[0, 1, 2, 4]) {
            change(&mut rng, &mut scenario, count);
        }
        scenario.commands.sort_by_key(|(when, _)| *when);
        scenario
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
        let sick = self.scenario.quirks.iter().zip(0..).filter(|(quirk, node)| **quirk != Quirk::None && self.check.was_taken(NodeId(*node)));
        self.met.len() + sick.count()
    }

    /// Whether all of that really happened: nodes, sessions that overlapped in nodes and time, faults, a crash.
    pub(crate) fn was_crowded(&self) -> bool {
        self.scenario.quirks.len() >= 8 && self.overlapped && self.faults() >= 3 && self.crashes > 0
    }
}
