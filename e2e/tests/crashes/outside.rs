//! Killed at every kind of call to the site: before the service has seen it, and with its answer withheld.

use bos_e2e::site::{Match, Service, When};

use crate::bench::{Bench, Problems, Verdicts};
use crate::{check, turn};

const NODES: usize = 6;

fn calls() -> Vec<(&'static str, Match)> {
    vec![
        ("hsm-components", Match::new(Service::Hsm, "GET").path("/State/Components")),
        ("hsm-groups", Match::new(Service::Hsm, "GET").path("/groups")),
        ("hsm-partitions", Match::new(Service::Hsm, "GET").path("/partitions")),
        ("hsm-locks", Match::new(Service::Hsm, "GET").path("/locks/status")),
        ("s3-manifest", Match::new(Service::S3, "GET").path("manifest.json")),
        ("s3-kernel", Match::new(Service::S3, "HEAD").path("kernel")),
        ("s3-parameters", Match::new(Service::S3, "GET").path("boot_parameters")),
        ("cfs-configuration", Match::new(Service::Cfs, "GET").path("/configurations/")),
        ("ims-tag", Match::new(Service::Ims, "PATCH")),
        ("bss-put", Match::new(Service::Bss, "PUT")),
        ("cfs-prepare", Match::new(Service::Cfs, "PATCH")),
        ("pcs-status", Match::new(Service::Pcs, "POST").path("/power-status")),
        ("pcs-on", Match::new(Service::Pcs, "POST").path("/transitions").body("On")),
        ("pcs-transition", Match::new(Service::Pcs, "GET").path("/transitions/")),
        ("cfs-components", Match::new(Service::Cfs, "GET").path("/components")),
    ]
}

async fn case(bench: &Bench, name: &str, what: Match, when: When) -> anyhow::Result<Problems> {
    let run = bench.killed_at_call(name, what, when).await?;
    bench.rig.start_operator().await?;
    let session = bench.ended(&run).await?;
    let problems = check::booted(bench, &run, &session).await?;
    bench.clear(&run).await?;
    Ok(problems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_call_to_the_site_changes_nothing() {
    let _turn = turn().await;
    let bench = Bench::start(Bench::config(NODES)).await;
    let mut verdicts = Verdicts::default();
    for (kind, what) in calls() {
        for (point, when) in [("before", When::Before), ("withheld", When::AnswerWithheld)] {
            let name = format!("{kind}-{point}");
            let result = case(&bench, &name, what.clone(), when).await;
            verdicts.add(&bench, &name, result);
            if verdicts.hopeless() {
                return verdicts.judge();
            }
        }
    }
    bench.rig.stop().await;
    verdicts.judge();
}
