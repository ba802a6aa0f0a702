//! Which pods run here, as whom, and what is refused: what is not done must not look done.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::container::User;

/// Why a pod cannot run here at all; nothing if it can.
pub(super) fn refusal(pod: &Pod) -> Option<String> {
    let Some(spec) = &pod.spec else { return Some("it has no spec".to_owned()) };
    let container = spec.containers.first();
    let has = |wanted: fn(&Container) -> bool| container.is_some_and(wanted);
    let checks = [
        (spec.restart_policy.as_deref() != Some("Never"), "a restartPolicy other than Never"),
        (spec.containers.len() != 1, "more than one container"),
        (spec.init_containers.as_ref().is_some_and(|all| !all.is_empty()), "initContainers"),
        (has(|it| it.command.as_ref().is_none_or(Vec::is_empty)), "a container without a command (images are not looked into)"),
        (has(|it| it.env_from.as_ref().is_some_and(|all| !all.is_empty())), "envFrom"),
        (has(|it| it.lifecycle.is_some()), "lifecycle hooks"),
        (has(|it| it.liveness_probe.is_some() || it.readiness_probe.is_some() || it.startup_probe.is_some()), "probes"),
        (has(|it| it.volume_mounts.iter().flatten().any(|mount| mount.sub_path_expr.is_some())), "subPathExpr"),
    ];
    let found: Vec<&str> = checks.into_iter().filter_map(|(found, what)| found.then_some(what)).collect();
    (!found.is_empty()).then(|| format!("the test node agent runs no pod with {}", found.join(", ")))
}

/// Whom a container runs as. An image's own user is not known: it counts as root, as an image without one.
pub(super) fn user(spec: &PodSpec, container: &Container) -> anyhow::Result<User> {
    let pod = spec.security_context.clone().unwrap_or_default();
    let own = container.security_context.clone().unwrap_or_default();
    let uid = own.run_as_user.or(pod.run_as_user).unwrap_or(0);
    let non_root = own.run_as_non_root.or(pod.run_as_non_root) == Some(true);
    anyhow::ensure!(!non_root || uid != 0, "container has runAsNonRoot and image will run as root (container: {})", container.name);
    let dropped = own.capabilities.and_then(|capabilities| capabilities.drop).unwrap_or_default();
    Ok(User {
        uid,
        gid: own.run_as_group.or(pod.run_as_group).unwrap_or(0),
        groups: pod.fs_group.into_iter().chain(pod.supplemental_groups.unwrap_or_default()).collect(),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        no_capabilities: dropped.iter().any(|capability| capability == "ALL"),
    })
}
