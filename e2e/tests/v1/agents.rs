//! What a person sees of Sessions of mode v1: the Job, its pods, their logs, and the boot set status.

use bos_crds::{BootSetPhaseName, Session, labels};
use bos_e2e::rig::{NAMESPACE, template, watch_until};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::runtime::watcher;
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::bench::{Bench, LIMIT, Result};

/// A Session of mode v1.
pub fn session(name: &str, template: &str, operation: &str) -> String {
    session_with(name, template, operation, &json!({}))
}

/// The same with more in its spec.
pub fn session_with(name: &str, template: &str, operation: &str, more: &Value) -> String {
    let mut spec = json!({"mode": "v1", "operation": operation, "templateName": template});
    spec.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    template::session_with(name, &spec)
}

impl Bench {
    /// Applies a Session of mode v1 and waits for its end.
    pub async fn run_v1(&self, name: &str, template: &str, operation: &str) -> Result<Session> {
        self.rig.apply(&session(name, template, operation)).await?;
        self.ended_v1(name).await
    }

    /// Waits for the end of a Session; what its agent logged goes with the error.
    pub async fn ended_v1(&self, name: &str) -> Result<Session> {
        match self.ended(name).await {
            Ok(session) => Ok(session),
            Err(error) => Err(error.context(self.logs(name).await.unwrap_or_default())),
        }
    }

    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.rig.client(), NAMESPACE)
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.rig.client(), NAMESPACE)
    }

    /// Waits until the Job of a Session is as wanted.
    pub async fn job(&self, session: &str, is_right: impl Fn(&Job) -> bool) -> Result<Job> {
        let config = watcher::Config::default().labels(&format!("{}={session}", labels::SESSION_NAME));
        let found = watch_until(self.jobs(), config, LIMIT, |all| all.values().find(|job| is_right(job)).cloned());
        found.await.map_err(|error| error.context(format!("Job of {session}")))
    }

    /// Waits until there is no Job of a Session.
    pub async fn no_job(&self, session: &str) -> Result {
        let config = watcher::Config::default().labels(&format!("{}={session}", labels::SESSION_NAME));
        watch_until(self.jobs(), config, LIMIT, |all| all.is_empty().then_some(())).await
    }

    /// Waits for a pod of a Session that is as wanted.
    pub async fn pod(&self, session: &str, is_right: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let config = watcher::Config::default().labels(&format!("{}={session}", labels::SESSION_NAME));
        let found = watch_until(self.pods(), config, LIMIT, |all| all.values().find(|pod| is_right(pod)).cloned());
        found.await.map_err(|error| error.context(format!("pod of {session}")))
    }

    /// All pods of a Session, oldest first.
    pub async fn pods_of(&self, session: &str) -> Result<Vec<Pod>> {
        let parameters = ListParams::default().labels(&format!("{}={session}", labels::SESSION_NAME));
        let mut pods = self.pods().list(&parameters).await?.items;
        pods.sort_by_key(|pod| pod.creation_timestamp().map(|at| at.0));
        Ok(pods)
    }

    /// What `kubectl logs` shows of all pods of a Session.
    pub async fn logs(&self, session: &str) -> Result<String> {
        let node = self.rig.node_agent().expect("there is a node");
        let logs = self.pods_of(session).await?.iter().map(|pod| node.log_text(pod).unwrap_or_default()).collect::<Vec<_>>();
        Ok(logs.join("\n---\n"))
    }

    /// Waits for an Event on a Session that gives this reason and says this, and returns what it says.
    pub async fn told(&self, session: &str, reason: &str, text: &str) -> Result<String> {
        let api: Api<Event> = Api::namespaced(self.rig.client(), NAMESPACE);
        let says = |event: &Event| {
            let note = event.note.clone().filter(|note| note.contains(text))?;
            let about = event.regarding.as_ref().and_then(|object| object.name.as_deref()) == Some(session);
            (about && event.reason.as_deref() == Some(reason)).then_some(note)
        };
        let found = watch_until(api, watcher::Config::default(), LIMIT, |all| all.values().find_map(says));
        found.await.map_err(|error| error.context(format!("Event {reason} on {session}")))
    }

    /// Names of the records of a Session that are left.
    pub async fn records(&self, uid: &str) -> Result<Vec<String>> {
        let maps: Api<ConfigMap> = Api::namespaced(self.rig.client(), NAMESPACE);
        let found = maps.list(&ListParams::default().labels(&labels::session_selector(uid))).await?;
        Ok(found.items.iter().map(kube::ResourceExt::name_any).collect())
    }
}

/// The container of this pod runs.
pub fn runs(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase.as_deref() == Some("Running"))
}

/// Exit code of the container of this pod, once it has ended.
pub fn exit_code(pod: &Pod) -> Option<i32> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// The nodes of the first boot set in a phase: not started, in progress, succeeded, failed, excluded; and the reasons.
pub fn phase(session: &Session, name: BootSetPhaseName) -> ([i32; 5], Vec<String>) {
    let sets = session.status.clone().unwrap_or_default().boot_sets;
    let found = sets.first().and_then(|set| set.phases.iter().find(|phase| phase.name == name)).expect("the phase is shown");
    let counts = [found.not_started, found.in_progress, found.succeeded, found.failed, found.excluded];
    let mut reasons: Vec<String> = found.reasons.iter().map(|reason| format!("{} {}", reason.count, reason.reason)).collect();
    reasons.sort();
    (counts, reasons)
}

/// Reason of each failure with how many nodes, sorted.
pub fn failures(session: &Session) -> Vec<String> {
    let groups = session.status.clone().unwrap_or_default().failures;
    let mut all: Vec<String> = groups.iter().map(|group| format!("{} {}", group.count, group.reason)).collect();
    all.sort();
    all
}

/// What a Session says, for messages.
pub fn said(session: &Session) -> String {
    let status = session.status.clone().unwrap_or_default();
    format!("{} {:?} {:?}", status.message, status.failures, status.boot_sets)
}
