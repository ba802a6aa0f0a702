//! The admin listener, the configuration file and the program `bos-site`.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bos_e2e::site::{SiteConfig, Urls};
use serde_json::{Value, json};

use super::{NODE, body_of, get, post, site, within};

#[tokio::test]
async fn the_admin_listener_shows_and_changes_the_site() {
    let (site, client) = site().await;
    let admin = site.urls().admin.clone();
    let fault = post(&client, format!("{admin}/faults"), json!({"xnames": [NODE], "faults": {"neverBoots": true}})).await;
    assert_eq!(body_of(fault).await, json!({"nodes": 1}));
    assert!(site.node(NODE).unwrap().faults.never_boots);
    let bad = post(&client, format!("{admin}/faults"), json!({"xnames": [NODE], "faults": {"neverBoot": true}})).await;
    assert_eq!(bad.status(), 400);
    let outage = post(&client, format!("{admin}/outages"), json!({"service": "hsm", "kind": "unavailable", "for": 3600})).await;
    let id = body_of(outage).await["id"].clone();
    assert_eq!(get(&client, format!("{}/groups", site.urls().hsm)).await.status(), 503);
    assert_eq!(client.delete(format!("{admin}/outages/{id}")).send().await.unwrap().status(), 204);
    assert_eq!(get(&client, format!("{}/groups", site.urls().hsm)).await.status(), 200);
    let patch = client
        .patch(format!("{admin}/settings"))
        .json(&json!({"bootTime": 7.5, "services": {"bss": {"latency": 0.01}}}))
        .send()
        .await
        .unwrap();
    assert_eq!(patch.status(), 200);
    assert_eq!(site.settings().boot_time, Duration::from_millis(7500));
    let calls = body_of(get(&client, format!("{admin}/calls?service=hsm&status=503&limit=5")).await).await;
    assert_eq!(calls.as_array().unwrap().len(), 1);
    assert_eq!(body_of(get(&client, format!("{admin}/calls/counts")).await).await["services"], json!({"hsm": 2}));
    assert_eq!(body_of(post(&client, format!("{admin}/power"), json!({"xnames": ["all"], "on": true})).await).await, json!({"nodes": 8}));
    assert_eq!(body_of(get(&client, format!("{admin}/nodes/summary")).await).await["on"], 8);
    let history = body_of(get(&client, format!("{admin}/power-history?xname={NODE}")).await).await;
    assert_eq!(history[NODE][0]["event"], "on-requested");
    let group = client.put(format!("{admin}/groups/blue")).json(&json!([NODE])).send().await.unwrap();
    assert_eq!(group.status(), 200);
    assert_eq!(body_of(get(&client, format!("{}/groups/blue", site.urls().hsm)).await).await["members"]["ids"], json!([NODE]));
}

#[test]
fn the_configuration_file_refuses_misspelt_keys_and_round_trips() {
    let text = serde_json::to_string(&SiteConfig::default()).unwrap();
    assert_eq!(
        serde_json::to_value(serde_json::from_str::<SiteConfig>(&text).unwrap()).unwrap(),
        serde_json::from_str::<Value>(&text).unwrap()
    );
    assert!(serde_json::from_str::<SiteConfig>(r#"{"settings":{"bootTimes":1}}"#).is_err());
    let config: SiteConfig =
        serde_json::from_str(r#"{"blocks":[{"count":2,"initial":{"state":"on","image":"i"}},{"count":1,"cabinet":3000,"role":"Application","subRole":"UAN","arch":null}]}"#)
            .unwrap();
    assert_eq!((config.blocks.len(), config.blocks[1].arch.as_ref()), (2, None));
}

/// Ends the program also when a test fails.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_tells_where_it_is_and_ends_with_its_input() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bos-site"));
    let command = command.args(["--nodes", "3", "--boot-time", "0.5"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut program = Program(command.spawn().unwrap());
    let mut output = BufReader::new(program.0.stdout.take().unwrap());
    let line = within(tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        output.read_line(&mut line).map(|_| line)
    }));
    let urls: Urls = serde_json::from_str(&line.await.unwrap().unwrap()).unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let summary = body_of(get(&client, format!("{}/nodes/summary", urls.admin)).await).await;
    assert_eq!(summary["nodes"], 3);
    assert_eq!(body_of(get(&client, format!("{}/settings", urls.admin)).await).await["bootTime"], 0.5);
    assert_eq!(get(&client, format!("{}/service/ready", urls.hsm)).await.status(), 200);
    drop(program.0.stdin.take());
    let ended = within(tokio::task::spawn_blocking(move || program.0.wait())).await.unwrap().unwrap();
    assert!(ended.success());
}

#[test]
fn the_help_is_complete() {
    let output = Command::new(env!("CARGO_BIN_EXE_bos-site")).arg("--help").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["--operator-url", "--realistic", "GET    /power-history", "POST   /outages"] {
        assert!(text.contains(part), "{part} is not in the help");
    }
}
