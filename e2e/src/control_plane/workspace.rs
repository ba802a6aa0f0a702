//! The temporary folder of one control plane, which is removed however this process ends.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::Context as _;

/// Set to anything to keep the folder, logs and all.
const KEEP: &str = "BOS_E2E_KEEP_LOGS";

/// Waits until its stdin closes, which also happens when we are killed, then removes the folder. It tries again for a while, as
/// servers that die in the same moment may still write.
const REMOVER: &str = r#"cat >/dev/null; n=0; until rm -rf -- "$1" 2>/dev/null || [ "$n" -ge 50 ]; do n=$((n+1)); sleep 0.1; done"#;

/// A folder that disappears when this is dropped or this process dies, unless `BOS_E2E_KEEP_LOGS` is set.
pub(super) struct Workspace {
    path: PathBuf,
    remover: Option<(Child, ChildStdin)>,
}

impl Workspace {
    /// Makes the folder.
    pub(super) fn new() -> anyhow::Result<Self> {
        let path = tempfile::Builder::new().prefix("bos-e2e-").tempdir().context("making a temporary folder")?.keep();
        let remover = if std::env::var_os(KEEP).is_some() {
            eprintln!("control plane: logs are kept in {}", path.display());
            None
        } else {
            Some(start_remover(&path)?)
        };
        Ok(Self { path, remover })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder in it.
    pub(super) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(path)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Some((mut child, mut stdin)) = self.remover.take() {
            let _flushed = stdin.flush();
            drop(stdin);
            let _status = child.wait();
        }
    }
}

fn start_remover(path: &Path) -> anyhow::Result<(Child, ChildStdin)> {
    // Not tied to our life like the servers: it must outlast us. Its own group keeps Ctrl-C away from it.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", REMOVER, "remover"]).arg(path).process_group(0);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().context("starting /bin/sh")?;
    let stdin = child.stdin.take().context("the remover has no stdin")?;
    Ok((child, stdin))
}
