//! What an agent needs is away, or somebody takes it away.

use std::collections::BTreeMap;
use std::ops::Range;
use std::slice::from_ref;
use std::time::Duration;

use anyhow::Context as _;
use bos_crds::{BootComponent, NodeStatus, reasons};
use bos_e2e::proxy::Rule;
use bos_e2e::rig::NAMESPACE;
use bos_e2e::site::{OutageKind, OutageSpec, Service};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::{Api, ResourceExt as _};

use crate::agents::{exit_code, failures, said, session};
use crate::bench::{Bench, Commands, LIMIT, Result, condition, outcome};
use crate::life::{hold_boots, let_boot, under_way};

/// A Secret of its pod is missing: an Event says so once that has lasted, another when it is over, and the Session is not stalled for it.
pub async fn pod_cannot_start(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let secrets: Api<Secret> = Api::namespaced(bench.rig.client(), NAMESPACE);
    let keys = secrets.get("bos-s3-credentials").await?;
    secrets.delete(&keys.name_any(), &DeleteParams::default()).await?;
    let (mark, held) = (bench.mark(), hold_boots(bench, &nodes));
    bench.template("no-start", &nodes, |_| {}).await?;
    bench.rig.apply(&session("no-start", "no-start", "Boot")).await?;
    let told = bench.told("no-start", reasons::AGENT_STARTING, "CreateContainerConfigError").await;
    let metadata = ObjectMeta { name: Some(keys.name_any()), ..ObjectMeta::default() };
    let seen = bench.rig.session("no-start").await?.context("the Session is there")?;
    secrets.create(&PostParams::default(), &Secret { metadata, ..keys }).await?;
    assert!(told?.contains("bos-s3-credentials"));
    assert_eq!(condition(&seen, "Agent"), ("False".to_owned(), reasons::AGENT_STARTING.to_owned()), "{}", said(&seen));
    assert_eq!(condition(&seen, "Reconciling"), ("True".to_owned(), reasons::AGENT_STARTING.to_owned()));
    assert_eq!(condition(&seen, "Stalled"), ("False".to_owned(), reasons::AGENT_STARTING.to_owned()));
    bench.told("no-start", reasons::AGENT_RUNNING, "Its agent is at work").await?;
    let_boot(bench, &held);
    let ended = bench.ended_v1("no-start").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// The agent does not reach PCS: Events on its Session say so, as in mode v2.
pub async fn power_service_away(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("v1-no-pcs", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let outage = bench.site.add_outage(OutageSpec::new(Service::Pcs, OutageKind::Unavailable));
    bench.rig.apply(&session("v1-no-pcs", "v1-no-pcs", "Boot")).await?;
    let told = bench.told("v1-no-pcs", reasons::PCS_UNAVAILABLE, "PCS is not available since").await;
    bench.site.clear_outage(outage);
    told?;
    bench.told("v1-no-pcs", reasons::SERVICE_BACK, "PCS is available again").await?;
    let ended = bench.ended_v1("v1-no-pcs").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// Somebody deletes the journal of an agent: it sends nothing more, makes none, and ends for good. Its nodes are left as they are.
pub async fn journal_deleted(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let mark = bench.mark();
    let held = under_way(bench, "v1-no-journal", &nodes).await?;
    let uid = bench.rig.session("v1-no-journal").await?.and_then(|found| found.uid()).unwrap_or_default();
    bench.rig.kubectl(&["-n", NAMESPACE, "delete", "configmap", &format!("bos-journal-{uid}")]).await?;
    let ended = bench.ended_v1("v1-no-journal").await?;
    assert_eq!(outcome(&ended), "Failed/NodesFailed", "{}", said(&ended));
    assert_eq!(failures(&ended), [format!("{} RecordsLost", nodes.len())], "{}", said(&ended));
    let logs = bench.logs("v1-no-journal").await?;
    assert!(logs.contains("is gone: somebody deleted it") && !logs.contains("forbidden"), "{logs}");
    assert_eq!(bench.pods_of("v1-no-journal").await?.iter().map(exit_code).collect::<Vec<_>>(), [Some(11)], "{logs}");
    let_boot(bench, &held);
    // Others have the nodes: they are up, and stay so.
    let ended = bench.run_v1("v1-after-it", "v1-no-journal", "Boot").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// Somebody deletes the BootComponent of a node that an agent drives: it comes back with what is known, and the node is driven on. The
/// agent asks whose the node is at the worst moment, when the object is there again and does not say so yet.
pub async fn component_deleted(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let mark = bench.mark();
    let held = under_way(bench, "v1-no-object", &nodes).await?;
    let node = &nodes[0];
    let driven = |all: &BTreeMap<String, BootComponent>| {
        let status = all.get(node).and_then(|found| found.status.as_ref());
        status.is_some_and(|status| status.status == Some(NodeStatus::PowerOnCalled) && status.attempts.power_on == 1)
    };
    bench.rig.wait_components(driven, LIMIT).await?;
    let proxy = bench.rig.proxy().context("there is a proxy")?;
    let mut asked = proxy.on(Rule::before().kind("get", "bootcomponents").path_contains(node));
    let mut named = proxy.on(Rule::before().kind("patch", "bootcomponents").path_contains(node));
    bench.rig.kubectl(&["delete", "bootcomponent", node]).await?;
    tokio::time::timeout(LIMIT, named.reached()).await.context("its spec was not written")??;
    tokio::time::timeout(LIMIT, asked.reached()).await.context("the agent did not ask")??;
    asked.let_go();
    let answered = async {
        // A log brings no events.
        loop {
            let logs = bench.logs("v1-no-object").await?;
            if ["its BootComponent was deleted", "node taken over; let go"].iter().any(|text| logs.contains(text)) {
                return Result::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(LIMIT, answered).await.context("the agent heard nothing")??;
    named.let_go();
    let shown = bench.rig.wait_components(driven, LIMIT).await?;
    let session = shown[node].spec.session.clone().context("its spec names no Session")?;
    assert_eq!(session.name, "v1-no-object");
    let_boot(bench, &held);
    let ended = bench.ended_v1("v1-no-object").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    assert_eq!(ended.status.as_ref().map(|status| status.counts.succeeded), Some(i32::try_from(nodes.len())?));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    for component in bench.components(from_ref(node)).await? {
        let status = component.status.unwrap();
        assert_eq!((status.status, status.attempts.power_on), (Some(NodeStatus::Stable), 1), "{:?}", status.message);
        assert_eq!(status.last_session.map(|last| last.outcome), Some("Succeeded".into()));
    }
    Ok(())
}
