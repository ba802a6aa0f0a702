//! Starting, stopping and breaking a control plane.

use bos_e2e::control_plane::{ControlPlane, procstat};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{Result, config_map, config_maps};

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
async fn the_api_server_can_be_killed_and_comes_back_with_its_data() -> Result {
    let control_plane = ControlPlane::builder().controller_manager(true).audit_log(true).start().await?;
    let direct = config_maps(&control_plane).await?;
    let before = control_plane.request_totals().await?;
    direct.create(&PostParams::default(), &config_map("kept", "")).await?;
    direct.delete_collection(&DeleteParams::default(), &ListParams::default().labels("none=such")).await?;
    direct.patch_metadata("kept", &PatchParams::default(), &Patch::Merge(json!({"metadata": {}}))).await?;
    let since = control_plane.request_totals().await?.since(&before);
    assert_eq!((since.of("deletecollection", "configmaps"), since.of("patch", "configmaps")), (1, 1), "{since:?}");
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
