//! Puts our manifests into the cluster the way an administrator does.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::NAMESPACE;
use crate::control_plane::ControlPlane;

/// The operator's service account.
pub(super) const SERVICE_ACCOUNT: &str = "bos-operator";

/// What the operator may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// What its own roles allow, as in a cluster.
    OwnRoles,
    /// Everything, as there are no manifests with its roles.
    Everything,
}

/// Where the manifests are.
pub(super) fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// Applies CRDs, then everything else, then the options that differ.
pub(super) async fn apply(control_plane: &ControlPlane, options: &Value) -> anyhow::Result<Rights> {
    let manifests = manifests();
    control_plane.install_crds(&manifests.join("crds")).await.context("applying the CRDs")?;
    let overlay = manifests.join("overlays/dev");
    let rights = if overlay.join("kustomization.yaml").is_file() {
        control_plane.apply_kustomize(&overlay).await.context("applying manifests/overlays/dev")?;
        Rights::OwnRoles
    } else {
        apply_by_hand(control_plane).await?;
        Rights::Everything
    };
    if options.as_object().is_some_and(|options| !options.is_empty()) {
        patch_options(control_plane, options).await?;
    }
    Ok(rights)
}

/// What the manifests would bring, with all rights.
async fn apply_by_hand(control_plane: &ControlPlane) -> anyhow::Result<()> {
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": SERVICE_ACCOUNT, "namespace": NAMESPACE}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": SERVICE_ACCOUNT},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
         "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}]},
    ]});
    control_plane.apply(&objects.to_string()).await?.ok().context("applying namespace and service account").map(drop)
}

/// Merges these into the options, which are created where they do not exist.
pub(super) async fn patch_options(control_plane: &ControlPlane, spec: &Value) -> anyhow::Result<()> {
    let name = bos_crds::OPTIONS_NAME;
    let found = control_plane.kubectl(&["get", "bootoptions.bos.hpe.com", name, "--ignore-not-found", "-o", "name"]).await?.ok()?;
    if found.trim().is_empty() {
        let object = json!({"apiVersion": bos_crds::API_VERSION, "kind": "BootOptions", "metadata": {"name": name}, "spec": spec});
        let created = control_plane.kubectl_command().run_with_input(&["create", "-f", "-"], &object.to_string()).await?;
        return created.ok().context("creating the options").map(drop);
    }
    let patch = json!({ "spec": spec }).to_string();
    let args = ["patch", "bootoptions.bos.hpe.com", name, "--type=merge", "-p", &patch];
    control_plane.kubectl(&args).await?.ok().context("changing the options").map(drop)
}
