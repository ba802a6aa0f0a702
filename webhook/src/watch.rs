//! Fills what is known: the watches of the operator, the tenants, and the ledger of names that ran.

use bos_crds::labels;
use bos_engine::clients::Clients;
use bos_engine::records::names_that_ran;
use bos_engine::tenants;
use bos_engine::watches::{News, Scope, WatchHealth, spawn_watches};
use futures::StreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::known::{Shared, now};

/// News that wait to be taken.
const QUEUE: usize = 256;

/// Starts everything; what arrives goes to `known` until `cancel` is cancelled.
pub(crate) fn start(clients: &Clients, namespace: &str, known: &Shared, cancel: &CancellationToken) -> WatchHealth {
    let (tx, rx) = mpsc::channel(QUEUE);
    let health = spawn_watches(&clients.watch, namespace, &Scope::Operator { agents: false }, &tx, cancel);
    tokio::spawn(tenants::follow(clients.watch.clone(), tx, cancel.clone()));
    tokio::spawn(take(rx, known.clone()));
    tokio::spawn(follow_names(clients.watch.clone(), namespace.to_owned(), known.clone(), cancel.clone()));
    health
}

async fn take(mut news: mpsc::Receiver<News>, known: Shared) {
    while let Some(news) = news.recv().await {
        known.write().take(news, now());
    }
}

async fn follow_names(client: Client, namespace: String, known: Shared, cancel: CancellationToken) {
    let selector = format!("{}={}", labels::RECORD, labels::RECORD_SESSION_NAMES);
    let events = watcher(Api::<ConfigMap>::namespaced(client, &namespace), watcher::Config::default().labels(&selector)).default_backoff();
    let mut events = std::pin::pin!(events.take_until(cancel.cancelled_owned()));
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => {}
            Ok(watcher::Event::InitApply(record) | watcher::Event::Apply(record)) => {
                known.write().take_names(record.name_any(), names_that_ran(&record));
            }
            Ok(watcher::Event::InitDone) => known.write().names_arrived(),
            // A name that ran stays remembered, as by the operator that runs.
            Ok(watcher::Event::Delete(_)) => {}
            Err(error) => tracing::debug!(%error, "the ledger of names cannot be watched; tried again"),
        }
    }
}
