//! The control-plane harness, the proxy before the API server, and our CRDs, all against the real thing.
//!
//! One binary, so that its tests share one control plane.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../boot/bench.rs"]
mod bench;
mod crds;
mod crds_refuse;
mod harness;
mod manifests;
mod node_agent;
mod proxy;

use bos_e2e::control_plane::ControlPlane;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::ObjectMeta;

type Result<T = ()> = anyhow::Result<T>;

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        data: Some([("value".to_owned(), value.to_owned())].into()),
        ..ConfigMap::default()
    }
}

/// The ConfigMaps of the default namespace, straight from the API server.
async fn config_maps(control_plane: &ControlPlane) -> Result<Api<ConfigMap>> {
    Ok(Api::namespaced(control_plane.client().await?, "default"))
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}
