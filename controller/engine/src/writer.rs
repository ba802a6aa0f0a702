//! Writes of specs and statuses of our own kinds: many, lazy, latest wins.
//!
//! The queue holds at most one write per object and target; a newer one replaces it. Of what may be
//! written now, urgent writes go first and then the longest waiting. Only one write per object is in
//! flight, so an object's writes arrive in the order they were made. A write that met a busy or absent
//! API server stays queued for as long as the leadership lasts; while the server is away only one
//! write at a time tries it.

mod body;
mod queue;
mod send;
mod task;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Client;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use body::Body;
use queue::Queue;

use crate::figures::{Write, WriteFigures};

/// The kinds that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A SessionTemplate.
    SessionTemplate,
    /// A Session.
    Session,
    /// A BootComponent.
    BootComponent,
    /// The BootOptions.
    BootOptions,
}

impl Kind {
    /// The kind as it stands in manifests.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SessionTemplate => "SessionTemplate",
            Self::Session => "Session",
            Self::BootComponent => "BootComponent",
            Self::BootOptions => "BootOptions",
        }
    }
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace, for the kinds that have one.
    pub namespace: Option<Arc<str>>,
    /// Its name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// An object in a namespace.
    pub fn namespaced(kind: Kind, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { kind, namespace: Some(namespace.into()), name: name.into() }
    }

    /// A cluster-scoped object.
    pub fn cluster(kind: Kind, name: impl Into<Arc<str>>) -> Self {
        Self { kind, namespace: None, name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind.as_str(), self.name),
            None => write!(f, "{} {}", self.kind.as_str(), self.name),
        }
    }
}

/// What of an object is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The object itself, new. The body is its spec.
    Create,
    /// The spec. The body is a merge patch of it.
    Spec,
    /// The status subresource. The body is a merge patch of the status.
    Status,
}

impl Target {
    /// The part of an object that is written.
    const fn part(self) -> &'static str {
        match self {
            Self::Create | Self::Spec => "spec",
            Self::Status => "status",
        }
    }
}

/// Which write goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Urgency {
    /// Failures, ends, and what a person or a node waits for.
    Urgent,
    /// Everything else.
    Normal,
}

/// One write.
#[derive(Debug, Clone)]
pub struct WriteJob {
    /// The object.
    pub key: ObjectKey,
    /// The uid it must have; empty for a create.
    pub uid: String,
    /// The version it must have; None writes whatever the version (a status write then costs a read, because the API server
    /// compares no uid there). Where our own earlier write has moved that version on, the newer one is used.
    pub resource_version: Option<String>,
    /// What is written.
    pub target: Target,
    /// What the target says.
    pub body: Body,
    /// The caller's number for this decision, given back with the answer.
    pub version: u64,
    /// Which write goes first.
    pub urgency: Urgency,
    /// The write may wait until then, so that a state that does not last is never written. A newer
    /// write for the same object and target takes the earlier of the two times.
    pub not_before: Option<Instant>,
    /// The object's managedFields are dropped, and the API server keeps none until somebody applies it server-side (ADR 0014). Heeded in
    /// writes of the spec alone: with a status they cannot be changed.
    pub untracked: bool,
}

/// What became of a write that was submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// None of the object and target was waiting.
    New,
    /// One was waiting that had been sent before, without an answer that settles it.
    InPlace,
    /// One was waiting that has never left.
    InPlaceOfUnsent,
}

/// How a write ended.
#[derive(Debug, Clone, PartialEq)]
pub enum WriteOutcome {
    /// The object is as the body says.
    Written {
        /// Its version now.
        resource_version: String,
        /// Its generation now.
        generation: i64,
        /// Its uid (news after a create).
        uid: String,
    },
    /// Somebody else has changed it. Nothing was written.
    Conflict {
        /// The object as it is now, without managedFields unless somebody has applied it server-side.
        current: Box<Value>,
    },
    /// It does not exist (any more), or another object has its name.
    Gone,
    /// The API server refuses the write for good.
    Refused {
        /// Its words.
        message: String,
    },
}

/// The answer to a write. Writes that a newer one replaced get none: the answer to a version settles
/// all earlier ones of the same object and target.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteAck {
    /// The object.
    pub key: ObjectKey,
    /// The uid that the write was for; empty for a create.
    pub uid: String,
    /// What was written.
    pub target: Target,
    /// The job's version.
    pub version: u64,
    /// How it ended.
    pub outcome: WriteOutcome,
}

/// How the writer works.
#[derive(Debug, Clone, Copy)]
pub struct WriterConfig {
    /// Writes in flight at once. More than 16 make an API server no faster.
    pub in_flight: usize,
    /// The same while the writer gives way, one at least: an API server that works at 16 others takes a quarter of a second for a
    /// journal, and two cores of which it has most take as long to hear ten thousand nodes.
    pub giving_way: usize,
    /// How long one call may take before its outcome counts as unknown.
    pub call_timeout: Duration,
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self { in_flight: 16, giving_way: 1, call_timeout: crate::clients::CALL_TIMEOUT }
    }
}

/// Takes writes and sends them in the background. Cheap to clone.
#[derive(Clone)]
pub struct StatusWriter {
    shared: Arc<Shared>,
}

/// See [`StatusWriter::give_way`].
pub struct GiveWay(Arc<Shared>);

impl Drop for GiveWay {
    fn drop(&mut self) {
        self.0.giving_way.fetch_sub(1, Ordering::Relaxed);
        self.0.changed.notify_one();
    }
}

struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
    giving_way: AtomicUsize,
    figures: WriteFigures,
}

impl Shared {
    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatusWriter {
    /// Starts the writer. Answers come through the receiver, which must be read: writing pauses when
    /// a thousand answers wait. When `cancel` is cancelled nothing more is sent.
    #[must_use]
    pub fn spawn(
        client: Client,
        config: WriterConfig,
        figures: WriteFigures,
        cancel: CancellationToken,
    ) -> (Self, mpsc::Receiver<WriteAck>) {
        let (tx, rx) = mpsc::channel(1024);
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Notify::new(), giving_way: AtomicUsize::new(0), figures });
        tokio::spawn(task::run(client, config, Arc::clone(&shared), tx, cancel));
        (Self { shared }, rx)
    }

    /// Queues a write, in place of an earlier one for the same object and target. Never waits.
    pub fn submit(&self, job: WriteJob) -> Submitted {
        let kind = job.key.kind.as_str();
        let submitted = self.shared.queue().submit(job, Instant::now());
        if submitted != Submitted::New {
            self.shared.figures.count(kind, Write::Coalesced);
        }
        self.shared.changed.notify_one();
        submitted
    }

    /// What waits to be written of an object is urgent from now on.
    pub fn hurry(&self, key: &ObjectKey) {
        self.shared.queue().hurry(key);
        self.shared.changed.notify_one();
    }

    /// Few writes leave as long as this lives, but for urgent ones: something is to be written elsewhere that a call or a node waits for.
    #[must_use]
    pub fn give_way(&self) -> GiveWay {
        self.shared.giving_way.fetch_add(1, Ordering::Relaxed);
        GiveWay(Arc::clone(&self.shared))
    }

    /// What waits to be written of an object.
    #[cfg(test)]
    pub(crate) fn waiting(&self, key: &ObjectKey) -> Vec<WriteJob> {
        self.shared.queue().waiting(key)
    }

    /// Writes that wait or are in flight.
    #[must_use]
    pub fn queue_len(&self) -> usize {
        self.shared.queue().len()
    }

    /// Objects whose write waits for nothing but its turn: what an API server that is saturated has before it.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.shared.queue().ready_len()
    }

    /// How long the longest waiting write has waited, of those that may leave.
    #[must_use]
    pub fn oldest_age(&self) -> Duration {
        self.shared.queue().oldest_age(Instant::now())
    }
}

impl fmt::Debug for StatusWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusWriter").field("queue_len", &self.queue_len()).finish_non_exhaustive()
    }
}
