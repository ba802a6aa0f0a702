//! Every folder that can be applied, as a whole and without a word of complaint.

use std::collections::BTreeMap;

use anyhow::Context as _;
use bos_e2e::control_plane::{ControlPlane, Output};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyIngressRule};
use kube::Api;
use kube::api::ListParams;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

use crate::bench::{LIMIT, Result};
use crate::{applicable, folder};

/// Kinds of others that our overlays name, as far as it matters here: their group, version, kind and plural.
const FOREIGN: [(&str, &str, &str, &str); 3] = [
    ("cert-manager.io", "v1", "Issuer", "issuers"),
    ("cert-manager.io", "v1", "Certificate", "certificates"),
    ("networking.istio.io", "v1beta1", "VirtualService", "virtualservices"),
];

/// One command, on an API server that has never heard of our kinds.
pub async fn base(control_plane: &ControlPlane) -> Result {
    let applied = apply(control_plane, "base", &[]).await?;
    let made = applied.lines().filter(|line| line.ends_with(" created")).count();
    anyhow::ensure!(made > 20 && made == applied.lines().count(), "{applied}");
    // The namespace takes the pods: nothing in them is more than it allows.
    let pods: Api<Pod> = Api::namespaced(control_plane.client().await?, "bos");
    let deployments: Api<Deployment> = Api::namespaced(control_plane.client().await?, "bos");
    let has_pods = |deployment: Option<&Deployment>| {
        deployment.and_then(|it| it.status.as_ref()).and_then(|status| status.replicas).is_some_and(|replicas| replicas > 0)
    };
    let waited = tokio::time::timeout(LIMIT, await_condition(deployments.clone(), "bos-operator", has_pods)).await;
    waited.with_context(|| "no pod of bos-operator was made; is it refused?")??;
    let made = pods.list(&ListParams::default().labels("app.kubernetes.io/name=bos-operator")).await?;
    anyhow::ensure!(!made.items.is_empty(), "there is no pod");
    Ok(())
}

/// Applied twice, the second time changes nothing; and another tool that applies the same on the server agrees.
pub async fn all(control_plane: &ControlPlane) -> Result {
    let folders = applicable()?;
    for wanted in ["cert-manager", "csm", "dev", "ha", "openchami"] {
        anyhow::ensure!(folders.contains(&format!("overlays/{wanted}")), "there is no overlay {wanted}");
    }
    for (group, version, kind, plural) in FOREIGN {
        control_plane.apply(&foreign(group, version, kind, plural).to_string()).await?.ok()?;
        let name = format!("crd/{plural}.{group}");
        control_plane.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &name]).await?.ok()?;
    }
    for name in &folders {
        apply(control_plane, name, &[]).await?;
        let budgets = generations(control_plane).await?;
        let again = apply(control_plane, name, &[]).await?;
        // kubectl sends the selector of a budget each time, and calls it configured; the API server finds nothing new in it.
        let unchanged = |line: &&str| line.ends_with(" unchanged") || line.starts_with("poddisruptionbudget.policy/");
        let changed: Vec<&str> = again.lines().filter(|line| !unchanged(line)).collect();
        anyhow::ensure!(generations(control_plane).await? == budgets, "{name}, applied again, changes a budget");
        anyhow::ensure!(changed.is_empty() && again.lines().count() > 5, "{name}, applied again: {changed:?}");
        apply(control_plane, name, &["--server-side", "--dry-run=server", "--field-manager=another-tool"]).await?;
    }
    Ok(())
}

async fn generations(control_plane: &ControlPlane) -> Result<String> {
    let args = ["-n", "bos", "get", "poddisruptionbudgets", "-o", "jsonpath={.items[*].metadata.generation}"];
    control_plane.kubectl(&args).await?.ok()
}

fn foreign(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(), "listKind": format!("{kind}List")},
            "versions": [{"name": version, "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

/// Applies a folder; a warning is a failure.
async fn apply(control_plane: &ControlPlane, name: &str, flags: &[&str]) -> Result<String> {
    let path = folder(name);
    let output: Output = control_plane.kubectl(&[&["apply", "-k", &path][..], flags].concat()).await?;
    let complaint = output.stderr.clone();
    let applied = output.ok().with_context(|| format!("applying {name} {flags:?}"))?;
    anyhow::ensure!(complaint.is_empty(), "applying {name} {flags:?}: {complaint}");
    Ok(applied)
}

/// Every port that a probe or a Service of ours uses is let in by a policy, where the namespace is closed to all others.
pub async fn closed(control_plane: &ControlPlane) -> Result {
    for name in ["base", "webhook", "overlays/csm"] {
        apply(control_plane, name, &[]).await?;
        let client = control_plane.client().await?;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), "bos");
        let policies: Api<NetworkPolicy> = Api::namespaced(client, "bos");
        for deployment in deployments.list(&ListParams::default()).await? {
            let template = deployment.spec.unwrap().template;
            let labels = template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
            let ports = template.spec.unwrap().containers.into_iter().flat_map(|container| container.ports.unwrap_or_default());
            let ports: Vec<i32> = ports.map(|port| port.container_port).collect();
            anyhow::ensure!(ports.len() == 2, "{name}: {labels:?} has ports {ports:?}");
            let open = let_in(&policies, &labels, None).await?;
            let missing: Vec<&i32> = ports.iter().filter(|port| !open.contains(port)).collect();
            anyhow::ensure!(missing.is_empty(), "{name}: nobody reaches {missing:?} of {labels:?}");
        }
        let others = let_in(&policies, &[("app".to_owned(), "other".to_owned())].into(), None).await?;
        anyhow::ensure!(others.is_empty(), "{name}: pods of others are reached at {others:?}");
    }
    // Here only the gateway reports, and a second operator passes on.
    let operator = [("app.kubernetes.io/name".to_owned(), "bos-operator".to_owned())].into();
    let policies: Api<NetworkPolicy> = Api::namespaced(control_plane.client().await?, "bos");
    // Another case may have applied an overlay that has it.
    control_plane.kubectl(&["-n", "bos", "delete", "networkpolicy", "bos-operator-peers", "--ignore-not-found"]).await?.ok()?;
    anyhow::ensure!(!let_in(&policies, &operator, Some(&operator)).await?.contains(&8080), "csm: whoever is in the namespace can report");
    control_plane.kubectl(&["-n", "bos", "apply", "-f", &folder("components/ha/network-policy.yaml")]).await?.ok()?;
    anyhow::ensure!(let_in(&policies, &operator, Some(&operator)).await?.contains(&8080), "csm with two: nothing can be passed on");
    Ok(())
}

/// The ports at which pods with these labels are reached: by anybody at all, or by those pods of the same namespace.
async fn let_in(
    policies: &Api<NetworkPolicy>,
    labels: &BTreeMap<String, String>,
    by: Option<&BTreeMap<String, String>>,
) -> Result<Vec<i32>> {
    let (mut open, mut isolated) = (Vec::new(), false);
    for policy in policies.list(&ListParams::default()).await? {
        let spec = policy.spec.unwrap();
        let selected = spec.pod_selector.and_then(|selector| selector.match_labels).unwrap_or_default();
        if !has_all(labels, &selected) {
            continue;
        }
        isolated = true;
        let admits = |rule: &NetworkPolicyIngressRule| {
            let peers = rule.from.as_deref().unwrap_or_default();
            let Some(by) = by.filter(|_| !peers.is_empty()) else { return true };
            let pods = peers.iter().filter(|peer| peer.namespace_selector.is_none()).filter_map(|peer| peer.pod_selector.as_ref());
            pods.into_iter().any(|pods| has_all(by, pods.match_labels.as_ref().unwrap_or(&BTreeMap::new())))
        };
        for port in spec.ingress.into_iter().flatten().filter(admits).flat_map(|rule| rule.ports.unwrap_or_default()) {
            open.push(serde_json::from_value(serde_json::to_value(port.port)?)?);
        }
    }
    anyhow::ensure!(isolated, "no policy selects {labels:?}, so everything is let in");
    Ok(open)
}

fn has_all(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}
