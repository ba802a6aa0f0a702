//! Tenants as TAPMS keeps them: a Session in a tenant's namespace acts on the tenant's nodes alone.

use std::ops::Range;

use bos_crds::{API_VERSION, Session};
use bos_e2e::rig::{Rig, WebhookConfig};
use bos_e2e::site::ImageSpec;
use kube::Api;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

use crate::bench::{Bench, Commands, LIMIT, Result, message, outcome};

const NAMESPACE: &str = "blue-users";

/// TAPMS's kind, as far as it matters here.
fn kind() -> Value {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "tenants.tapms.hpe.com"},
        "spec": {
            "group": "tapms.hpe.com",
            "scope": "Namespaced",
            "names": {"kind": "Tenant", "plural": "tenants", "singular": "tenant", "listKind": "TenantList"},
            "versions": [{"name": "v1alpha3", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn tenant(nodes: &[String]) -> Value {
    json!({
        "apiVersion": "tapms.hpe.com/v1alpha3",
        "kind": "Tenant",
        "metadata": {"name": "blue", "namespace": "bos"},
        "spec": {"tenantname": "blue"},
        "status": {
            "childnamespaces": [NAMESPACE],
            "tenantresources": [{"type": "compute", "hsmgrouplabel": "blue", "xnames": nodes}],
        },
    })
}

fn object(kind: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}).to_string()
}

async fn ended(bench: &Bench, name: &str) -> Result<Session> {
    let api: Api<Session> = Api::namespaced(bench.rig.client(), NAMESPACE);
    let over = |session: Option<&Session>| session.is_some_and(Rig::is_complete);
    Ok(tokio::time::timeout(LIMIT, await_condition(api, name, over)).await??.unwrap())
}

pub async fn a_tenant_boots_its_own(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let (own, foreign) = nodes.split_at(2);
    bench.rig.kubectl(&["create", "namespace", NAMESPACE]).await?;
    bench.rig.apply(&kind().to_string()).await?;
    bench.rig.kubectl(&["wait", "--for=condition=Established", "crd/tenants.tapms.hpe.com"]).await?;
    bench.rig.apply(&tenant(own).to_string()).await?;
    let mut set = bos_e2e::rig::template::compute(&ImageSpec::default());
    bench.rig.apply(&object("SessionTemplate", "all", &json!({"bootSets": [set.clone()]}))).await?;
    set.as_object_mut().unwrap().remove("nodeRolesGroups");
    set["nodeList"] = json!(nodes);
    bench.rig.apply(&object("SessionTemplate", "listed", &json!({"bootSets": [set]}))).await?;
    let mark = bench.mark();
    // The tenant may not be known yet: the Session waits for that.
    bench.rig.apply(&object("Session", "all", &json!({"operation": "Boot", "templateName": "all"}))).await?;
    let all = ended(bench, "all").await?;
    assert_eq!(outcome(&all), "Succeeded/Succeeded", "{}", message(&all));
    let status = all.status.unwrap();
    assert_eq!((status.counts.nodes, status.counts.excluded), (2, i32::try_from(foreign.len())?));
    assert_eq!(status.excluded[0].reason, "NotOwnedByTenant");
    bench.rig.apply(&object("Session", "listed", &json!({"operation": "Reboot", "templateName": "listed"}))).await?;
    let listed = ended(bench, "listed").await?;
    assert_eq!(outcome(&listed), "Failed/NotOwnedByTenant", "{}", message(&listed));
    bench.assert_commands(&mark, own, Commands::ONE_ON);
    bench.assert_commands(&mark, foreign, Commands::NONE);
    previewed(bench).await
}

/// Admission knows the tenants too: a preview counts the tenant's nodes alone.
async fn previewed(bench: &Bench) -> Result {
    let webhook = bench.rig.start_webhook(&WebhookConfig::default()).await?;
    let preview = object("Session", "preview", &json!({"operation": "Reboot", "templateName": "all"}));
    let args = ["create", "--dry-run=server", "-f", "-"];
    let said = bench.rig.control_plane().kubectl_command().run_with_input(&args, &preview).await?;
    assert!(said.success() && said.stderr.contains("2 nodes will be acted on"), "{}", said.stderr);
    tokio::task::spawn_blocking(move || webhook.stop()).await?;
    Ok(())
}
