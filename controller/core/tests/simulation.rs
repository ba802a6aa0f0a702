//! Random histories of the whole core in virtual time. A failing seed is printed; add it to [`KEPT`], [`KEPT_CAPMC`] or
//! [`KEPT_CROWDED`].
//!
//! * `BOS_SIM_SEED=N`, `BOS_SIM_CAPMC_SEED=N`, `BOS_SIM_CROWDED_SEED=N` play one history of that kind, and `BOS_SIM_TRACE=1` (with
//!   `--nocapture`) prints what happens in it.
//! * `BOS_SIM_HISTORIES=N` plays that many of each kind.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[allow(dead_code, unreachable_pub, reason = "shared with other tests")]
mod sim;

use std::panic::{AssertUnwindSafe, catch_unwind};

use bos_core::health::PowerService;
use bos_core::model::{EndKind, NodeId, SessionUid};
use sim::coverage::Coverage;
use sim::operator::deadline;
use sim::scenario::{Before, Outage, Quirk, Way};
use sim::{Scenario, Sim, cells, fixture};

/// Seeds that once failed.
const KEPT: &[u64] = &[
    0, 2, 5, 8, 11, 21, 25, 106, 112, 117, 118, 123, 125, 178, 218, 403, 567, 975, 1364, 1835, 2159, 2601, 2673, 3770, 3930, 6299, 18030,
    18918, 30918, 27893, 30357, 32895, 36276, 56164, 89590,
];

/// The same, with CAPMC.
const KEPT_CAPMC: &[u64] = &[2334, 6667, 8832, 9861, 13444, 13759, 28854];

/// The same, crowded.
const KEPT_CROWDED: &[u64] = &[576, 1688, 6873, 7145, 7272, 9561, 13170, 13352, 14553, 14856, 15609, 93988];

/// Of the first kind, in which people drive single nodes too.
const KEPT_HANDS: &[u64] = &[341, 1131, 1352, 1415, 1974, 18385, 25700, 40942, 67371, 70857, 74245, 99179];

/// The same with CAPMC, and crowded.
const KEPT_HANDS_CAPMC: &[u64] = &[10162, 36878];
const KEPT_HANDS_CROWDED: &[u64] = &[25959, 54156, 86729, 96365, 99844];

fn run(scenario: Scenario) -> Sim {
    let mut sim = Sim::new(scenario);
    let limit = deadline(&sim.scenario);
    sim.run(limit);
    sim
}

/// What came out of the histories that one thread played.
#[derive(Default)]
struct Played {
    failed: Vec<u64>,
    /// Of those that were crowded.
    crowded: u64,
    faults: usize,
    crashes: u32,
    coverage: Coverage,
}

impl Played {
    /// After so many a thread gives up.
    const ENOUGH: usize = 5;

    fn play(&mut self, seed: u64, scenario: Scenario) {
        let Ok(sim) = catch_unwind(AssertUnwindSafe(|| run(scenario))) else { return self.failed.push(seed) };
        if sim.was_crowded() {
            self.crowded += 1;
            self.faults += sim.faults();
            self.crashes += sim.crashes;
            self.coverage.merge(&sim.coverage);
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.failed.extend(other.failed);
        self.crowded += other.crowded;
        self.faults += other.faults;
        self.crashes += other.crashes;
        self.coverage.merge(&other.coverage);
        self
    }
}

/// Plays seeds on as many threads as there are processors; says which fail.
fn play(seeds: &[u64], scenario: fn(u64) -> Scenario) -> Played {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let played = std::thread::scope(|scope| {
        let chunks = seeds.chunks(seeds.len().div_ceil(threads).max(1));
        let work = |seeds: &[u64]| {
            let mut played = Played::default();
            for seed in seeds {
                if played.failed.len() < Played::ENOUGH {
                    played.play(*seed, scenario(*seed));
                }
            }
            played
        };
        let workers: Vec<_> = chunks.map(|seeds| scope.spawn(move || work(seeds))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).fold(Played::default(), Played::and)
    });
    let variables = "BOS_SIM_SEED (BOS_SIM_CAPMC_SEED, BOS_SIM_CROWDED_SEED)";
    assert!(played.failed.is_empty(), "histories with these seeds fail; play one with {variables}: {:?}", played.failed);
    played
}

/// The seed to replay, or as many as there are to play.
fn seeds(variable: &str, count: u64) -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    number(variable).map_or_else(|| (0..number("BOS_SIM_HISTORIES").unwrap_or(count)).collect(), |seed| vec![seed])
}

#[test]
fn random_histories_keep_the_rules() {
    play(&seeds("BOS_SIM_SEED", 2000), |seed| Scenario::random(seed).with_hands());
}

fn by_capmc(seed: u64) -> Scenario {
    Scenario { power: PowerService::Capmc, ..Scenario::random(seed) }
}

/// The same with the power service that judges lists as a whole and tells no transition.
#[test]
fn random_histories_keep_the_rules_with_capmc() {
    play(&seeds("BOS_SIM_CAPMC_SEED", 1000), |seed| by_capmc(seed).with_hands());
}

/// Crowded histories that CI plays. Of fewer it is not asked what they reach.
const CROWDED: u64 = 10_000;

/// Of so many histories that are made to be crowded at least so many are: in the others the first session was over too early, the
/// operator would have died after the end, or too few of the faults were met. They must keep the rules too, but are not counted.
const SPARE: (u64, u64) = (8, 5);

/// After so many what is seldom must have happened too.
const LONG: u64 = 100_000;

/// At least eight nodes, two sessions that overlap, three faults and a crash in each, on sites with PCS and with CAPMC.
#[test]
fn crowded_histories_keep_the_rules_and_reach_every_cell() {
    let seeds = seeds("BOS_SIM_CROWDED_SEED", CROWDED * SPARE.0 / SPARE.1);
    let played = play(&seeds, |seed| Scenario::crowded(seed).with_hands());
    println!("{}", played.coverage.table());
    println!("{} histories, {} of them crowded, with {} faults and {} crashes", seeds.len(), played.crowded, played.faults, played.crashes);
    if seeds.len() as u64 >= CROWDED * SPARE.0 / SPARE.1 {
        assert!(played.crowded >= CROWDED, "only {} histories were crowded", played.crowded);
        let wrong = cells::disagreements(&played.coverage, include_str!("data/cells.txt"), seeds.len() as u64 >= LONG);
        assert!(wrong.is_empty(), "controller/core/tests/data/cells.txt says something else:\n{}", wrong.join("\n"));
    }
}

#[test]
fn seeds_that_failed_once_pass() {
    play(KEPT, Scenario::random);
    play(KEPT_CAPMC, by_capmc);
    play(KEPT_CROWDED, Scenario::crowded);
    play(KEPT_HANDS, |seed| Scenario::random(seed).with_hands());
    play(KEPT_HANDS_CAPMC, |seed| by_capmc(seed).with_hands());
    play(KEPT_HANDS_CROWDED, |seed| Scenario::crowded(seed).with_hands());
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

/// Rule 1: the same inputs lead to the same decisions, in the same order.
#[test]
fn a_seed_replays_exactly() {
    for seed in 0..100 {
        let (once, again) = (run(Scenario::crowded(seed)), run(Scenario::crowded(seed)));
        assert_eq!(
            (once.now, once.site.transitions.len(), result(&once)),
            (again.now, again.site.transitions.len(), result(&again)),
            "seed {seed}"
        );
        assert_eq!(once.written, again.written, "seed {seed}: the journals differ");
    }
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
