//! The life of one pod at the node.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::Api;
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::Instant;

use super::api::PodApi;
use super::container::{Container, Launch, Mount};
use super::objects::Objects;
use super::status::{End, Statuses};
use super::volumes::Volumes;
use super::{Shared, accepts, env, is_here, is_over};

/// Pause before a pod that cannot start yet is looked at again.
const AGAIN: Duration = Duration::from_millis(500);

/// Reason and message of a pod that has outlived its `activeDeadlineSeconds`.
const DEADLINE_EXCEEDED: (&str, &str) = ("DeadlineExceeded", "Pod was active on the node longer than the specified deadline");

/// A pod as it was last seen; nothing once it is gone.
pub(super) type Seen = Option<Arc<Pod>>;

/// Looks after one pod.
pub(super) struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    api: PodApi,
    seen: watch::Receiver<Seen>,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, pod: Arc<Pod>, seen: watch::Receiver<Seen>) -> Self {
        let api = PodApi::new(shared.client.clone(), &pod);
        Self { shared, pod, api, seen }
    }

    /// From the binding to the removal.
    pub(super) async fn run(mut self) {
        if !is_here(&self.pod) && !self.api.bind().await {
            return;
        }
        if !is_over(&self.pod) {
            let mut statuses = Statuses::new(&self.pod);
            let end = self.live(&mut statuses).await;
            if let Some(end) = end
                && !self.api.report(&statuses.ended(end)).await
            {
                return;
            }
        }
        if self.deleted().await.is_some() {
            self.api.remove().await;
        }
    }

    /// Until the container has ended. Nothing: there is no more to say.
    async fn live(&mut self, statuses: &mut Statuses) -> Option<End> {
        let phase = self.pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if phase == Some("Running") {
            let message = "The container could not be located when the pod was terminated";
            return Some(End::because(137, "ContainerStatusUnknown", message));
        }
        if let Some(why) = accepts::refusal(&self.pod) {
            self.api.report(&statuses.refused(&why)).await;
            return None;
        }
        if !self.api.report(&statuses.waiting("ContainerCreating", None)).await {
            return None;
        }
        let limit = self.pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
        let deadline = limit.map(|limit| Instant::now() + seconds(limit));
        let launch = match self.prepared(statuses, deadline).await {
            Ok(launch) => launch,
            Err(end) => return Some(end),
        };
        let container = match self.shared.launch(&self.pod, &launch) {
            Ok(container) => container,
            Err(error) => return Some(End::because(128, "StartError", format!("{error:#}"))),
        };
        if !container.runs().await {
            return Some(End::because(128, "StartError", container.trouble()));
        }
        // One that is gone meanwhile is still to be ended.
        self.api.report(&statuses.running()).await;
        Some(self.watched(&container, deadline).await)
    }

    /// Everything the container needs. As long as something is missing the pod waits and says for what.
    async fn prepared(&mut self, statuses: &Statuses, deadline: Option<Instant>) -> Result<Launch, End> {
        let mut said = String::new();
        loop {
            let trouble = match self.prepare().await {
                Ok(launch) => return Ok(launch),
                Err(error) => format!("{error:#}"),
            };
            if trouble != said {
                self.api.report(&statuses.waiting("CreateContainerConfigError", Some(trouble.clone()))).await;
                said = trouble;
            }
            tokio::select! {
                _ = self.deleted() => {
                    return Err(End::because(137, "ContainerStatusUnknown", "The container could not be located when the pod was deleted"));
                }
                () = passed(deadline) => {
                    let end = End::because(137, "ContainerStatusUnknown", "The container could not be located when the pod was terminated");
                    return Err(end.for_pod(DEADLINE_EXCEEDED.0, DEADLINE_EXCEEDED.1));
                }
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn prepare(&self) -> anyhow::Result<Launch> {
        let (spec, container) = parts(&self.pod)?;
        let user = accepts::user(spec, container)?;
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        let client = self.shared.client.clone();
        let objects = Objects::new(client.clone(), namespace);
        let folder = self.shared.folder(&self.pod).join("volumes");
        let volumes = Volumes { pod: &self.pod, objects: &objects, accounts: Api::namespaced(client, namespace), folder };
        let mut mounts = volumes.make(container).await?;
        let executables = self.shared.executables.iter();
        mounts.extend(executables.map(|(target, source)| Mount { source: source.clone(), target: target.clone(), read_only: true }));
        let env = env::environment(&self.pod, container, self.shared.api_server, &objects).await?;
        let security = container.security_context.as_ref();
        Ok(Launch {
            command: env::command(container, &env),
            env: env.into_iter().collect(),
            working_dir: container.working_dir.clone().unwrap_or_default(),
            mounts,
            read_only_root: security.is_some_and(|security| security.read_only_root_filesystem == Some(true)),
            user,
        })
    }

    /// Until the container has ended, by itself or because it must.
    async fn watched(&mut self, container: &Container, deadline: Option<Instant>) -> End {
        let spec = self.pod.spec.clone().unwrap_or_default();
        tokio::select! {
            code = container.wait() => End::exited(code),
            seen = self.deleted() => {
                let code = self.ended(container, grace(seen.as_deref(), &spec)).await;
                End::exited(code)
            }
            () = passed(deadline) => {
                let code = self.ended(container, grace(None, &spec)).await;
                End::exited(code).for_pod(DEADLINE_EXCEEDED.0, DEADLINE_EXCEEDED.1)
            }
        }
    }

    /// SIGTERM, and SIGKILL after the grace, which whoever deletes the pod again may shorten.
    async fn ended(&mut self, container: &Container, mut grace: Duration) -> i32 {
        let began = Instant::now();
        container.signal(Signal::TERM);
        loop {
            tokio::select! {
                code = container.wait() => return code,
                () = tokio::time::sleep_until(began + grace) => {
                    container.signal(Signal::KILL);
                    return container.wait().await;
                }
                Ok(()) = self.seen.changed() => {
                    let pod = self.seen.borrow_and_update().clone();
                    if pod.as_ref().is_some_and(|pod| pod.metadata.deletion_timestamp.is_some()) {
                        grace = grace.min(self::grace(pod.as_deref(), &PodSpec::default()));
                    }
                }
            }
        }
    }

    /// Waits until somebody deletes the pod. Nothing: it is gone already.
    async fn deleted(&mut self) -> Seen {
        let deleted = |seen: &Seen| seen.as_ref().is_none_or(|pod| pod.metadata.deletion_timestamp.is_some());
        // Nobody is there to see it any more when the agent stops; then this task ends too.
        self.seen.wait_for(deleted).await.ok().and_then(|seen| seen.clone())
    }
}

fn parts(pod: &Pod) -> anyhow::Result<(&PodSpec, &k8s_openapi::api::core::v1::Container)> {
    let spec = pod.spec.as_ref().context("the pod has no spec")?;
    Ok((spec, spec.containers.first().context("the pod has no container")?))
}

/// What is left to a container after SIGTERM; a second at least, as with the kubelet.
fn grace(pod: Option<&Pod>, spec: &PodSpec) -> Duration {
    let of_deletion = pod.and_then(|pod| pod.metadata.deletion_grace_period_seconds).filter(|grace| *grace > 0);
    seconds(of_deletion.or(spec.termination_grace_period_seconds).unwrap_or(1).max(1))
}

/// Waits until then; without a deadline, for ever.
async fn passed(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn seconds(number: i64) -> Duration {
    Duration::from_secs(u64::try_from(number).unwrap_or(0))
}
