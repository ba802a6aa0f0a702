//! The life of a site: boot, boot again, another image, and all the ways in which something must not start.

use bos_crds::{BootComponent, labels};
use bos_e2e::rig::{NAMESPACE, template};
use bos_e2e::site::ImageSpec;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

use crate::bench::{Bench, Commands, LIMIT, Result, outcome};

/// Boot set `compute` and boot set `uan`, which has a configuration of its own.
fn boot_sets(compute: &ImageSpec) -> Value {
    let mut uan = template::compute(&ImageSpec::default());
    uan["name"] = json!("uan");
    uan["nodeRolesGroups"] = json!(["Application_UAN"]);
    uan["cfs"] = json!({"configuration": "uan-3.3.12"});
    json!([template::compute(compute), uan])
}

/// What must hold of every node after a boot that went well.
fn assert_stable(components: &[BootComponent]) {
    for component in components {
        let status = serde_json::to_value(&component.status).unwrap();
        let name = component.metadata.name.as_deref().unwrap_or_default();
        assert_eq!(
            (&status["status"], &status["power"], &status["enabled"]),
            (&json!("Stable"), &json!("On"), &json!(false)),
            "{name}: {status}"
        );
    }
}

pub async fn two_boot_sets(bench: &Bench) -> Result {
    let (mark, before) = (bench.mark(), bench.rig.control_plane().request_totals().await?);
    bench.rig.apply(&template::with_boot_sets("cos-3.3.12", &boot_sets(&ImageSpec::default())).to_string()).await?;
    let ended = bench.boot("boot-1", "cos-3.3.12").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded");
    let status = ended.status.unwrap();
    assert_eq!((status.counts.nodes, status.counts.done, status.counts.succeeded, status.counts.failed), (32, 32, 32, 0));
    assert_eq!((status.counts.power_cycled, status.counts.left_running, status.progress.as_str()), (0, 0, "100%"));
    let sets: Vec<_> = status.boot_sets.iter().map(|set| (set.name.as_str(), set.configuration.as_str(), set.nodes)).collect();
    assert_eq!(sets, [("compute", "cos-3.3.12", 30), ("uan", "uan-3.3.12", 2)]);
    bench.assert_commands(&mark, &bench.site.xnames(), Commands::ONE_ON);
    for node in bench.site.nodes() {
        let expected = if node.xname.starts_with("x3000") { "uan-3.3.12" } else { "cos-3.3.12" };
        assert_eq!((node.cfs_desired.as_deref(), node.cfs_status.as_deref()), (Some(expected), Some("configured")), "{}", node.xname);
    }
    let components = bench.rig.components().await?;
    assert_stable(&components);
    let writes = bench.rig.control_plane().request_totals().await?.since(&before).writes();
    let of_nodes: u64 = writes.0.iter().filter(|(kind, _)| kind.resource.starts_with("bootcomponents")).map(|(_, count)| count).sum();
    println!("   {of_nodes} writes of BootComponents for 32 nodes: {writes:?}");
    assert!(of_nodes <= 4 * 32, "{writes:?}");
    Ok(())
}

pub async fn same_image(bench: &Bench) -> Result {
    let mark = bench.mark();
    let ended = bench.boot("boot-2", "cos-3.3.12").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded");
    let counts = ended.status.unwrap().counts;
    assert_eq!((counts.succeeded, counts.power_cycled, counts.left_running), (32, 0, 0));
    bench.assert_commands(&mark, &bench.site.xnames(), Commands::NONE);
    Ok(())
}

pub async fn another_image(bench: &Bench) -> Result {
    let newer = ImageSpec { id: "8a1b3a52-1d4f-4c7e-9a51-0b8f6a2d9e11".into(), name: "cos-3.3.13".into(), ..ImageSpec::default() };
    bench.site.add_image(&newer);
    bench.rig.apply(&template::with_boot_sets("cos-3.3.13", &boot_sets(&newer)).to_string()).await?;
    let mark = bench.mark();
    let ended = bench.boot("boot-3", "cos-3.3.13").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded");
    let counts = ended.status.unwrap().counts;
    assert_eq!((counts.succeeded, counts.power_cycled), (32, 30));
    bench.assert_commands(&mark, &bench.nodes(0..30), Commands::ONE_CYCLE);
    bench.assert_commands(&mark, &bench.nodes(30..32), Commands::NONE);
    let kernels: Vec<_> = bench.site.nodes().into_iter().take(30).map(|node| node.kernel).collect();
    assert!(kernels.iter().all(|kernel| kernel.as_deref().is_some_and(|kernel| kernel.contains(&newer.id))), "{kernels:?}");
    assert_stable(&bench.rig.components().await?);
    Ok(())
}

/// The same nodes through the other operations: rebooted, given another configuration, shut down.
pub async fn other_operations(bench: &Bench) -> Result {
    let run = async |name: &str, operation: &str| -> Result<_> {
        bench.rig.apply(&template::session(name, "cos-3.3.13", operation)).await?;
        bench.ended(name).await
    };
    let mark = bench.mark();
    let ended = run("reboot-1", "Reboot").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded");
    assert_eq!(ended.status.unwrap().counts.power_cycled, 32);
    bench.assert_commands(&mark, &bench.site.xnames(), Commands::ONE_CYCLE);
    assert_stable(&bench.rig.components().await?);

    bench.site.add_configuration("cos-next");
    let mut sets = boot_sets(&ImageSpec::default());
    sets[0]["cfs"] = json!({"configuration": "cos-next"});
    bench.rig.apply(&template::with_boot_sets("next", &sets).to_string()).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session("configure-1", "next", "Configure")).await?;
    assert_eq!(outcome(&bench.ended("configure-1").await?), "Succeeded/Succeeded");
    bench.assert_commands(&mark, &bench.site.xnames(), Commands::NONE);
    let configured = |node: &bos_e2e::site::NodeView| (node.cfs_desired.clone().unwrap_or_default(), node.cfs_status.clone());
    let compute: Vec<_> = bench.site.nodes().iter().filter(|node| node.xname.starts_with("x1000")).map(configured).collect();
    assert!(compute.iter().all(|of| *of == ("cos-next".to_owned(), Some("configured".to_owned()))), "{compute:?}");

    let mark = bench.mark();
    assert_eq!(outcome(&run("shutdown-1", "Shutdown").await?), "Succeeded/Succeeded");
    assert!(bench.site.nodes().iter().all(|node| !node.power));
    bench.assert_commands(&mark, &bench.site.xnames(), Commands { soft_off: 1, ..Commands::NONE });
    // Off already: nothing is asked of the power service, and of Configure neither.
    let mark = bench.mark();
    assert_eq!(outcome(&run("shutdown-2", "Shutdown").await?), "Succeeded/Succeeded");
    let ended = run("configure-2", "Configure").await?;
    assert_eq!(outcome(&ended), "Failed/NodesFailed");
    assert_eq!(ended.status.unwrap().failures[0].reason, "PoweredOff");
    bench.assert_commands(&mark, &bench.site.xnames(), Commands::NONE);
    // Up again for those who come after.
    assert_eq!(outcome(&run("boot-4", "Boot").await?), "Succeeded/Succeeded");
    Ok(())
}

/// A stored artifact set is kept while a node runs or wants it, and removed after that.
pub async fn unused_artifacts(bench: &Bench) -> Result {
    let node = &bench.nodes(0..1)[0];
    bench
        .template("of-one", std::slice::from_ref(node), |object| object["spec"]["bootSets"][0]["kernelParameters"] = json!("of-one=1"))
        .await?;
    assert_eq!(outcome(&bench.boot("boot-of-one", "of-one").await?), "Succeeded/Succeeded");
    let digest = async || -> Result<String> {
        let components = bench.components(std::slice::from_ref(node)).await?;
        let actual = components.into_iter().find_map(|component| component.status?.actual_state);
        Ok(actual.and_then(|actual| actual.artifacts).unwrap_or_default().to_string())
    };
    let maps: Api<ConfigMap> = Api::namespaced(bench.rig.client(), NAMESPACE);
    let first = labels::artifacts_name(&digest().await?);
    assert!(maps.get_opt(&first).await?.is_some(), "{first}");

    let spec = json!({"operation": "Boot", "templateName": "cos-3.3.13", "limit": node});
    bench.rig.apply(&template::session_with("boot-as-the-others", &spec)).await?;
    assert_eq!(outcome(&bench.ended("boot-as-the-others").await?), "Succeeded/Succeeded");
    let gone = await_condition(maps.clone(), &first, |object: Option<&ConfigMap>| object.is_none());
    tokio::time::timeout(LIMIT, gone).await.map_err(|_| anyhow::anyhow!("{first} is still there"))??;
    let others = labels::artifacts_name(&digest().await?);
    assert!(maps.get_opt(&others).await?.is_some(), "{others} is what the nodes run");
    Ok(())
}

pub async fn created_again(bench: &Bench) -> Result {
    bench.site.power(&bench.nodes(0..4), false);
    let mark = bench.mark();
    let again = bench.rig.apply(&template::session("boot-1", "cos-3.3.12", "Boot")).await?;
    assert!(again.contains("unchanged"), "{again}");
    bench.rig.kubectl(&["delete", "sessions.bos.hpe.com", "boot-1"]).await?;
    let ended = bench.boot("boot-1", "cos-3.3.12").await?;
    assert_eq!(outcome(&ended), "NotStarted/AlreadyRan");
    assert!(crate::bench::message(&ended).contains("give it a new name"), "{}", crate::bench::message(&ended));
    assert_eq!(bench.changing_calls(&mark).len(), 0, "{:?}", bench.changing_calls(&mark));
    bench.assert_commands(&mark, &bench.site.xnames(), Commands::NONE);
    Ok(())
}

/// What ended longer ago than the options say is removed, but not what a GitOps tool would create again.
pub async fn ended_long_ago(bench: &Bench) -> Result {
    bench.rig.kubectl(&["annotate", "session", "boot-3", "argocd.argoproj.io/tracking-id=app:bos/Session"]).await?;
    bench.rig.operator().stop().await;
    for name in ["boot-2", "boot-3"] {
        let status = json!({"status": {"endTime": "2020-01-01T00:00:00Z"}}).to_string();
        bench.rig.kubectl(&["patch", "session", name, "--subresource=status", "--type=merge", "-p", &status]).await?;
    }
    let names = format!("{}={}", labels::RECORD, labels::RECORD_SESSION_NAMES);
    bench.rig.kubectl(&["-n", NAMESPACE, "delete", "configmaps", "-l", &names]).await?;
    bench.rig.start_operator().await?;
    bench.rig.kubectl(&["wait", "session/boot-2", "--for=delete", "--timeout=60s"]).await?;
    assert!(bench.rig.session("boot-3").await?.is_some() && bench.rig.session("reboot-1").await?.is_some());
    // Somebody had deleted the names that ran; those of Sessions that are there are known again.
    bench.rig.kubectl(&["delete", "sessions.bos.hpe.com", "reboot-1"]).await?;
    let mark = bench.mark();
    bench.rig.apply(&template::session("reboot-1", "cos-3.3.13", "Reboot")).await?;
    assert_eq!(outcome(&bench.ended("reboot-1").await?), "NotStarted/AlreadyRan");
    bench.assert_commands(&mark, &bench.site.xnames(), Commands::NONE);
    Ok(())
}

/// A backup knows no status: everything comes back as if it had never been looked at.
pub async fn restored(bench: &Bench) -> Result {
    let kinds = "sessiontemplates.bos.hpe.com,sessions.bos.hpe.com,bootcomponents.bos.hpe.com";
    let mut backup: Value = serde_json::from_str(&bench.rig.kubectl(&["get", kinds, "-o", "json"]).await?)?;
    for item in backup["items"].as_array_mut().unwrap() {
        item.as_object_mut().unwrap().remove("status");
        for field in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"] {
            item["metadata"].as_object_mut().unwrap().remove(field);
        }
    }
    bench.site.power(&bench.nodes(0..4), false);
    let mark = bench.mark();
    bench.rig.operator().stop().await;
    bench.rig.kubectl(&["delete", kinds, "--all"]).await?;
    bench.rig.apply(&backup.to_string()).await?;
    bench.rig.start_operator().await?;
    for name in ["boot-1", "boot-4"] {
        assert_eq!(outcome(&bench.ended(name).await?), "NotStarted/AlreadyRan", "{name}");
    }
    // All have been looked at, and none is driven.
    let observed = |component: &BootComponent| component.status.as_ref().is_some_and(|status| status.is_observed() && !status.enabled);
    bench.rig.wait_components(|all| all.len() == 32 && all.values().all(observed), LIMIT).await?;
    assert_eq!(bench.changing_calls(&mark).len(), 0, "{:?}", bench.changing_calls(&mark));
    bench.assert_commands(&mark, &bench.site.xnames(), Commands::NONE);
    Ok(())
}
