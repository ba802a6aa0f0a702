//! What people switch while a Session runs, newer Sessions, and an inventory that cannot be believed.

use std::ops::Range;

use bos_crds::{BootComponent, Session, SessionPhase};
use bos_e2e::rig::template;
use bos_e2e::site::{CallFilter, Faults, Inventory, PowerEvent, Service};
use serde_json::json;

use crate::bench::{Bench, Commands, LIMIT, Result, condition, message, outcome};

/// Whether a node shows this reason.
fn has_reason(component: Option<&BootComponent>, reason: &str) -> bool {
    component.and_then(|component| component.status.as_ref()).is_some_and(|status| status.reason == reason)
}

fn phase(session: &Session) -> Option<SessionPhase> {
    session.status.as_ref().and_then(|status| status.phase)
}

pub async fn newer_session(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes, &Faults { cfs_pending: true, ..Faults::default() });
    bench.template("taken-over", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session("older", "taken-over", "Boot")).await?;
    let configuring = |session: &Session| session.status.as_ref().is_some_and(|status| status.counts.configuring == 4);
    bench.rig.wait_session("older", configuring, LIMIT).await?;
    bench.rig.apply(&template::session("newer", "taken-over", "Boot")).await?;
    let older = bench.ended("older").await?;
    assert_eq!(outcome(&older), "Superseded/Superseded");
    assert_eq!(older.status.unwrap().counts.superseded, 4);
    bench.site.set_faults(&nodes, &Faults::default());
    assert_eq!(outcome(&bench.ended("newer").await?), "Succeeded/Succeeded");
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

pub async fn suspended(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes[..1], &Faults { bmc_undefined: true, ..Faults::default() });
    bench.template("suspended", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let spec = json!({"operation": "Boot", "templateName": "suspended", "suspend": true});
    bench.rig.apply(&template::session_with("suspended", &spec)).await?;
    let waits = |session: &Session| phase(session) == Some(SessionPhase::Suspended) && message(session).contains("spec.suspend");
    bench.rig.wait_session("suspended", waits, LIMIT).await?;
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    // It begins; one node is held for its dead controller, and is not powered on when that recovers during the next suspension.
    bench.rig.suspend("suspended", false).await?;
    bench.rig.wait_components(|all| has_reason(all.get(&nodes[0]), "PowerUnknown"), LIMIT).await?;
    bench.rig.suspend("suspended", true).await?;
    bench.rig.wait_session("suspended", |session| phase(session) == Some(SessionPhase::Suspended), LIMIT).await?;
    bench.site.set_faults(&nodes[..1], &Faults::default());
    bench.rig.wait_components(|all| has_reason(all.get(&nodes[0]), "Suspended"), LIMIT).await?;
    bench.assert_commands(&mark, &nodes[..1], Commands::NONE);
    bench.rig.suspend("suspended", false).await?;
    assert_eq!(outcome(&bench.ended("suspended").await?), "Succeeded/Succeeded");
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

pub async fn cancelled(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes, &Faults { cfs_pending: true, ..Faults::default() });
    bench.template("cancelled", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session("cancelled", "cancelled", "Boot")).await?;
    let configuring = |session: &Session| session.status.as_ref().is_some_and(|status| status.counts.configuring == 4);
    bench.rig.wait_session("cancelled", configuring, LIMIT).await?;
    bench.rig.cancel("cancelled").await?;
    let ended = bench.ended("cancelled").await?;
    assert_eq!(outcome(&ended), "Cancelled/Cancelled");
    assert_eq!(ended.status.unwrap().counts.cancelled, 4);
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    assert!(nodes.iter().all(|node| bench.site.node(node).unwrap().power), "one was powered off");
    Ok(())
}

/// When a node was last told to power on, in the site's seconds.
fn last_power_on(bench: &Bench, nodes: &[String]) -> f64 {
    let histories = nodes.iter().flat_map(|node| bench.site.history(node));
    histories.filter(|record| matches!(record.event, PowerEvent::OnRequested { .. })).map(|record| record.at).fold(0.0, f64::max)
}

pub async fn stop_switch(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("stopped", &nodes, |_| {}).await?;
    bench.rig.set_options(&json!({"powerOnsPerSecond": 1})).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session("stopped", "stopped", "Boot")).await?;
    bench.at_site("a node was powered on", |_| last_power_on(bench, &nodes) > 0.0).await?;
    bench.rig.emergency_stop(true).await?;
    bench.rig.wait_components(|all| nodes.iter().any(|node| has_reason(all.get(node), "EmergencyStop")), LIMIT).await?;
    let shown = bench.site.elapsed();
    let said = |session: &Session| message(session).contains("stop switch");
    bench.rig.wait_session("stopped", said, LIMIT).await?;
    // Those that are on go on; the rate would have let the next one through several times by then.
    bench
        .at_site("those with power are up", |site| nodes.iter().filter_map(|node| site.node(node)).all(|node| node.up || !node.power))
        .await?;
    let lifted = bench.site.elapsed();
    assert!(nodes.iter().any(|node| bench.commands(&mark, node) == Commands::NONE), "all were powered on before the switch was set");
    assert!(last_power_on(bench, &nodes) <= shown, "powered on between {shown} and {lifted}");
    bench.rig.emergency_stop(false).await?;
    bench.rig.set_options(&json!({"powerOnsPerSecond": 0})).await?;
    assert_eq!(outcome(&bench.ended("stopped").await?), "Succeeded/Succeeded");
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    let of_it = ["get", "events", "--field-selector", "involvedObject.name=stopped", "-o", "jsonpath={.items[*].reason}"];
    let reasons = bench.rig.kubectl(&of_it).await?;
    for reason in ["EmergencyStop", "EmergencyStopLifted"] {
        assert_eq!(reasons.split(' ').filter(|said| *said == reason).count(), 1, "{reason}: {reasons}");
    }
    Ok(())
}

/// Somebody deletes what the operator has written about running Sessions: of one the journal, of one all of it, even that it ran.
pub async fn records_deleted(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let half = nodes.len() / 2;
    bench.site.set_faults(&nodes, &Faults { never_reports: true, ..Faults::default() });
    bench.rig.set_options(&json!({"maxBootWaitTimeSeconds": 600})).await?;
    for (name, part) in [("journal-deleted", &nodes[..half]), ("all-deleted", &nodes[half..])] {
        bench.template(name, part, |_| {}).await?;
        bench.rig.apply(&template::session(name, name, "Boot")).await?;
    }
    bench.rig.wait_components(|all| nodes.iter().all(|node| has_reason(all.get(node), "AwaitingReport")), LIMIT).await?;
    bench.rig.wait_session("all-deleted", |session| phase(session) == Some(SessionPhase::Running), LIMIT).await?;
    bench.rig.operator().stop().await;
    let uid = |session: Option<Session>| session.and_then(|session| session.metadata.uid).unwrap_or_default();
    let journal = format!("bos-journal-{}", uid(bench.rig.session("journal-deleted").await?));
    bench.rig.kubectl(&["-n", "bos", "delete", "configmap", &journal]).await?;
    let label = format!("bos.hpe.com/session-uid={}", uid(bench.rig.session("all-deleted").await?));
    let deleted = bench.rig.kubectl(&["-n", "bos", "delete", "configmap", "-l", &label]).await?;
    assert_eq!(deleted.lines().count(), 2, "{deleted}");
    bench.rig.kubectl(&["-n", "bos", "delete", "configmap", "bos-session-names-0"]).await?;
    let mark = bench.mark();
    bench.rig.start_operator().await?;
    assert_eq!(outcome(&bench.ended("journal-deleted").await?), "Failed/NodesFailed");
    let ended = bench.ended("all-deleted").await?;
    assert_eq!(outcome(&ended), "Failed/RecordsLost", "{ended:?}");
    let lost = |component: &BootComponent| {
        let status = component.status.clone().unwrap_or_default();
        !status.enabled && status.reason == "RecordsLost" && status.message.contains("new Session")
    };
    bench.rig.wait_components(|all| nodes.iter().all(|node| all.get(node).is_some_and(lost)), LIMIT).await?;
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    // They are not lost for good.
    bench.site.set_faults(&nodes, &Faults::default());
    bench.rig.set_options(&json!({"maxBootWaitTimeSeconds": 5})).await?;
    bench.template("found", &nodes, |_| {}).await?;
    bench.rig.apply(&template::session("found", "found", "Reboot")).await?;
    assert_eq!(outcome(&bench.ended("found").await?), "Succeeded/Succeeded");
    Ok(())
}

pub async fn inventory(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let all = bench.site.xnames().len();
    bench.template("inventory", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.site.configure(|settings| settings.inventory = Inventory::Empty);
    bench.rig.apply(&template::session("inventory", "inventory", "Boot")).await?;
    let waits = |words: String| move |session: &Session| phase(session) == Some(SessionPhase::Pending) && message(session).contains(&words);
    let shown = bench.rig.wait_session("inventory", waits("empty inventory".to_owned()), LIMIT).await?;
    assert!(message(&shown).contains("HSM"), "{}", message(&shown));
    // Discovery must have seen it too, and deleted nothing.
    let fault = |session: &Session| condition(session, "ServicesAvailable") == ("False".to_owned(), "HSMFault".to_owned());
    bench.rig.wait_session("inventory", fault, LIMIT).await?;
    bench.site.configure(|settings| settings.inventory = Inventory::Half);
    bench.rig.wait_session("inventory", waits(format!("where {all} are known")), LIMIT).await?;
    assert_eq!(bench.rig.components().await?.len(), all);
    assert_eq!(bench.changing_calls(&mark).len(), 0, "{:?}", bench.changing_calls(&mark));
    bench.site.configure(|settings| settings.inventory = Inventory::Full);
    assert_eq!(outcome(&bench.ended("inventory").await?), "Succeeded/Succeeded");
    assert_eq!(bench.rig.components().await?.len(), all);
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    assert!(!bench.site.calls(&CallFilter::service(Service::Hsm)).is_empty());
    Ok(())
}
