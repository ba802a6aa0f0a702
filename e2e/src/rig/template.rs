//! Objects as a person would write them, for scenarios, demo and benchmarks.

use serde_json::{Value, json};

use super::NAMESPACE;
use crate::site::ImageSpec;

/// The CFS configuration of the templates here.
pub const CONFIGURATION: &str = "cos-3.3.12";

/// The `s3://` path of an image's manifest in the simulated object store.
pub fn manifest_path(image: &ImageSpec) -> String {
    format!("s3://{}/{}/manifest.json", image.bucket, image.id)
}

/// A template in our namespace that boots all compute nodes with the site's default image and configuration.
pub fn simple(name: &str) -> String {
    with_boot_sets(name, &json!([compute(&ImageSpec::default())])).to_string()
}

/// A template with these boot sets, as an object that can be changed before it is applied.
pub fn with_boot_sets(name: &str, boot_sets: &Value) -> Value {
    json!({
        "apiVersion": bos_crds::API_VERSION,
        "kind": "SessionTemplate",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"cfs": {"configuration": CONFIGURATION}, "bootSets": boot_sets},
    })
}

/// A boot set `compute` of all compute nodes with this image.
pub fn compute(image: &ImageSpec) -> Value {
    json!({
        "name": "compute",
        "type": "s3",
        "arch": "X86",
        "path": manifest_path(image),
        "nodeRolesGroups": ["Compute"],
        "rootfsProvider": "sbps",
        "rootfsProviderPassthrough": "sbps:v1:iqn.2023-06.csm.iscsi:_sbps-hsn._tcp.x.example.com:300",
    })
}

/// A Session of this operation (`Boot`, `Reboot`, `Shutdown`) on all nodes of a template.
pub fn session(name: &str, template: &str, operation: &str) -> String {
    session_with(name, &json!({"operation": operation, "templateName": template}))
}

/// The same of mode v1.
pub fn v1_session(name: &str, template: &str, operation: &str) -> String {
    session_with(name, &json!({"mode": "v1", "operation": operation, "templateName": template}))
}

/// A Session with this spec.
pub fn session_with(name: &str, spec: &Value) -> String {
    json!({
        "apiVersion": bos_crds::API_VERSION,
        "kind": "Session",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": spec,
    })
    .to_string()
}
