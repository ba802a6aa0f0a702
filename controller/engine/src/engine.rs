//! The engine's life: take the leadership, read everything back, then go round the loop until told to stop or deposed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bos_core::session::SessionOutcome;
use bos_crds::labels;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::applications::Application;
use crate::clients::Clients;
use crate::events::SessionEvents;
use crate::lease::{Elector, Leadership, LeaseConfig};
use crate::load;
use crate::records::{JournalBytes, RecordError, Records, SessionKey, highest_epoch, journal_epoch};
use crate::reports::Report;
use crate::task::{Inputs, Task};
use crate::telemetry::Telemetry;
use crate::tenants;
use crate::watches::{Scope, WatchHealth, spawn_watches};
use crate::writer::{StatusWriter, WriterConfig};

/// What the engine needs to know of its surroundings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Namespace of the operator, where its records are.
    pub namespace: String,
    /// Unique to this process: pod name.
    pub identity: String,
    /// Times of the leader election.
    pub lease: LeaseConfig,
    /// The endpoint for node reports is on.
    pub hears_reports: bool,
    /// URL at which operators that stand by reach it.
    pub reports_at: Option<String>,
    /// The pod of agents; None: Sessions of mode v1 are refused.
    pub agent_template: Option<PodTemplateSpec>,
}

/// The Session that an agent is for.
#[derive(Debug, Clone)]
pub struct Charge {
    /// Its namespace and name.
    pub session: SessionKey,
    /// Its uid.
    pub uid: String,
    /// Uid of the Job that this process belongs to. Another one carries the Session out, or none any more, where the records do not name it.
    pub job: String,
}

/// What comes in from outside of Kubernetes.
#[derive(Debug)]
pub struct Asked {
    /// Reports of nodes.
    pub reports: mpsc::Receiver<Report>,
    /// Requests to apply staged state.
    pub applications: mpsc::Receiver<Application>,
}

/// Why the engine stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Another process leads, or the lease could not be renewed in time. The process must end.
    #[error("the leadership is lost; this process must end so that it does nothing more")]
    Deposed,
    /// Records could not be read or written for good.
    #[error("records: {0}")]
    Records(#[from] RecordError),
    /// There is nothing to carry out.
    #[error("the Session {0} is not this agent's to carry out: it is over, it was taken back, or somebody removed its records")]
    NothingToDo(SessionKey),
}

/// How long a stopping engine waits for what is on its way.
const FAREWELL: Duration = Duration::from_secs(5);

/// Runs the engine until `cancel` is cancelled or the leadership is lost.
///
/// # Errors
/// See [`EngineError`].
pub async fn run(
    settings: Settings,
    clients: Clients,
    services: bos_services::Clients,
    asked: Asked,
    telemetry: Arc<Telemetry>,
    cancel: CancellationToken,
) -> Result<(), EngineError> {
    let Some(leadership) = lead(&settings, &clients, &telemetry, &cancel).await? else { return Ok(()) };
    telemetry.epoch.store(u64::try_from(leadership.epoch).unwrap_or(0), Ordering::Relaxed);
    let ended = lead_on(&settings, &clients, services, asked, &telemetry, &cancel, &leadership).await;
    telemetry.leading.store(false, Ordering::Relaxed);
    if ended.is_ok() {
        leadership.release().await;
    }
    ended
}

/// Waits for the leadership; None when told to stop first.
async fn lead(
    settings: &Settings,
    clients: &Clients,
    telemetry: &Arc<Telemetry>,
    cancel: &CancellationToken,
) -> Result<Option<Leadership>, EngineError> {
    telemetry.set_waiting("the API server");
    let pulse = pulse(telemetry);
    let floor = match highest_epoch(clients.journal.clone(), &settings.namespace, cancel.clone()).await {
        Ok(floor) => floor,
        Err(RecordError::Cancelled { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    telemetry.set_waiting("the leadership: another operator holds the lease, or held it until it crashed");
    let elector =
        elector(settings, clients, labels::LEASE, floor, telemetry).announcing(settings.reports_at.clone(), telemetry.leader.clone());
    let leadership = elector.acquire(cancel).await;
    pulse.abort();
    Ok(leadership)
}

fn elector(settings: &Settings, clients: &Clients, lease: &str, floor: i64, telemetry: &Telemetry) -> Elector {
    let elector = Elector::new(clients.lease.clone(), &settings.namespace, lease, &settings.identity, settings.lease);
    let elector = elector.counted(telemetry.figures.lease.clone());
    elector.raise_floor(floor);
    elector
}

/// While the engine waits for others it is not hung.
fn pulse(telemetry: &Arc<Telemetry>) -> tokio::task::JoinHandle<()> {
    let telemetry = Arc::clone(telemetry);
    tokio::spawn(async move {
        loop {
            telemetry.beat();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
}

/// Says which watch has been failing for a while: what people change is not seen then.
fn look_at_watches(telemetry: &Arc<Telemetry>, watches: WatchHealth) -> tokio::task::JoinHandle<()> {
    const LOOK: Duration = Duration::from_secs(5);
    const PATIENCE: Duration = Duration::from_secs(30);
    let telemetry = Arc::clone(telemetry);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let failing: Vec<String> = watches
                .stale(PATIENCE)
                .into_iter()
                .map(|(stream, error)| format!("the watch of {}, which fails: {error}", stream.as_str()))
                .collect();
            telemetry.set_waiting(failing.join("; "));
        }
    })
}

async fn lead_on(
    settings: &Settings,
    clients: &Clients,
    services: bos_services::Clients,
    asked: Asked,
    telemetry: &Arc<Telemetry>,
    cancel: &CancellationToken,
    leadership: &Leadership,
) -> Result<(), EngineError> {
    let lost = leadership.lost.clone();
    services.stop.only_while(leadership.asked_by_others());
    tracing::info!(epoch = leadership.epoch, identity = settings.identity, "leading");
    telemetry.set_waiting("its records: plans and journals");
    let pulse = pulse(telemetry);
    let records = Records::new(clients.journal.clone(), &settings.namespace, leadership.epoch, lost.clone());
    let stored = match records.load_all().await {
        Ok(stored) => stored,
        Err(RecordError::Cancelled { .. } | RecordError::Deposed { .. }) => return Err(EngineError::Deposed),
        Err(error) => return Err(error.into()),
    };
    let (news_tx, mut news) = mpsc::channel(4096);
    tokio::spawn(tenants::follow(clients.watch.clone(), news_tx.clone(), lost.clone()));
    let scope = Scope::Operator { agents: true };
    let watching = spawn_watches(&clients.watch, &settings.namespace, &scope, &news_tx, &lost);
    let Some(lists) = load::first_lists(&mut news, &scope, (telemetry.as_ref(), &watching), &lost, cancel).await else {
        pulse.abort();
        return if cancel.is_cancelled() { Ok(()) } else { Err(EngineError::Deposed) };
    };
    let (writer, acks) =
        StatusWriter::spawn(clients.writer.clone(), WriterConfig::default(), telemetry.figures.writes.clone(), lost.clone());
    let events = SessionEvents::spawn(clients.writer.clone(), labels::MANAGER_OPERATOR, &settings.identity, lost.clone());
    let mut task = Task::new(settings, clients.writer.clone(), services, Arc::new(records), writer, events, Arc::clone(telemetry));
    task.launches(settings, &clients.journal, &lost);
    telemetry.set_waiting("Sessions to be taken up from their records");
    load::restore(&mut task, stored, lists).await?;
    pulse.abort();
    telemetry.set_waiting("");
    telemetry.leading.store(true, Ordering::Relaxed);
    let looking = look_at_watches(telemetry, watching);
    let inputs = Inputs { news, reports: asked.reports, applications: asked.applications, acks };
    let ended = task.run(inputs, &lost, cancel).await;
    looking.abort();
    if ended.is_ok() {
        task.farewell(FAREWELL).await;
    }
    ended
}

/// Carries out the one Session that an agent is for. None when told to stop before that is over.
///
/// # Errors
/// See [`EngineError`].
pub async fn run_agent(
    settings: Settings,
    charge: Charge,
    clients: Clients,
    services: bos_services::Clients,
    telemetry: Arc<Telemetry>,
    cancel: CancellationToken,
) -> Result<Option<SessionOutcome>, EngineError> {
    let pulse = pulse(&telemetry);
    let lease = labels::job_name(&charge.session.name, &charge.uid);
    let floor = match journal_epoch(clients.journal.clone(), &settings.namespace, &charge.uid, cancel.clone()).await {
        Ok(floor) => floor,
        Err(RecordError::Cancelled { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Some(leadership) = elector(&settings, &clients, &lease, floor, &telemetry).acquire(&cancel).await else { return Ok(None) };
    let ended = carry_out(&settings, &charge, &clients, services, (&telemetry, pulse), &cancel, &leadership).await;
    if ended.is_ok() {
        leadership.release().await;
    }
    ended
}

async fn carry_out(
    settings: &Settings,
    charge: &Charge,
    clients: &Clients,
    services: bos_services::Clients,
    (telemetry, pulse): (&Arc<Telemetry>, tokio::task::JoinHandle<()>),
    cancel: &CancellationToken,
    leadership: &Leadership,
) -> Result<Option<SessionOutcome>, EngineError> {
    let lost = leadership.lost.clone();
    services.stop.only_while(leadership.asked_by_others());
    let records = Records::of_agent(clients.journal.clone(), &settings.namespace, leadership.epoch, lost.clone());
    let stored = match records.load_one(&charge.uid, &charge.job).await {
        Ok(Some(stored)) => stored,
        Ok(None) => return Err(EngineError::NothingToDo(charge.session.clone())),
        Err(RecordError::Cancelled { .. } | RecordError::Deposed { .. }) => return Err(EngineError::Deposed),
        Err(error) => return Err(error.into()),
    };
    if stored.sessions.iter().any(|session| matches!(session.journal, JournalBytes::Lost)) {
        return Err(EngineError::NothingToDo(charge.session.clone()));
    }
    let (news_tx, mut news) = mpsc::channel(4096);
    let scope = Scope::Agent { namespace: charge.session.namespace.clone(), name: charge.session.name.clone() };
    let watching = spawn_watches(&clients.watch, &settings.namespace, &scope, &news_tx, &lost);
    let Some(lists) = load::first_lists(&mut news, &scope, (telemetry.as_ref(), &watching), &lost, cancel).await else {
        return if cancel.is_cancelled() { Ok(None) } else { Err(EngineError::Deposed) };
    };
    let (writer, acks) =
        StatusWriter::spawn(clients.writer.clone(), WriterConfig::default(), telemetry.figures.writes.clone(), lost.clone());
    let events = SessionEvents::spawn(clients.writer.clone(), labels::MANAGER_AGENT, &settings.identity, lost.clone());
    let mut task = Task::new(settings, clients.writer.clone(), services, Arc::new(records), writer, events, Arc::clone(telemetry));
    load::restore_one(&mut task, charge, stored, lists)?;
    pulse.abort();
    let looking = look_at_watches(telemetry, watching);
    let (_reports, reports) = mpsc::channel(1);
    let (_applications, applications) = mpsc::channel(1);
    let ended = task.run(Inputs { news, reports, applications, acks }, &lost, cancel).await;
    looking.abort();
    ended?;
    if task.outcome().is_none() {
        task.farewell(FAREWELL).await;
    }
    Ok(task.outcome())
}
