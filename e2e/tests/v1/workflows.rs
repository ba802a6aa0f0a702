//! The published workflows of BOS v1, each step where it leaves a trace.

use std::ops::Range;

use bos_crds::{BootSetPhaseName, Session, labels};
use bos_e2e::site::{CallRecord, Service};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use crate::agents::{exit_code, phase, runs, said, session};
use crate::bench::{Bench, Commands, Mark, Result, condition, outcome};

/// The calls to one service since then, oldest first: method and path.
fn calls(bench: &Bench, mark: &Mark, service: Service) -> Vec<CallRecord> {
    bench.calls_since(mark).into_iter().filter(|call| call.service == service).collect()
}

/// When the first call to a service came that does this.
fn first(bench: &Bench, mark: &Mark, service: Service, what: &str) -> f64 {
    let does = |call: &CallRecord| format!("{} {} {}", call.method, call.path, call.body).contains(what);
    let found = calls(bench, mark, service).into_iter().find(does);
    found.unwrap_or_else(|| panic!("no call to {} with {what}: {:?}", service.name(), calls(bench, mark, service))).at
}

fn started(pod: &Pod) -> bool {
    runs(pod) || exit_code(pod).is_some()
}

/// Applies the Session; returns once its pod has begun, with a mark at that moment.
async fn launched(bench: &Bench, name: &str, operation: &str) -> Result<(Session, Mark)> {
    bench.rig.apply(&session(name, "v1", operation)).await?;
    let found = bench.rig.session(name).await?.expect("it was applied");
    let job = bench.job(name, |job| job.spec.as_ref().is_some_and(|spec| spec.suspend == Some(false))).await?;
    // A Job of its own, known by its name, owned by the plan, with rights and user of its own.
    assert_eq!(job.name_any(), labels::job_name(name, &found.uid().unwrap_or_default()));
    let owner = &job.owner_references()[0];
    assert_eq!((owner.kind.as_str(), owner.name.as_str()), ("ConfigMap", labels::plan_name(&found.uid().unwrap_or_default(), 0).as_str()));
    assert_eq!(job.labels().get(labels::OPERATION).map(String::as_str), Some(operation));
    let spec = serde_json::to_value(&job.spec)?;
    assert_eq!((&spec["podReplacementPolicy"], &spec["backoffLimit"]), (&json!("Failed"), &json!(6)));
    assert!(spec["activeDeadlineSeconds"].is_i64() && spec["ttlSecondsAfterFinished"].is_i64(), "{spec}");
    let pod = &spec["template"]["spec"];
    assert_eq!((&pod["serviceAccountName"], &pod["restartPolicy"]), (&json!("bos-agent"), &json!("Never")));
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    bench.pod(name, started).await?;
    Ok((found, bench.mark()))
}

/// The administrator powers compute nodes on and has them configured.
pub async fn boot(bench: &Bench, range: Range<usize>) -> Result {
    // 1. The administrator creates a configuration; 2. a session template; 3. a session; 4. BOA is launched.
    let nodes = bench.nodes(range);
    bench.site.add_configuration("v1-configuration");
    let configured = |object: &mut serde_json::Value| object["spec"]["cfs"] = json!({"configuration": "v1-configuration"});
    bench.template("v1", &nodes, configured).await?;
    let before = bench.mark();
    let (_, mark) = launched(bench, "v1-boot", "Boot").await?;
    let ended = bench.ended_v1("v1-boot").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    // 5. BOA to HSM: nodes, groups and their state; 6. BOA to S3: kernel, initrd and root file system.
    first(bench, &mark, Service::Hsm, "GET /hsm/v2/groups");
    first(bench, &mark, Service::Hsm, "GET /hsm/v2/State/Components");
    for artifact in ["kernel", "initrd", "rootfs"] {
        first(bench, &mark, Service::S3, artifact);
    }
    // 7. BOA to BSS: before 8. BOA to CAPMC, which 9. boots the nodes; 10. they get their boot script from BSS and 11. boot.
    let (parameters, power) = (first(bench, &mark, Service::Bss, "PUT"), first(bench, &mark, Service::Capmc, "xname_on"));
    assert!(parameters < power, "boot parameters at {parameters}, power at {power}");
    bench.assert_commands(&before, &nodes, Commands::ONE_ON);
    for node in &nodes {
        let node = bench.site.node(node).unwrap();
        assert!(node.up && node.token.is_some(), "{node:?}");
        // 13. BOA to CFS; 14. CFS applies the configuration.
        assert_eq!((node.cfs_desired.as_deref(), node.cfs_status.as_deref()), (Some("v1-configuration"), Some("configured")));
    }
    // 12. BOA waits for HSM to call the nodes Ready.
    let states = calls(bench, &mark, Service::Hsm).into_iter().filter(|call| call.at > power && call.path.contains("State/Components"));
    assert!(states.count() > 0, "HSM was not asked for the states of the nodes");
    let all = [0, 0, i32::try_from(nodes.len())?, 0, 0];
    assert_eq!(phase(&ended, BootSetPhaseName::Boot), (all, Vec::new()));
    assert_eq!(phase(&ended, BootSetPhaseName::Configure), (all, Vec::new()));
    assert_eq!(condition(&ended, "Agent"), ("False".to_owned(), "AgentEnded".to_owned()));
    shown_and_cleared(bench, "v1-boot", &ended, 0).await?;
    for component in bench.components(&nodes).await? {
        let status = json!(component.status);
        let shown = (&status["status"], &status["power"], &status["attempts"]["powerOn"], &status["lastSession"]["outcome"]);
        assert_eq!(shown, (&json!("Stable"), &json!("On"), &json!(1), &json!("Succeeded")), "{status}");
    }
    Ok(())
}

/// The log tells the story, the exit code the end, and of the records nothing is left; Job and log stay for people.
async fn shown_and_cleared(bench: &Bench, name: &str, ended: &Session, code: i32) -> Result {
    let pods = bench.pods_of(name).await?;
    assert_eq!(pods.iter().map(exit_code).collect::<Vec<_>>(), [Some(code)]);
    let log = bench.logs(name).await?;
    for line in ["carrying out", "sending", "session carried out", "ended"] {
        assert!(log.contains(line), "no {line:?} in the log:\n{log}");
    }
    let uid = ended.uid().unwrap_or_default();
    let maps: Api<ConfigMap> = Api::namespaced(bench.rig.client(), bos_e2e::rig::NAMESPACE);
    let plan = labels::plan_name(&uid, 0);
    let gone = kube::runtime::wait::await_condition(maps, &plan, |plan: Option<&ConfigMap>| plan.is_none());
    tokio::time::timeout(crate::bench::LIMIT, gone).await??;
    let left = bench.records(&uid).await?;
    assert!(left.is_empty(), "{left:?}");
    bench.job(name, |job| job.owner_references().is_empty()).await?;
    Ok(())
}

/// The administrator reconfigures nodes that are up.
pub async fn reconfigure(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.add_configuration("v1-next");
    bench.template("v1", &nodes, |object| object["spec"]["cfs"] = json!({"configuration": "v1-next"})).await?;
    let before = bench.mark();
    let (_, mark) = launched(bench, "v1-configure", "Configure").await?;
    let ended = bench.ended_v1("v1-configure").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    // BOA to HSM, then to CFS; CFS applies the configuration and tells BOA the results.
    first(bench, &mark, Service::Hsm, "GET /hsm/v2/State/Components");
    let (told, read) = (first(bench, &mark, Service::Cfs, "PATCH"), first(bench, &mark, Service::Cfs, "GET"));
    assert!(told.is_finite() && read.is_finite());
    for node in &nodes {
        let node = bench.site.node(node).unwrap();
        assert_eq!((node.cfs_desired.as_deref(), node.cfs_status.as_deref()), (Some("v1-next"), Some("configured")));
    }
    bench.assert_commands(&before, &nodes, Commands::NONE);
    assert_eq!(phase(&ended, BootSetPhaseName::Configure).0, [0, 0, i32::try_from(nodes.len())?, 0, 0]);
    shown_and_cleared(bench, "v1-configure", &ended, 0).await
}

/// The administrator powers nodes off.
pub async fn power_off(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let before = bench.mark();
    let (_, mark) = launched(bench, "v1-shutdown", "Shutdown").await?;
    let ended = bench.ended_v1("v1-shutdown").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded", "{}", said(&ended));
    // BOA to HSM, then to CAPMC; CAPMC powers the nodes off and tells BOA the results.
    let (hsm, off) = (first(bench, &mark, Service::Hsm, "GET /hsm/v2/State"), first(bench, &mark, Service::Capmc, "xname_off"));
    assert!(hsm < off, "HSM at {hsm}, CAPMC at {off}");
    assert!(first(bench, &mark, Service::Capmc, "get_xname_status").is_finite());
    bench.assert_commands(&before, &nodes, Commands { soft_off: 1, ..Commands::NONE });
    assert!(nodes.iter().all(|node| !bench.site.node(node).unwrap().power));
    assert_eq!(phase(&ended, BootSetPhaseName::Shutdown).0, [0, 0, i32::try_from(nodes.len())?, 0, 0]);
    shown_and_cleared(bench, "v1-shutdown", &ended, 0).await
}
