//! Uninstalling in the middle of everything, by the commands of docs/uninstall.md as they stand there and in worse orders: nothing of ours
//! is left, nothing hangs, and no node is touched.
//!
//! The operator, the webhook and an agent run; Sessions of both modes have switched nodes on that are not up yet. `BOS_CASE=text` runs only
//! the cases with this in their name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../boot/bench.rs"]
mod bench;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use bench::{Bench, Cases, Commands, LIMIT, Mark, Result};
use bos_crds::{BootComponent, LastAction};
use bos_e2e::rig::{NAMESPACE, Rig, RigConfig, Webhook, WebhookConfig, template};
use bos_e2e::site::InitialState;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::ListParams;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

const NODES: usize = 8;

/// Nodes take longer to come up than anything here.
fn config() -> RigConfig {
    RigConfig::with_nodes(NODES).boot_time(Duration::from_secs(300)).with_agents()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_uninstall_leaves_nothing_and_touches_no_node() -> Result {
    let bench = Bench::start(config()).await?;
    let mut cases = Cases::default();
    cases.run("as documented", as_documented(&bench)).await;
    cases.run("the kinds and the namespace before the operator", operator_last(&bench)).await;
    cases.run("the webhook is gone and its configuration is not", webhook_first(&bench)).await;
    bench.rig.stop().await;
    cases.verdict()
}

async fn as_documented(bench: &Bench) -> Result {
    let (webhook, mark) = under_way(bench).await?;
    let commands = documented()?;
    let (done, ended) = tokio::join!(run(bench, &commands), with_their_deployments(bench, webhook));
    done?;
    ended?;
    nothing_left(bench, &mark).await
}

/// It sees all its objects and its own rights go, and ends last.
async fn operator_last(bench: &Bench) -> Result {
    again(bench).await?;
    let (webhook, mark) = under_way(bench).await?;
    run(bench, "kubectl delete -k manifests/crds\nkubectl delete namespace bos\n").await?;
    bench.assert_commands(&mark, &bench.nodes(0..NODES), Commands::NONE);
    run(bench, &documented()?).await?;
    ended(bench, webhook).await?;
    nothing_left(bench, &mark).await
}

/// Nothing is reviewed that is in the way.
async fn webhook_first(bench: &Bench) -> Result {
    again(bench).await?;
    let (webhook, mark) = under_way(bench).await?;
    tokio::task::spawn_blocking(move || webhook.stop()).await?;
    run(bench, "kubectl delete -k manifests/base --ignore-not-found\n").await?;
    run(bench, &documented()?).await?;
    bench.rig.operator().stop().await;
    nothing_left(bench, &mark).await
}

/// Everything that can be under way is; from the mark on no node gets a command.
async fn under_way(bench: &Bench) -> Result<(Webhook, Mark)> {
    let rig = &bench.rig;
    let webhook = rig.start_webhook(&WebhookConfig::default()).await?;
    for folder in ["base", "webhook"] {
        apply_without_pods(rig, folder).await?;
    }
    let bindings = ["create", "clusterrolebinding", "bos-administrators", "--clusterrole=bos-administrator", "--group=operators"];
    rig.kubectl(&bindings).await?;
    let nodes = bench.nodes(0..NODES);
    for (name, nodes) in [("of-the-operator", &nodes[..4]), ("of-an-agent", &nodes[4..])] {
        bench.template(name, nodes, |_| {}).await?;
    }
    rig.apply(&template::session("of-the-operator", "of-the-operator", "Boot")).await?;
    rig.apply(&template::v1_session("of-an-agent", "of-an-agent", "Boot")).await?;
    bench.at_site("all nodes have power", |site| site.nodes().iter().all(|node| node.power)).await?;
    // Also what operator and agent show of it: from now on they are refused what they have written before.
    let shown = |component: &BootComponent| component.status.as_ref().and_then(|status| status.last_action) == Some(LastAction::PoweringOn);
    rig.wait_components(|all| all.values().filter(|component| shown(component)).count() == NODES, LIMIT).await?;
    let jobs: Api<Job> = Api::namespaced(rig.client(), NAMESPACE);
    let running = jobs.list(&ListParams::default()).await?.items;
    anyhow::ensure!(running.len() == 1 && !bench.site.nodes().iter().any(|node| node.up), "{running:?}");
    Ok((webhook, bench.mark()))
}

/// The Deployments too, for a kubelet that starts nothing: the programs run beside it.
async fn apply_without_pods(rig: &Rig, folder: &str) -> Result {
    let path = Rig::manifests().join(folder);
    let built = rig.control_plane().kubectl(&["kustomize", path.to_str().unwrap()]).await?.ok()?;
    let mut objects = Vec::new();
    for document in built.split("\n---\n") {
        let mut object: Value = serde_saphyr::from_str(document)?;
        // The rest is there, with the addresses of this machine.
        if ["Deployment", "Service", "PodDisruptionBudget"].contains(&object["kind"].as_str().unwrap()) {
            if object["kind"] == "Deployment" {
                object["spec"]["replicas"] = json!(0);
            }
            objects.push(object);
        }
    }
    rig.apply(&json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string()).await.map(drop)
}

/// Ends each program when its Deployment is gone, as the kubelet does.
async fn with_their_deployments(bench: &Bench, webhook: Webhook) -> Result {
    let deployments: Api<Deployment> = Api::namespaced(bench.rig.client(), NAMESPACE);
    for name in ["bos-operator", "bos-webhook"] {
        let gone = await_condition(deployments.clone(), name, |object: Option<&Deployment>| object.is_none());
        tokio::time::timeout(LIMIT, gone).await.with_context(|| format!("Deployment {name} is not removed"))??;
    }
    ended(bench, webhook).await
}

async fn ended(bench: &Bench, webhook: Webhook) -> Result {
    bench.rig.operator().stop().await;
    tokio::task::spawn_blocking(move || webhook.stop()).await?;
    Ok(())
}

/// The first block of commands in the document.
fn documented() -> Result<String> {
    let path = Rig::manifests().join("../docs/uninstall.md");
    let text = std::fs::read_to_string(&path)?;
    let block = text.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let block = block.filter(|block| block.matches("\nkubectl ").count() >= 4);
    block.map(str::to_owned).with_context(|| format!("{} has no commands", path.display()))
}

/// Runs commands as a person does, from the checkout. Each must succeed, in reasonable time.
async fn run(bench: &Bench, commands: &str) -> Result {
    let control_plane = bench.rig.control_plane();
    let tools = control_plane.kubectl_binary().parent().unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap_or_default());
    let shell = tokio::task::spawn_blocking({
        let (kubeconfig, folder) = (control_plane.admin_kubeconfig().to_owned(), Rig::manifests().join(".."));
        let (commands, limit) = (commands.to_owned(), LIMIT.as_secs().to_string());
        move || shell(&commands, &limit, &path, &kubeconfig, &folder)
    });
    shell.await?
}

fn shell(commands: &str, limit: &str, path: &str, kubeconfig: &Path, folder: &Path) -> Result {
    let output = std::process::Command::new("timeout")
        .args([limit, "sh", "-exc", commands])
        .env("PATH", path)
        .env("KUBECONFIG", kubeconfig)
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(())
}

/// No object of any kind has our name or lies in our namespace, and no node was touched.
async fn nothing_left(bench: &Bench, mark: &Mark) -> Result {
    let nodes = bench.nodes(0..NODES);
    bench.assert_commands(mark, &nodes, Commands::NONE);
    assert!(bench.site.nodes().iter().all(|node| node.power), "what was asked to boot boots on");
    let control_plane = bench.rig.control_plane();
    let kinds = control_plane.kubectl(&["api-resources", "--verbs=list", "-o", "name"]).await?.ok()?;
    anyhow::ensure!(kinds.lines().count() > 40 && !kinds.contains("bos.hpe.com"), "{kinds}");
    let kinds = kinds.lines().collect::<Vec<_>>().join(",");
    let columns = "custom-columns=K:.kind,NS:.metadata.namespace,N:.metadata.name,F:.metadata.finalizers";
    let all = control_plane.kubectl(&["get", &kinds, "-A", "--no-headers", "-o", columns]).await?.ok()?;
    anyhow::ensure!(all.lines().count() > 50, "{all}");
    let left: Vec<&str> = all.lines().filter(|line| line.to_lowercase().contains("bos")).collect();
    anyhow::ensure!(left.is_empty(), "left over: {left:#?}");
    Ok(())
}

/// Installs again, on nodes that are off.
async fn again(bench: &Bench) -> Result {
    bench.site.set_state(&["all"], &InitialState::Off);
    bench.rig.install_again(&config()).await?;
    bench.rig.start_operator().await?;
    bench.rig.wait_discovered(NODES, LIMIT).await
}
