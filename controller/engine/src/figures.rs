//! Figures for Prometheus that are counted where things happen. docs/metrics.md says what each means. None has a label per node or
//! per Session: their number does not grow with the system.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bos_core::batch::{Outcome, Work};
use bos_core::model::PowerAction;
use bos_services::figures::call_latencies;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::writer::Kind;

/// Seconds; a pass over ten thousand nodes takes some milliseconds.
const PASSES: [f64; 10] = [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];

/// All that calls are made for.
const WORKS: [Work; 6] = [
    Work::BootParameters,
    Work::PrepareConfiguration,
    Work::Configure,
    Work::Power(PowerAction::On),
    Work::Power(PowerAction::SoftOff),
    Work::Power(PowerAction::ForceOff),
];

/// Nodes of one call.
const NODES: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Action {
    action: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionOutcome {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindOutcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeOnly {
    outcome: &'static str,
}

/// All figures of the engine that are no state of its World.
#[derive(Debug, Clone)]
pub struct Figures {
    passes: Histogram,
    projections: Histogram,
    batch_nodes: Family<Action, Histogram, fn() -> Histogram>,
    batches: Family<ActionOutcome, Counter>,
    journal_writes: Histogram,
    /// Of the writer of statuses.
    pub writes: WriteFigures,
    /// Of the leader election.
    pub lease: LeaseFigures,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            passes: Histogram::new(PASSES),
            projections: Histogram::new(PASSES),
            batch_nodes: Family::new_with_constructor(batch_sizes as fn() -> Histogram),
            batches: Family::default(),
            journal_writes: call_latencies(),
            writes: WriteFigures::default(),
            lease: LeaseFigures::default(),
        }
    }
}

fn batch_sizes() -> Histogram {
    Histogram::new(NODES)
}

impl Figures {
    /// Shows them in a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("pass_duration_seconds", "Time of one pass of all operators over all nodes", self.passes.clone());
        registry.register(
            "projection_duration_seconds",
            "Time to work out, after a pass, what is to be shown of the nodes that it touched, and to queue what is to be written",
            self.projections.clone(),
        );
        registry.register("batch_nodes", "Nodes of each call that left, by action", self.batch_nodes.clone());
        registry.register("batches", "Calls that left, by action and by what became of them", self.batches.clone());
        registry.register(
            "journal_write_duration_seconds",
            "Time from the snapshot of a journal to the API server's acknowledgement",
            self.journal_writes.clone(),
        );
        self.writes.register(registry);
        // An alert sees an increase only of a figure that was there before.
        for work in WORKS {
            drop(self.batches.get_or_create(&ActionOutcome { action: action(work), outcome: "unknown" }));
        }
        drop(self.lease.renewals.get_or_create(&OutcomeOnly { outcome: "failed" }));
        registry.register("lease_renewals", "Attempts to renew the leader lease, by outcome", self.lease.renewals.clone());
    }

    /// A pass took so long.
    pub fn passed(&self, elapsed: Duration) {
        self.passes.observe(elapsed.as_secs_f64());
    }

    /// Statuses were worked out in so long.
    pub fn projected(&self, elapsed: Duration) {
        self.projections.observe(elapsed.as_secs_f64());
    }

    /// A call leaves.
    pub fn sending(&self, work: Work, nodes: usize) {
        self.batch_nodes.get_or_create(&Action { action: action(work) }).observe(u32::try_from(nodes).unwrap_or(u32::MAX).into());
    }

    /// What became of it.
    pub fn sent(&self, work: Work, became: &Outcome) {
        self.batches.get_or_create(&ActionOutcome { action: action(work), outcome: outcome(became) }).inc();
    }

    /// A journal is durable.
    pub fn journal_written(&self, elapsed: Duration) {
        self.journal_writes.observe(elapsed.as_secs_f64());
    }
}

/// What an action is called in labels and spans.
#[must_use]
pub const fn action(work: Work) -> &'static str {
    match work {
        Work::BootParameters => "boot_parameters",
        Work::PrepareConfiguration => "prepare_configuration",
        Work::Configure => "configure",
        Work::Power(PowerAction::On) => "power_on",
        Work::Power(PowerAction::SoftOff) => "soft_off",
        Work::Power(PowerAction::ForceOff) => "force_off",
    }
}

const fn outcome(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::NotSent { .. } => "not_sent",
        Outcome::HeldBack => "held_back",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Rejected { .. } => "rejected",
        Outcome::Impossible { .. } => "impossible",
        Outcome::Stored { .. } | Outcome::Configured { .. } | Outcome::Accepted { .. } | Outcome::Taken { .. } => "accepted",
        Outcome::Refused { .. } => "refused",
    }
}

/// How a write of a spec or status ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// Acknowledged by the API server.
    Written,
    /// It failed for the moment and was queued again.
    Retried,
    /// It met another version.
    Conflict,
    /// The object is gone.
    Gone,
    /// Refused for good.
    Refused,
    /// A newer one took its place before it left.
    Coalesced,
}

impl Write {
    const fn label(self) -> &'static str {
        match self {
            Self::Written => "written",
            Self::Retried => "retried",
            Self::Conflict => "conflict",
            Self::Gone => "gone",
            Self::Refused => "refused",
            Self::Coalesced => "coalesced",
        }
    }
}

/// Counts writes of specs and statuses, and how long they take. Clones share it.
#[derive(Debug, Clone)]
pub struct WriteFigures {
    writes: Family<KindOutcome, Counter>,
    durations: Histogram,
}

impl Default for WriteFigures {
    fn default() -> Self {
        Self { writes: Family::default(), durations: call_latencies() }
    }
}

impl WriteFigures {
    fn register(&self, registry: &mut Registry) {
        registry.register(
            "api_writes",
            "Writes of specs and statuses to the API server, by kind of object and outcome",
            self.writes.clone(),
        );
        for kind in [Kind::Session, Kind::BootComponent, Kind::BootOptions] {
            drop(self.writes.get_or_create(&KindOutcome { kind: kind.as_str(), outcome: Write::Refused.label() }));
        }
        registry.register("api_write_duration_seconds", "Time of one such write, with looks after conflicts", self.durations.clone());
    }

    /// Counts one.
    pub fn count(&self, kind: &'static str, outcome: Write) {
        self.writes.get_or_create(&KindOutcome { kind, outcome: outcome.label() }).inc();
    }

    /// One took so long.
    pub fn took(&self, elapsed: Duration) {
        self.durations.observe(elapsed.as_secs_f64());
    }

    /// How many of a kind ended so.
    #[must_use]
    pub fn of(&self, kind: &'static str, outcome: Write) -> u64 {
        self.writes.get_or_create(&KindOutcome { kind, outcome: outcome.label() }).get()
    }
}

/// Counts renewals of the leader lease. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct LeaseFigures {
    renewals: Family<OutcomeOnly, Counter>,
    renewed: Arc<Mutex<Option<Instant>>>,
}

impl LeaseFigures {
    /// The lease is ours since a call that was sent then; None: it is not ours any more.
    pub fn held(&self, since: Option<Instant>) {
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    /// A renewal ended.
    pub fn count(&self, renewed: bool) {
        self.renewals.get_or_create(&OutcomeOnly { outcome: if renewed { "renewed" } else { "failed" } }).inc();
    }

    /// Time since the last renewal that was acknowledged was sent; None while the lease is not held.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }
}
