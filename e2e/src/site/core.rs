//! What all parts of the site share: the clock, the settings, the world, and the timers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::calls::CallLog;
use super::config::{Service, Settings};
use super::hooks::Hooks;
use super::lock;
use super::outages::{Call, Outages, Pick};
use super::reporter::ReportJob;
use super::sigv4::Keys;
use super::world::World;

/// Events handled under one hold of the world's lock.
const BATCH: usize = 64;

/// The shared heart of a site.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) world: Mutex<World>,
    pub(crate) calls: Mutex<CallLog>,
    pub(crate) hooks: Mutex<Hooks>,
    pub(crate) outages: Mutex<Outages>,
    pub(crate) keys: Keys,
    pub(crate) s3_url: OnceLock<String>,
    pub(crate) bss_address: OnceLock<String>,
    pub(crate) reports: mpsc::UnboundedSender<ReportJob>,
    pub(crate) wake: Notify,
    /// Told whenever a node's state changed, for those who wait for something.
    pub(crate) changed: Notify,
    pub(crate) stop: CancellationToken,
    settings: RwLock<Arc<Settings>>,
    start: Instant,
    random: AtomicU64,
}

impl Core {
    pub(crate) fn new(world: World, settings: Settings, keys: Keys, seed: u64, reports: mpsc::UnboundedSender<ReportJob>) -> Self {
        Self {
            world: Mutex::new(world),
            calls: Mutex::default(),
            hooks: Mutex::default(),
            outages: Mutex::default(),
            keys,
            s3_url: OnceLock::new(),
            bss_address: OnceLock::new(),
            reports,
            wake: Notify::new(),
            changed: Notify::new(),
            stop: CancellationToken::new(),
            settings: RwLock::new(Arc::new(settings)),
            start: Instant::now(),
            random: AtomicU64::new(seed),
        }
    }

    pub(crate) fn settings(&self) -> Arc<Settings> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn change_settings<T>(&self, change: impl FnOnce(&mut Settings) -> T) -> T {
        let mut held = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        change(Arc::make_mut(&mut held))
    }

    /// Seconds since the start.
    pub(crate) fn elapsed(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    fn next_random(&self) -> u64 {
        // SplitMix64: small, and the same sequence for the same seed.
        let mut z = self.random.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 up to, but not including, 1.
    pub(crate) fn random(&self) -> f64 {
        (self.next_random() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A random id in the shape of a UUID. From our own numbers, as thousands are needed cheaply.
    pub(crate) fn uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.next_random().to_be_bytes());
        bytes[8..].copy_from_slice(&self.next_random().to_be_bytes());
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Uuid::from_bytes(bytes)
    }

    /// The outage, or the error by rate, that hits a request.
    pub(crate) fn pick_outage(&self, call: &Call<'_>) -> Option<Pick> {
        if let Some(pick) = lock(&self.outages).pick(call, || self.random()) {
            return Some(pick);
        }
        let settings = self.settings();
        let own = settings.services.get(&call.service)?;
        (own.error_rate > 0.0 && self.random() < own.error_rate).then(|| Pick {
            kind: own.error_kind,
            retry_after: None,
            ends: None,
            cleared: self.stop.child_token(),
        })
    }

    /// Whether a virtual node's own call to a service fails now.
    pub(crate) fn node_call_fails(&self, service: Service, method: &str, path: &str) -> Option<String> {
        self.pick_outage(&Call { service, method, path, of_node: true })
            .map(|pick| format!("{} does not answer ({:?})", service.name(), pick.kind))
    }

    /// The task that fires timers. It ends when the site stops.
    pub(crate) async fn run_timers(self: Arc<Self>) {
        loop {
            let next = self.fire_due();
            let sleep = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.wake.notified() => {}
                () = sleep => {}
            }
        }
    }

    /// Fires what is due and returns when the next timer is.
    fn fire_due(&self) -> Option<Instant> {
        loop {
            let mut world = lock(&self.world);
            let mut fired = 0;
            while fired < BATCH {
                match world.timers.due(Instant::now()) {
                    Some(event) => world.handle(self, event),
                    None => break,
                }
                fired += 1;
            }
            let next = world.timers.next();
            drop(world);
            if fired > 0 {
                self.changed.notify_waiters();
            }
            if fired < BATCH {
                return next;
            }
        }
    }
}

/// What a timer does when it fires. Numbers named `boot` and `command` tie it to the state it was
/// set in: a timer of an earlier state does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Power { node: usize, command: u64, on: bool },
    Script { node: usize, boot: u64 },
    Up { node: usize, boot: u64 },
    Report { node: usize, chain: u64, attempt: u32 },
    CfsReport { node: usize, boot: u64, attempt: u32 },
    CfsRun { node: usize, generation: u64 },
    TransitionStart(Uuid),
    TransitionCheck(Uuid),
    Sample,
}

#[derive(Debug, PartialEq, Eq)]
struct Timer {
    at: Instant,
    number: u64,
    event: Event,
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// All timers of all nodes in one heap: ten thousand nodes cost no task of their own.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Timer>>,
    count: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, core: &Core, after: Duration, event: Event) {
        let at = Instant::now() + after;
        let earliest = self.next().is_none_or(|next| at < next);
        self.count += 1;
        self.heap.push(Reverse(Timer { at, number: self.count, event }));
        if earliest {
            core.wake.notify_one();
        }
    }

    fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|t| t.0.at)
    }

    fn due(&mut self, now: Instant) -> Option<Event> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|t| t.0.event)
    }
}
