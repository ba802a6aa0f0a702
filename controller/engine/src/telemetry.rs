//! What the engine tells health checks and metrics: plain atomics and one small record, read by the operator's HTTP endpoints.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bos_crds::LoggingLevel;

use crate::boot_set::LookRules;
use crate::figures::Figures;
use crate::lease::Leader;

/// How things stand, counted every five seconds while the engine goes round its loop, thirty while it has nothing to do. Times are
/// seconds since 1970 on its clock.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// Nodes by displayed status.
    pub statuses: BTreeMap<&'static str, u64>,
    /// Nodes by displayed phase; "None" where nothing is done to them.
    pub phases: BTreeMap<&'static str, u64>,
    /// Failed nodes by reason.
    pub failed: BTreeMap<String, u64>,
    /// Held nodes by reason.
    pub on_hold: BTreeMap<String, u64>,
    /// Driven nodes that are past a deadline and were neither acted on again nor given up, by deadline.
    pub overdue: BTreeMap<&'static str, u64>,
    /// Sessions by phase.
    pub sessions: BTreeMap<&'static str, u64>,
    /// When the oldest Session that waits for its set-up was first seen.
    pub oldest_pending: Option<f64>,
    /// When the oldest Session that drives nodes began to.
    pub oldest_driving: Option<f64>,
    /// Sessions in which many nodes fell silent together.
    pub mass_timeouts: u64,
    /// Sessions of mode v1 under way, by whether their agent is at work.
    pub agents: BTreeMap<&'static str, u64>,
    /// Which services answered their last call; those not called yet are taken to.
    pub services: BTreeMap<&'static str, bool>,
    /// Calls that are not over, by state.
    pub calls: BTreeMap<&'static str, u64>,
    /// When the inventory began that was accepted last.
    pub inventory: Option<f64>,
    /// Writes of specs and statuses that wait or are on their way.
    pub status_queue: u64,
    /// How long the oldest of those that may leave has waited.
    pub status_queue_age: Duration,
    /// Journals that are to be written, or are being.
    pub journal_queue: u64,
    /// How long the oldest change of one has waited to become durable.
    pub journal_queue_age: Duration,
    /// Events that the API server did not take.
    pub events_dropped: u64,
}

/// Shared figures of one engine.
#[derive(Debug)]
pub struct Telemetry {
    started: Instant,
    beat: AtomicU64,
    /// Everything is loaded and this process leads.
    pub leading: AtomicBool,
    /// Epoch of the leadership; 0 before the first.
    pub epoch: AtomicU64,
    /// Longest pass of all operators in microseconds.
    longest_pass_micros: AtomicU64,
    /// What is counted where it happens.
    pub figures: Figures,
    /// Reports taken.
    pub reports: AtomicU64,
    /// Reports that were told to come again: a node that nobody heard may have been one of them.
    pub reports_put_off: AtomicU64,
    /// The stop switch is set.
    pub emergency_stop: AtomicBool,
    /// How much is to be logged, as the options say.
    pub logging: tokio::sync::watch::Sender<LoggingLevel>,
    /// What the options ask of boot sets.
    pub look_rules: tokio::sync::watch::Sender<LookRules>,
    /// Who leads while this process stands by. None: nobody that is known, or this process.
    pub leader: tokio::sync::watch::Sender<Option<Leader>>,
    /// Why what nodes report cannot be passed on to the leader; empty: it can, or there is nothing to pass on.
    passing_on: Mutex<String>,
    /// What is missing before the engine is ready, for people.
    waiting: Mutex<String>,
    /// How things stood lately.
    counts: Mutex<Arc<Counts>>,
    /// Sessions that ended, by outcome.
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            beat: AtomicU64::new(0),
            leading: AtomicBool::new(false),
            epoch: AtomicU64::new(0),
            longest_pass_micros: AtomicU64::new(0),
            figures: Figures::default(),
            reports: AtomicU64::new(0),
            reports_put_off: AtomicU64::new(0),
            emergency_stop: AtomicBool::new(false),
            logging: tokio::sync::watch::Sender::new(LoggingLevel::Info),
            look_rules: tokio::sync::watch::Sender::new(LookRules::default()),
            leader: tokio::sync::watch::Sender::new(None),
            passing_on: Mutex::default(),
            waiting: Mutex::new("starting".to_owned()),
            counts: Mutex::default(),
            ended: Mutex::default(),
        }
    }
}

impl Telemetry {
    /// New figures, to be shared.
    #[must_use]
    pub fn shared() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// The engine went round its loop.
    pub fn beat(&self) {
        self.beat.store(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// When it last did, in milliseconds since the start.
    #[must_use]
    pub fn last_beat(&self) -> u64 {
        self.beat.load(Ordering::Relaxed)
    }

    /// Milliseconds since the engine last went round its loop, or since the start.
    #[must_use]
    pub fn silent_for_millis(&self) -> u64 {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        now.saturating_sub(self.beat.load(Ordering::Relaxed))
    }

    /// What is missing before the engine is ready; empty when it is.
    #[must_use]
    pub fn waiting(&self) -> String {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says what is missing; empty for nothing.
    pub fn set_waiting(&self, what: impl Into<String>) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = what.into();
    }

    /// Why what nodes report cannot be passed on to the leader; empty when it can.
    #[must_use]
    pub fn cannot_pass_on(&self) -> String {
        self.passing_on.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says why reports cannot be passed on to the leader; empty when they can.
    pub fn set_cannot_pass_on(&self, why: impl Into<String>) {
        *self.passing_on.lock().unwrap_or_else(PoisonError::into_inner) = why.into();
    }

    /// How things stood lately.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How things stand now.
    pub fn set_counts(&self, counts: Counts) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(counts);
    }

    /// Sessions that ended while this process led, by outcome.
    #[must_use]
    pub fn ended(&self) -> BTreeMap<&'static str, u64> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A Session ended.
    pub fn session_ended(&self, outcome: &'static str) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(outcome).or_insert(0) += 1;
    }

    /// Adds one pass.
    pub fn passed(&self, elapsed: Duration) {
        self.figures.passed(elapsed);
        self.longest_pass_micros.fetch_max(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The longest pass since the start.
    #[must_use]
    pub fn longest_pass(&self) -> Duration {
        Duration::from_micros(self.longest_pass_micros.load(Ordering::Relaxed))
    }
}
