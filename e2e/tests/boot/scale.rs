//! A thousand nodes cost what they may: what is counted here does not depend on how fast the machine is.

use bos_e2e::control_plane::RequestTotals;
use bos_e2e::rig::template;

use super::bench::{Bench, Commands, Result, outcome};

/// Calls of outside services for one operation, whatever the number of nodes: those of a batch, and some looks at what goes on.
const CALLS: u64 = 200;
/// Writes of plan and journal.
const RECORDS: u64 = 150;

pub async fn boot(bench: &Bench) -> Result {
    bench.rig.apply(&template::simple("scale")).await?;
    costs(bench, "Boot", 4, Commands::ONE_ON).await
}

pub async fn reboot(bench: &Bench) -> Result {
    costs(bench, "Reboot", 5, Commands::ONE_CYCLE).await
}

pub async fn shutdown(bench: &Bench) -> Result {
    costs(bench, "Shutdown", 3, Commands { on: 0, soft_off: 1, force_off: 0 }).await
}

/// `most`: how often the object of a node may be written.
async fn costs(bench: &Bench, operation: &str, most: u64, commands: Commands) -> Result {
    let nodes = bench.site.xnames();
    let totals = async || bench.rig.control_plane().request_totals().await;
    let calls = || bench.site.call_counts().values().sum::<u64>();
    let (mark, before, called) = (bench.mark(), totals().await?, calls());
    let name = format!("scale-{}", operation.to_ascii_lowercase());
    bench.rig.apply(&template::session(&name, "scale", operation)).await?;
    assert_eq!(outcome(&bench.ended(&name).await?), "Succeeded/Succeeded");
    bench.assert_commands(&mark, &nodes, commands);
    let (writes, calls) = (totals().await?.since(&before).writes(), calls() - called);
    let (objects, records) = (count(&writes, "bootcomponents"), count(&writes, "configmaps"));
    println!("   {operation} of {} nodes: {objects} writes of BootComponents, {records} of records, {calls} calls", nodes.len());
    assert!(objects <= most * nodes.len() as u64, "{writes:?}");
    assert!(records <= RECORDS, "{writes:?}");
    assert!(calls <= CALLS, "{:?}", bench.site.call_counts());
    Ok(())
}

fn count(writes: &RequestTotals, resource: &str) -> u64 {
    writes.0.iter().filter(|(kind, _)| kind.resource.starts_with(resource)).map(|(_, count)| count).sum()
}
