//! Follows all pods and gives each that is to run here a worker.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::container::Container;
use super::worker::{Seen, Worker};
use super::{Shared, is_here};

/// A pod that has a worker, or had one.
pub(super) struct Tracked {
    /// Tells the worker what became of the pod.
    pub(super) seen: watch::Sender<Seen>,
    /// Its container, once started.
    pub(super) container: Option<Arc<Container>>,
    /// Set to true: the worker goes, the container stays.
    pub(super) lost: watch::Sender<bool>,
}

/// All pods, by uid.
#[derive(Default)]
pub(super) struct Pods {
    pub(super) tracked: BTreeMap<String, Tracked>,
    /// The agent has ended: nothing is started any more.
    pub(super) closed: bool,
}

/// Never ends by itself. The workers end with it.
pub(super) async fn follow(shared: Arc<Shared>) {
    let mut workers: JoinSet<String> = JoinSet::new();
    let mut listed = BTreeSet::new();
    let api: Api<Pod> = Api::all(shared.client.clone());
    let mut events = std::pin::pin!(watcher::watcher(api, watcher::Config::default()).default_backoff());
    loop {
        let event = tokio::select! {
            Some(event) = events.next() => event,
            // Takes the ended ones away.
            Some(ended) = workers.join_next() => {
                if let Ok(uid) = ended {
                    forget(&shared, &uid);
                }
                continue;
            }
            else => return,
        };
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => {
                listed.insert(uid(&pod));
                look(&shared, &mut workers, pod);
            }
            Ok(Event::InitDone) => gone(&shared, |uid| !listed.contains(uid)),
            Ok(Event::Apply(pod)) => look(&shared, &mut workers, pod),
            Ok(Event::Delete(pod)) => {
                let deleted = uid(&pod);
                gone(&shared, |uid| *uid == deleted);
            }
            Err(error) => tracing::debug!(%error, "the watch of pods begins again"),
        }
    }
}

/// Tells the worker of this pod, or gives it one if it is to run here.
fn look(shared: &Arc<Shared>, workers: &mut JoinSet<String>, pod: Pod) {
    let (uid, pod) = (uid(&pod), Arc::new(pod));
    let mut pods = shared.pods();
    if let Some(tracked) = pods.tracked.get(&uid) {
        tracked.seen.send_replace(Some(pod));
        return;
    }
    if !is_here(&pod) && !is_to_be_scheduled(&pod) {
        return;
    }
    let (seen, receiver) = watch::channel(Some(pod.clone()));
    let (lost, mut is_lost) = watch::channel(false);
    pods.tracked.insert(uid.clone(), Tracked { seen, container: None, lost });
    let worker = Worker::new(shared.clone(), pod, receiver);
    workers.spawn(async move {
        // Lost first: what is said after that would be heard.
        tokio::select! {
            biased;
            _ = is_lost.wait_for(|lost| *lost) => {}
            () = worker.run() => {}
        }
        uid
    });
}

/// Pods that are not there any more.
fn gone(shared: &Shared, is_gone: impl Fn(&String) -> bool) {
    let mut pods = shared.pods();
    for (uid, tracked) in &pods.tracked {
        if is_gone(uid) {
            tracked.seen.send_replace(None);
        }
    }
    pods.tracked.retain(|_, tracked| !is_finished(tracked));
}

/// The worker of this pod has ended.
fn forget(shared: &Shared, uid: &str) {
    let mut pods = shared.pods();
    if pods.tracked.get(uid).is_some_and(is_finished) {
        pods.tracked.remove(uid);
    }
}

/// Whether a pod is gone, without a worker, and nothing of it runs. One whose machine is lost stays for whoever wants to end it.
fn is_finished(tracked: &Tracked) -> bool {
    let runs = tracked.container.as_ref().is_some_and(|container| !container.has_ended());
    tracked.seen.borrow().is_none() && tracked.seen.is_closed() && !runs
}

/// There is one node only, so the choice is easy: whatever waits for the default scheduler.
fn is_to_be_scheduled(pod: &Pod) -> bool {
    let waits = |spec: &k8s_openapi::api::core::v1::PodSpec| {
        spec.node_name.is_none()
            && spec.scheduler_name.as_deref().is_none_or(|name| name == "default-scheduler")
            && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
    };
    pod.metadata.deletion_timestamp.is_none() && pod.spec.as_ref().is_some_and(waits)
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}
