//! Waiting by watch, without looking again and again.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::Context as _;
use bos_crds::{BootComponent, Session};
use futures::StreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::{NAMESPACE, Rig};

impl Rig {
    /// Waits until the predicate holds for a Session of our namespace and returns it as it is then.
    pub async fn wait_session(&self, name: &str, is_right: impl Fn(&Session) -> bool, limit: Duration) -> anyhow::Result<Session> {
        self.follow_session(name, is_right, limit, |_| {}).await
    }

    /// The same, showing each change.
    pub async fn follow_session(
        &self,
        name: &str,
        is_right: impl Fn(&Session) -> bool,
        limit: Duration,
        mut seen: impl FnMut(&Session),
    ) -> anyhow::Result<Session> {
        let api: Api<Session> = Api::namespaced(self.client(), NAMESPACE);
        let mut last = None;
        let find = |sessions: &BTreeMap<String, Session>| {
            let session = sessions.get(name)?;
            if last.as_ref() != Some(session) {
                seen(session);
                last = Some(session.clone());
            }
            is_right(session).then(|| session.clone())
        };
        let found = watch_until(api, watcher::Config::default().fields(&format!("metadata.name={name}")), limit, find).await;
        found.with_context(|| format!("waiting for Session {name}; {}", last.map_or_else(|| "it was not seen".to_owned(), said)))
    }

    /// Waits until the predicate holds for all BootComponents together, by name.
    pub async fn wait_components(
        &self,
        is_right: impl Fn(&BTreeMap<String, BootComponent>) -> bool,
        limit: Duration,
    ) -> anyhow::Result<BTreeMap<String, BootComponent>> {
        let api: Api<BootComponent> = Api::all(self.client());
        let found = watch_until(api, watcher::Config::default(), limit, |all| is_right(all).then(|| all.clone())).await;
        found.context("waiting for BootComponents")
    }

    /// Waits until discovery has created this many BootComponents.
    pub async fn wait_discovered(&self, nodes: usize, limit: Duration) -> anyhow::Result<()> {
        self.wait_components(|all| all.len() >= nodes, limit).await.map(drop)
    }

    /// All BootComponents now, by name.
    pub async fn components(&self) -> anyhow::Result<Vec<BootComponent>> {
        let api: Api<BootComponent> = Api::all(self.client());
        Ok(api.list(&kube::api::ListParams::default()).await.context("listing BootComponents")?.items)
    }

    /// All Sessions of our namespace now.
    pub async fn sessions(&self) -> anyhow::Result<Vec<Session>> {
        let api: Api<Session> = Api::namespaced(self.client(), NAMESPACE);
        Ok(api.list(&kube::api::ListParams::default()).await.context("listing Sessions")?.items)
    }

    /// One Session now.
    pub async fn session(&self, name: &str) -> anyhow::Result<Option<Session>> {
        let api: Api<Session> = Api::namespaced(self.client(), NAMESPACE);
        api.get_opt(name).await.with_context(|| format!("reading Session {name}"))
    }
}

/// What a Session says of itself, for an error message.
fn said(session: Session) -> String {
    let status = session.status.unwrap_or_default();
    format!("it last said: {:?} {:?} {} {:?}", status.phase, status.outcome, status.message, status.counts)
}

/// Keeps all objects of a watch and asks after each change whether they are what is waited for.
pub async fn watch_until<K, T>(
    api: Api<K>,
    config: watcher::Config,
    limit: Duration,
    mut find: impl FnMut(&BTreeMap<String, K>) -> Option<T>,
) -> anyhow::Result<T>
where
    K: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut all = BTreeMap::new();
    let mut listed = false;
    let look = async {
        // The API server may be away on purpose: then the watch begins again.
        let mut events = std::pin::pin!(watcher::watcher(api, config));
        while let Some(event) = events.next().await {
            match event {
                Ok(Event::Init) => {
                    all.clear();
                    listed = false;
                }
                Ok(Event::InitApply(object)) => {
                    all.insert(object.name_any(), object);
                }
                Ok(Event::Apply(object)) => {
                    all.insert(object.name_any(), object);
                }
                Ok(Event::Delete(object)) => {
                    all.remove(&object.name_any());
                }
                Ok(Event::InitDone) => listed = true,
                Err(error) => {
                    tracing::debug!(%error, "the watch begins again");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            if listed && let Some(found) = find(&all) {
                return Ok(found);
            }
        }
        anyhow::bail!("the watch ended")
    };
    match tokio::time::timeout(limit, look).await {
        Ok(found) => found,
        Err(_) => anyhow::bail!("not so after {} s", limit.as_secs_f64()),
    }
}
