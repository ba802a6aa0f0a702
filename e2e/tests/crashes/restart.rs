//! Starting again when there is nothing to do does nothing, and a Session that was deleted meanwhile is let go.

use std::collections::BTreeMap;

use bos_crds::{BootComponent, Session};
use bos_e2e::rig::NAMESPACE;
use bos_e2e::site::{CallRecord, Match, Service, When};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::bench::{Bench, Problems, Run, Verdicts, within};
use crate::{check, turn};

const NODES: usize = 6;

/// What changes something at a service.
fn is_effect(call: &CallRecord) -> bool {
    let power = call.service == Service::Pcs && call.path.ends_with("/transitions");
    matches!(call.service, Service::Bss | Service::Cfs | Service::Ims) && call.method != "GET" || power && call.method == "POST"
}

fn versions(components: &[BootComponent], except: &str) -> BTreeMap<String, String> {
    let others = components.iter().filter(|component| component.name_any() != except);
    others.map(|component| (component.name_any(), component.resource_version().unwrap_or_default())).collect()
}

/// What was changed at a service for nodes other than this one since the run began.
fn strays(bench: &Bench, run: &Run, but: &str) -> Vec<CallRecord> {
    let for_others = |call: &CallRecord| is_effect(call) && call.nodes.iter().any(|node| node != but);
    bench.calls(run).into_iter().filter(for_others).collect()
}

/// A Session on one node that is off. When it has ended, the operator has long had time for all it would do to others.
async fn fence(bench: &Bench, name: &str, template: &str, node: &str) -> anyhow::Result<()> {
    let run = bench.apply(name, json!({"limit": node, "templateName": template})).await?;
    bench.ended(&run).await.map(drop)
}

/// The notes of the Events on a Session that give this reason.
async fn events(bench: &Bench, session: &str, reason: &str) -> anyhow::Result<Vec<String>> {
    let api: Api<Event> = Api::namespaced(bench.rig.client(), NAMESPACE);
    let about = |event: &Event| event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(session);
    let all = api.list(&ListParams::default()).await?.items;
    let said = all.into_iter().filter(|event| about(event) && event.reason.as_deref() == Some(reason));
    Ok(said.map(|event| event.note.unwrap_or_default()).collect())
}

async fn nothing_to_do(bench: &Bench) -> anyhow::Result<Problems> {
    bench.begin("whole").await?;
    let whole = bench.apply("whole", json!({})).await?;
    let session = bench.ended(&whole).await?;
    let mut problems = check::booted(bench, &whole, &session).await?;
    let one = bench.site.xnames().pop().unwrap_or_default();
    let before = versions(&bench.rig.components().await?, &one);
    let session = bench.rig.session("whole").await?.and_then(|session| session.resource_version());
    bench.kill();
    bench.site.set_state(&[&one], &bos_e2e::site::InitialState::Off);
    bench.site.clear_calls();
    bench.rig.start_operator().await?;
    fence(bench, "fence-whole", "whole", &one).await?;
    let strays = strays(bench, &whole, &one);
    if !strays.is_empty() {
        problems.push(format!("the restart led to {strays:?}"));
    }
    // What ended before the restart is not touched by a look at all Sessions, and not said to end again.
    for set in [true, false] {
        bench.rig.emergency_stop(set).await?;
    }
    fence(bench, "fence-again", "whole", &one).await?;
    let ended = events(bench, "whole", "Complete").await?;
    if ended.len() != 1 {
        problems.push(format!("Events that say that it ended: {ended:?}"));
    }
    let after = versions(&bench.rig.components().await?, &one);
    if before != after {
        problems.push(format!("BootComponents were written: {before:?} {after:?}"));
    }
    if session != bench.rig.session("whole").await?.and_then(|session| session.resource_version()) {
        problems.push("the Session was written".to_owned());
    }
    bench.clear(&whole).await?;
    Ok(problems)
}

async fn deleted_meanwhile(bench: &Bench) -> anyhow::Result<Problems> {
    bench.begin("deleted").await?;
    let mut hook = bench.site.on(Match::new(Service::Pcs, "POST").path("/transitions"), When::Before);
    let run = bench.apply("deleted", json!({})).await?;
    let held = within("the power-on comes", hook.reached()).await?;
    bench.kill();
    drop(held);
    let sessions: Api<Session> = Api::namespaced(bench.rig.client(), NAMESPACE);
    sessions.delete("deleted", &DeleteParams::default()).await?;
    bench.site.clear_calls();
    bench.rig.start_operator().await?;
    bench.settled(&run).await?;
    let one = bench.site.xnames().pop().unwrap_or_default();
    fence(bench, "fence-deleted", "deleted", &one).await?;
    let mut problems = Problems::new();
    let strays = strays(bench, &run, &one);
    if !strays.is_empty() {
        problems.push(format!("after the Session was deleted there came {strays:?}"));
    }
    for node in bench.site.nodes() {
        if node.up != (node.xname == one) {
            problems.push(format!("{}: up {}", node.xname, node.up));
        }
    }
    for component in bench.rig.components().await? {
        if component.status.as_ref().is_none_or(|status| status.enabled) {
            problems.push(format!("{} is not released: {:?}", component.name_any(), component.status));
        }
    }
    Ok(problems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_starts_nothing() {
    let _turn = turn().await;
    let bench = Bench::start(Bench::config(NODES)).await;
    let mut verdicts = Verdicts::default();
    let result = nothing_to_do(&bench).await;
    verdicts.add(&bench, "nothing to do", result);
    let result = deleted_meanwhile(&bench).await;
    verdicts.add(&bench, "deleted meanwhile", result);
    bench.rig.stop().await;
    verdicts.judge();
}
