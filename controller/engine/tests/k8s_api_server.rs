//! The Kubernetes-facing modules against a real API server: what the model in `k8s_modelled` takes for granted.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

use std::path::PathBuf;
use std::time::Duration;

use bos_crds::{BootComponent, Session};
use bos_e2e::control_plane::ControlPlane;
use bos_engine::clients::Clients;
use bos_engine::events::{SessionEvents, SessionSubject, Severity};
use bos_engine::figures::WriteFigures;
use bos_engine::lease::{Elector, LeaseConfig};
use bos_engine::records::{RecordError, Records, SessionKey, highest_epoch};
use bos_engine::watches::{News, Scope, Seen, spawn_watches};
use bos_engine::writer::{Kind, ObjectKey, StatusWriter, Target, Urgency, WriteJob, WriteOutcome, WriterConfig};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::sync::{OnceCell, mpsc};
use tokio_util::sync::CancellationToken;

/// The control plane that all tests here share, with our CRDs.
async fn control_plane() -> &'static ControlPlane {
    static READY: OnceCell<&'static ControlPlane> = OnceCell::const_new();
    let start = || async {
        let control_plane = ControlPlane::shared().await.unwrap();
        let crds = PathBuf::from("../../manifests/crds");
        control_plane.install_crds(&crds).await.unwrap();
        control_plane
    };
    READY.get_or_init(start).await
}

/// Our own clients, and a namespace of the test's own.
async fn rig(namespace: &str) -> (Clients, Client) {
    let control_plane = control_plane().await;
    let client = control_plane.client().await.unwrap();
    let kubeconfig = kube::config::Kubeconfig::read_from(control_plane.admin_kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &kube::config::KubeConfigOptions::default()).await.unwrap();
    let object = Namespace { metadata: ObjectMeta { name: Some(namespace.to_owned()), ..ObjectMeta::default() }, ..Namespace::default() };
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
    (Clients::new(&config).unwrap(), client)
}

fn key() -> SessionKey {
    SessionKey::new("bos", "boot-1")
}

#[tokio::test]
async fn records_are_taken_over_and_fenced() {
    let (clients, client) = rig("records").await;
    let leader = |epoch| Records::new(clients.journal.clone(), "records", epoch, CancellationToken::new());
    let first = leader(1);
    first.load_all().await.unwrap();
    // Names of nodes and quotes: JSON escapes make it larger on the way than in the store.
    let plan = "\"x1000c0s0b0n0\",".repeat(150_000).into_bytes();
    first.create_plan("u-1", &key(), &plan).await.unwrap();
    first.create_plan("u-1", &key(), &plan).await.unwrap();
    assert!(matches!(first.create_plan("u-1", &key(), b"other").await, Err(RecordError::Differs { .. })));
    let large = vec![b'"'; 900 * 1024];
    first.write_journal("u-1", &key(), &large).await.unwrap();
    let binary: Vec<u8> = (0..=255).cycle().take(20_000).collect();
    first.write_journal("u-1", &key(), &binary).await.unwrap();
    for n in 0..30 {
        first.create_plan(&format!("v-{n:02}"), &SessionKey::new("bos", format!("s-{n}")), b"plan").await.unwrap();
    }
    first.put_artifacts("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef", b"{\"kernel\":1}").await.unwrap();
    first.remember(&key(), "u-1", "2026-11-23T14:00:00Z").await.unwrap();

    assert_eq!(highest_epoch(clients.journal.clone(), "records", CancellationToken::new()).await, Ok(1));
    let second = leader(2);
    let loaded = second.load_all().await.unwrap();
    assert_eq!(loaded.sessions.len(), 31);
    let stored = loaded.sessions.iter().find(|session| session.uid == "u-1").unwrap();
    assert!(stored.plan == plan && stored.journal == bos_engine::records::JournalBytes::Written(binary.clone()) && stored.key == key());
    assert_eq!((loaded.artifacts.len(), second.ran(&key()).as_deref()), (1, Some("u-1")));

    for refused in [first.write_journal("u-1", &key(), b"late").await, first.remove_session("u-1").await] {
        assert!(matches!(refused, Err(RecordError::Deposed { epoch: 2, .. })), "{refused:?}");
    }
    second.remove_session("u-1").await.unwrap();
    second.remove_session("u-1").await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(client, "records");
    let left = maps.list(&ListParams::default().labels("bos.hpe.com/session-uid=u-1")).await.unwrap();
    assert_eq!(left.items.len(), 0);
}

#[tokio::test]
async fn a_lease_is_held_lost_and_taken_over() {
    let (clients, _) = rig("lease").await;
    let config =
        LeaseConfig { duration: Duration::from_secs(3), renew_deadline: Duration::from_secs(2), period: Duration::from_millis(500) };
    let elector = |identity| Elector::new(clients.lease.clone(), "lease", "bos-operator", identity, config);
    let cancel = CancellationToken::new();
    let first = elector("pod-a").acquire(&cancel).await.unwrap();
    let again = elector("pod-a").acquire(&cancel).await.unwrap();
    first.lost.cancelled().await;
    let lost = again.lost.clone();
    let other = elector("pod-b");
    let (taken, ()) = tokio::join!(other.acquire(&cancel), again.release());
    assert!(lost.is_cancelled());
    assert_eq!(taken.unwrap().epoch, 3);
}

struct Writing {
    writer: StatusWriter,
    acks: mpsc::Receiver<bos_engine::writer::WriteAck>,
}

impl Writing {
    fn begin(clients: &Clients) -> Self {
        let (writer, acks) =
            StatusWriter::spawn(clients.writer.clone(), WriterConfig::default(), WriteFigures::default(), CancellationToken::new());
        Self { writer, acks }
    }

    async fn write(&mut self, job: WriteJob) -> WriteOutcome {
        self.writer.submit(job);
        self.acks.recv().await.unwrap().outcome
    }
}

fn status(object: &impl ResourceExt, key: ObjectKey, body: Value) -> WriteJob {
    WriteJob { uid: object.uid().unwrap(), resource_version: object.resource_version(), ..job(key, Target::Status, body) }
}

/// A write of an object that is not there yet.
fn job(key: ObjectKey, target: Target, body: Value) -> WriteJob {
    WriteJob {
        key,
        uid: String::new(),
        resource_version: None,
        target,
        body: body.into(),
        version: 1,
        urgency: Urgency::Normal,
        not_before: None,
        untracked: false,
    }
}

/// ADR 0014: what the API server keeps of who wrote which field costs a fifth of each write.
#[tokio::test]
async fn managed_fields_stay_away_once_dropped_until_somebody_applies() {
    let (clients, client) = rig("untracked").await;
    let mut writing = Writing::begin(&clients);
    let nodes: Api<BootComponent> = Api::all(client.clone());
    let name = "x9001c0s0b0n0";
    let key = ObjectKey::cluster(Kind::BootComponent, name);
    let new = json!({"apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "metadata": {"name": name}, "spec": {}});
    let node = nodes.create(&PostParams::default(), &serde_json::from_value(new).unwrap()).await.unwrap();
    assert!(!node.managed_fields().is_empty());
    let with_status = status(&node, key.clone(), json!({"message": "hello"}));
    assert!(matches!(writing.write(WriteJob { untracked: true, ..with_status }).await, WriteOutcome::Written { .. }));
    let node = nodes.get(name).await.unwrap();
    assert!(!node.managed_fields().is_empty(), "a status cannot change them");

    let spec = |node: &BootComponent, run: &str, untracked| WriteJob {
        target: Target::Spec,
        untracked,
        ..status(node, key.clone(), json!({ "run": run }))
    };
    assert!(matches!(writing.write(spec(&node, "r-1", true)).await, WriteOutcome::Written { .. }));
    let node = nodes.get(name).await.unwrap();
    assert_eq!((node.managed_fields().len(), node.spec.run.as_deref()), (0, Some("r-1")));
    assert!(matches!(writing.write(status(&node, key.clone(), json!({"message": "again"}))).await, WriteOutcome::Written { .. }));
    let node = nodes.get(name).await.unwrap();
    assert!(matches!(writing.write(spec(&node, "r-2", false)).await, WriteOutcome::Written { .. }));
    assert!(nodes.get(name).await.unwrap().managed_fields().is_empty());

    // Git suspends the node, and the fields of Git stay those of Git.
    let applied =
        json!({"apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "metadata": {"name": name}, "spec": {"suspend": true}});
    let node = nodes.patch(name, &PatchParams::apply("git"), &Patch::Apply(applied)).await.unwrap();
    let is_gits = |node: &BootComponent| node.managed_fields().iter().any(|entry| entry.operation.as_deref() == Some("Apply"));
    assert!(is_gits(&node) && node.spec.suspend && node.spec.run.as_deref() == Some("r-2"));
    let older = WriteJob { resource_version: Some("1".to_owned()), ..spec(&node, "r-3", true) };
    let WriteOutcome::Conflict { current } = writing.write(older).await else { panic!("no conflict") };
    assert!(is_gits(&serde_json::from_value(*current).unwrap()), "so that the next write leaves them");
    assert!(matches!(writing.write(spec(&node, "r-3", false)).await, WriteOutcome::Written { .. }));
    assert!(is_gits(&nodes.get(name).await.unwrap()));
    nodes.delete(name, &DeleteParams::default()).await.unwrap();
}

#[tokio::test]
async fn writes_are_guarded_by_uid_and_version() {
    let (clients, client) = rig("writes").await;
    let mut writing = Writing::begin(&clients);
    let nodes: Api<BootComponent> = Api::all(client.clone());
    let name = "x9000c0s0b0n0";
    let key = ObjectKey::cluster(Kind::BootComponent, name);
    let create = |name: &str| job(ObjectKey::cluster(Kind::BootComponent, name), Target::Create, json!({}));
    let WriteOutcome::Written { uid, .. } = writing.write(create(name)).await else { panic!("not created") };
    let node = nodes.get(name).await.unwrap();
    assert_eq!(node.uid(), Some(uid));
    assert!(matches!(writing.write(create(name)).await, WriteOutcome::Conflict { .. }));
    assert!(matches!(writing.write(create("not-an-xname")).await, WriteOutcome::Refused { .. }));

    let body = json!({"message": "hello"});
    let job = status(&node, key.clone(), body.clone());
    let spec = WriteJob { target: Target::Spec, body: json!({"run": "r-1"}).into(), ..job.clone() };
    assert!(matches!(writing.write(spec).await, WriteOutcome::Written { generation: 2, .. }));
    assert!(matches!(writing.write(job.clone()).await, WriteOutcome::Written { generation: 2, .. }), "our own version moved on");
    let now = nodes.get(name).await.unwrap();
    assert_eq!(now.status.as_ref().map(|status| status.message.as_str()), Some("hello"));
    // The same again changes nothing, not even the version.
    let same = writing.write(status(&now, key.clone(), body.clone())).await;
    assert!(matches!(&same, WriteOutcome::Written { resource_version, .. } if Some(resource_version) == now.resource_version().as_ref()));
    let wrong = json!({"phase": "Dancing"});
    assert!(matches!(writing.write(status(&now, key.clone(), wrong)).await, WriteOutcome::Refused { .. }));

    let mut suspended = now.clone();
    suspended.spec.suspend = true;
    nodes.replace(name, &PostParams::default(), &suspended).await.unwrap();
    let WriteOutcome::Conflict { current } = writing.write(status(&now, key.clone(), json!({"message": "x"}))).await else {
        panic!("no conflict")
    };
    assert_eq!((current["spec"]["suspend"].as_bool(), current["metadata"].get("managedFields")), (Some(true), None));

    nodes.delete(name, &DeleteParams::default()).await.unwrap();
    let later = json!({"message": "y"});
    assert_eq!(writing.write(status(&now, key.clone(), later.clone())).await, WriteOutcome::Gone);
    assert!(matches!(writing.write(create(name)).await, WriteOutcome::Written { .. }));
    let successor = nodes.get(name).await.unwrap();
    for (target, body) in [(Target::Status, later), (Target::Spec, json!({"run": "r-2"}))] {
        for version in [None, now.resource_version()] {
            let job = WriteJob { resource_version: version.clone(), target, ..status(&now, key.clone(), body.clone()) };
            assert_eq!(writing.write(job).await, WriteOutcome::Gone, "{target:?} with the uid of the one before, version {version:?}");
        }
    }
    let job = WriteJob {
        resource_version: successor.resource_version(),
        target: Target::Spec,
        ..status(&now, key.clone(), json!({"run": "r-2"}))
    };
    assert_eq!(writing.write(job).await, WriteOutcome::Gone, "the uid of one and the version of the other");
    let any = WriteJob { resource_version: None, ..status(&successor, key.clone(), json!({"message": "z"})) };
    assert!(matches!(writing.write(any).await, WriteOutcome::Written { .. }), "whatever its version");
    let last = nodes.get(name).await.unwrap();
    assert_eq!((last.status.as_ref().map(|status| status.message.as_str()), last.spec.run), (Some("z"), None));
}

#[tokio::test]
async fn what_happens_is_seen() {
    let (clients, client) = rig("watched").await;
    let (tx, mut news) = mpsc::channel(64);
    let cancel = CancellationToken::new();
    let health = spawn_watches(&clients.watch, "watched", &Scope::Operator { agents: false }, &tx, &cancel);
    for _ in 0..5 {
        news.recv().await.unwrap();
    }
    // A watch says so only after what it tells has been taken.
    while !health.is_synced() {
        tokio::task::yield_now().await;
    }
    assert!(health.stale(Duration::from_secs(60)).is_empty());

    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "watched");
    let named =
        |name: &str| ConfigMap { metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }, ..ConfigMap::default() };
    maps.create(&PostParams::default(), &named("another")).await.unwrap();
    let mut switch = named("bos-emergency-stop");
    maps.create(&PostParams::default(), &switch).await.unwrap();
    assert_eq!(stop(&mut news).await.as_deref(), Some(""));
    switch.data = Some([("reason".to_owned(), "alice:\n  cooling".to_owned())].into());
    maps.replace("bos-emergency-stop", &PostParams::default(), &switch).await.unwrap();
    assert_eq!(stop(&mut news).await.as_deref(), Some("alice: cooling"));
    maps.delete("bos-emergency-stop", &DeleteParams::default()).await.unwrap();
    assert_eq!(stop(&mut news).await, None);

    let sessions: Api<Session> = Api::namespaced(client, "watched");
    let session = json!({"apiVersion": "bos.hpe.com/v1alpha1", "kind": "Session", "metadata": {"name": "boot-1"},
        "spec": {"operation": "Boot", "templateName": "cos"}});
    let session: Session = serde_json::from_value(session).unwrap();
    sessions.create(&PostParams::default(), &session).await.unwrap();
    let applied = loop {
        if let News::Session(Seen::Applied(seen)) = news.recv().await.unwrap() {
            break seen;
        }
    };
    assert_eq!((applied.name_any().as_str(), applied.managed_fields().len()), ("boot-1", 0));
    sessions.delete("boot-1", &DeleteParams::default()).await.unwrap();
    while !matches!(news.recv().await.unwrap(), News::Session(Seen::Deleted(_))) {}
}

/// The next word on the emergency stop.
async fn stop(news: &mut mpsc::Receiver<News>) -> Option<String> {
    loop {
        if let News::EmergencyStop(why) = news.recv().await.unwrap() {
            return why.map(|why| why.to_string());
        }
    }
}

#[tokio::test]
async fn events_are_few_and_keep_their_notes() {
    let (clients, client) = rig("events").await;
    let events = SessionEvents::spawn(clients.writer.clone(), "bos-operator", "pod-a", CancellationToken::new());
    let subject = SessionSubject { namespace: "events".to_owned(), name: "boot-1".to_owned(), uid: "u-1".to_owned() };
    for _ in 0..3 {
        events.publish(&subject, Severity::Normal, "Started", "253 nodes");
    }
    events.publish(&subject, Severity::Warning, "PCSUnavailable", "3m");
    events.publish(&subject, Severity::Warning, "PCSUnavailable", "5m");
    events.publish(&subject, Severity::Ended, "Complete", "all booted");
    let stored: Api<Event> = Api::namespaced(client.clone(), "events");
    let notes = loop {
        let list = stored.list(&ListParams::default()).await.unwrap();
        let mut notes: Vec<String> = list.items.into_iter().filter_map(|event| event.note).collect();
        notes.sort();
        // The last one published is the last to arrive.
        if notes.iter().any(|note| note == "all booted") {
            break notes;
        }
    };
    assert_eq!(notes, ["253 nodes", "3m", "5m", "all booted"]);
    assert_eq!(events.dropped(), 0);
}
