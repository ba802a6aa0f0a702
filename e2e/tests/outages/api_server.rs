//! The API server is away for longer than the operator may keep its lease, so the operator ends and is started again.

use std::time::Duration;

use bos_e2e::proxy::Outage;
use bos_e2e::rig::{RigConfig, template};
use serde_json::json;

use crate::bench::{Bench, Cases, Commands, Result, outcome};

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
    let mut config = RigConfig::with_nodes(3 * NODES).boot_time(Duration::from_secs(1)).through_proxy();
    config.site.settings.boot_spread = Duration::from_secs(2);
    // Nodes try again soon, so that the test need not wait half a minute for the last one.
    config.site.settings.report_backoff_scale = 0.2;
    let bench = Bench::start(config).await?;
    let mut cases = Cases::default();
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
