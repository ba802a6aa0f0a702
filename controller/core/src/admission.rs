//! What is said of an object before the API server takes it: what can never work is an error, what may become true a warning.
//!
//! The rules are those of set-up and of the other operators, asked beforehand. Whoever gets around admission meets them there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use bos_crds::{BootComponentSpec, SessionTemplateSpec, bounded, reasons};

use crate::artifacts::ArtifactSet;
use crate::by_hand::{self, BY_HAND_REFUSED};
use crate::discovery;
use crate::health::{Service, clause};
use crate::model::{Digest, Node, NodeId, Power, World};
use crate::preview::{acted_on, counted, excluded_text, preview};
use crate::resolve::Snapshot;
use crate::session::{Session, Stage};
use crate::session_setup::{Refusal, Selection, SetupFault, doubts_of, nothing_to_configure, refusals, select};
use crate::time::Timestamp;
use crate::validation::{Finding, SessionRules, Severity, at_most_ten, validate_session, validate_template};
use crate::xname::Xname;

/// Errors that one refusal shows; more are only counted.
const ERRORS_SHOWN: usize = 30;
/// Findings of each kind that are kept. An object within the schema's bounds has fewer.
const KEPT: usize = 1000;
/// Characters of one error.
const ERROR_CHARS: usize = 1024;
const TEMPLATE: &str = "spec.templateName";

/// All that admission has to say of one object.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    errors: Vec<Finding>,
    warnings: Vec<String>,
}

impl Verdict {
    /// Takes findings, each by its severity; what was found already is not said twice.
    pub fn take(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            match finding.severity {
                Severity::Error if self.errors.len() < KEPT && !self.errors.contains(&finding) => self.errors.push(finding),
                Severity::Error => {}
                Severity::Warning => self.warn(format!("{}.", clause(&finding.to_string()))),
            }
        }
    }

    /// Something a person should know of the whole object.
    pub fn warn(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.warnings.len() < KEPT && !self.warnings.contains(&text) {
            self.warnings.push(text);
        }
    }

    /// The same, said before everything else.
    pub fn warn_first(&mut self, text: impl Into<String>) {
        self.warnings.insert(0, text.into());
    }

    /// Makes warnings of all errors.
    fn only_warn(&mut self) {
        for error in std::mem::take(&mut self.errors) {
            self.warn(format!("{}.", clause(&error.to_string())));
        }
    }

    /// Whether a field, or one below it, is wrong.
    #[must_use]
    pub fn has_error_at(&self, field: &str) -> bool {
        self.errors.iter().any(|error| error.field.starts_with(field))
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_allowed(&self) -> bool {
        self.errors.is_empty()
    }

    /// Why the object is refused: all errors, one a line where there are several. None where it is not.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        let shown = |error: &Finding| bounded(&error.to_string(), ERROR_CHARS);
        match self.errors.as_slice() {
            [] => None,
            [one] => Some(shown(one)),
            many => {
                let mut text = format!("{} errors:", many.len());
                for error in many.iter().take(ERRORS_SHOWN) {
                    let _ = write!(text, "\n* {}", shown(error));
                }
                if many.len() > ERRORS_SHOWN {
                    let _ = write!(text, "\n* and {} more", many.len() - ERRORS_SHOWN);
                }
                Some(text)
            }
        }
    }

    /// Warnings within the bounds that people and API server set.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        at_most_ten(self.warnings.clone())
    }
}

fn error(field: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { field: field.into(), message: message.into(), severity: Severity::Error }
}

fn warning(field: impl Into<String>, message: impl Into<String>) -> Finding {
    Finding { severity: Severity::Warning, ..error(field, message) }
}

/// What a look at one boot set found.
#[derive(Debug, Clone)]
pub struct BootSetSeen {
    /// Its name.
    pub name: String,
    /// What its nodes would boot, with what a person should know; or what is missing.
    pub found: Result<(ArtifactSet, Vec<String>), SetupFault>,
}

/// What CFS says of one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigurationSeen {
    /// It has it.
    Known,
    /// It does not have it.
    Unknown,
    /// It does not answer, for this reason.
    Unanswered(String),
    /// It cannot be asked for this name, for this reason: it refuses the name, or the site has no CFS.
    Refused(String),
}

impl ConfigurationSeen {
    /// What follows for an object that names the configuration in a field. `when` it must be there.
    fn finding(&self, field: &str, name: &str, when: &str) -> Option<Finding> {
        Some(match self {
            Self::Known => return None,
            Self::Unknown => warning(field, format!("CFS has no configuration {name:?}; it must be there when {when}")),
            Self::Unanswered(why) => warning(field, format!("CFS could not be asked about configuration {name:?}: {why}")),
            Self::Refused(why) => error(field, format!("configuration {name:?}: {why}")),
        })
    }
}

/// What services say of a template.
#[derive(Debug, Clone, Default)]
pub struct TemplateSeen {
    /// Boot sets in the order of the template; empty where nobody asked.
    pub boot_sets: Vec<BootSetSeen>,
    /// Configurations that the template names.
    pub configurations: Vec<(String, ConfigurationSeen)>,
}

impl TemplateSeen {
    /// What the nodes of each boot set would boot, as far as that is known.
    #[must_use]
    pub fn digests(&self) -> BTreeMap<String, Digest> {
        let found = |seen: &BootSetSeen| {
            let (artifacts, _) = seen.found.as_ref().ok()?;
            Some((seen.name.clone(), Digest(artifacts.short_digest().into())))
        };
        self.boot_sets.iter().filter_map(found).collect()
    }

    /// What follows for the template, each with the field of the boot set.
    fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for BootSetSeen { name, found } in &self.boot_sets {
            let field = format!("spec.bootSets[{name}].path");
            match found {
                Ok((_, warnings)) => findings.extend(warnings.iter().map(|text| warning(&field, text))),
                Err(fault) => findings.extend(of_fault(&field, fault)),
            }
        }
        let configurations = self.configurations.iter();
        findings.extend(configurations.filter_map(|(name, seen)| seen.finding("spec.cfs.configuration", name, "a Session starts")));
        findings
    }
}

/// What is not there yet may come; what IMS says against an image stays.
fn of_fault(field: &str, fault: &SetupFault) -> Option<Finding> {
    Some(match fault {
        SetupFault::Refused { reason, message } if *reason == reasons::ARTIFACTS_MISSING => {
            warning(field, format!("{}; it must be right when a Session starts", clause(message)))
        }
        SetupFault::Refused { message, .. } => error(field, message),
        SetupFault::Unavailable(fault) if fault.service == Service::Ims => {
            error(field, format!("IMS cannot be asked about the image, and option imsErrorsFatal wants its answer: {}", fault.detail))
        }
        SetupFault::Unavailable(fault) => {
            warning(field, format!("could not be checked, {} does not answer: {}", fault.service, fault.detail))
        }
        SetupFault::TemplateMissing => return None,
    })
}

/// Judges a template by itself and by what services say of it.
#[must_use]
pub fn template(spec: &SessionTemplateSpec, seen: &TemplateSeen) -> Verdict {
    let mut verdict = Verdict::default();
    verdict.take(validate_template(spec));
    let findings = seen.findings().into_iter().filter(|finding| {
        // The look at the image repeats what the boot set says wrong by itself.
        let Some(boot_set) = finding.field.strip_suffix(".path") else { return true };
        match finding.severity {
            Severity::Error => !verdict.has_error_at(boot_set),
            Severity::Warning => !verdict.warnings.iter().any(|said| said.starts_with(boot_set) && said.contains(clause(&finding.message))),
        }
    });
    let findings: Vec<Finding> = findings.collect();
    verdict.take(findings);
    verdict
}

/// Judges a Session by itself, and by what Sessions, options and tenants say.
#[must_use]
pub fn session(world: &World, session: &Session, tenants_known: bool, now: Timestamp) -> Verdict {
    let mut verdict = Verdict::default();
    let options = &world.options;
    let rules =
        SessionRules { name: Some(&session.name), reject_nids: options.reject_nids, limit_required: options.limit_required, now: None };
    verdict.take(validate_session(&session.spec, &rules));
    verdict.take(refusals(world, session, now).into_iter().map(|refusal| of_refusal(refusal, tenants_known)));
    if let Err(refusal) = world.retried(session) {
        verdict.take([found(refusal)]);
    }
    if let Some(before) = unfinished(world, session) {
        verdict.take([warning(
            "spec.retryOf",
            format!("Session {before} has not ended; this one waits for that, and then takes what failed in it"),
        )]);
    }
    if session.spec.suspend {
        verdict.warn("spec.suspend: is true, so nothing is done until it is set to false.");
    }
    if is_old(world, session, now) {
        verdict.only_warn();
    }
    verdict
}

/// An old manifest that a GitOps tool applies again must not stop the tool, whatever else has changed since it was written: the
/// Session ends NotStarted.
#[must_use]
pub fn is_old(world: &World, session: &Session, now: Timestamp) -> bool {
    session.tracked && refusals(world, session, now).iter().any(|refusal| refusal.reason == reasons::EXPIRED)
}

fn of_refusal(refusal: Refusal, tenants_known: bool) -> Finding {
    let unsure = refusal.reason == reasons::NAMESPACE_NOT_ALLOWED && !tenants_known;
    let severity = if unsure { Severity::Warning } else { Severity::Error };
    let message = match refusal.reason {
        reasons::EXPIRED => refusal.message.replace("nothing was done", "the Session would end NotStarted"),
        reasons::UNSUPPORTED_MODE => clause(&refusal.message.replace("; nothing was done", "")).to_owned(),
        _ if unsure => format!("{} Whether a tenant owns the namespace could not be asked.", refusal.message),
        _ => refusal.message,
    };
    Finding { field: refusal.field.to_owned(), message, severity }
}

fn found(refusal: Refusal) -> Finding {
    let message = refusal.message.strip_prefix(&format!("{}: ", refusal.field)).unwrap_or(&refusal.message).to_owned();
    Finding { field: refusal.field.to_owned(), message, severity: Severity::Error }
}

/// The Session that is to be tried again, while it has not ended.
fn unfinished(world: &World, session: &Session) -> Option<String> {
    let name = session.spec.retry_of.as_deref()?;
    let named = |other: &&Session| *other.name == *name && other.namespace == session.namespace && other.uid != session.uid;
    let other = world.sessions.values().find(named)?;
    (!matches!(other.stage, Stage::Ended(_))).then(|| name.to_owned())
}

/// The nodes of a Session, as far as they can be told now: None where it waits for something, or cannot work.
pub fn nodes(
    verdict: &mut Verdict,
    world: &World,
    session: &Session,
    template: &SessionTemplateSpec,
    snapshot: &Snapshot,
) -> Option<Selection> {
    if let Err(fault) = discovery::believe(snapshot.nodes.len(), world.known_nodes(), world.options.inventory_shrink_percent) {
        verdict.warn(format!("The nodes were not checked: {}.", clause(&fault)));
        return None;
    }
    if world.is_waited_for(&session.namespace) {
        verdict.warn(format!("The Session waits to hear whether namespace {} belongs to a tenant.", session.namespace));
        return None;
    }
    let only = if unfinished(world, session).is_some() { return None } else { world.retried(session).ok()? };
    let tenant = world.tenants.of(&session.namespace).map(|tenant| &**tenant);
    match select(session, template, snapshot, &world.options, only.as_ref(), tenant) {
        Ok(selection) => {
            for doubt in doubts_of(&selection.resolved) {
                verdict.warn(doubt);
            }
            let used = template.boot_sets.iter().zip(&selection.resolved.boot_sets).filter(|(_, nodes)| !nodes.nodes.is_empty());
            let useless = used.filter_map(|(set, _)| nothing_to_configure(session.spec.operation, template, set));
            verdict.take(useless.map(|why| error(TEMPLATE, format!("SessionTemplate {}: {}", session.spec.template_name, clause(&why)))));
            Some(selection)
        }
        Err(refusal) if verdict.has_error_at(refusal.field) && refusal.reason != reasons::TEMPLATE_INVALID => None,
        Err(refusal) => {
            let finding = found(refusal);
            // Until it begins, names may become known and nodes free.
            let severity = if session.spec.suspend { Severity::Warning } else { Severity::Error };
            verdict.take([Finding { severity, ..finding }]);
            None
        }
    }
}

/// What services say of the template of a Session.
pub fn services(verdict: &mut Verdict, session: &Session, seen: &TemplateSeen) {
    let name = &session.spec.template_name;
    for finding in seen.findings() {
        let severity = if session.spec.suspend { Severity::Warning } else { finding.severity };
        let message = format!("SessionTemplate {name}: {}", clause(&finding.to_string()));
        verdict.take([Finding { field: TEMPLATE.to_owned(), message, severity }]);
    }
}

/// Whether a Session begins once it is there.
#[must_use]
pub fn begins(world: &World, session: &Session, now: Timestamp) -> bool {
    !session.stopping() && refusals(world, session, now).is_empty()
}

/// What would be done, before everything else that is said: `switched` are the nodes that are being powered on or off.
pub fn foresee(
    verdict: &mut Verdict,
    (world, switched): (&World, &BTreeSet<NodeId>),
    session: &Session,
    selection: &Selection,
    seen: &TemplateSeen,
    power: &BTreeMap<Xname, Power>,
    now: Timestamp,
) {
    let count = selection.resolved.node_count();
    let what = if session.spec.stage {
        let operation = session.spec.operation.as_str();
        format!("{operation} will be staged for {}; nothing is done to a node until that is applied", counted(count))
    } else {
        let preview = preview(world, session, selection, &seen.digests(), power, switched, now);
        preview.map_or_else(|| acted_on(count), |preview| preview.text(session.spec.operation))
    };
    let excluded = excluded_text(selection).map(|text| format!("; {text}")).unwrap_or_default();
    verdict.warn_first(format!("{what}{excluded}."));
}

/// Which Sessions lose nodes: those at work on nodes that this one takes.
#[must_use]
pub fn overlaps(world: &World, driven: &BTreeSet<NodeId>, selection: &Selection) -> Vec<String> {
    let mut taken: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let mut by_hand = 0;
    for xname in selection.resolved.boot_sets.iter().flat_map(|set| &set.nodes) {
        let Some(id) = world.by_name.get(xname).filter(|id| driven.contains(id)) else { continue };
        let Some(owner) = world.node(*id).and_then(|node| node.owner.as_ref()) else { continue };
        match world.sessions.get(&owner.uid) {
            Some(session) if !matches!(session.stage, Stage::Ended(_)) => *taken.entry(session.title().into()).or_default() += 1,
            None if owner.since_by_hand().is_some() => by_hand += 1,
            Some(_) | None => {}
        }
    }
    let mut texts: Vec<String> =
        taken.into_iter().map(|(title, count)| format!("Takes over {} that Session {title} is at work on.", counted(count))).collect();
    if by_hand > 0 {
        texts.push(format!("Takes over {} driven by hand.", counted(by_hand)));
    }
    texts
}

/// Judges what a BootComponent asks for by hand.
#[must_use]
pub fn component(world: &World, id: NodeId, configuration: Option<&ConfigurationSeen>) -> Verdict {
    let mut verdict = Verdict::default();
    let Some(node) = world.node(id) else { return verdict };
    if !node.asked.refused.is_empty() {
        verdict.warn(&*node.asked.refused);
    }
    if node.asked.new_run().is_none() {
        return verdict;
    }
    let named = node.asked.wish.session.as_ref().and_then(|uid| world.sessions.get(uid));
    // Only the operator knows what a Session that goes on does with its nodes.
    let goes_on = named.is_some_and(|session| !matches!(session.stage, Stage::Ended(_)));
    if let Some(why) = by_hand::hindrance(world, id, node).filter(|_| !goes_on) {
        verdict.take([error("spec.run", why.strip_prefix(BY_HAND_REFUSED).unwrap_or(&why))]);
    }
    if let Some(text) = what_by_hand(node).filter(|_| verdict.is_allowed()) {
        verdict.warn_first(text);
    }
    if let Some((goal, seen)) = node.asked.wish.goal.as_ref().zip(configuration) {
        verdict.take(seen.finding("spec.desiredState.configuration", &goal.configuration, "the node is configured"));
    }
    verdict
}

/// A new `spec.desiredState` of which nothing will come as it stands. A run that was not taken up yet, `answered` being the last that was,
/// goes by the newest.
#[must_use]
pub fn desired_in_vain(spec: &BootComponentSpec, old: &BootComponentSpec, answered: Option<&str>) -> Option<String> {
    if spec.desired_state.is_none() || spec.desired_state == old.desired_state {
        return None;
    }
    if let Some(session) = &spec.session {
        return Some(format!(
            "spec.desiredState: asks for nothing while spec.session is set. By hand: remove that and write a new text into spec.run. Session {}/{} goes by its own plan.",
            session.namespace, session.name
        ));
    }
    let by_itself = "spec.desiredState: asks for nothing by itself. A new text in spec.run drives the node there.";
    (spec.run.is_none() || spec.run.as_deref() == answered).then(|| by_itself.to_owned())
}

/// What a run by hand does to a node that is on, as far as its status tells.
fn what_by_hand(node: &Node) -> Option<String> {
    let on = node.power.as_ref().is_some_and(|seen| seen.power == Power::On);
    let goal = node.asked.wish.goal.as_ref().filter(|_| on)?;
    let runs = node.reported.as_ref().and_then(|report| report.artifacts.as_ref());
    Some(match (goal.artifacts.as_deref().map(by_hand::bare), runs) {
        (None, _) => format!("{} is on and will be powered off.", node.xname),
        (Some(wanted), Some(runs)) if *wanted != *runs.0 => format!("{} is on with another image and will be power-cycled.", node.xname),
        (Some(_), _) => return None,
    })
}

/// Judges options: what cannot be used and what is likely a mistake, each beginning with the name of the option.
#[must_use]
pub fn options(problems: &[String], doubts: &[String]) -> Verdict {
    let mut verdict = Verdict::default();
    let parted = |text: &str, by: &str| text.split_once(by).map(|(name, rest)| (format!("spec.{name}"), rest.to_owned()));
    verdict.take(problems.iter().filter_map(|text| parted(text, ": ")).map(|(field, rest)| error(field, rest)));
    verdict.take(doubts.iter().filter_map(|text| parted(text, " ")).map(|(field, rest)| warning(field, rest)));
    verdict
}
