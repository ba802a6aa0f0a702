//! Sessions that never begin: templates that cannot work or do not come, and times that have passed.

use std::ops::Range;

use bos_e2e::rig::template;
use bos_e2e::site::{ImageDefect, ImageSpec};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::bench::{Bench, Commands, LIMIT, Result, message, outcome};

/// A template, what is changed in it, and what its Session must say.
struct Bad {
    name: &'static str,
    pointer: &'static str,
    value: Value,
    reason: &'static str,
    words: &'static [&'static str],
}

impl Bad {
    fn field(name: &'static str, pointer: &'static str, value: Value, reason: &'static str, words: &'static [&'static str]) -> Self {
        Self { name, pointer, value, reason, words }
    }

    /// The template is right, its image is not.
    fn image(bench: &Bench, name: &'static str, defect: ImageDefect, words: &'static [&'static str]) -> Self {
        let image = ImageSpec { id: format!("bad-{name}"), name: name.into(), defect: Some(defect), ..ImageSpec::default() };
        bench.site.add_image(&image);
        Self::field(name, "/spec/bootSets/0/path", json!(template::manifest_path(&image)), "ArtifactsMissing", words)
    }
}

pub async fn bad_templates(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    let mark = bench.mark();
    let nowhere = json!("s3://boot-images/nowhere/manifest.json");
    let bad = [
        Bad::field(
            "no-manifest",
            "/spec/bootSets/0/path",
            nowhere,
            "ArtifactsMissing",
            &["Boot set compute", "manifest", "nowhere", "does not exist in S3"],
        ),
        Bad::field("no-configuration", "/spec/cfs/configuration", json!("cos-9"), "ConfigurationUnknown", &["CFS", "cos-9"]),
        Bad::field(
            "provider",
            "/spec/bootSets/0/rootfsProvider",
            json!("nfs"),
            "UnsupportedProvider",
            &["Boot set compute", "nfs", "sbps"],
        ),
        Bad::image(bench, "no-kernel", ImageDefect::NoKernel, &["Boot set compute", "manifest", "kernel"]),
        Bad::image(bench, "missing-kernel", ImageDefect::MissingKernelObject, &["Boot set compute", "kernel", "does not exist in S3"]),
        Bad::image(bench, "two-kernels", ImageDefect::DuplicateKernel, &["Boot set compute", "kernel"]),
        Bad::image(bench, "bad-json", ImageDefect::BadJson, &["Boot set compute", "manifest", "JSON"]),
        Bad::image(bench, "missing-initrd", ImageDefect::MissingInitrdObject, &["Boot set compute", "initrd", "does not exist in S3"]),
    ];
    let ended = join_all(bad.into_iter().map(|bad| one_bad(bench, &nodes, bad))).await;
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    let failed: Vec<String> = ended.into_iter().filter_map(|result| result.err().map(|error| format!("{error:#}"))).collect();
    anyhow::ensure!(failed.is_empty(), "{}", failed.join("\n  "));
    Ok(())
}

async fn one_bad(bench: &Bench, nodes: &[String], bad: Bad) -> Result {
    bench.template(bad.name, nodes, |object| *object.pointer_mut(bad.pointer).unwrap() = bad.value).await?;
    let ended = bench.boot(bad.name, bad.name).await?;
    let said = message(&ended);
    anyhow::ensure!(outcome(&ended) == format!("Failed/{}", bad.reason), "{}: {}: {said}", bad.name, outcome(&ended));
    anyhow::ensure!(bad.words.iter().all(|word| said.contains(word)), "{}: {said:?} has not all of {:?}", bad.name, bad.words);
    Ok(())
}

pub async fn late_template(bench: &Bench, range: Range<usize>) -> Result {
    bench.rig.apply(&template::session("late-template", "late-template", "Boot")).await?;
    let waits = |session: &bos_crds::Session| message(session).contains("SessionTemplate late-template does not exist; waiting");
    bench.rig.wait_session("late-template", waits, LIMIT).await?;
    bench.template("late-template", &bench.nodes(range), |_| {}).await?;
    assert_eq!(outcome(&bench.ended("late-template").await?), "Succeeded/Succeeded");
    Ok(())
}

pub async fn no_template(bench: &Bench) -> Result {
    let ended = bench.boot("no-template", "nowhere").await?;
    assert_eq!(outcome(&ended), "Failed/TemplateNotFound");
    assert!(message(&ended).contains("SessionTemplate nowhere"), "{}", message(&ended));
    Ok(())
}

pub async fn too_late_or_tracked(bench: &Bench, range: Range<usize>) -> Result {
    let nodes = bench.nodes(range);
    bench.template("tracked", &nodes, |_| {}).await?;
    let mark = bench.mark();
    let spec = json!({"operation": "Boot", "templateName": "tracked", "startBefore": "2020-01-01T00:00:00Z"});
    bench.rig.apply(&template::session_with("too-late", &spec)).await?;
    let ended = bench.ended("too-late").await?;
    assert_eq!(outcome(&ended), "NotStarted/Expired");
    assert!(message(&ended).contains("2020-01-01"), "{}", message(&ended));
    let mut tracked: Value = serde_json::from_str(&template::session("tracked", "tracked", "Boot"))?;
    tracked["metadata"]["annotations"] = json!({"argocd.argoproj.io/tracking-id": "site:bos.hpe.com/Session:bos/tracked"});
    bench.rig.apply(&tracked.to_string()).await?;
    let ended = bench.ended("tracked").await?;
    assert_eq!(outcome(&ended), "NotStarted/StartBeforeRequired");
    assert!(message(&ended).contains("GitOps") && message(&ended).contains("startBefore"), "{}", message(&ended));
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    // In time, it runs.
    tracked["metadata"]["name"] = json!("tracked-in-time");
    tracked["spec"]["startBefore"] = json!("2126-01-01T00:00:00Z");
    bench.rig.apply(&tracked.to_string()).await?;
    assert_eq!(outcome(&bench.ended("tracked-in-time").await?), "Succeeded/Succeeded");
    // What the tool does then: it applies it again, and prunes and creates it again, while its time is not over.
    bench.site.power(&nodes, false);
    let mark = bench.mark();
    let again = bench.rig.apply(&tracked.to_string()).await?;
    assert!(again.contains("unchanged"), "{again}");
    bench.rig.kubectl(&["delete", "sessions.bos.hpe.com", "tracked-in-time"]).await?;
    bench.rig.apply(&tracked.to_string()).await?;
    assert_eq!(outcome(&bench.ended("tracked-in-time").await?), "NotStarted/AlreadyRan");
    bench.assert_commands(&mark, &nodes, Commands::NONE);
    Ok(())
}
