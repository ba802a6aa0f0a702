//! Without the webhook: the schema refuses what it can, the operator the rest, and nobody is kept from anything.

use bos_e2e::rig::{Webhook, template};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::bench::{Bench, Commands, LIMIT, Result, message, outcome};
use crate::golden::Golden;

/// Never installed.
pub async fn absent(bench: &Bench, golden: &Golden) -> Result {
    let spaces = json!({"operation": "Boot", "templateName": "plain", "limit": "x1000, x2000"});
    golden.says(bench, "without the webhook the schema refuses", &serde_json::from_str(&template::session_with("s", &spaces))?).await?;
    let (nodes, mark) = (bench.nodes(0..2), bench.mark());
    bench.template("plain", &nodes, |_| {}).await?;
    for (name, spec, reason) in [
        ("absent-limit", json!({"operation": "Boot", "templateName": "plain", "limit": "x1000,!nobody"}), "Failed/InvalidLimit"),
        ("absent-mode", json!({"operation": "Boot", "templateName": "plain", "mode": "v1"}), "NotStarted/UnsupportedMode"),
        ("absent-retry", json!({"operation": "Boot", "templateName": "plain", "retryOf": "never-was"}), "Failed/NoNodes"),
    ] {
        bench.rig.apply(&template::session_with(name, &spec)).await?;
        let ended = bench.ended(name).await?;
        assert_eq!(outcome(&ended), reason, "{}", message(&ended));
    }
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    Ok(())
}

/// Installed, and frozen, and then gone: the operator goes on writing, people are not held up, and nobody can name another.
pub async fn outage(bench: &Bench, webhook: Webhook) -> Result {
    let (nodes, mark) = (bench.nodes(6..8), bench.mark());
    bench.template("frozen", &nodes, |_| {}).await?;
    webhook.signal(Signal::STOP);
    bench.rig.apply(&template::session("frozen", "frozen", "Boot")).await?;
    let ended = bench.ended("frozen").await?;
    webhook.signal(Signal::CONT);
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", message(&ended));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    let ended = tokio::task::spawn_blocking(move || webhook.stop()).await?;
    assert!(ended.is_some_and(|status| status.success()), "the webhook ended with {ended:?}");
    // What it would have refused the operator refuses.
    let spec = json!({"operation": "Boot", "templateName": "frozen", "limit": "!nobody"});
    bench.rig.apply(&template::session_with("gone", &spec)).await?;
    assert_eq!(outcome(&bench.ended("gone").await?), "Failed/InvalidLimit");
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    nobody_is_named_falsely(bench).await
}

/// The policy in the API server; it may take a moment after its creation until it is in force.
async fn nobody_is_named_falsely(bench: &Bench) -> Result {
    let mut claim: Value = serde_json::from_str(&template::session("claim", "frozen", "Boot"))?;
    claim["metadata"]["annotations"] = json!({"bos.hpe.com/requested-by": "mallory"});
    let command = bench.rig.control_plane().kubectl_command();
    let began = std::time::Instant::now();
    loop {
        let said = command.run_with_input(&["create", "--dry-run=server", "-f", "-"], &claim.to_string()).await?;
        if said.stderr.contains("says who created the Session; leave it out") {
            return Ok(());
        }
        anyhow::ensure!(began.elapsed() < LIMIT, "a false name was taken: {}{}", said.stderr, said.stdout);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
