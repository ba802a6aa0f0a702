//! What must be so after a boot, whoever was killed on the way.

use bos_crds::{BootComponent, Outcome, Session};
use bos_e2e::site::{CallRecord, ImageSpec, NodeView, PowerEvent, Service};
use kube::ResourceExt as _;

use crate::bench::{Bench, Problems, Run, marker};

/// All nodes up as the Session wanted, each powered on exactly once.
pub async fn booted(bench: &Bench, run: &Run, session: &Session) -> anyhow::Result<Problems> {
    let nodes = bench.site.nodes();
    let mut problems = Problems::new();
    let status = session.status.clone().unwrap_or_default();
    let succeeded = usize::try_from(status.counts.succeeded).unwrap_or(0);
    if status.outcome != Some(Outcome::Succeeded) || succeeded != nodes.len() {
        problems.push(format!("the Session ended {:?}, {succeeded} succeeded: {} {:?}", status.outcome, status.message, status.failures));
    }
    let components = bench.rig.components().await?;
    let calls = bench.calls(run);
    for node in &nodes {
        let mut wrong = node_is_right(run, node);
        wrong.extend(powered_on_once(bench, run, node));
        wrong.extend(parameters_first(&calls, node));
        let component = components.iter().find(|component| component.name_any() == node.xname);
        wrong.extend(component.map_or_else(|| vec!["has no BootComponent".to_owned()], |component| shown_right(component, node)));
        problems.extend(wrong.into_iter().map(|wrong| format!("{}: {wrong}", node.xname)));
    }
    Ok(problems)
}

fn node_is_right(run: &Run, node: &NodeView) -> Problems {
    let image = ImageSpec::default();
    let kernel = format!("s3://{}/{}/kernel", image.bucket, image.id);
    let mut wrong = Problems::new();
    if !node.up || node.kernel.as_ref() != Some(&kernel) {
        wrong.push(format!("up {}, runs {:?}", node.up, node.kernel));
    }
    if !node.params.as_ref().is_some_and(|params| params.contains(&marker(&run.name))) {
        wrong.push(format!("runs with the parameters of another boot: {:?}", node.params));
    }
    if node.cfs_status.as_deref() != Some("configured") {
        wrong.push(format!("CFS says {:?}", node.cfs_status));
    }
    wrong
}

/// What happened to a node since the run began.
pub fn events(bench: &Bench, run: &Run, xname: &str) -> Vec<PowerEvent> {
    bench.site.history(xname).into_iter().filter(|record| record.at >= run.since).map(|record| record.event).collect()
}

fn powered_on_once(bench: &Bench, run: &Run, node: &NodeView) -> Problems {
    let events = events(bench, run, &node.xname);
    let count = |is: fn(&PowerEvent) -> bool| events.iter().filter(|event| is(event)).count();
    let mut wrong = Problems::new();
    let ons = count(|event| matches!(event, PowerEvent::PoweredOn));
    let asked = count(|event| matches!(event, PowerEvent::OnRequested { .. }));
    let off = |event: &PowerEvent| {
        matches!(event, PowerEvent::PoweredOff | PowerEvent::SoftOffRequested { .. } | PowerEvent::ForceOffRequested { .. })
    };
    if ons != 1 || asked != 1 || count(off) != 0 {
        wrong.push(format!("powered on {ons} times, asked to {asked} times, {} events of power-off: {events:?}", count(off)));
    }
    if count(|event| matches!(event, PowerEvent::Configured { .. })) == 0 {
        wrong.push("was not configured after this boot".to_owned());
    }
    if bench.site.bss_token(&node.xname) != node.token {
        wrong.push(format!("runs with token {:?}, BSS holds {:?}", node.token, bench.site.bss_token(&node.xname)));
    }
    wrong
}

/// Boot parameters were stored for a node before its power-on was asked for (rule 6).
fn parameters_first(calls: &[CallRecord], node: &NodeView) -> Problems {
    let first = |service: Service, method: &str, operation: Option<&str>| {
        let matches = |call: &&CallRecord| {
            call.service == service
                && call.method == method
                && operation.is_none_or(|wanted| call.operation.as_deref() == Some(wanted))
                && call.processed
                && call.nodes.contains(&node.xname)
        };
        calls.iter().find(matches).map(|call| call.seq)
    };
    let switched_on = [Service::Pcs, Service::Capmc].into_iter().find_map(|service| first(service, "POST", Some("On")));
    let (stored, on) = (first(Service::Bss, "PUT", None), switched_on);
    match (stored, on) {
        (Some(stored), Some(on)) if stored < on => Problems::new(),
        other => vec![format!("boot parameters and power-on are calls {other:?}")],
    }
}

fn shown_right(component: &BootComponent, node: &NodeView) -> Problems {
    let Some(status) = &component.status else { return vec!["has no status".to_owned()] };
    let shown = status.actual_state.as_ref().and_then(|actual| actual.bss_token.clone());
    let mut wrong = Problems::new();
    if shown.as_deref() != node.token.as_deref() {
        wrong.push(format!("its status shows token {shown:?}, it runs with {:?}", node.token));
    }
    if status.enabled {
        wrong.push("is still being driven".to_owned());
    }
    wrong
}
