//! The one task that owns the World. It never waits for I/O: whatever takes time runs in a task of its own and comes back as
//! an input.

mod acks;
mod agents;
mod apply;
mod charge;
mod count;
mod farewell;
mod inputs;
mod plans;
mod pods;
mod projections;
mod rounds;
mod settle;
mod spans;
mod tell;
mod troubles;
mod way;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bos_core::batch::{BatchId, BatchState, Outcome, Progress};
use bos_core::fold::{Fault, ReportNeeds};
use bos_core::health::Service;
use bos_core::model::{ConfigRecord, Digest, NodeId, Power, SessionUid, Token, World};
use bos_core::options::Options;
use bos_core::resolve::Snapshot;
use bos_core::session::Stage;
use bos_core::session_setup::{SetupFault, SetupRead};
use bos_core::time::Timestamp;
use bos_core::want::Effect;
use bos_core::xname::Xname;
use bos_core::{journal, pass};
use bos_crds::{BootComponent, BootOptionsSpec, Session, SessionTemplate, SessionTemplateSpec, reasons};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::agents::{LaunchError, TakenBack};
use crate::applications::Application;
use crate::clients::CallError;
use crate::dispatch::{self, Named};
use crate::engine::{EngineError, Settings};
use crate::events::{SessionEvents, SessionSubject, Severity};
use crate::journals::Journals;
use crate::records::{MAX_RECORD_BYTES, RecordError, Records, SessionKey};
use crate::reports::{Report, ReportAnswer};
use crate::task::agents::Agents;
use crate::task::charge::Carried;
use crate::task::projections::Projections;
pub use crate::task::rounds::Inputs;
use crate::task::spans::Spans;
use crate::task::way::Way;
use crate::telemetry::Telemetry;
use crate::views::Views;
use crate::watches::{News, Seen};
use crate::writer::{Kind, StatusWriter, Target, WriteAck, WriteOutcome};
use crate::{convert, setup};

/// What a background task brings back.
enum Done {
    Inventory(Result<Snapshot, Fault>, BTreeMap<Xname, BTreeSet<Arc<str>>>),
    SetUp(SessionUid, Box<Result<SetupRead, SetupFault>>),
    Planned(SessionUid, Result<(), RecordError>),
    Power(Vec<NodeId>, Timestamp, Result<Vec<(NodeId, Power, Arc<str>)>, Fault>),
    Config(Vec<NodeId>, Timestamp, Result<Vec<(NodeId, ConfigRecord)>, Fault>),
    States(Vec<NodeId>, Timestamp, Result<Vec<(NodeId, bool)>, Fault>),
    Scripts(Vec<NodeId>, Result<HashMap<NodeId, Timestamp>, Fault>),
    Outcome(BatchId, Outcome),
    Progress(BatchId, Timestamp, Progress),
    Launched(SessionUid, Result<Box<Job>, LaunchError>),
    TakenBack(SessionUid, Result<TakenBack, RecordError>),
    NotBegun(Arc<str>),
    Verified(SessionUid, u16, Result<(), SetupFault>),
    Owner(NodeId, Box<Result<Option<BootComponent>, CallError>>),
    Journal(SessionUid, Result<(), RecordError>),
    Removed(SessionUid, Result<(), RecordError>),
}

/// The engine clock: wall time at the start, advanced by the monotonic clock.
struct Clock {
    wall: i64,
    start: Instant,
}

impl Clock {
    fn now(&self) -> Timestamp {
        let elapsed = i64::try_from(self.start.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millis(self.wall.saturating_add(elapsed))
    }
}

/// The engine task.
pub struct Task {
    /// The World; only this task changes it (rule 12).
    pub world: World,
    /// Durable records.
    pub records: Arc<Records>,
    services: bos_services::Clients,
    /// For the few calls that are neither record nor status.
    client: kube::Client,
    views: Views,
    journals: Journals,
    templates: HashMap<(String, String), (SessionTemplateSpec, i64)>,
    events: SessionEvents,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    done_tx: mpsc::UnboundedSender<Done>,
    done: mpsc::UnboundedReceiver<Done>,
    /// Reports that wait for a status write; handed over after the projection.
    reported: Vec<(NodeId, oneshot::Sender<ReportAnswer>)>,
    removing: std::collections::BTreeSet<SessionUid>,
    /// Those who wait until the plan of a run without a Session is durable.
    planning: HashMap<SessionUid, Vec<oneshot::Sender<ReportAnswer>>>,
    /// Artifact sets whose removal is under way: a plan that names one is written after it, so that it is stored again.
    dropping: HashMap<Digest, Shared<BoxFuture<'static, ()>>>,
    /// Reports put off by the endpoint, as far as the World knows.
    put_off: u64,
    /// Statuses give way to journals that a call or a node waits for.
    way: Way,
    /// Time limits of the operator's own configuration, in force where BootOptions says nothing else.
    configured_timeouts: HashMap<bos_services::Service, Duration>,
    /// The options as they were last taken up, to log what changes.
    known_options: Option<BootOptionsSpec>,
    /// The stop switch is set, and was seen first then.
    stopped_since: Option<Timestamp>,
    projections: Projections,
    settled: Instant,
    /// When the figures were counted last, and whether there was anything to do.
    counted: Option<(Instant, bool)>,
    /// Agents of Sessions of mode v1, in the operator.
    agents: Agents,
    /// The Session that this agent is for.
    charge: Option<Carried>,
    spans: Spans,
}

impl Task {
    /// A task with an empty World.
    #[must_use]
    pub fn new(
        settings: &Settings,
        client: kube::Client,
        services: bos_services::Clients,
        records: Arc<Records>,
        writer: StatusWriter,
        events: SessionEvents,
        telemetry: Arc<Telemetry>,
    ) -> Self {
        let (done_tx, done) = mpsc::unbounded_channel();
        let clock = Clock { wall: jiff::Timestamp::now().as_millisecond(), start: Instant::now() };
        let mut world = World { install_namespace: settings.namespace.as_str().into(), ..World::default() };
        world.reports.listening_since = settings.hears_reports.then(|| clock.now());
        world.options = Options::default();
        world.services = bos_core::health::Services::without(services.absent.iter().copied());
        world.power_service = services.power.service();
        world.power_rest = services.power.rest();
        let configured_timeouts = bos_services::Service::ALL.into_iter().map(|service| (service, services.timeouts.get(service))).collect();
        Self {
            world,
            records,
            services,
            client,
            views: Views::new(writer),
            journals: Journals::default(),
            templates: HashMap::new(),
            events,
            telemetry,
            clock,
            done_tx,
            done,
            reported: Vec::new(),
            removing: std::collections::BTreeSet::new(),
            planning: HashMap::new(),
            dropping: HashMap::new(),
            put_off: 0,
            way: Way::default(),
            configured_timeouts,
            known_options: None,
            stopped_since: None,
            projections: Projections::new(Instant::now()),
            settled: Instant::now(),
            counted: None,
            agents: Agents::default(),
            charge: None,
            spans: Spans::default(),
        }
    }

    /// Now, on the engine's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// One pass of the operators and everything that follows from it. Returns how long it took, without the projection: that takes as
    /// long as there is to show, in few passes as in many.
    fn pass(&mut self) -> Duration {
        let started = Instant::now();
        let now = self.now();
        self.notice_reports_put_off(now);
        let begun = Instant::now();
        let effects = pass::run(&mut self.world, now);
        self.telemetry.passed(begun.elapsed());
        for effect in effects {
            self.perform(effect, now);
        }
        self.write_plans();
        self.look_after_agents(now);
        for uid in std::mem::take(&mut self.world.journal_due) {
            // What an agent carries out is in its journal.
            if !self.agents.has(&uid) {
                self.journals.changed(&uid);
            }
        }
        self.note_outages();
        self.give_way();
        for uid in self.journals.due(Instant::now(), |uid| self.world.drives(uid)) {
            self.write_journal(uid);
        }
        self.refresh();
        let mut answered = Vec::new();
        for (id, answer) in std::mem::take(&mut self.reported) {
            if self.world.is_shown_by_agent(id) {
                // Since it reported its agent has taken over: nobody here writes its status.
                let _ = answer.send(ReportAnswer::WithAgent);
                continue;
            }
            // Before the status is submitted: one that a node waits for is not put off.
            self.views.await_status(&self.world, id, answer);
            answered.push(id);
        }
        let projecting = self.project(&answered, now);
        for id in answered {
            self.views.answer_settled(id);
        }
        self.announce(now);
        self.tell_progress(now);
        self.update_sessions(now);
        self.settle(now);
        self.count(now);
        started.elapsed().saturating_sub(projecting)
    }

    /// While reports are put off, silence proves nothing (rule 8): nodes get the time to come again.
    fn notice_reports_put_off(&mut self, now: Timestamp) {
        let put_off = self.telemetry.reports_put_off.load(std::sync::atomic::Ordering::Relaxed);
        if put_off != std::mem::replace(&mut self.put_off, put_off) && self.world.reports.listening_since.is_some() {
            self.world.reports.listening_since = Some(now);
        }
    }

    fn spawn(&self, work: impl Future<Output = Done> + Send + 'static) {
        let tx = self.done_tx.clone();
        tokio::spawn(async move {
            // The receiver is gone only when the engine has ended.
            let _ = tx.send(work.await);
        });
    }

    fn named(&self, nodes: &[NodeId]) -> Named {
        nodes.iter().filter_map(|id| Some((*id, self.world.node(*id)?.xname.clone()))).collect()
    }

    fn perform(&mut self, effect: Effect, now: Timestamp) {
        let services = self.services.clone();
        match effect {
            Effect::ReadInventory => {
                self.spawn(async move {
                    let (nodes, interfaces) = futures::future::join(setup::inventory(&services), setup::interfaces(&services)).await;
                    Done::Inventory(nodes.map_err(|error| dispatch::fault(&error)), interfaces)
                });
            }
            Effect::SetUp(uid) => self.set_up(uid, services),
            Effect::ReadPower(nodes) => {
                let named = self.named(&nodes);
                self.spawn(async move { Done::Power(nodes, now, dispatch::read_power(&services, &named).await) });
            }
            Effect::ReadConfiguration(nodes) => {
                let named = self.named(&nodes);
                self.spawn(async move { Done::Config(nodes, now, dispatch::read_configuration(&services, &named).await) });
            }
            Effect::ReadStates(nodes) => {
                let named = self.named(&nodes);
                let ssh = self.world.is_agent && self.world.options.v1_ssh_check;
                self.spawn(async move { Done::States(nodes, now, dispatch::read_states(&services, &named, ssh).await) });
            }
            Effect::ReadScripts(nodes) => {
                let named = self.named(&nodes);
                self.spawn(async move { Done::Scripts(nodes, dispatch::read_scripts(&services, &named).await) });
            }
            Effect::Record(batch) => {
                if let Some(open) = self.world.batches.get(&batch) {
                    self.journals.await_call(&open.session.clone(), batch);
                }
            }
            Effect::Follow(batch) => self.follow(batch, services, now),
            Effect::RemoveSession(uid) => self.remove_session_object(&uid),
        }
    }

    fn set_up(&mut self, uid: SessionUid, services: bos_services::Clients) {
        let Some(session) = self.world.sessions.get(&uid) else { return };
        let key = (session.namespace.to_string(), session.spec.template_name.clone());
        let template = self.templates.get(&key).cloned();
        let operation = session.spec.operation;
        let rules = self.telemetry.look_rules.borrow().clone();
        let span = tracing::info_span!(parent: self.spans.of(session), "set-up", session = session.title());
        let read = async move { Done::SetUp(uid, Box::new(setup::read(&services, template, operation, &rules).await)) };
        self.spawn(read.instrument(span));
    }

    fn follow(&mut self, id: BatchId, services: bos_services::Clients, now: Timestamp) {
        let Some(batch) = self.world.batches.get(&id) else { return };
        let BatchState::Following { transition, .. } = &batch.state else { return };
        let transition = transition.clone();
        let nodes = self.named(&batch.nodes.iter().map(|member| member.node).collect::<Vec<_>>());
        let span = self.world.sessions.get(&batch.session).map_or_else(
            tracing::Span::none,
            |session| tracing::info_span!(parent: self.spans.of(session), "look", session = session.title(), batch = id.0, %transition),
        );
        let look = async move { Done::Progress(id, now, dispatch::follow(&services, &transition, &nodes).await) };
        self.spawn(look.instrument(span));
    }

    fn write_journal(&mut self, uid: SessionUid) {
        let now = self.now();
        if self.removing.contains(&uid) {
            // Its records are being removed; another write would leave an orphan behind.
            return self.journals.forget(&uid);
        }
        let Some(session) = self.world.sessions.get(&uid) else { return self.journals.forget(&uid) };
        let key = SessionKey::new(&*session.namespace, &*session.name);
        let encoded = journal::snapshot(&self.world, session, now).map(|journal| journal.encode_within(MAX_RECORD_BYTES));
        let Some(Ok(bytes)) = encoded else { return self.journals.forget(&uid) };
        self.journals.begin(&uid, now, Instant::now());
        let records = Arc::clone(&self.records);
        self.spawn(async move {
            let written = records.write_journal(&uid.0, &key, &bytes).await;
            Done::Journal(uid, written)
        });
    }

    fn fold_done(&mut self, done: Done) -> Result<(), EngineError> {
        let now = self.now();
        match done {
            Done::Inventory(read, interfaces) => {
                let missing = self.world.fold_inventory(read, now);
                // An agent knows of its own nodes only.
                for id in missing.into_iter().filter(|_| self.charge.is_none()) {
                    self.views.create_component(&self.world, id);
                }
                self.world.fold_interfaces(interfaces, now);
            }
            Done::SetUp(uid, read) => self.set_up_read(&uid, *read, now),
            Done::Planned(uid, result) => self.planned(&uid, result, now)?,
            Done::Power(nodes, asked, read) => self.world.fold_power(&nodes, asked, read, now),
            Done::Config(nodes, asked, read) => self.world.fold_config(&nodes, asked, read, now),
            Done::States(nodes, asked, read) => self.world.fold_states(&nodes, asked, read, now),
            Done::Scripts(nodes, read) => self.world.fold_scripts(&nodes, read, now),
            Done::Outcome(batch, outcome) => {
                self.tell_outcome(batch, &outcome);
                self.world.fold_outcome(batch, outcome, now);
            }
            Done::Progress(batch, asked, progress) => self.world.fold_progress(batch, asked, progress, now),
            Done::Journal(uid, Ok(())) => {
                if let Some(elapsed) = self.journals.underway(&uid) {
                    self.telemetry.figures.journal_written(elapsed);
                }
                for batch in self.journals.written(&uid) {
                    self.release(batch, now);
                }
            }
            Done::Launched(uid, launched) => self.launched(&uid, launched, now)?,
            Done::TakenBack(uid, taken) => self.taken_back(&uid, taken, now)?,
            Done::NotBegun(job) => self.not_begun(&job),
            Done::Verified(uid, boot_set, found) => self.verified(&uid, boot_set, found, now),
            Done::Owner(id, found) => self.owner_found(id, *found, now),
            Done::Removed(uid, Ok(())) => self.removed(&uid),
            Done::Journal(_, Err(error)) | Done::Removed(_, Err(error)) => return Err(record_failure(error)),
        }
        Ok(())
    }

    /// The record is durable: what is still wanted leaves.
    fn release(&mut self, batch: BatchId, now: Timestamp) {
        let Some(order) = self.world.release(batch, now) else { return };
        self.tell_sending(&order);
        let artifacts = match &order.order {
            bos_core::running::Order::BootParameters { artifacts } => self.world.artifacts.get(artifacts).cloned(),
            _ => None,
        };
        let span = self.span_of(batch, order.nodes.len());
        let services = self.services.clone();
        let call = async move { Done::Outcome(batch, dispatch::carry_out(&services, &order, artifacts).await) };
        self.spawn(call.instrument(span));
    }

    /// The span of a call that leaves.
    fn span_of(&mut self, id: BatchId, nodes: usize) -> tracing::Span {
        let Some(batch) = self.world.batches.get(&id) else { return tracing::Span::none() };
        let Some(session) = self.world.sessions.get(&batch.session) else { return tracing::Span::none() };
        let action = crate::figures::action(batch.work);
        tracing::info_span!(parent: self.spans.of(session), "batch", session = session.title(), batch = id.0, action, nodes)
    }

    fn fold_report(&mut self, report: Report) {
        let now = self.now();
        self.telemetry.reports.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let token = Token(report.token.into());
        let needs = self.world.fold_report(report.xname.as_str(), &token, now);
        if self.world.by_name.get(&report.xname).is_some_and(|id| self.world.is_shown_by_agent(*id)) {
            // Its status is its agent's to write now; it says it again.
            let _ = report.answer.send(ReportAnswer::WithAgent);
            return;
        }
        match needs {
            ReportNeeds::Unknown => drop(report.answer.send(ReportAnswer::UnknownNode)),
            ReportNeeds::Journal(uid) => self.journals.await_report(&uid, report.answer),
            ReportNeeds::Status(id) => self.reported.push((id, report.answer)),
            ReportNeeds::Repeat(uid) => self.journals.repeat_report(&uid, report.answer),
        }
    }

    /// News from the API server.
    pub fn fold_news(&mut self, news: News) {
        let now = self.now();
        match news {
            News::Template(seen) => self.fold_templates(seen),
            News::Session(seen) => self.fold_sessions(seen, now),
            News::Component(seen) => self.fold_components(seen, now),
            News::Options(seen) => self.fold_options(seen),
            News::Tenants(all) => self.set_tenants(all),
            News::Job(seen) => self.agents.fold_jobs(seen),
            News::Pod(seen) => self.agents.fold_pods(seen),
            News::AgentJournal(seen) => self.fold_agent_journals(seen, now),
            News::EmergencyStop(why) => self.fold_stop_switch(why, now),
        }
    }
}

fn record_failure(error: RecordError) -> EngineError {
    match error {
        RecordError::Deposed { .. } | RecordError::Cancelled { .. } => EngineError::Deposed,
        other => EngineError::Records(other),
    }
}
