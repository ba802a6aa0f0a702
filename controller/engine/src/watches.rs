//! Watches of our own kinds and of the emergency stop.
//!
//! Each kind has a stream of its own with a back-off of its own, so that one failing watch never
//! delays another. A stream begins with everything there is ([`Seen::Reset`]), and so it does again
//! after every gap; objects that cannot be read are named and the rest is delivered.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bos_core::tenants::Tenant;
use bos_crds::{BootComponent, BootOptions, Session, SessionTemplate, bounded, labels};
use futures::{Stream, StreamExt};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::agents;
use crate::guard::Guarded;

/// The server ends each watch after this many seconds, so that a connection that died silently (at
/// a load balancer, say) is noticed soon after.
const WATCH_SECONDS: u32 = 200;

/// All that has come in was taken up when nothing more follows for so long: a connection is read by a task of its own, piece by piece.
const CAUGHT_UP: Duration = Duration::from_millis(1);

/// Then a stream is left alone for so long. What comes when nothing has for a while is taken up at once.
const COMPANY: Duration = Duration::from_millis(20);

/// News of one kind.
#[derive(Debug, Clone)]
pub enum Seen<K> {
    /// All there is. What is in neither list does not exist any more.
    Reset {
        /// The objects that can be read.
        items: Vec<K>,
        /// Those that are there and cannot be read: whoever knew them before keeps what it knew.
        invalid: Vec<Invalid>,
    },
    /// An object was created or changed.
    Applied(Box<K>),
    /// An object was deleted.
    Deleted(Box<K>),
    /// An object was changed into something that cannot be read.
    Invalid(Invalid),
    /// An object that could not be read was deleted.
    InvalidDeleted(Invalid),
}

/// An object that is not of our schema. The CRD lets none in; an older or newer CRD might.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// Its namespace, where the kind has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// What is wrong with it.
    pub error: String,
}

/// News from the API server.
#[derive(Debug, Clone)]
pub enum News {
    /// Of SessionTemplates in all namespaces.
    Template(Seen<SessionTemplate>),
    /// Of Sessions in all namespaces.
    Session(Seen<Session>),
    /// Of BootComponents.
    Component(Seen<BootComponent>),
    /// Of BootOptions.
    Options(Seen<BootOptions>),
    /// What whoever set the emergency stop wrote into it; None where it is not set.
    EmergencyStop(Option<Arc<str>>),
    /// All tenants; None while nobody can tell.
    Tenants(Option<Vec<Tenant>>),
    /// Of Jobs of agents.
    Job(Seen<Job>),
    /// Of their pods.
    Pod(Seen<Pod>),
    /// Of journals that agents write.
    AgentJournal(Seen<ConfigMap>),
}

impl News {
    /// Of BootComponents: mostly what we have written ourselves.
    #[must_use]
    pub const fn is_of_nodes(&self) -> bool {
        matches!(self, Self::Component(_))
    }
}

/// The streams, by the kind they watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Watched {
    /// SessionTemplates.
    Templates,
    /// Sessions.
    Sessions,
    /// BootComponents.
    Components,
    /// BootOptions.
    Options,
    /// The emergency stop's ConfigMap.
    EmergencyStop,
    /// Jobs of agents.
    Jobs,
    /// Pods of agents.
    Pods,
    /// Journals of agents.
    AgentJournals,
}

impl Watched {
    /// Every stream.
    pub const ALL: [Self; 8] = [
        Self::Templates,
        Self::Sessions,
        Self::Components,
        Self::Options,
        Self::EmergencyStop,
        Self::Jobs,
        Self::Pods,
        Self::AgentJournals,
    ];

    /// The stream's name in logs, metrics and health answers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Templates => "sessiontemplates",
            Self::Sessions => "sessions",
            Self::Components => "bootcomponents",
            Self::Options => "bootoptions",
            Self::EmergencyStop => "emergencystop",
            Self::Jobs => "jobs",
            Self::Pods => "pods",
            Self::AgentJournals => "agentjournals",
        }
    }
}

/// A stream that has not failed again for this long has recovered: the longest a failing one can be
/// silent is the client's read time-out and the longest back-off.
const RECOVERED_AFTER: Duration = Duration::from_secs(300);

/// How each stream is doing.
///
/// A watch that is begun again on a quiet kind delivers nothing, so silence is no sign of ill health;
/// errors that keep coming are, and so is a stream that has never delivered its first list.
#[derive(Debug, Clone)]
pub struct WatchHealth(Arc<[Mutex<StreamHealth>; Watched::ALL.len()]>);

#[derive(Debug, Clone)]
struct StreamHealth {
    last_success: Instant,
    synced: bool,
    failing: Option<Failing>,
}

#[derive(Debug, Clone)]
struct Failing {
    since: Instant,
    last: Instant,
    error: String,
}

impl WatchHealth {
    fn new() -> Self {
        let now = Instant::now();
        // What is not watched lacks nothing.
        let fresh = || Mutex::new(StreamHealth { last_success: now, synced: true, failing: None });
        Self(Arc::new(std::array::from_fn(|_| fresh())))
    }

    fn of(&self, stream: Watched) -> std::sync::MutexGuard<'_, StreamHealth> {
        self.0[stream as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Streams that have been failing, or have not delivered their first list, for longer than
    /// `limit`, each with its last error.
    #[must_use]
    pub fn stale(&self, limit: Duration) -> Vec<(Watched, String)> {
        let now = Instant::now();
        Watched::ALL.into_iter().filter_map(|stream| Some((stream, self.of(stream).stale(now, limit)?))).collect()
    }

    /// When a stream last delivered something (its start, if never).
    #[must_use]
    pub fn last_success(&self, stream: Watched) -> Instant {
        self.of(stream).last_success
    }

    /// Whether every stream has delivered all there was at least once.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        Watched::ALL.into_iter().all(|stream| self.of(stream).synced)
    }

    /// The stream is watched from now on.
    fn begin(&self, stream: Watched) {
        let mut health = self.of(stream);
        health.synced = false;
        health.last_success = Instant::now();
    }

    fn succeeded(&self, stream: Watched) {
        let mut health = self.of(stream);
        health.last_success = Instant::now();
        if health.failing.take().is_some() {
            tracing::info!(stream = stream.as_str(), "watch delivers again");
        }
    }

    /// Logged as a warning once for a row of failures: each retry would say the same again.
    fn failed(&self, stream: Watched, error: &watcher::Error) {
        if self.of(stream).failed(Instant::now(), error.to_string()) {
            tracing::warn!(stream = stream.as_str(), %error, "watch failed; tried again until it works");
        } else {
            tracing::debug!(stream = stream.as_str(), %error, "watch failed again");
        }
    }
}

impl StreamHealth {
    /// True for the first failure of a row.
    fn failed(&mut self, now: Instant, error: String) -> bool {
        let before = self.failing.as_ref().filter(|before| now.duration_since(before.last) < RECOVERED_AFTER).map(|before| before.since);
        self.failing = Some(Failing { since: before.unwrap_or(now), last: now, error });
        before.is_none()
    }

    fn stale(&self, now: Instant, limit: Duration) -> Option<String> {
        let error = self.failing.as_ref().map(|failing| failing.error.clone());
        if !self.synced && now.duration_since(self.last_success) > limit {
            return Some(error.unwrap_or_else(|| "nothing was delivered yet".to_owned()));
        }
        let failing = self.failing.as_ref()?;
        let still = now.duration_since(failing.last) < RECOVERED_AFTER;
        (still && now.duration_since(failing.since) > limit).then(|| failing.error.clone())
    }
}

/// Which objects are watched.
#[derive(Debug, Clone)]
pub enum Scope {
    /// All of our kinds, in all namespaces.
    Operator {
        /// Jobs of agents too, with their pods and journals.
        agents: bool,
    },
    /// One Session, its nodes, and the options.
    Agent {
        /// Namespace of the Session.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Starts all watches. `namespace` is the operator's own, where the emergency stop is looked for.
/// Every stream waits while `tx` is full, and ends when `cancel` is cancelled or `tx` is closed.
#[must_use]
pub fn spawn_watches(client: &Client, namespace: &str, scope: &Scope, tx: &mpsc::Sender<News>, cancel: &CancellationToken) -> WatchHealth {
    let health = WatchHealth::new();
    let to = Sink { tx: tx.clone(), health: health.clone(), cancel: cancel.clone() };
    let everything = watcher::Config::default;
    let components = Api::<Guarded<BootComponent>>::all(client.clone());
    match scope {
        Scope::Operator { agents } => {
            to.spawn(Api::<Guarded<SessionTemplate>>::all(client.clone()), everything(), Watched::Templates, News::Template);
            to.spawn(Api::<Guarded<Session>>::all(client.clone()), everything(), Watched::Sessions, News::Session);
            to.spawn(components, everything(), Watched::Components, News::Component);
            if *agents {
                to.spawn_agents(client, namespace);
            }
        }
        Scope::Agent { namespace, name } => {
            let sessions = Api::<Guarded<Session>>::namespaced(client.clone(), namespace);
            to.spawn(sessions, everything().fields(&format!("metadata.name={name}")), Watched::Sessions, News::Session);
            // A node that is given to another session leaves this stream.
            let ours = format!("spec.session.name={name},spec.session.namespace={namespace}");
            to.spawn(components, everything().fields(&ours), Watched::Components, News::Component);
        }
    }
    to.spawn(Api::<Guarded<BootOptions>>::all(client.clone()), everything(), Watched::Options, News::Options);
    let stop = everything().fields(&format!("metadata.name={}", labels::EMERGENCY_STOP));
    to.spawn(Api::<Guarded<ConfigMap>>::namespaced(client.clone(), namespace), stop, Watched::EmergencyStop, stop_switch);
    health
}

/// Where a stream delivers to.
#[derive(Clone)]
struct Sink {
    tx: mpsc::Sender<News>,
    health: WatchHealth,
    cancel: CancellationToken,
}

impl Sink {
    /// Jobs of agents, their pods, and the journals they write.
    fn spawn_agents(&self, client: &Client, namespace: &str) {
        let marked = || watcher::Config::default().labels(&agents::selector());
        let written = format!("{}={},{}={}", labels::MANAGED_BY, labels::MANAGER_AGENT, labels::RECORD, labels::RECORD_JOURNAL);
        let written = watcher::Config::default().labels(&written);
        self.spawn(Api::<Guarded<Job>>::namespaced(client.clone(), namespace), marked(), Watched::Jobs, News::Job);
        self.spawn(Api::<Guarded<Pod>>::namespaced(client.clone(), namespace), marked(), Watched::Pods, News::Pod);
        let journals = Api::<Guarded<ConfigMap>>::namespaced(client.clone(), namespace);
        self.spawn(journals, written, Watched::AgentJournals, News::AgentJournal);
    }

    fn spawn<K>(&self, api: Api<Guarded<K>>, config: watcher::Config, stream: Watched, wrap: fn(Seen<K>) -> News)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    {
        self.health.begin(stream);
        let config = config.timeout(WATCH_SECONDS);
        let events = watcher(api, config).default_backoff();
        tokio::spawn(self.clone().run(events, stream, wrap));
    }

    async fn run<K: Resource<DynamicType = ()>>(
        self,
        events: impl Stream<Item = watcher::Result<watcher::Event<Guarded<K>>>> + Send,
        stream: Watched,
        wrap: fn(Seen<K>) -> News,
    ) {
        let mut folder = Folder::default();
        let mut events = std::pin::pin!(events);
        let mut is_list = true;
        while let Some(event) = self.next(&mut events, stream, is_list).await {
            let is_done = matches!(event, watcher::Event::InitDone);
            is_list = matches!(event, watcher::Event::Init | watcher::Event::InitApply(_));
            let Some(seen) = folder.fold(event) else { continue };
            if self.tx.send(wrap(seen)).await.is_err() {
                return;
            }
            if is_done {
                self.health.of(stream).synced = true;
            }
        }
    }

    /// The next event; None when it is time to stop. Errors are counted and waited out (the back-off
    /// is in the stream). Of a list nothing is put off: it is read in pages, and each is asked for.
    async fn next<T>(
        &self,
        events: &mut (impl Stream<Item = watcher::Result<watcher::Event<T>>> + Unpin),
        stream: Watched,
        is_list: bool,
    ) -> Option<watcher::Event<T>> {
        loop {
            let event = tokio::select! {
                biased;
                () = self.cancel.cancelled() => return None,
                () = self.tx.closed() => return None,
                event = async { if is_list { events.next().await } else { together(events).await } } => event?,
            };
            match event {
                // A list that begins has not succeeded yet.
                Ok(watcher::Event::Init) => return Some(watcher::Event::Init),
                Ok(event) => {
                    self.health.succeeded(stream);
                    return Some(event);
                }
                Err(error) => self.health.failed(stream, &error),
            }
        }
    }
}

/// The next of a stream. Where many follow one another, each by itself would wake us to be read and decoded: they come together instead.
async fn together<T>(events: &mut (impl Stream<Item = T> + Unpin)) -> Option<T> {
    if let Ok(next) = tokio::time::timeout(CAUGHT_UP, events.next()).await {
        return next;
    }
    tokio::time::sleep(COMPANY).await;
    events.next().await
}

/// What the ConfigMap of that name tells of the stop switch. One that cannot be read stops as well.
fn stop_switch(seen: Seen<ConfigMap>) -> News {
    News::EmergencyStop(match seen {
        Seen::Reset { items, invalid } => items.first().map(why_stopped).or_else(|| invalid.first().map(|_| Arc::default())),
        Seen::Applied(object) => Some(why_stopped(&object)),
        Seen::Invalid(_) => Some(Arc::default()),
        Seen::Deleted(_) | Seen::InvalidDeleted(_) => None,
    })
}

/// What people write into the stop switch, on one line.
fn why_stopped(object: &ConfigMap) -> Arc<str> {
    let reason = object.data.as_ref().and_then(|data| data.get("reason")).map(String::as_str).unwrap_or_default();
    bounded(&reason.split_whitespace().collect::<Vec<_>>().join(" "), WHY_MAX).into()
}

/// Characters of it that are quoted.
const WHY_MAX: usize = 160;

/// Gathers a list into one [`Seen::Reset`].
struct Folder<K> {
    items: Vec<K>,
    invalid: Vec<Invalid>,
}

impl<K> Default for Folder<K> {
    fn default() -> Self {
        Self { items: Vec::new(), invalid: Vec::new() }
    }
}

impl<K: Resource<DynamicType = ()>> Folder<K> {
    fn fold(&mut self, event: watcher::Event<Guarded<K>>) -> Option<Seen<K>> {
        match event {
            watcher::Event::Init => {
                *self = Self::default();
                None
            }
            watcher::Event::InitApply(object) => {
                match read(object) {
                    Ok(object) => self.items.push(object),
                    Err(invalid) => self.invalid.push(invalid),
                }
                None
            }
            watcher::Event::InitDone => {
                let Self { items, invalid } = std::mem::take(self);
                Some(Seen::Reset { items, invalid })
            }
            watcher::Event::Apply(object) => Some(match read(object) {
                Ok(object) => Seen::Applied(Box::new(object)),
                Err(invalid) => Seen::Invalid(invalid),
            }),
            watcher::Event::Delete(object) => Some(match read(object) {
                Ok(object) => Seen::Deleted(Box::new(object)),
                Err(invalid) => Seen::InvalidDeleted(invalid),
            }),
        }
    }
}

fn read<K: Resource<DynamicType = ()>>(object: Guarded<K>) -> Result<K, Invalid> {
    object.0.map_err(|bad| {
        let invalid = Invalid {
            namespace: bad.metadata.namespace,
            name: bad.metadata.name.unwrap_or_default(),
            uid: bad.metadata.uid.unwrap_or_default(),
            error: bad.error,
        };
        tracing::error!(kind = %K::kind(&()), name = invalid.name, namespace = invalid.namespace, error = invalid.error, "object cannot be read; left alone");
        invalid
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_failures_is_one_warning() {
        let start = Instant::now();
        let mut health = StreamHealth { last_success: start, synced: true, failing: None };
        let failed = |health: &mut StreamHealth, after: u64| health.failed(start + Duration::from_secs(after), "refused".to_owned());
        assert!(failed(&mut health, 0));
        assert!(!failed(&mut health, 5));
        assert!(!failed(&mut health, 200));
        assert!(failed(&mut health, 200 + RECOVERED_AFTER.as_secs()), "it had recovered meanwhile");
        health.failing = None;
        assert!(failed(&mut health, 600), "it had delivered something meanwhile");
    }

    /// What a watch has to tell is handed on piece by piece, by a task that reads the connection.
    fn handed_on(pieces: u32) -> impl Stream<Item = u32> + Unpin {
        let (tx, mut rx) = mpsc::channel(1);
        tokio::spawn(async move {
            for piece in 0..pieces {
                tx.send(piece).await.unwrap();
            }
        });
        futures::stream::poll_fn(move |context| rx.poll_recv(context))
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_read_to_its_end_before_it_is_left_alone() {
        let begun = Instant::now();
        let mut events = handed_on(1000);
        for piece in 0..1000 {
            assert_eq!(together(&mut events).await, Some(piece));
        }
        assert!(begun.elapsed() < CAUGHT_UP, "{:?}", begun.elapsed());
        assert_eq!(together(&mut events).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_when_nothing_has_for_a_while_is_taken_up_at_once() {
        const LATER: Duration = Duration::from_millis(9_999);
        let begun = Instant::now();
        let mut events = Box::pin(futures::stream::once(tokio::time::sleep(LATER)));
        assert_eq!(together(&mut events).await, Some(()));
        assert_eq!(begun.elapsed(), LATER);
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_one_by_one_comes_together() {
        let (tx, mut rx) = mpsc::channel(1000);
        tokio::spawn(async move {
            for piece in 0..1000 {
                tx.send(piece).await.unwrap();
                tokio::time::sleep(CAUGHT_UP * 2).await;
            }
        });
        let mut events = futures::stream::poll_fn(move |context| rx.poll_recv(context));
        let (mut times, mut last) = (0, None);
        while together(&mut events).await.is_some() {
            if last.replace(Instant::now()) != Some(Instant::now()) {
                times += 1;
            }
        }
        assert!((80..110).contains(&times), "{times}");
    }
}
