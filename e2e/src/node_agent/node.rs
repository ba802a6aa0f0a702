//! The Node object, and the Lease that keeps it Ready.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};

use super::{ADDRESS, NODE};

/// Where nodes keep their Leases.
const LEASES: &str = "kube-node-lease";
/// As the kubelet's: a fourth of the time the Lease holds.
const RENEW: Duration = Duration::from_secs(10);
/// How long the Lease holds.
const HOLDS_SECONDS: i32 = 40;
/// Pause after a renewal that failed.
const AGAIN: Duration = Duration::from_millis(500);

/// Tells the API server of the node, which is ready at once.
pub(super) async fn register(client: Client) -> anyhow::Result<()> {
    let api: Api<Node> = Api::all(client);
    let labels = BTreeMap::from([
        ("kubernetes.io/hostname".to_owned(), NODE.to_owned()),
        ("kubernetes.io/os".to_owned(), "linux".to_owned()),
        ("kubernetes.io/arch".to_owned(), architecture().to_owned()),
    ]);
    let node =
        Node { metadata: ObjectMeta { name: Some(NODE.to_owned()), labels: Some(labels), ..ObjectMeta::default() }, ..Node::default() };
    let parameters = PatchParams::apply("node-agent").force();
    api.patch(NODE, &parameters, &Patch::Apply(&node)).await.context("creating the node")?;
    let status =
        Node { metadata: ObjectMeta { name: Some(NODE.to_owned()), ..ObjectMeta::default() }, status: Some(status()?), ..Node::default() };
    api.patch_status(NODE, &parameters, &Patch::Apply(&status)).await.context("the node's status").map(drop)
}

/// Renews the node's Lease for ever. Without it the controller manager would call the node lost.
pub(super) async fn keep_ready(client: Client) {
    let api: Api<Lease> = Api::namespaced(client, LEASES);
    loop {
        let spec = LeaseSpec {
            holder_identity: Some(NODE.to_owned()),
            lease_duration_seconds: Some(HOLDS_SECONDS),
            renew_time: Some(MicroTime(Timestamp::now())),
            ..LeaseSpec::default()
        };
        let lease = Lease { metadata: ObjectMeta { name: Some(NODE.to_owned()), ..ObjectMeta::default() }, spec: Some(spec) };
        let renewed = api.patch(NODE, &PatchParams::apply("node-agent").force(), &Patch::Apply(&lease)).await;
        if let Err(error) = &renewed {
            // Soon after the start the namespace is not there yet.
            tracing::debug!(%error, "the node's Lease is not renewed");
        }
        tokio::time::sleep(if renewed.is_ok() { RENEW } else { AGAIN }).await;
    }
}

fn status() -> anyhow::Result<NodeStatus> {
    let cpus = std::thread::available_parallelism().context("counting CPUs")?;
    let capacity = BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpus.to_string())),
        ("memory".to_owned(), Quantity(format!("{}Ki", memory_kib()?))),
        ("pods".to_owned(), Quantity("110".to_owned())),
    ]);
    let now = Time(Timestamp::now());
    let condition = |type_: &str, is: bool, reason: &str| NodeCondition {
        type_: type_.to_owned(),
        status: if is { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()),
        last_heartbeat_time: Some(now.clone()),
        last_transition_time: Some(now.clone()),
        ..NodeCondition::default()
    };
    Ok(NodeStatus {
        addresses: Some(vec![NodeAddress { type_: "InternalIP".to_owned(), address: ADDRESS.to_owned() }]),
        allocatable: Some(capacity.clone()),
        capacity: Some(capacity),
        conditions: Some(vec![
            condition("Ready", true, "KubeletReady"),
            condition("MemoryPressure", false, "KubeletHasSufficientMemory"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure"),
            condition("PIDPressure", false, "KubeletHasSufficientPID"),
        ]),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().to_owned(),
            operating_system: "linux".to_owned(),
            kubelet_version: concat!("bos-e2e-", env!("CARGO_PKG_VERSION")).to_owned(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    })
}

/// As Kubernetes calls it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory_kib() -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).context("/proc/meminfo has no MemTotal")?;
    line.split_whitespace().next().and_then(|number| number.parse().ok()).context("MemTotal is no number")
}
