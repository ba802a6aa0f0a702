//! The queue of the writer: what waits, in which order, and how retries come back into it.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::{ObjectKey, Submitted, Target, Urgency, WriteJob};
use crate::clients::Backoff;

/// Our own writes whose versions are kept per object, so that a caller that has not seen the latest
/// answers yet does not conflict with itself.
const VERSIONS_KEPT: usize = 8;
/// After this long every answer has been seen.
const VERSIONS_AGE: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(super) struct Queue {
    objects: HashMap<ObjectKey, Pending>,
    ready: BTreeSet<Rank>,
    delayed: BTreeSet<(Instant, u64, ObjectKey)>,
    advanced: HashMap<ObjectKey, Advanced>,
    numbers: u64,
    jobs: usize,
}

/// Urgent first, then the longest waiting; the number makes it total.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    urgency: Urgency,
    since: Instant,
    number: u64,
    key: ObjectKey,
}

#[derive(Debug, Clone, Default)]
enum Place {
    #[default]
    Nowhere,
    Ready(Rank),
    Delayed(Instant, u64),
}

/// One object's writes.
struct Pending {
    /// At most one for each target.
    jobs: Vec<Queued>,
    /// Since when the one on its way has waited.
    in_flight: Option<Instant>,
    place: Place,
    number: u64,
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// One was sent whose answer was lost: the server may hold it.
    in_doubt: bool,
}

#[derive(Debug)]
struct Queued {
    job: WriteJob,
    since: Instant,
}

/// Which versions our own writes have moved on, and to which.
struct Advanced {
    from: Vec<String>,
    to: String,
    at: Instant,
}

/// A write on its way.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) job: WriteJob,
    since: Instant,
}

impl Queue {
    /// Objects whose write waits for nothing but its turn.
    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// What waits to be written of an object.
    #[cfg(test)]
    pub(super) fn waiting(&self, key: &ObjectKey) -> Vec<WriteJob> {
        self.objects.get(key).into_iter().flat_map(|pending| &pending.jobs).map(|queued| queued.job.clone()).collect()
    }

    /// Adds a write, in the place of one that waits.
    pub(super) fn submit(&mut self, mut job: WriteJob, now: Instant) -> Submitted {
        self.advance(&mut job);
        let submitted = self.add(job, now);
        if submitted == Submitted::New {
            self.jobs += 1;
        }
        submitted
    }

    fn add(&mut self, mut job: WriteJob, since: Instant) -> Submitted {
        self.numbers += 1;
        let number = self.numbers;
        let key = job.key.clone();
        let pending = self.objects.entry(key.clone()).or_insert_with(|| Pending::new(number));
        let before = if pending.in_doubt { Submitted::InPlace } else { Submitted::InPlaceOfUnsent };
        let submitted = match pending.jobs.iter_mut().find(|queued| queued.job.target == job.target) {
            Some(queued) => {
                // The object has been out of date since the first of them.
                job.not_before = earlier(queued.job.not_before, job.not_before);
                queued.job = job;
                before
            }
            None => {
                pending.jobs.push(Queued { job, since });
                Submitted::New
            }
        };
        self.place(&key);
        submitted
    }

    /// Somebody waits for what is to be written of an object.
    pub(super) fn hurry(&mut self, key: &ObjectKey) {
        let Some(pending) = self.objects.get_mut(key) else { return };
        for queued in &mut pending.jobs {
            queued.job.urgency = Urgency::Urgent;
            queued.job.not_before = None;
        }
        self.place(key);
    }

    /// Uses the version that our own writes have reached since the caller last heard.
    fn advance(&self, job: &mut WriteJob) {
        let (Some(version), Some(advanced)) = (&mut job.resource_version, self.advanced.get(&job.key)) else { return };
        if advanced.from.contains(version) {
            version.clone_from(&advanced.to);
        }
    }

    /// Puts an object where its writes belong.
    fn place(&mut self, key: &ObjectKey) {
        let Some(pending) = self.objects.get_mut(key) else { return };
        match std::mem::take(&mut pending.place) {
            Place::Nowhere => {}
            Place::Ready(rank) => {
                self.ready.remove(&rank);
            }
            Place::Delayed(due, number) => {
                self.delayed.remove(&(due, number, key.clone()));
            }
        }
        if pending.in_flight.is_some() {
            return;
        }
        let Some(due) = pending.due() else {
            self.objects.remove(key);
            return;
        };
        match due {
            None => {
                let rank = pending.rank(key);
                self.ready.insert(rank.clone());
                pending.place = Place::Ready(rank);
            }
            Some(due) => {
                self.delayed.insert((due, pending.number, key.clone()));
                pending.place = Place::Delayed(due, pending.number);
            }
        }
    }

    /// Whether the next write that may leave is urgent.
    pub(super) fn is_urgent(&mut self, now: Instant) -> bool {
        self.ripen(now);
        self.ready.first().is_some_and(|rank| rank.urgency == Urgency::Urgent)
    }

    /// Moves what is due by now to what may leave.
    fn ripen(&mut self, now: Instant) {
        while let Some((due, _, key)) = self.delayed.first().cloned() {
            if due > now {
                break;
            }
            if let Some(pending) = self.objects.get_mut(&key) {
                pending.ripen(now);
            }
            self.place(&key);
        }
    }

    /// Takes the next write that may leave.
    pub(super) fn take(&mut self, now: Instant) -> Option<Taken> {
        self.ripen(now);
        let key = self.ready.first()?.key.clone();
        let pending = self.objects.get_mut(&key)?;
        let Queued { job, since } = pending.next_job()?;
        pending.in_flight = Some(since);
        self.place(&key);
        Some(Taken { job, since })
    }

    /// When the first delayed write is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.delayed.first().map(|(due, ..)| *due)
    }

    /// A write has ended. `reached` is the object's version where it was written.
    pub(super) fn finished(&mut self, job: &WriteJob, reached: Option<&str>, now: Instant) {
        self.jobs -= 1;
        match (reached, &job.resource_version) {
            (Some(to), Some(from)) => self.moved_on(&job.key, from, to, now),
            _ => {
                self.advanced.remove(&job.key);
            }
        }
        let Some(pending) = self.objects.get_mut(&job.key) else { return };
        pending.in_flight = None;
        pending.retry_at = None;
        pending.backoff.reset();
        pending.in_doubt = false;
        if let (Some(to), Some(from)) = (reached, &job.resource_version) {
            for queued in &mut pending.jobs {
                if queued.job.resource_version.as_ref() == Some(from) {
                    queued.job.resource_version = Some(to.to_owned());
                }
            }
        }
        self.place(&job.key);
    }

    fn moved_on(&mut self, key: &ObjectKey, from: &str, to: &str, now: Instant) {
        if self.numbers.is_multiple_of(1024) {
            self.advanced.retain(|_, advanced| now.duration_since(advanced.at) < VERSIONS_AGE);
        }
        let advanced = self.advanced.entry(key.clone()).or_insert_with(|| Advanced { from: Vec::new(), to: from.to_owned(), at: now });
        if advanced.to != from {
            advanced.from.clear();
        }
        if from != to {
            advanced.from.push(from.to_owned());
        }
        if advanced.from.len() > VERSIONS_KEPT {
            advanced.from.remove(0);
        }
        to.clone_into(&mut advanced.to);
        advanced.at = now;
    }

    /// A write came back without an answer that settles it. It waits in its old place, unless a newer
    /// one has taken that; true when one has.
    pub(super) fn retry(&mut self, taken: Taken, uncertain: bool, asked: Option<Duration>, now: Instant) -> bool {
        let Taken { job, since } = taken;
        let key = job.key.clone();
        let Some(pending) = self.objects.get_mut(&key) else { return false };
        pending.in_flight = None;
        let pause = pending.backoff.next_pause().max(asked.unwrap_or_default());
        pending.retry_at = Some(now + pause);
        pending.in_doubt |= uncertain;
        let newer = pending.jobs.iter_mut().find(|queued| queued.job.target == job.target);
        let replaced = match newer {
            Some(queued) => {
                queued.since = queued.since.min(since);
                self.jobs -= 1;
                true
            }
            None => {
                pending.jobs.push(Queued { job, since });
                false
            }
        };
        self.place(&key);
        replaced
    }

    pub(super) fn len(&self) -> usize {
        self.jobs
    }

    pub(super) fn oldest_age(&self, now: Instant) -> Duration {
        let waiting = |pending: &Pending| {
            let leaving = pending.jobs.iter().filter(|queued| Pending::may_leave(queued)).map(|queued| queued.since);
            leaving.chain(pending.in_flight).min()
        };
        let oldest = self.objects.values().filter_map(waiting).min();
        oldest.map_or(Duration::ZERO, |since| now.duration_since(since))
    }
}

impl Pending {
    fn new(number: u64) -> Self {
        Self {
            jobs: Vec::new(),
            in_flight: None,
            place: Place::Nowhere,
            number,
            retry_at: None,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            in_doubt: false,
        }
    }

    /// None: nothing waits. Some(None): something may leave now. Some(time): not before then.
    fn due(&self) -> Option<Option<Instant>> {
        let lazy = match self.jobs.iter().find(|queued| queued.job.target == Target::Create) {
            // Nothing of an object can be written before the object is there.
            Some(create) => create.job.not_before,
            None => {
                let first = self.jobs.first()?.job.not_before;
                self.jobs.iter().fold(first, |due, queued| earlier(due, queued.job.not_before))
            }
        };
        Some(lazy.max(self.retry_at))
    }

    /// Forgets times that have come.
    fn ripen(&mut self, now: Instant) {
        self.retry_at = self.retry_at.filter(|due| *due > now);
        for queued in &mut self.jobs {
            queued.job.not_before = queued.job.not_before.filter(|due| *due > now);
        }
    }

    fn may_leave(queued: &Queued) -> bool {
        queued.job.not_before.is_none()
    }

    fn rank(&self, key: &ObjectKey) -> Rank {
        let leaving = || self.jobs.iter().filter(|queued| Self::may_leave(queued));
        let urgency = leaving().map(|queued| queued.job.urgency).min().unwrap_or(Urgency::Normal);
        let since = leaving().map(|queued| queued.since).min().unwrap_or_else(Instant::now);
        Rank { urgency, since, number: self.number, key: key.clone() }
    }

    fn next_job(&mut self) -> Option<Queued> {
        let order = |queued: &Queued| (queued.job.target != Target::Create, queued.job.urgency, queued.since);
        let all = self.jobs.iter().enumerate();
        let next = all.filter(|(_, queued)| Self::may_leave(queued)).min_by_key(|(_, queued)| order(queued)).map(|(index, _)| index)?;
        Some(self.jobs.remove(next))
    }
}

/// The earlier of two times, where none is now.
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        _ => None,
    }
}
