//! Certificate and key in files, as cert-manager's are mounted into the pod; read again when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::Served;

/// The kubelet brings a changed Secret within a minute or so; the old certificate is good for weeks then.
const PERIOD: Duration = Duration::from_secs(10);

/// Reads both files now, and again until `cancel` is cancelled.
///
/// # Errors
/// When they cannot be used at the start. Later what was served stays.
pub(crate) async fn follow(certificate: PathBuf, key: PathBuf, served: Arc<Served>, cancel: CancellationToken) -> anyhow::Result<()> {
    read(&certificate, &key, &served).await?;
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = cancel.cancelled() => return,
                () = tokio::time::sleep(PERIOD) => {}
            }
            match read(&certificate, &key, &served).await {
                Ok(true) => tracing::info!("another certificate is served"),
                Ok(false) => {}
                // Between the two files of a renewal, say.
                Err(error) => tracing::warn!(error = format!("{error:#}"), "the certificate cannot be read again; the one before stays"),
            }
        }
    });
    Ok(())
}

async fn read(certificate: &PathBuf, key: &PathBuf, served: &Served) -> anyhow::Result<bool> {
    let chain = tokio::fs::read(certificate).await.with_context(|| format!("{}", certificate.display()))?;
    let secret = tokio::fs::read(key).await.with_context(|| format!("{}", key.display()))?;
    served.set(&chain, &secret).with_context(|| format!("{} and {}", certificate.display(), key.display()))
}
