//! What proves a boot where no node reports, and what IMS has to say of the images.

use std::ops::Range;

use bos_crds::Session;
use bos_e2e::rig::template;
use bos_e2e::site::{CallFilter, Faults, ImageSpec, OutageKind, OutageSpec, Service};
use serde_json::json;

use crate::bench::{Bench, Commands, LIMIT, Result, message, outcome};

/// A site without bos-reporter boots by what HSM says, or by power alone.
pub async fn without_reports(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.site.set_faults(&nodes, &Faults { never_reports: true, ..Faults::default() });
    for evidence in ["HSMReady", "PowerState"] {
        bench.rig.set_options(&json!({"bootEvidence": evidence})).await?;
        let name = format!("by-{}", evidence.to_lowercase());
        bench.template(&name, &nodes, |_| {}).await?;
        let mark = bench.mark();
        bench.rig.apply(&template::session(&name, &name, "Reboot")).await?;
        assert_eq!(outcome(&bench.ended(&name).await?), "Succeeded/Succeeded", "{evidence}");
        let commands = nodes.iter().map(|node| bench.commands(&mark, node).on).collect::<Vec<_>>();
        assert_eq!(commands, vec![1; nodes.len()], "{evidence}");
    }
    bench.rig.set_options(&json!({"bootEvidence": "NodeReport"})).await?;
    bench.site.set_faults(&nodes, &Faults::default());
    Ok(())
}

/// HSM that goes on calling a node Ready proves nothing: the node is powered on as often as allowed, then failed and left on.
pub async fn ready_all_along(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.rig.set_options(&json!({"bootEvidence": "HSMReady"})).await?;
    bench.site.set_faults(&nodes, &Faults { never_reports: true, ..Faults::default() });
    // It is Ready from a boot before, and HSM's event chain is broken from then on.
    bench.template("ready", &nodes, |_| {}).await?;
    assert_eq!(outcome(&bench.boot("ready-1", "ready").await?), "Succeeded/Succeeded");
    bench.site.configure(|settings| settings.state_follows_power = false);
    bench.rig.apply(&template::session("ready-2", "ready", "Reboot")).await?;
    let ended = bench.ended("ready-2").await?;
    bench.site.configure(|settings| settings.state_follows_power = true);
    bench.rig.set_options(&json!({"bootEvidence": "NodeReport"})).await?;
    assert_eq!(outcome(&ended), "Failed/NodesFailed");
    let failure = &ended.status.as_ref().unwrap().failures[0];
    assert!(failure.reason == "BootTimeout" && failure.message.contains("Ready all along"), "{failure:?}");
    assert!(failure.message.contains("boot script fetched"), "{failure:?}");
    assert!(nodes.iter().all(|node| bench.site.node(node).unwrap().power));
    Ok(())
}

/// IMS refuses an image for another architecture; whether it must know the image and must answer is up to the options.
pub async fn images(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let image = |id: &str, arch: &str| ImageSpec { id: id.into(), arch: arch.into(), ..ImageSpec::default() };
    let arm = image("aaaa3a52-1d4f-4c7e-9a51-0b8f6a2d9e12", "aarch64");
    bench.site.add_image(&arm);
    let with_image = async |name: &str, image: &ImageSpec| -> Result {
        let path = template::manifest_path(image);
        bench.template(name, &nodes, |object| object["spec"]["bootSets"][0]["path"] = json!(path)).await
    };
    let mark = bench.mark();
    with_image("arm", &arm).await?;
    let ended = bench.boot("arm", "arm").await?;
    assert_eq!(outcome(&ended), "Failed/ImageRefused");
    assert!(message(&ended).contains("aarch64") && message(&ended).contains("X86"), "{}", message(&ended));
    bench.assert_commands(&mark, &nodes, Commands::NONE);

    // Not in IMS, but in S3: a warning, or refused.
    let path = template::manifest_path(&ImageSpec::default());
    let manifest = bench.site.object("boot-images", path.trim_start_matches("s3://boot-images/")).unwrap();
    bench.site.put_object("boot-images", "not-in-ims/manifest.json", manifest);
    bench.template("not-in-ims", &nodes, |o| o["spec"]["bootSets"][0]["path"] = json!("s3://boot-images/not-in-ims/manifest.json")).await?;
    bench.rig.set_options(&json!({"imsImagesMustExist": true})).await?;
    assert_eq!(outcome(&bench.boot("must-exist", "not-in-ims").await?), "Failed/ArtifactsMissing");
    bench.rig.set_options(&json!({"imsImagesMustExist": false})).await?;
    let ended = bench.boot("need-not-exist", "not-in-ims").await?;
    assert_eq!(outcome(&ended), "Succeeded/Succeeded");
    let warnings = ended.status.unwrap().warnings;
    assert!(warnings.iter().any(|text| text.contains("IMS has no image not-in-ims")), "{warnings:?}");

    // IMS is away: waited for, or not.
    bench.rig.set_options(&json!({"imsErrorsFatal": true})).await?;
    bench.site.add_outage(OutageSpec::new(Service::Ims, OutageKind::Unavailable));
    bench.template("ims-away", &nodes, |_| {}).await?;
    bench.rig.apply(&template::session("ims-away", "ims-away", "Boot")).await?;
    let waits = |session: &Session| message(session).contains("IMS is not available");
    bench.rig.wait_session("ims-away", waits, LIMIT).await?;
    bench.rig.set_options(&json!({"imsErrorsFatal": false})).await?;
    bench.site.clear_outages();
    assert_eq!(outcome(&bench.ended("ims-away").await?), "Succeeded/Succeeded");
    Ok(())
}

/// What needs neither CFS nor IMS works, what does is refused in words that say so, and neither is called.
pub async fn bare(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("with-cfs", &nodes, |_| {}).await?;
    let ended = bench.boot("with-cfs", "with-cfs").await?;
    assert_eq!(outcome(&ended), "Failed/ConfigurationUnknown");
    assert!(message(&ended).contains("this site has no CFS (cfs.baseUrl is none)"), "{}", message(&ended));
    let plain = |object: &mut serde_json::Value| {
        object["spec"].as_object_mut().unwrap().remove("cfs");
        let set = object["spec"]["bootSets"][0].as_object_mut().unwrap();
        set.remove("rootfsProvider");
        set.remove("rootfsProviderPassthrough");
    };
    bench.template("plain", &nodes, plain).await?;
    assert_eq!(outcome(&bench.boot("plain", "plain").await?), "Succeeded/Succeeded");
    let calls = bench.site.calls(&CallFilter::default());
    assert!(!calls.iter().any(|call| matches!(call.service, Service::Cfs | Service::Ims)), "{calls:?}");
    Ok(())
}
