//! What Sessions of mode v1 need: the pod of agents as our manifests say, with this machine's program and the site's addresses.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::operator::FIRST;
use super::{NAMESPACE, PowerBy, RigConfig, boa_binary, install};
use crate::control_plane::ControlPlane;
use crate::node_agent::NodeAgentConfig;
use crate::site::Urls;

/// Where containers find the agent.
const PROGRAM: &str = "/opt/bos/bos-boa";
/// The ConfigMap and the Secret that the pod of agents names.
const CONFIG: &str = "bos-agent-config";
const KEYS: &str = "bos-s3-credentials";

/// The node of a rig: it has the agent's program.
pub(super) async fn node(config: &RigConfig) -> anyhow::Result<Option<NodeAgentConfig>> {
    let Some(node) = config.node_agent.clone() else { return Ok(None) };
    if !config.agents {
        return Ok(Some(node));
    }
    Ok(Some(node.executable(PROGRAM, boa_binary(config.profile).await?)))
}

/// Makes what the pod of agents refers to, and writes the operator's template of it.
pub(super) async fn install(control_plane: &ControlPlane, config: &RigConfig, urls: &Urls) -> anyhow::Result<Option<PathBuf>> {
    if !config.agents {
        return Ok(None);
    }
    let settings = serde_json::to_string(&settings(config, urls))?;
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": CONFIG, "namespace": NAMESPACE}, "data": {"config.yaml": settings}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": KEYS, "namespace": NAMESPACE},
         "stringData": {"access_key": urls.s3_access_key, "secret_key": urls.s3_secret_key}},
        own_pod(),
    ]});
    control_plane.apply(&objects.to_string()).await?.ok().context("applying what agents need")?;
    let path = control_plane.folder().join("agent.yaml");
    std::fs::write(&path, serde_json::to_string(&template(&install::manifests().join("base/agent.yaml"))?)?)?;
    Ok(Some(path))
}

/// The pod that the operator takes itself to run in, and the image of agents from. Nothing runs it.
fn own_pod() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": FIRST, "namespace": NAMESPACE},
        "spec": {
            "schedulerName": "none",
            "serviceAccountName": install::SERVICE_ACCOUNT,
            "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "operator",
                "image": "bos-operator",
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// The shipped one, with a program of this machine.
fn template(shipped: &Path) -> anyhow::Result<Value> {
    let text = std::fs::read_to_string(shipped).with_context(|| format!("reading {}", shipped.display()))?;
    let mut template: Value = serde_saphyr::from_str(&text)?;
    template["spec"]["containers"][0]["command"] = json!([PROGRAM]);
    Ok(template)
}

fn settings(config: &RigConfig, urls: &Urls) -> Value {
    let (cfs, ims) = if config.bare { ("none", "none") } else { (urls.cfs.as_str(), urls.ims.as_str()) };
    let mut services = json!({
        "hsm": {"baseUrl": urls.hsm},
        "pcs": {"baseUrl": urls.pcs},
        "bss": {"baseUrl": urls.bss},
        "cfs": {"baseUrl": cfs},
        "ims": {"baseUrl": ims},
        "s3": {"endpoint": urls.s3},
    });
    if config.power == PowerBy::Capmc {
        services["powerService"] = json!("capmc");
        services["capmc"] = json!({"baseUrl": urls.capmc});
        services["powerRestSeconds"] = json!(config.site.settings.confirm_delay.as_secs() + 1);
    }
    json!({"logFormat": "json", "services": services})
}
