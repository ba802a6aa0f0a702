//! The programs under test. Under cargo they are built before they are run, so that nobody measures or tests the one of yesterday.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::checkout::checkout;

/// Set to the path of an operator to run that one and build nothing.
const OPERATOR: &str = "BOS_OPERATOR_BIN";
/// Set to the path of a simulated site to run that one and build nothing.
const SITE: &str = "BOS_SITE_BIN";

/// Set to the path of an agent to run that one and build nothing.
const BOA: &str = "BOS_BOA_BIN";

/// Set to the path of a webhook to run that one and build nothing.
const WEBHOOK: &str = "BOS_WEBHOOK_BIN";

/// How the operator is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Optimised a little: what the checks measure.
    #[default]
    Dev,
    /// As it is shipped.
    Release,
}

/// The operator: `BOS_OPERATOR_BIN`; otherwise built now (once in this process) where cargo started us or another profile is wanted;
/// otherwise the one beside our own program, as `make` has built them together.
pub async fn operator_binary(profile: Profile) -> anyhow::Result<PathBuf> {
    static DEV: OnceCell<PathBuf> = OnceCell::const_new();
    static RELEASE: OnceCell<PathBuf> = OnceCell::const_new();
    let (built, flags): (_, &[&str]) = match profile {
        Profile::Dev => (&DEV, &[]),
        Profile::Release => (&RELEASE, &["--release"]),
    };
    built.get_or_try_init(|| find(OPERATOR, "bos-operator", flags)).await.cloned()
}

/// The simulated site: `BOS_SITE_BIN`, otherwise found as the operator is.
pub async fn site_binary() -> anyhow::Result<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT.get_or_try_init(|| find(SITE, "bos-site", &[])).await.cloned()
}

/// The agent of Sessions of mode v1: `BOS_BOA_BIN`, otherwise found as the operator is.
pub async fn boa_binary(profile: Profile) -> anyhow::Result<PathBuf> {
    static DEV: OnceCell<PathBuf> = OnceCell::const_new();
    static RELEASE: OnceCell<PathBuf> = OnceCell::const_new();
    let (built, flags): (_, &[&str]) = match profile {
        Profile::Dev => (&DEV, &[]),
        Profile::Release => (&RELEASE, &["--release"]),
    };
    built.get_or_try_init(|| find(BOA, "bos-boa", flags)).await.cloned()
}

/// The webhook: `BOS_WEBHOOK_BIN`, otherwise found as the operator is.
pub async fn webhook_binary() -> anyhow::Result<PathBuf> {
    static BUILT: OnceCell<PathBuf> = OnceCell::const_new();
    BUILT.get_or_try_init(|| find(WEBHOOK, "bos-webhook", &[])).await.cloned()
}

async fn find(variable: &str, name: &'static str, flags: &'static [&'static str]) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|path| !path.is_empty()) {
        return Ok(path.into());
    }
    if let Some(path) = beside_us(name).filter(|_| flags.is_empty()) {
        return Ok(path);
    }
    tokio::task::spawn_blocking(move || build(name, flags)).await.context("building")?
}

/// A program in our own folder. Not under cargo: it builds only what it was asked for, so the neighbour may be an old one.
fn beside_us(name: &str) -> Option<PathBuf> {
    if std::env::var_os("CARGO").is_some() {
        return None;
    }
    let path = std::env::current_exe().ok()?.with_file_name(name);
    path.is_file().then_some(path)
}

/// A line of cargo's answer, as far as we read it.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Builds a program with its progress on our stderr, and returns its path. Blocks.
fn build(name: &str, flags: &[&str]) -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // The whole workspace's choice of features, so that what `make` has built is not built once more in another form.
    command.args(["build", "--workspace", "--bin", name, "--message-format=json-render-diagnostics"]).args(flags);
    command.current_dir(checkout()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("running cargo build --bin {name}"))?;
    anyhow::ensure!(output.status.success(), "cargo build --bin {name} failed; its messages are above");
    executable(&output.stdout, name).with_context(|| format!("cargo built no {name}"))
}

fn executable(messages: &[u8], name: &str) -> Option<PathBuf> {
    let lines = messages.split(|byte| *byte == b'\n');
    let messages = lines.filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    messages.filter(|message| message.target.as_ref().is_some_and(|target| target.name == name)).find_map(|message| message.executable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_executable_of_the_right_target_is_taken() {
        let answer = br#"{"reason":"compiler-artifact","target":{"name":"bos_e2e"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"other"},"executable":"/t/other"}
{"reason":"compiler-artifact","target":{"name":"bos-site"},"executable":"/t/bos-site"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(executable(answer, "bos-site"), Some(PathBuf::from("/t/bos-site")));
        assert_eq!(executable(answer, "bos-operator"), None);
    }
}
