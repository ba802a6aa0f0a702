//! The pods that are installed: those of operator and webhook, and that of agents.

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

type Result<T = ()> = anyhow::Result<T>;

/// Where pods are described, and how to get from the object to the pod.
const PODS: [(&str, &str); 3] =
    [("base/deployment.yaml", "/spec/template/spec"), ("webhook/deployment.yaml", "/spec/template/spec"), ("base/agent.yaml", "/spec")];

fn pod(file: &str, pointer: &str) -> Result<Value> {
    let path = Path::new("../manifests").join(file);
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let object: Value = serde_saphyr::from_str(&text)?;
    object.pointer(pointer).cloned().with_context(|| format!("{file} has no {pointer}"))
}

/// What the level `restricted` of Pod Security asks for, and a root file system that nobody writes to.
#[test]
fn pods_have_no_more_rights_than_they_need() -> Result {
    for (file, pointer) in PODS {
        let pod = pod(file, pointer)?;
        // The user of the image.
        let user = json!({"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}});
        assert_eq!(pod["securityContext"], user, "{file}");
        let containers = pod["containers"].as_array().context("no containers")?;
        assert!(!containers.is_empty() && pod.get("initContainers").is_none(), "{file}");
        for container in containers {
            let limits = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
            assert_eq!(container["securityContext"], limits, "{file}");
        }
        for name in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(name).is_none(), "{file}: {name}");
        }
        let mut volumes = pod["volumes"].as_array().context("no volumes")?.iter();
        assert!(volumes.all(|volume| volume.get("hostPath").is_none()), "{file}");
    }
    Ok(())
}

/// One image has all programs, so each pod says which one it runs. The operator finds its own image by the name of its container, and
/// gives it to agents.
#[test]
fn pods_run_their_program_of_the_one_image() -> Result {
    let mut found = Vec::new();
    for (file, pointer) in PODS {
        let pod = pod(file, pointer)?;
        let container = &pod["containers"][0];
        found.push(json!([container["name"], container["image"], container["command"]]));
    }
    let expected = [
        json!(["operator", "bos-operator", ["/usr/bin/bos-operator"]]),
        json!(["webhook", "bos-operator", ["/usr/bin/bos-webhook"]]),
        json!(["boa", null, ["/usr/bin/bos-boa"]]),
    ];
    assert_eq!(found, expected);
    Ok(())
}
