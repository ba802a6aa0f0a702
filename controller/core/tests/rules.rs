//! The rules of docs/ARCHITECTURE.md, one small scenario each, as far as they are kept in the core.
#![allow(clippy::unwrap_used, reason = "a test may fail")]

#[path = "rules/agents.rs"]
mod agents;
#[path = "rules/between_journals.rs"]
mod between_journals;
#[path = "rules/by_hand.rs"]
mod by_hand;
#[path = "rules/by_hand_again.rs"]
mod by_hand_again;
#[path = "rules/capmc.rs"]
mod capmc;
#[path = "rules/configure.rs"]
mod configure;
#[path = "sim/desk.rs"]
mod desk;
#[path = "sim/fixture.rs"]
mod fixture;
#[path = "rules/for_tools.rs"]
mod for_tools;
#[path = "rules/last_action.rs"]
mod last_action;
#[path = "rules/order.rs"]
mod order;
#[path = "rules/pure.rs"]
mod pure;
#[path = "rules/races.rs"]
mod races;
#[path = "rules/records.rs"]
mod records;
#[path = "rules/safety.rs"]
mod safety;
#[path = "rules/staging.rs"]
mod staging;
#[path = "rules/take_over.rs"]
mod take_over;
#[path = "rules/tenants.rs"]
mod tenants;
#[path = "rules/truth.rs"]
mod truth;
#[path = "rules/words.rs"]
mod words;

use std::time::Duration;

use bos_core::model::Power;
use bos_core::plan::{Plan, PlannedOperation};
use desk::Desk;
use fixture::plan;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// A Boot without configuration over the first `count` nodes.
fn boot(count: usize) -> Desk {
    boot_with(count, |_| ())
}

fn boot_with(count: usize, change: impl FnOnce(&mut Plan)) -> Desk {
    let mut plan = plan(PlannedOperation::Boot, count, "new", "");
    change(&mut plan);
    Desk::new(count, plan)
}

/// One node, powered on a minute ago.
fn booting() -> Desk {
    let mut desk = boot(1);
    desk.powered_on();
    desk.wait(MINUTE);
    desk
}

/// Powered on long enough ago, and seen on just now.
fn silent(count: usize) -> Desk {
    let mut desk = boot(count);
    desk.powered_on();
    desk.wait(desk.world.options.max_boot_wait);
    desk.power_of_all(Power::On);
    desk
}

/// Nodes that have been powered on are seen on at the deadline of their boot, and once more when that has been taken in.
fn seen_on_at_the_deadline(desk: &mut Desk) {
    desk.wait(desk.world.options.max_boot_wait);
    desk.power_of_all(Power::On);
    let _ = desk.pass();
    desk.wait(SECOND);
    desk.power_of_all(Power::On);
}
