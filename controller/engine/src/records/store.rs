//! ConfigMap calls that wait out an API server that is away.

use std::time::Duration;

use bos_crds::labels;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

use super::RecordError;
use super::content::{self, Record};
use crate::clients::{Backoff, CALL_TIMEOUT, CallError, Verdict, bounded};

/// Few objects a page: one may be a megabyte.
const PAGE: u32 = 25;

/// The ConfigMaps of the operator's namespace.
pub(super) struct Store {
    api: Api<ConfigMap>,
    lost: CancellationToken,
}

impl Store {
    pub(super) fn new(client: Client, namespace: &str, lost: CancellationToken) -> Self {
        Self { api: Api::namespaced(client, namespace), lost }
    }

    /// Repeats a call until the server has answered it for good, or the leadership has ended.
    ///
    /// A call whose answer was lost is simply sent again: a create then meets its own object, a
    /// replace its own newer version, a delete nothing, and the caller tells these by content.
    pub(super) async fn insist<T, F>(&self, name: &str, call: impl Fn() -> F) -> Result<Result<T, CallError>, RecordError>
    where
        F: Future<Output = Result<T, kube::Error>>,
    {
        let mut pace = Pace::default();
        let calls = async {
            loop {
                match bounded(CALL_TIMEOUT, call()).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => match error.verdict() {
                        Verdict::Transient { retry_after, .. } => pace.wait(name, &error.message(), retry_after).await,
                        // A role or a quota that a person will put right; giving up would lose effects.
                        Verdict::Forbidden => pace.wait(name, &error.message(), None).await,
                        _ => return Err(error),
                    },
                }
            }
        };
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Err(self.cancelled(name)),
            answer = calls => Ok(answer),
        }
    }

    /// Waits before a conflict is tried again.
    pub(super) async fn pause(&self, name: &str, pace: &mut Pace, why: &str) -> Result<(), RecordError> {
        tokio::select! {
            biased;
            () = self.lost.cancelled() => Err(self.cancelled(name)),
            () = pace.wait(name, why, None) => Ok(()),
        }
    }

    fn cancelled(&self, name: &str) -> RecordError {
        RecordError::Cancelled { name: name.to_owned() }
    }

    pub(super) async fn get(&self, name: &str) -> Result<Option<ConfigMap>, RecordError> {
        let answer = self.insist(name, || self.api.get_opt(name)).await?;
        answer.map_err(|error| refused(name, &error))
    }

    pub(super) async fn create(&self, object: &ConfigMap) -> Result<Result<ConfigMap, CallError>, RecordError> {
        let params = written_by_us();
        self.insist(content::name(object), || self.api.create(&params, object)).await
    }

    pub(super) async fn replace(&self, object: &ConfigMap) -> Result<Result<ConfigMap, CallError>, RecordError> {
        let params = written_by_us();
        let name = content::name(object);
        self.insist(name, || self.api.replace(name, &params, object)).await
    }

    /// Deletes, at that version where one is given. False when the version is another by now.
    pub(super) async fn delete(&self, name: &str, version: Option<String>) -> Result<bool, RecordError> {
        let preconditions = version.map(|version| Preconditions { resource_version: Some(version), uid: None });
        let params = DeleteParams { preconditions, ..DeleteParams::default() };
        match self.insist(name, || self.api.delete(name, &params)).await? {
            Ok(_) => Ok(true),
            Err(error) => match error.verdict() {
                Verdict::NotFound => Ok(true),
                Verdict::Conflict => Ok(false),
                _ => Err(refused(name, &error)),
            },
        }
    }

    /// Creates an immutable record; one that is there must hold the same.
    pub(super) async fn create_immutable(&self, record: &Record<'_>, bytes: &[u8]) -> Result<(), RecordError> {
        let name = record.name();
        let object = record.to_object(bytes);
        let mut pace = Pace::default();
        loop {
            let Err(error) = self.create(&object).await? else { return Ok(()) };
            match error.verdict() {
                Verdict::AlreadyExists | Verdict::Conflict => {
                    if let Some(found) = self.get(&name).await? {
                        return same_content(record, &found, bytes);
                    }
                }
                // The namespace is not there (yet, or any more).
                Verdict::NotFound => {}
                _ => return Err(refused(&name, &error)),
            }
            self.pause(&name, &mut pace, &error.message()).await?;
        }
    }

    /// All objects that match, read in pages. An expired page token starts the list again.
    pub(super) async fn list(&self, selector: &str) -> Result<Vec<ConfigMap>, RecordError> {
        let mut pace = Pace::default();
        loop {
            match self.list_once(selector).await? {
                Ok(objects) => return Ok(objects),
                Err(error) if error.verdict() == Verdict::Expired => {
                    self.pause("the list of records", &mut pace, &error.message()).await?;
                }
                Err(error) => return Err(refused("the list of records", &error)),
            }
        }
    }

    async fn list_once(&self, selector: &str) -> Result<Result<Vec<ConfigMap>, CallError>, RecordError> {
        let mut params = ListParams::default().labels(selector).limit(PAGE);
        let mut objects = Vec::new();
        loop {
            let page = match self.insist("the list of records", || self.api.list(&params)).await? {
                Ok(page) => page,
                Err(error) => return Ok(Err(error)),
            };
            objects.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => return Ok(Ok(objects)),
            }
        }
    }
}

fn written_by_us() -> PostParams {
    PostParams { field_manager: Some(labels::MANAGER_OPERATOR.to_owned()), ..PostParams::default() }
}

pub(super) fn refused(name: &str, error: &CallError) -> RecordError {
    RecordError::Refused { name: name.to_owned(), message: error.message() }
}

/// Compares an immutable record with what was to be written.
fn same_content(record: &Record<'_>, found: &ConfigMap, ours: &[u8]) -> Result<(), RecordError> {
    let theirs = content::content(found).unwrap_or_default();
    // A plan of another number of chunks is another plan, even if this chunk is the same.
    let same_shape = content::chunk(found) == content::chunk(&record.to_object(&[]));
    if theirs == ours && same_shape {
        return Ok(());
    }
    let at = theirs.iter().zip(ours).take_while(|(theirs, ours)| theirs == ours).count();
    Err(RecordError::Differs { name: record.name(), of: record.of(), found: theirs.len(), ours: ours.len(), at })
}

/// Back-off that says in the log what it waits for, at first and then now and again.
pub(super) struct Pace {
    backoff: Backoff,
}

impl Default for Pace {
    fn default() -> Self {
        Self { backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(3)) }
    }
}

impl Pace {
    async fn wait(&mut self, name: &str, why: &str, asked: Option<Duration>) {
        let failures = self.backoff.failures();
        let pause = self.backoff.next_pause().max(asked.unwrap_or_default());
        if failures == 0 || failures % 16 == 15 {
            tracing::warn!(record = name, why, failures = failures + 1, "not written yet; trying again");
        }
        tokio::time::sleep(pause).await;
    }
}
