//! Leader election on a `coordination.k8s.io` Lease.
//!
//! Rules that keep two processes from leading at once:
//!
//! * Every write is a replace with the resourceVersion that was read, so of two candidates one gets 409.
//! * Another's lease counts as expired only when *we* have watched it unchanged for its whole
//!   duration on our monotonic clock. Wall clocks are never compared.
//! * A leader counts its own time from the moment *before* it sent the last renewal that was
//!   acknowledged, and stops at the renew deadline, which is shorter than the duration.
//! * Each holding has an epoch that is larger than all before it (`leaseTransitions`), also when the
//!   same holder comes back. Journals carry it, so even a process that slept through its deadline
//!   can change nothing any more.
//!
//! The Lease also says where its holder takes reports of nodes, so that those who stand by can pass on what reaches them.
//!
//! A lease that carries our own identity is taken at once. The identity must therefore be unique to
//! the pod (its name): a container restarts only after the one before it has ended, so nobody else
//! can be using that identity. Where an identity is given by hand to two running processes, the
//! second takes over, the first stops at its next renewal, and the epoch fences what lies between.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bos_crds::labels;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clients::{CallError, Verdict, bounded};
use crate::figures::LeaseFigures;

/// The times of the election. The defaults are those of Kubernetes' own components.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseConfig {
    /// How long others leave a lease alone that is not renewed.
    pub duration: Duration,
    /// How long a leader goes on without a renewal; must be shorter than `duration`.
    pub renew_deadline: Duration,
    /// How often a leader renews; a candidate looks twice as often.
    pub period: Duration,
}

impl Default for LeaseConfig {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), renew_deadline: Duration::from_secs(10), period: Duration::from_secs(2) }
    }
}

impl LeaseConfig {
    /// Whether the times keep a leader from outliving its lease.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.period.is_zero() && self.period * 2 <= self.renew_deadline && self.renew_deadline < self.duration
    }

    /// One call must leave time for another try before the deadline.
    fn call_timeout(&self) -> Duration {
        self.renew_deadline / 3
    }
}

/// What the election reads and writes of a Lease.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeaseRecord {
    /// The holder's identity; none when released.
    pub holder: Option<String>,
    /// The holding's number.
    pub epoch: i64,
    /// How long the holder asks to be left alone.
    pub duration: Duration,
    /// Where the holder takes reports of nodes; none where it takes none, or none from other operators.
    pub reports: Option<String>,
    /// The version that was read; empty for a record that is to be created.
    pub resource_version: String,
}

/// Who leads, as a candidate sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leader {
    /// The holder's identity.
    pub identity: String,
    /// Where it takes reports of nodes.
    pub reports: Option<String>,
}

/// Where the lease is kept; the API server, or a model of it in tests.
#[async_trait]
pub trait LeaseStore: Send + Sync + 'static {
    /// Reads the lease.
    async fn get(&self) -> Result<Option<LeaseRecord>, LeaseError>;
    /// Creates it; [`LeaseError::Conflict`] when it is there.
    async fn create(&self, record: &LeaseRecord) -> Result<LeaseRecord, LeaseError>;
    /// Replaces the version named in the record; [`LeaseError::Conflict`] when it is another by now.
    async fn replace(&self, record: &LeaseRecord) -> Result<LeaseRecord, LeaseError>;
}

/// A lease call that failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Somebody else wrote first, or the lease is gone. Nothing was written by this call.
    #[error("the lease was changed by somebody else")]
    Conflict,
    /// Everything else; the write may have happened.
    #[error("{0}")]
    Other(String),
}

/// Another's lease, as it was last seen.
struct Watched {
    version: String,
    free_at: Instant,
}

/// Takes part in the election.
pub struct Elector {
    store: Arc<dyn LeaseStore>,
    identity: String,
    config: LeaseConfig,
    floor: AtomicI64,
    reports: Option<String>,
    leader: watch::Sender<Option<Leader>>,
    figures: LeaseFigures,
}

/// A holding of the lease. Dropping it stops the renewal and cancels `lost`, but does not release.
pub struct Leadership {
    /// The holding's number, larger than that of any holding before it.
    pub epoch: i64,
    /// Cancelled when the renew deadline has passed, another holder was seen, or it was released.
    pub lost: CancellationToken,
    held: Arc<Held>,
    renewal: tokio::task::JoinHandle<()>,
}

/// What the renewal task and the owner share.
struct Held {
    store: Arc<dyn LeaseStore>,
    config: LeaseConfig,
    state: Mutex<LeaseRecord>,
    until: std::sync::Mutex<Instant>,
    figures: LeaseFigures,
}

impl Elector {
    /// An elector for the Lease `name` in `namespace`. `identity` must be unique to the pod.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, config: LeaseConfig) -> Self {
        let store = KubeLease { api: Api::namespaced(client, namespace), name: name.to_owned(), config };
        Self::with_store(Arc::new(store), identity, config)
    }

    /// An elector over any store.
    #[must_use]
    pub fn with_store(store: Arc<dyn LeaseStore>, identity: &str, config: LeaseConfig) -> Self {
        debug_assert!(config.is_sound(), "the renew deadline must be shorter than the lease");
        let leader = watch::Sender::new(None);
        Self {
            store,
            identity: identity.to_owned(),
            config,
            floor: AtomicI64::new(0),
            reports: None,
            leader,
            figures: LeaseFigures::default(),
        }
    }

    /// Renewals are counted there.
    #[must_use]
    pub fn counted(mut self, figures: LeaseFigures) -> Self {
        self.figures = figures;
        self
    }

    /// Says in the Lease where this process takes reports, once it leads; and tells `leader` who leads while another does.
    #[must_use]
    pub fn announcing(mut self, reports: Option<String>, leader: watch::Sender<Option<Leader>>) -> Self {
        (self.reports, self.leader) = (reports, leader);
        self
    }

    /// Makes the next holding's epoch larger than `epoch`. Journals know epochs that a deleted Lease
    /// has forgotten; call this with [`crate::records::highest_epoch`] before [`Elector::acquire`].
    pub fn raise_floor(&self, epoch: i64) {
        self.floor.fetch_max(epoch, Ordering::SeqCst);
    }

    /// Waits until the lease is ours. None when `cancel` comes first.
    pub async fn acquire(&self, cancel: &CancellationToken) -> Option<Leadership> {
        let mut seen = None;
        loop {
            let attempt = async {
                let sent = self.try_acquire(&mut seen).await;
                if sent.is_none() {
                    tokio::time::sleep(self.pause(seen.as_ref())).await;
                }
                sent
            };
            tokio::select! {
                biased;
                () = cancel.cancelled() => return None,
                got = attempt => if let Some((record, sent)) = got {
                    self.leader.send_replace(None);
                    return Some(self.lead(record, sent));
                },
            }
        }
    }

    /// One look at the lease, and one attempt to take it where it is free.
    async fn try_acquire(&self, seen: &mut Option<Watched>) -> Option<(LeaseRecord, Instant)> {
        let current = match self.timed(self.store.get()).await {
            Ok(current) => current,
            Err(error) => {
                tracing::warn!(%error, "cannot read the leader lease");
                return None;
            }
        };
        if let Some(record) = &current {
            self.raise_floor(record.epoch);
            if !self.is_free(record, seen) {
                self.tell_who_leads(record);
                return None;
            }
        }
        let wanted = LeaseRecord {
            holder: Some(self.identity.clone()),
            epoch: self.floor.load(Ordering::SeqCst) + 1,
            duration: self.config.duration,
            reports: self.reports.clone(),
            resource_version: current.as_ref().map(|record| record.resource_version.clone()).unwrap_or_default(),
        };
        let sent = Instant::now();
        let written = match current {
            Some(_) => self.timed(self.store.replace(&wanted)).await,
            None => self.timed(self.store.create(&wanted)).await,
        };
        match written {
            Ok(record) if sent.elapsed() < self.config.renew_deadline => Some((record, sent)),
            Ok(_) => None,
            Err(error) => {
                tracing::info!(%error, "did not get the leader lease");
                None
            }
        }
    }

    /// Free: released, our own pod's, or watched unchanged for its whole duration.
    fn is_free(&self, record: &LeaseRecord, seen: &mut Option<Watched>) -> bool {
        match record.holder.as_deref() {
            None | Some("") => return true,
            Some(holder) if holder == self.identity => return true,
            Some(_) => {}
        }
        let now = Instant::now();
        match seen {
            Some(watched) if watched.version == record.resource_version => now >= watched.free_at,
            other => {
                if other.is_none() {
                    tracing::info!(holder = record.holder, "another process leads; standing by");
                }
                let free_at = now + record.duration.max(self.config.duration);
                *other = Some(Watched { version: record.resource_version.clone(), free_at });
                false
            }
        }
    }

    /// Until the next look: often enough to see each renewal soon, since a lease counts as expired a whole duration after it was
    /// seen to change; and not later than that moment.
    fn pause(&self, seen: Option<&Watched>) -> Duration {
        let often = self.config.period / 2;
        let left = seen.map(|watched| watched.free_at.saturating_duration_since(Instant::now()));
        // Past that moment another took it, or the API server did not answer.
        left.filter(|left| !left.is_zero()).map_or(often, |left| left.min(often))
    }

    fn tell_who_leads(&self, record: &LeaseRecord) {
        let leader = Leader { identity: record.holder.clone().unwrap_or_default(), reports: record.reports.clone() };
        self.leader.send_if_modified(|known| known.replace(leader.clone()).as_ref() != Some(&leader));
    }

    async fn timed<T>(&self, call: impl Future<Output = Result<T, LeaseError>>) -> Result<T, LeaseError> {
        timed(self.config.call_timeout(), call).await
    }

    fn lead(&self, record: LeaseRecord, sent: Instant) -> Leadership {
        let epoch = record.epoch;
        self.raise_floor(epoch);
        tracing::info!(epoch, identity = self.identity, "took the lease");
        let held = Arc::new(Held {
            store: Arc::clone(&self.store),
            config: self.config,
            state: Mutex::new(record),
            until: std::sync::Mutex::new(sent + self.config.renew_deadline),
            figures: self.figures.clone(),
        });
        self.figures.held(Some(sent));
        let lost = CancellationToken::new();
        let renewal = tokio::spawn(renew(Arc::clone(&held), lost.clone()));
        Leadership { epoch, lost, held, renewal }
    }
}

async fn timed<T>(limit: Duration, call: impl Future<Output = Result<T, LeaseError>>) -> Result<T, LeaseError> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| Err(LeaseError::Other(format!("no answer within {limit:?}"))))
}

impl Held {
    fn until(&self) -> Instant {
        *self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Renews once; false when the lease is another's.
    async fn renew_once(&self) -> bool {
        let mut state = self.state.lock().await;
        let sent = Instant::now();
        match timed(self.config.call_timeout(), self.store.replace(&state)).await {
            Ok(record) => {
                *state = record;
                *self.until.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = sent + self.config.renew_deadline;
                self.figures.held(Some(sent));
                self.figures.count(true);
                true
            }
            Err(error) => {
                tracing::warn!(%error, "could not renew the leader lease");
                self.figures.count(false);
                self.look_again(&mut state).await
            }
        }
    }

    /// After a failed renewal: our own lost write may have moved the version on, or another leads.
    async fn look_again(&self, state: &mut LeaseRecord) -> bool {
        match timed(self.config.call_timeout(), self.store.get()).await {
            Ok(Some(record)) if record.holder == state.holder && record.epoch == state.epoch => {
                *state = record;
                true
            }
            Ok(found) => {
                tracing::error!(holder = found.and_then(|record| record.holder), "the leader lease is another's");
                false
            }
            // Unknown: go on trying until the deadline.
            Err(_) => true,
        }
    }
}

/// Renews until the deadline passes, another holder is seen, or `lost` is cancelled by the owner.
async fn renew(held: Arc<Held>, lost: CancellationToken) {
    let cancel_on_exit = lost.clone().drop_guard();
    let mut next = Instant::now() + held.config.period;
    loop {
        let deadline = held.until();
        tokio::select! {
            biased;
            () = lost.cancelled() => break,
            () = tokio::time::sleep_until(deadline) => {
                tracing::error!("the leader lease could not be renewed in time");
                break;
            }
            () = tokio::time::sleep_until(next) => {}
        }
        next = Instant::now() + held.config.period;
        // The deadline must also end a renewal that hangs, and it moves only by a renewal.
        let ours = tokio::select! {
            biased;
            () = lost.cancelled() => break,
            () = tokio::time::sleep_until(deadline) => continue,
            ours = held.renew_once() => ours,
        };
        if !ours {
            break;
        }
    }
    held.figures.held(None);
    drop(cancel_on_exit);
}

impl Leadership {
    /// Whether the lease is still ours by our own clock. True is no promise for the next moment;
    /// effects are fenced by the journal.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.asked_by_others()()
    }

    /// The same, to be asked by those who act, at the last moment.
    pub fn asked_by_others(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let (lost, held) = (self.lost.clone(), Arc::clone(&self.held));
        move || !lost.is_cancelled() && Instant::now() < held.until()
    }

    /// Gives the lease up so that another can take it at once. Call it only after everything that
    /// acts as leader has stopped. Failing is harmless: the lease then runs out by itself.
    pub async fn release(mut self) {
        let was_held = self.is_held();
        self.lost.cancel();
        let _ = (&mut self.renewal).await;
        if !was_held {
            return;
        }
        let mut state = self.held.state.lock().await;
        state.holder = None;
        state.reports = None;
        let limit = self.held.config.call_timeout();
        if let Err(error) = timed(limit, self.held.store.replace(&state)).await {
            tracing::warn!(%error, "could not release the leader lease; it runs out by itself");
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.lost.cancel();
    }
}

/// The lease in the API server.
struct KubeLease {
    api: Api<Lease>,
    name: String,
    config: LeaseConfig,
}

impl KubeLease {
    fn to_object(&self, record: &LeaseRecord) -> Lease {
        let now = MicroTime(jiff::Timestamp::now());
        let held = record.holder.is_some();
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: (!record.resource_version.is_empty()).then(|| record.resource_version.clone()),
                annotations: record.reports.clone().map(|reports| BTreeMap::from([(labels::LEASE_REPORTS.to_owned(), reports)])),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: record.holder.clone(),
                lease_duration_seconds: Some(if held { whole_seconds(record.duration) } else { 1 }),
                lease_transitions: Some(i32::try_from(record.epoch).unwrap_or(i32::MAX)),
                renew_time: Some(now),
                ..LeaseSpec::default()
            }),
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, LeaseError> {
        bounded(self.config.call_timeout(), call).await.map_err(|error| lease_error(&error))
    }
}

fn written_by_us() -> PostParams {
    PostParams { field_manager: Some(labels::MANAGER_OPERATOR.to_owned()), ..PostParams::default() }
}

fn lease_error(error: &CallError) -> LeaseError {
    match error.verdict() {
        Verdict::Conflict | Verdict::AlreadyExists | Verdict::NotFound => LeaseError::Conflict,
        _ => LeaseError::Other(error.message()),
    }
}

fn whole_seconds(duration: Duration) -> i32 {
    // Rounded up: others must never wait for less than we count on.
    i32::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i32::MAX).max(1)
}

fn from_object(lease: Lease) -> LeaseRecord {
    let reports = lease.metadata.annotations.and_then(|mut all| all.remove(labels::LEASE_REPORTS));
    let spec = lease.spec.unwrap_or_default();
    LeaseRecord {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        epoch: i64::from(spec.lease_transitions.unwrap_or(0)),
        duration: Duration::from_secs(u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0)),
        reports,
        resource_version: lease.metadata.resource_version.unwrap_or_default(),
    }
}

#[async_trait]
impl LeaseStore for KubeLease {
    async fn get(&self) -> Result<Option<LeaseRecord>, LeaseError> {
        Ok(self.call(self.api.get_opt(&self.name)).await?.map(from_object))
    }

    async fn create(&self, record: &LeaseRecord) -> Result<LeaseRecord, LeaseError> {
        let object = self.to_object(record);
        self.call(self.api.create(&written_by_us(), &object)).await.map(from_object)
    }

    async fn replace(&self, record: &LeaseRecord) -> Result<LeaseRecord, LeaseError> {
        let object = self.to_object(record);
        self.call(self.api.replace(&self.name, &written_by_us(), &object)).await.map(from_object)
    }
}
