//! Our manifests, as an administrator applies them: every overlay, every sample, and what each role for people may and may not do.
//!
//! One control plane with many cases. Its controller manager puts roles together and makes pods, which no kubelet runs.
//! `BOS_CASE=text` runs only the cases with this in their name.

#![allow(clippy::unwrap_used, reason = "helpers of tests may panic too")]

#[allow(dead_code, reason = "shared with other targets; each uses its part")]
#[path = "../boot/bench.rs"]
mod bench;
mod fresh;
mod overlays;
mod roles;
mod samples;
mod settings;

use bench::{Cases, Result};
use bos_e2e::control_plane::ControlPlane;
use bos_e2e::rig::Rig;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_we_ship_is_what_the_api_server_takes() -> Result {
    let control_plane = ControlPlane::builder().controller_manager(true).start().await?;
    let mut cases = Cases::default();
    // The first thing that this API server hears of us.
    cases.run("the base, in one step", overlays::base(&control_plane)).await;
    cases.run("every overlay, twice", overlays::all(&control_plane)).await;
    cases.run("nothing is let in but by its name", overlays::closed(&control_plane)).await;
    cases.run("settings are read by the programs", settings::are_read(&control_plane)).await;
    cases.run("every sample", samples::all(&control_plane)).await;
    cases.run("what nobody has looked at", fresh::objects(&control_plane)).await;
    cases.run("roles, right by right", roles::right_by_right(&control_plane)).await;
    cases.run("roles, as people use them", roles::as_people_use_them(&control_plane)).await;
    control_plane.stop().await;
    cases.verdict()
}

/// A folder of our manifests, as kubectl is told of it.
fn folder(name: &str) -> String {
    Rig::manifests().join(name).to_str().unwrap().to_owned()
}

/// Folders of our manifests that can be applied, those of the file system: a new one cannot be forgotten.
fn applicable() -> Result<Vec<String>> {
    let mut found = vec!["base".to_owned(), "webhook".to_owned()];
    for entry in std::fs::read_dir(Rig::manifests().join("overlays"))? {
        found.push(format!("overlays/{}", entry?.file_name().to_string_lossy()));
    }
    found.sort();
    Ok(found)
}
