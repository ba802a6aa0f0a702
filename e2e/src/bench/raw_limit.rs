//! How fast the API server is when nobody else wants anything: what no operator that writes statuses can beat.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use bos_crds::BootComponent;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::rig::Rig;

/// More gains nothing, and it is what the operator does.
const IN_FLIGHT: usize = 16;
/// Status writes a node.
const PATCHES: usize = 2;
/// A field manager of its own would add a block of managed fields to every object and so make them larger.
const MANAGER: &str = bos_crds::labels::MANAGER_STATUS;

/// The median of so many runs.
pub(super) async fn median(rig: &Rig, runs: usize) -> anyhow::Result<Duration> {
    let api: Api<BootComponent> = Api::all(rig.client());
    let components = rig.components().await?;
    let mut times = Vec::new();
    for run in 0..runs.max(1) {
        times.push(once(&api, &components, run).await?);
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

async fn once(api: &Api<BootComponent>, components: &[BootComponent], run: usize) -> anyhow::Result<Duration> {
    let patches: Vec<(String, Vec<Value>)> = components.iter().map(|component| (component.name_any(), bodies(component, run))).collect();
    let begun = Instant::now();
    for round in 0..PATCHES {
        let sends = patches.iter().map(|(name, bodies)| send(api, name, &bodies[round]));
        futures::stream::iter(sends).buffer_unordered(IN_FLIGHT).try_for_each(|()| async { Ok(()) }).await?;
    }
    Ok(begun.elapsed())
}

async fn send(api: &Api<BootComponent>, name: &str, body: &Value) -> anyhow::Result<()> {
    let params = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
    api.patch_status(name, &params, &Patch::Merge(body)).await.with_context(|| format!("patching {name}")).map(drop)
}

/// What changes when a node moves on: about as many fields as the operator sends, each time with other values.
fn bodies(component: &BootComponent, run: usize) -> Vec<Value> {
    let states = ["PowerOnCalled", "Stable"];
    let transitions = component.status.as_ref().map(|status| json!(status.transitions)).unwrap_or_default();
    let body = |(round, state): (usize, &&str)| {
        let time = jiff::Timestamp::from_second(1_800_000_000 + i64::try_from(run * PATCHES + round).unwrap_or(0)).unwrap_or_default();
        let time = time.to_string();
        json!({
            "metadata": {"uid": component.uid()},
            "status": {
                "status": state, "reason": "Measured", "message": format!("Run {run} of the raw limit, patch {round}."),
                "since": time, "lastActionTime": time, "transitions": transitions, "power": "On", "tries": "1/3",
            },
        })
    };
    states.iter().enumerate().map(body).collect()
}
