//! Runs kubectl as a person would.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::Context as _;

use super::process::{guarded, spawn};

/// What kubectl said and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// Its warnings and errors.
    pub stderr: String,
}

impl Output {
    /// Whether it ended with code 0.
    pub fn success(&self) -> bool {
        self.status.success()
    }

    /// What it printed, or an error with its own message.
    pub fn ok(self) -> anyhow::Result<String> {
        anyhow::ensure!(self.success(), "kubectl ended with {}: {}{}", self.status, self.stderr, self.stdout);
        Ok(self.stdout)
    }
}

/// A kubectl bound to one kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// The binary, the kubeconfig it uses, and a folder for its discovery cache.
    pub(super) fn new(program: PathBuf, kubeconfig: PathBuf, cache: PathBuf) -> Self {
        Self { program, kubeconfig, cache }
    }

    /// The same kubectl for somebody else.
    #[must_use]
    pub fn with_kubeconfig(&self, kubeconfig: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), ..self.clone() }
    }

    /// Runs it; an error only when it cannot be run.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.run_with_input(args, "").await
    }

    /// Runs it with this text as its stdin, as for `apply -f -`.
    pub async fn run_with_input(&self, args: &[&str], input: &str) -> anyhow::Result<Output> {
        let mut command = guarded(&self.program);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", &self.cache);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let input = input.to_owned();
        let finished = tokio::task::spawn_blocking(move || {
            let mut child = spawn(command).context("starting kubectl")?;
            if let Some(mut stdin) = child.stdin.take() {
                // A command that does not read its stdin may have closed it already.
                let _unread = stdin.write_all(input.as_bytes());
            }
            child.wait_with_output().context("waiting for kubectl")
        });
        let output = finished.await.context("running kubectl")??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Output { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
}
