//! The API server is away for longer than the operator may keep its lease, so the operator ends and is started again.

use std::time::Duration;

use bos_e2e::proxy::{Outage, Rule};
use bos_e2e::rig::{RigConfig, template};
use serde_json::json;

use crate::bench::{Bench, Cases, Commands, LIMIT, Result, outcome};

const NODES: usize = 20;
/// How long it is away; the lease lasts 15 s.
const AWAY: Duration = Duration::from_secs(25);

/// When it goes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before the Session is created (by somebody who still reaches it).
    BeforeSession,
    /// When nodes have power and none has reported yet.
    NodesComeUp,
    /// When some nodes have reported.
    NodesReport,
}

pub async fn away() -> Result {
    let mut config = RigConfig::with_nodes(3 * NODES + 2).boot_time(Duration::from_secs(1)).through_proxy();
    config.site.settings.boot_spread = Duration::from_secs(2);
    // Nodes try again soon, so that the test need not wait half a minute for the last one.
    config.site.settings.report_backoff_scale = 0.2;
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
    cases.run("options are edited while their status is written", options_edited(&bench)).await;
    let nodes = bench.nodes(3 * NODES..3 * NODES + 2);
    cases.run("objects are changed while their status is written", objects_changed(&bench, &nodes)).await;
    let trials = [
        ("refused", Outage::Refuse, Moment::NodesReport),
        ("hanging", Outage::Hang, Moment::NodesComeUp),
        ("unavailable", Outage::Unavailable, Moment::BeforeSession),
    ];
    for (number, (name, kind, moment)) in trials.into_iter().enumerate() {
        let nodes = bench.nodes(NODES * number..NODES * (number + 1));
        cases.run(name, one(&bench, name, kind, moment, &nodes)).await;
    }
    bench.rig.stop().await;
    cases.verdict()
}

/// The write is refused for its version. The object is read again, and the newer edit is answered.
async fn options_edited(bench: &Bench) -> Result {
    let proxy = bench.rig.proxy().expect("there is a proxy");
    let mut held = proxy.on(Rule::before().kind("patch", "bootoptions/status"));
    bench.rig.set_options(&json!({"defaultRetryPolicy": 4})).await?;
    tokio::time::timeout(LIMIT, held.reached()).await??;
    bench.rig.set_options(&json!({"defaultRetryPolicy": 5})).await?;
    held.let_go();
    let answered = "--for=jsonpath={.status.observedGeneration}=2";
    bench.rig.kubectl(&["wait", answered, "bootoptions/default", "--timeout=150s"]).await.map(drop)
}

/// The same of a node and of a Session: both writes are refused once, and nothing is lost.
async fn objects_changed(bench: &Bench, nodes: &[String]) -> Result {
    let proxy = bench.rig.proxy().expect("there is a proxy");
    bench.template("changed", nodes, |_| {}).await?;
    let mark = bench.mark();
    let mut node = proxy.on(Rule::before().kind("patch", "bootcomponents/status").path_contains(&nodes[0]));
    let mut session = proxy.on(Rule::before().kind("patch", "sessions/status"));
    bench.rig.apply(&template::session("changed", "changed", "Boot")).await?;
    for (held, kind, name) in [(&mut session, "session", "changed"), (&mut node, "bootcomponent", nodes[0].as_str())] {
        tokio::time::timeout(LIMIT, held.reached()).await??;
        bench.rig.kubectl(&["annotate", kind, name, "note=meanwhile"]).await?;
    }
    session.let_go();
    node.let_go();
    let ended = bench.ended("changed").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{:?}", ended.status);
    bench.assert_commands(&mark, nodes, Commands::ONE_ON);
    Ok(())
}

async fn one(bench: &Bench, name: &str, kind: Outage, moment: Moment, nodes: &[String]) -> Result {
    let proxy = bench.rig.proxy().expect("there is a proxy");
    bench.template(name, nodes, |_| {}).await?;
    let mark = bench.mark();
    if moment == Moment::BeforeSession {
        proxy.set_outage(kind).await;
    }
    bench.rig.apply(&template::session(name, name, "Boot")).await?;
    match moment {
        Moment::BeforeSession => {}
        Moment::NodesComeUp => {
            bench.at_site("nodes have power", |site| nodes.iter().filter_map(|node| site.node(node)).any(|node| node.power)).await?
        }
        Moment::NodesReport => {
            bench.at_site("nodes report", |site| nodes.iter().filter_map(|node| site.node(node)).any(|node| node.reports > 0)).await?;
        }
    }
    proxy.set_outage(kind).await;
    // This is the outage itself.
    tokio::time::sleep(AWAY).await;
    proxy.set_outage(Outage::None).await;
    let ended = bench.ended(name).await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{:?}", ended.status);
    let counts = ended.status.unwrap().counts;
    assert_eq!((counts.succeeded, counts.power_cycled), (i32::try_from(NODES)?, 0));
    bench.assert_commands(&mark, nodes, Commands::ONE_ON);
    bench.at_site("the reports are answered 200", |site| site.all_acknowledged(nodes)).await?;
    for component in bench.components(nodes).await? {
        let (xname, status) = (component.metadata.name.unwrap_or_default(), json!(component.status));
        assert_eq!((&status["attempts"]["powerOn"], &status["status"]), (&json!(1), &json!("Stable")), "{xname}: {status}");
        let acknowledged = bench.site.acknowledged(&xname);
        assert_eq!(status["actualState"]["bssToken"].as_str(), acknowledged.as_deref(), "{xname}: a report answered 200 was lost");
    }
    Ok(())
}
