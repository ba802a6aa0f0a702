//! Compares the roles of our programs with what these have asked of API servers in a run of all tests; see `--help`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context as _;
use bos_e2e::control_plane::Binaries;
use bos_e2e::rig::Rig;
use bos_e2e::rights::{Excused, compare, granted, read, without_comment};
use clap::Parser;

/// Rights that no test uses, with the reason why they are needed.
const EXCUSED: &[Excused<'_>] = &[];
/// The files with rules of our programs.
const FILES: [&str; 4] = ["base/roles-operator.yaml", "base/roles-agent.yaml", "base/roles-people.yaml", "webhook/roles.yaml"];

/// Ends with 1 and names each right that is missing in manifests/base, manifests/webhook or an overlay, or that nothing uses.
#[derive(Debug, Parser)]
#[command(name = "bos-rights")]
struct Args {
    /// The folder that BOS_E2E_AUDIT_DIR named in a run of all tests.
    folder: PathBuf,
}

fn main() -> ExitCode {
    match check(&Args::parse().folder) {
        Ok(wrong) if wrong.is_empty() => ExitCode::SUCCESS,
        Ok(wrong) => {
            for line in &wrong {
                println!("rights: {line}");
            }
            println!("rights: {} items are wrong", wrong.len());
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bos-rights: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is wrong, each once, with the folders in which it is.
fn check(folder: &Path) -> anyhow::Result<Vec<String>> {
    let kubectl = Binaries::find(false)?.kubectl;
    let planes = read(folder)?;
    let mut wrong: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in FILES {
        let text = std::fs::read_to_string(Rig::manifests().join(file)).with_context(|| format!("reading {file}"))?;
        for line in without_comment(&text) {
            wrong.entry(format!("a rule without a comment, line {line}")).or_default().push(file.to_owned());
        }
    }
    let (mut folders, mut rights) = (vec![Rig::manifests().join("base"), Rig::manifests().join("webhook")], BTreeSet::new());
    for overlay in std::fs::read_dir(Rig::manifests().join("overlays"))? {
        folders.push(overlay?.path());
    }
    for folder in &folders {
        let output = Command::new(&kubectl).arg("kustomize").arg(folder).output().context("running kubectl")?;
        anyhow::ensure!(output.status.success(), "{}: {}", folder.display(), String::from_utf8_lossy(&output.stderr));
        let found = granted(&String::from_utf8(output.stdout)?).with_context(|| folder.display().to_string())?;
        anyhow::ensure!(!found.is_empty(), "{} grants nothing to our programs", folder.display());
        let name = folder.strip_prefix(Rig::manifests()).unwrap_or(folder).display().to_string();
        for line in compare(&found, &planes, EXCUSED) {
            wrong.entry(line).or_default().push(name.clone());
        }
        rights.extend(found);
    }
    let (asked, servers) = (planes.iter().map(Vec::len).sum::<usize>(), planes.len());
    println!("rights: {} rights in {} folders, {asked} requests of {servers} API servers", rights.len(), folders.len());
    Ok(wrong.into_iter().map(|(line, folders)| format!("{line} ({})", folders.join(", "))).collect())
}
