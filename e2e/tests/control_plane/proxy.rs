//! The proxy before the API server.

use std::time::Duration;

use bos_e2e::control_plane::{ControlPlane, Process, ProcessSpec};
use bos_e2e::proxy::{Outage, Proxy, Rule};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

use crate::{Result, config_map, config_maps, is_code};

/// The ConfigMaps as a client sees them that goes through the proxy.
async fn through(control_plane: &ControlPlane, proxy: &Proxy) -> Result<Api<ConfigMap>> {
    let kubeconfig = control_plane.kubeconfig_via(proxy.addr())?;
    Ok(Api::namespaced(control_plane.client_for(&kubeconfig).await?, "default"))
}

#[tokio::test]
async fn a_service_account_works_through_the_proxy_with_its_own_rights() -> Result {
    let control_plane = ControlPlane::shared().await?;
    let proxy = Proxy::start(control_plane).await?;
    let manifest = "apiVersion: v1
kind: ServiceAccount
metadata: {name: proxied, namespace: default}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: proxied}
rules: [{apiGroups: [\"\"], resources: [configmaps], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: proxied}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: proxied}
subjects: [{kind: ServiceAccount, name: proxied, namespace: default}]
";
    control_plane.apply(manifest).await?.ok()?;
    let kubeconfig = control_plane.kubeconfig_for_service_account("default", "proxied", Some(proxy.addr())).await?;
    let client = control_plane.client_for(&kubeconfig).await?;
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    // The authoriser learns of a new binding by a watch of its own.
    let mut lists = 1;
    while config_maps.list(&ListParams::default()).await.is_err_and(|error| is_code(&error, 403)) {
        lists += 1;
        tokio::task::yield_now().await;
    }
    let refused = config_maps.create(&PostParams::default(), &config_map("refused", "")).await;
    assert!(refused.is_err_and(|error| is_code(&error, 403)));
    assert_eq!(proxy.requests().of("list", "configmaps"), lists);
    assert_eq!(proxy.requests().of("create", "configmaps"), 1);
    Ok(())
}

#[tokio::test]
async fn a_watch_streams_through_the_proxy() -> Result {
    let control_plane = ControlPlane::shared().await?;
    let proxy = Proxy::start(control_plane).await?;
    let proxied = through(control_plane, &proxy).await?;
    let parameters = WatchParams::default().fields("metadata.name=watched");
    let events = proxied.watch(&parameters, "0").await?;
    let mut events = events.try_filter(|event| std::future::ready(!matches!(event, WatchEvent::Bookmark(_)))).boxed();
    let direct = config_maps(control_plane).await?;
    direct.create(&PostParams::default(), &config_map("watched", "1")).await?;
    // Each event arrives while the watch stays open: nothing waits for the end of the body.
    let first = events.try_next().await?;
    assert!(matches!(first, Some(WatchEvent::Added(_))), "{first:?}");
    let patch = Patch::Merge(json!({"data": {"value": "2"}}));
    direct.patch("watched", &PatchParams::default(), &patch).await?;
    let Some(WatchEvent::Modified(object)) = events.try_next().await? else { anyhow::bail!("no modification") };
    assert_eq!(object.data.unwrap()["value"], "2");

    // While the API server hangs the watch is silent; afterwards nothing is lost.
    proxy.set_outage(Outage::Hang).await;
    direct.patch("watched", &PatchParams::default(), &Patch::Merge(json!({"data": {"value": "3"}}))).await?;
    assert!(tokio::time::timeout(Duration::from_millis(200), events.try_next()).await.is_err());
    proxy.set_outage(Outage::None).await;
    assert!(matches!(events.try_next().await?, Some(WatchEvent::Modified(_))));

    // A refused connection ends it.
    proxy.set_outage(Outage::Refuse).await;
    assert!(!matches!(events.try_next().await, Ok(Some(_))));
    assert!(proxied.get("watched").await.is_err());
    proxy.set_outage(Outage::Unavailable).await;
    assert!(proxied.get("watched").await.is_err_and(|error| is_code(&error, 503)));
    proxy.set_outage(Outage::None).await;
    proxied.get("watched").await?;
    Ok(())
}

#[tokio::test]
async fn a_request_is_held_before_or_after_the_api_server_has_done_it() -> Result {
    let control_plane = ControlPlane::shared().await?;
    let proxy = Proxy::start(control_plane).await?;
    let proxied = through(control_plane, &proxy).await?;
    let direct = config_maps(control_plane).await?;

    let mut before = proxy.on(Rule::before().kind("create", "configmaps").body_contains("held-before"));
    let object = config_map("held-before", "");
    let post = PostParams::default();
    let create = proxied.create(&post, &object);
    let test = async {
        before.reached().await?;
        let absent = direct.get_opt("held-before").await?.is_none();
        before.let_go();
        anyhow::Ok(absent)
    };
    let (created, absent) = tokio::join!(create, test);
    created?;
    assert!(absent?, "the API server saw a request that was held before it");

    let mut after = proxy.on(Rule::answer_withheld().kind("create", "configmaps").nth(1));
    let object = config_map("held-after", "");
    let create = proxied.create(&post, &object);
    let test = async {
        after.reached().await?;
        let there = direct.get_opt("held-after").await?.is_some();
        drop(after);
        anyhow::Ok(there)
    };
    let (created, there) = tokio::join!(create, test);
    assert!(there?, "the API server has not done what it answered");
    assert!(created.is_err(), "the answer was withheld, then cut");
    Ok(())
}

#[tokio::test]
async fn a_process_is_killed_with_its_request_in_flight() -> Result {
    let control_plane = ControlPlane::shared().await?;
    let proxy = Proxy::start(control_plane).await?;
    let kubeconfig = control_plane.kubeconfig_via(proxy.addr())?;
    let folder = tempfile::tempdir()?;
    let kubectl = |name: &str| {
        let program = control_plane.kubectl_binary();
        let spec = ProcessSpec::new("kubectl", program, folder.path().join("log")).env("KUBECONFIG", &kubeconfig);
        Process::start(&spec.args(["create", "configmap", name]))
    };
    let direct = config_maps(control_plane).await?;

    let hit = proxy.on(Rule::before().kind("create", "configmaps"));
    let victim = kubectl("never-created")?;
    hit.kill(&victim).await?;
    assert!(victim.exit_status().is_some_and(|status| status.code().is_none()));

    let hit = proxy.on(Rule::answer_withheld().kind("create", "configmaps"));
    let victim = kubectl("created-unknown")?;
    hit.kill(&victim).await?;
    assert!(direct.get_opt("created-unknown").await?.is_some());
    assert!(direct.get_opt("never-created").await?.is_none());
    Ok(())
}
