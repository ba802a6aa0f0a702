//! The session-setup operator: says whether a Session may start, asks for what its set-up needs to know, and makes the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bos_crds::{BootSet, Mode, Operation, RunningNodes, SessionSpec, SessionTemplateSpec, reasons};

use crate::artifacts::ArtifactSet;
use crate::discovery;
use crate::fold::Fault;
use crate::health::{Service, TRIED_AGAIN, clause};
use crate::hostlist;
use crate::limit::Limit;
use crate::model::{Digest, Node, SessionUid, World};
use crate::options::Options;
use crate::plan::{Evidence, PLAN_VERSION, Plan, PlannedBootSet, RunningPolicy};
use crate::resolve::{Rules, Snapshot, TemplateResolution, resolve_template};
use crate::session::{Pending, Recording, Session, SessionEnd, SessionOutcome, Stage};
use crate::tenants::Tenant;
use crate::time::Timestamp;
use crate::validation::{self, Severity};
use crate::want::Want;
use crate::xname::Xname;

/// Fields of a Session.
const LIMIT: &str = "spec.limit";
const TEMPLATE: &str = "spec.templateName";
const RETRY_OF: &str = "spec.retryOf";

/// Between two tries of a set-up that waits for something.
const RETRY: Duration = Duration::from_secs(2);

/// All that set-up read, each part complete.
#[derive(Debug, Clone)]
pub struct SetupRead {
    /// Fresh inventory.
    pub snapshot: Snapshot,
    /// The template.
    pub template: SessionTemplateSpec,
    /// Its generation.
    pub template_generation: i64,
    /// Artifacts per boot set, by name; empty for a shutdown.
    pub artifacts: BTreeMap<String, ArtifactSet>,
    /// What was found that does not stop the Session.
    pub warnings: Vec<String>,
}

/// Why set-up cannot go on.
#[derive(Debug, Clone)]
pub enum SetupFault {
    /// The template does not exist (yet).
    TemplateMissing,
    /// A service does not answer; tried again.
    Unavailable(Fault),
    /// It can never work.
    Refused {
        /// Reason from the registry.
        reason: &'static str,
        /// For people.
        message: String,
    },
}

/// Decides for every Session that waits.
#[must_use]
pub fn reconcile(world: &World, now: Timestamp) -> Vec<Want> {
    let waiting = world.sessions.values().filter_map(|session| match &session.stage {
        Stage::Pending(pending) => Some((session, pending)),
        Stage::Recording(_) | Stage::Running(_) | Stage::Ended(_) => None,
    });
    waiting.filter_map(|(session, pending)| step(world, session, pending, now)).collect()
}

fn step(world: &World, session: &Session, pending: &Pending, now: Timestamp) -> Option<Want> {
    let uid = session.uid.clone();
    if session.stopping() {
        let message = "Cancelled before it began; nothing was done.";
        return Some(Want::EndSession(uid, end(SessionOutcome::Cancelled, reasons::CANCELLED, message, now)));
    }
    if world.ran.get(&(session.namespace.clone(), session.name.clone())) == Some(&uid) {
        let message = "The records of this Session were deleted, so nobody knows what was done. Its nodes are left as they are; look at them, then use a new Session.";
        return Some(Want::EndSession(uid, end(SessionOutcome::Failed, reasons::RECORDS_LOST, message, now)));
    }
    let refused = refusal(world, session, now);
    let not_allowed = refused.as_ref().is_some_and(|(reason, _)| *reason == reasons::NAMESPACE_NOT_ALLOWED);
    if world.is_waited_for(&session.namespace) || (not_allowed && world.tenants.may_lack(pending.since)) {
        let text = format!("Waiting to hear whether namespace {} belongs to a tenant.", session.namespace);
        return (*pending.waiting != *text).then(|| Want::Wait(uid, text.into()));
    }
    if let Some((reason, message)) = refused {
        return Some(Want::EndSession(uid, end(SessionOutcome::NotStarted, reason, &message, now)));
    }
    if pending.reading || now < pending.not_before {
        return None;
    }
    match waits_for(world, session) {
        Some(text) if *pending.waiting != *text => Some(Want::Wait(uid, text.into())),
        Some(_) => None,
        None => Some(Want::SetUp(uid)),
    }
}

/// What keeps a Session from its set-up for now.
fn waits_for(world: &World, session: &Session) -> Option<String> {
    let before = session.spec.retry_of.as_deref().and_then(|name| {
        let named = |other: &&Session| *other.name == *name && other.namespace == session.namespace && other.uid != session.uid;
        world.sessions.values().find(named).filter(|other| !matches!(other.stage, Stage::Ended(_)))
    });
    if session.spec.suspend {
        Some("Suspended before it began. It starts when spec.suspend is set to false.".to_owned())
    } else if let Some(before) = before {
        Some(format!("Session {} has not ended; then what failed in it is tried again.", before.name))
    } else if !world.discovery.complete {
        Some(world.discovery.fault.as_deref().unwrap_or("Waiting for the first inventory from HSM.").to_owned())
    } else {
        None
    }
}

/// Why a Session must not start at all.
fn refusal(world: &World, session: &Session, now: Timestamp) -> Option<(&'static str, String)> {
    refusals(world, session, now).into_iter().next().map(|refusal| (refusal.reason, refusal.message))
}

/// Why something cannot be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Reason from the registry.
    pub reason: &'static str,
    /// The field of the Session that asks for it.
    pub field: &'static str,
    /// For people.
    pub message: String,
}

/// Everything that keeps a Session from starting at all.
#[must_use]
pub fn refusals(world: &World, session: &Session, now: Timestamp) -> Vec<Refusal> {
    let spec = &session.spec;
    let mut refusals = Vec::new();
    let mut refuse = |reason, field, message: String| refusals.push(Refusal { reason, field, message });
    if !world.acts_in(&session.namespace) {
        let why = if world.tenants.disputed(&session.namespace) { " More than one tenant claims it." } else { "" };
        let message = format!(
            "Sessions in namespace {} are not acted on.{why} Create it in namespace {}, or list the namespace in BootOptions sessionNamespaces.",
            session.namespace, world.install_namespace
        );
        refuse(reasons::NAMESPACE_NOT_ALLOWED, "metadata.namespace", message);
    }
    if world.ran.contains_key(&(session.namespace.clone(), session.name.clone())) {
        let message = "A Session of this name ran before in this namespace, and a name runs once. To run it again give it a new name.";
        refuse(reasons::ALREADY_RAN, "metadata.name", message.to_owned());
    }
    if let Some(before) = &spec.start_before
        && now >= Timestamp::from(before.0)
    {
        refuse(reasons::EXPIRED, "spec.startBefore", format!("startBefore {} has passed; nothing was done.", before.0));
    }
    if session.tracked && spec.start_before.is_none() {
        let message =
            "A GitOps tool tracks this Session, so it needs startBefore: otherwise a later re-creation from Git would run it again.";
        refuse(reasons::START_BEFORE_REQUIRED, "spec.startBefore", message.to_owned());
    }
    if spec.mode == Mode::V1 && !world.launches_agents {
        let message = "Mode v1 runs an agent in a Job, and this operator was started without --agent-template, which says how. Use mode v2, or give it one.";
        refuse(reasons::UNSUPPORTED_MODE, "spec.mode", message.to_owned());
    }
    refusals
}

fn end(outcome: SessionOutcome, reason: &str, message: &str, at: Timestamp) -> SessionEnd {
    SessionEnd { outcome, reason: reason.into(), message: message.into(), at }
}

impl World {
    /// What set-up read. Returns the uid when a plan is ready to be written.
    pub fn fold_setup(&mut self, uid: &SessionUid, read: Result<SetupRead, SetupFault>, now: Timestamp) -> Option<SessionUid> {
        let session = self.sessions.get(uid)?;
        let Stage::Pending(pending) = &session.stage else { return None };
        let waited = now.since(pending.since);
        // What may have changed while it was read, above all who owns the namespace, is judged again in the next pass.
        if session.stopping() || self.is_waited_for(&session.namespace) || refusal(self, session, now).is_some() {
            if let Stage::Pending(pending) = &mut self.sessions.get_mut(uid)?.stage {
                pending.reading = false;
            }
            return None;
        }
        self.touched_sessions.insert(uid.clone());
        let planned = match read {
            Ok(read) => {
                let known = self.known_nodes();
                let believed = discovery::believe(read.snapshot.nodes.len(), known, self.options.inventory_shrink_percent);
                match believed {
                    Ok(()) => {
                        let tenant = self.tenants.of(&session.namespace).map(|tenant| &**tenant);
                        let only = self.retried(session).map_err(|refusal| (refusal.reason, refusal.message));
                        let planned = only.and_then(|only| plan(session, &read, &self.options, only.as_ref(), tenant));
                        // What is known of the nodes must not be older than the plan that was made of it.
                        self.note_inventory(&read.snapshot, now);
                        planned.map_err(|(reason, message)| Stop::Fail(reason, message))
                    }
                    Err(fault) => Err(Stop::Wait(fault, None)),
                }
            }
            Err(SetupFault::TemplateMissing) if waited >= self.options.template_wait => Err(Stop::Fail(
                reasons::TEMPLATE_NOT_FOUND,
                format!("SessionTemplate {} did not appear in namespace {}.", session.spec.template_name, session.namespace),
            )),
            Err(SetupFault::TemplateMissing) => {
                let by = (pending.since + self.options.template_wait).clock();
                Err(Stop::Wait(format!("SessionTemplate {} does not exist; waiting for it until {by}.", session.spec.template_name), None))
            }
            Err(SetupFault::Unavailable(fault)) => Err(Stop::Wait(
                format!("{} is not available: {}; {TRIED_AGAIN}. Nothing has been done.", fault.service, clause(&fault.detail)),
                Some(fault),
            )),
            Err(SetupFault::Refused { reason, message }) => Err(Stop::Fail(reason, message)),
        };
        match planned {
            Ok(plan) => {
                for service in [Service::Hsm, Service::S3, Service::Cfs] {
                    self.fold_answer(service, now);
                }
                self.sessions.get_mut(uid)?.stage = Stage::Recording(Recording { plan: Arc::new(plan), since: now });
                return Some(uid.clone());
            }
            Err(Stop::Wait(message, fault)) => {
                if let Some(fault) = fault {
                    self.fold_fault(&fault, now);
                }
                if let Stage::Pending(pending) = &mut self.sessions.get_mut(uid)?.stage {
                    pending.reading = false;
                    pending.not_before = now + RETRY;
                    pending.waiting = message.into();
                }
            }
            Err(Stop::Fail(reason, message)) => {
                self.accept(Want::EndSession(uid.clone(), end(SessionOutcome::Failed, reason, &message, now)), now);
            }
        }
        None
    }
}

impl World {
    /// The nodes that a Session tries again; None where it is no retry. A name that nobody knows is likely a mistake.
    ///
    /// # Errors
    /// When nobody knows the Session that is to be tried again.
    pub fn retried(&self, session: &Session) -> Result<Option<BTreeSet<Xname>>, Refusal> {
        let (namespace, Some(name)) = (&session.namespace, session.spec.retry_of.as_deref()) else { return Ok(None) };
        let failed = self.failed_in(namespace, name);
        let named = |other: &Session| *other.name == *name && other.namespace == *namespace && other.uid != session.uid;
        let known = !failed.is_empty() || self.sessions.values().any(named);
        let ran = self.ran.contains_key(&(namespace.clone(), name.into())) && *session.name != *name;
        if known || ran {
            return Ok(Some(failed));
        }
        let message = format!(
            "{RETRY_OF}: there is no Session {name} in namespace {namespace}, and no node last failed in one of that name. See kubectl -n {namespace} get sessions."
        );
        Err(Refusal { reason: reasons::NO_NODES, field: RETRY_OF, message })
    }

    /// Nodes whose last session was this one, and which failed in it.
    fn failed_in(&self, namespace: &str, name: &str) -> BTreeSet<Xname> {
        let failed = |node: &&Node| node.failed_in.as_ref().is_some_and(|(of, session)| **of == *namespace && **session == *name);
        self.nodes.iter().filter(failed).map(|node| node.xname.clone()).collect()
    }
}

enum Stop {
    Wait(String, Option<Fault>),
    Fail(&'static str, String),
}

/// The nodes that a Session is to act on, and those that it leaves out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// What template and limit mean.
    pub resolved: TemplateResolution,
    /// Nodes that are left out because they belong to another tenant.
    pub foreign: Vec<Xname>,
}

impl Selection {
    /// The nodes that are left out, by the reason that statuses show.
    #[must_use]
    pub fn excluded(&self) -> BTreeMap<Arc<str>, Vec<Xname>> {
        let mut excluded: BTreeMap<Arc<str>, Vec<Xname>> =
            self.resolved.excluded.iter().map(|(reason, nodes)| (Arc::from(reason.as_str()), nodes.clone())).collect();
        if !self.foreign.is_empty() {
            excluded.insert(reasons::NOT_OWNED_BY_TENANT.into(), self.foreign.clone());
        }
        excluded
    }
}

/// Finds the nodes of a Session in a complete inventory; of `only` these where it retries what failed in another one.
///
/// # Errors
/// Where it can never work.
pub fn select(
    session: &Session,
    template: &SessionTemplateSpec,
    snapshot: &Snapshot,
    options: &Options,
    only: Option<&BTreeSet<Xname>>,
    tenant: Option<&Tenant>,
) -> Result<Selection, Refusal> {
    let bad_limit = |text: String| Refusal { reason: reasons::INVALID_LIMIT, field: LIMIT, message: format!("{LIMIT}: {text}") };
    check_template(&session.spec, template)?;
    let limit = match &session.spec.limit {
        None if options.limit_required => {
            let message = "BootOptions sessionLimitRequired asks for a limit; \"*\" means all nodes.".to_owned();
            return Err(Refusal { reason: reasons::LIMIT_REQUIRED, field: LIMIT, message });
        }
        None => None,
        Some(text) => Some(Limit::parse(text).map_err(|error| bad_limit(error.to_string()))?),
    };
    if let Some(nid) = limit.as_ref().filter(|_| options.reject_nids).and_then(|limit| limit.nids().next()) {
        return Err(bad_limit(format!("{nid} looks like a NID; use the xname of the node.")));
    }
    let rules = Rules { include_disabled: session.spec.include_disabled, include_management: options.include_management };
    let mut resolved =
        resolve_template(&template.boot_sets, snapshot, limit.as_ref(), &rules).map_err(|error| bad_limit(error.to_string()))?;
    if let Some(only) = only {
        resolved.retain(only);
    }
    let foreign = tenant.map(|tenant| not_of(tenant, template, &mut resolved)).transpose()?.unwrap_or_default();
    if resolved.node_count() == 0 {
        let field = match (only.is_some_and(BTreeSet::is_empty), &session.spec.limit) {
            (true, _) => RETRY_OF,
            (false, Some(_)) => LIMIT,
            (false, None) => TEMPLATE,
        };
        return Err(Refusal { reason: reasons::NO_NODES, field, message: no_nodes(session, &resolved, only, foreign.len()) });
    }
    Ok(Selection { resolved, foreign })
}

/// Makes the plan of a session from complete reads; of `only` these nodes where it retries what failed in another one.
///
/// # Errors
/// Reason and message where it can never work.
pub fn plan(
    session: &Session,
    read: &SetupRead,
    options: &Options,
    only: Option<&BTreeSet<Xname>>,
    tenant: Option<&Tenant>,
) -> Result<Plan, (&'static str, String)> {
    let selection = select(session, &read.template, &read.snapshot, options, only, tenant);
    let selection = selection.map_err(|refusal| (refusal.reason, refusal.message))?;
    let resolved = &selection.resolved;
    let boot_sets = planned_boot_sets(session, read, resolved)?;
    Ok(Plan {
        template_generation: read.template_generation,
        boot_sets,
        inventory: (session.spec.mode == Mode::V1).then_some(read.snapshot.nodes.len()),
        warnings: warnings(session, read, resolved),
        excluded: selection.excluded(),
        ..empty_plan(session, options)
    })
}

/// A plan of what a Session asks for, without nodes.
pub(crate) fn empty_plan(session: &Session, options: &Options) -> Plan {
    let v1 = session.spec.mode == Mode::V1;
    Plan {
        version: PLAN_VERSION,
        sequence: session.sequence,
        created_ms: session.created.as_millis(),
        operation: session.spec.operation.into(),
        namespace: session.namespace.clone(),
        name: session.name.clone(),
        template_generation: 0,
        running: match (session.spec.running_nodes, v1) {
            // A Boot of v1 powers nothing off that runs (v1 behaviour §3.7).
            (RunningNodes::RestartIfDifferent | RunningNodes::Leave, true) => RunningPolicy::Skip,
            (RunningNodes::RestartIfDifferent, false) => RunningPolicy::RestartIfDifferent,
            (RunningNodes::Leave, false) => RunningPolicy::Leave,
            (RunningNodes::Restart, _) => RunningPolicy::Restart,
        },
        // The reports of nodes reach the operator, not the agent.
        evidence: if v1 { Evidence::HsmReady } else { options.evidence },
        include_disabled: session.spec.include_disabled,
        max_power_cycled: session.spec.max_power_cycled.and_then(|most| u32::try_from(most).ok()),
        boot_sets: Vec::new(),
        staged: session.spec.stage,
        agent: v1,
        inventory: None,
        by_hand: None,
        warnings: Vec::new(),
        excluded: BTreeMap::new(),
    }
}

/// What a person should know of this Session.
fn warnings(session: &Session, read: &SetupRead, resolved: &TemplateResolution) -> Vec<Arc<str>> {
    let findings = validation::validate_template_for(&read.template, session.spec.operation);
    let mut found: Vec<String> = read.warnings.clone();
    found.extend(findings.into_iter().filter(|finding| finding.severity == Severity::Warning).map(|finding| finding.to_string()));
    found.extend(doubts_of(resolved));
    validation::at_most_ten(found).into_iter().map(Arc::from).collect()
}

/// What of a template means nothing, or two things, to the inventory.
#[must_use]
pub fn doubts_of(resolved: &TemplateResolution) -> Vec<String> {
    let mut doubts = Vec::new();
    if !resolved.unknown.is_empty() {
        doubts.push(format!("The template names what is {}.", resolved.unknown));
    }
    if !resolved.repeated.is_empty() {
        let nodes = hostlist::fold(&resolved.repeated, 120);
        doubts.push(format!("More than one boot set fits {nodes}; the last one is used, but one for arch Unknown before one for X86."));
    }
    doubts
}

/// Whether an operation boots nodes, and so needs an image.
#[must_use]
pub const fn boots(operation: Operation) -> bool {
    matches!(operation, Operation::Boot | Operation::Reboot)
}

fn check_template(spec: &SessionSpec, template: &SessionTemplateSpec) -> Result<(), Refusal> {
    let (findings, name) = (validation::validate_template_for(template, spec.operation), &spec.template_name);
    let errors: Vec<String> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| format!("{}: {}", finding.field, finding.message))
        .collect();
    if errors.is_empty() {
        return Ok(());
    }
    let message = format!("SessionTemplate {name}: {}", errors.join("; "));
    Err(Refusal { reason: reasons::TEMPLATE_INVALID, field: TEMPLATE, message })
}

/// Takes out what is not the tenant's: nodes that groups, roles and the limit mean, and says which. One that the template lists by
/// name is an error, as in BOS (§16).
fn not_of(tenant: &Tenant, template: &SessionTemplateSpec, resolved: &mut TemplateResolution) -> Result<Vec<Xname>, Refusal> {
    let listed = template.boot_sets.iter().flat_map(|set| &set.node_list).filter_map(|name| Xname::parse(name).ok());
    let mut foreign: Vec<Xname> = listed.filter(|node| !tenant.nodes.contains(node)).collect();
    foreign.sort_unstable();
    foreign.dedup();
    if !foreign.is_empty() {
        let nodes = hostlist::fold(&foreign, 240);
        let message = format!("The template lists {nodes}, which tenant {} does not own.", tenant.name);
        return Err(Refusal { reason: reasons::NOT_OWNED_BY_TENANT, field: TEMPLATE, message });
    }
    Ok(resolved.retain_owned(&tenant.nodes))
}

fn no_nodes(session: &Session, resolved: &TemplateResolution, only: Option<&BTreeSet<Xname>>, foreign: usize) -> String {
    if let (Some(before), true) = (&session.spec.retry_of, only.is_some_and(BTreeSet::is_empty)) {
        return format!(
            "No node failed in Session {before}, or newer Sessions have had those that did (kubectl get bc: column SESSION); there is nothing to retry."
        );
    }
    let mut why: Vec<String> = resolved.excluded.iter().map(|(reason, nodes)| format!("{} {}", nodes.len(), reason.as_str())).collect();
    if foreign > 0 {
        why.push(format!("{foreign} {}", reasons::NOT_OWNED_BY_TENANT));
    }
    if resolved.outside_limit > 0 {
        why.push(format!("{} outside the limit", resolved.outside_limit));
    }
    if !resolved.unknown.is_empty() {
        why.push(resolved.unknown.to_string());
    }
    if why.is_empty() {
        why.push("the boot sets name groups or roles without members".to_owned());
    }
    format!("No node is left to act on: {}.", why.join(", "))
}

fn planned_boot_sets(
    session: &Session,
    read: &SetupRead,
    resolved: &TemplateResolution,
) -> Result<Vec<PlannedBootSet>, (&'static str, String)> {
    let operation = session.spec.operation;
    let mut planned = Vec::new();
    for (set, nodes) in read.template.boot_sets.iter().zip(&resolved.boot_sets) {
        if nodes.nodes.is_empty() {
            continue;
        }
        let artifacts = read.artifacts.get(&set.name).filter(|_| boots(operation));
        if boots(operation) && artifacts.is_none() {
            return Err((reasons::SETUP_FAILED, format!("boot set {}: its artifacts were not read", set.name)));
        }
        let configuration = if operation == Operation::Shutdown { "" } else { configuration_name(&read.template, set) };
        if let Some(message) = nothing_to_configure(operation, &read.template, set) {
            return Err((reasons::TEMPLATE_INVALID, message));
        }
        planned.push(PlannedBootSet {
            name: set.name.as_str().into(),
            artifacts: artifacts.map(|artifacts| Digest(artifacts.short_digest().into())),
            image: artifacts.map_or("", |artifacts| artifacts.image.as_str()).into(),
            configuration: configuration.into(),
            nodes: nodes.nodes.clone(),
        });
    }
    Ok(planned)
}

/// Why a boot set is of no use for Configure.
pub(crate) fn nothing_to_configure(operation: Operation, template: &SessionTemplateSpec, set: &BootSet) -> Option<String> {
    let nothing = operation == Operation::Configure && configuration_name(template, set).is_empty();
    nothing.then(|| format!("boot set {}: it has no CFS configuration, so there is nothing to configure.", set.name))
}

/// The configuration of a boot set: none where CFS is off, its own, or the template's (BOS behaviour §7.7).
#[must_use]
pub fn configuration_name<'a>(template: &'a SessionTemplateSpec, set: &'a BootSet) -> &'a str {
    if !template.enable_cfs {
        return "";
    }
    let own = set.cfs.as_ref().and_then(|cfs| cfs.configuration.as_deref()).filter(|name| !name.is_empty());
    own.or_else(|| template.cfs.as_ref().and_then(|cfs| cfs.configuration.as_deref())).unwrap_or("")
}
