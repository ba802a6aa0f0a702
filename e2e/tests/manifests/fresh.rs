//! Objects that the API server has taken and nobody has looked at yet: what tools are tested with (`hack/gitops`) is what it gives.

use std::collections::BTreeMap;
use std::path::Path;

use bos_e2e::control_plane::ControlPlane;
use serde_json::{Value, json};

use crate::bench::Result;

/// Kind, name and spec of each.
const SPECS: [(&str, &str, &str); 4] = [
    (
        "SessionTemplate",
        "fresh",
        r#"{"bootSets": [{"name": "compute", "path": "s3://boot-images/7f0c/manifest.json", "nodeRolesGroups": ["Compute"]}]}"#,
    ),
    ("Session", "fresh", r#"{"operation": "Boot", "templateName": "fresh"}"#),
    ("BootComponent", "x9999c0s0b0n0", "{}"),
    ("BootOptions", "default", "{}"),
];

pub async fn objects(control_plane: &ControlPlane) -> Result {
    let mut fresh = BTreeMap::new();
    for (kind, name, spec) in SPECS {
        let spec: Value = serde_json::from_str(spec)?;
        let manifest = json!({"apiVersion": bos_crds::API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec});
        control_plane.apply(&manifest.to_string()).await?.ok()?;
        let found = control_plane.kubectl(&["get", &kind.to_lowercase(), name, "-o", "json"]).await?.ok()?;
        let mut found: Value = serde_json::from_str(&found)?;
        found["metadata"] = json!({"name": name, "generation": found["metadata"]["generation"]});
        // Options have many fields, and no tool looks at them.
        if kind == "BootOptions" {
            found["spec"] = json!({});
        }
        fresh.insert(format!("fresh {kind}"), found);
    }
    let path = Path::new("../hack/gitops/testdata/fresh.json");
    let text = format!("{:#}\n", json!(fresh));
    if std::env::var_os("BOS_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(path, &text)?;
    }
    let known = std::fs::read_to_string(path).unwrap_or_default();
    anyhow::ensure!(known == text, "{} is not what the API server gives; BOS_GOLDEN=write writes it:\n{text}", path.display());
    Ok(())
}
