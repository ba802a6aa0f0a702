//! Kubernetes Events on Sessions, few and never in anybody's way.
//!
//! kube's Recorder merges Events by reason and keeps the first note, and looks through everything it
//! remembers at each publication. We tell Events apart by reason and note, publish each once and at
//! most [`PER_SESSION`] for a Session, in a task of its own.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::clients::{Backoff, CALL_TIMEOUT, Verdict, bounded};

/// Most Events one Session gets. The last place is kept for the Event that says it ended.
pub const PER_SESSION: usize = 10;
/// Sessions whose Events are remembered; the longest remembered are forgotten first.
const SESSIONS: usize = 1024;
/// A shorter outage is no Event: it is in the condition and in the log.
pub(crate) const WORTH_AN_EVENT: Duration = Duration::from_secs(2);
/// Events that wait to be published.
const QUEUE: usize = 256;
/// How often one Event is tried before it is dropped.
const TRIES: u32 = 4;
/// The API's limits.
const NOTE_BYTES: usize = 1024;

/// What an Event is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SessionSubject {
    /// The Session's namespace.
    pub namespace: String,
    /// The Session's name.
    pub name: String,
    /// The Session's uid.
    pub uid: String,
}

/// How an Event is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// Something happened.
    Normal,
    /// Something a person should look at.
    Warning,
    /// The Session has ended well; never withheld by the limit.
    Ended,
    /// The Session has ended otherwise; never withheld by the limit.
    EndedBadly,
}

impl Severity {
    fn is_last(self) -> bool {
        matches!(self, Self::Ended | Self::EndedBadly)
    }

    fn event_type(self) -> EventType {
        match self {
            Self::Normal | Self::Ended => EventType::Normal,
            Self::Warning | Self::EndedBadly => EventType::Warning,
        }
    }
}

/// Publishes Events on Sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SessionEvents {
    tx: mpsc::Sender<Job>,
    limits: Arc<Mutex<Limits>>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Job {
    subject: SessionSubject,
    severity: Severity,
    reason: String,
    note: String,
}

impl SessionEvents {
    /// Starts the publishing task. `controller` and `instance` (the pod) are shown as the reporter.
    #[must_use]
    pub fn spawn(client: Client, controller: &str, instance: &str, cancel: CancellationToken) -> Self {
        let (tx, rx) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let reporter = Reporter { controller: controller.to_owned(), instance: Some(instance.to_owned()) };
        tokio::spawn(publish_all(client, reporter, rx, Arc::clone(&dropped), cancel));
        Self { tx, limits: Arc::default(), dropped }
    }

    /// Queues an Event unless the Session has had the same one, or enough. Never waits; when the API
    /// server cannot take Events, they are dropped and counted.
    pub fn publish(&self, subject: &SessionSubject, severity: Severity, reason: &str, note: &str) {
        if !self.limits.lock().unwrap_or_else(PoisonError::into_inner).admit(&subject.uid, severity, reason, note) {
            return;
        }
        let job = Job { subject: subject.clone(), severity, reason: reason.to_owned(), note: shortened(note) };
        if self.tx.try_send(job).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets a Session that was deleted.
    pub fn forget(&self, uid: &str) {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).forget(uid);
    }

    /// Events that were dropped because the API server did not take them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// What each Session has had.
#[derive(Debug, Default)]
struct Limits {
    seen: HashMap<String, HashSet<(String, String)>>,
    order: VecDeque<String>,
}

impl Limits {
    fn admit(&mut self, uid: &str, severity: Severity, reason: &str, note: &str) -> bool {
        if !self.seen.contains_key(uid) {
            while self.order.len() >= SESSIONS {
                self.order.pop_front().map(|oldest| self.seen.remove(&oldest));
            }
            self.order.push_back(uid.to_owned());
        }
        let had = self.seen.entry(uid.to_owned()).or_default();
        let most = if severity.is_last() { PER_SESSION } else { PER_SESSION - 1 };
        had.len() < most && had.insert((reason.to_owned(), note.to_owned()))
    }

    fn forget(&mut self, uid: &str) {
        if self.seen.remove(uid).is_some() {
            self.order.retain(|known| known != uid);
        }
    }
}

fn shortened(note: &str) -> String {
    let mut end = note.len().min(NOTE_BYTES);
    while !note.is_char_boundary(end) {
        end -= 1;
    }
    note[..end].to_owned()
}

async fn publish_all(client: Client, reporter: Reporter, mut rx: mpsc::Receiver<Job>, dropped: Arc<AtomicU64>, cancel: CancellationToken) {
    loop {
        let job = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            job = rx.recv() => job,
        };
        let Some(job) = job else { return };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            published = publish_one(&client, &reporter, &job) => if !published {
                dropped.fetch_add(1, Ordering::Relaxed);
            },
        }
    }
}

async fn publish_one(client: &Client, reporter: &Reporter, job: &Job) -> bool {
    let mut backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(2));
    let event = Event {
        type_: job.severity.event_type(),
        reason: job.reason.clone(),
        note: Some(job.note.clone()),
        action: job.reason.clone(),
        secondary: None,
    };
    let reference = reference(&job.subject);
    while backoff.failures() < TRIES {
        // A Recorder of its own: a shared one would fold this note into an earlier one of the same reason.
        let recorder = Recorder::new(client.clone(), reporter.clone());
        let Err(error) = bounded(CALL_TIMEOUT, recorder.publish(&event, &reference)).await else { return true };
        tracing::debug!(session = job.subject.name, %error, "Event was not taken");
        if !matches!(error.verdict(), Verdict::Transient { .. }) {
            tracing::warn!(session = job.subject.name, reason = job.reason, error = error.message(), "Event refused");
            return false;
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
    false
}

fn reference(subject: &SessionSubject) -> ObjectReference {
    ObjectReference {
        api_version: Some(bos_crds::API_VERSION.to_owned()),
        kind: Some("Session".to_owned()),
        namespace: Some(subject.namespace.clone()),
        name: Some(subject.name.clone()),
        uid: Some(subject.uid.clone()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_event_is_published_once_and_no_session_gets_more_than_its_share() {
        let mut limits = Limits::default();
        assert!(limits.admit("u", Severity::Normal, "Started", "253 nodes"));
        assert!(!limits.admit("u", Severity::Normal, "Started", "253 nodes"));
        let admitted = (0..50).filter(|n| limits.admit("u", Severity::Warning, "BootTimeout", &n.to_string())).count();
        assert_eq!(admitted, PER_SESSION - 2);
        assert!(limits.admit("u", Severity::Ended, "Complete", "done"), "the last word is never withheld");
        assert!(!limits.admit("u", Severity::Ended, "Complete", "done again"));
        assert!(limits.admit("other", Severity::Normal, "Started", "253 nodes"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut limits = Limits::default();
        for n in 0..SESSIONS * 3 {
            limits.admit(&n.to_string(), Severity::Normal, "Started", "");
        }
        assert_eq!((limits.seen.len(), limits.order.len()), (SESSIONS, SESSIONS));
        limits.forget(&(SESSIONS * 3 - 1).to_string());
        assert_eq!((limits.seen.len(), limits.order.len()), (SESSIONS - 1, SESSIONS - 1));
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = "€".repeat(1000);
        let short = shortened(&note);
        assert!(short.len() <= NOTE_BYTES && short.len() > NOTE_BYTES - 3 && note.starts_with(&short));
    }
}
