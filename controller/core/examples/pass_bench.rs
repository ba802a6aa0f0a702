//! How long one pass of all operators takes over 10,000 driven nodes, in the states a Boot goes through.
//!
//! `cargo run --release -p bos-core --example pass_bench [nodes]`
#![allow(clippy::unwrap_used, reason = "a benchmark may stop")]

#[path = "../tests/sim/fixture.rs"]
mod fixture;

use std::time::{Duration, Instant};

use bos_core::batch::{BatchState, Outcome, Progress, Task};
use bos_core::journal;
use bos_core::model::{ConfigRecord, ConfigStatus, NodeId, Power, Reported, Token, World};
use bos_core::pass;
use bos_core::plan::PlannedOperation;
use bos_core::running::Order;
use bos_core::time::Timestamp;
use bos_core::want::Effect;
use fixture::{START, digest, plan, run_plan, world, xname};

/// Passes over a World in which nothing happens, per state.
const PASSES: usize = 200;

/// Runs by hand at most: one for each of so many nodes, and with more nodes as many runs of several.
const RUNS: usize = 10_000;

fn main() {
    let count = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(10_000);
    println!(
        "{count} nodes; milliseconds a pass: first (with all decisions), then shortest, p50, p99 and longest of {PASSES} in which nothing is new"
    );
    let mut bench = Bench { world: world(count, START), now: START, count };
    run_plan(&mut bench.world, "boot", plan(PlannedOperation::Boot, count, "new", "conf"), START);
    for (state, effects) in [("not observed", vec![]), ("off", bench.see(Power::Off))] {
        bench.measure(state, effects);
    }
    for state in ["boot parameters sent", "configuration sent", "power-on followed", "power-on confirmed"] {
        let effects = bench.serve();
        bench.measure(state, effects);
    }
    bench.report();
    bench.measure("reported", vec![]);
    bench.configure(&ConfigStatus::Pending);
    bench.measure("configuring", vec![]);
    bench.journal();
    bench.configure(&ConfigStatus::Configured);
    bench.measure("configured, ends", vec![]);
    bench.measure("all ended", vec![]);

    println!("one Session");
    cycle(count, |world| drop(run_plan(world, "cycle", plan(PlannedOperation::Boot, count, "new", "conf"), START)));
    let runs = count.min(RUNS);
    println!("{runs} runs by hand");
    cycle(count, |world| (0..runs).for_each(|run| run_by_hand(world, run, run * count / runs..(run + 1) * count / runs)));
}

/// Nodes that run another image than they are to.
fn cycle(count: usize, begin: impl FnOnce(&mut World)) {
    let mut bench = Bench { world: world(count, START), now: START, count };
    begin(&mut bench.world);
    bench.other_image();
    bench.measure("another image, not observed", vec![]);
    let effects = bench.see(Power::On);
    bench.measure("another image, to be cycled", effects);
    let effects = bench.serve();
    bench.measure("switched off, silent mass", effects);
    bench.now = bench.now + Duration::from_secs(3600);
    bench.measure("an hour later", vec![]);
}

fn run_by_hand(world: &mut World, run: usize, nodes: impl Iterator<Item = usize>) {
    let mut plan = plan(PlannedOperation::Boot, 0, "new", "conf");
    plan.boot_sets[0].nodes = nodes.map(xname).collect();
    let uid = run_plan(world, &format!("by-hand-{run}"), plan, START);
    world.sessions.get_mut(&uid).unwrap().by_hand = true;
}

struct Bench {
    world: World,
    now: Timestamp,
    count: usize,
}

impl Bench {
    fn measure(&mut self, state: &str, mut effects: Vec<Effect>) {
        let started = Instant::now();
        effects.extend(pass::run(&mut self.world, self.now));
        let first = started.elapsed();
        let mut spans: Vec<Duration> = (0..PASSES)
            .map(|_| {
                self.now = self.now + Duration::from_millis(1);
                let started = Instant::now();
                let _ = pass::run(&mut self.world, self.now);
                started.elapsed()
            })
            .collect();
        spans.sort();
        let ms = |span: Duration| span.as_secs_f64() * 1000.0;
        println!(
            "{state:<32} first {:7.2}  shortest {:6.2}  p50 {:6.2}  p99 {:6.2}  longest {:6.2}",
            ms(first),
            ms(spans[0]),
            ms(spans[PASSES / 2]),
            ms(spans[PASSES * 99 / 100]),
            ms(spans[PASSES - 1])
        );
    }

    fn nodes(&self) -> Vec<NodeId> {
        (0..self.count).map(|index| NodeId(u32::try_from(index).unwrap_or(u32::MAX))).collect()
    }

    fn see(&mut self, power: Power) -> Vec<Effect> {
        let _ = pass::run(&mut self.world, self.now);
        let nodes = self.nodes();
        let read = nodes.iter().map(|id| (*id, power, "".into())).collect();
        self.world.fold_power(&nodes, self.now, Ok(read), self.now);
        Vec::new()
    }

    /// Releases what is recorded, answers what was sent, and lets transitions end.
    fn serve(&mut self) -> Vec<Effect> {
        self.now = self.now + Duration::from_millis(10);
        for id in self.world.batches.keys().copied().collect::<Vec<_>>() {
            if let Some(dispatch) = self.world.release(id, self.now) {
                let nodes = dispatch.nodes.iter().map(|(node, _)| *node).collect();
                let outcome = match dispatch.order {
                    Order::BootParameters { .. } => Outcome::Stored { token: Token("token".into()) },
                    Order::Configuration { .. } => Outcome::Configured { changed: nodes },
                    Order::Power(_) => Outcome::Accepted { transition: "transition".into() },
                };
                self.world.fold_outcome(id, outcome, self.now);
            } else if let Some(BatchState::Following { .. }) = self.world.batches.get(&id).map(|batch| batch.state.clone()) {
                let tasks = self.world.batches[&id].nodes.iter().map(|member| (member.node, Task::Succeeded)).collect();
                let started = Instant::now();
                self.world.fold_progress(id, self.now, Progress::Tasks { done: true, tasks }, self.now);
                println!("    a transition of {} nodes folded in {:.2} ms", self.count.min(2800), started.elapsed().as_secs_f64() * 1000.0);
            }
        }
        Vec::new()
    }

    fn report(&mut self) {
        let started = Instant::now();
        for index in 0..self.count {
            self.now = self.now + Duration::from_millis(3);
            let _ = self.world.fold_report(xname(index).as_str(), &Token("token".into()), self.now);
        }
        println!("    {} reports folded in {:.2} ms", self.count, started.elapsed().as_secs_f64() * 1000.0);
    }

    fn configure(&mut self, status: &ConfigStatus) {
        let nodes = self.nodes();
        self.now = self.now + Duration::from_secs(20);
        let records = nodes.iter().map(|id| (*id, ConfigRecord { desired: "conf".into(), status: status.clone() })).collect();
        self.world.fold_config(&nodes, self.now, Ok(records), self.now);
    }

    fn other_image(&mut self) {
        for node in &mut self.world.nodes {
            let token = Token("old".into());
            node.reported = Some(Reported {
                token,
                artifacts: Some(digest("old")),
                since: START - Duration::from_secs(9),
                at: START - Duration::from_secs(9),
                expired: false,
            });
        }
    }

    fn journal(&self) {
        let Some(session) = self.world.sessions.values().next() else { return };
        let started = Instant::now();
        let bytes = journal::snapshot(&self.world, session, self.now).and_then(|journal| journal.encode().ok()).unwrap_or_default();
        println!("    the journal has {} bytes and took {:.2} ms", bytes.len(), started.elapsed().as_secs_f64() * 1000.0);
    }
}
