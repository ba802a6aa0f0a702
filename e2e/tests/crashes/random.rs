//! Killed twenty times at random moments of one boot.

use std::collections::BTreeMap;
use std::time::Duration;

use kube::ResourceExt as _;
use serde_json::json;

use crate::bench::{Bench, Problems, Verdicts, within};
use crate::{check, turn};

const NODES: usize = 40;
const KILLS: usize = 20;
/// Set to repeat the kills of another run.
const SEED: &str = "BOS_CRASH_SEED";

/// Marsaglia's xorshift: the same moments for the same seed.
struct Moments(u64);

impl Moments {
    fn from_environment() -> Self {
        let seed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_123);
        eprintln!("{SEED}={seed}");
        Self(seed)
    }

    /// A moment in the life of an operator, from its start until it has done something.
    fn next(&mut self) -> Duration {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        Duration::from_millis(50 + self.0 % 1_400)
    }
}

async fn case(bench: &Bench, name: &str) -> anyhow::Result<Problems> {
    let mut moments = Moments::from_environment();
    bench.begin(name).await?;
    let run = bench.apply(name, json!({})).await?;
    for _ in 0..KILLS {
        // The moment is the fault, not a wait for something.
        tokio::time::sleep(moments.next()).await;
        bench.kill();
        bench.rig.operator().start()?;
    }
    bench.rig.start_operator().await?;
    let session = bench.ended(&run).await?;
    let mut problems = check::booted(bench, &run, &session).await?;
    problems.extend(answered_reports_are_known(bench).await?);
    Ok(problems)
}

/// A report that was answered 200 is not repeated, so it must not be lost.
async fn answered_reports_are_known(bench: &Bench) -> anyhow::Result<Problems> {
    let xnames = bench.site.xnames();
    within("the reports are answered 200", bench.site.wait_until(|site| site.all_acknowledged(&xnames))).await?;
    let components = bench.rig.components().await?;
    let shown: BTreeMap<String, Option<String>> = components
        .into_iter()
        .map(|component| (component.name_any(), component.status.and_then(|status| Some(status.actual_state?.bss_token?.to_string()))))
        .collect();
    let mut problems = Problems::new();
    for xname in xnames {
        let answered = bench.site.acknowledged(&xname);
        if shown.get(&xname) != Some(&answered) {
            problems.push(format!("{xname}: answered 200 to {answered:?}, shown {:?}", shown.get(&xname)));
        }
    }
    Ok(problems)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_kills_at_random_moments_lose_no_answered_report() {
    let _turn = turn().await;
    let mut config = Bench::config(NODES);
    // Some nodes come up between any two kills.
    config.site.settings.boot_spread = Duration::from_secs(18);
    let bench = Bench::start(config).await;
    let mut verdicts = Verdicts::default();
    let result = case(&bench, "random").await;
    verdicts.add(&bench, "random", result);
    bench.rig.stop().await;
    verdicts.judge();
}
