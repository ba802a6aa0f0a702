//! What people are told beside the statuses: Events on Sessions, and the history of each Session in the log.

use bos_core::health::clause;
use bos_core::hostlist;
use bos_core::model::EndKind;
use bos_core::project_session;
use bos_core::running::{Dispatch, Order};
use bos_core::session::{SessionEnd, SessionOutcome};
use bos_core::time::span_text;
use bos_crds::{FailureGroup, Outcome as Ending, SessionPhase};

use super::*;
use crate::change::SessionChange;
use crate::events::WORTH_AN_EVENT;

/// Characters of a sample of names in the log.
const SAMPLE: usize = 240;

impl Task {
    /// Events about what holds sessions up, and about its end. The same one twice is published once.
    pub(super) fn announce(&self, now: Timestamp) {
        for session in self.world.sessions.values().filter(|session| !matches!(session.stage, Stage::Ended(_))) {
            for (service, outage) in project_session::lasting(&self.world, session, WORTH_AN_EVENT, now) {
                let note = format!(
                    "{service} is not available since {}. Nothing is lost and no attempt is used; it is tried again all the time.",
                    outage.since.clock()
                );
                self.publish(&session.uid, Severity::Warning, project_session::unavailable(service), &note);
            }
            for (service, outage, until) in project_session::recovered(&self.world, session, WORTH_AN_EVENT) {
                let (from, span) = (outage.since.clock(), span_text(until.since(outage.since)));
                let note = format!("{service} is available again; it was not for {span} from {from} on. No attempt was used.");
                self.publish(&session.uid, Severity::Normal, reasons::SERVICE_BACK, &note);
            }
            if let Some(since) = self.stopped_since.filter(|_| project_session::switches_power(session)) {
                let (name, namespace) = (bos_crds::labels::EMERGENCY_STOP, &self.world.install_namespace);
                let since = since.clock();
                let note =
                    format!("Since {since} the ConfigMap {name} in namespace {namespace} stops all power actions. Delete it to go on.");
                self.publish(&session.uid, Severity::Warning, reasons::EMERGENCY_STOP, &note);
            }
            if session.running().is_some_and(|run| run.mass_timeout.is_some()) {
                let note = "Many nodes fell silent together; no more of them are power-cycled. A person decides: condition MassBootTimeout says which nodes, until when they are waited for, and what can be done.";
                self.publish(&session.uid, Severity::Warning, reasons::MASS_BOOT_TIMEOUT, note);
            }
        }
    }

    pub(super) fn publish(&self, uid: &SessionUid, severity: Severity, reason: &str, note: &str) {
        if self.charge.is_some() {
            // The operator tells of the Session.
            return;
        }
        let Some(session) = self.world.sessions.get(uid).filter(|session| !session.deleted && !session.by_hand) else { return };
        let subject = SessionSubject { namespace: session.namespace.to_string(), name: session.name.to_string(), uid: uid.to_string() };
        self.events.publish(&subject, severity, reason, note);
    }

    pub(super) fn publish_end(&self, uid: &SessionUid, end: &SessionEnd) {
        let well = matches!(end.outcome, SessionOutcome::Succeeded | SessionOutcome::Superseded);
        self.publish(uid, if well { Severity::Ended } else { Severity::EndedBadly }, reasons::COMPLETE, &end.message);
    }

    /// What is new in the status of a Session: one line of its history for each phase, one Event for each cause of failures.
    pub(super) fn tell(&self, uid: &SessionUid, change: &SessionChange, now: Timestamp) {
        let Some(session) = self.world.sessions.get(uid) else { return };
        for group in &change.causes {
            self.tell_cause(session, group);
        }
        let Some(phase) = change.phase else { return };
        let (title, text) = (session.title(), change.message.as_str());
        match (change.before, phase) {
            (None, SessionPhase::Pending) => {
                let (template, limit) = (&session.spec.template_name, session.spec.limit.as_deref().unwrap_or(""));
                tracing::info!(session = title, operation = session.spec.operation.as_str(), template, limit, "session accepted");
            }
            (_, SessionPhase::Complete) => {
                let ending = change.outcome.map_or("", Ending::as_str);
                let counts = &change.counts;
                let (nodes, succeeded, failed) = (counts.nodes, counts.succeeded, counts.failed);
                let (left, superseded, cancelled, cycled) = (counts.left_running, counts.superseded, counts.cancelled, counts.power_cycled);
                tracing::info!(
                    session = title,
                    outcome = ending,
                    nodes,
                    succeeded,
                    failed,
                    left,
                    superseded,
                    cancelled,
                    cycled,
                    text,
                    "session ended"
                );
                self.telemetry.session_ended(ending);
                self.spans.ended(uid, ending);
            }
            (_, SessionPhase::Suspended) => {
                tracing::info!(session = title, "session suspended");
                let note =
                    format!("Suspended at {}: nothing new is sent until spec.suspend is false. Calls under way finish.", now.clock());
                self.publish(uid, Severity::Normal, reasons::SUSPENDED, &note);
            }
            (Some(SessionPhase::Suspended), SessionPhase::Pending | SessionPhase::Running) => {
                tracing::info!(session = title, "session resumed");
                self.publish(uid, Severity::Normal, reasons::RESUMED, &format!("Resumed at {}.", now.clock()));
            }
            (_, SessionPhase::Running) => tracing::info!(session = title, nodes = change.counts.nodes, "session running"),
            (_, SessionPhase::Pending) => tracing::info!(session = title, text, "session waits for its set-up"),
        }
    }

    /// The plan is made; it is written next.
    pub(super) fn tell_set_up(&self, session: &bos_core::session::Session, plan: &bos_core::plan::Plan) {
        let excluded: usize = plan.excluded.values().map(Vec::len).sum();
        let of_image = |image: &str| if image.is_empty() { String::new() } else { format!(" with {image}") };
        let sets = plan.boot_sets.iter().map(|set| format!("{}: {}{}", set.name, set.nodes.len(), of_image(&set.image)));
        let sets: Vec<String> = sets.collect();
        let (title, nodes, boot_sets) = (session.title(), plan.len(), sets.join("; "));
        tracing::info!(session = title, nodes, excluded, boot_sets, template_generation = plan.template_generation, "session set up");
        for warning in &plan.warnings {
            tracing::warn!(session = title, text = %warning, "session has a warning");
        }
    }

    /// Its nodes are its own from now on.
    pub(super) fn tell_started(&self, uid: &SessionUid) {
        let Some(run) = self.world.sessions.get(uid).and_then(|session| session.run()) else { return };
        let nodes = run.slots.len();
        let (has, are) = if nodes == 1 { ("node has", "node is") } else { ("nodes have", "nodes are") };
        let what = if run.plan.staged {
            format!("{nodes} {has} staged state that waits to be applied.")
        } else {
            format!("{nodes} {are} being driven.")
        };
        self.publish(uid, Severity::Normal, reasons::STARTED, &what);
        if !run.plan.warnings.is_empty() {
            self.publish(uid, Severity::Warning, reasons::CHECKED_WITH_WARNINGS, &run.plan.warnings.join(" "));
        }
    }

    fn tell_cause(&self, session: &bos_core::session::Session, group: &FailureGroup) {
        let FailureGroup { reason, count, sample, message } = group;
        let failed = |end: &bos_core::model::End| *end.reason == **reason && end.kind == EndKind::Failed;
        let bad = session.run().is_some_and(|run| run.slots.iter().filter_map(|slot| slot.end.as_deref()).any(failed));
        let (severity, what) = if bad { (Severity::Warning, "failed") } else { (Severity::Normal, "left as they are") };
        let nodes = if *count == 1 { "node" } else { "nodes" };
        let note = format!("{count} {nodes} {what} so far: {sample}: {}. status.failures counts them all.", clause(message));
        tracing::info!(session = session.title(), reason, count, sample, text = message, "session has nodes that {what}");
        self.publish(&session.uid, severity, reason, &note);
    }

    /// The stop switch was set or lifted: says so in the log, and on every Session that it held up that it is lifted.
    pub(super) fn tell_stop_switch(&self, now: Timestamp) {
        let (name, namespace) = (bos_crds::labels::EMERGENCY_STOP, &self.world.install_namespace);
        if self.world.emergency_stop {
            let why = &*self.world.stop_note;
            tracing::warn!(configmap = name, %namespace, why, "stop switch set: no power action is sent until the ConfigMap is deleted");
            return;
        }
        tracing::warn!(configmap = name, %namespace, "stop switch lifted: power actions go on");
        let note = format!("The ConfigMap {name} in namespace {namespace} was deleted at {}; power actions go on.", now.clock());
        for session in self.world.sessions.values().filter(|session| project_session::switches_power(session)) {
            self.publish(&session.uid, Severity::Normal, reasons::EMERGENCY_STOP_LIFTED, &note);
        }
    }

    /// A call leaves.
    pub(super) fn tell_sending(&self, dispatch: &Dispatch) {
        let nodes = dispatch.nodes.len();
        let sample = hostlist::fold(dispatch.nodes.iter().map(|(_, xname)| xname), SAMPLE);
        let call = self.in_words(&dispatch.order);
        if let Some(batch) = self.world.batches.get(&dispatch.id) {
            self.telemetry.figures.sending(batch.work, nodes);
        }
        tracing::info!(session = %dispatch.title, batch = dispatch.id.0, call, nodes, sample, "sending");
    }

    fn in_words(&self, order: &Order) -> String {
        match order {
            Order::BootParameters { artifacts } => {
                let image = self.world.artifacts.get(artifacts).map_or("", |set| set.image.as_str());
                format!("BSS: boot parameters {} of image {image}", artifacts.0)
            }
            Order::Configuration { name, enabled, clear_state } => {
                let run = if *enabled { "enabled" } else { "disabled until they are up" };
                let state = if *clear_state { ", what was applied is forgotten" } else { "" };
                format!("CFS: configuration {name:?}, {run}{state}")
            }
            Order::Power(action) => format!("{}: {}", self.world.power_service, words_of(*action)),
        }
    }

    /// What became of a call.
    pub(super) fn tell_outcome(&self, id: BatchId, outcome: &Outcome) {
        let Some(batch) = self.world.batches.get(&id) else { return };
        self.telemetry.figures.sent(batch.work, outcome);
        let session = self.world.sessions.get(&batch.session).map(bos_core::session::Session::title).unwrap_or_default();
        let batch = id.0;
        match outcome {
            Outcome::Accepted { transition } => tracing::info!(session, batch, %transition, "accepted"),
            Outcome::Stored { token } => tracing::info!(session, batch, token = %token.0, "stored"),
            Outcome::Taken { failed, note } => tracing::info!(session, batch, failed = failed.len(), text = %note, "accepted"),
            Outcome::Configured { changed } => tracing::info!(session, batch, changed = changed.len(), "configured"),
            Outcome::Refused { because, detail } => {
                tracing::warn!(session, batch, named = because.len(), text = %detail, "refused; the nodes that are not named are asked for again");
            }
            Outcome::NotSent { service, detail } => {
                tracing::warn!(session, batch, %service, text = %detail, "not sent; no attempt is used and it is tried again");
            }
            Outcome::HeldBack => {
                tracing::info!(session, batch, "held back: the stop switch is set, or this process does not lead any more")
            }
            Outcome::Unknown { detail } => {
                tracing::warn!(session, batch, text = %detail, "nobody knows whether it was carried out; waited out, then looked at");
            }
            Outcome::Rejected { detail } => tracing::warn!(session, batch, text = %detail, "rejected"),
            Outcome::Impossible { detail } => tracing::error!(session, batch, text = %detail, "impossible"),
        }
    }
}

const fn words_of(action: bos_core::model::PowerAction) -> &'static str {
    use bos_core::model::PowerAction;
    match action {
        PowerAction::On => "power on",
        PowerAction::SoftOff => "shut down",
        PowerAction::ForceOff => "cut the power",
    }
}

/// One line for each option whose value changed, at our start for each that is not the default, and for each value that is likely a
/// mistake.
pub(super) fn tell_options(before: Option<&BootOptionsSpec>, after: &BootOptionsSpec, doubts: &[String]) {
    for (option, from, to) in changed_options(before.unwrap_or(&BootOptionsSpec::default()), after) {
        match before {
            Some(_) => tracing::info!(option, %from, %to, "BootOptions changed"),
            None => tracing::info!(option, value = %to, default = %from, "BootOptions taken up"),
        }
    }
    for doubt in doubts {
        tracing::warn!(doubt, "BootOptions");
    }
}

fn changed_options(before: &BootOptionsSpec, after: &BootOptionsSpec) -> Vec<(String, serde_json::Value, serde_json::Value)> {
    let fields = |spec| match serde_json::to_value(spec) {
        Ok(serde_json::Value::Object(fields)) => fields,
        Ok(_) | Err(_) => serde_json::Map::new(),
    };
    let before = fields(before);
    let changed = fields(after).into_iter().filter_map(|(option, to)| {
        let from = before.get(&option).cloned().unwrap_or_default();
        (from != to).then_some((option, from, to))
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_options_are_named_with_both_values() {
        let before = BootOptionsSpec::default();
        assert!(changed_options(&before, &before).is_empty());
        let after = BootOptionsSpec { max_boot_wait_time_seconds: 25, reject_nids: !before.reject_nids, ..before.clone() };
        let named: Vec<String> =
            changed_options(&before, &after).into_iter().map(|(option, from, to)| format!("{option} {from} {to}")).collect();
        assert_eq!(
            named,
            ["maxBootWaitTimeSeconds 1200 25".to_owned(), format!("rejectNids {} {}", before.reject_nids, after.reject_nids)]
        );
    }
}
