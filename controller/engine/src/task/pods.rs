//! How the pod of an agent is, in words for people.

use std::time::Duration;

use bos_crds::bounded;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};
use kube::ResourceExt;

use crate::agents::exit;
use crate::events::WORTH_AN_EVENT;

/// What a container, or whoever starts it, says at its end may be a page of its log.
const SAID: usize = 300;

/// How an agent stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is at work.
    Works,
    /// It will be, as far as is known, or has done its work.
    OnItsWay,
    /// It cannot be; worth telling people when that has lasted so long.
    InTrouble(Duration),
}

/// How a pod is, in words, and how the agent in it stands.
pub(super) fn of_pod(pod: &Pod) -> (String, Standing) {
    let (name, status) = (pod.name_any(), pod.status.clone().unwrap_or_default());
    let phase = status.phase.unwrap_or_else(|| "Pending".to_owned());
    let ours = pod.spec.as_ref().and_then(|spec| spec.containers.first()).map(|container| container.name.as_str());
    let container = status.container_statuses.into_iter().flatten().find(|container| Some(container.name.as_str()) == ours);
    let state = container.and_then(|container| container.state).unwrap_or_default();
    if let Some(end) = state.terminated {
        // Our own codes tell the Job what to do, and the Session ends by that.
        let final_ = u8::try_from(end.exit_code).is_ok_and(|code| code == 0 || exit::FINAL.contains(&code));
        let standing = if final_ { Standing::OnItsWay } else { Standing::InTrouble(WORTH_AN_EVENT) };
        let reason = end.reason.filter(|reason| !matches!(reason.as_str(), "Completed" | "Error"));
        return (format!("pod {name} ended with exit code {}{}", end.exit_code, in_brackets([reason, end.message])), standing);
    }
    if let Some(wait) = state.waiting {
        let first = status.init_container_statuses.iter().flatten().find_map(before_ours);
        let (reason, message) = first.unwrap_or((wait.reason, wait.message));
        let standing = match reason.as_deref() {
            None | Some("ContainerCreating" | "PodInitializing") => Standing::OnItsWay,
            Some(_) => Standing::InTrouble(WORTH_AN_EVENT),
        };
        let reason = reason.or_else(|| Some("waiting".to_owned()));
        return (format!("pod {name} {phase}{}", in_brackets([reason, message])), standing);
    }
    if state.running.is_some() {
        return (format!("pod {name} {phase}"), Standing::Works);
    }
    let refused = |condition: &k8s_openapi::api::core::v1::PodCondition| condition.type_ == "PodScheduled" && condition.status == "False";
    let unscheduled = status.conditions.unwrap_or_default().into_iter().find(refused);
    let why = match (phase.as_str(), unscheduled) {
        // Without a container: the machine did not take it, or put it out.
        ("Failed", _) => [status.reason, status.message],
        (_, Some(condition)) => [condition.reason, condition.message],
        (_, None) => [None, None],
    };
    let standing =
        if why.iter().any(Option::is_some) || phase == "Failed" { Standing::InTrouble(WORTH_AN_EVENT) } else { Standing::OnItsWay };
    (format!("pod {name} {phase}{}", in_brackets(why)), standing)
}

/// Why a container that runs before ours, that of a mesh say, keeps it waiting.
fn before_ours(container: &ContainerStatus) -> Option<(Option<String>, Option<String>)> {
    let ContainerState { waiting, terminated, .. } = container.state.clone()?;
    let named = |reason: Option<String>| Some(format!("{} {}", container.name, reason?));
    let waits = waiting.filter(|wait| !matches!(wait.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing")));
    let failed = terminated.filter(|end| end.exit_code != 0);
    waits.map(|wait| (named(wait.reason), wait.message)).or_else(|| failed.map(|end| (named(end.reason), end.message)))
}

fn in_brackets(why: [Option<String>; 2]) -> String {
    let why = why.into_iter().flatten().map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let why = why.collect::<Vec<_>>().join(": ");
    if why.is_empty() { String::new() } else { format!(" ({})", bounded(&why, SAID)) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const TROUBLE: Standing = Standing::InTrouble(WORTH_AN_EVENT);

    fn seen(status: &Value) -> (String, Standing) {
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "boa"}]}, "status": status});
        of_pod(&serde_json::from_value(pod).unwrap())
    }

    fn container(state: &Value) -> Value {
        json!({"phase": "Pending", "containerStatuses": [{"name": "boa", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]})
    }

    #[test]
    fn a_pod_says_why_it_does_not_run() {
        let ended = |code: i32, reason: &str, message: &str| {
            seen(&container(&json!({"terminated": {"exitCode": code, "reason": reason, "message": message}})))
        };
        let start = "failed to create containerd task: exec: \"/usr/bin/bos-boa\": no such file or directory";
        assert_eq!(ended(128, "StartError", start), (format!("pod p ended with exit code 128 (StartError: {start})"), TROUBLE));
        assert_eq!(ended(137, "OOMKilled", ""), ("pod p ended with exit code 137 (OOMKilled)".to_owned(), TROUBLE));
        assert_eq!(ended(75, "Error", ""), ("pod p ended with exit code 75".to_owned(), TROUBLE));
        for code in [0, 2, 10, 11] {
            assert_eq!(ended(code, "Error", "").1, Standing::OnItsWay, "{code}: the Job and the Session end by it");
        }
        assert!(ended(1, "Error", &"x".repeat(4000)).0.len() < 2 * SAID);

        let waits = |reason: &str, message: &str| seen(&container(&json!({"waiting": {"reason": reason, "message": message}})));
        assert_eq!(waits("ContainerCreating", ""), ("pod p Pending (ContainerCreating)".to_owned(), Standing::OnItsWay));
        let pull = ("pod p Pending (ImagePullBackOff: Back-off pulling image \"boa\")".to_owned(), TROUBLE);
        assert_eq!(waits("ImagePullBackOff", "Back-off pulling image \"boa\""), pull);
        let secret = ("pod p Pending (CreateContainerConfigError: secret \"keys\" not found)".to_owned(), TROUBLE);
        assert_eq!(waits("CreateContainerConfigError", "secret \"keys\" not found"), secret);
        let running = json!({"running": {"startedAt": "2026-11-23T14:00:00Z"}});
        assert_eq!(seen(&container(&running)).1, Standing::Works);
    }

    #[test]
    fn what_comes_before_its_container_is_said_too() {
        let mut status = container(&json!({"waiting": {"reason": "PodInitializing"}}));
        assert_eq!(seen(&status).1, Standing::OnItsWay);
        status["initContainerStatuses"] = json!([{"name": "mesh", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]);
        assert_eq!(seen(&status), ("pod p Pending (mesh ErrImagePull: not found)".to_owned(), TROUBLE));
        let unscheduled = json!({"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]});
        assert_eq!(seen(&unscheduled), ("pod p Pending (Unschedulable: 0/3 nodes are available)".to_owned(), TROUBLE));
        let put_out = json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        assert_eq!(seen(&put_out), ("pod p Failed (Evicted: The node was low on resource: memory.)".to_owned(), TROUBLE));
        assert_eq!(seen(&json!({"phase": "Pending"})), ("pod p Pending".to_owned(), Standing::OnItsWay));
    }
}
