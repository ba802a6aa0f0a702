//! What our programs have asked of the API server, kept beyond its life: `bos-rights` compares it with the roles in our manifests.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Set to a folder to find a file in it for each control plane that has ended.
const FOLDER: &str = "BOS_E2E_AUDIT_DIR";
/// Service accounts of our programs begin with this.
const OURS: &str = "system:serviceaccount:bos:bos-";
/// Records what our programs ask, where nobody wants to know of the others.
pub(super) const POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
  userGroups: ['system:serviceaccounts:bos']
- level: None
";

/// A request of one of our programs, as the API server judged it. Many of the same are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Asked {
    /// Its service account, such as `bos-operator`.
    pub account: String,
    /// As in a role.
    pub verb: String,
    /// As in a role.
    pub group: String,
    /// As in a role: `sessions` or `sessions/status`. A path where it is no resource.
    pub resource: String,
    /// Empty where there is none.
    pub namespace: String,
    /// Empty where there is none.
    pub name: String,
    /// Whether the authorizer let it pass. What comes after it (quotas, admission) may still have refused it.
    pub allowed: bool,
    /// Which binding of which role let it pass, in the API server's words.
    pub reason: String,
    /// Whether it was answered with success.
    pub done: bool,
}

/// The folder, where one is set.
pub(super) fn folder() -> Option<PathBuf> {
    std::env::var_os(FOLDER).filter(|folder| !folder.is_empty()).map(PathBuf::from)
}

/// Writes what a log has of our programs into a new file of the folder, each once.
pub(super) fn keep(log: &Path, folder: &Path) -> anyhow::Result<()> {
    let log = BufReader::new(File::open(log).with_context(|| format!("opening {}", log.display()))?);
    let mut all = BTreeSet::new();
    for line in log.lines() {
        // Only a killed API server leaves half a line.
        let Ok(entry) = serde_json::from_str::<Value>(&line?) else { continue };
        all.extend(asked(&entry));
    }
    if all.is_empty() {
        return Ok(());
    }
    let mut text = String::new();
    for asked in &all {
        writeln!(text, "{}", serde_json::to_string(asked)?)?;
    }
    std::fs::create_dir_all(folder)?;
    let path = folder.join(format!("{}.jsonl", uuid::Uuid::new_v4()));
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}

/// An entry of the log, if it is one of our programs'.
fn asked(entry: &Value) -> Option<Asked> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let account = entry["user"]["username"].as_str()?.strip_prefix(OURS)?;
    let (object, annotations) = (&entry["objectRef"], &entry["annotations"]);
    let resource = match (object["resource"].as_str(), object["subresource"].as_str()) {
        (Some(resource), Some(part)) => format!("{resource}/{part}"),
        (Some(resource), None) => resource.to_owned(),
        (None, _) => text(&entry["requestURI"]),
    };
    Some(Asked {
        account: format!("bos-{account}"),
        verb: text(&entry["verb"]),
        group: text(&object["apiGroup"]),
        resource,
        namespace: text(&object["namespace"]),
        name: text(&object["name"]),
        allowed: annotations["authorization.k8s.io/decision"] == "allow",
        reason: text(&annotations["authorization.k8s.io/reason"]),
        done: entry["responseStatus"]["code"].as_u64().is_some_and(|code| code < 400),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(user: &str, decision: &str, code: u64) -> String {
        serde_json::json!({
            "user": {"username": user}, "verb": "patch", "requestURI": "/somewhere",
            "objectRef": {"apiGroup": "bos.hpe.com", "resource": "sessions", "subresource": "status", "namespace": "bos", "name": "one"},
            "responseStatus": {"code": code},
            "annotations": {"authorization.k8s.io/decision": decision, "authorization.k8s.io/reason": "why"},
        })
        .to_string()
    }

    #[test]
    fn what_our_programs_ask_is_kept_once() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.log");
        let ours = "system:serviceaccount:bos:bos-operator";
        let lines = [
            entry(ours, "allow", 200),
            entry(ours, "allow", 200),
            entry(ours, "allow", 409),
            entry(ours, "forbid", 403),
            entry("token-admin", "allow", 200),
            "{\"half".to_owned(),
        ];
        std::fs::write(&log, lines.join("\n")).unwrap();
        let kept = folder.path().join("kept");
        keep(&log, &kept).unwrap();
        let file = std::fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(file).unwrap();
        let asked: Vec<Asked> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(asked.iter().all(|asked| asked.account == "bos-operator" && asked.resource == "sessions/status" && asked.name == "one"));
        let judged: Vec<(bool, bool)> = asked.iter().map(|asked| (asked.allowed, asked.done)).collect();
        assert_eq!(judged, [(false, false), (true, false), (true, true)]);
    }
}
