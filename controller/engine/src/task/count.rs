//! Figures for the metrics that are the state of the World: counted now and then, never in the way of a pass.

use bos_core::batch::Batch;
use bos_core::drive::{Drive, Phase};
use bos_core::model::PowerAction;

use super::*;
use crate::telemetry::Counts;

/// They are counted this often.
const COUNT: Duration = Duration::from_secs(5);
/// This often while there was nothing to do the last time either.
const IDLE_COUNT: Duration = Duration::from_secs(30);

impl Task {
    /// Counts, if it is time.
    pub(super) fn count(&mut self, now: Timestamp) {
        let idle = self.is_idle();
        let pace = |was_idle: bool| if was_idle && idle { IDLE_COUNT } else { COUNT };
        if self.counted.is_some_and(|(counted, was_idle)| counted.elapsed() < pace(was_idle)) {
            return;
        }
        self.counted = Some((Instant::now(), idle));
        let mut counts = self.views.counts();
        counts.overdue = overdue(&self.world, now);
        counts.services = self.services_available();
        counts.calls = calls(self.world.batches.values());
        count_sessions(&self.world, &mut counts);
        // Before the first it is as old as this process's work.
        let began = Timestamp::from_millis(self.clock.wall);
        let inventory = if self.world.discovery.complete { self.world.discovery.accepted } else { began };
        counts.inventory = Some(seconds(inventory));
        (counts.journal_queue, counts.journal_queue_age) = self.journals.waiting(Instant::now());
        counts.events_dropped = self.events.dropped();
        self.telemetry.set_counts(counts);
    }

    fn services_available(&self) -> BTreeMap<&'static str, bool> {
        let other = match self.world.power_service.service() {
            Service::Capmc => Service::Pcs,
            _ => Service::Capmc,
        };
        let ours = |service: &&Service| self.world.services.has(**service) && **service != other;
        let up = |service: &Service| (service.label(), self.world.services.down(*service).is_none());
        Service::ALL.iter().filter(ours).map(up).collect()
    }
}

#[allow(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit well into the 53 bits")]
fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1000.0
}

/// Driven nodes past a deadline: the next pass acts on each or gives it up, unless something holds it.
fn overdue(world: &World, now: Timestamp) -> BTreeMap<&'static str, u64> {
    let mut overdue = BTreeMap::from([("power", 0), ("boot", 0), ("hold", 0)]);
    let running = world.sessions.values().filter_map(|session| session.running());
    let driven = running.flat_map(|run| run.open()).filter_map(|id| world.node(id)?.drive.as_ref());
    for deadline in driven.filter_map(|drive| passed(drive, now)) {
        *overdue.entry(deadline).or_default() += 1;
    }
    overdue
}

/// The deadline that a node is past.
fn passed(drive: &Drive, now: Timestamp) -> Option<&'static str> {
    if drive.hold.is_some_and(|hold| now >= hold.until) {
        return Some("hold");
    }
    let issued = drive.action.filter(|issued| !issued.failed && drive.booted.is_none())?;
    match (issued.action, drive.phase) {
        (PowerAction::On, Phase::PoweringOn) => (now >= issued.boot_by).then_some("boot"),
        (PowerAction::SoftOff | PowerAction::ForceOff, Phase::PoweringOff) => (now >= issued.power_by).then_some("power"),
        _ => None,
    }
}

fn calls<'a>(batches: impl Iterator<Item = &'a Batch>) -> BTreeMap<&'static str, u64> {
    let mut calls = BTreeMap::from([("recording", 0), ("sent", 0), ("following", 0)]);
    for batch in batches {
        let state = match batch.state {
            BatchState::Recording => "recording",
            BatchState::Sent => "sent",
            BatchState::Following { .. } => "following",
        };
        *calls.entry(state).or_default() += 1;
    }
    calls
}

fn count_sessions(world: &World, counts: &mut Counts) {
    let earlier = |known: Option<f64>, at: f64| Some(known.map_or(at, |known| known.min(at)));
    counts.agents = BTreeMap::from([("running", 0), ("waiting", 0)]);
    for session in world.sessions.values() {
        match &session.stage {
            // It waits for a person.
            Stage::Pending(_) if session.halted() => {}
            Stage::Pending(pending) => counts.oldest_pending = earlier(counts.oldest_pending, seconds(pending.since)),
            Stage::Recording(recording) => counts.oldest_pending = earlier(counts.oldest_pending, seconds(recording.since)),
            Stage::Running(run) => {
                counts.mass_timeouts += u64::from(run.mass_timeout.is_some());
                if run.by_agent {
                    *counts.agents.entry(if session.agent.running { "running" } else { "waiting" }).or_default() += 1;
                }
                // One whose state is all staged may wait for ever, and rightly.
                if run.slots.iter().any(|slot| slot.taken && slot.end.is_none()) {
                    counts.oldest_driving = earlier(counts.oldest_driving, seconds(run.started));
                }
            }
            Stage::Ended(_) => {}
        }
    }
}
