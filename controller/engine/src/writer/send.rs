//! One write: the request, and what its answer means.

use bos_crds::{BootComponent, BootOptions, Session, SessionTemplate, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use kube::{Client, Resource};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use std::collections::BTreeMap;
use std::time::Duration;

use super::{Kind, ObjectKey, Target, WriteJob, WriteOutcome};
use crate::clients::{CallError, Verdict, bounded};
use crate::guard::APPLY;

/// How sending ended.
#[derive(Debug)]
pub(super) enum Sent {
    /// For good.
    Settled(WriteOutcome),
    /// It must be sent again.
    Again {
        /// What the server asked for.
        retry_after: Option<Duration>,
        /// The server as a whole is away or busy.
        server: bool,
        /// The write may have taken effect.
        uncertain: bool,
    },
}

/// All that is read of an answer.
#[derive(Deserialize)]
struct Answer {
    metadata: AnswerMeta,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AnswerMeta {
    #[serde(default)]
    resource_version: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    uid: String,
}

impl From<Answer> for WriteOutcome {
    fn from(answer: Answer) -> Self {
        let AnswerMeta { resource_version, generation, uid } = answer.metadata;
        Self::Written { resource_version, generation, uid }
    }
}

/// Sends a write.
///
/// The API server compares the uid in a patch of the object itself, but not in one of its status:
/// there the resourceVersion alone tells an object from its successor of the same name. A status
/// write that names no version therefore reads it first.
pub(super) async fn send(client: &Client, timeout: Duration, job: &WriteJob) -> Sent {
    let any_version = job.resource_version.is_none() && job.target == Target::Status && !job.uid.is_empty();
    // Twice: a version that was read may be out of date by then.
    for _ in 0..2 {
        let version = match any_version {
            true => match read_version(client, timeout, job).await {
                Ok(found) => Some(found),
                Err(sent) => return sent,
            },
            false => job.resource_version.clone(),
        };
        let error = match call::<Answer>(client, timeout, request(job, version.as_deref())).await {
            Ok(answer) => return Sent::Settled(answer.into()),
            Err(error) => error,
        };
        match error.verdict() {
            Verdict::Conflict if any_version => {}
            Verdict::Conflict | Verdict::AlreadyExists => return look(client, timeout, job).await,
            _ => return judge(&error),
        }
    }
    Sent::Again { retry_after: None, server: false, uncertain: false }
}

/// The version the object has now, if it is the one that is meant.
async fn read_version(client: &Client, timeout: Duration, job: &WriteJob) -> Result<String, Sent> {
    match call::<Answer>(client, timeout, get(&job.key)).await {
        Ok(answer) if answer.metadata.uid == job.uid => Ok(answer.metadata.resource_version),
        Ok(_) => Err(Sent::Settled(WriteOutcome::Gone)),
        Err(error) => Err(judge_read(&error)),
    }
}

/// What an error other than a conflict means.
fn judge(error: &CallError) -> Sent {
    match error.verdict() {
        Verdict::NotFound => Sent::Settled(WriteOutcome::Gone),
        Verdict::Invalid if is_other_uid(error) => Sent::Settled(WriteOutcome::Gone),
        Verdict::Invalid => Sent::Settled(WriteOutcome::Refused { message: error.message() }),
        // Roles are applied a little late, and come back: what was to be shown still is.
        Verdict::Forbidden => Sent::Again { retry_after: None, server: true, uncertain: false },
        Verdict::Transient { retry_after, server } => Sent::Again { retry_after, server, uncertain: !is_busy(error) },
        Verdict::Conflict | Verdict::AlreadyExists | Verdict::Expired => Sent::Again { retry_after: None, server: false, uncertain: false },
    }
}

/// A uid that is not the object's is refused as a change of an immutable field.
fn is_other_uid(error: &CallError) -> bool {
    let CallError::Kube(kube::Error::Api(status)) = error else { return false };
    status.code == 422 && status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.field == "metadata.uid")
}

/// Turned away at the door: not carried out.
fn is_busy(error: &CallError) -> bool {
    matches!(error, CallError::Kube(kube::Error::Api(status)) if status.code == 429)
}

/// What stands where something else was expected. It may be a write of our own whose answer was lost; but what somebody else has written
/// before that or since only the caller can tell, who is given all of it.
async fn look(client: &Client, timeout: Duration, job: &WriteJob) -> Sent {
    let mut current: Value = match call(client, timeout, get(&job.key)).await {
        Ok(current) => current,
        Err(error) if error.verdict() == Verdict::NotFound && job.target == Target::Create => {
            return Sent::Again { retry_after: None, server: false, uncertain: false };
        }
        Err(error) => return judge_read(&error),
    };
    let uid = current["metadata"]["uid"].as_str().unwrap_or_default();
    if !job.uid.is_empty() && uid != job.uid {
        return Sent::Settled(WriteOutcome::Gone);
    }
    if let Some(metadata) = current["metadata"].as_object_mut() {
        let applied = |entry: &Value| entry["operation"] == APPLY;
        if !metadata.get("managedFields").and_then(Value::as_array).is_some_and(|entries| entries.iter().any(applied)) {
            metadata.remove("managedFields");
        }
    }
    Sent::Settled(WriteOutcome::Conflict { current: Box::new(current) })
}

/// A read has no effect, so its failure leaves nothing in doubt.
fn judge_read(error: &CallError) -> Sent {
    match judge(error) {
        Sent::Again { retry_after, server, .. } => Sent::Again { retry_after, server, uncertain: false },
        settled @ Sent::Settled(_) => settled,
    }
}

async fn call<T: serde::de::DeserializeOwned>(
    client: &Client,
    timeout: Duration,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<T, CallError> {
    let request = request.map_err(kube::Error::BuildRequest)?;
    bounded(timeout, client.request(request)).await
}

type Built = Result<http::Request<Vec<u8>>, kube::core::request::Error>;

fn get(key: &ObjectKey) -> Built {
    Request::new(collection(key)).get(&key.name, &kube::api::GetParams::default())
}

fn request(job: &WriteJob, version: Option<&str>) -> Built {
    let requests = Request::new(collection(&job.key));
    let name = &*job.key.name;
    let body = written(job, version).map_err(kube::core::request::Error::SerializeBody)?;
    match job.target {
        Target::Create => {
            let params = PostParams { field_manager: Some(manager(job.target).to_owned()), ..PostParams::default() };
            requests.create(&params, serde_json::to_vec(&body).map_err(kube::core::request::Error::SerializeBody)?)
        }
        Target::Spec => requests.patch(name, &patch_params(job.target), &Patch::Merge(body)),
        Target::Status => requests.patch_subresource("status", name, &patch_params(job.target), &Patch::Merge(body)),
    }
}

fn manager(target: Target) -> &'static str {
    match target {
        Target::Create | Target::Spec => labels::MANAGER_OPERATOR,
        Target::Status => labels::MANAGER_STATUS,
    }
}

fn patch_params(target: Target) -> PatchParams {
    PatchParams { field_manager: Some(manager(target).to_owned()), ..PatchParams::default() }
}

/// A patch with the uid and version that the object must have, or the whole of a new object.
fn written<'a>(job: &'a WriteJob, version: Option<&'a str>) -> serde_json::Result<BTreeMap<&'static str, Box<RawValue>>> {
    let is_new = job.target == Target::Create;
    let metadata = Metadata {
        uid: &job.uid,
        resource_version: version,
        name: is_new.then_some(&*job.key.name),
        namespace: job.key.namespace.as_deref().filter(|_| is_new),
        // One that is empty stands for none: the API server's way to drop all of them.
        managed_fields: (job.untracked && job.target == Target::Spec).then_some([ManagedFieldsEntry::default()]),
    };
    let mut parts = BTreeMap::from([("metadata", to_raw_value(&metadata)?), (job.target.part(), job.body.text()?)]);
    if is_new {
        parts.insert("apiVersion", to_raw_value(bos_crds::API_VERSION)?);
        parts.insert("kind", to_raw_value(job.key.kind.as_str())?);
    }
    Ok(parts)
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(skip_serializing_if = "str::is_empty")]
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    managed_fields: Option<[ManagedFieldsEntry; 1]>,
}

fn collection(key: &ObjectKey) -> String {
    let namespace = key.namespace.as_deref();
    match key.kind {
        Kind::SessionTemplate => SessionTemplate::url_path(&(), namespace),
        Kind::Session => Session::url_path(&(), namespace),
        Kind::BootComponent => BootComponent::url_path(&(), None),
        Kind::BootOptions => BootOptions::url_path(&(), None),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn requests_carry_the_preconditions() {
        let job = WriteJob {
            key: ObjectKey::namespaced(Kind::Session, "bos", "boot-1"),
            uid: "u-1".to_owned(),
            resource_version: Some("7".to_owned()),
            target: Target::Status,
            body: json!({"phase": "Running"}).into(),
            version: 1,
            urgency: super::super::Urgency::Normal,
            not_before: None,
            untracked: true,
        };
        let sent = request(&job, job.resource_version.as_deref()).unwrap();
        assert_eq!(sent.uri().path(), "/apis/bos.hpe.com/v1alpha1/namespaces/bos/sessions/boot-1/status");
        let body: Value = serde_json::from_slice(sent.body()).unwrap();
        assert_eq!(body, json!({"status": {"phase": "Running"}, "metadata": {"uid": "u-1", "resourceVersion": "7"}}));
        let spec = WriteJob { target: Target::Spec, body: json!({"run": "r"}).into(), ..job.clone() };
        let body: Value = serde_json::from_slice(request(&spec, Some("7")).unwrap().body()).unwrap();
        assert_eq!(body, json!({"spec": {"run": "r"}, "metadata": {"uid": "u-1", "resourceVersion": "7", "managedFields": [{}]}}));
        let node = WriteJob {
            uid: String::new(),
            key: ObjectKey::cluster(Kind::BootComponent, "x1c0s0b0n0"),
            target: Target::Create,
            body: json!({}).into(),
            ..job
        };
        let sent = request(&node, None).unwrap();
        assert_eq!(sent.uri().path(), "/apis/bos.hpe.com/v1alpha1/bootcomponents");
        let body: Value = serde_json::from_slice(sent.body()).unwrap();
        assert_eq!(
            body,
            json!({"apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "metadata": {"name": "x1c0s0b0n0"}, "spec": {}})
        );
    }
}
