//! Nodes that spoil a list for CAPMC, and must not spoil it for the others.

use std::ops::Range;

use bos_crds::{BootComponent, Session};
use bos_e2e::rig::template;
use bos_e2e::site::{Faults, Held, Match, Service, When};

use crate::bench::{Bench, Commands, LIMIT, Mark, Result, outcome};

/// Holds the first call of this path that names this node.
async fn held(bench: &Bench, path: &str, node: &str, begin: impl Future<Output = Result>) -> Result<Held> {
    let mut hook = bench.site.on(Match::new(Service::Capmc, "POST").path(path).body(node), When::Before);
    begin.await?;
    let held = tokio::time::timeout(LIMIT, hook.reached()).await?;
    Ok(held.expect("the site runs"))
}

async fn apply(bench: &Bench, name: &str, template: &str, operation: &str) -> Result {
    bench.rig.apply(&template::session(name, template, operation)).await.map(drop)
}

/// Why nodes failed: reason, the nodes and the message.
fn failures(session: &Session) -> Vec<(String, String, String)> {
    let groups = session.status.clone().unwrap().failures;
    groups.into_iter().map(|group| (group.reason, group.sample, group.message)).collect()
}

fn waits_with(component: Option<&BootComponent>, reason: &str, words: &str) -> bool {
    let status = component.and_then(|component| component.status.clone()).unwrap_or_default();
    status.reason == reason && status.message.contains(words)
}

/// One node has a dead controller, one is disabled in HSM and one locked while the call is on its way. The first two fail, each
/// with its reason; the lock is waited out; nobody else notices.
pub async fn operation(bench: &Bench, operation: &str, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let [dead, disabled, locked, good @ ..] = nodes.as_slice() else { panic!("{nodes:?}") };
    let name = operation.to_lowercase();
    bench.template(&name, &nodes, |_| {}).await?;
    let (path, expected) = match operation {
        "Boot" => ("/xname_on", Commands::ONE_ON),
        "Reboot" => ("/xname_off", Commands::ONE_CYCLE),
        _ => ("/xname_off", Commands { soft_off: 1, ..Commands::NONE }),
    };
    if operation != "Boot" {
        let booted = bench.boot(&format!("{name}-first"), &name).await?;
        assert_eq!(outcome(&booted), "Succeeded/Succeeded", "{:?}", booted.status);
    }
    bench.site.set_faults(std::slice::from_ref(dead), &Faults { bmc_undefined: true, ..Faults::default() });
    let mark = bench.mark();
    let call = held(bench, path, &good[0], apply(bench, &name, &name, operation)).await?;
    bench.site.set_enabled(std::slice::from_ref(disabled), false);
    bench.site.set_locked(std::slice::from_ref(locked), true);
    call.release();
    let reserve = |all: &std::collections::BTreeMap<String, BootComponent>| {
        let component = all.get(locked);
        waits_with(component, "PreviousOperation", "Failed to reserve") || waits_with(component, "AwaitingPower", "Failed to reserve")
    };
    bench.rig.wait_components(reserve, LIMIT).await?;
    let others_are_done = |session: &Session| session.status.as_ref().is_some_and(|status| status.counts.done == 7);
    bench.rig.wait_session(&name, others_are_done, LIMIT).await?;
    bench.assert_commands(&mark, std::slice::from_ref(locked), Commands::NONE);
    bench.site.set_locked(std::slice::from_ref(locked), false);
    let ended = bench.ended(&name).await?;
    assert_eq!(outcome(&ended), "PartiallyFailed/NodesFailed", "{:?}", ended.status);
    let failures = failures(&ended);
    let [(refused, who, why), (unknown, whose, what)] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!((refused.as_str(), who), ("PowerRefused", disabled), "{failures:?}");
    assert!(why.starts_with("CAPMC: ") && why.contains("disabled") && why.contains("Not touched"), "{why}");
    assert_eq!((unknown.as_str(), whose), ("PowerUnknown", dead), "{failures:?}");
    assert!(what.starts_with("CAPMC for 3 s: power state undefined; not touched"), "{what}");
    bench.assert_commands(&mark, &[dead.clone(), disabled.clone()], Commands::NONE);
    bench.assert_commands(&mark, good, expected);
    bench.assert_commands(&mark, std::slice::from_ref(locked), expected);
    let power = operation != "Shutdown";
    assert!(good.iter().chain([locked]).all(|node| bench.site.node(node).unwrap().power == power));
    bench.site.set_enabled(std::slice::from_ref(disabled), true);
    Ok(())
}

/// The power-on of the first of these nodes fails; the others come up. What is said of that one begins with `words`.
async fn first_fails(bench: &Bench, nodes: &[String], name: &str, words: &str) -> Result<Mark> {
    bench.site.set_faults(&nodes[..1], &Faults { power_on_error: Some("BMC says no".into()), ..Faults::default() });
    bench.template(name, nodes, |_| {}).await?;
    let mark = bench.mark();
    let ended = bench.boot(name, name).await?;
    let failures = failures(&ended);
    let [(reason, who, message)] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!((reason.as_str(), who), ("PowerOnTimeout", &nodes[0]), "{failures:?}");
    assert!(message.starts_with(words), "{message}");
    bench.assert_commands(&mark, &nodes[1..], Commands::ONE_ON);
    Ok(mark)
}

/// CAPMC 3 says that one of four failed, and not which. The others come up; that one is found by looking.
pub async fn not_named(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let mark = first_fails(bench, &nodes, "not-named", "2 power-ons without effect: Errors encountered with 1/").await?;
    bench.assert_commands(&mark, &nodes[..1], Commands::NONE);
    Ok(())
}

/// An older CAPMC says which.
pub async fn named(bench: &Bench, range: Range<usize>) -> Result {
    first_fails(bench, &bench.nodes(range), "named", "2 power-ons without effect: BMC says no.").await.map(drop)
}

/// A node that CAPMC refuses to speak of is unknown, and the others are looked at all the same.
pub async fn disabled_at_first(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("disabled", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let call = held(bench, "/get_xname_status", &nodes[1], apply(bench, "disabled", "disabled", "Boot")).await?;
    bench.site.set_enabled(&nodes[..1], false);
    call.release();
    let ended = bench.ended("disabled").await?;
    let failures = failures(&ended);
    let [(reason, who, message)] = failures.as_slice() else { panic!("{failures:?}") };
    assert_eq!((reason.as_str(), who), ("PowerUnknown", &nodes[0]), "{failures:?}");
    assert!(message.starts_with("CAPMC for 3 s: disabled or not found; not touched"), "{message}");
    bench.assert_commands(&mark, &nodes[..1], Commands::NONE);
    bench.assert_commands(&mark, &nodes[1..], Commands::ONE_ON);
    bench.site.set_enabled(&nodes[..1], true);
    Ok(())
}
