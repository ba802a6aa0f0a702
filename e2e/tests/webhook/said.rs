//! One case for each thing that admission has to say.

use bos_e2e::rig::{NAMESPACE, Rig, template};
use bos_e2e::site::{Faults, ImageDefect, ImageSpec, OutageKind, OutageSpec, Service};
use serde_json::{Value, json};

use crate::bench::{Bench, LIMIT, Result, outcome};
use crate::golden::Golden;

const ARM_IMAGE: &str = "aaaa3a52-1d4f-4c7e-9a51-0b8f6a2d9e12";
const OTHER_IMAGE: &str = "bbbb3a52-1d4f-4c7e-9a51-0b8f6a2d9e12";
const BROKEN_IMAGE: &str = "cccc3a52-1d4f-4c7e-9a51-0b8f6a2d9e12";

fn image(id: &str) -> ImageSpec {
    ImageSpec { id: id.into(), ..ImageSpec::default() }
}

/// A template `t` whose one boot set is changed.
fn changed(change: impl FnOnce(&mut Value)) -> Value {
    let mut boot_set = template::compute(&ImageSpec::default());
    change(&mut boot_set);
    template::with_boot_sets("t", &json!([boot_set]))
}

fn session(spec: Value) -> Value {
    serde_json::from_str(&template::session_with("s", &spec)).unwrap()
}

pub async fn templates(bench: &Bench, golden: &Golden) -> Result {
    bench.site.add_image(&ImageSpec { arch: "aarch64".into(), ..image(ARM_IMAGE) });
    bench.site.add_image(&ImageSpec { defect: Some(ImageDefect::MissingKernelObject), ..image(BROKEN_IMAGE) });
    golden.says(bench, "a good template", &changed(|_| {})).await?;
    let several = changed(|set| {
        set["rootfsProvider"] = json!("nfs");
        set["nodeGroups"] = json!(["blue,green"]);
        set["nodeRolesGroups"] = json!(["Compute Application"]);
    });
    golden.says(bench, "several mistakes of a template at once", &several).await?;
    let arm = changed(|set| set["path"] = json!(template::manifest_path(&image(ARM_IMAGE))));
    golden.says(bench, "an image for another architecture", &arm).await?;
    let missing = changed(|set| set["path"] = json!("s3://boot-images/not-there/manifest.json"));
    golden.says(bench, "an image that is not there yet", &missing).await?;
    let broken = changed(|set| set["path"] = json!(template::manifest_path(&image(BROKEN_IMAGE))));
    golden.says(bench, "an image without its kernel", &broken).await?;
    let mut configuration = changed(|_| {});
    configuration["spec"]["cfs"]["configuration"] = json!("cos-9.9.9");
    golden.says(bench, "a configuration that CFS does not know", &configuration).await?;
    let mangled = changed(|set| set["kernelParameters"] = json!("initrd=x xname=x1 ds=nocloud root=live bss_referral_token=1"));
    golden.says(bench, "kernel parameters that BSS would mangle", &mangled).await?;
    let provider = changed(|set| set["rootfsProviderPassthrough"] = json!("dvs:api"));
    golden.says(bench, "parameters of the provider", &provider).await?;
    let many = json!(
        (0..14)
            .map(|n| {
                let mut set = template::compute(&ImageSpec::default());
                set["name"] = json!(format!("set-{n}"));
                set["etag"] = json!("\"quoted\"");
                set
            })
            .collect::<Vec<_>>()
    );
    golden.says(bench, "more warnings than are shown", &template::with_boot_sets("t", &many)).await
}

pub async fn sessions(bench: &Bench, golden: &Golden) -> Result {
    bench.rig.apply(&template::simple("cos")).await?;
    let boot = |limit: &str| session(json!({"operation": "Boot", "templateName": "cos", "limit": limit}));
    golden.says(bench, "a template that is not there yet", &session(json!({"operation": "Boot", "templateName": "later"}))).await?;
    golden.says(bench, "names in a limit that nobody knows", &boot("x1000,!Blue,aplication,nid000001,x9000c0s0b0n0")).await?;
    golden.says(bench, "a limit that leaves no node", &boot("x3000")).await?;
    golden.says(bench, "a limit that begins with an operator", &boot("!x1000c0s0b0n0")).await?;
    let several =
        json!({"mode": "v1", "operation": "Boot", "templateName": "cos", "retryOf": "never-was", "startBefore": "2020-01-01T00:00:00Z"});
    golden.says(bench, "several mistakes of a Session at once", &session(several)).await?;
    let mut tracked = session(json!({"operation": "Boot", "templateName": "cos"}));
    tracked["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": "site:bos.hpe.com/Session:bos/s"});
    golden.says(bench, "tracked by a GitOps tool without startBefore", &tracked).await?;
    tracked["spec"]["startBefore"] = json!("2020-01-01T00:00:00Z");
    golden.says(bench, "an old Session from Git", &tracked).await?;
    let mut elsewhere = session(json!({"operation": "Boot", "templateName": "cos"}));
    elsewhere["metadata"]["namespace"] = json!("default");
    golden.says(bench, "a namespace where Sessions are not acted on", &elsewhere).await?;
    golden
        .says(
            bench,
            "what the schema refuses itself",
            &session(json!({"operation": "Reboot", "templateName": "cos", "runningNodes": "Leave"})),
        )
        .await?;
    bench.rig.set_options(&json!({"rejectNids": true, "sessionLimitRequired": true})).await?;
    golden.says(bench, "NIDs where the site refuses them", &boot("nid000001,x1000")).await?;
    golden.says(bench, "no limit where the site asks for one", &session(json!({"operation": "Boot", "templateName": "cos"}))).await?;
    bench.rig.set_options(&json!({"rejectNids": false, "sessionLimitRequired": false})).await?;
    let mut bare: Value = serde_json::from_str(&template::simple("bare"))?;
    bare["spec"].as_object_mut().unwrap().remove("cfs");
    bench.rig.apply(&bare.to_string()).await?;
    golden.says(bench, "nothing to configure", &session(json!({"operation": "Configure", "templateName": "bare"}))).await?;
    let mut unfit: Value = serde_json::from_str(&template::simple("unfit"))?;
    unfit["spec"]["bootSets"][0]["path"] = json!(template::manifest_path(&image(BROKEN_IMAGE)));
    bench.rig.apply(&unfit.to_string()).await?;
    golden
        .says(bench, "a Session by a template without its kernel", &session(json!({"operation": "Boot", "templateName": "unfit"})))
        .await?;
    bench.rig.emergency_stop(true).await?;
    golden.says(bench, "while the stop switch is set", &boot("x1000c0s0b0n0")).await?;
    bench.rig.emergency_stop(false).await
}

/// Whoever creates a Session is named, whatever they claim, and stays.
pub async fn requested_by(bench: &Bench) -> Result {
    let control_plane = bench.rig.control_plane();
    let alice = control_plane.kubectl_command().with_kubeconfig(&control_plane.kubeconfig_for_user("alice", &["system:masters"])?);
    bench.template("who", &bench.nodes(0..2), |_| {}).await?;
    let mut object: Value = serde_json::from_str(&template::session("who", "who", "Boot"))?;
    object["metadata"]["annotations"] = json!({"bos.hpe.com/requested-by": "mallory"});
    alice.run_with_input(&["create", "-f", "-"], &object.to_string()).await?.ok()?;
    bench.rig.kubectl(&["annotate", "session", "who", "bos.hpe.com/requested-by=mallory", "--overwrite"]).await?;
    let ended = bench.ended("who").await?;
    assert_eq!(ended.metadata.annotations.as_ref().unwrap()["bos.hpe.com/requested-by"], "alice");
    assert_eq!(ended.status.as_ref().unwrap().requested_by.as_deref(), Some("alice"));
    assert_eq!(outcome(&ended), "Succeeded/Succeeded");
    Ok(())
}

pub async fn previews(bench: &Bench, golden: &Golden) -> Result {
    // Nodes 0 and 1 run the image since the case before.
    let boot = |template: &str| session(json!({"operation": "Boot", "templateName": template}));
    let nodes = bench.nodes(0..12);
    bench.site.set_locked(&nodes[10..11], true);
    bench.site.set_enabled(&nodes[11..12], false);
    bench.site.power(&nodes[2..3], true);
    golden.settle().await;
    golden.says(bench, "a boot where some run the image", &boot("cos")).await?;
    let mut other = template::compute(&image(OTHER_IMAGE));
    other["nodeList"] = json!(["x3000c0s0b0n0", "x9000c0s0b0n0"]);
    bench.site.add_image(&image(OTHER_IMAGE));
    bench.rig.apply(&template::with_boot_sets("other", &json!([other])).to_string()).await?;
    golden.says(bench, "a boot of another image, nodes excluded for many reasons", &boot("other")).await?;
    golden
        .says(
            bench,
            "a boot of another image with a bound",
            &session(json!({"operation": "Boot", "templateName": "other", "maxPowerCycled": 1})),
        )
        .await?;
    golden
        .says(
            bench,
            "a boot that leaves running nodes",
            &session(json!({"operation": "Boot", "templateName": "other", "runningNodes": "Leave"})),
        )
        .await?;
    for operation in ["Reboot", "Shutdown", "Configure"] {
        golden.says(bench, &format!("operation {operation}"), &session(json!({"operation": operation, "templateName": "cos"}))).await?;
    }
    golden.says(bench, "a staged reboot", &session(json!({"operation": "Reboot", "templateName": "cos", "stage": true}))).await?;
    golden
        .says(bench, "suspended from the start", &session(json!({"operation": "Shutdown", "templateName": "cos", "suspend": true})))
        .await?;
    golden
        .says(bench, "only what failed, where nothing did", &session(json!({"operation": "Boot", "templateName": "cos", "retryOf": "who"})))
        .await?;
    // Nothing of all this was done.
    let sessions: Vec<String> = bench.rig.sessions().await?.into_iter().filter_map(|session| session.metadata.name).collect();
    assert!(!sessions.contains(&"s".to_owned()), "{sessions:?}");
    let mut again: Value = serde_json::from_str(&template::session("who", "who", "Boot"))?;
    bench.rig.kubectl(&["delete", "session", "who"]).await?;
    golden.says(bench, "a name that ran before", &again).await?;
    again["metadata"]["name"] = json!("who-2");
    // A Session that goes on, for its nodes come up and never report.
    bench.site.set_faults(&nodes[3..5], &Faults { never_reports: true, ..Faults::default() });
    bench.template("slow", &nodes[3..5], |_| {}).await?;
    bench.rig.apply(&template::session("slow", "slow", "Boot")).await?;
    bench
        .rig
        .wait_components(|all| all.values().filter(|one| one.status.as_ref().is_some_and(|status| status.enabled)).count() == 2, LIMIT)
        .await?;
    golden
        .says(bench, "nodes that another Session is at work on", &session(json!({"operation": "Shutdown", "templateName": "cos"})))
        .await?;
    golden
        .says(bench, "a retry of a Session that goes on", &session(json!({"operation": "Boot", "templateName": "cos", "retryOf": "slow"})))
        .await?;
    bench.rig.cancel("slow").await?;
    bench.rig.wait_session("slow", Rig::is_complete, LIMIT).await?;
    bench.site.set_faults(&nodes[3..5], &Faults::default());
    Ok(())
}

pub async fn nodes_and_options(bench: &Bench, golden: &Golden) -> Result {
    let nodes = bench.nodes(0..12);
    let component = |name: &str, spec: Value| json!({"apiVersion": bos_crds::API_VERSION, "kind": "BootComponent", "metadata": {"name": name}, "spec": spec});
    golden.says(bench, "a run that wants nothing", &component(&nodes[5], json!({"run": "now"}))).await?;
    let unknown = json!({"run": "now", "desiredState": {"artifacts": "0123456789abcdef0123"}});
    golden.says(bench, "a run of artifacts that nobody knows", &component(&nodes[5], unknown)).await?;
    let nowhere = json!({"run": "now", "desiredState": {"image": "", "configuration": "nowhere"}});
    golden.says(bench, "a run with a configuration that CFS does not have", &component(&nodes[5], nowhere)).await?;
    golden.says(bench, "a desired state alone", &component(&nodes[5], json!({"desiredState": {"image": ""}}))).await?;
    golden.says(bench, "a desired state of a Session's node", &component(&nodes[3], json!({"desiredState": {"image": "other"}}))).await?;
    let off = json!({"run": "now", "desiredState": {"image": ""}});
    golden.says(bench, "a run of a locked node", &component(&nodes[10], off.clone())).await?;
    golden.says(bench, "a run that works", &component(&nodes[5], off.clone())).await?;
    golden.says(bench, "a run in a new object", &component("x4000c0s0b0n0", off)).await?;
    let over =
        json!({"run": "now", "session": {"namespace": NAMESPACE, "name": "slow", "uid": "gone", "createdAt": "2026-01-01T00:00:00Z"}});
    golden.says(bench, "a run in a Session that is over", &component(&nodes[5], over)).await?;
    let options = json!({"apiVersion": bos_crds::API_VERSION, "kind": "BootOptions", "metadata": {"name": "default"},
        "spec": {"maxBootWaitTimeSeconds": 5, "defaultRetryPolicy": 0}});
    golden.says(bench, "options that are likely a mistake", &options).await
}

pub async fn services_away(bench: &Bench, golden: &Golden) -> Result {
    let boot = session(json!({"operation": "Boot", "templateName": "cos"}));
    let away = async |service: Service, kind: OutageKind, title: &str, object: &Value| -> Result {
        bench.site.add_outage(OutageSpec::new(service, kind));
        if service == Service::Hsm {
            golden.settle().await;
        }
        let said = golden.says(bench, title, object).await;
        bench.site.clear_outages();
        said
    };
    away(Service::Hsm, OutageKind::Unavailable, "HSM is away", &boot).await?;
    golden.settle().await;
    away(Service::S3, OutageKind::Unavailable, "S3 is away", &changed(|_| {})).await?;
    away(Service::S3, OutageKind::Hang, "S3 does not answer", &boot).await?;
    away(Service::Cfs, OutageKind::Unavailable, "CFS is away", &changed(|_| {})).await?;
    away(Service::Pcs, OutageKind::Unavailable, "PCS is away", &boot).await?;
    away(Service::Ims, OutageKind::Unavailable, "IMS is away", &changed(|_| {})).await?;
    bench.rig.set_options(&json!({"imsErrorsFatal": true})).await?;
    let said = away(Service::Ims, OutageKind::Unavailable, "IMS is away where its answer is wanted", &changed(|_| {})).await;
    bench.rig.set_options(&json!({"imsErrorsFatal": false})).await?;
    said
}
