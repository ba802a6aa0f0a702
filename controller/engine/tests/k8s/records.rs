//! Plans, journals, artifact sets and the ledger.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bos_engine::records::{CHUNK_BYTES, JournalBytes, RecordError, Records, SessionKey, highest_epoch, journal_epoch};
use http::Method;
use proptest::prelude::*;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::fake::{FakeApi, Fault};

const MAPS: &str = "/api/v1/namespaces/bos/configmaps";

fn path(name: &str) -> String {
    format!("{MAPS}/{name}")
}

fn key() -> SessionKey {
    SessionKey::new("bos", "boot-1")
}

fn leader(api: &FakeApi, epoch: i64) -> Records {
    Records::new(api.client(), "bos", epoch, CancellationToken::new())
}

async fn new_leader(api: &FakeApi, epoch: i64) -> Records {
    let records = leader(api, epoch);
    records.load_all().await.unwrap();
    records
}

fn journal(api: &FakeApi) -> String {
    api.object(&path("bos-journal-u-1")).unwrap()["data"]["content"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_reads_what_the_last_one_wrote() {
    let api = FakeApi::default();
    let first = new_leader(&api, 1).await;
    first.create_plan("u-1", &key(), b"plan").await.unwrap();
    first.write_journal("u-1", &key(), b"one").await.unwrap();
    first.write_journal("u-1", &key(), b"two").await.unwrap();
    first.create_plan("u-2", &SessionKey::new("tenant", "other"), &[0xFF, 0x00]).await.unwrap();
    first.put_artifacts("sha256:abc", b"kernel").await.unwrap();
    first.remember(&key(), "u-1", "2026-11-23T14:00:00Z").await.unwrap();
    assert_eq!(highest_epoch(api.client(), "bos", CancellationToken::new()).await, Ok(1));

    let second = leader(&api, 2);
    let loaded = second.load_all().await.unwrap();
    let sessions: Vec<_> = loaded.sessions.iter().map(|s| (s.uid.as_str(), s.plan.as_slice(), &s.journal)).collect();
    let written = JournalBytes::Written(b"two".to_vec());
    assert_eq!(sessions, [("u-1", &b"plan"[..], &written), ("u-2", &[0xFF, 0x00][..], &JournalBytes::Empty)]);
    assert_eq!(loaded.sessions[1].key, SessionKey::new("tenant", "other"));
    assert_eq!(loaded.artifacts, [("sha256:abc".to_owned(), b"kernel".to_vec())]);
    assert_eq!(loaded.remembered, 1);
    assert_eq!(second.ran(&key()).as_deref(), Some("u-1"));
    assert_eq!(highest_epoch(api.client(), "bos", CancellationToken::new()).await, Ok(2));
}

#[tokio::test(start_paused = true)]
async fn a_deposed_leader_can_change_nothing() {
    let api = FakeApi::default();
    let first = new_leader(&api, 1).await;
    first.create_plan("u-1", &key(), b"plan").await.unwrap();
    first.write_journal("u-1", &key(), b"one").await.unwrap();
    first.create_plan("u-2", &SessionKey::new("bos", "boot-2"), b"plan").await.unwrap();
    let second = new_leader(&api, 2).await;

    let deposed = |name: &str| RecordError::Deposed { name: name.to_owned(), epoch: 2 };
    assert_eq!(first.write_journal("u-1", &key(), b"late").await, Err(deposed("bos-journal-u-1")));
    // The journal it never wrote is closed to it as well, and so are removals.
    assert_eq!(first.write_journal("u-2", &SessionKey::new("bos", "boot-2"), b"late").await, Err(deposed("bos-journal-u-2")));
    assert_eq!(first.remove_session("u-1").await, Err(deposed("bos-journal-u-1")));
    assert_eq!(first.fence("hand-1").await, Err(deposed("bos-journal-epoch")), "a plan that nobody else knows is not acted on");
    assert_eq!(journal(&api), "one");
    second.write_journal("u-1", &key(), b"two").await.unwrap();
    assert_eq!(journal(&api), "two");
    assert!(matches!(first.load_all().await, Err(RecordError::Deposed { epoch: 2, .. })));
}

#[tokio::test(start_paused = true)]
async fn the_epoch_of_a_leader_is_remembered_though_it_has_done_nothing() {
    let api = FakeApi::default();
    let first = new_leader(&api, 3).await;
    assert_eq!(highest_epoch(api.client(), "bos", CancellationToken::new()).await, Ok(3));
    let _second = new_leader(&api, 4).await;
    assert_eq!(highest_epoch(api.client(), "bos", CancellationToken::new()).await, Ok(4));
    assert_eq!(first.load_all().await, Err(RecordError::Deposed { name: "bos-journal-epoch".to_owned(), epoch: 4 }));
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_an_earlier_leader_made_after_the_load_is_never_overwritten() {
    let api = FakeApi::default();
    let first = new_leader(&api, 1).await;
    let second = new_leader(&api, 2).await;
    first.create_plan("u-1", &key(), b"plan").await.unwrap();
    first.write_journal("u-1", &key(), b"sent power on").await.unwrap();
    let foreign = RecordError::Foreign { name: "bos-journal-u-1".to_owned(), epoch: 1 };
    assert_eq!(second.create_plan("u-1", &key(), b"plan").await, Err(foreign.clone()));
    assert_eq!(second.write_journal("u-1", &key(), b"nothing sent").await, Err(foreign));
    assert_eq!(journal(&api), "sent power on");
}

#[tokio::test(start_paused = true)]
async fn an_absent_api_server_is_waited_for() {
    let api = FakeApi::default();
    let records = new_leader(&api, 1).await;
    let away_until = tokio::time::Instant::now() + Duration::from_secs(60);
    let kinds = AtomicUsize::new(0);
    api.faults(move |_| {
        let kind = kinds.fetch_add(1, Ordering::SeqCst) % 5;
        let fault = [Fault::LostBefore, Fault::Code(503), Fault::Code(500), Fault::Code(429), Fault::Code(403)][kind];
        (tokio::time::Instant::now() < away_until).then_some(fault)
    });
    records.create_plan("u-1", &key(), b"plan").await.unwrap();
    assert!(tokio::time::Instant::now() >= away_until, "it returned while nothing could be written");
    records.write_journal("u-1", &key(), b"one").await.unwrap();
    assert_eq!(journal(&api), "one");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_leadership_ends_the_wait() {
    let api = FakeApi::default();
    let lost = CancellationToken::new();
    let records = Records::new(api.client(), "bos", 1, lost.clone());
    api.faults(|_| Some(Fault::Code(503)));
    let cancel = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        lost.cancel();
    };
    let key = key();
    let (written, ()) = tokio::join!(records.write_journal("u-1", &key, b"one"), cancel);
    assert_eq!(written, Err(RecordError::Cancelled { name: "bos-journal-u-1".to_owned() }));
    api.no_faults();
    let calls = api.calls().len();
    assert_eq!(records.write_journal("u-2", &key, b"x").await, Err(RecordError::Cancelled { name: "bos-journal-u-2".to_owned() }));
    assert_eq!(api.calls().len(), calls, "nothing leaves after the leadership ended");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_lost_is_found_out() {
    let api = FakeApi::default();
    let records = new_leader(&api, 1).await;
    api.faults(|call| (call.is_write() && call.number % 2 == 1).then_some(Fault::LostAfter));
    records.create_plan("u-1", &key(), b"plan").await.unwrap();
    for text in ["one", "two", "three"] {
        records.write_journal("u-1", &key(), text.as_bytes()).await.unwrap();
        assert_eq!(journal(&api), text);
    }
    records.remove_session("u-1").await.unwrap();
    assert_eq!(api.paths(&path("bos-plan")), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_refused_write_is_not_repeated() {
    let api = FakeApi::default();
    let records = new_leader(&api, 1).await;
    api.faults(|call| call.is_write().then_some(Fault::Code(422)));
    let refused = records.write_journal("u-1", &key(), b"one").await;
    assert!(matches!(refused, Err(RecordError::Refused { .. })), "{refused:?}");
    let large = vec![b'x'; 1100 * 1024];
    assert!(matches!(records.write_journal("u-1", &key(), &large).await, Err(RecordError::TooLarge { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_written_once() {
    let api = FakeApi::default();
    let records = new_leader(&api, 1).await;
    let plan = "0123456789".repeat(250 * 1024).into_bytes();
    records.create_plan("u-1", &key(), &plan).await.unwrap();
    assert_eq!(api.paths(&path("bos-plan-u-1")).len(), plan.len().div_ceil(CHUNK_BYTES));
    records.create_plan("u-1", &key(), &plan).await.unwrap();
    assert_eq!(records.read_plan("u-1").await, Ok(Some(plan.clone())));

    let mut other = plan.clone();
    other[17] = b'x';
    let differs = records.create_plan("u-1", &key(), &other).await;
    assert!(matches!(&differs, Err(RecordError::Differs { at: 17, .. })), "{differs:?}");
    let text = differs.unwrap_err().to_string();
    assert!(text.contains("bos-plan-u-1-0") && text.contains("bos/boot-1"), "{text}");
    // A prefix is another plan, even where each part is the same.
    let shorter = records.create_plan("u-1", &key(), &plan[..CHUNK_BYTES]).await;
    assert!(matches!(shorter, Err(RecordError::Differs { .. })), "{shorter:?}");
    assert_eq!(new_leader(&api, 2).await.read_plan("u-1").await, Ok(Some(plan)));
}

#[tokio::test(start_paused = true)]
async fn a_plan_with_missing_parts_was_never_written() {
    for missing in [0, 1, 2] {
        let api = FakeApi::default();
        let records = new_leader(&api, 1).await;
        let plan = vec![b'p'; 2 * CHUNK_BYTES + 5];
        records.create_plan("u-1", &key(), &plan).await.unwrap();
        api.delete(&path(&format!("bos-plan-u-1-{missing}")));
        let loaded = leader(&api, 2).load_all().await.unwrap();
        assert_eq!((loaded.sessions.len(), loaded.incomplete), (0, vec!["u-1".to_owned()]), "part {missing}");
        assert_eq!(api.paths(&path("bos-plan")), Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_plan_that_was_acted_on_are_kept_and_reported() {
    let api = FakeApi::default();
    let records = new_leader(&api, 1).await;
    records.create_plan("u-1", &key(), &vec![b'p'; 2 * CHUNK_BYTES]).await.unwrap();
    records.write_journal("u-1", &key(), b"sent").await.unwrap();
    api.delete(&path("bos-plan-u-1-1"));
    let loaded = leader(&api, 2).load_all().await.unwrap();
    assert_eq!((loaded.orphans, loaded.incomplete.len()), (vec!["u-1".to_owned()], 0));
    assert_eq!(journal(&api), "sent");
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_somebody_deleted_is_missed_and_one_without_a_plan_is_not() {
    let api = FakeApi::default();
    let records = new_leader(&api, 1).await;
    records.create_plan("u-1", &key(), b"plan").await.unwrap();
    records.write_journal("u-1", &key(), b"sent").await.unwrap();
    api.delete(&path("bos-journal-u-1"));
    records.create_plan("u-2", &SessionKey::new("bos", "boot-2"), b"plan").await.unwrap();
    api.delete(&path("bos-plan-u-2-0"));
    let loaded = leader(&api, 2).load_all().await.unwrap();
    assert_eq!(loaded.sessions.iter().map(|s| (s.uid.as_str(), &s.journal)).collect::<Vec<_>>(), [("u-1", &JournalBytes::Lost)]);
    assert_eq!((loaded.orphans, loaded.incomplete), (Vec::new(), Vec::new()));
    assert_eq!(api.paths(&path("bos-journal-u")), [path("bos-journal-u-1")]);
}

#[tokio::test(start_paused = true)]
async fn the_list_is_read_to_its_end() {
    let api = FakeApi::default();
    let records = new_leader(&api, 1).await;
    for n in 0..60 {
        records.create_plan(&format!("u-{n}"), &SessionKey::new("bos", format!("s-{n}")), b"plan").await.unwrap();
    }
    api.create(&path("somebody-elses"), json!({"data": {"content": "x"}}));
    let loaded = leader(&api, 2).load_all().await.unwrap();
    assert_eq!(loaded.sessions.len(), 60);
    assert!(api.calls().iter().filter(|call| call.path == MAPS && call.method == Method::GET).count() >= 4);
}

#[tokio::test(start_paused = true)]
async fn removing_what_is_gone_is_no_error() {
    let api = FakeApi::default();
    let records = new_leader(&api, 1).await;
    records.create_plan("u-1", &key(), b"plan").await.unwrap();
    records.write_journal("u-1", &key(), b"one").await.unwrap();
    records.put_artifacts("sha256:abc", b"kernel").await.unwrap();
    records.put_artifacts("sha256:abc", b"kernel").await.unwrap();
    assert!(matches!(records.put_artifacts("sha256:abc", b"other").await, Err(RecordError::Differs { .. })));
    for _ in 0..2 {
        records.remove_session("u-1").await.unwrap();
        records.remove_artifacts("sha256:abc").await.unwrap();
    }
    assert_eq!(api.paths(&path("bos-")), [path("bos-journal-epoch")]);
    // The journal goes first: a plan without a journal is a Session that has done nothing.
    let deleted: Vec<_> = api.calls().into_iter().filter(|call| call.method == Method::DELETE).map(|call| call.path).collect();
    assert_eq!(deleted[..2], [path("bos-journal-u-1"), path("bos-plan-u-1-0")]);
}

#[tokio::test(start_paused = true)]
async fn many_names_remembered_at_once_are_all_remembered() {
    let api = FakeApi::default();
    let records = new_leader(&api, 1).await;
    api.faults(|call| (call.number % 3 == 0).then_some(Fault::LostAfter));
    let keys: Vec<_> = (0..50).map(|n| SessionKey::new("bos", format!("s-{n}"))).collect();
    let all = keys.iter().map(|key| records.remember(key, &key.name, "2026-11-23T14:00:00Z"));
    futures::future::try_join_all(all).await.unwrap();
    api.no_faults();
    let writes = api.calls().len();
    records.remember(&keys[0], "s-0", "2026-11-23T14:00:00Z").await.unwrap();
    assert_eq!(api.calls().len(), writes, "what is remembered is not written again");
    let second = leader(&api, 2);
    assert_eq!(second.load_all().await.unwrap().remembered, 50);
    assert!(keys.iter().all(|key| second.ran(key).as_deref() == Some(key.name.as_str())));
}

#[tokio::test(start_paused = true)]
async fn an_old_copy_that_was_put_back_does_not_win() {
    let api = FakeApi::default();
    new_leader(&api, 1).await.create_plan("u-1", &key(), b"plan").await.unwrap();
    let records = new_leader(&api, 2).await;
    records.write_journal("u-1", &key(), b"one").await.unwrap();
    api.edit(&path("bos-journal-u-1"), |object| {
        object["data"]["content"] = json!("from a backup");
        object["metadata"]["annotations"]["bos.hpe.com/epoch"] = json!("1");
    });
    records.write_journal("u-1", &key(), b"two").await.unwrap();
    assert_eq!(journal(&api), "two");
    api.delete(&path("bos-journal-u-1"));
    records.write_journal("u-1", &key(), b"three").await.unwrap();
    assert_eq!(journal(&api), "three");
}

fn fault() -> impl Strategy<Value = Option<Fault>> {
    prop_oneof![
        4 => Just(None),
        1 => Just(Some(Fault::LostBefore)),
        2 => Just(Some(Fault::LostAfter)),
        1 => Just(Some(Fault::Code(503))),
        2 => (1_u64..40).prop_map(|seconds| Some(Fault::Late(Duration::from_secs(seconds)))),
        1 => (1_u64..20).prop_map(|seconds| Some(Fault::Slow(Duration::from_secs(seconds)))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever happens to the calls: an acknowledged write is there, in order, and nothing of an
    /// earlier write or an earlier leader comes back.
    #[test]
    fn an_acknowledged_write_is_never_lost(faults in prop::collection::vec(fault(), 0..60), writes in 1_usize..6) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let api = FakeApi::default();
            let first = new_leader(&api, 1).await;
            first.create_plan("u-1", &key(), b"plan").await.unwrap();
            let mut script = faults.into_iter();
            api.faults(move |_| script.next().flatten());
            for n in 0..writes {
                first.write_journal("u-1", &key(), format!("first {n}").as_bytes()).await.unwrap();
                assert_eq!(journal(&api), format!("first {n}"));
            }
            let second = leader(&api, 2);
            let loaded = second.load_all().await.unwrap();
            let last = format!("first {}", writes - 1);
            assert_eq!(loaded.sessions[0].journal, JournalBytes::Written(last.into_bytes()));
            let deposed = first.write_journal("u-1", &key(), b"too late").await;
            assert!(matches!(deposed, Err(RecordError::Deposed { epoch: 2, .. })), "{deposed:?}");
            second.write_journal("u-1", &key(), b"second").await.unwrap();
            // Everything that is still on its way arrives.
            tokio::time::sleep(Duration::from_secs(100)).await;
            assert_eq!(journal(&api), "second");
        });
    }
}

/// A Session that was given to an agent.
async fn given(api: &FakeApi) -> Records {
    let operator = new_leader(api, 3).await;
    operator.create_plan("u-1", &key(), b"plan").await.unwrap();
    operator.write_journal("u-1", &key(), b"taken").await.unwrap();
    operator.give_to_agent("u-1", "job-1").await.unwrap();
    operator
}

async fn agent(api: &FakeApi) -> Records {
    let epoch = journal_epoch(api.client(), "bos", "u-1", CancellationToken::new()).await.unwrap() + 1;
    let records = Records::of_agent(api.client(), "bos", epoch, CancellationToken::new());
    records.load_one("u-1", "job-1").await.unwrap().unwrap();
    records
}

/// Its Job was deleted while the pod was on its way, and the Session taken back: the pod must not close the journal to the operator.
#[tokio::test(start_paused = true)]
async fn a_pod_of_a_job_that_has_not_the_session_takes_nothing() {
    let api = FakeApi::default();
    let operator = given(&api).await;
    let late = || Records::of_agent(api.client(), "bos", 9, CancellationToken::new());
    assert!(late().load_one("u-1", "another-job").await.unwrap().is_none());
    operator.take_back("u-1").await.unwrap();
    assert!(late().load_one("u-1", "job-1").await.unwrap().is_none());
    operator.write_journal("u-1", &key(), b"still the operator's").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_takes_the_journal_and_the_next_operator_leaves_it_to_it() {
    let api = FakeApi::default();
    let operator = given(&api).await;
    let first = agent(&api).await;
    first.write_journal("u-1", &key(), b"first").await.unwrap();
    assert!(matches!(operator.write_journal("u-1", &key(), b"mine").await, Err(RecordError::Deposed { .. })));
    // Another pod of the same Job.
    let second = agent(&api).await;
    second.write_journal("u-1", &key(), b"second").await.unwrap();
    assert!(matches!(first.write_journal("u-1", &key(), b"late").await, Err(RecordError::Deposed { .. })));
    let floor = highest_epoch(api.client(), "bos", CancellationToken::new()).await.unwrap();
    let loaded = leader(&api, floor + 1).load_all().await.unwrap();
    assert_eq!(loaded.sessions[0].agent.as_deref(), Some("job-1"));
    assert_eq!(loaded.sessions[0].journal, JournalBytes::Written(b"second".to_vec()));
    second.write_journal("u-1", &key(), b"goes on").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_taken_back_is_given_to_nobody_again() {
    let api = FakeApi::default();
    let operator = given(&api).await;
    let agent = agent(&api).await;
    agent.write_journal("u-1", &key(), b"last").await.unwrap();
    assert_eq!(operator.take_back("u-1").await.unwrap(), JournalBytes::Written(b"last".to_vec()));
    assert!(matches!(agent.write_journal("u-1", &key(), b"late").await, Err(RecordError::Deposed { .. })));
    operator.write_journal("u-1", &key(), b"settled").await.unwrap();
    let floor = highest_epoch(api.client(), "bos", CancellationToken::new()).await.unwrap();
    let next = leader(&api, floor + 1);
    let loaded = next.load_all().await.unwrap();
    assert_eq!(loaded.sessions[0].agent.as_deref(), Some(""), "it had an agent, and has none");
    next.write_journal("u-1", &key(), b"next").await.unwrap();
    next.remove_session("u-1").await.unwrap();
    assert!(api.object(&path("bos-agent-u-1")).is_none() && api.object(&path("bos-journal-u-1")).is_none());
}

/// The agent has no right to make it, and what it did is nowhere else: it says so and does no more, whatever is put in its place.
#[tokio::test(start_paused = true)]
async fn an_agent_never_makes_its_journal_again() {
    let (api, name) = (FakeApi::default(), "bos-journal-u-1");
    let operator = given(&api).await;
    let agent = agent(&api).await;
    agent.write_journal("u-1", &key(), b"first").await.unwrap();
    api.delete(&path(name));
    let calls = api.calls().len();
    assert_eq!(agent.write_journal("u-1", &key(), b"late").await, Err(RecordError::Gone { name: name.to_owned() }));
    let made: Vec<_> = api.calls().into_iter().skip(calls).filter(|call| call.method == Method::POST).collect();
    assert!(made.is_empty() && api.object(&path(name)).is_none(), "{made:?}");
    // The operator takes the Session back and writes the journal from then on, as it does with its own.
    assert_eq!(operator.take_back("u-1").await, Ok(JournalBytes::Lost));
    operator.write_journal("u-1", &key(), b"the operator's").await.unwrap();
    assert!(matches!(agent.write_journal("u-1", &key(), b"late").await, Err(RecordError::Deposed { .. })));
    assert_eq!(journal(&api), "the operator's");
}

/// What somebody puts back of an agent's own journal is older than what the agent knows.
#[tokio::test(start_paused = true)]
async fn an_old_copy_of_an_agents_journal_does_not_win() {
    let api = FakeApi::default();
    let _operator = given(&api).await;
    let first = agent(&api).await;
    first.write_journal("u-1", &key(), b"old").await.unwrap();
    let old = api.object(&path("bos-journal-u-1")).unwrap();
    let second = agent(&api).await;
    second.write_journal("u-1", &key(), b"new").await.unwrap();
    api.edit(&path("bos-journal-u-1"), |object| {
        object["data"] = old["data"].clone();
        object["metadata"]["annotations"] = old["metadata"]["annotations"].clone();
    });
    second.write_journal("u-1", &key(), b"newer").await.unwrap();
    assert_eq!(journal(&api), "newer");
}
