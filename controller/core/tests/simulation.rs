//! Random histories of the whole core in virtual time. A failing seed is printed; add it to [`KEPT`].
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bos_core::health::PowerService;
use bos_core::model::{EndKind, NodeId, SessionUid};
use sim::operator::deadline;
use sim::scenario::{Before, Outage, Quirk, Way};
use sim::{Scenario, Sim, fixture};

/// Seeds that once failed.
const KEPT: &[u64] = &[
    0, 2, 5, 8, 11, 21, 25, 106, 112, 117, 118, 123, 125, 178, 218, 403, 567, 975, 1364, 1835, 2159, 2601, 2673, 3770, 3930, 6299, 18030,
    18918, 30918, 27893, 30357, 32895, 36276, 56164, 89590,
];

/// The same, with CAPMC.
const KEPT_CAPMC: &[u64] = &[2334, 6667, 8832, 9861, 13444, 13759, 28854];

fn run(scenario: Scenario) -> Sim {
    let mut sim = Sim::new(scenario);
    let limit = deadline(&sim.scenario);
    sim.run(limit);
    sim
}

/// Runs seeds on as many threads as there are processors; says which fail.
fn histories(seeds: &[u64]) {
    histories_with(seeds, |_| ());
}

fn histories_with(seeds: &[u64], change: fn(&mut Scenario)) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let failed: Vec<u64> = std::thread::scope(|scope| {
        let chunks: Vec<_> = seeds.chunks(seeds.len().div_ceil(threads).max(1)).collect();
        let workers: Vec<_> = chunks
            .into_iter()
            .map(|seeds| {
                let play = move |seed: u64| {
                    let mut scenario = Scenario::random(seed);
                    change(&mut scenario);
                    drop(run(scenario));
                };
                let failing = move |seed: &&u64| catch_unwind(AssertUnwindSafe(|| play(**seed))).is_err();
                scope.spawn(move || seeds.iter().filter(failing).take(5).copied().collect::<Vec<_>>())
            })
            .collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    });
    assert!(failed.is_empty(), "histories with these seeds fail; run one with BOS_SIM_SEED (BOS_SIM_CAPMC_SEED): {failed:?}");
}

#[test]
fn random_histories_keep_the_rules() {
    if let Ok(seed) = std::env::var("BOS_SIM_SEED") {
        return histories(&[seed.parse().unwrap()]);
    }
    let count: u64 = std::env::var("BOS_SIM_HISTORIES").ok().map_or(2000, |count| count.parse().unwrap());
    histories(&(0..count).collect::<Vec<_>>());
}

fn by_capmc(scenario: &mut Scenario) {
    scenario.power = PowerService::Capmc;
}

/// The same with the power service that judges lists as a whole and tells no transition. `BOS_SIM_CAPMC_SEED=N` replays one.
#[test]
fn random_histories_keep_the_rules_with_capmc() {
    if let Ok(seed) = std::env::var("BOS_SIM_CAPMC_SEED") {
        return histories_with(&[seed.parse().unwrap()], by_capmc);
    }
    let count: u64 = std::env::var("BOS_SIM_HISTORIES").ok().map_or(1000, |count| count.parse().unwrap());
    histories_with(&(0..count).collect::<Vec<_>>(), by_capmc);
}

#[test]
fn seeds_that_failed_once_pass() {
    histories(KEPT);
    histories_with(KEPT_CAPMC, by_capmc);
}

fn session() -> SessionUid {
    fixture::uid(0)
}

/// Power, image, configuration of every node, how its part ended, and how often it was cycled.
fn result(sim: &Sim) -> Vec<String> {
    let nodes = (0..sim.site.nodes.len()).map(|index| NodeId(u32::try_from(index).unwrap()));
    let one = |id: NodeId| {
        let node = sim.site.node(id);
        let offs = sim.check.switched_off(&session(), id);
        format!("{:?} {:?} {:?} {:?} off {offs}", node.on, sim.site.runs(id), node.config, sim.check.ends.get(&(session(), id)))
    };
    nodes.map(one).collect()
}

#[test]
fn crashes_change_nothing_where_nothing_fails() {
    for seed in 0..200 {
        let mut calm = Scenario::calm(seed, 8);
        calm.before = [Before::Off, Before::Runs("old"), Before::Runs("new"), Before::RunsUnknown].repeat(2);
        let crashing = Scenario { crashes: 20, crash_per_mille: 200, ..calm.clone() };
        let (undisturbed, disturbed) = (run(calm), run(crashing));
        assert!(disturbed.crashes_left < 20, "seed {seed}: there was no crash");
        assert_eq!(result(&disturbed), result(&undisturbed), "seed {seed}");
    }
}

#[test]
fn an_outage_burns_no_attempt() {
    for seed in 0..100 {
        let mut scenario = Scenario::calm(seed, 8);
        let services = [bos_core::health::Service::Pcs, bos_core::health::Service::Bss, bos_core::health::Service::Cfs];
        for service in services {
            let from = sim::fixture::at(1) + std::time::Duration::from_millis(seed * 40);
            scenario.outages.push(Outage { service, from, to: from + std::time::Duration::from_secs(300), way: Way::NotSent });
        }
        let sim = run(scenario);
        for index in 0..8 {
            assert_eq!(sim.check.power_ons(&session(), NodeId(index)), 1, "seed {seed}");
            assert_eq!(sim.check.ends[&(session(), NodeId(index))], EndKind::Succeeded, "seed {seed}");
        }
    }
}

#[test]
fn mass_silence_cycles_no_node() {
    let mut scenario = Scenario::calm(1, 40);
    scenario.quirks = (0..40).map(|index| if index < 20 { Quirk::NeverReports } else { Quirk::None }).collect();
    let sim = run(scenario);
    assert_eq!(sim.check.silent_cycles(&session()), 0);
    assert_eq!(sim.check.ends.values().filter(|end| **end == EndKind::Failed).count(), 20);
}

#[test]
fn a_few_silent_nodes_are_cycled_within_the_budget() {
    let mut scenario = Scenario::calm(1, 40);
    scenario.quirks = (0..40).map(|index| if index < 3 { Quirk::NeverReports } else { Quirk::None }).collect();
    let sim = run(scenario);
    for index in 0..3 {
        assert_eq!(sim.check.switched_off(&session(), NodeId(index)), 2);
        assert_eq!(sim.check.power_ons(&session(), NodeId(index)), 3);
        assert!(sim.site.node(NodeId(index)).on, "the last attempt leaves it on");
    }
}
