//! The Controller of SessionTemplates: looks at each when it is written and every ten minutes, and shows what it found.
//!
//! It only shows. Set-up of a Session looks for itself, so a status that lags does no harm.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bos_crds::{SessionTemplate, SessionTemplateStatus, labels, merge_diff};
use bos_engine::clients::{Backoff, CALL_TIMEOUT, CallError, bounded};
use bos_engine::telemetry::Telemetry;
use futures::StreamExt;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, Error};
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::template_check::check;

/// A template nobody touched is looked at this often; so is one whose services do not answer, at the longest.
const AGAIN: Duration = Duration::from_secs(600);
/// After a failure for the first time.
const SOON: Duration = Duration::from_secs(5);
/// The server ends a watch after this long, so that a connection that died silently is noticed.
const WATCH_SECONDS: u32 = 200;
/// Templates looked at together.
const AT_A_TIME: u16 = 4;
/// How often to see whether this process leads by now.
const LEADING_YET: Duration = Duration::from_secs(1);

/// A template as the API server has it, also one that cannot be read.
type Guarded = DeserializeGuard<SessionTemplate>;

/// Why a template could not be looked at.
#[derive(Debug, thiserror::Error)]
enum TemplateError {
    /// Its status could not be written.
    #[error("cannot write the status: {}", .0.message())]
    Write(#[from] CallError),
    /// Its status cannot be turned into JSON.
    #[error("cannot serialise the status: {0}")]
    Json(#[from] serde_json::Error),
}

/// What the reconciler needs.
struct Context {
    client: Client,
    services: bos_services::Clients,
    telemetry: Arc<Telemetry>,
    /// Pauses of templates that failed or could not be checked, by namespace and name.
    pauses: Mutex<HashMap<(String, String), Backoff>>,
}

/// Runs the Controller while this process leads, until `cancel` is cancelled.
pub(crate) async fn run(client: Client, services: bos_services::Clients, telemetry: Arc<Telemetry>, cancel: CancellationToken) {
    while !telemetry.leading.load(Ordering::Relaxed) {
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LEADING_YET) => {}
        }
    }
    let (reader, writer) = reflector::store();
    // The Controller is given objects and no errors: it would hold back everything for an error of this stream.
    let templates = watcher(Api::<Guarded>::all(client.clone()), watcher::Config::default().timeout(WATCH_SECONDS))
        .default_backoff()
        .modify(|template| template.managed_fields_mut().clear())
        .reflect(writer)
        .applied_objects()
        .predicate_filter(predicates::generation, PredicateConfig::default())
        .filter_map(async |template| match template {
            Ok(template) => Some(Ok(template)),
            Err(error) => {
                tracing::warn!(%error, "watch of templates failed; trying again");
                None
            }
        });
    let context = Arc::new(Context { client, services, telemetry, pauses: Mutex::default() });
    Controller::for_stream(templates, reader)
        .with_config(Config::default().concurrency(AT_A_TIME))
        .graceful_shutdown_on(cancel.cancelled_owned())
        .run(reconcile, on_failure, Arc::clone(&context))
        .for_each(async |done| {
            // A look that was planned at something deleted meanwhile.
            if let Err(Error::ObjectNotFound(gone)) = done {
                context.pauses().remove(&(gone.namespace.unwrap_or_default(), gone.name));
            }
        })
        .await;
}

async fn reconcile(template: Arc<Guarded>, context: Arc<Context>) -> Result<Action, TemplateError> {
    let template = match &template.0 {
        Ok(template) => template,
        Err(error) => {
            tracing::error!(%error, "template cannot be read; left alone");
            return Ok(Action::await_change());
        }
    };
    if !context.telemetry.leading.load(Ordering::Relaxed) {
        return Ok(Action::requeue(AGAIN));
    }
    let rules = context.telemetry.look_rules.borrow().clone();
    let checked = check(&context.services, &template.spec, &rules).await;
    let is_open = checked.is_open();
    let before = template.status.clone().unwrap_or_default();
    let mut after = before.clone();
    if checked.apply(&mut after, template.metadata.generation.unwrap_or_default(), Timestamp::now()) {
        write(&context.client, template, &after).await?;
    }
    let key = key(template);
    if is_open {
        return Ok(Action::requeue(context.pause(key)));
    }
    context.pauses().remove(&key);
    Ok(Action::requeue(AGAIN))
}

fn on_failure(template: Arc<Guarded>, error: &TemplateError, context: Arc<Context>) -> Action {
    let reference = ObjectRef::from_obj(&*template);
    tracing::warn!(template = %reference, %error, "template could not be looked at; trying again");
    Action::requeue(context.pause((reference.namespace.unwrap_or_default(), reference.name)))
}

/// Writes what differs, if the template is still the one that was looked at.
async fn write(client: &Client, template: &SessionTemplate, after: &SessionTemplateStatus) -> Result<(), TemplateError> {
    let before = template.status.as_ref().map(serde_json::to_value).transpose()?.unwrap_or_else(|| json!({}));
    let Some(status) = merge_diff(&before, &serde_json::to_value(after)?) else { return Ok(()) };
    let patch = patch(template, &status);
    let api = Api::<SessionTemplate>::namespaced(client.clone(), &template.namespace().unwrap_or_default());
    let params = PatchParams { field_manager: Some(labels::MANAGER_TEMPLATE.to_owned()), ..PatchParams::default() };
    bounded(CALL_TIMEOUT, api.patch_status(&template.name_any(), &params, &Patch::Merge(patch))).await?;
    tracing::info!(namespace = template.namespace(), template = template.name_any(), "template looked at");
    Ok(())
}

fn patch(template: &SessionTemplate, status: &Value) -> Value {
    let meta = &template.metadata;
    json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "status": status})
}

fn key(template: &SessionTemplate) -> (String, String) {
    (template.namespace().unwrap_or_default(), template.name_any())
}

impl Context {
    fn pauses(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), Backoff>> {
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self, key: (String, String)) -> Duration {
        self.pauses().entry(key).or_insert_with(|| Backoff::new(SOON, AGAIN)).next_pause()
    }
}
