//! Puts our manifests into the cluster the way an administrator does.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::checkout::checkout;
use crate::control_plane::ControlPlane;

/// The operator's service account.
pub(super) const SERVICE_ACCOUNT: &str = "bos-operator";

/// Where the manifests are.
pub(super) fn manifests() -> PathBuf {
    checkout().join("manifests")
}

/// Applies CRDs, then everything else, then the options that differ. The operator has the rights of its own roles and no others.
pub(super) async fn apply(control_plane: &ControlPlane, manifests: &Path, options: &Value) -> anyhow::Result<()> {
    control_plane.install_crds(&manifests.join("crds")).await.context("applying the CRDs")?;
    control_plane.apply_kustomize(&manifests.join("overlays/dev")).await.context("applying manifests/overlays/dev")?;
    if options.as_object().is_some_and(|options| !options.is_empty()) {
        patch_options(control_plane, options).await?;
    }
    Ok(())
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
