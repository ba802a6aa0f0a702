//! Leader election on a modelled lease, in virtual time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bos_engine::lease::{Elector, Leader, Leadership, LeaseConfig, LeaseError, LeaseRecord, LeaseStore};
use proptest::prelude::*;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fake::FakeApi;

/// What happens to one call of one candidate.
#[derive(Debug, Clone, Copy)]
struct Journey {
    there: Duration,
    back: Duration,
    lost_before: bool,
    lost_after: bool,
}

const AT_ONCE: Journey = Journey { there: Duration::ZERO, back: Duration::ZERO, lost_before: false, lost_after: false };

#[derive(Default)]
struct Shared {
    record: Mutex<Option<LeaseRecord>>,
    versions: Mutex<u64>,
}

impl Shared {
    fn write(&self, wanted: &LeaseRecord, create: bool) -> Result<LeaseRecord, LeaseError> {
        let mut record = self.record.lock().unwrap();
        let fits = match record.as_ref() {
            None => create,
            Some(found) => !create && found.resource_version == wanted.resource_version,
        };
        if !fits {
            return Err(LeaseError::Conflict);
        }
        let mut versions = self.versions.lock().unwrap();
        *versions += 1;
        let written = LeaseRecord { resource_version: versions.to_string(), ..wanted.clone() };
        *record = Some(written.clone());
        Ok(written)
    }
}

/// One candidate's way to the lease.
struct Wire {
    shared: Arc<Shared>,
    script: Mutex<VecDeque<Journey>>,
    cut: Mutex<bool>,
}

impl Wire {
    fn new(shared: &Arc<Shared>, script: Vec<Journey>) -> Arc<Self> {
        Arc::new(Self { shared: Arc::clone(shared), script: Mutex::new(script.into()), cut: Mutex::new(false) })
    }

    async fn travel<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Shared) -> Result<T, LeaseError> + Send + 'static,
    ) -> Result<T, LeaseError> {
        let journey = self.script.lock().unwrap().pop_front().unwrap_or(AT_ONCE);
        let broken = || LeaseError::Other("connection reset".to_owned());
        if journey.lost_before || *self.cut.lock().unwrap() {
            tokio::time::sleep(journey.there).await;
            return Err(broken());
        }
        let shared = Arc::clone(&self.shared);
        // In a task of its own: it arrives even when the caller has given up waiting.
        let arrived = tokio::spawn(async move {
            tokio::time::sleep(journey.there).await;
            act(&shared)
        });
        let answer = arrived.await.unwrap();
        tokio::time::sleep(journey.back).await;
        if journey.lost_after { Err(broken()) } else { answer }
    }
}

#[async_trait]
impl LeaseStore for Wire {
    async fn get(&self) -> Result<Option<LeaseRecord>, LeaseError> {
        self.travel(|shared| Ok(shared.record.lock().unwrap().clone())).await
    }

    async fn create(&self, record: &LeaseRecord) -> Result<LeaseRecord, LeaseError> {
        let record = record.clone();
        self.travel(move |shared| shared.write(&record, true)).await
    }

    async fn replace(&self, record: &LeaseRecord) -> Result<LeaseRecord, LeaseError> {
        let record = record.clone();
        self.travel(move |shared| shared.write(&record, false)).await
    }
}

fn elector(wire: &Arc<Wire>, identity: &str, config: LeaseConfig) -> Elector {
    Elector::with_store(Arc::clone(wire) as Arc<dyn LeaseStore>, identity, config)
}

async fn lead(elector: &Elector) -> Leadership {
    elector.acquire(&CancellationToken::new()).await.unwrap()
}

fn two() -> (Arc<Wire>, Elector, Elector) {
    let shared = Arc::default();
    let wire = Wire::new(&shared, Vec::new());
    let other = Wire::new(&shared, Vec::new());
    let config = LeaseConfig::default();
    (Arc::clone(&wire), elector(&wire, "pod-a", config), elector(&other, "pod-b", config))
}

#[tokio::test(start_paused = true)]
async fn a_released_lease_is_taken_within_a_period_and_with_a_later_epoch() {
    let (_, a, b) = two();
    let first = lead(&a).await;
    assert_eq!(first.epoch, 1);
    let waiting = tokio::spawn(async move { lead(&b).await });
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(first.is_held() && !waiting.is_finished(), "a lease that is renewed is never taken");
    let lost = first.lost.clone();
    let released = Instant::now();
    first.release().await;
    assert!(lost.is_cancelled());
    assert_eq!(waiting.await.unwrap().epoch, 2);
    assert!(released.elapsed() <= LeaseConfig::default().period);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_stops_before_another_takes_over() {
    let (wire, a, b) = two();
    let first = lead(&a).await;
    let waiting = tokio::spawn(async move { lead(&b).await });
    tokio::time::sleep(Duration::from_secs(60)).await;
    *wire.cut.lock().unwrap() = true;
    first.lost.cancelled().await;
    assert!(!first.is_held() && !waiting.is_finished());
    assert_eq!(waiting.await.unwrap().epoch, 2);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_leaders_lease_is_waited_out_by_others_and_taken_at_once_by_its_own_pod() {
    let (_, a, b) = two();
    drop(lead(&a).await);
    let crashed = Instant::now();
    assert_eq!(lead(&a).await.epoch, 2, "the same pod, a new holding");
    assert_eq!(crashed.elapsed(), Duration::ZERO);
    assert_eq!(lead(&b).await.epoch, 3);
    assert!(crashed.elapsed() >= LeaseConfig::default().duration);
}

/// Whenever in its period the leader dies: the candidate sees its last renewal soon, and wakes exactly when the lease is over.
#[tokio::test(start_paused = true)]
async fn a_candidate_leads_within_the_lease_and_a_second_of_a_crash() {
    let times = LeaseConfig::default();
    for tenths in 0..20 {
        let (_, a, b) = two();
        let first = lead(&a).await;
        let waiting = tokio::spawn(async move { lead(&b).await });
        tokio::time::sleep(Duration::from_secs(60) + Duration::from_millis(100 * tenths)).await;
        let crashed = Instant::now();
        drop(first);
        waiting.await.unwrap();
        assert!(crashed.elapsed() <= times.duration + times.period / 2, "{:?} after a crash at {tenths}", crashed.elapsed());
    }
}

/// Those who stand by know who leads and where that one takes reports; nobody while they lead themselves.
#[tokio::test(start_paused = true)]
async fn a_candidate_is_told_who_leads_and_where() {
    let (_, a, b) = two();
    let seen = tokio::sync::watch::Sender::new(None);
    let a = a.announcing(Some("http://10.0.0.1:8080".to_owned()), tokio::sync::watch::Sender::new(None));
    let b = b.announcing(None, seen.clone());
    let first = lead(&a).await;
    let waiting = tokio::spawn(async move { lead(&b).await });
    let expected = Leader { identity: "pod-a".to_owned(), reports: Some("http://10.0.0.1:8080".to_owned()) };
    seen.subscribe().wait_for(|leader| leader.as_ref() == Some(&expected)).await.unwrap();
    first.release().await;
    let _second = waiting.await.unwrap();
    assert_eq!(*seen.borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn a_second_process_of_the_same_identity_deposes_the_first() {
    let (_, a, _) = two();
    let first = lead(&a).await;
    let second = lead(&a).await;
    first.lost.cancelled().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(second.is_held() && second.epoch == 2);
}

#[tokio::test(start_paused = true)]
async fn an_epoch_never_comes_again_even_when_the_lease_is_deleted() {
    let (wire, a, _) = two();
    let first = lead(&a).await;
    *wire.shared.record.lock().unwrap() = None;
    first.lost.cancelled().await;
    assert_eq!(lead(&a).await.epoch, 2, "it remembers what it has seen");
    *wire.shared.record.lock().unwrap() = None;
    let restarted = elector(&Wire::new(&wire.shared, Vec::new()), "pod-c", LeaseConfig::default());
    restarted.raise_floor(7);
    assert_eq!(lead(&restarted).await.epoch, 8, "and what the journals tell it");
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_it_is_cancelled() {
    let (_, a, b) = two();
    let _first = lead(&a).await;
    let cancel = CancellationToken::new();
    let waiting = b.acquire(&cancel);
    let stop = async {
        tokio::time::sleep(Duration::from_secs(40)).await;
        cancel.cancel();
    };
    assert!(tokio::join!(waiting, stop).0.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_lease_object_is_one_that_others_understand() {
    let api = FakeApi::default();
    let elector = Elector::new(api.client(), "bos", "bos-operator", "pod-a", LeaseConfig::default());
    let leadership = lead(&elector).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert!(leadership.is_held());
    let path = "/apis/coordination.k8s.io/v1/namespaces/bos/leases/bos-operator";
    let spec = api.object(path).unwrap()["spec"].clone();
    assert_eq!((spec["holderIdentity"].as_str(), spec["leaseDurationSeconds"].as_i64()), (Some("pod-a"), Some(15)));
    assert_eq!(spec["leaseTransitions"].as_i64(), Some(1));
    assert!(spec["renewTime"].is_string());
    leadership.release().await;
    assert!(api.object(path).unwrap()["spec"]["holderIdentity"].is_null());
}

#[test]
fn times_that_let_a_leader_outlive_its_lease_are_not_sound() {
    assert!(LeaseConfig::default().is_sound());
    let seconds = |duration, renew, period| LeaseConfig {
        duration: Duration::from_secs(duration),
        renew_deadline: Duration::from_secs(renew),
        period: Duration::from_secs(period),
    };
    assert!(!seconds(10, 10, 2).is_sound());
    assert!(!seconds(15, 10, 6).is_sound());
    assert!(!seconds(15, 10, 0).is_sound());
}

fn journey() -> impl Strategy<Value = Journey> {
    let delay = || prop_oneof![3 => Just(0_u64), 3 => 0_u64..2_500, 1 => 2_500_u64..12_000].prop_map(Duration::from_millis);
    (delay(), delay(), prop::bool::weighted(0.1), prop::bool::weighted(0.1)).prop_map(|(there, back, lost_before, lost_after)| Journey {
        there,
        back,
        lost_before,
        lost_after,
    })
}

/// Acquires, leads until the leadership is lost or the process dies, and starts again.
async fn live(elector: Elector, leads: Arc<Mutex<Option<Leadership>>>, epochs: Arc<Mutex<Vec<i64>>>, mut crashes: VecDeque<Duration>) {
    loop {
        let leadership = lead(&elector).await;
        epochs.lock().unwrap().push(leadership.epoch);
        let lost = leadership.lost.clone();
        *leads.lock().unwrap() = Some(leadership);
        let crash = crashes.pop_front().unwrap_or(Duration::from_secs(3600));
        tokio::select! {
            () = lost.cancelled() => {}
            () = tokio::time::sleep(crash) => {}
        }
        leads.lock().unwrap().take();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever is slow or lost, two candidates never both believe that they lead, and epochs only grow.
    #[test]
    fn two_never_lead_at_once(
        scripts in prop::array::uniform2(prop::collection::vec(journey(), 0..150)),
        crashes in prop::array::uniform2(prop::collection::vec((0_u64..60_000).prop_map(Duration::from_millis), 0..4)),
    ) {
        // Hardly any slack between deadline and duration, so that counting from the wrong moment shows.
        let config = LeaseConfig {
            duration: Duration::from_secs(11),
            renew_deadline: Duration::from_millis(10_900),
            period: Duration::from_secs(2),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let shared = Arc::default();
            let epochs = Arc::new(Mutex::new(Vec::new()));
            let mut all = Vec::new();
            for ((script, crashes), identity) in scripts.into_iter().zip(crashes).zip(["pod-a", "pod-b"]) {
                let leads = Arc::new(Mutex::new(None::<Leadership>));
                let elector = elector(&Wire::new(&shared, script), identity, config);
                tokio::spawn(live(elector, Arc::clone(&leads), Arc::clone(&epochs), crashes.into()));
                all.push(leads);
            }
            for _ in 0..6_000 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                let believe = |leads: &Arc<Mutex<Option<Leadership>>>| {
                    leads.lock().unwrap().as_ref().is_some_and(|leadership| !leadership.lost.is_cancelled())
                };
                assert!(!(believe(&all[0]) && believe(&all[1])), "both lead");
            }
            let epochs = epochs.lock().unwrap();
            assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
            assert!(!epochs.is_empty(), "nobody ever led");
        });
    }
}
