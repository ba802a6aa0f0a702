//! Journal writes: at most one on its way per session and at most four a second, each carrying all that has gathered; calls
//! and report answers wait for the write that names them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bos_core::batch::BatchId;
use bos_core::model::SessionUid;
use bos_core::time::Timestamp;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::reports::{self, ReportAnswer};

/// How many writes may begin within how long; as many at once after a pause.
#[derive(Debug, Clone, Copy)]
struct Pace {
    writes: usize,
    within: Duration,
}

/// Of all writes.
const PACE: Pace = Pace { writes: 4, within: Duration::from_secs(1) };

/// A write for which nodes alone wait begins only if fewer than these did, whatever they were for. The first of thousands that report
/// within a second would have all of its four writes within a tenth of it, and the others would wait until it is over: so one is kept
/// for its second half. Calls follow each other, and are not kept waiting for that.
const REPORTS_PACE: Pace = Pace { writes: 3, within: Duration::from_millis(500) };

/// What nobody waits for is gathered this long.
const GATHERED: Duration = Duration::from_secs(1);

/// A journal is written this often while its session drives nodes: what passes between its last write and a crash is given to
/// every deadline anew, so an operator that crashes again and again would never reach one.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// What is waited for waits for company, by this share of the time that the last write took.
const COMPANY_SHARE: u32 = 2;

/// But no longer than this.
const LONGEST_COMPANY: Duration = Duration::from_millis(150);

/// With more journals than this they are written less often, so that thousands of runs by hand leave the API server to others.
const CROWD: usize = 50;

/// One session's journal.
#[derive(Debug, Default)]
struct State {
    /// Changed since the last snapshot, first then.
    dirty: Option<Instant>,
    /// What waits for the next write.
    waiting: Waiting,
    /// The write on its way, with what waits for it.
    underway: Option<Write>,
    /// When the last writes began.
    begun: VecDeque<Instant>,
    /// When the last one was durable, and how long that took.
    ended: Option<(Instant, Duration)>,
    /// As of when the last write that is durable tells how things stand.
    durable: Option<Timestamp>,
}

/// Calls and nodes that wait for a write.
#[derive(Debug, Default)]
struct Waiting {
    batches: Vec<BatchId>,
    reports: Vec<oneshot::Sender<ReportAnswer>>,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.reports.is_empty()
    }
}

/// A write on its way.
#[derive(Debug)]
struct Write {
    /// What it names.
    waiting: Waiting,
    as_of: Timestamp,
    /// When the first change that it carries was made; None of one that carries none.
    since: Option<Instant>,
    begun: Instant,
}

/// All journals.
#[derive(Debug, Default)]
pub struct Journals {
    states: BTreeMap<SessionUid, State>,
}

impl Journals {
    /// Something durable of the session changed.
    pub fn changed(&mut self, uid: &SessionUid) {
        self.states.entry(uid.clone()).or_default().touch();
    }

    /// A call waits for the next write.
    pub fn await_call(&mut self, uid: &SessionUid, batch: BatchId) {
        let state = self.states.entry(uid.clone()).or_default();
        state.touch();
        state.waiting.batches.push(batch);
    }

    /// A report waits for the next write.
    pub fn await_report(&mut self, uid: &SessionUid, answer: oneshot::Sender<ReportAnswer>) {
        let state = self.states.entry(uid.clone()).or_default();
        state.touch();
        reports::wait(&mut state.waiting.reports, answer);
    }

    /// A repeated report waits for what is not durable yet; with nothing on its way it is answered.
    pub fn repeat_report(&mut self, uid: &SessionUid, answer: oneshot::Sender<ReportAnswer>) {
        match self.states.get_mut(uid) {
            Some(state) if state.dirty.is_some() => reports::wait(&mut state.waiting.reports, answer),
            Some(State { underway: Some(write), .. }) => reports::wait(&mut write.waiting.reports, answer),
            _ => {
                let _ = answer.send(ReportAnswer::Stored);
            }
        }
    }

    /// Sessions whose journal is to be written now; `drives` says whether a session drives nodes.
    #[must_use]
    pub fn due(&self, now: Instant, drives: impl Fn(&SessionUid) -> bool) -> Vec<SessionUid> {
        let heartbeat = HEARTBEAT * u32::try_from(1 + self.states.len() / CROWD).unwrap_or(u32::MAX);
        let due = self.states.iter().filter(|(uid, state)| state.is_due(now) || (state.is_old(now, heartbeat) && drives(uid)));
        due.map(|(uid, _)| uid.clone()).collect()
    }

    /// When the first journal that a call or a node waits for is to be written.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.states.values().filter_map(State::due_at).min()
    }

    /// A snapshot was taken of how things stand, and its write begins.
    pub fn begin(&mut self, uid: &SessionUid, as_of: Timestamp, now: Instant) {
        let Some(state) = self.states.get_mut(uid) else { return };
        let since = state.dirty.take();
        state.begun.push_back(now);
        while state.begun.len() > PACE.writes {
            state.begun.pop_front();
        }
        state.underway = Some(Write { waiting: std::mem::take(&mut state.waiting), as_of, since, begun: now });
    }

    /// The write is durable: reports are answered, calls may leave.
    pub fn written(&mut self, uid: &SessionUid) -> Vec<BatchId> {
        let Some(state) = self.states.get_mut(uid) else { return Vec::new() };
        let Some(write) = state.underway.take() else { return Vec::new() };
        state.ended = Some((Instant::now(), write.begun.elapsed()));
        state.durable = Some(write.as_of);
        for answer in write.waiting.reports {
            let _ = answer.send(ReportAnswer::Stored);
        }
        write.waiting.batches
    }

    /// How things stood for a session when its journal was last written; None before the first write of this process.
    #[must_use]
    pub fn durable(&self, uid: &SessionUid) -> Option<Timestamp> {
        self.states.get(uid)?.durable
    }

    /// Nothing waits and nothing is on its way.
    #[must_use]
    pub fn is_settled(&self, uid: &SessionUid) -> bool {
        self.states.get(uid).is_none_or(|state| state.dirty.is_none() && state.underway.is_none())
    }

    /// Whether a call or a node waits for a journal, be it on its way or not.
    #[must_use]
    pub fn are_awaited(&self) -> bool {
        let awaited = |state: &State| !state.waiting.is_empty() || state.underway.as_ref().is_some_and(|write| !write.waiting.is_empty());
        self.states.values().any(awaited)
    }

    /// How long the write on its way has been.
    #[must_use]
    pub fn underway(&self, uid: &SessionUid) -> Option<Duration> {
        Some(self.states.get(uid)?.underway.as_ref()?.begun.elapsed())
    }

    /// How many journals are not durable as they stand, and for how long the first of them has not been.
    #[must_use]
    pub fn waiting(&self, now: Instant) -> (u64, Duration) {
        let underway = |state: &State| state.underway.as_ref().and_then(|write| write.since);
        let since = self.states.values().filter_map(|state| underway(state).or(state.dirty));
        let ages = since.map(|since| now.saturating_duration_since(since));
        ages.fold((0, Duration::ZERO), |(count, oldest), age| (count + 1, oldest.max(age)))
    }

    /// The session's records are gone.
    pub fn forget(&mut self, uid: &SessionUid) {
        self.states.remove(uid);
    }
}

impl State {
    fn touch(&mut self) {
        self.dirty.get_or_insert_with(Instant::now);
    }

    fn is_due(&self, now: Instant) -> bool {
        if self.underway.is_some() {
            return false;
        }
        let last = self.begun.back();
        let gathered = self.dirty.is_some() && last.is_none_or(|last| now.duration_since(*last) >= GATHERED);
        self.due_at().is_some_and(|due| now >= due) || gathered
    }

    /// When what a call or a node waits for is to be written, as its pace allows. A write that takes long is not begun for the first of
    /// those that come together: it would carry little, the next ones would follow at once, and the last would wait until a second is over.
    fn due_at(&self) -> Option<Instant> {
        let dirty = self.dirty.filter(|_| !self.waiting.is_empty() && self.underway.is_none())?;
        let (ended, took) = self.ended.unwrap_or((dirty, Duration::ZERO));
        let company = (took / COMPANY_SHARE).min(LONGEST_COMPANY);
        let of_reports = if self.waiting.batches.is_empty() { self.allowed_at(REPORTS_PACE) } else { None };
        Some(dirty.max(ended) + company).max(self.allowed_at(PACE)).max(of_reports)
    }

    /// When that pace allows the next write; None if fewer began than may.
    fn allowed_at(&self, pace: Pace) -> Option<Instant> {
        self.begun.iter().nth_back(pace.writes - 1).map(|first| *first + pace.within)
    }

    fn is_old(&self, now: Instant, heartbeat: Duration) -> bool {
        self.underway.is_none() && self.begun.back().is_some_and(|last| now.duration_since(*last) >= heartbeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_wait_for_the_write_that_names_them() {
        let (uid, now) = (SessionUid::from("u"), Instant::now());
        let mut journals = Journals::default();
        journals.await_call(&uid, BatchId(1));
        assert!(journals.are_awaited());
        assert_eq!(journals.due(now, |_| true), vec![uid.clone()]);
        journals.begin(&uid, Timestamp::default(), now);
        journals.await_call(&uid, BatchId(2));
        assert!(journals.due(now, |_| true).is_empty(), "one write at a time");
        assert!(journals.are_awaited());
        assert_eq!(journals.written(&uid), vec![BatchId(1)]);
        assert!(journals.are_awaited(), "the second waits still");
        assert_eq!(journals.due(journals.next_due().unwrap(), |_| true), vec![uid.clone()]);
    }

    #[test]
    fn a_change_waits_until_the_write_that_carries_it_is_durable() {
        let uid = SessionUid::from("u");
        let mut journals = Journals::default();
        assert_eq!(journals.waiting(Instant::now()), (0, Duration::ZERO));
        journals.changed(&uid);
        let later = Instant::now() + Duration::from_secs(3);
        assert!(journals.waiting(later).1 >= Duration::from_secs(3));
        journals.begin(&uid, Timestamp::default(), later);
        journals.changed(&uid);
        let (count, oldest) = journals.waiting(later);
        assert!(count == 1 && oldest >= Duration::from_secs(3), "what is on its way is not durable: {oldest:?}");
        journals.written(&uid);
        assert_eq!(journals.waiting(later).0, 1, "the second change waits still");
        journals.begin(&uid, Timestamp::default(), later);
        journals.written(&uid);
        journals.begin(&uid, Timestamp::default(), later);
        assert_eq!(journals.waiting(later), (0, Duration::ZERO), "a write of nothing new keeps nobody waiting");
        assert!(!journals.are_awaited());
    }

    #[test]
    fn four_writes_a_second() {
        let (uid, mut journals) = (SessionUid::from("u"), Journals::default());
        let mut begun = Vec::new();
        for number in 0..=PACE.writes {
            journals.await_call(&uid, BatchId(number as u64));
            let due = journals.next_due().unwrap();
            assert_eq!(journals.due(due, |_| true), vec![uid.clone()]);
            assert!(number == 0 || journals.due(due - Duration::from_micros(1), |_| true).is_empty(), "not before that");
            journals.begin(&uid, Timestamp::default(), due);
            journals.written(&uid);
            begun.push(due);
        }
        let (fourth, fifth) = (begun[PACE.writes - 1], begun[PACE.writes]);
        assert!(fourth < begun[0] + PACE.within && fifth >= begun[0] + PACE.within, "{begun:?}");
    }

    /// The longest that one of the nodes waits that report one after the other for so long, each millisecond, while a write takes 20 ms;
    /// with the number of writes.
    async fn reports_within(millis: u64) -> (Duration, usize) {
        let (uid, mut journals, start) = (SessionUid::from("u"), Journals::default(), Instant::now());
        let (mut nodes, mut longest, mut begun) = (Vec::new(), Duration::ZERO, Vec::new());
        while start.elapsed() < Duration::from_millis(millis) || !nodes.is_empty() {
            if start.elapsed() < Duration::from_millis(millis) {
                let (tx, rx) = oneshot::channel();
                journals.await_report(&uid, tx);
                nodes.push((Instant::now(), rx));
            }
            if journals.underway(&uid).is_some_and(|took| took >= Duration::from_millis(20)) {
                journals.written(&uid);
            }
            nodes.retain_mut(|(reported, answer)| {
                let waits = answer.try_recv().is_err();
                longest = if waits { longest } else { longest.max(reported.elapsed()) };
                waits
            });
            if !journals.due(Instant::now(), |_| false).is_empty() {
                journals.begin(&uid, Timestamp::default(), Instant::now());
                begun.push(Instant::now());
            }
            tokio::time::advance(Duration::from_millis(1)).await;
            assert!(start.elapsed() < Duration::from_millis(millis) + 2 * PACE.within, "{} nodes wait still", nodes.len());
        }
        let crowded = begun.windows(PACE.writes + 1).find(|writes| writes[PACE.writes] - writes[0] < PACE.within);
        assert_eq!(crowded, None, "more than four within a second");
        (longest, begun.len())
    }

    #[tokio::test(start_paused = true)]
    async fn of_nodes_that_report_within_a_second_none_waits_for_its_end() {
        for millis in [2, 50, 100, 300, 800, 5000] {
            let (longest, writes) = reports_within(millis).await;
            assert!(longest <= Duration::from_millis(550), "reports of {millis} ms: {longest:?}, {writes} writes");
        }
        let (longest, writes) = reports_within(50).await;
        assert!(longest <= Duration::from_millis(60) && writes == 3, "a few wait for no more than a write: {longest:?}, {writes} writes");
    }

    #[tokio::test(start_paused = true)]
    async fn reports_after_calls_keep_to_the_pace_of_all() {
        let (uid, mut journals, first) = (SessionUid::from("u"), Journals::default(), Instant::now());
        for number in 0..PACE.writes {
            journals.await_call(&uid, BatchId(number as u64));
            journals.begin(&uid, Timestamp::default(), first);
            journals.written(&uid);
        }
        tokio::time::advance(PACE.within / 2).await;
        journals.await_report(&uid, oneshot::channel().0);
        assert_eq!(journals.next_due(), Some(first + PACE.within));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_does_not_wait_like_reports() {
        let (uid, mut journals, now) = (SessionUid::from("u"), Journals::default(), Instant::now());
        for _ in 0..REPORTS_PACE.writes {
            journals.await_report(&uid, oneshot::channel().0);
            journals.begin(&uid, Timestamp::default(), now);
            journals.written(&uid);
        }
        journals.await_report(&uid, oneshot::channel().0);
        assert_eq!(journals.next_due(), Some(now + REPORTS_PACE.within));
        journals.await_call(&uid, BatchId(1));
        assert_eq!(journals.next_due(), Some(now));
    }

    #[test]
    fn a_write_that_takes_long_waits_for_company() {
        let (uid, now) = (SessionUid::from("u"), Instant::now());
        let mut journals = Journals::default();
        journals.await_call(&uid, BatchId(1));
        journals.begin(&uid, Timestamp::default(), now - Duration::from_millis(200));
        journals.await_call(&uid, BatchId(2));
        assert_eq!(journals.next_due(), None, "one is on its way");
        journals.written(&uid);
        let due = journals.next_due().unwrap();
        assert!(due >= now + Duration::from_millis(100) && journals.due(now, |_| true).is_empty());
        assert_eq!(journals.due(due, |_| true), vec![uid.clone()]);
        journals.begin(&uid, Timestamp::default(), due - Duration::from_secs(60));
        journals.await_call(&uid, BatchId(3));
        journals.written(&uid);
        assert!(journals.next_due().unwrap() <= Instant::now() + LONGEST_COMPANY);
    }

    #[test]
    fn a_session_that_drives_nodes_is_written_now_and_then() {
        let (uid, now) = (SessionUid::from("u"), Instant::now());
        let mut journals = Journals::default();
        journals.changed(&uid);
        journals.begin(&uid, Timestamp::default(), now);
        assert!(journals.due(now + HEARTBEAT, |_| true).is_empty(), "one write at a time");
        journals.written(&uid);
        assert!(journals.due(now + HEARTBEAT / 2, |_| true).is_empty());
        assert!(journals.due(now + HEARTBEAT, |_| false).is_empty());
        assert_eq!(journals.due(now + HEARTBEAT, |_| true), vec![uid]);
    }

    #[test]
    fn thousands_of_them_are_written_less_often() {
        let (now, mut journals) = (Instant::now(), Journals::default());
        for number in 0..20 * CROWD {
            let uid = SessionUid::from(format!("hand-{number}").as_str());
            journals.changed(&uid);
            journals.begin(&uid, Timestamp::default(), now);
            journals.written(&uid);
        }
        assert!(journals.due(now + HEARTBEAT * 20, |_| true).is_empty());
        assert_eq!(journals.due(now + HEARTBEAT * 21, |_| true).len(), 20 * CROWD);
    }

    #[test]
    fn a_report_is_not_answered_before_the_write() {
        let (uid, now) = (SessionUid::from("u"), Instant::now());
        let mut journals = Journals::default();
        let (tx, mut rx) = oneshot::channel();
        journals.await_report(&uid, tx);
        assert!(journals.are_awaited());
        journals.begin(&uid, Timestamp::default(), now);
        assert!(journals.are_awaited());
        let (again, mut repeated) = oneshot::channel();
        journals.repeat_report(&uid, again);
        assert!(rx.try_recv().is_err() && repeated.try_recv().is_err());
        journals.written(&uid);
        assert_eq!(rx.try_recv(), Ok(ReportAnswer::Stored));
        assert_eq!(repeated.try_recv(), Ok(ReportAnswer::Stored));
    }
}
