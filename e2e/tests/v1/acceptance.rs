//! What BOS v1 got wrong: its acceptance scenarios, with the result that is right.

use std::ops::Range;
use std::slice::from_ref;

use bos_crds::BootSetPhaseName::{Boot, Configure, Shutdown};
use bos_e2e::rig::template;
use bos_e2e::site::{Faults, ImageSpec, InitialState, Match, OutageKind, OutageSpec, Service, When};
use kube::ResourceExt as _;
use rustix::process::Signal;
use serde_json::json;

use crate::agents::{exit_code, failures, phase, runs, said, session, session_with};
use crate::bench::{Bench, Commands, LIMIT, Result, outcome};

/// Boot of five nodes, of which one is on, one comes up, one does not, one is refused and one cannot be reached.
pub async fn five_nodes(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let [on, good, silent, refused, dead] = nodes.as_slice() else { panic!("five") };
    bench.site.power(from_ref(on), true);
    bench.site.set_faults(from_ref(silent), &Faults { never_boots: true, ..Faults::default() });
    bench.site.set_faults(from_ref(refused), &Faults { power_on_error: Some("Failure: no power".into()), ..Faults::default() });
    bench.site.set_faults(from_ref(dead), &Faults { bmc_undefined: true, ..Faults::default() });
    bench.template("five", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let ended = bench.run_v1("five", "five", "Boot").await?;
    assert_eq!(outcome(&ended), "PartiallyFailed/NodesFailed", "{}", said(&ended));
    assert_eq!(failures(&ended), ["1 AlreadyOn", "1 BootTimeout", "1 PowerOnTimeout", "1 PowerUnknown"]);
    let groups = ended.status.clone().unwrap().failures;
    let words = |reason: &str| groups.iter().find(|group| group.reason == reason).map(|group| group.message.clone()).unwrap_or_default();
    assert!(words("PowerOnTimeout").contains("no power"), "{}", words("PowerOnTimeout"));
    assert!(words("BootTimeout").contains("HSM did not say Ready"), "{}", words("BootTimeout"));
    let excluded = ["1 AlreadyOn", "1 BootTimeout", "1 PowerOnTimeout", "1 PowerUnknown"].map(str::to_owned).to_vec();
    assert_eq!(phase(&ended, Boot), ([0, 0, 1, 3, 1], excluded.clone()));
    assert_eq!(phase(&ended, Configure), ([0, 0, 1, 0, 4], excluded));
    bench.assert_commands(&mark, from_ref(on), Commands::NONE);
    bench.assert_commands(&mark, from_ref(good), Commands::ONE_ON);
    bench.assert_commands(&mark, from_ref(silent), Commands::ONE_ON);
    assert_eq!(exit_code(&bench.pods_of("five").await?[0]), Some(10));
    // A Job that failed says so, and is not tried again.
    bench.job("five", |job| json!(job.status)["conditions"][0]["reason"].as_str().is_some()).await?;
    assert_eq!(bench.pods_of("five").await?.len(), 1);
    bench.site.set_faults(&nodes, &Faults::default());
    Ok(())
}

/// Boot of nodes that are on: nothing is done, and it ends.
pub async fn all_on(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.power(&nodes, true);
    bench.template("all-on", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let ended = bench.run_v1("all-on", "all-on", "Boot").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    let count = i32::try_from(nodes.len())?;
    assert_eq!(phase(&ended, Boot), ([0, 0, 0, 0, count], vec![format!("{count} AlreadyOn")]));
    assert!(bench.changing_calls_to(&mark, &nodes).is_empty(), "{:?}", bench.changing_calls_to(&mark, &nodes));
    Ok(())
}

/// CFS fails one node and is slow with another, which is waited for.
pub async fn slow_configuration(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let [bad, slow, ..] = nodes.as_slice() else { panic!("two") };
    bench.site.set_faults(from_ref(bad), &Faults { cfs_fails: true, ..Faults::default() });
    bench.site.set_faults(from_ref(slow), &Faults { cfs_pending: true, ..Faults::default() });
    bench.template("slow", &nodes, |_| {}).await?;
    bench.rig.apply(&session("slow", "slow", "Boot")).await?;
    let rest = i32::try_from(nodes.len())? - 1;
    bench.rig.wait_session("slow", |seen| seen.status.as_ref().is_some_and(|status| status.counts.done == rest), LIMIT).await?;
    bench.site.set_faults(from_ref(slow), &Faults::default());
    // CFS takes the node up again.
    let url = format!("{}/components/{slow}", bench.rig.site_urls().cfs);
    reqwest::Client::new().patch(url).json(&json!({"enabled": true, "error_count": 0})).send().await?.error_for_status()?;
    let ended = bench.ended_v1("slow").await?;
    assert_eq!(outcome(&ended), "PartiallyFailed/NodesFailed", "{}", said(&ended));
    assert_eq!(failures(&ended), ["1 ConfigurationFailed"]);
    assert_eq!(phase(&ended, Boot).0, [0, 0, rest + 1, 0, 0]);
    assert_eq!(phase(&ended, Configure), ([0, 0, rest, 1, 0], vec!["1 ConfigurationFailed".to_owned()]));
    bench.site.set_faults(&nodes, &Faults::default());
    Ok(())
}

/// A node that does not go off fails, after it was asked and then forced.
pub async fn stuck_shutdown(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.power(&nodes, true);
    bench.site.set_faults(from_ref(&nodes[0]), &Faults { ignores_power_off: true, ..Faults::default() });
    bench.template("stuck", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let ended = bench.run_v1("stuck", "stuck", "Shutdown").await?;
    assert_eq!(outcome(&ended), "PartiallyFailed/NodesFailed", "{}", said(&ended));
    let rest = i32::try_from(nodes.len())? - 1;
    assert_eq!(phase(&ended, Shutdown), ([0, 0, rest, 1, 0], vec!["1 PowerOffTimeout".to_owned()]));
    bench.assert_commands(&mark, from_ref(&nodes[0]), Commands { soft_off: 1, force_off: 1, on: 0 });
    bench.site.set_faults(&nodes, &Faults::default());
    Ok(())
}

/// HSM goes on calling nodes Ready that were switched off: each is judged by itself, and none is left off for it.
pub async fn stale_ready(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("stale", &nodes, |_| {}).await?;
    assert_eq!(outcome(&bench.run_v1("stale-first", "stale", "Boot").await?), "Succeeded/Succeeded");
    bench.site.configure(|settings| settings.state_follows_power = false);
    let mark = bench.mark();
    bench.rig.apply(&session("stale", "stale", "Reboot")).await?;
    let ended = bench.ended_v1("stale").await;
    bench.site.configure(|settings| settings.state_follows_power = true);
    let ended = ended?;
    bench.assert_commands(&mark, &nodes, Commands::ONE_CYCLE);
    assert!(nodes.iter().all(|node| bench.site.node(node).unwrap().power), "nodes were left off");
    let count = i32::try_from(nodes.len())?;
    assert_eq!(phase(&ended, Shutdown).0, [0, 0, count, 0, 0]);
    assert_eq!(phase(&ended, Boot), ([0, 0, 0, count, 0], vec![format!("{count} BootTimeout")]));
    assert!(ended.status.unwrap().failures[0].message.contains("Ready all along"));
    Ok(())
}

/// A shutdown needs no configuration.
pub async fn without_configuration(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.power(&nodes, true);
    let bare = |object: &mut serde_json::Value| {
        object["spec"]["cfs"] = json!(null);
        object["spec"]["enableCfs"] = json!(false);
    };
    bench.template("bare", &nodes, bare).await?;
    let ended = bench.run_v1("bare", "bare", "Shutdown").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    assert!(nodes.iter().all(|node| !bench.site.node(node).unwrap().power));
    // A Boot of it has no phase of configuration.
    let ended = bench.run_v1("bare-boot", "bare", "Boot").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    let phases = ended.status.unwrap().boot_sets[0].phases.clone();
    assert_eq!(phases.iter().map(|phase| phase.name).collect::<Vec<_>>(), [Boot]);
    Ok(())
}

/// One locked node is left out, and only that.
pub async fn locked(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_locked(from_ref(&nodes[0]), true);
    bench.template("locked", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let ended = bench.run_v1("locked", "locked", "Boot").await?;
    bench.site.set_locked(from_ref(&nodes[0]), false);
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    let excluded = ended.status.unwrap().excluded;
    assert_eq!((excluded[0].reason.as_str(), excluded[0].count), ("LockedInHSM", 1));
    bench.assert_commands(&mark, from_ref(&nodes[0]), Commands::NONE);
    bench.assert_commands(&mark, &nodes[1..], Commands::ONE_ON);
    Ok(())
}

/// The Session is deleted while its agent works: the Job goes, the nodes are let go, and nothing of it comes back.
pub async fn deleted(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes, &Faults { never_boots: true, ..Faults::default() });
    bench.template("deleted", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&session("deleted", "deleted", "Boot")).await?;
    bench.at_site("nodes have power", |site| nodes.iter().all(|node| site.node(node).is_some_and(|node| node.power))).await?;
    let uid = bench.rig.session("deleted").await?.and_then(|found| found.uid()).unwrap_or_default();
    bench.rig.kubectl(&["delete", "sessions.bos.hpe.com", "deleted", "-n", "bos", "--wait=true"]).await?;
    bench.no_job("deleted").await?;
    let gone = async {
        while !bench.records(&uid).await?.is_empty() {
            tokio::task::yield_now().await;
        }
        Result::Ok(())
    };
    tokio::time::timeout(LIMIT, gone).await??;
    let let_go = |all: &std::collections::BTreeMap<String, bos_crds::BootComponent>| {
        nodes.iter().all(|node| all.get(node).and_then(|found| found.status.as_ref()).is_some_and(|status| !status.enabled))
    };
    bench.rig.wait_components(let_go, LIMIT).await?;
    for component in bench.components(&nodes).await? {
        let last = component.status.unwrap().last_session.unwrap();
        assert_eq!((last.uid.as_str(), last.outcome.as_str()), (uid.as_str(), "Cancelled"));
    }
    assert!(bench.rig.session("deleted").await?.is_none());
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    bench.site.set_faults(&nodes, &Faults::default());
    Ok(())
}

/// The pod is killed while nodes boot: the next one goes on, and what was done is not done again.
pub async fn pod_killed(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let late = &nodes[nodes.len() / 2..];
    for node in late {
        bench.site.add_outage(OutageSpec::new(Service::Bss, OutageKind::Unavailable).on_path(format!("bootscript?name={node}")));
    }
    bench.template("killed", &nodes, |_| {}).await?;
    let mark = bench.mark();
    bench.rig.apply(&session("killed", "killed", "Boot")).await?;
    let half = i32::try_from(nodes.len() / 2)?;
    bench.rig.wait_session("killed", |seen| seen.status.as_ref().is_some_and(|status| status.counts.succeeded >= half), LIMIT).await?;
    let pod = bench.pod("killed", runs).await?;
    bench.rig.node_agent().unwrap().kill(&pod, Signal::KILL)?;
    // They come up while nobody looks.
    bench.site.clear_outages();
    let ended = bench.ended_v1("killed").await?;
    let logs = bench.logs("killed").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}\n{logs}", said(&ended));
    let pods = bench.pods_of("killed").await?;
    assert_eq!(pods.iter().map(exit_code).collect::<Vec<_>>(), [Some(137), Some(0)]);
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    // Of finished nodes the second pod told CFS and BSS nothing.
    let log = bench.rig.node_agent().unwrap().log_text(&pods[1])?;
    assert!(log.contains(&format!("open={}", nodes.len() / 2)), "{log}");
    Ok(())
}

/// Limits that v1 read wrongly are refused in words, or mean what they say.
pub async fn limits(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("limits", &nodes, |_| {}).await?;
    let spaced = format!("{}, {}", nodes[0], nodes[1]);
    for (number, limit) in [spaced, format!("{},", nodes[0])].into_iter().enumerate() {
        let object = session_with(&format!("limit-{number}"), "limits", "Boot", &json!({"limit": limit}));
        let refused = bench.rig.apply(&object).await.unwrap_err();
        assert!(format!("{refused:#}").contains("no blanks and no empty items"), "{refused:#}");
    }
    // What begins with "!" means all the others.
    let mark = bench.mark();
    bench.rig.apply(&session_with("limit-not", "limits", "Boot", &json!({"limit": format!("!{}", nodes[0])}))).await?;
    let ended = bench.ended_v1("limit-not").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    bench.assert_commands(&mark, from_ref(&nodes[0]), Commands::NONE);
    bench.assert_commands(&mark, from_ref(&nodes[1]), Commands::ONE_ON);
    Ok(())
}

/// CFS refuses to take the configuration for a while: it is told again, and no node is called configured before.
pub async fn configuration_away(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("cfs-away", &nodes, |_| {}).await?;
    bench.site.add_outage(OutageSpec::new(Service::Cfs, OutageKind::Unavailable).on_method("PATCH").times(3));
    let ended = bench.run_v1("cfs-away", "cfs-away", "Boot").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    for node in &nodes {
        assert_eq!(bench.site.node(node).unwrap().cfs_status.as_deref(), Some("configured"));
    }
    bench.site.clear_outages();
    Ok(())
}

/// CAPMC answers with a good status and an error in it: nobody has succeeded by that.
pub async fn capmc_error(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_state(&nodes, &InitialState::Off);
    bench.template("e500", &nodes, |_| {}).await?;
    let outage = bench.site.add_outage(OutageSpec::new(Service::Capmc, OutageKind::StoreDown));
    let mark = bench.mark();
    bench.rig.apply(&session("e500", "e500", "Boot")).await?;
    bench.pod("e500", runs).await?;
    // A call that fails changes nothing at the site that could be waited for.
    let asked = async {
        while !bench.calls_since(&mark).iter().any(|call| call.service == Service::Capmc) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, asked).await?;
    let seen = bench.rig.session("e500").await?.unwrap().status.unwrap();
    assert_eq!((seen.counts.succeeded, seen.counts.done), (0, 0), "{seen:?}");
    bench.site.clear_outage(outage);
    let ended = bench.ended_v1("e500").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    Ok(())
}

/// Where SSH is asked for too, Ready alone does not do: Ansible could not get in.
pub async fn ssh(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.rig.set_options(&json!({"v1SshCheck": true})).await?;
    bench.template("ssh", &nodes, |_| {}).await?;
    let ended = bench.run_v1("ssh", "ssh", "Boot").await?;
    bench.rig.set_options(&json!({"v1SshCheck": false})).await?;
    assert_eq!(outcome(&ended), "Failed/NodesFailed", "{}", said(&ended));
    assert!(nodes.iter().all(|node| bench.site.node(node).unwrap().up));
    assert!(ended.status.unwrap().failures[0].message.contains("port 22 (SSH) was not reached"));
    Ok(())
}

/// What the nodes of one boot set are to boot is gone when the agent begins: they are not touched, and the other boot set goes on.
pub async fn artifacts_gone(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let (good, bad) = nodes.split_at(nodes.len() / 2);
    let other = ImageSpec { id: "eeee3a52-1d4f-4c7e-9a51-0b8f6a2d9e12".into(), ..ImageSpec::default() };
    bench.site.add_image(&other);
    let two = |object: &mut serde_json::Value| {
        let mut second = object["spec"]["bootSets"][0].clone();
        object["spec"]["bootSets"][0]["nodeList"] = json!(good);
        (second["name"], second["nodeList"]) = (json!("second"), json!(bad));
        second["path"] = json!(template::manifest_path(&other));
        object["spec"]["bootSets"] = json!([object["spec"]["bootSets"][0], second]);
    };
    bench.template("gone", &nodes, two).await?;
    let mark = bench.mark();
    let kernel = format!("{}/kernel", other.id);
    let mut hook = bench.site.on(Match::new(Service::S3, "HEAD").path(&kernel), When::Before);
    bench.rig.apply(&session("gone", "gone", "Boot")).await?;
    loop {
        let held = tokio::time::timeout(LIMIT, hook.reached()).await?.expect("the site runs");
        // The operator looks before there is a pod.
        let by_agent = !bench.pods_of("gone").await?.is_empty();
        if by_agent {
            assert!(bench.site.remove_object("boot-images", &kernel));
        } else {
            hook = bench.site.on(Match::new(Service::S3, "HEAD").path(&kernel), When::Before);
        }
        held.release();
        if by_agent {
            break;
        }
    }
    let ended = bench.ended_v1("gone").await?;
    assert_eq!(outcome(&ended), "PartiallyFailed/NodesFailed", "{}", said(&ended));
    assert_eq!(failures(&ended), [format!("{} ArtifactsMissing", bad.len())]);
    bench.assert_commands(&mark, good, Commands::ONE_ON);
    bench.assert_commands(&mark, bad, Commands::NONE);
    Ok(())
}

/// Each of many nodes is booted once and shown, and what they report is kept when the Session is over.
pub async fn many(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("many", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let ended = bench.run_v1("many", "many", "Boot").await?;
    let count = i32::try_from(nodes.len())?;
    assert_eq!(ended.status.as_ref().map(|status| status.counts.succeeded), Some(count), "{}", said(&ended));
    bench.assert_commands(&mark, &nodes, Commands::ONE_ON);
    assert_eq!(phase(&ended, Configure).0, [0, 0, count, 0, 0]);
    bench.at_site("the reports are answered 200", |site| site.all_acknowledged(&nodes)).await?;
    for component in bench.components(&nodes).await? {
        let status = component.status.unwrap();
        assert_eq!((status.tries.as_str(), status.last_session.map(|last| last.outcome)), ("1/1", Some("Succeeded".into())));
    }
    Ok(())
}
