//! Nodes that do not do what is asked of them.

use std::ops::Range;

use bos_e2e::rig::template;
use bos_e2e::site::{Faults, ImageSpec, InitialState};
use serde_json::json;

use crate::bench::{Bench, Commands, LIMIT, Result, condition, message, outcome};

/// Reason and message of a node.
async fn told(bench: &Bench, xname: &str) -> Result<(String, String)> {
    let text = bench.rig.kubectl(&["get", "bc", xname, "-o", "json"]).await?;
    let status = serde_json::from_str::<serde_json::Value>(&text)?["status"].clone();
    let field = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    Ok((format!("{}/{}", field("status"), field("reason")), field("message")))
}

pub async fn never_up(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes[..1], &Faults { never_reports: true, ..Faults::default() });
    bench.template("never-up", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let ended = bench.boot("never-up", "never-up").await?;
    assert_eq!(outcome(&ended), "PartiallyFailed/NodesFailed", "{ended:?}");
    let failures = ended.status.clone().unwrap().failures;
    assert_eq!((failures[0].reason.as_str(), failures[0].sample.as_str()), ("BootTimeout", nodes[0].as_str()), "{failures:?}");
    // Two power-ons with one power-off between them, then it is left on for a person to look at.
    let commands = bench.commands(&mark, &nodes[0]);
    assert_eq!((commands.on, commands.soft_off), (2, 1), "{commands:?}");
    assert!(bench.site.node(&nodes[0]).unwrap().power);
    bench.assert_commands(&mark, &nodes[1..], Commands::ONE_ON);
    let (status, text) = told(bench, &nodes[0]).await?;
    assert_eq!(status, "Failed/BootTimeout");
    assert!(text.contains("2 power-ons") && text.contains("eft on"), "{text}");
    // Mended, and tried again: that node alone.
    bench.site.set_faults(&nodes[..1], &Faults::default());
    let mark = bench.mark();
    let spec = json!({"operation": "Reboot", "templateName": "never-up", "retryOf": "never-up"});
    bench.rig.apply(&template::session_with("never-up-again", &spec)).await?;
    let ended = bench.ended("never-up-again").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{ended:?}");
    assert_eq!(ended.status.unwrap().counts.nodes, 1);
    bench.assert_commands(&mark, &nodes[..1], Commands::ONE_CYCLE);
    bench.assert_commands(&mark, &nodes[1..], Commands::NONE);
    bench.rig.apply(&template::session_with("never-up-twice", &spec)).await?;
    let ended = bench.ended("never-up-twice").await?;
    assert_eq!(outcome(&ended), "Failed/NoNodes");
    assert!(message(&ended).contains("nothing to retry"), "{}", message(&ended));
    Ok(())
}

/// Locked in HSM while its session drives it: released, left as it is, and said.
pub async fn locked_meanwhile(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes, &Faults { cfs_pending: true, ..Faults::default() });
    bench.template("locked", &nodes, |_| {}).await?;
    bench.rig.apply(&template::session("locked", "locked", "Boot")).await?;
    let configuring = |session: &bos_crds::Session| session.status.as_ref().is_some_and(|status| status.counts.configuring == 2);
    bench.rig.wait_session("locked", configuring, LIMIT).await?;
    bench.site.set_locked(&nodes[..1], true);
    let left = |session: &bos_crds::Session| session.status.as_ref().is_some_and(|status| status.counts.left_running == 1);
    bench.rig.wait_session("locked", left, LIMIT).await?;
    bench.site.set_faults(&nodes, &Faults::default());
    let ended = bench.ended("locked").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded");
    let failures = ended.status.unwrap().failures;
    assert_eq!((failures[0].reason.as_str(), failures[0].sample.as_str()), ("LockedInHSM", nodes[0].as_str()), "{failures:?}");
    assert!(failures[0].message.contains("left on"), "{failures:?}");
    bench.site.set_locked(&nodes[..1], false);
    Ok(())
}

pub async fn many_silent(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes[..20], &Faults { never_reports: true, ..Faults::default() });
    bench.template("silent", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session("silent", "silent", "Boot")).await?;
    let shown = |session: &bos_crds::Session| condition(session, "MassBootTimeout") == ("True".to_owned(), "MassBootTimeout".to_owned());
    bench.rig.wait_session("silent", shown, LIMIT).await?;
    let ended = bench.ended("silent").await?;
    assert_eq!(outcome(&ended), "PartiallyFailed/NodesFailed");
    let counts = ended.status.unwrap().counts;
    assert_eq!((counts.succeeded, counts.failed, counts.power_cycled), (10, 20, 0));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    assert!(nodes.iter().all(|node| bench.site.node(node).unwrap().power), "one was left off");
    Ok(())
}

pub async fn unknown_image(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_state(&nodes[..1], &InitialState::OnUnknown);
    bench.site.report_now(&nodes[..1]);
    bench.template("unknown", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let ended = bench.boot("unknown", "unknown").await?;
    let counts = ended.status.clone().unwrap().counts;
    assert_eq!((counts.succeeded, counts.left_running, counts.failed, counts.power_cycled), (3, 1, 0, 0), "{ended:?}");
    assert_eq!(outcome(&ended), "Succeeded/Succeeded");
    assert!(message(&ended).contains("1 left running"), "{}", message(&ended));
    bench.assert_commands(&mark, &nodes[..1], Commands::NONE);
    bench.assert_commands(&mark, &nodes[1..], Commands::ONE_ON);
    assert!(told(bench, &nodes[0]).await?.0.ends_with("/UnknownImageRunning"));
    Ok(())
}

pub async fn dead_controller(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes[..1], &Faults { bmc_undefined: true, ..Faults::default() });
    bench.template("dead-bmc", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session("dead-bmc", "dead-bmc", "Boot")).await?;
    let held = |component: &bos_crds::BootComponent| {
        let status = serde_json::to_value(&component.status).unwrap();
        status["status"] == "OnHold" && status["reason"] == "PowerUnknown"
    };
    bench.rig.wait_components(|all| all.get(&nodes[0]).is_some_and(held), LIMIT).await?;
    let ended = bench.ended("dead-bmc").await?;
    assert_eq!(outcome(&ended), "PartiallyFailed/NodesFailed");
    let failures = ended.status.unwrap().failures;
    assert_eq!((failures[0].reason.as_str(), failures[0].sample.as_str()), ("PowerUnknown", nodes[0].as_str()), "{failures:?}");
    assert!(failures[0].message.contains("not touched"), "{failures:?}");
    bench.assert_commands(&mark, &nodes[..1], Commands::NONE);
    bench.assert_commands(&mark, &nodes[1..], Commands::ONE_ON);
    Ok(())
}

pub async fn stuck_shutdown(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("stuck-a", &nodes, |_| {}).await?;
    assert_eq!(outcome(&bench.boot("stuck-a", "stuck-a").await?), "Succeeded/Succeeded");
    let newer = ImageSpec { id: "5c113a52-1d4f-4c7e-9a51-0b8f6a2d9e12".into(), name: "cos-stuck".into(), ..ImageSpec::default() };
    bench.site.add_image(&newer);
    bench.site.set_faults(&nodes[..1], &Faults { ignores_soft_off: true, ..Faults::default() });
    bench.template("stuck-b", &nodes, |object| object["spec"]["bootSets"][0]["path"] = json!(template::manifest_path(&newer))).await?;
    let mark = bench.mark();
    let ended = bench.boot("stuck-b", "stuck-b").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{ended:?}");
    assert_eq!(ended.status.unwrap().counts.power_cycled, 3);
    let commands = bench.commands(&mark, &nodes[0]);
    assert!(commands.on == 1 && commands.soft_off >= 1 && commands.force_off == 1, "{commands:?}");
    bench.assert_commands(&mark, &nodes[1..], Commands::ONE_CYCLE);
    Ok(())
}
