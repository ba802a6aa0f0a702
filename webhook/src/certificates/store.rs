//! Keeps the certificate in a Secret, makes the steps of its rotation, and tells the API servers whom to trust.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bos_crds::labels;
use bos_engine::clients::{CALL_TIMEOUT, CallError, Verdict, bounded};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::Served;
use super::pair::{self, Pair};
use super::rotation::{Pace, State};

const EXPIRES: &str = "bos.hpe.com/certificate-expires";
const NEXT_EXPIRES: &str = "bos.hpe.com/next-certificate-expires";
const SINCE: &str = "bos.hpe.com/rotation-step";
const NAMES: &str = "bos.hpe.com/certificate-names";

/// Where the certificate is kept and for whom.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) namespace: String,
    /// Name of the Secret.
    pub(crate) secret: String,
    /// Name of both webhook configurations.
    pub(crate) configuration: String,
    /// Names of the server.
    pub(crate) names: Vec<String>,
    pub(crate) lifetime: Duration,
    pub(crate) overlap: Duration,
}

/// Looks after the certificate.
pub(crate) struct Keeper {
    secrets: Api<Secret>,
    client: Client,
    served: Arc<Served>,
    settings: Settings,
    pace: Pace,
    /// Authorities that the API servers were found to be told to trust, and since when.
    told: Option<(String, Timestamp)>,
}

impl Keeper {
    pub(crate) fn new(client: Client, served: Arc<Served>, settings: Settings) -> Self {
        let pace = Pace { lifetime: settings.lifetime, names: settings.names.clone(), overlap: settings.overlap };
        Self { secrets: Api::namespaced(client.clone(), &settings.namespace), client, served, settings, pace, told: None }
    }

    /// Looks, acts and waits until `cancel` is cancelled. What fails is tried again; the certificate in use is good for a third of its
    /// life when a rotation begins.
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        let period = (self.settings.overlap / 6).clamp(Duration::from_millis(100), Duration::from_secs(10));
        let mut failed = false;
        loop {
            match self.look().await {
                Ok(()) => failed = false,
                Err(error) if failed => tracing::debug!("certificates: {error:#}"),
                Err(error) => {
                    tracing::warn!("certificates: {error:#}; tried again");
                    failed = true;
                }
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(period) => {}
            }
        }
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let Some(state) = self.current().await? else { return Ok(()) };
        self.use_it(&state).await
    }

    /// Serves what is to be served, and tells the API servers whom to trust.
    async fn use_it(&mut self, state: &State) -> anyhow::Result<()> {
        if self.served.set(state.current.certificate.as_bytes(), state.current.key.as_bytes())? {
            tracing::info!(expires = %state.expires, "another certificate is served");
        }
        let bundle = state.bundle();
        let validating = self.trust::<ValidatingWebhookConfiguration>(&bundle, |object| {
            object.webhooks.iter().flatten().map(|hook| (hook.name.clone(), hook.client_config.clone())).collect()
        });
        let mutating = self.trust::<MutatingWebhookConfiguration>(&bundle, |object| {
            object.webhooks.iter().flatten().map(|hook| (hook.name.clone(), hook.client_config.clone())).collect()
        });
        let knew_it = validating.await? & mutating.await?;
        if !knew_it || self.told.as_ref().is_none_or(|(told, _)| *told != bundle) {
            self.told = Some((bundle, Timestamp::now()));
        }
        Ok(())
    }

    /// How long the API servers have been told to trust all of these.
    fn told_for(&self, bundle: &str, now: Timestamp) -> Duration {
        let since = self.told.as_ref().filter(|(told, _)| told == bundle).map(|(_, since)| *since);
        since.and_then(|since| Duration::try_from(now.duration_since(since)).ok()).unwrap_or_default()
    }

    /// What the Secret holds after the step that is due; None when another replica was faster: the next look shows what it made.
    async fn current(&self) -> anyhow::Result<Option<State>> {
        let (now, name) = (Timestamp::now(), &self.settings.secret);
        let make = || pair::make(&self.pace.names, now, self.pace.lifetime);
        let found = bounded(CALL_TIMEOUT, self.secrets.get_opt(name)).await.map_err(|error| self.failed(&error))?;
        let Some(secret) = found else {
            let state = first(make()?, &self.pace, now);
            let created = bounded(CALL_TIMEOUT, self.secrets.create(&written_by_us(), &self.to_secret(&state, None))).await;
            return self.written(created.map(drop), state, "the first certificate was made");
        };
        let version = secret.metadata.resource_version.clone();
        let (state, what) = match from_secret(&secret) {
            Ok(state) => match state.step(now, self.told_for(&state.bundle(), now), &self.pace, make)? {
                None => return Ok(Some(state)),
                Some(next) => (next, "a step of the rotation of certificates was made"),
            },
            Err(error) => {
                tracing::error!(secret = name, "the certificate cannot be read and is made anew: {error:#}");
                (first(make()?, &self.pace, now), "another first certificate was made")
            }
        };
        let object = self.to_secret(&state, version);
        let replaced = bounded(CALL_TIMEOUT, self.secrets.replace(name, &written_by_us(), &object)).await;
        self.written(replaced.map(drop), state, what)
    }

    fn written(&self, written: Result<(), CallError>, state: State, what: &str) -> anyhow::Result<Option<State>> {
        match written {
            Ok(()) => {
                tracing::info!(expires = %state.expires, authorities = state.bundle().matches("BEGIN").count(), "{what}");
                Ok(Some(state))
            }
            Err(error) if matches!(error.verdict(), Verdict::Conflict | Verdict::AlreadyExists) => Ok(None),
            Err(error) => Err(self.failed(&error)),
        }
    }

    fn failed(&self, error: &CallError) -> anyhow::Error {
        anyhow!("Secret {}/{}: {}", self.settings.namespace, self.settings.secret, error.message())
    }

    /// Writes the authorities into a configuration where they are not there yet; true where they were.
    async fn trust<K>(&self, bundle: &str, hooks: impl Fn(&K) -> Vec<(String, WebhookClientConfig)>) -> anyhow::Result<bool>
    where
        K: Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
    {
        let (api, name) = (Api::<K>::all(self.client.clone()), &self.settings.configuration);
        let failed = |error: &CallError| anyhow!("{} {name}: {}", K::kind(&()), error.message());
        let Some(object) = bounded(CALL_TIMEOUT, api.get_opt(name)).await.map_err(|error| failed(&error))? else { return Ok(true) };
        let trusts = |config: &WebhookClientConfig| config.ca_bundle.as_ref().is_some_and(|known| known.0 == bundle.as_bytes());
        let ca_bundle = serde_json::to_value(ByteString(bundle.as_bytes().to_vec()))?;
        let others: Vec<Value> = hooks(&object)
            .into_iter()
            .filter(|(_, config)| !trusts(config))
            .map(|(name, _)| json!({"name": name, "clientConfig": {"caBundle": ca_bundle}}))
            .collect();
        if others.is_empty() {
            return Ok(true);
        }
        let patch = Patch::Strategic(json!({"webhooks": others}));
        let params = PatchParams { field_manager: Some(labels::MANAGER_WEBHOOK.to_owned()), ..PatchParams::default() };
        bounded(CALL_TIMEOUT, api.patch(name, &params, &patch)).await.map_err(|error| failed(&error))?;
        tracing::info!(kind = %K::kind(&()), name, "API servers were told whom to trust");
        Ok(false)
    }

    fn to_secret(&self, state: &State, version: Option<String>) -> Secret {
        let mut data = BTreeMap::new();
        let mut put = |key: &str, text: &str| data.insert(key.to_owned(), ByteString(text.as_bytes().to_vec()));
        put("tls.crt", &state.current.certificate);
        put("tls.key", &state.current.key);
        put("ca.crt", &state.current.authority);
        let mut annotations = BTreeMap::from([
            (EXPIRES.to_owned(), state.expires.to_string()),
            (SINCE.to_owned(), state.since.to_string()),
            (NAMES.to_owned(), state.names.join(",")),
        ]);
        if let Some((next, expires)) = &state.next {
            put("next.crt", &next.certificate);
            put("next.key", &next.key);
            put("next-ca.crt", &next.authority);
            annotations.insert(NEXT_EXPIRES.to_owned(), expires.to_string());
        }
        if let Some(previous) = &state.previous {
            put("previous-ca.crt", previous);
        }
        Secret {
            metadata: ObjectMeta {
                name: Some(self.settings.secret.clone()),
                namespace: Some(self.settings.namespace.clone()),
                labels: Some(BTreeMap::from([(labels::PART_OF.to_owned(), labels::PART_OF_VALUE.to_owned())])),
                annotations: Some(annotations),
                resource_version: version,
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data),
            ..Secret::default()
        }
    }
}

fn first(pair: Pair, pace: &Pace, now: Timestamp) -> State {
    State { current: pair, expires: now + pace.lifetime, names: pace.names.clone(), next: None, previous: None, since: now }
}

fn written_by_us() -> PostParams {
    PostParams { field_manager: Some(labels::MANAGER_WEBHOOK.to_owned()), ..PostParams::default() }
}

fn from_secret(secret: &Secret) -> anyhow::Result<State> {
    let text = |key: &str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key)).with_context(|| format!("{key} is missing"))?;
        String::from_utf8(bytes.0.clone()).with_context(|| format!("{key} is no text"))
    };
    let note = |key: &str| {
        let annotations = secret.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(key)).with_context(|| format!("the annotation {key} is missing"))
    };
    let time = |key: &str| note(key)?.parse::<Timestamp>().with_context(|| format!("the annotation {key} is no time"));
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    let next = if has("next.crt") {
        let pair = Pair { certificate: text("next.crt")?, key: text("next.key")?, authority: text("next-ca.crt")? };
        Some((pair, time(NEXT_EXPIRES)?))
    } else {
        None
    };
    let current = Pair { certificate: text("tls.crt")?, key: text("tls.key")?, authority: text("ca.crt")? };
    // What cannot be served must not be taken for a certificate until it expires.
    Served::default().set(current.certificate.as_bytes(), current.key.as_bytes())?;
    Ok(State {
        current,
        expires: time(EXPIRES)?,
        names: note(NAMES)?.split(',').map(str::to_owned).collect(),
        next,
        previous: has("previous-ca.crt").then(|| text("previous-ca.crt")).transpose()?,
        since: time(SINCE)?,
    })
}
