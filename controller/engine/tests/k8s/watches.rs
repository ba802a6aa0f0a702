//! Watches against the modelled server.

use std::time::Duration;

use bos_engine::watches::{News, Scope, Seen, WatchHealth, Watched, spawn_watches};
use kube::ResourceExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fake::{FakeApi, Fault};

const NODES: &str = "/apis/bos.hpe.com/v1alpha1/bootcomponents";
const STOP: &str = "/api/v1/namespaces/bos/configmaps/bos-emergency-stop";

fn node(name: &str) -> (String, Value) {
    let object = json!({"apiVersion": "bos.hpe.com/v1alpha1", "kind": "BootComponent", "spec": {},
        "metadata": {"managedFields": [{"manager": "m", "operation": "Update"}]}});
    (format!("{NODES}/{name}"), object)
}

fn add(api: &FakeApi, name: &str) {
    let (path, object) = node(name);
    api.create(&path, object);
}

struct Rig {
    api: FakeApi,
    news: mpsc::Receiver<News>,
    health: WatchHealth,
    cancel: CancellationToken,
}

impl Rig {
    fn start(api: FakeApi) -> Self {
        let (tx, news) = mpsc::channel(64);
        let cancel = CancellationToken::new();
        let health = spawn_watches(&api.client(), "bos", &Scope::Operator { agents: false }, &tx, &cancel);
        Self { api, news, health, cancel }
    }

    async fn next(&mut self) -> News {
        tokio::time::timeout(Duration::from_secs(120), self.news.recv()).await.expect("no news").unwrap()
    }

    /// The next news of nodes or the emergency stop, in words.
    async fn say(&mut self) -> String {
        loop {
            match self.next().await {
                News::Component(seen) => return in_words(seen),
                News::EmergencyStop(why) => return format!("stop {}", why.is_some()),
                _ => {}
            }
        }
    }
}

fn in_words(seen: Seen<bos_crds::BootComponent>) -> String {
    match seen {
        Seen::Reset { items, invalid } => {
            assert!(items.iter().all(|node| node.managed_fields().is_empty()));
            let names: Vec<_> = items.iter().map(ResourceExt::name_any).collect();
            let bad: Vec<_> = invalid.into_iter().map(|bad| bad.name).collect();
            format!("reset {names:?} invalid {bad:?}")
        }
        Seen::Applied(node) => format!("applied {}", node.name_any()),
        Seen::Deleted(node) => format!("deleted {}", node.name_any()),
        Seen::Invalid(bad) => {
            assert!(!bad.error.is_empty() && !bad.uid.is_empty());
            format!("invalid {}", bad.name)
        }
        Seen::InvalidDeleted(bad) => format!("invalid deleted {}", bad.name),
    }
}

#[tokio::test(start_paused = true)]
async fn everything_is_delivered_once_and_then_each_change() {
    let api = FakeApi::default();
    add(&api, "x1c0s0b0n0");
    let (path, mut bad) = node("x2c0s0b0n0");
    bad["spec"] = json!({"suspend": "perhaps"});
    api.create(&path, bad);
    let mut rig = Rig::start(api.clone());
    let mut first = Vec::new();
    for _ in 0..5 {
        match rig.next().await {
            News::Component(seen) => first.push(in_words(seen)),
            News::EmergencyStop(why) => first.push(format!("stop {}", why.is_some())),
            News::Session(Seen::Reset { items, .. }) => first.push(format!("sessions {}", items.len())),
            News::Template(Seen::Reset { items, .. }) => first.push(format!("templates {}", items.len())),
            News::Options(Seen::Reset { items, .. }) => first.push(format!("options {}", items.len())),
            other => panic!("{other:?}"),
        }
    }
    first.sort();
    assert_eq!(first, ["options 0", r#"reset ["x1c0s0b0n0"] invalid ["x2c0s0b0n0"]"#, "sessions 0", "stop false", "templates 0"]);
    assert!(rig.health.is_synced());

    add(&api, "x3c0s0b0n0");
    assert_eq!(rig.say().await, "applied x3c0s0b0n0");
    api.edit(&format!("{NODES}/x3c0s0b0n0"), |node| node["spec"] = json!({"suspend": 7}));
    assert_eq!(rig.say().await, "invalid x3c0s0b0n0");
    api.delete(&format!("{NODES}/x1c0s0b0n0"));
    assert_eq!(rig.say().await, "deleted x1c0s0b0n0");
    api.delete(&path);
    assert_eq!(rig.say().await, "invalid deleted x2c0s0b0n0");
}

#[tokio::test(start_paused = true)]
async fn the_emergency_stop_is_seen_to_come_and_go() {
    let api = FakeApi::default();
    api.create("/api/v1/namespaces/bos/configmaps/another", json!({}));
    let mut rig = Rig::start(api.clone());
    while rig.say().await != "stop false" {}
    api.create(STOP, json!({}));
    while rig.say().await != "stop true" {}
    api.delete(STOP);
    assert_eq!(rig.say().await, "stop false");
    api.create(STOP, json!({}));
    let mut rig = Rig::start(api);
    while rig.say().await != "stop true" {}
}

#[tokio::test(start_paused = true)]
async fn one_failing_watch_holds_up_no_other() {
    let api = FakeApi::default();
    api.faults(|call| call.path.contains("sessiontemplates").then_some(Fault::Code(404)));
    let mut rig = Rig::start(api.clone());
    for _ in 0..4 {
        assert!(!matches!(rig.next().await, News::Template(_)));
    }
    assert!(!rig.health.is_synced());
    let begin = tokio::time::Instant::now();
    for n in 0..20 {
        add(&api, &format!("x{n}c0s0b0n0"));
        assert_eq!(rig.say().await, format!("applied x{n}c0s0b0n0"));
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    tokio::time::sleep(Duration::from_secs(200)).await;
    let stale = rig.health.stale(Duration::from_secs(120));
    assert_eq!(stale.iter().map(|(stream, _)| *stream).collect::<Vec<_>>(), [Watched::Templates]);
    assert!(stale[0].1.contains("404"), "{}", stale[0].1);
    api.no_faults();
    assert!(matches!(rig.next().await, News::Template(Seen::Reset { .. })));
    assert!(rig.health.is_synced() && rig.health.stale(Duration::from_secs(120)).is_empty());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_missed_when_a_watch_ends() {
    let api = FakeApi::default();
    let mut rig = Rig::start(api.clone());
    for _ in 0..5 {
        rig.next().await;
    }
    api.end_watches();
    add(&api, "x1c0s0b0n0");
    assert_eq!(rig.say().await, "applied x1c0s0b0n0");
}

#[tokio::test(start_paused = true)]
async fn watching_ends_with_the_leadership() {
    let mut rig = Rig::start(FakeApi::default());
    for _ in 0..5 {
        rig.next().await;
    }
    rig.cancel.cancel();
    assert!(rig.news.recv().await.is_none());
    assert!(rig.api.calls().len() >= 10);
}
