//! The control-plane harness and the proxy before the API server, against the real thing.

use std::time::Duration;

use bos_e2e::control_plane::{ControlPlane, Process, ProcessSpec, procstat};
use bos_e2e::proxy::{Outage, Proxy, Rule};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;

type Result<T = ()> = anyhow::Result<T>;

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("value".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

/// A client that goes through the proxy, and the ConfigMaps it sees.
async fn through(control_plane: &ControlPlane, proxy: &Proxy) -> Result<Api<ConfigMap>> {
    let kubeconfig = control_plane.kubeconfig_via(proxy.addr())?;
    Ok(Api::namespaced(control_plane.client_for(&kubeconfig).await?, "default"))
}

async fn direct(control_plane: &ControlPlane) -> Result<Api<ConfigMap>> {
    Ok(Api::namespaced(control_plane.client().await?, "default"))
}

#[tokio::test]
async fn a_user_certificate_carries_name_and_groups() -> Result {
    let control_plane = ControlPlane::shared().await?;
    let kubeconfig = control_plane.kubeconfig_for_user("anna", &["operators", "readers"])?;
    let kubectl = control_plane.kubectl_command().with_kubeconfig(&kubeconfig);
    let who = kubectl.run(&["auth", "whoami", "-o", "json"]).await?.ok()?;
    let who: serde_json::Value = serde_json::from_str(&who)?;
    assert_eq!(who["status"]["userInfo"]["username"], "anna");
    assert_eq!(who["status"]["userInfo"]["groups"], json!(["operators", "readers", "system:authenticated"]));
    assert!(kubectl.run(&["get", "nodes"]).await?.stderr.contains("Forbidden"));
    Ok(())
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
    let mut events = proxied.watch(&parameters, "0").await?.boxed();
    let direct = direct(control_plane).await?;
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
    let direct = direct(control_plane).await?;

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
    let direct = direct(control_plane).await?;

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

#[tokio::test]
async fn the_api_server_can_be_killed_and_comes_back_with_its_data() -> Result {
    let control_plane = ControlPlane::builder().controller_manager(true).audit_log(true).start().await?;
    let direct = direct(&control_plane).await?;
    let before = control_plane.request_totals().await?;
    direct.create(&PostParams::default(), &config_map("kept", "")).await?;
    direct.delete_collection(&DeleteParams::default(), &ListParams::default().labels("none=such")).await?;
    direct.patch_metadata("kept", &PatchParams::default(), &Patch::Merge(json!({"metadata": {}}))).await?;
    let since = control_plane.request_totals().await?.since(&before);
    assert_eq!((since.of("deletecollection", "configmaps"), since.of("patch", "configmaps")), (1, 1));
    assert!(since.of("create", "configmaps") >= 1);
    assert!(procstat(control_plane.api_server_pid())?.peak_rss_bytes > 0);

    control_plane.kill_api_server();
    assert!(direct.get("kept").await.is_err());
    control_plane.restart_api_server().await?;
    direct.get("kept").await?;

    let audit = std::fs::read_to_string(control_plane.audit_log().unwrap())?;
    assert!(audit.lines().any(|line| line.contains("\"verb\":\"create\"") && line.contains("kept")));
    let pids = [control_plane.api_server_pid(), control_plane.etcd_pid().unwrap(), control_plane.controller_manager_pid().unwrap()];
    let folder = control_plane.folder().to_owned();
    control_plane.stop().await;
    for pid in pids {
        assert!(procstat(pid).is_err(), "process {pid} outlived its control plane");
    }
    assert!(!folder.exists() || std::env::var_os("BOS_E2E_KEEP_LOGS").is_some());
    Ok(())
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let error = ControlPlane::builder().api_server_flag("--no-such-flag").start().await.err().expect("it started");
    let text = format!("{error:#}");
    assert!(text.contains("kube-apiserver ended with") && text.contains("no-such-flag"), "{text}");
}
