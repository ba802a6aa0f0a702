//! Nodes that a person drives through their BootComponents, and staged state that is applied: by a token, and by the call of a
//! workload manager.

use std::ops::Range;

use bos_crds::{BootComponent, NodeStatus, Session};
use bos_e2e::rig::template;
use bos_e2e::site::Faults;
use serde_json::{Value, json};

use crate::bench::{Bench, Commands, LIMIT, Result, message, outcome};

/// Changes the spec of a BootComponent as a person does.
async fn patch(bench: &Bench, node: &str, spec: &Value) -> Result {
    let patch = json!({ "spec": spec }).to_string();
    bench.rig.kubectl(&["patch", "bootcomponent", node, "--type=merge", "-p", &patch]).await.map(drop)
}

fn run_is_over(component: Option<&BootComponent>, run: &str) -> bool {
    let status = component.and_then(|component| component.status.as_ref());
    status.is_some_and(|status| status.run.as_deref() == Some(run) && !status.enabled)
}

async fn wait_run(bench: &Bench, node: &str, run: &str) -> Result<BootComponent> {
    let mut all = bench.rig.wait_components(|all| run_is_over(all.get(node), run), LIMIT).await?;
    Ok(all.remove(node).unwrap())
}

/// Waits until a node says something of this.
async fn wait_next(bench: &Bench, node: &str, words: &str) -> Result {
    let says = |component: &BootComponent| component.status.as_ref().is_some_and(|status| status.next.contains(words));
    bench.rig.wait_components(|all| all.get(node).is_some_and(says), LIMIT).await.map(drop)
}

/// A new `spec.run` drives a node to what its spec says; what cannot be done is said.
pub async fn driven_by_hand(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let node = &nodes[0];
    bench.template("by-hand", &nodes, |_| {}).await?;
    assert_eq!(outcome(&bench.boot("by-hand", "by-hand").await?), "Succeeded/Succeeded");
    let mark = bench.mark();
    // Its Session is over: nothing happens, and it says what to do.
    patch(bench, node, &json!({"run": "too-late"})).await?;
    wait_next(bench, node, "remove spec.session").await?;
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    let desired = serde_json::to_value(&bench.components(&nodes[..1]).await?[0].spec.desired_state)?;
    // Without a state to run it is switched off.
    patch(bench, node, &json!({"run": "off", "session": null, "desiredState": {"artifacts": null, "configuration": null}})).await?;
    let off = wait_run(bench, node, "off").await?.status.unwrap();
    assert_eq!((off.status, off.last_session, off.next.as_str()), (Some(NodeStatus::Stable), None, ""));
    bench.assert_commands(&mark, &nodes[..1], Commands { soft_off: 1, ..Commands::NONE });
    // With the state of before it is booted; nobody else is touched.
    patch(bench, node, &json!({"run": "on", "desiredState": desired})).await?;
    let asked = bench.components(&nodes[..1]).await?[0].metadata.generation.unwrap_or_default();
    let on = wait_run(bench, node, "on").await?;
    assert_eq!(on.status.unwrap().status, Some(NodeStatus::Stable));
    assert_eq!(on.metadata.generation, Some(asked), "the operator writes nothing into a spec that a person wrote");
    bench.assert_commands(&mark, &nodes[..1], Commands::ONE_CYCLE);
    bench.assert_commands(&mark, &nodes[1..], Commands::NONE);
    assert!(bench.site.node(node).unwrap().up);
    let unknown = json!({"run": "unknown", "desiredState": {"artifacts": "sha256:0123456789abcdef0123456789abcdef"}});
    patch(bench, node, &unknown).await?;
    wait_next(bench, node, "No artifact set").await?;
    let records = bench.rig.kubectl(&["-n", "bos", "get", "configmaps", "-o", "name"]).await?;
    assert!(!records.contains("hand-"), "{records}");
    restored_by_somebody(bench, node, &desired).await
}

/// A backup brings a BootComponent back, with a run that was asked for long ago, while the operator runs (rule 5).
async fn restored_by_somebody(bench: &Bench, node: &str, desired: &Value) -> Result {
    let mark = bench.mark();
    bench.rig.kubectl(&["delete", "bootcomponent", node]).await?;
    let mut off = desired.clone();
    off["artifacts"] = Value::Null;
    let spec = json!({"run": "of-long-ago", "desiredState": off});
    let object = json!({"apiVersion": bos_crds::API_VERSION, "kind": "BootComponent", "metadata": {"name": node}, "spec": spec});
    bench.rig.apply(&object.to_string()).await?;
    wait_next(bench, node, "asks for nothing").await?;
    bench.assert_commands(&mark, &[node.to_owned()], Commands::NONE);
    Ok(())
}

/// A node that failed is tried again in its Session, with fresh attempts.
pub async fn again_in_its_session(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes[..1], &Faults { never_powers_on: true, ..Faults::default() });
    bench.site.set_faults(&nodes[1..], &Faults { cfs_pending: true, ..Faults::default() });
    bench.template("again", &nodes, |_| {}).await?;
    bench.rig.apply(&template::session("again", "again", "Boot")).await?;
    let failed = |session: &Session| session.status.as_ref().is_some_and(|status| status.counts.failed == 1);
    bench.rig.wait_session("again", failed, LIMIT).await?;
    bench.site.set_faults(&nodes[..1], &Faults::default());
    patch(bench, &nodes[0], &json!({"run": "once-more"})).await?;
    let taken_up = |session: &Session| session.status.as_ref().is_some_and(|status| status.counts.failed == 0);
    bench.rig.wait_session("again", taken_up, LIMIT).await?;
    // Only now may the Session end.
    bench.site.set_faults(&nodes[1..], &Faults::default());
    let ended = bench.ended("again").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{:?}", ended.status);
    assert_eq!(wait_run(bench, &nodes[0], "once-more").await?.spec.run.as_deref(), Some("once-more"));
    Ok(())
}

fn staged(session: &Session, nodes: i32) -> bool {
    session.status.as_ref().is_some_and(|status| status.counts.staged == nodes)
}

/// A staged reboot is applied node by node, each once, also when the operator dies in between; then it can be applied again.
pub async fn staged_by_token(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("staged", &nodes, |_| {}).await?;
    assert_eq!(outcome(&bench.boot("staged-0", "staged").await?), "Succeeded/Succeeded");
    let mark = bench.mark();
    let spec = json!({"operation": "Reboot", "templateName": "staged", "stage": true});
    bench.rig.apply(&template::session_with("staged", &spec)).await?;
    let waits = bench.rig.wait_session("staged", |session| staged(session, 3), LIMIT).await?;
    assert!(message(&waits).contains("spec.applyStaged"), "{}", message(&waits));
    let parked = |all: &std::collections::BTreeMap<String, BootComponent>| nodes.iter().all(|node| all[node].spec.staged_state.is_some());
    bench.rig.wait_components(parked, LIMIT).await?;
    wait_next(bench, &nodes[0], "Reboot as Session bos/staged staged").await?;
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    patch(bench, &nodes[0], &json!({"applyStaged": "one"})).await?;
    let first = wait_run(bench, &nodes[0], "one").await?;
    assert_eq!(first.status.unwrap().applied_staged.as_deref(), Some("one"));
    bench.rig.restart_operator().await?;
    bench.rig.wait_session("staged", |session| staged(session, 2), LIMIT).await?;
    for node in &nodes[1..] {
        patch(bench, node, &json!({"applyStaged": "two"})).await?;
    }
    assert_eq!(outcome(&bench.ended("staged").await?), "Succeeded/Succeeded");
    bench.assert_commands(&mark, &nodes, Commands::ONE_CYCLE);
    // Its Session is over, and gone: what it staged is complete in itself.
    bench.rig.kubectl(&["-n", "bos", "delete", "session", "staged"]).await?;
    let mark = bench.mark();
    patch(bench, &nodes[0], &json!({"applyStaged": "three"})).await?;
    wait_run(bench, &nodes[0], "three").await?;
    bench.assert_commands(&mark, &nodes[..1], Commands::ONE_CYCLE);
    bench.assert_commands(&mark, &nodes[1..], Commands::NONE);
    Ok(())
}

/// A cancelled Session takes back what was not applied.
pub async fn staged_and_cancelled(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("taken-back", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let spec = json!({"operation": "Boot", "templateName": "taken-back", "stage": true});
    bench.rig.apply(&template::session_with("taken-back", &spec)).await?;
    let parked = |all: &std::collections::BTreeMap<String, BootComponent>| nodes.iter().all(|node| all[node].spec.staged_state.is_some());
    bench.rig.wait_components(parked, LIMIT).await?;
    bench.rig.cancel("taken-back").await?;
    assert_eq!(outcome(&bench.ended("taken-back").await?), "Cancelled/Cancelled");
    let left = bench.components(&nodes).await?;
    assert!(left.iter().all(|component| component.spec.staged_state.is_none()), "{left:?}");
    patch(bench, &nodes[0], &json!({"applyStaged": "nothing"})).await?;
    wait_next(bench, &nodes[0], "was not applied: it has none").await?;
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    Ok(())
}

/// A workload manager calls as it calls BOS; the API server says who it is and what it may do.
pub async fn staged_by_call(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("called", &nodes, |_| {}).await?;
    let spec = json!({"operation": "Boot", "templateName": "called", "stage": true});
    bench.rig.apply(&template::session_with("called", &spec)).await?;
    bench.rig.wait_session("called", |session| staged(session, 2), LIMIT).await?;
    let mark = bench.mark();
    for name in ["slurm", "nobody"] {
        bench.rig.kubectl(&["-n", "bos", "create", "serviceaccount", name]).await?;
    }
    let binding = ["create", "clusterrolebinding", "slurm", "--clusterrole=bos-workload-manager", "--serviceaccount=bos:slurm"];
    bench.rig.kubectl(&binding).await?;
    let token = async |name: &str| {
        bench.rig.kubectl(&["-n", "bos", "create", "token", name, "--audience=bos-operator"]).await.map(|token| token.trim().to_owned())
    };
    let body = json!({"xnames": [nodes[0], "x9c0s0b0n0", "nid000001"]});
    let (slurm, nobody) = (token("slurm").await?, token("nobody").await?);
    assert_eq!(call(bench, None, &body).await?.0, 401);
    assert_eq!(call(bench, Some("made-up"), &body).await?.0, 401);
    let general = bench.rig.kubectl(&["-n", "bos", "create", "token", "slurm"]).await?;
    assert_eq!(call(bench, Some(general.trim()), &body).await?.0, 401, "a token for the API server itself is not accepted");
    let (code, refused) = call(bench, Some(&nobody), &body).await?;
    assert!(code == 403 && refused["detail"].as_str().unwrap().contains("bos-workload-manager"), "{refused}");
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    let (code, applied) = call(bench, Some(&slurm), &body).await?;
    assert_eq!(code, 200, "{applied}");
    assert_eq!(applied["succeeded"], json!([nodes[0]]));
    assert_eq!(applied["ignored"], json!(["x9c0s0b0n0", "nid000001"]));
    // Asked again at once, as after a lost answer.
    let (_, again) = call(bench, Some(&slurm), &json!({"xnames": [nodes[0]]})).await?;
    assert_eq!(again["succeeded"], json!([nodes[0]]));
    let (_, rest) = call(bench, Some(&slurm), &json!({"xnames": [nodes[1]]})).await?;
    assert_eq!(rest["succeeded"], json!([nodes[1]]));
    assert_eq!(outcome(&bench.ended("called").await?), "Succeeded/Succeeded");
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// One call to apply staged state: the status code and the body.
async fn call(bench: &Bench, token: Option<&str>, body: &Value) -> Result<(u16, Value)> {
    let url = format!("{}/apis/bos/v2/applystaged", bench.rig.report_url());
    let request = reqwest::Client::new().post(url).json(body);
    let request = match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    };
    let response = request.send().await?;
    Ok((response.status().as_u16(), response.json().await?))
}
