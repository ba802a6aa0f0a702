//! Agents come and go: people, machines and other Sessions interfere.

use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use bos_crds::{BootComponent, Session, reasons};
use bos_e2e::proxy::{Outage, Rule, When};
use bos_e2e::rig::{NAMESPACE, template};
use bos_e2e::site::{Faults, OutageKind, OutageSpec, Service};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::ResourceExt as _;
use kube::api::DeleteParams;
use serde_json::json;

use crate::agents::{exit_code, failures, runs, said, session, session_with};
use crate::bench::{Bench, Commands, LIMIT, Result, condition, outcome};

type MakeRule = fn(When) -> Rule;

/// The operator is killed between any two steps of a launch: there is one Job, one pod, and each node is powered on once.
pub async fn killed_at_launch(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let steps: [(&str, MakeRule); 4] = [
        ("job", |when| Rule::new(when).kind("create", "jobs")),
        ("record", |when| Rule::new(when).kind("create", "configmaps").body_contains("bos-agent-")),
        ("begin", |when| Rule::new(when).kind("patch", "jobs")),
        ("back", |when| Rule::new(when).kind("update", "configmaps").path_contains("bos-agent-")),
    ];
    let mut at = 0;
    for (step, rule) in steps {
        for (point, when) in [("before", When::Before), ("withheld", When::AnswerWithheld)] {
            let name = format!("at-{step}-{point}");
            let node = &nodes[at..=at];
            at += 1;
            bench.template(&name, node, |_| {}).await?;
            let mark = bench.mark();
            let hit = bench.rig.proxy().unwrap().on(rule(when));
            bench.rig.apply(&session(&name, &name, "Boot")).await?;
            let process = bench.rig.operator().process().unwrap();
            tokio::time::timeout(LIMIT, hit.kill(&process)).await.map_err(|_| anyhow::anyhow!("{name}: the write never came"))??;
            let ended = bench.ended_v1(&name).await.map_err(|error| error.context(name.clone()))?;
            assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{name}: {}", said(&ended));
            assert_eq!(bench.pods_of(&name).await?.iter().map(exit_code).collect::<Vec<_>>(), [Some(0)], "{name}");
            bench.assert_commands(&mark, node, Commands::ONE_ON);
        }
    }
    Ok(())
}

/// Nodes that do not come up before they may.
pub fn hold_boots(bench: &Bench, nodes: &[String]) -> Vec<u64> {
    let outage = |node: &String| OutageSpec::new(Service::Bss, OutageKind::Unavailable).on_path(format!("bootscript?name={node}"));
    nodes.iter().map(|node| bench.site.add_outage(outage(node))).collect()
}

pub fn let_boot(bench: &Bench, held: &[u64]) {
    for outage in held {
        bench.site.clear_outage(*outage);
    }
}

/// A Session of mode v1 whose nodes have power and do not come up yet.
pub async fn under_way(bench: &Bench, name: &str, nodes: &[String]) -> Result<Vec<u64>> {
    let held = hold_boots(bench, nodes);
    bench.template(name, nodes, |_| {}).await?;
    bench.rig.apply(&session(name, name, "Boot")).await?;
    bench.at_site("nodes have power", |site| nodes.iter().all(|node| site.node(node).is_some_and(|node| node.power))).await?;
    Ok(held)
}

/// The operator is killed while the agent works: the agent does not notice, and the next operator follows it.
pub async fn operator_killed(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let mark = bench.mark();
    let held = under_way(bench, "op-killed", &nodes).await?;
    bench.rig.kill_operator();
    let_boot(bench, &held);
    bench.rig.wait_ready(LIMIT).await?;
    let ended = bench.ended_v1("op-killed").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    assert_eq!(bench.pods_of("op-killed").await?.len(), 1);
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// Somebody deletes the Job: the Session ends, says so, and no other Job is made.
pub async fn job_deleted(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let mark = bench.mark();
    let held = under_way(bench, "job-gone", &nodes).await?;
    let job = bench.job("job-gone", |_| true).await?;
    let jobs: Api<Job> = Api::namespaced(bench.rig.client(), NAMESPACE);
    jobs.delete(&job.name_any(), &DeleteParams::background()).await?;
    let ended = bench.ended_v1("job-gone").await?;
    assert_eq!(outcome(&ended), "Failed/NodesFailed", "{}", said(&ended));
    assert_eq!(failures(&ended), [format!("{} AgentLost", nodes.len())]);
    bench.no_job("job-gone").await?;
    bench.rig.restart_operator().await?;
    bench.no_job("job-gone").await?;
    let_boot(bench, &held);
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// The machine of the pod does not answer any more, so that Kubernetes ends the pod and never learns that it has ended; it runs on. The
/// Session is taken back, and what the pod still does is refused.
pub async fn machine_lost(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let mark = bench.mark();
    let held = under_way(bench, "lost", &nodes).await?;
    let pod = bench.pod("lost", runs).await?;
    bench.rig.node_agent().unwrap().lose(&pod)?;
    // As the control plane does it some minutes after the machine has gone silent.
    let pods: Api<Pod> = Api::namespaced(bench.rig.client(), NAMESPACE);
    pods.delete(&pod.name_any(), &DeleteParams::default().grace_period(1)).await?;
    let ended = bench.ended_v1("lost").await?;
    assert_eq!(outcome(&ended), "Failed/NodesFailed", "{}", said(&ended));
    assert_eq!(failures(&ended), [format!("{} AgentLost", nodes.len())]);
    let shown = bench.components(&nodes).await?;
    let told = |component: &BootComponent| json!(component.status)["message"].as_str().unwrap_or_default().contains("does not answer");
    assert!(shown.iter().all(told), "{shown:?}");
    // A newer Session has the nodes, though the pod still runs.
    let_boot(bench, &held);
    bench.rig.apply(&template::session("after-lost", "lost", "Boot")).await?;
    bench.ended("after-lost").await?;
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    // The agent has found out meanwhile that its Session is not its own any more, or does so now.
    let ends = async {
        while bench.rig.node_agent().unwrap().pid(&pod).is_some() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(LIMIT, ends).await.context("the agent on the lost machine runs on")
}

/// A quota refuses the Job: the Session says so, its nodes are free for others, and it goes on when the quota is gone.
pub async fn job_refused(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("refused", &nodes, |_| {}).await?;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "no-jobs", "namespace": NAMESPACE},
        "spec": {"hard": {"count/jobs.batch": "0"}}});
    bench.rig.apply(&quota.to_string()).await?;
    bench.rig.wait_quota("no-jobs").await?;
    let mark = bench.mark();
    bench.rig.apply(&session("refused", "refused", "Boot")).await?;
    let says = |session: &Session| {
        let conditions = session.status.as_ref().map(|status| json!(status.conditions)).unwrap_or_default();
        conditions.to_string().contains("exceeded quota")
    };
    bench.rig.wait_session("refused", says, LIMIT).await?;
    let note = bench.told("refused", reasons::AGENT_WAITING, "exceeded quota").await?;
    assert!(note.contains("its nodes are not touched"), "{note}");
    let seen = bench.rig.session("refused").await?.context("the Session is there")?;
    assert_eq!(condition(&seen, "Reconciling"), ("True".to_owned(), reasons::AGENT_WAITING.to_owned()));
    assert_eq!(condition(&seen, "Stalled"), ("False".to_owned(), reasons::AGENT_WAITING.to_owned()));
    bench.rig.apply(&session("refused-too", "refused", "Boot")).await?;
    bench.rig.wait_session("refused-too", says, LIMIT).await?;
    bench.rig.cancel("refused-too").await?;
    bench.ended("refused-too").await?;
    assert!(bench.changing_calls_to(&mark, &nodes).is_empty());
    bench.rig.kubectl(&["delete", "resourcequota", "no-jobs"]).await?;
    let ended = bench.run_v1("allowed", "refused", "Boot").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// Cancelled: nothing new is sent, nothing is undone, and the Job ends.
pub async fn cancelled(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let mark = bench.mark();
    let held = under_way(bench, "v1-cancel", &nodes).await?;
    bench.rig.cancel("v1-cancel").await?;
    let ended = bench.ended_v1("v1-cancel").await?;
    assert_eq!(outcome(&ended), "Cancelled/Cancelled", "{}", said(&ended));
    bench.no_job("v1-cancel").await?;
    let_boot(bench, &held);
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    assert!(nodes.iter().all(|node| bench.site.node(node).unwrap().power));
    Ok(())
}

/// Suspended before anything was sent: no Job is made until it goes on.
pub async fn suspended(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("v1-suspend", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&session_with("v1-suspend", "v1-suspend", "Boot", &json!({"suspend": true}))).await?;
    let suspended = |seen: &Session| seen.status.as_ref().is_some_and(|status| status.phase == Some(bos_crds::SessionPhase::Suspended));
    bench.rig.wait_session("v1-suspend", suspended, LIMIT).await?;
    assert!(bench.pods_of("v1-suspend").await?.is_empty());
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    bench.rig.suspend("v1-suspend", false).await?;
    assert_eq!(outcome(&bench.ended_v1("v1-suspend").await?), "Succeeded/Succeeded");
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// A newer Session of mode v2 takes nodes from an agent, which lets go of them and says so.
pub async fn taken_by_v2(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let (taken, kept) = nodes.split_at(nodes.len() / 2);
    let mark = bench.mark();
    let held = under_way(bench, "v1-older", &nodes).await?;
    bench.template("v2-newer", taken, |_| {}).await?;
    bench.rig.apply(&template::session("v2-newer", "v2-newer", "Shutdown")).await?;
    let newer = bench.ended("v2-newer").await?;
    assert_eq!(outcome(&newer), "Succeeded/Succeeded", "{}", said(&newer));
    let_boot(bench, &held);
    let older = bench.ended_v1("v1-older").await?;
    assert_eq!(outcome(&older), "Succeeded/Succeeded", "{}", said(&older));
    let counts = older.status.unwrap().counts;
    assert_eq!((counts.succeeded, counts.superseded), (i32::try_from(kept.len())?, i32::try_from(taken.len())?));
    assert!(bench.logs("v1-older").await?.contains("node taken over; let go"));
    bench.assert_commands(&mark, kept, Commands::ONE_ON);
    for node in taken {
        assert!(!bench.site.node(node).unwrap().power, "{node} is on");
        assert_eq!(bench.commands(&mark, node).on, 1);
    }
    for component in bench.components(taken).await? {
        assert_eq!(component.status.unwrap().last_session.unwrap().name, "v2-newer");
    }
    Ok(())
}

/// A newer Session of mode v1 takes nodes that a Session of mode v2 is switching: its Job is made when that has ended.
pub async fn taken_by_v1(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.power(&nodes, true);
    bench.site.set_faults(&nodes, &Faults { ignores_soft_off: true, ..Faults::default() });
    bench.template("v2-older", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session("v2-older", "v2-older", "Shutdown")).await?;
    bench.at_site("nodes are asked to go off", |_| nodes.iter().all(|node| bench.commands(&mark, node).soft_off == 1)).await?;
    bench.rig.apply(&session("v1-newer", "v2-older", "Shutdown")).await?;
    let older = bench.ended("v2-older").await?;
    assert_eq!(outcome(&older), "Superseded/Superseded", "{}", said(&older));
    let newer = bench.ended_v1("v1-newer").await?;
    assert_eq!(outcome(&newer), "Succeeded/Succeeded", "{}", said(&newer));
    assert!(nodes.iter().all(|node| !bench.site.node(node).unwrap().power));
    assert_eq!(condition(&newer, "Agent").1, "AgentEnded");
    bench.site.set_faults(&nodes, &Faults::default());
    Ok(())
}

/// The API server is away for a minute while an agent works.
pub async fn api_server_away(bench: &Bench, range: Range<usize>) -> Result {
    const AWAY: Duration = Duration::from_secs(60);
    let nodes = bench.nodes(range);
    let mark = bench.mark();
    let held = under_way(bench, "v1-away", &nodes).await?;
    let proxy = bench.rig.proxy().unwrap();
    proxy.set_outage(Outage::Refuse).await;
    let_boot(bench, &held);
    // This is the outage itself.
    tokio::time::sleep(AWAY).await;
    proxy.set_outage(Outage::None).await;
    let ended = bench.ended_v1("v1-away").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// What `kubectl get pods` shows while an agent works is in the Session too.
pub async fn shown(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let held = under_way(bench, "v1-shown", &nodes).await?;
    let pod = bench.pod("v1-shown", runs).await?;
    let running = |seen: &Session| condition(seen, "Agent") == ("True".to_owned(), "AgentRunning".to_owned());
    let seen = bench.rig.wait_session("v1-shown", running, LIMIT).await?;
    let status = json!(seen.status);
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let agent = conditions.iter().find(|condition| condition["type"] == "Agent").cloned().unwrap_or_default();
    assert!(agent["message"].as_str().is_some_and(|text| text.contains(&pod.name_any())), "{agent}");
    let_boot(bench, &held);
    assert_eq!(outcome(&bench.ended_v1("v1-shown").await?), "Succeeded/Succeeded");
    Ok(())
}
