//! Jobs of agents, for Sessions of mode v1: what such a Job is, how one is launched, and how its Session is taken back.
//!
//! Every step can be repeated after a crash: the Job has a name of its own and is owned by the Session's plan; its uid is recorded
//! before it may begin, and once that is recorded no other Job is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bos_crds::{BootComponent, labels};
use k8s_openapi::api::batch::v1::{
    Job, JobSpec, PodFailurePolicy, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyOnPodConditionsPattern, PodFailurePolicyRule,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, EnvVar, EnvVarSource, ObjectFieldSelector, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions, PropagationPolicy};
use kube::{Api, Client};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::clients::{Backoff, CALL_TIMEOUT, CallError, Verdict, bounded};
use crate::lease::{Elector, LeaseConfig};
use crate::records::{JournalBytes, RecordError, Records};

/// How the process of an agent ends, as `podFailurePolicy` reads it.
pub mod exit {
    /// Wrong settings: starting again does not help.
    pub const SETTINGS: u8 = 2;
    /// The Session was taken over by another agent, or by the operator.
    pub const DEPOSED: u8 = 3;
    /// Some nodes did not get there.
    pub const PARTLY: u8 = 10;
    /// No node got there.
    pub const FAILED: u8 = 11;
    /// Something that another start may not meet.
    pub const TRANSIENT: u8 = 75;
    /// Those after which no other pod is started.
    pub const FINAL: [u8; 3] = [SETTINGS, PARTLY, FAILED];
}

/// Pods of one Job that may fail for a reason of their own (a crash, a lost machine).
const BACKOFF_LIMIT: i32 = 6;

/// However long services are away or people suspend it, after this a Session of mode v1 is given up.
const DEADLINE: Duration = Duration::from_secs(7 * 86_400);

/// An agent that holds its Lease longer than this while it should end does so on a machine that nobody can reach: its journal is
/// closed to it all the same, and what it may have sent is waited out.
const LEASE_PATIENCE: Duration = Duration::from_secs(60);

/// The variable with the name of the pod, which is the agent's name in its Lease.
const IDENTITY: &str = "BOS_IDENTITY";

/// Environment variable by which an agent knows its Job.
const JOB_UID: &str = "BOS_JOB_UID";

/// Label of a pod with the uid of its Job, as the controller of Jobs sets it.
const OF_JOB: &str = "batch.kubernetes.io/controller-uid";

/// Pause before a look at a Job is made once more.
const LOOKED_AGAIN: Duration = Duration::from_secs(1);

/// How Jobs of agents are made and looked after.
#[derive(Clone)]
pub struct Launcher {
    /// The pod of an agent, as the site's manifests say; without it none is launched, and those that are there are followed.
    pub template: Option<Arc<PodTemplateSpec>>,
    /// For Jobs, Leases and BootComponents.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// Name of this process in a Lease.
    pub identity: String,
    /// Times of the Leases.
    pub lease: LeaseConfig,
}

/// The Session that a Job is for.
#[derive(Debug, Clone)]
pub struct Order {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its operation, as a label.
    pub operation: &'static str,
    /// How long the Job stays after its end; None for as long as the Session.
    pub stays: Option<Duration>,
}

impl Order {
    /// Name of the Job, and of the agent's Lease.
    #[must_use]
    pub fn job_name(&self) -> String {
        labels::job_name(&self.name, &self.uid)
    }
}

/// Why there is no Job.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// It cannot be made.
    #[error("{0}")]
    Refused(String),
    /// It was not made now; the same may work later. One that was made all the same is suspended, and found by the next try.
    #[error("{0}")]
    NotNow(String),
    /// Its uid could not be recorded.
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// What was found when a Session was taken back.
#[derive(Debug)]
pub enum TakenBack {
    /// The Job is there, or may be: it was not taken.
    StillThere,
    /// The journal as the agent left it, and its nodes as the agent left them.
    Taken(JournalBytes, Vec<BootComponent>),
}

/// Selects Jobs and pods of agents.
#[must_use]
pub fn selector() -> String {
    format!("{}={}", labels::COMPONENT, labels::COMPONENT_AGENT)
}

/// Calls until the API server has answered for good.
async fn insist<T, F>(what: &str, call: impl Fn() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let mut pauses = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        match bounded(CALL_TIMEOUT, call()).await {
            Ok(answer) => return Ok(answer),
            Err(error) => match error.verdict() {
                // A role that a person will put right.
                Verdict::Transient { .. } | Verdict::Forbidden => {
                    tracing::warn!(what, error = error.message(), "tried again until it works");
                    tokio::time::sleep(pauses.next_pause()).await;
                }
                _ => return Err(error),
            },
        }
    }
}

impl Launcher {
    fn jobs(&self) -> Api<Job> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes the Job, suspended, and records its uid. Tried once: between two tries the Session may be stopped or taken over.
    ///
    /// # Errors
    /// See [`LaunchError`].
    pub async fn launch(&self, records: &Records, order: &Order) -> Result<Job, LaunchError> {
        let Some(template) = &self.template else {
            return Err(LaunchError::NotNow("this operator was started without --agent-template".to_owned()));
        };
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = bounded(CALL_TIMEOUT, maps.get(&labels::plan_name(&order.uid, 0))).await?;
        let (jobs, job) = (self.jobs(), self.job(template, order, &found));
        let made = match bounded(CALL_TIMEOUT, jobs.create(&PostParams::default(), &job)).await {
            Err(error) if error.verdict() == Verdict::AlreadyExists => self.ours(order, &found).await?,
            other => other?,
        };
        records.give_to_agent(&order.uid, made.metadata.uid.as_deref().unwrap_or_default()).await?;
        Ok(made)
    }

    /// A Job that was made before a crash.
    async fn ours(&self, order: &Order, plan: &ConfigMap) -> Result<Job, LaunchError> {
        let name = order.job_name();
        let found = bounded(CALL_TIMEOUT, self.jobs().get(&name)).await?;
        let owned = found.metadata.owner_references.iter().flatten().any(|owner| Some(&owner.uid) == plan.metadata.uid.as_ref());
        if owned { Ok(found) } else { Err(LaunchError::Refused(format!("a Job {name} is there that is not of this Session; remove it"))) }
    }

    /// Lets a Job begin; one that is gone or begun already is left. False when it must be tried again.
    pub async fn start(&self, name: &str, uid: &str) -> bool {
        let (jobs, parameters) = (self.jobs(), PatchParams::default());
        let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "spec": {"suspend": false}}));
        let begun = insist("the Job of a Session", || jobs.patch(name, &parameters, &patch)).await;
        match begun {
            Ok(_) => true,
            Err(error) if matches!(error.verdict(), Verdict::NotFound | Verdict::Conflict) => true,
            Err(error) => {
                tracing::warn!(job = name, error = error.message(), "the Job of a Session was not begun; tried again");
                tokio::time::sleep(LOOKED_AGAIN).await;
                false
            }
        }
    }

    /// The Job that carries a Session out, suspended.
    fn job(&self, template: &PodTemplateSpec, order: &Order, plan: &ConfigMap) -> Job {
        let marks = BTreeMap::from([
            (labels::PART_OF.to_owned(), labels::PART_OF_VALUE.to_owned()),
            (labels::COMPONENT.to_owned(), labels::COMPONENT_AGENT.to_owned()),
            (labels::MANAGED_BY.to_owned(), labels::MANAGER_OPERATOR.to_owned()),
            (labels::SESSION_UID.to_owned(), order.uid.clone()),
            (labels::SESSION_NAME.to_owned(), order.name.clone()),
            (labels::SESSION_NAMESPACE.to_owned(), order.namespace.clone()),
            (labels::OPERATION.to_owned(), order.operation.to_owned()),
        ]);
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: plan.metadata.name.clone().unwrap_or_default(),
            uid: plan.metadata.uid.clone().unwrap_or_default(),
            ..OwnerReference::default()
        };
        let template = self.pod(template, order, &marks);
        let container = template.spec.as_ref().and_then(|spec| spec.containers.first()).map(|container| container.name.clone());
        Job {
            metadata: ObjectMeta {
                name: Some(order.job_name()),
                labels: Some(marks),
                owner_references: Some(vec![owner]),
                ..ObjectMeta::default()
            },
            spec: Some(JobSpec {
                suspend: Some(true),
                backoff_limit: Some(BACKOFF_LIMIT),
                active_deadline_seconds: i64::try_from(DEADLINE.as_secs()).ok(),
                ttl_seconds_after_finished: order.stays.and_then(|stays| i32::try_from(stays.as_secs()).ok()),
                // A pod on a lost machine may still be at work: no other is started before it has ended.
                pod_replacement_policy: Some("Failed".to_owned()),
                pod_failure_policy: Some(failure_policy(container.as_ref())),
                template,
                ..JobSpec::default()
            }),
            status: None,
        }
    }

    fn pod(&self, template: &PodTemplateSpec, order: &Order, marks: &BTreeMap<String, String>) -> PodTemplateSpec {
        let mut template = template.clone();
        let metadata = template.metadata.get_or_insert_default();
        let labels = metadata.labels.get_or_insert_default();
        labels.extend(marks.clone());
        let spec = template.spec.get_or_insert_default();
        spec.restart_policy = Some("Never".to_owned());
        if let Some(container) = spec.containers.first_mut() {
            let (session, uid) = (format!("--session={}/{}", order.namespace, order.name), format!("--session-uid={}", order.uid));
            container.args.get_or_insert_default().extend([format!("--namespace={}", self.namespace), session, uid]);
            let env = container.env.get_or_insert_default();
            for (name, field_path) in [(IDENTITY, "metadata.name".to_owned()), (JOB_UID, format!("metadata.labels['{OF_JOB}']"))] {
                env.retain(|variable| variable.name != name);
                let field = ObjectFieldSelector { field_path, ..ObjectFieldSelector::default() };
                let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
                env.push(EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() });
            }
        }
        template
    }

    /// Ends the Job, and with it its pods.
    pub async fn delete(&self, name: &str, uid: Option<&str>) {
        let preconditions = uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let parameters = DeleteParams { propagation_policy: Some(PropagationPolicy::Background), preconditions, ..DeleteParams::default() };
        let jobs = self.jobs();
        let deleted = insist("the Job of a Session", || jobs.delete(name, &parameters)).await;
        match deleted {
            Ok(_) => tracing::info!(job = name, "Job removed"),
            Err(error) if matches!(error.verdict(), Verdict::NotFound | Verdict::Conflict) => {}
            Err(error) => tracing::warn!(job = name, error = error.message(), "the Job of a Session was not removed"),
        }
    }

    /// Takes a Session back from its agent: first its Lease, then its journal. `end` is a Job that must end first; without it the Job
    /// is said to be gone, which is looked at again.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn take_back(
        &self,
        records: &Records,
        order: &Order,
        job_uid: &str,
        ending: Ending,
        lost: &CancellationToken,
    ) -> Result<TakenBack, RecordError> {
        let name = order.job_name();
        match ending {
            Ending::Over => {}
            Ending::Stopped => self.delete(&name, Some(job_uid)).await,
            Ending::Gone => {
                let jobs = self.jobs();
                let found = insist("the Job of a Session", || jobs.get_opt(&name)).await;
                let is_gone = found.is_ok_and(|found| found.is_none_or(|job| job.metadata.uid.as_deref() != Some(job_uid)));
                if !is_gone {
                    // The watch will tell of it.
                    tokio::time::sleep(LOOKED_AGAIN).await;
                    return Ok(TakenBack::StillThere);
                }
            }
        }
        let elector = Elector::new(self.client.clone(), &self.namespace, &name, &self.identity, self.lease);
        let held = tokio::time::timeout(LEASE_PATIENCE, elector.acquire(lost)).await;
        if held.is_err() {
            tracing::warn!(job = name, "its agent goes on holding its Lease; its journal is closed to it now");
        }
        let journal = records.take_back(&order.uid).await?;
        let components: Api<BootComponent> = Api::all(self.client.clone());
        let parameters = ListParams::default().fields(&format!("spec.session.name={}", order.name));
        let shown = insist("the nodes of a Session", || components.list(&parameters)).await;
        let shown = shown.map(|list| list.items).unwrap_or_default();
        Ok(TakenBack::Taken(journal, shown))
    }

    /// Leaves the Job of a Session that is over to itself, so that its log can be read after the plan is gone, and removes its Lease.
    pub async fn let_go(&self, order: &Order) {
        let name = order.job_name();
        let patch = Patch::Merge(json!({"metadata": {"ownerReferences": null}}));
        let (jobs, parameters) = (self.jobs(), PatchParams::default());
        let released = insist("the Job of a Session", || jobs.patch(&name, &parameters, &patch)).await;
        if let Err(error) = released.map(drop)
            && error.verdict() != Verdict::NotFound
        {
            tracing::warn!(job = name, error = error.message(), "the Job of a Session goes with its plan");
        }
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let parameters = DeleteParams::default();
        let removed = insist("the Lease of an agent", || leases.delete(&name, &parameters)).await;
        if let Err(error) = removed.map(drop)
            && error.verdict() != Verdict::NotFound
        {
            tracing::warn!(lease = name, error = error.message(), "the Lease of an agent was not removed");
        }
    }
}

/// How a Job comes to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// It has ended.
    Over,
    /// It must end, because a person said stop.
    Stopped,
    /// It seems to be gone.
    Gone,
}

impl From<CallError> for LaunchError {
    fn from(error: CallError) -> Self {
        match error.verdict() {
            // A quota, a hook of admission, or a role that a person will put right.
            Verdict::Transient { .. } | Verdict::Forbidden => Self::NotNow(error.message()),
            _ => Self::Refused(error.message()),
        }
    }
}

/// What a person must put right, and a Session that ended, is not tried again. A pod that had to go, or that lost its Lease in an outage
/// of the API server, counts as no failure.
fn failure_policy(container: Option<&String>) -> PodFailurePolicy {
    let disrupted = PodFailurePolicyOnPodConditionsPattern { type_: "DisruptionTarget".to_owned(), status: "True".to_owned() };
    let on = |action: &str, codes: &[u8]| PodFailurePolicyRule {
        action: action.to_owned(),
        on_exit_codes: Some(PodFailurePolicyOnExitCodesRequirement {
            // The code of another container, that of a mesh say, tells nothing.
            container_name: container.cloned(),
            operator: "In".to_owned(),
            values: codes.iter().copied().map(i32::from).collect(),
        }),
        ..PodFailurePolicyRule::default()
    };
    PodFailurePolicy {
        rules: vec![
            on("FailJob", &exit::FINAL),
            on("Ignore", &[exit::DEPOSED]),
            PodFailurePolicyRule {
                action: "Ignore".to_owned(),
                on_pod_conditions: Some(vec![disrupted]),
                ..PodFailurePolicyRule::default()
            },
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launcher() -> Launcher {
        let template = json!({"spec": {"serviceAccountName": "bos-agent", "restartPolicy": "OnFailure", "containers": [
            {"name": "boa", "image": "boa", "args": ["--config=/etc/bos/config.yaml"], "env": [{"name": "BOS_IDENTITY", "value": "same"}]}
        ]}});
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        });
        Launcher {
            template: Some(Arc::new(serde_json::from_value(template).unwrap())),
            client: Client::new(service, "bos"),
            namespace: "bos".to_owned(),
            identity: "bos-operator-0".to_owned(),
            lease: LeaseConfig::default(),
        }
    }

    #[tokio::test]
    async fn a_job_is_suspended_owned_and_tried_again_only_where_that_helps() {
        let order = Order {
            namespace: "bos".to_owned(),
            name: "n".repeat(50),
            uid: "0d9f-4c2a-11".to_owned(),
            operation: "Boot",
            stays: Some(Duration::from_secs(60)),
        };
        let plan: ConfigMap = serde_json::from_value(json!({"metadata": {"name": "bos-plan-0d9f-0", "uid": "p"}})).unwrap();
        let launcher = launcher();
        let job = serde_json::to_value(launcher.job(launcher.template.as_ref().unwrap(), &order, &plan)).unwrap();
        assert_eq!(job["metadata"]["name"].as_str().map(str::len), Some(63));
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], "p");
        let spec = &job["spec"];
        assert_eq!((&spec["suspend"], &spec["podReplacementPolicy"]), (&json!(true), &json!("Failed")));
        let rule = |place: usize| &spec["podFailurePolicy"]["rules"][place];
        assert_eq!(rule(0)["onExitCodes"], json!({"containerName": "boa", "operator": "In", "values": [2, 10, 11]}));
        assert_eq!((&rule(1)["action"], &rule(1)["onExitCodes"]["values"]), (&json!("Ignore"), &json!([3])));
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["restartPolicy"], "Never");
        let container = &pod["containers"][0];
        let args = [
            "--config=/etc/bos/config.yaml",
            "--namespace=bos",
            &format!("--session=bos/{}", "n".repeat(50)),
            "--session-uid=0d9f-4c2a-11",
        ];
        assert_eq!(container["args"], json!(args));
        let by_field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let job_uid = by_field("BOS_JOB_UID", "metadata.labels['batch.kubernetes.io/controller-uid']");
        assert_eq!(container["env"], json!([by_field("BOS_IDENTITY", "metadata.name"), job_uid]));
    }
}
