//! What the agent writes to the API server, again and again until it is there: the API server may be away on purpose.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod, PodStatus};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::json;

use super::NODE;

/// Pause before a call is tried again.
const PAUSE: Duration = Duration::from_millis(200);

/// Calls until there is an answer that will not change. Nothing: the API server refuses, mostly because the object is gone.
pub(super) async fn insist<T, F>(what: &str, call: impl Fn() -> F) -> Option<T>
where
    F: Future<Output = kube::Result<T>>,
{
    loop {
        match call().await {
            Ok(answer) => return Some(answer),
            Err(kube::Error::Api(status)) if status.code < 500 && status.code != 429 => {
                tracing::debug!(code = status.code, "{what}: {}", status.message);
                return None;
            }
            Err(error) => tracing::debug!(%error, "{what}: will be tried again"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// One pod at the API server: never another of the same name.
#[derive(Clone)]
pub(super) struct PodApi {
    api: Api<Pod>,
    name: String,
    namespace: String,
    uid: String,
}

impl PodApi {
    pub(super) fn new(client: Client, pod: &Pod) -> Self {
        let text = |part: &Option<String>| part.clone().unwrap_or_default();
        let (name, namespace, uid) = (text(&pod.metadata.name), text(&pod.metadata.namespace), text(&pod.metadata.uid));
        Self { api: Api::namespaced(client, &namespace), name, namespace, uid }
    }

    /// Puts it on our node. False: somebody else had it first, or it is gone.
    pub(super) async fn bind(&self) -> bool {
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            uid: Some(self.uid.clone()),
            ..ObjectMeta::default()
        };
        let target = ObjectReference { kind: Some("Node".to_owned()), name: Some(NODE.to_owned()), ..ObjectReference::default() };
        let binding = Binding { metadata, target };
        let bound = insist("binding a pod", || async {
            self.api.create_subresource::<_, serde_json::Value>("binding", &self.name, &PostParams::default(), &binding).await.map(drop)
        });
        if bound.await.is_some() {
            return true;
        }
        // The answer to our own binding may have been lost.
        let found = insist("reading a pod", || self.api.get(&self.name)).await;
        found.is_some_and(|pod| pod.metadata.uid.as_ref() == Some(&self.uid) && super::is_here(&pod))
    }

    /// Writes its status. False: it is gone.
    pub(super) async fn report(&self, status: &PodStatus) -> bool {
        let patch = Patch::Strategic(json!({"metadata": {"uid": self.uid}, "status": status}));
        let parameters = PatchParams::default();
        insist("a pod's status", || self.api.patch_status(&self.name, &parameters, &patch)).await.is_some()
    }

    /// What the controller manager's pod collector does for a machine that was declared out of service.
    pub(super) async fn collect(&self) -> anyhow::Result<()> {
        let failed = PodStatus { phase: Some("Failed".to_owned()), ..PodStatus::default() };
        anyhow::ensure!(self.report(&failed).await, "pod {} is gone already", self.name);
        self.remove().await;
        Ok(())
    }

    /// Takes it away for good, now that nothing of it runs.
    pub(super) async fn remove(&self) {
        let preconditions = Preconditions { uid: Some(self.uid.clone()), resource_version: None };
        let parameters = DeleteParams { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteParams::default() };
        let _gone_already = insist("removing a pod", || async { self.api.delete(&self.name, &parameters).await.map(drop) }).await;
    }
}
