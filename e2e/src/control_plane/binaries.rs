//! Where the control plane's binaries are: in `KUBEBUILDER_ASSETS` where set, otherwise in the cache that
//! `hack/control-plane/build.sh` fills.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::checkout::{CONTROL_PLANE_SCRIPT, checkout};

/// The folder that administrators and other projects use for a ready-made control plane.
const ASSETS: &str = "KUBEBUILDER_ASSETS";

/// The binaries that a control plane consists of.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The store.
    pub etcd: PathBuf,
    /// The API server.
    pub kube_apiserver: PathBuf,
    /// Runs Jobs, garbage collection, default service accounts. Only where it is wanted.
    pub kube_controller_manager: Option<PathBuf>,
    /// The command line client.
    pub kubectl: PathBuf,
}

impl Binaries {
    /// Finds them, and builds what is missing, once: minutes on a fresh machine, with progress on stderr. Blocks.
    pub fn find(with_controller_manager: bool) -> anyhow::Result<Self> {
        let mut names = vec!["etcd", "kube-apiserver", "kubectl"];
        if with_controller_manager {
            names.push("kube-controller-manager");
        }
        let assets = std::env::var_os(ASSETS).filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let mut folders: Vec<PathBuf> = assets.into_iter().collect();
        if names.iter().any(|name| locate(&folders, name).is_none()) {
            folders.push(build(&names)?);
        }
        let path = |name: &str| locate(&folders, name).with_context(|| format!("{name} is in none of {folders:?}"));
        Ok(Self {
            etcd: path("etcd")?,
            kube_apiserver: path("kube-apiserver")?,
            kube_controller_manager: with_controller_manager.then(|| path("kube-controller-manager")).transpose()?,
            kubectl: path("kubectl")?,
        })
    }
}

fn locate(folders: &[PathBuf], name: &str) -> Option<PathBuf> {
    folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Runs the build script; its last line is the folder.
fn build(names: &[&str]) -> anyhow::Result<PathBuf> {
    let script = checkout().join(CONTROL_PLANE_SCRIPT);
    let output = Command::new(&script)
        .args(names)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("running {}", script.display()))?;
    anyhow::ensure!(output.status.success(), "{} failed ({}); its messages are above", script.display(), output.status);
    let stdout = String::from_utf8(output.stdout).context("the build script's answer")?;
    stdout.lines().last().map(PathBuf::from).context("the build script named no folder")
}
