//! What is durable: plans, journals, artifact sets and the ledger, as ConfigMaps in the operator's
//! namespace.
//!
//! This module knows names, bytes and resourceVersions, not what the bytes mean. Its promises:
//!
//! * A call returns when what it wrote is durable, when the leadership has ended, when another
//!   leader has taken the record over, or when the server refuses for good. An API server that is
//!   away, busy or forgetful of its answer is waited for.
//! * Journals and the ledger carry the epoch of the leader that wrote them and are replaced with the
//!   resourceVersion of the last acknowledged write. A new leader first writes its epoch into all of
//!   them ([`Records::load_all`]), so that a deposed leader's next write fails with
//!   [`RecordError::Deposed`] and nothing that was to follow it happens.
//! * Plans and artifact sets are immutable. Writing the same again is no error.

mod content;
mod fenced;
mod ledger;
mod load;
mod store;

use std::fmt;

use bos_crds::labels;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use content::{CHUNK_BYTES, MAX_RECORD_BYTES};
pub use load::{JournalBytes, Loaded, StoredSession, highest_epoch, journal_bytes, journal_epoch};

use content::Record;
use fenced::Slots;
use ledger::Ledger;
use store::Store;

/// Names a Session for people and for the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey {
    /// The Session's namespace.
    pub namespace: String,
    /// The Session's name.
    pub name: String,
}

impl SessionKey {
    /// A key from its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    fn parse(text: &str) -> Option<Self> {
        let (namespace, name) = text.split_once('/')?;
        Some(Self::new(namespace, name))
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The Sessions that a ConfigMap of the ledger remembers, each with the uid that ran; for those who only look.
#[must_use]
pub fn names_that_ran(object: &ConfigMap) -> Vec<(SessionKey, String)> {
    content::content(object).map(ledger::names).unwrap_or_default()
}

/// Why a record was not written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A later leader owns the record. The caller must stop everything.
    #[error("{name} is owned by a later leader (epoch {epoch})")]
    Deposed {
        /// The ConfigMap.
        name: String,
        /// The later leader's epoch.
        epoch: i64,
    },
    /// An earlier leader created the record after we had read all there was. What it did is only in
    /// that record, so the caller must start again and read it.
    #[error("{name} was written by an earlier leader (epoch {epoch}) after this one had read the records; start again")]
    Foreign {
        /// The ConfigMap.
        name: String,
        /// The earlier leader's epoch.
        epoch: i64,
    },
    /// The leadership ended before the write was known to be durable. It may have happened.
    #[error("the leadership ended before {name} was known to be written")]
    Cancelled {
        /// The ConfigMap.
        name: String,
    },
    /// An agent finds its journal gone, which it may not make again: what it did is nowhere else.
    #[error(
        "{name}, the journal of this agent, is gone: somebody deleted it. Nothing more is sent. The operator takes the Session back; nodes that \
         are not through fail with RecordsLost and are left as they are. Look at them, then use a new Session"
    )]
    Gone {
        /// The ConfigMap.
        name: String,
    },
    /// An immutable record of that name holds something else.
    #[error("{name} of {of} is there with other content ({found} bytes, ours {ours} bytes, different from byte {at})")]
    Differs {
        /// The ConfigMap.
        name: String,
        /// The Session or digest it belongs to.
        of: String,
        /// How long the stored content is.
        found: usize,
        /// How long ours is.
        ours: usize,
        /// The first byte that is different.
        at: usize,
    },
    /// A Session of that name has run with another uid.
    #[error("a Session {key} has run before (uid {uid})")]
    AlreadyRan {
        /// The Session.
        key: SessionKey,
        /// The uid that ran.
        uid: String,
    },
    /// The record is larger than one ConfigMap can be.
    #[error("{name} would have {bytes} bytes, more than {MAX_RECORD_BYTES}")]
    TooLarge {
        /// The ConfigMap.
        name: String,
        /// Its size.
        bytes: usize,
    },
    /// The API server refuses the record for good.
    #[error("the API server refuses {name}: {message}")]
    Refused {
        /// The ConfigMap.
        name: String,
        /// The server's words.
        message: String,
    },
    /// A plan or journal that this operator cannot read. It is never guessed at: nothing is done until a person has looked.
    #[error(
        "plan or journal of Session {session} (uid {uid}) cannot be read: {why}. Nothing is done. To give the Session up, look at its nodes, \
         then delete its records in the namespace of the operator: kubectl delete configmap -l bos.hpe.com/session-uid={uid}"
    )]
    Unreadable {
        /// The Session, where it is known.
        session: String,
        /// Its uid.
        uid: String,
        /// What is wrong with them.
        why: String,
    },
}

/// The durable records under one leadership.
pub struct Records {
    store: Store,
    epoch: i64,
    /// Who writes them, as a label of every fenced record says.
    writer: &'static str,
    slots: Slots,
    ledger: Ledger,
}

impl Records {
    /// Records of the leader with this epoch. `lost` is the leadership's token: when it is
    /// cancelled, every call that still waits ends with [`RecordError::Cancelled`].
    #[must_use]
    pub fn new(client: Client, namespace: &str, epoch: i64, lost: CancellationToken) -> Self {
        let (slots, ledger) = (Slots::default(), Ledger::default());
        Self { store: Store::new(client, namespace, lost), epoch, writer: labels::MANAGER_OPERATOR, slots, ledger }
    }

    /// The same of an agent, whose journal the operator follows.
    #[must_use]
    pub fn of_agent(client: Client, namespace: &str, epoch: i64, lost: CancellationToken) -> Self {
        Self { writer: labels::MANAGER_AGENT, ..Self::new(client, namespace, epoch, lost) }
    }

    /// The epoch these records are written with.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// Writes a Session's plan, once, after an empty journal. The same content again is a success.
    ///
    /// # Errors
    /// [`RecordError::Differs`] when the Session has another plan; see [`RecordError`].
    pub async fn create_plan(&self, uid: &str, key: &SessionKey, plan: &[u8]) -> Result<(), RecordError> {
        // Before the plan: a plan without a journal was acted on, and somebody removed what was done.
        self.open_fenced(&Record::Journal { uid, key: Some(key), epoch: self.epoch }).await?;
        let chunks = content::split(plan);
        // The first chunk is written last: where it is there, the plan is whole.
        for (index, chunk) in chunks.iter().enumerate().rev() {
            let record = Record::Plan { uid, key, index, chunks: chunks.len() };
            self.store.create_immutable(&record, chunk).await?;
        }
        Ok(())
    }

    /// Reads one Session's plan; none when there is none or it is not whole.
    ///
    /// # Errors
    /// [`RecordError::Cancelled`] when the leadership ends first.
    pub async fn read_plan(&self, uid: &str) -> Result<Option<Vec<u8>>, RecordError> {
        load::read_plan(&self.store, uid).await
    }

    /// Writes a Session's journal and returns when it is durable.
    ///
    /// # Errors
    /// See [`RecordError`]; after [`RecordError::Deposed`] nothing more may be done as leader.
    pub async fn write_journal(&self, uid: &str, key: &SessionKey, journal: &[u8]) -> Result<(), RecordError> {
        self.write_fenced(&Record::Journal { uid, key: Some(key), epoch: self.epoch }, journal).await
    }

    /// Writes to the record that every leader keeps. After a plan with a name of its own, which no other leader knows and whose
    /// creation therefore never conflicts, it says whether we lead still; `what` it is written for stays in it.
    ///
    /// # Errors
    /// [`RecordError::Deposed`] when a later leader has taken the records over; see [`RecordError`].
    pub async fn fence(&self, what: &str) -> Result<(), RecordError> {
        self.write_fenced(&Record::Epoch { epoch: self.epoch }, what.as_bytes()).await
    }

    /// Says to which Job a Session was given, before that Job may begin: from then on its journal is the agent's.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn give_to_agent(&self, uid: &str, job_uid: &str) -> Result<(), RecordError> {
        self.write_fenced(&Record::Agent { uid, epoch: self.epoch }, job_uid.as_bytes()).await
    }

    /// Takes a Session back from its agent, which writes nothing more after that. The agent must have lost its Lease.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn take_back(&self, uid: &str) -> Result<JournalBytes, RecordError> {
        let journal = load::take_back(self, uid).await?;
        // Kept, empty: the Session is given to nobody again.
        self.write_fenced(&Record::Agent { uid, epoch: self.epoch }, &[]).await?;
        Ok(journal)
    }

    /// Takes over the records of the one Session an agent is for; None where its plan or journal are not there, or the Session is not
    /// given to this Job.
    ///
    /// # Errors
    /// [`RecordError::Deposed`] when a later agent or the operator owns the journal; see [`RecordError`].
    pub async fn load_one(&self, uid: &str, job: &str) -> Result<Option<Loaded>, RecordError> {
        load::load_one(self, uid, job).await
    }

    /// Removes a Session's journal and then its plan. Both gone already is a success.
    ///
    /// # Errors
    /// [`RecordError::Deposed`] when a later leader owns the journal; see [`RecordError`].
    pub async fn remove_session(&self, uid: &str) -> Result<(), RecordError> {
        self.remove_fenced(&Record::Agent { uid, epoch: self.epoch }).await?;
        self.remove_fenced(&Record::Journal { uid, key: None, epoch: self.epoch }).await?;
        load::remove_plan(&self.store, uid).await
    }

    /// Stores an artifact set under its digest. The same content again is a success.
    ///
    /// # Errors
    /// [`RecordError::Differs`] when the digest names something else; see [`RecordError`].
    pub async fn put_artifacts(&self, digest: &str, artifacts: &[u8]) -> Result<(), RecordError> {
        let record = Record::Artifacts { digest };
        content::check_size(&record.name(), artifacts)?;
        self.store.create_immutable(&record, artifacts).await
    }

    /// Removes an artifact set. Gone already is a success.
    ///
    /// # Errors
    /// See [`RecordError`].
    pub async fn remove_artifacts(&self, digest: &str) -> Result<(), RecordError> {
        self.store.delete(&Record::Artifacts { digest }.name(), None).await.map(|_| ())
    }

    /// Remembers that a Session has run, durably, beyond the Session's own life. `created_at` is the
    /// Session's creation time as it stands in its metadata. The same Session again writes nothing.
    ///
    /// # Errors
    /// [`RecordError::AlreadyRan`] when the name ran with another uid; see [`RecordError`].
    pub async fn remember(&self, key: &SessionKey, uid: &str, created_at: &str) -> Result<(), RecordError> {
        let Some(change) = self.ledger.prepare(key, uid, created_at).await? else { return Ok(()) };
        self.write_fenced(&Record::Ledger { shard: change.shard(), epoch: self.epoch }, &change.content()).await?;
        change.commit();
        Ok(())
    }

    /// The uid with which a Session of this name has run, as far as the ledger reaches back.
    #[must_use]
    pub fn ran(&self, key: &SessionKey) -> Option<String> {
        self.ledger.ran(key)
    }

    /// Takes every record over (writes our epoch into each journal, so that a deposed leader can
    /// write no more) and returns what they hold. Parts of a plan that was never completed are
    /// removed. Must be called, and succeed, before anything is written.
    ///
    /// # Errors
    /// [`RecordError::Deposed`] when a record carries a later epoch than ours; see [`RecordError`].
    pub async fn load_all(&self) -> Result<Loaded, RecordError> {
        load::load_all(self).await
    }
}

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Records").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}
