//! Statuses of pods as the kubelet writes them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition,
    PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::ADDRESS;

/// How a container ended.
#[derive(Debug, Clone)]
pub(super) struct End {
    pub(super) exit_code: i32,
    /// Why, where the exit code does not say it.
    pub(super) reason: Option<&'static str>,
    pub(super) message: Option<String>,
    /// Why the pod ended, where that is another reason than its container's.
    pub(super) pod: Option<(&'static str, &'static str)>,
}

impl End {
    pub(super) fn exited(exit_code: i32) -> Self {
        Self { exit_code, reason: None, message: None, pod: None }
    }

    /// Not by itself, or nobody saw it.
    pub(super) fn because(exit_code: i32, reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason: Some(reason), message: Some(message.into()), ..Self::exited(exit_code) }
    }

    pub(super) fn for_pod(self, reason: &'static str, message: &'static str) -> Self {
        Self { pod: Some((reason, message)), ..self }
    }
}

/// What is said of one pod, from its arrival at the node on.
pub(super) struct Statuses {
    name: String,
    image: String,
    container_id: String,
    arrived: Timestamp,
    running: Option<Timestamp>,
}

impl Statuses {
    pub(super) fn new(pod: &Pod) -> Self {
        let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        Self {
            name: container.map(|container| container.name.clone()).unwrap_or_default(),
            image: container.and_then(|container| container.image.clone()).unwrap_or_default(),
            container_id: format!("process://{uid}"),
            arrived: Timestamp::now(),
            running: None,
        }
    }

    /// It cannot run here and never will.
    pub(super) fn refused(&self, message: &str) -> PodStatus {
        PodStatus {
            phase: Some("Failed".to_owned()),
            reason: Some("UnexpectedAdmissionError".to_owned()),
            message: Some(format!("Pod was rejected: {message}")),
            start_time: Some(Time(self.arrived)),
            ..PodStatus::default()
        }
    }

    /// Its container does not run yet.
    pub(super) fn waiting(&self, reason: &str, message: Option<String>) -> PodStatus {
        let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
        let state = ContainerState { waiting: Some(waiting), ..ContainerState::default() };
        self.status("Pending", state, self.arrived, Some("ContainersNotReady"))
    }

    /// Its container runs from now on.
    pub(super) fn running(&mut self) -> PodStatus {
        let now = Timestamp::now();
        self.running = Some(now);
        let running = ContainerStateRunning { started_at: Some(Time(now)) };
        self.status("Running", ContainerState { running: Some(running), ..ContainerState::default() }, now, None)
    }

    /// Its container has ended just now.
    pub(super) fn ended(&self, end: End) -> PodStatus {
        let now = Timestamp::now();
        let succeeded = end.exit_code == 0 && end.pod.is_none();
        let reason = end.reason.unwrap_or(if end.exit_code == 0 { "Completed" } else { "Error" });
        let terminated = ContainerStateTerminated {
            container_id: self.running.map(|_| self.container_id.clone()),
            exit_code: end.exit_code,
            reason: Some(reason.to_owned()),
            message: end.message,
            started_at: self.running.map(Time),
            finished_at: self.running.map(|_| Time(now)),
            ..ContainerStateTerminated::default()
        };
        let state = ContainerState { terminated: Some(terminated), ..ContainerState::default() };
        let (phase, ready) = if succeeded { ("Succeeded", "PodCompleted") } else { ("Failed", "PodFailed") };
        let mut status = self.status(phase, state, now, Some(ready));
        if let Some((reason, message)) = end.pod {
            status.reason = Some(reason.to_owned());
            status.message = Some(message.to_owned());
        }
        status
    }

    /// Ready since then, or not ready for this reason.
    fn status(&self, phase: &str, state: ContainerState, since: Timestamp, not_ready: Option<&str>) -> PodStatus {
        let ready = not_ready.is_none();
        let condition = |type_: &str, is: bool, since: Timestamp, reason: Option<&str>| PodCondition {
            type_: type_.to_owned(),
            status: if is { "True" } else { "False" }.to_owned(),
            last_transition_time: Some(Time(since)),
            reason: reason.map(str::to_owned),
            ..PodCondition::default()
        };
        let container = ContainerStatus {
            name: self.name.clone(),
            image: self.image.clone(),
            image_id: String::new(),
            container_id: self.running.map(|_| self.container_id.clone()),
            ready,
            started: Some(ready),
            restart_count: 0,
            state: Some(state),
            ..ContainerStatus::default()
        };
        PodStatus {
            phase: Some(phase.to_owned()),
            // Scheduled, and what others say of the pod, stays: the patch merges conditions by type.
            conditions: Some(vec![
                condition("Initialized", true, self.arrived, None),
                condition("Ready", ready, since, not_ready),
                condition("ContainersReady", ready, since, not_ready),
            ]),
            container_statuses: Some(vec![container]),
            host_ip: Some(ADDRESS.to_owned()),
            host_ips: Some(vec![HostIP { ip: ADDRESS.to_owned() }]),
            pod_ip: Some(ADDRESS.to_owned()),
            pod_ips: Some(vec![PodIP { ip: ADDRESS.to_owned() }]),
            start_time: Some(Time(self.arrived)),
            ..PodStatus::default()
        }
    }
}
