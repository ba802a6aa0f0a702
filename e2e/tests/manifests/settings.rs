//! The settings in our overlays are those that the programs know.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use bos_e2e::control_plane::{ControlPlane, Process, ProcessSpec};
use bos_e2e::rig::{Profile, boa_binary, operator_binary, webhook_binary};
use serde_json::Value;

use crate::bench::{LIMIT, Result};
use crate::{applicable, folder};

/// The exit code of a program that was told something wrong.
const WRONG_SETTINGS: i32 = 2;

pub async fn are_read(control_plane: &ControlPlane) -> Result {
    let site = control_plane.folder().join("bos-site-files");
    std::fs::create_dir_all(&site)?;
    std::fs::write(site.join("token"), "a-token")?;
    std::fs::write(site.join("ca.crt"), control_plane.authority().cert_pem())?;
    let mut read = 0;
    for name in applicable()? {
        let built = control_plane.kubectl(&["kustomize", &folder(&name)]).await?.ok()?;
        for document in built.split("\n---\n") {
            let object: Value = serde_saphyr::from_str(document).with_context(|| name.clone())?;
            let map = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let Some(text) = object["data"]["config.yaml"].as_str().filter(|_| object["kind"] == "ConfigMap") else { continue };
            let file = site.join(format!("{}-{map}.yaml", name.replace('/', "-")));
            // What a pod has mounted.
            std::fs::write(&file, text.replace("/etc/bos-site/", &format!("{}/", site.display())))?;
            check(&name, &map, &file).await?;
            read += 1;
        }
    }
    // Two of the operator in the base, ha, csm and openchami, one of the webhook wherever it is.
    anyhow::ensure!(read >= 12, "only {read} files of settings were found");
    Ok(())
}

async fn check(name: &str, map: &str, file: &Path) -> Result {
    let webhook = map.starts_with("bos-webhook");
    let (binary, flags): (PathBuf, &[&str]) = if map.starts_with("bos-agent") {
        (boa_binary(Profile::Dev).await?, &["--session=bos/none", "--session-uid=none", "--job-uid=j", "--identity=none"])
    } else if webhook {
        (webhook_binary().await?, &["--listen=127.0.0.1:0", "--health-listen=127.0.0.1:0"])
    } else {
        (operator_binary(Profile::Dev).await?, &["--report-listen=127.0.0.1:0", "--health-listen=127.0.0.1:0"])
    };
    let program = binary.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // It goes no further than to look for a cluster.
    let spec = ProcessSpec::new(&program, &binary, file.with_extension("log"))
        .arg(format!("--config={}", file.display()))
        .args(flags.iter().map(ToString::to_string))
        .env("KUBECONFIG", "/nowhere/kubeconfig")
        .env("S3_ACCESS_KEY", "a")
        .env("S3_SECRET_KEY", "b");
    let process = Process::start(&spec)?;
    let ended = async {
        loop {
            match process.exit_status() {
                Some(status) => return status,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let ended = tokio::time::timeout(LIMIT, ended).await.with_context(|| format!("{name}: {map}: {program} does not end"))?;
    let said = process.log_tail(30);
    anyhow::ensure!(ended.code() != Some(WRONG_SETTINGS) && said.contains("no way to the cluster"), "{name}: {map}: {said}");
    Ok(())
}
