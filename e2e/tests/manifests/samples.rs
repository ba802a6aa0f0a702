//! Every sample is taken by the API server as it is, with and without a webhook to say more.

use std::collections::BTreeSet;

use bos_e2e::control_plane::ControlPlane;
use bos_e2e::rig::Rig;
use serde_json::Value;

use crate::bench::Result;

/// What there must be a sample of: of each operation in both modes, and of whatever else a person asks for.
const WORKFLOWS: [&str; 19] = [
    "v2 Boot",
    "v2 Reboot",
    "v2 Shutdown",
    "v2 Configure",
    "v1 Boot",
    "v1 Reboot",
    "v1 Shutdown",
    "v1 Configure",
    "limit",
    "stage",
    "retryOf",
    "startBefore",
    "runningNodes",
    "maxPowerCycled",
    "run",
    "applyStaged",
    "suspend",
    "bootSets",
    "bos-emergency-stop",
];

pub async fn all(control_plane: &ControlPlane) -> Result {
    let mut shown = BTreeSet::new();
    let mut files = vec![Rig::manifests().join("overlays/openchami/options.yaml")];
    for entry in std::fs::read_dir(Rig::manifests().join("samples"))? {
        files.push(entry?.path());
    }
    for file in files {
        let path = file.to_str().unwrap();
        let args = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "-o", "json", "-f", path];
        let output = control_plane.kubectl(&args).await?;
        anyhow::ensure!(output.stderr.is_empty(), "{path}: {}", output.stderr);
        // One object after the other where there are several.
        let answer: Value = serde_json::from_str(&output.ok()?)?;
        let text = std::fs::read_to_string(&file)?;
        // Several come as a list.
        let objects = answer["items"].as_array().cloned().unwrap_or_else(|| vec![answer.clone()]);
        for object in objects {
            shown.extend(shows(&object, &text));
            in_order(path, &object, &text)?;
        }
    }
    let missing: Vec<&&str> = WORKFLOWS.iter().filter(|what| !shown.contains(**what)).collect();
    anyhow::ensure!(missing.is_empty(), "there is no sample of {missing:?}");
    Ok(())
}

/// What a sample is a sample of: its operation, and the fields that its file sets.
fn shows(object: &Value, file: &str) -> Vec<String> {
    let spec = &object["spec"];
    match object["kind"].as_str() {
        Some("Session") => {
            let operation = format!("{} {}", spec["mode"].as_str().unwrap_or_default(), spec["operation"].as_str().unwrap_or_default());
            let sets = |field: &&str| file.contains(&format!("\n  {field}: "));
            let fields = ["limit", "stage", "retryOf", "startBefore", "runningNodes", "maxPowerCycled"];
            std::iter::once(operation).chain(fields.iter().filter(|field| sets(field)).map(ToString::to_string)).collect()
        }
        Some("BootComponent") => spec.as_object().into_iter().flat_map(|spec| spec.keys().cloned()).collect(),
        Some("SessionTemplate") if spec["bootSets"].as_array().is_some_and(|sets| sets.len() > 1) => vec!["bootSets".to_owned()],
        Some("ConfigMap") => vec![object["metadata"]["name"].as_str().unwrap_or_default().to_owned()],
        _ => Vec::new(),
    }
}

/// Where a file has waves, the template's is before the Session's, and the Session has an end to its time.
fn in_order(path: &str, object: &Value, file: &str) -> Result {
    let wave = object["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"].as_str();
    if !file.contains("sync-wave") {
        return Ok(());
    }
    match object["kind"].as_str() {
        Some("SessionTemplate") => anyhow::ensure!(wave == Some("0"), "{path}: the template is in wave {wave:?}"),
        Some("Session") => {
            anyhow::ensure!(wave == Some("1") && object["spec"]["startBefore"].is_string(), "{path}: {}", object["metadata"]);
        }
        other => anyhow::bail!("{path}: {other:?} in a wave"),
    }
    Ok(())
}
