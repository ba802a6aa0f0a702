//! What must be there before the engine starts: an API server that is new enough, and our CRDs.

use std::time::Duration;

use bos_engine::clients::{Backoff, CALL_TIMEOUT, CallError, Verdict, bounded};
use bos_engine::telemetry::Telemetry;
use kube::Client;
use tokio_util::sync::CancellationToken;

/// The oldest Kubernetes whose CRD validation our schemas can rely on.
const OLDEST: (u32, u32) = (1, 32);
/// What has to be served, in the order in which a missing one is named.
const RESOURCES: [&str; 4] = ["sessiontemplates", "sessions", "bootcomponents", "bootoptions"];

/// Why the operator cannot work with this cluster.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PreflightError {
    /// The server is too old.
    #[error("this cluster runs Kubernetes {found}; {}.{} or newer is needed", OLDEST.0, OLDEST.1)]
    TooOld {
        /// What it says it is.
        found: String,
    },
}

/// Waits until the cluster is fit, and says meanwhile what is missing. False when `cancel` came first.
///
/// # Errors
/// When waiting cannot help.
pub(crate) async fn wait_for_cluster(client: &Client, telemetry: &Telemetry, cancel: &CancellationToken) -> Result<bool, PreflightError> {
    let look = async || Ok(look(client).await?.map_or(Ok(()), Err));
    Ok(wait_for(look, telemetry, cancel).await?.is_some())
}

/// Looks until it finds something, and says meanwhile what is missing. None when `cancel` came first.
///
/// # Errors
/// When waiting cannot help.
pub(crate) async fn wait_for<T>(
    look: impl AsyncFn() -> Result<Result<T, String>, PreflightError>,
    telemetry: &Telemetry,
    cancel: &CancellationToken,
) -> Result<Option<T>, PreflightError> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    let mut said = String::new();
    loop {
        telemetry.beat();
        let found = tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(None),
            found = look() => found?,
        };
        let missing = match found {
            Ok(found) => return Ok(Some(found)),
            Err(missing) => missing,
        };
        if missing != said {
            tracing::warn!("waiting: {missing}");
            said.clone_from(&missing);
        }
        telemetry.set_waiting(missing);
        let pause = backoff.next_pause();
        tokio::select! {
            () = cancel.cancelled() => return Ok(None),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// What is missing now.
async fn look(client: &Client) -> Result<Option<String>, PreflightError> {
    match bounded(CALL_TIMEOUT, client.apiserver_version()).await {
        Ok(version) => check_version(&version.major, &version.minor, &version.git_version)?,
        Err(error) => return Ok(Some(format!("the API server does not answer: {}", error.message()))),
    }
    Ok(missing_crds(client).await)
}

/// Servers add letters to the number, as in "32+". One that cannot be read is let through: it is not ours to judge.
fn check_version(major: &str, minor: &str, found: &str) -> Result<(), PreflightError> {
    let number = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u32>().ok();
    match number(major).zip(number(minor)) {
        Some(version) if version < OLDEST => Err(PreflightError::TooOld { found: found.to_owned() }),
        Some(_) => Ok(()),
        None => {
            tracing::warn!(version = found, "cannot tell the version of Kubernetes; going on");
            Ok(())
        }
    }
}

/// Asks for what the group serves, which needs no rights beyond those of every account.
async fn missing_crds(client: &Client) -> Option<String> {
    let served = match bounded(CALL_TIMEOUT, client.list_api_group_resources(bos_crds::API_VERSION)).await {
        Ok(list) => list.resources.into_iter().map(|resource| resource.name).collect(),
        Err(error) if is_absent(&error) => Vec::new(),
        Err(error) => return Some(format!("the API server does not say which CRDs it has: {}", error.message())),
    };
    missing_of(&served)
}

fn is_absent(error: &CallError) -> bool {
    error.verdict() == Verdict::NotFound
}

fn missing_of(served: &[String]) -> Option<String> {
    let has = |name: &str| served.iter().any(|served| served == name);
    let missing: Vec<String> = RESOURCES
        .into_iter()
        .filter(|name| !has(name) || !has(&format!("{name}/status")))
        .map(|name| format!("{name}.{}", bos_crds::GROUP))
        .collect();
    if missing.is_empty() {
        return None;
    }
    Some(format!("the CRDs {} are not installed in version {}; apply manifests/crds", missing.join(", "), bos_crds::VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_cluster_is_refused_by_name() {
        let error = check_version("1", "31+", "v1.31.4-eks").unwrap_err().to_string();
        assert_eq!(error, "this cluster runs Kubernetes v1.31.4-eks; 1.32 or newer is needed");
        for (major, minor) in [("1", "32"), ("1", "33+"), ("2", "0"), ("", "")] {
            check_version(major, minor, "v").unwrap();
        }
    }

    #[test]
    fn every_missing_crd_is_named() {
        let all: Vec<String> = RESOURCES.iter().flat_map(|name| [(*name).to_owned(), format!("{name}/status")]).collect();
        assert_eq!(missing_of(&all), None);
        let without_status: Vec<String> = all.iter().filter(|name| *name != "sessions/status").cloned().collect();
        let missing = missing_of(&without_status).unwrap();
        assert!(missing.contains("sessions.bos.hpe.com") && !missing.contains("bootoptions"), "{missing}");
        assert_eq!(missing_of(&[]).unwrap().matches("bos.hpe.com").count(), RESOURCES.len());
    }
}
