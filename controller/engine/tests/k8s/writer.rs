//! The status writer.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bos_engine::figures::{Write, WriteFigures};
use bos_engine::writer::{Kind, ObjectKey, StatusWriter, Submitted, Target, Urgency, WriteAck, WriteJob, WriteOutcome, WriterConfig};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fake::{FakeApi, Fault};

fn path(node: usize) -> String {
    format!("/apis/bos.hpe.com/v1alpha1/bootcomponents/x{node}c0s0b0n0")
}

fn key(node: usize) -> ObjectKey {
    ObjectKey::cluster(Kind::BootComponent, format!("x{node}c0s0b0n0"))
}

/// A modelled server with nodes, and a writer to it.
struct Rig {
    api: FakeApi,
    writer: StatusWriter,
    figures: WriteFigures,
    acks: mpsc::Receiver<WriteAck>,
    ids: Vec<(String, String)>,
    cancel: CancellationToken,
}

impl Rig {
    fn new(nodes: usize) -> Self {
        let api = FakeApi::default();
        let ids = (0..nodes).map(|node| api.create(&path(node), json!({"spec": {}}))).collect();
        let cancel = CancellationToken::new();
        let figures = WriteFigures::default();
        let (writer, acks) = StatusWriter::spawn(api.client(), WriterConfig::default(), figures.clone(), cancel.clone());
        Self { api, writer, figures, acks, ids, cancel }
    }

    /// A status write with the version the node had at first.
    fn status(&self, node: usize, version: u64) -> WriteJob {
        let (uid, resource_version) = self.ids[node].clone();
        WriteJob {
            key: key(node),
            uid,
            resource_version: Some(resource_version),
            target: Target::Status,
            body: json!({"message": version}).into(),
            version,
            urgency: Urgency::Normal,
            not_before: None,
            untracked: false,
        }
    }

    async fn ack(&mut self) -> WriteAck {
        tokio::time::timeout(Duration::from_secs(600), self.acks.recv()).await.expect("no answer").unwrap()
    }

    async fn outcome(&mut self) -> WriteOutcome {
        self.ack().await.outcome
    }

    fn message(&self, node: usize) -> Value {
        self.api.object(&path(node)).unwrap()["status"]["message"].clone()
    }

    fn patches(&self) -> Vec<(String, u64)> {
        let patches = self.api.calls().into_iter().filter(|call| call.method == Method::PATCH);
        patches.map(|call| (call.path, call.body["status"]["message"].as_u64().unwrap_or(0))).collect()
    }
}

fn is_written(outcome: &WriteOutcome) -> bool {
    matches!(outcome, WriteOutcome::Written { .. })
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_writes_to_a_slow_server_coalesce_and_stay_in_order() {
    const NODES: usize = 100;
    const ROUNDS: u64 = 100;
    let mut rig = Rig::new(NODES);
    rig.api.faults(|call| call.is_write().then_some(Fault::Slow(Duration::from_millis(40))));
    for round in 1..=ROUNDS {
        for node in 0..NODES {
            rig.writer.submit(rig.status(node, round));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut latest = HashMap::new();
    while latest.values().filter(|version| **version == ROUNDS).count() < NODES {
        let ack = rig.ack().await;
        assert!(is_written(&ack.outcome), "{ack:?}");
        let before = latest.insert(ack.key.clone(), ack.version);
        assert!(before < Some(ack.version), "{} after {before:?}: {}", ack.key, ack.version);
    }
    assert!((0..NODES).all(|node| rig.message(node) == json!(ROUNDS)));
    assert!(rig.api.most_in_flight() <= 16, "{}", rig.api.most_in_flight());
    let mut seen: BTreeMap<String, u64> = BTreeMap::new();
    for (path, version) in rig.patches() {
        assert!(seen.insert(path, version).unwrap_or(0) < version, "an object's writes arrive in order");
    }
    // 1.1 s at 16 in flight of 40 ms is some 450 writes; the rest was never sent.
    let sent = rig.patches().len();
    assert!(sent < 700, "{sent}");
    let count = |outcome| rig.figures.of("BootComponent", outcome);
    let settled = count(Write::Written) + count(Write::Coalesced);
    assert_eq!(settled, NODES as u64 * ROUNDS, "every write was sent or replaced");
    assert_eq!((rig.writer.queue_len(), rig.writer.oldest_age()), (0, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn few_writes_leave_while_the_writer_gives_way() {
    let mut rig = Rig::new(20);
    rig.api.faults(|call| call.is_write().then_some(Fault::Slow(Duration::from_millis(40))));
    let (first, second) = (rig.writer.give_way(), rig.writer.give_way());
    for node in 0..20 {
        rig.writer.submit(rig.status(node, 1));
    }
    for way in [first, second] {
        for _ in 0..4 {
            assert!(is_written(&rig.outcome().await));
        }
        assert_eq!(rig.api.most_in_flight(), 1);
        drop(way);
    }
    for _ in 8..20 {
        assert!(is_written(&rig.outcome().await));
    }
    assert!(rig.api.most_in_flight() >= 10, "{}", rig.api.most_in_flight());
}

#[tokio::test(start_paused = true)]
async fn urgent_writes_do_not_give_way() {
    let mut rig = Rig::new(20);
    rig.api.faults(|call| call.is_write().then_some(Fault::Slow(Duration::from_millis(40))));
    let _way = rig.writer.give_way();
    for node in 0..20 {
        let urgency = if node < 10 { Urgency::Urgent } else { Urgency::Normal };
        rig.writer.submit(WriteJob { urgency, ..rig.status(node, 1) });
    }
    for _ in 0..20 {
        assert!(is_written(&rig.outcome().await));
    }
    assert_eq!(rig.api.most_in_flight(), 10);
}

#[tokio::test(start_paused = true)]
async fn an_object_has_one_write_in_flight() {
    let mut rig = Rig::new(1);
    rig.api.faults(|call| call.is_write().then_some(Fault::Slow(Duration::from_millis(100))));
    for version in 1..=5 {
        rig.writer.submit(rig.status(0, version));
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    while rig.ack().await.version < 5 {}
    assert_eq!(rig.api.most_in_flight(), 1);
    assert_eq!(rig.message(0), json!(5));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_away_loses_nothing_and_is_not_hammered() {
    let mut rig = Rig::new(50);
    let away_until = Instant::now() + Duration::from_secs(60);
    let kinds = Arc::new(Mutex::new(0_usize));
    rig.api.faults(move |_| {
        let mut kind = kinds.lock().unwrap();
        *kind += 1;
        (Instant::now() < away_until).then_some([Fault::LostBefore, Fault::Code(503), Fault::Code(429)][*kind % 3])
    });
    for node in 0..50 {
        rig.writer.submit(rig.status(node, 1));
    }
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(rig.writer.queue_len(), 50);
    for node in 0..50 {
        rig.writer.submit(rig.status(node, 2));
    }
    tokio::time::sleep_until(away_until).await;
    let tried = rig.patches().len();
    assert!(tried < 60, "{tried} calls in a minute of absence");
    for _ in 0..50 {
        let ack = rig.ack().await;
        assert!(is_written(&ack.outcome) && ack.version == 2, "{ack:?}");
    }
    assert!((0..50).all(|node| rig.message(node) == json!(2)), "the newest body wins");
}

#[tokio::test(start_paused = true)]
async fn one_object_that_always_fails_does_not_hold_up_the_rest() {
    let mut rig = Rig::new(20);
    rig.api.faults(|call| call.path.contains("/x0c0").then_some(Fault::Code(500)));
    for node in 0..20 {
        rig.writer.submit(rig.status(node, 1));
    }
    for _ in 1..20 {
        assert!(is_written(&rig.outcome().await));
    }
    rig.api.no_faults();
    assert!(is_written(&rig.outcome().await));
}

/// Whatever else was written before it or since, only the caller can tell.
#[tokio::test(start_paused = true)]
async fn after_a_lost_answer_the_caller_is_shown_what_is_there() {
    let mut rig = Rig::new(1);
    let spec = |rig: &Rig, run| WriteJob { target: Target::Spec, body: json!({"run": run}).into(), ..rig.status(0, run) };
    rig.api.faults(|call| (call.method == Method::PATCH).then_some(Fault::LostAfter));
    rig.writer.submit(spec(&rig, 1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.api.no_faults();
    // The caller, who knows nothing of it, decides anew.
    assert_eq!(rig.writer.submit(spec(&rig, 2)), Submitted::InPlace, "the server may hold the first");
    let ack = rig.ack().await;
    let WriteOutcome::Conflict { current } = &ack.outcome else { panic!("no conflict: {ack:?}") };
    assert_eq!((&current["spec"]["run"], ack.version), (&json!(1), 2));

    let before = rig.api.calls().len();
    let mut first = true;
    rig.api.faults(move |call| (call.method == Method::PATCH && std::mem::take(&mut first)).then_some(Fault::LostAfter));
    let known = current["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    rig.writer.submit(WriteJob { resource_version: known, ..spec(&rig, 3) });
    let WriteOutcome::Conflict { current } = rig.outcome().await else { panic!("no conflict") };
    assert_eq!(current["spec"]["run"], json!(3));
    assert_eq!(rig.api.calls().len() - before, 3, "a patch that is lost, one that conflicts, a look, and nothing more");
}

/// Of a status whose answer was lost nobody knows upon which spec it came to lie: what was decided before is not written over that.
#[tokio::test(start_paused = true)]
async fn what_somebody_asked_for_meanwhile_is_not_overwritten_after_a_lost_answer() {
    let mut rig = Rig::new(1);
    rig.api.faults(|call| call.path.ends_with("/status").then_some(Fault::LostAfter));
    rig.writer.submit(rig.status(0, 1));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(rig.message(0), json!(1));
    rig.api.edit(&path(0), |node| node["spec"]["run"] = json!("by hand"));
    rig.writer.submit(WriteJob { target: Target::Spec, body: json!({"run": "ours"}).into(), ..rig.status(0, 2) });
    rig.api.no_faults();
    for _ in 0..2 {
        let ack = rig.ack().await;
        let WriteOutcome::Conflict { current } = &ack.outcome else { panic!("no conflict: {ack:?}") };
        assert_eq!((&current["spec"]["run"], &current["status"]["message"]), (&json!("by hand"), &json!(1)));
    }
    assert_eq!(rig.api.object(&path(0)).unwrap()["spec"]["run"], json!("by hand"));
}

#[tokio::test(start_paused = true)]
async fn the_writers_own_versions_are_no_conflict() {
    let mut rig = Rig::new(1);
    let spec = WriteJob { target: Target::Spec, body: json!({"run": "r-1"}).into(), ..rig.status(0, 1) };
    rig.writer.submit(spec);
    rig.writer.submit(rig.status(0, 2));
    let first = rig.ack().await;
    assert!(matches!(first.outcome, WriteOutcome::Written { generation: 2, .. }), "{first:?}");
    assert!(is_written(&rig.outcome().await));
    // Still with the version the caller knew at first.
    rig.writer.submit(rig.status(0, 3));
    assert!(is_written(&rig.outcome().await));
    assert_eq!(rig.message(0), json!(3));
}

#[tokio::test(start_paused = true)]
async fn a_change_by_somebody_else_is_a_conflict_and_is_not_overwritten() {
    let mut rig = Rig::new(1);
    rig.api.edit(&path(0), |node| node["spec"]["suspend"] = json!(true));
    rig.writer.submit(rig.status(0, 1));
    let WriteOutcome::Conflict { current } = rig.outcome().await else { panic!("no conflict") };
    assert_eq!(current["spec"]["suspend"], json!(true));
    assert_eq!(rig.message(0), Value::Null);
    // Also when our own earlier write moved the version on in between.
    let current_version = current["metadata"]["resourceVersion"].as_str().map(str::to_owned);
    rig.writer.submit(WriteJob { resource_version: current_version.clone(), ..rig.status(0, 2) });
    assert!(is_written(&rig.outcome().await));
    rig.api.edit(&path(0), |node| node["spec"]["suspend"] = json!(false));
    rig.writer.submit(WriteJob { resource_version: current_version, ..rig.status(0, 3) });
    assert!(matches!(rig.outcome().await, WriteOutcome::Conflict { .. }));
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_and_what_has_another_uid_is_gone() {
    let mut rig = Rig::new(3);
    rig.api.delete(&path(0));
    rig.writer.submit(rig.status(0, 1));
    assert_eq!(rig.outcome().await, WriteOutcome::Gone);
    for (node, version) in [(1, None), (2, Some(rig.ids[2].1.clone()))] {
        rig.api.delete(&path(node));
        rig.api.create(&path(node), json!({"spec": {}}));
        rig.writer.submit(WriteJob { resource_version: version, ..rig.status(node, 1) });
        assert_eq!(rig.outcome().await, WriteOutcome::Gone, "node {node}");
        let spec = WriteJob { target: Target::Spec, body: json!({"run": "r"}).into(), resource_version: None, ..rig.status(node, 2) };
        rig.writer.submit(spec);
        assert_eq!(rig.outcome().await, WriteOutcome::Gone, "node {node}");
        assert_eq!(rig.message(node), Value::Null);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_given_back() {
    let mut rig = Rig::new(1);
    rig.api.faults(|call| call.is_write().then_some(Fault::Code(422)));
    rig.writer.submit(rig.status(0, 1));
    assert!(matches!(rig.outcome().await, WriteOutcome::Refused { .. }));
}

#[tokio::test(start_paused = true)]
async fn missing_rights_are_waited_for() {
    let mut rig = Rig::new(1);
    let mut forbidden = 3;
    rig.api.faults(move |call| {
        let fault = call.is_write() && forbidden > 0;
        forbidden -= i32::from(fault);
        fault.then_some(Fault::Code(403))
    });
    rig.writer.submit(rig.status(0, 1));
    assert!(matches!(rig.outcome().await, WriteOutcome::Written { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_create_is_done_once_though_its_answer_is_lost() {
    let mut rig = Rig::new(1);
    let any = rig.status(0, 1);
    let create = |node| WriteJob {
        key: key(node),
        uid: String::new(),
        resource_version: None,
        target: Target::Create,
        body: json!({"retryPolicy": 3}).into(),
        ..any.clone()
    };
    let mut first = true;
    rig.api.faults(move |call| (std::mem::take(&mut first) && call.method == Method::POST).then_some(Fault::LostAfter));
    // Whether it is ours or somebody else's nobody can tell: the caller is shown what is there.
    for node in [7, 0] {
        rig.writer.submit(create(node));
        let WriteOutcome::Conflict { current } = rig.outcome().await else { panic!("no conflict") };
        assert_eq!(rig.api.object(&path(node)).unwrap()["metadata"]["uid"], current["metadata"]["uid"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_state_that_does_not_last_is_not_written() {
    let mut rig = Rig::new(1);
    let begin = Instant::now();
    let any = rig.status(0, 0);
    let lazy = |version| WriteJob {
        not_before: Some(Instant::now() + Duration::from_secs(2)),
        body: json!({"message": version}).into(),
        version,
        ..any.clone()
    };
    assert_eq!(rig.writer.submit(lazy(1)), Submitted::New);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(rig.writer.submit(lazy(2)), Submitted::InPlaceOfUnsent);
    assert_eq!(rig.patches(), []);
    assert_eq!(rig.ack().await.version, 2);
    let waited = begin.elapsed();
    assert!(
        waited >= Duration::from_secs(2) && waited < Duration::from_millis(2100),
        "shown two seconds after the first change: {waited:?}"
    );
    // What must be seen at once takes the place of what could wait.
    rig.writer.submit(lazy(3));
    rig.writer.submit(WriteJob { urgency: Urgency::Urgent, ..rig.status(0, 4) });
    let begin = Instant::now();
    assert_eq!(rig.ack().await.version, 4);
    assert!(begin.elapsed() < Duration::from_millis(100));
    assert_eq!(rig.patches().iter().map(|(_, version)| *version).collect::<Vec<_>>(), [2, 4]);
}

#[tokio::test(start_paused = true)]
async fn failures_go_first_and_then_the_longest_waiting() {
    let mut rig = Rig::new(60);
    rig.api.faults(|call| call.is_write().then_some(Fault::Slow(Duration::from_millis(40))));
    for node in 0..60 {
        let urgency = if node >= 50 { Urgency::Urgent } else { Urgency::Normal };
        rig.writer.submit(WriteJob { urgency, ..rig.status(node, 1) });
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let mut order = Vec::new();
    for _ in 0..60 {
        let ack = rig.ack().await;
        let node: usize = ack.key.name[1..].split('c').next().unwrap().parse().unwrap();
        order.push(node);
    }
    let last_urgent = order.iter().rposition(|node| *node >= 50).unwrap();
    let normal_before = order[..last_urgent].iter().filter(|node| **node < 50).count();
    assert!(normal_before <= 32 + 16, "{order:?}");
    let normal: Vec<_> = order.iter().filter(|node| **node < 50).collect();
    assert!(normal.windows(2).all(|pair| *pair[0] < *pair[1] + 16), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn what_somebody_waits_for_goes_first_even_if_it_was_put_off() {
    let mut rig = Rig::new(60);
    rig.api.faults(|call| call.is_write().then_some(Fault::Slow(Duration::from_millis(40))));
    for node in 0..59 {
        rig.writer.submit(rig.status(node, 1));
    }
    let later = Instant::now() + Duration::from_secs(600);
    rig.writer.submit(WriteJob { not_before: Some(later), ..rig.status(59, 1) });
    rig.writer.hurry(&key(59));
    rig.writer.hurry(&key(60));
    let mut order = Vec::new();
    for _ in 0..60 {
        order.push(rig.ack().await.key);
    }
    let place = order.iter().position(|done| *done == key(59)).unwrap();
    assert!(place < 32, "{place}: only what was on its way went before it");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_after_the_leadership_ended() {
    let rig = Rig::new(40);
    rig.api.faults(|call| call.is_write().then_some(Fault::Slow(Duration::from_millis(40))));
    for node in 0..40 {
        rig.writer.submit(rig.status(node, 1));
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    rig.cancel.cancel();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.patches().len(), 16);
    assert!((0..40).all(|node| rig.message(node) == Value::Null));
}
