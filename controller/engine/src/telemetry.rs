//! What the engine tells health checks and metrics: plain atomics and one small map, read by the operator's HTTP endpoints.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bos_crds::LoggingLevel;

use crate::boot_set::LookRules;
use crate::lease::Leader;

/// Shared figures of one engine.
#[derive(Debug)]
pub struct Telemetry {
    started: Instant,
    beat: AtomicU64,
    /// Everything is loaded and this process leads.
    pub leading: AtomicBool,
    /// Epoch of the leadership; 0 before the first.
    pub epoch: AtomicU64,
    /// Passes of all operators.
    pub passes: AtomicU64,
    /// Microseconds spent in them.
    pub pass_micros: AtomicU64,
    /// Longest of them in microseconds.
    pub longest_pass_micros: AtomicU64,
    /// Journal writes acknowledged.
    pub journal_writes: AtomicU64,
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
    /// Nodes by displayed status.
    nodes: Mutex<BTreeMap<&'static str, u64>>,
    /// Sessions by phase.
    sessions: Mutex<BTreeMap<&'static str, u64>>,
    /// Which services answer.
    services: Mutex<BTreeMap<&'static str, bool>>,
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
            passes: AtomicU64::new(0),
            pass_micros: AtomicU64::new(0),
            longest_pass_micros: AtomicU64::new(0),
            journal_writes: AtomicU64::new(0),
            reports: AtomicU64::new(0),
            reports_put_off: AtomicU64::new(0),
            emergency_stop: AtomicBool::new(false),
            logging: tokio::sync::watch::Sender::new(LoggingLevel::Info),
            look_rules: tokio::sync::watch::Sender::new(LookRules::default()),
            leader: tokio::sync::watch::Sender::new(None),
            passing_on: Mutex::default(),
            waiting: Mutex::new("starting".to_owned()),
            nodes: Mutex::default(),
            sessions: Mutex::default(),
            services: Mutex::default(),
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

    /// Nodes by displayed status.
    #[must_use]
    pub fn nodes(&self) -> BTreeMap<&'static str, u64> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sessions by phase.
    #[must_use]
    pub fn sessions(&self) -> BTreeMap<&'static str, u64> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Which services answered their last call; those not called yet are taken to.
    #[must_use]
    pub fn services(&self) -> BTreeMap<&'static str, bool> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sessions that ended while this process led, by outcome.
    #[must_use]
    pub fn ended(&self) -> BTreeMap<&'static str, u64> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the counts.
    pub fn set_counts(
        &self,
        nodes: BTreeMap<&'static str, u64>,
        sessions: BTreeMap<&'static str, u64>,
        services: BTreeMap<&'static str, bool>,
    ) {
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
        *self.sessions.lock().unwrap_or_else(PoisonError::into_inner) = sessions;
        *self.services.lock().unwrap_or_else(PoisonError::into_inner) = services;
    }

    /// A Session ended.
    pub fn session_ended(&self, outcome: &'static str) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(outcome).or_insert(0) += 1;
    }

    /// Adds one pass.
    pub fn passed(&self, micros: u64) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.pass_micros.fetch_add(micros, Ordering::Relaxed);
        self.longest_pass_micros.fetch_max(micros, Ordering::Relaxed);
    }
}
